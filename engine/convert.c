/* Checkpoints in other dtypes: written, or only judged. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/team.h"
#include "engine/format/names.h"
#include "engine/format/pack.h"
#include "engine/format/quant.h"
#include "engine/format/recode.h"
#include "engine/format/safetensors_stream.h"
#include "engine/format/weights.h"
#include "engine/precision.h"
#include "engine/vibevoice.h"

enum { NAME_BYTES = 512 };

/* What the matrix of a file is to become: of linear layers alone, so that
 * norms, biases and scalars stay, and convolutions with them. */
static enum vibe_dtype wanted_dtype(const struct vibe_weights *w,
                                    const struct vibe_weight *weight)
{
    static const char suffix[] = ".weight";
    const size_t n = strlen(weight->name);
    char name[NAME_BYTES];

    if (weight->n_dims != 2 || n < sizeof(suffix) ||
        strcmp(weight->name + n - strlen(suffix), suffix) != 0 ||
        vibe_names_original(name, sizeof(name), weight->name))
        return weight->dtype;
    return vibe_recode_dtype(weight, vibe_weights_kept(w, name));
}

/* A weight as it stands in a file. */
static struct vibe_recoded as_stored(const struct vibe_weight *weight)
{
    const size_t n = weight->n_dims ? weight->shape[0] : 1;
    struct vibe_recoded r = {
        .dtype = weight->dtype,
        .data = (void *)(uintptr_t)weight->data,
        .scale = (float *)(uintptr_t)weight->scale,
        .group_scale = (float *)(uintptr_t)weight->group_scale,
        .group = weight->group,
        .blocks = (uint64_t *)(uintptr_t)weight->blocks,
    };

    if (r.blocks) { /* data is behind the header */
        r.data = (char *)r.data - r.blocks[0];
        r.bytes = r.blocks[vibe_pack_n_blocks(n)];
    }
    return r;
}

/* Scales of groups, as the file has them: f16. */
static int add_group_scales(struct vibe_safetensors_stream *s,
                            const struct vibe_recoded *r,
                            struct vibe_safetensors_item *item,
                            struct vibe_error *err)
{
    const size_t n = item->shape[0] * item->shape[1];
    uint16_t *halves = malloc(n * sizeof(*halves) + 1);
    int rc;

    if (!halves)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory", item->name);
    for (size_t i = 0; i < n; i++)
        halves[i] = vibe_quant_to_f16(r->group_scale[i]);
    item->dtype = VIBE_F16;
    item->data = halves;
    rc = vibe_safetensors_stream_add(s, item, err);
    free(halves);
    return rc;
}

/* The tensor, and its scales under the name that weights.h says. */
static int add_weight(struct vibe_safetensors_stream *s,
                      const struct vibe_weight *weight,
                      const struct vibe_recoded *r, size_t n_scales,
                      struct vibe_error *err)
{
    char name[NAME_BYTES];
    struct vibe_safetensors_item item = {
        .name = weight->name,
        .dtype = r->dtype,
        .n_dims = weight->n_dims,
        .data = r->data,
    };
    const int stem = (int)(strlen(weight->name) - strlen("weight"));
    int rc;

    memcpy(item.shape, weight->shape, sizeof(item.shape));
    if (r->dtype == VIBE_I4) {
        item.dtype = VIBE_U8;
        item.shape[1] = weight->shape[1] / 2;
    }
    if (r->dtype == VIBE_BF16_PACKED) {
        item.dtype = VIBE_U8;
        item.n_dims = 1;
        item.shape[0] = r->bytes;
    }
    rc = vibe_safetensors_stream_add(s, &item, err);
    if (rc != VIBE_OK || (!r->scale && !r->group_scale))
        return rc;

    snprintf(name, sizeof(name), "%.*sscale_weight", stem, weight->name);
    item = (struct vibe_safetensors_item){
        .name = name,
        .dtype = VIBE_F32,
        .n_dims = 1,
        .shape = {n_scales},
        .data = r->scale,
    };
    if (!r->group_scale)
        return vibe_safetensors_stream_add(s, &item, err);
    item.n_dims = 2;
    item.shape[0] = weight->shape[0];
    item.shape[1] = weight->shape[1] / r->group;
    return add_group_scales(s, r, &item, err);
}

static int convert_weight(struct vibe_safetensors_stream *s,
                          const struct vibe_weights *w, size_t i,
                          struct vibe_error *err)
{
    struct vibe_weight weight;
    struct vibe_recoded r;
    enum vibe_dtype to;
    int rc;

    vibe_weights_get(w, i, &weight);
    to = wanted_dtype(w, &weight);
    if (to == weight.dtype) {
        r = as_stored(&weight);
        return add_weight(s, &weight, &r, weight.n_scales, err);
    }
    rc = vibe_recode(&r, &weight, to, VIBE_QUANT_GROUP, vibe_team_size(), err);
    if (rc == VIBE_OK)
        rc = add_weight(s, &weight, &r, weight.shape[0], err);
    vibe_recoded_release(&r);
    return rc;
}

