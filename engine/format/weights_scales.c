#include "engine/format/weights_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/format/pack.h"
#include "engine/format/quant.h"

static int is_float(const struct vibe_st_tensor *t)
{
    return t->is_known && t->dtype <= VIBE_F8_E4M3;
}

static int ends_with(const char *text, const char *tail)
{
    size_t n = strlen(text);
    size_t m = strlen(tail);

    return n >= m && strcmp(text + n - m, tail) == 0;
}

/* What ends the name of a scale: ours, and what other programs write of float8
 * and int8; _inv is multiplied by, too, for all its name. */
static const char *tail_of_scale(const char *name)
{
    static const char *const tails[] = {".scale_weight", ".weight_scale",
                                        ".weight_scale_inv"};

    for (size_t i = 0; i < sizeof(tails) / sizeof(*tails); i++)
        if (ends_with(name, tails[i]))
            return tails[i];
    return NULL;
}

int vibe_weights_is_scale(const struct vibe_weights_entry *e)
{
    return tail_of_scale(e->name) != NULL;
}

/*
 * Widen n values to f32.  Through a small buffer: data may lie at any address,
 * and vibe_dtype_to_f32 takes elements where they belong.
 */
void vibe_weights_widen(float *out, const struct vibe_st_tensor *t)
{
    const size_t size = vibe_dtype_size(t->dtype);
    const char *in = t->data;
    _Alignas(16) char chunk[8192];
    const size_t step = sizeof(chunk) / size;

    for (size_t i = 0; i < t->n; i += step) {
        size_t n = t->n - i < step ? t->n - i : step;

        memcpy(chunk, in + i * size, n * size);
        vibe_dtype_to_f32(out + i, chunk, t->dtype, n);
    }
}

/* Widened scales; NULL with *rc set where there is no memory or one is not
 * finite. */
static float *read_scales(const struct vibe_weights *w,
                          const struct vibe_weights_entry *from, int *rc,
                          struct vibe_error *err)
{
    const struct vibe_st_tensor *t = from->tensor;
    float *scale = malloc((t->n + 1) * sizeof(*scale)); /* n may be 0 */

    if (!scale) {
        *rc = vibe_weights_no_memory(w, err);
        return NULL;
    }
    vibe_weights_widen(scale, t);
    for (size_t i = 0; i < t->n; i++)
        if (!isfinite(scale[i])) {
            *rc = vibe_fail(err, VIBE_E_FORMAT,
                            "%s: %.80s holds %g, expected finite scales",
                            vibe_safetensors_path(from->file), t->name,
                            (double)scale[i]);
            free(scale);
            return NULL;
        }
    *rc = VIBE_OK;
    return scale;
}

/* Scales of groups make bytes a matrix of int4. */
static int attach_groups(struct vibe_weights *w,
                         const struct vibe_weights_entry *scale,
                         struct vibe_weights_entry *e, struct vibe_error *err)
{
    const struct vibe_st_tensor *t = scale->tensor;
    const size_t K = 2 * e->shape[1];
    int rc;

    if (t->shape[1] && K % t->shape[1] == 0)
        e->group = K / t->shape[1];
    if (t->shape[0] != e->shape[0] || K % VIBE_QUANT_GROUP ||
        (e->group != VIBE_QUANT_GROUP && e->group != VIBE_QUANT_GROUP_LARGE))
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: %.80s has shape [%zu,%zu], expected a scale for "
                         "every 64 or 128 of [%zu,%zu] int4",
                         vibe_safetensors_path(scale->file), t->name,
                         t->shape[0], t->shape[1], e->shape[0], K);
    e->group_scale = read_scales(w, scale, &rc, err);
    e->dtype = VIBE_I4;
    e->shape[1] = K;
    e->n *= 2;
    return rc;
}

/* Give the weight beside a scale its scale; others have none. */
static int attach_scale(struct vibe_weights *w,
                        const struct vibe_weights_entry *scale,
                        struct vibe_error *err)
{
    const struct vibe_st_tensor *t = scale->tensor;
    const char *file = vibe_safetensors_path(scale->file);
    char name[VIBE_WEIGHTS_NAME_BYTES];
    char found[VIBE_WEIGHTS_SHAPE_BYTES];
    struct vibe_weights_entry *e = NULL;
    size_t rows;
    int rc;

    if (snprintf(
            name, sizeof(name), "%.*s.weight",
            (int)(strlen(scale->name) - strlen(tail_of_scale(scale->name))),
            scale->name) < (int)sizeof(name))
        e = vibe_weights_find(w, name);
    if (!e)
        return VIBE_OK;
    if (e->scale || e->group_scale)
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: %.80s is a second scale of one weight", file,
                         t->name);
    rows = e->n_dims ? e->shape[0] : 1;
    if (e->tensor->is_known && e->dtype == VIBE_U8 && is_float(t) &&
        e->n_dims == 2 && t->n_dims == 2)
        return attach_groups(w, scale, e, err);
    if (!is_float(t))
        return vibe_fail(err, VIBE_E_UNSUPPORTED,
                         "%s: %.80s is %s, expected F32, BF16, F16 or F8_E4M3",
                         file, t->name, t->dtype_name);
    if (t->n != 1 && !(t->n == rows && t->n_dims && t->shape[0] == rows)) {
        vibe_weights_say_shape(found, t->shape, t->n_dims);
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: %.80s has shape %s, expected one value or [%zu]",
                         file, t->name, found, rows);
    }
    e->n_scales = t->n;
    e->scale = read_scales(w, scale, &rc, err);
    return rc;
}

/* Bytes that begin as packed bf16 does must be that. */
static int attach_blocks(struct vibe_weights *w, struct vibe_weights_entry *e,
                         struct vibe_error *err)
{
    const struct vibe_st_tensor *t = e->tensor;
    struct vibe_pack_header header = {0};
    size_t n_blocks;
    char name[VIBE_WEIGHTS_NAME_BYTES];
    int rc;

    if (!t->is_known || t->dtype != VIBE_U8 || t->n_dims != 1 ||
        t->n_bytes < sizeof(header) || !ends_with(e->name, ".weight"))
        return VIBE_OK;
    memcpy(&header, t->data, sizeof(header));
    if (header.magic != VIBE_PACK_MAGIC)
        return VIBE_OK;
    snprintf(name, sizeof(name), "%s: %.80s", vibe_safetensors_path(e->file),
             t->name);
    rc = vibe_pack_check(t->data, t->n_bytes, header.n_rows, header.n_columns,
                         name, err);
    if (rc != VIBE_OK)
        return rc;
    n_blocks = vibe_pack_n_blocks(header.n_rows);
    e->blocks = malloc((n_blocks + 1) * sizeof(*e->blocks));
    if (!e->blocks)
        return vibe_weights_no_memory(w, err);
    memcpy(e->blocks, (const char *)t->data + sizeof(header),
           (n_blocks + 1) * sizeof(*e->blocks));
    e->dtype = VIBE_BF16_PACKED;
    e->n_dims = 2;
    e->shape[0] = header.n_rows;
    e->shape[1] = header.n_columns;
    e->n = e->shape[0] * e->shape[1]; /* fits: 11 bits of each do */
    e->data = vibe_pack_block_at(t->data, 0);
    return VIBE_OK;
}

int vibe_weights_attach_scales(struct vibe_weights *w, struct vibe_error *err)
{
    int rc = VIBE_OK;

    for (size_t i = 0; i < w->n && rc == VIBE_OK; i++)
        if (vibe_weights_is_scale(&w->entries[i]))
            rc = attach_scale(w, &w->entries[i], err);
        else
            rc = attach_blocks(w, &w->entries[i], err);
    return rc;
}