/* A lossy copy must not take the place of what it is made from. */
static int check_out(const struct vibe_weights *w, const char *out,
                     struct vibe_error *err)
{
    struct stat there, here;

    if (stat(out, &there) != 0)
        return VIBE_OK;
    for (size_t i = 0; i < vibe_weights_count(w); i++) {
        struct vibe_weight weight;

        vibe_weights_get(w, i, &weight);
        if (stat(weight.file, &here) == 0 && here.st_dev == there.st_dev &&
            here.st_ino == there.st_ino)
            return vibe_fail(err, VIBE_E_IO,
                             "%s: is a file of the model that is converted, "
                             "expected another one",
                             out);
    }
    return VIBE_OK;
}

int vibe_convert(const char *model, const char *out,
                 const struct vibe_precision *precision,
                 int (*should_stop)(void), struct vibe_error *err)
{
    struct vibe_weights *w = NULL;
    struct vibe_safetensors_stream *s = NULL;
    size_t names = 0;
    char note[128];
    int rc = vibe_weights_open(&w, model, err);

    if (rc != VIBE_OK)
        return rc;
    vibe_precision_keep(w, precision);
    for (size_t i = 0; i < vibe_weights_count(w); i++) {
        struct vibe_weight weight;

        vibe_weights_get(w, i, &weight);
        names += 2 * strlen(weight.name);
    }
    rc = check_out(w, out, err);
    if (rc == VIBE_OK)
        rc = vibe_safetensors_stream_open(&s, out, 2 * vibe_weights_count(w),
                                          names, err);
    for (size_t i = 0; i < vibe_weights_count(w) && rc == VIBE_OK; i++)
        rc = should_stop && should_stop()
                 ? vibe_fail(err, VIBE_E_IO, "%s: interrupted", out)
                 : convert_weight(s, w, i, err);
    if (rc == VIBE_OK) {
        snprintf(note, sizeof(note),
                 "converted: language model %s, head %s, codec %s",
                 vibe_precision_name(precision->lm),
                 vibe_precision_name(precision->head),
                 vibe_precision_name(precision->codec));
        rc = vibe_safetensors_stream_finish(s, note, err);
        s = NULL;
    }
    vibe_safetensors_stream_abandon(s);
    vibe_weights_free(w);
    return rc;
}

static int worst_first(const void *a, const void *b)
{
    const struct vibe_precision_row *x = a;
    const struct vibe_precision_row *y = b;

    return x->snr_db < y->snr_db ? -1 : x->snr_db > y->snr_db;
}

/* Judge one weight; the row's name is NULL where it stays as it is. */
static int judge_weight(struct vibe_precision_row *row,
                        const struct vibe_weights *w, size_t i,
                        struct vibe_error *err)
{
    struct vibe_recode_error e = {0};
    struct vibe_weight weight;
    struct vibe_recoded r;
    enum vibe_dtype to;
    int rc;

    vibe_weights_get(w, i, &weight);
    to = wanted_dtype(w, &weight);
    *row = (struct vibe_precision_row){0};
    if (to == weight.dtype)
        return VIBE_OK;
    rc = vibe_recode(&r, &weight, to, VIBE_QUANT_GROUP, vibe_team_size(), err);
    if (rc == VIBE_OK)
        rc = vibe_recode_measure(&e, &weight, &r, vibe_team_size(), err);
    vibe_recoded_release(&r);
    *row = (struct vibe_precision_row){
        .name = weight.name,
        .from = vibe_dtype_name(weight.dtype),
        .to = vibe_dtype_name(to),
        .snr_db = e.noise > 0.0 ? 10.0 * log10(e.signal / e.noise) : INFINITY,
    };
    return rc;
}

int vibe_precision_judge(const char *model,
                         const struct vibe_precision *precision,
                         void (*visit)(void *user,
                                       const struct vibe_precision_row *row),
                         void *user, struct vibe_error *err)
{
    struct vibe_weights *w = NULL;
    struct vibe_precision_row *rows = NULL;
    size_t n = 0;
    int rc = vibe_weights_open(&w, model, err);

    if (rc != VIBE_OK)
        return rc;
    vibe_precision_keep(w, precision);
    rows = calloc(vibe_weights_count(w) + 1, sizeof(*rows));
    if (!rows)
        rc = vibe_fail(err, VIBE_E_NOMEM, "%s: no memory", model);
    for (size_t i = 0; rc == VIBE_OK && i < vibe_weights_count(w); i++) {
        rc = judge_weight(&rows[n], w, i, err);
        n += rows[n].name != NULL;
    }
    if (rc == VIBE_OK && n)
        qsort(rows, n, sizeof(*rows), worst_first);
    for (size_t i = 0; rc == VIBE_OK && i < n; i++)
        visit(user, &rows[i]);
    free(rows);
    vibe_weights_free(w);
    return rc;
}
