/*
 * params.c - the two passes over the tensors of a module.
 */
#include "engine/model/params.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/ops.h"
#include "engine/base/size.h"
#include "engine/base/team.h"
#include "engine/format/finite.h"
#include "engine/format/quant.h"
#include "engine/format/recode.h"
#include "engine/format/weights.h"

enum {
    NAME_MAX_BYTES = 192,
    VECTOR_ALIGN = 16, /* floats: every vector starts a cache line */
};

struct vibe_loader {
    const struct vibe_weights *w;
    struct vibe_params *params;            /* NULL: this pass checks */
    const struct vibe_params_store *store; /* of matrices, or NULL */
    float *staging;                        /* [vectors.C] host */
    size_t n_floats, n_matrices;
    char scope[NAME_MAX_BYTES / 2];
    struct vibe_error *err;
    int rc;
};

static int is_checking(const struct vibe_loader *l)
{
    return !l->params;
}

void vibe_loader_scope(struct vibe_loader *l, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(l->scope, sizeof(l->scope), fmt, args);
    va_end(args);
}

/* name[NAME_MAX_BYTES] = scope + module + suffix. */
static void full_name(const struct vibe_loader *l, char *name,
                      const char *module, const char *suffix)
{
    int n = snprintf(name, NAME_MAX_BYTES, "%s%s%s", l->scope, module, suffix);

    assert(n > 0 && n < NAME_MAX_BYTES);
    (void)n;
}

/* Reserve n floats of the module's vectors; return where they start. */
static size_t reserve(struct vibe_loader *l, size_t n)
{
    size_t at = l->n_floats;

    l->n_floats += vibe_size_round(n, VECTOR_ALIGN);
    return at;
}

/*
 * Check a tensor, or widen it.
 *
 *   out   [n] malloc'd; untouched in a pass that checks
 */
static void fetch(struct vibe_loader *l, float **out, const char *module,
                  const char *suffix, const size_t *shape, size_t n_dims)
{
    char name[NAME_MAX_BYTES];
    struct vibe_weight found;

    if (l->rc)
        return;
    full_name(l, name, module, suffix);
    if (is_checking(l))
        l->rc = vibe_weights_need(l->w, &found, name, shape, n_dims, l->err);
    else
        l->rc = vibe_weights_f32(l->w, out, name, shape, n_dims, l->err);
}

void vibe_load_values(struct vibe_loader *l, const float **out,
                      const float *values, size_t n)
{
    size_t at = reserve(l, n);

    if (l->rc || is_checking(l))
        return;
    if (!values) {
        l->rc = vibe_fail(l->err, VIBE_E_NOMEM, "no memory for %zu floats", n);
        return;
    }
    memcpy(l->staging + at, values, n * sizeof(*values));
    *out = (const float *)l->params->vectors.data + at;
}

void vibe_fetch_vector(struct vibe_loader *l, float **values, const char *name,
                       size_t n)
{
    fetch(l, values, name, "", (const size_t[]){n}, 1);
}

void vibe_load_vector(struct vibe_loader *l, const float **out,
                      const char *name, size_t n)
{
    float *values = NULL;

    vibe_fetch_vector(l, &values, name, n);
    vibe_load_values(l, out, values, n);
    free(values);
}

void vibe_load_taps(struct vibe_loader *l, const float **out, const char *name,
                    size_t channels, size_t taps)
{
    size_t at = reserve(l, channels * taps);
    float *values = NULL;

    fetch(l, &values, name, "", (const size_t[]){channels, 1, taps}, 3);
    if (!values)
        return;
    for (size_t j = 0; j < taps; j++)
        for (size_t c = 0; c < channels; c++)
            l->staging[at + j * channels + c] = values[c * taps + j];
    *out = (const float *)l->params->vectors.data + at;
    free(values);
}

/* The shape of one part in the file; returns the number of axes. */
static size_t part_shape(size_t shape[3], const struct vibe_matrix_names *names,
                         size_t rows)
{
    shape[0] = names->layout == VIBE_LAYOUT_CONV_TRANSPOSE ? names->in : rows;
    shape[1] = names->layout == VIBE_LAYOUT_CONV_TRANSPOSE ? rows : names->in;
    shape[2] = names->taps;
    return names->layout == VIBE_LAYOUT_LINEAR ? 2 : 3;
}

/* What a matrix is to be kept in.  Convolutions stay, as they do in a file that
 * is converted: rows of transposed ones share columns of it, and all are
 * repacked element by element. */
static enum vibe_dtype dtype_for(const struct vibe_weight *found,
                                 enum vibe_weight_dtype as,
                                 enum vibe_layout layout)
{
    if (layout != VIBE_LAYOUT_LINEAR && as != VIBE_WEIGHTS_BF16)
        return found->dtype;
    return vibe_recode_dtype(found, as);
}

/* Have a weight in the dtype it is to be kept in, where that matters: not where
 * names are only checked. */
static void keep(struct vibe_loader *l, struct vibe_weight *found,
                 const char *name, enum vibe_layout layout)
{
    static const float one = 1.0f;
    const int is_tally = !is_checking(l) && l->params->be->is_tally;
    enum vibe_dtype to = dtype_for(found, vibe_weights_kept(l->w, name),
                                   layout);

    if (l->rc || (is_checking(l) && !l->store))
        return;
    if (to == found->dtype) {
        if (to == VIBE_F8_E4M3 && !is_checking(l) && !is_tally)
            l->rc = vibe_finite_check_f8(found, vibe_team_size(), l->err);
        return;
    }
    if (is_tally)
        *found = (struct vibe_weight){
            .dtype = to,
            .scale = to == VIBE_F8_E4M3 || to == VIBE_I8 ? &one : NULL,
            .n_scales = 1,
            .group = to == VIBE_I4 ? VIBE_QUANT_GROUP : 0,
        };
    else
        l->rc = vibe_weights_recode(l->w, found, name, to, l->err);
}

/* Find part i and append it, with its bias at src->bias[bias_at]. */
static void add_part(struct vibe_loader *l, struct vibe_matrix_source *src,
                     const struct vibe_matrix_names *names, int i, float *bias)
{
    char name[NAME_MAX_BYTES];
    struct vibe_weight found = {0};
    float *part_bias = NULL;
    size_t shape[3];
    size_t n_dims = part_shape(shape, names, names->rows[i]);

    if (l->rc)
        return;
    full_name(l, name, names->part[i], ".weight");
    l->rc = vibe_weights_need(l->w, &found, name, shape, n_dims, l->err);
    if (!l->rc && names->layout == VIBE_LAYOUT_CONV_TRANSPOSE &&
        found.n_scales > 1)
        l->rc = vibe_fail(l->err, VIBE_E_UNSUPPORTED,
                          "%s: %s: a transposed convolution has %zu scales, "
                          "expected one",
                          found.file, name, found.n_scales);
    if (!l->rc)
        keep(l, &found, name, names->layout);
    if (l->rc)
        return;

    if (names->has_bias)
        fetch(l, &part_bias, names->part[i], ".bias", &names->rows[i], 1);
    if (part_bias)
        memcpy(bias, part_bias, names->rows[i] * sizeof(*bias));
    free(part_bias);

    src->part[i] = (struct vibe_matrix_part){
        .data = found.data,
        .scale = found.scale,
        .n_scales = found.n_scales,
        .group = found.group,
        .group_scale = found.group_scale,
        .blocks = found.blocks,
        .dtype = found.dtype,
        .n = names->layout == VIBE_LAYOUT_CONV_TRANSPOSE
                 ? names->rows[i] * (names->taps / 2)
                 : names->rows[i],
    };
    src->N += src->part[i].n;
    src->n_parts = i + 1;
}

/* What is done with a matrix that has been found. */
static void take_matrix(struct vibe_loader *l, struct vibe_matrix *out,
                        const struct vibe_matrix_source *src)
{
    const struct vibe_params_store *store = l->store;
    const size_t number = l->n_matrices++;

    if (l->rc)
        return;
    if (is_checking(l)) {
        if (store)
            l->rc = store->offer(store->user, number, src, l->err);
        return;
    }
    if (store)
        l->rc = store->load(store->user, out, number, src, l->err);
    else
        l->rc = vibe_matrix_load(out, l->params->be, src, l->err);
    if (!l->rc)
        l->params->matrix[l->params->n_matrices++] = out;
}

/* The parts of a matrix are not needed in another dtype any more. */
static void drop(const struct vibe_loader *l,
                 const struct vibe_matrix_names *names)
{
    char name[NAME_MAX_BYTES];

    for (int i = 0; i < VIBE_MATRIX_PARTS && names->part[i]; i++) {
        full_name(l, name, names->part[i], ".weight");
        vibe_weights_drop(l->w, name);
    }
}

void vibe_load_matrix(struct vibe_loader *l, struct vibe_matrix *out,
                      const struct vibe_matrix_names *names)
{
    struct vibe_matrix_source src = {
        .layout = names->layout,
        .in = names->in,
        .is_pair = names->is_pair,
        .out = names->layout == VIBE_LAYOUT_CONV_TRANSPOSE ? names->rows[0] : 0,
    };
    float *bias = NULL;
    float *gamma = NULL;
    size_t rows = 0;

    for (int i = 0; i < VIBE_MATRIX_PARTS && names->part[i]; i++)
        rows += names->rows[i];
    src.K = names->in;
    if (names->layout == VIBE_LAYOUT_CONV)
        src.K *= names->taps;
    if (names->layout == VIBE_LAYOUT_CONV_TRANSPOSE)
        src.K *= 2;
    if (names->has_bias) {
        bias = calloc(rows, sizeof(*bias));
        if (!bias && !l->rc)
            l->rc = vibe_fail(l->err, VIBE_E_NOMEM, "no memory for %zu biases",
                              rows);
    }

    rows = 0;
    for (int i = 0; i < VIBE_MATRIX_PARTS && names->part[i]; i++) {
        add_part(l, &src, names, i, bias ? bias + rows : NULL);
        rows += names->rows[i];
    }
    if (names->gamma)
        fetch(l, &gamma, names->gamma, "", &rows, 1);
    if (!l->rc && !is_checking(l)) {
        src.bias = bias;
        src.gamma = gamma;
    }
    take_matrix(l, out, &src);
    if (!is_checking(l) && !l->store && l->params->be->is_cuda)
        drop(l, names); /* it has a copy */
    free(gamma);
    free(bias);
}

void vibe_load_linear(struct vibe_loader *l, struct vibe_matrix *out,
                      const char *name, size_t n_out, size_t n_in)
{
    const struct vibe_matrix_names names = {
        .part = {name},
        .rows = {n_out},
        .in = n_in,
    };

    vibe_load_matrix(l, out, &names);
}

int vibe_params_check(const struct vibe_weights *w, vibe_bind_fn *bind,
                      void *module, struct vibe_error *err)
{
    return vibe_params_offer(w, bind, module, NULL, err);
}

int vibe_params_offer(const struct vibe_weights *w, vibe_bind_fn *bind,
                      void *module, const struct vibe_params_store *store,
                      struct vibe_error *err)
{
    struct vibe_loader l = {.w = w, .store = store, .err = err};

    bind(&l, module);
    return l.rc;
}

/* Make room for what the first pass counted. */
static int allocate(struct vibe_loader *l, const struct vibe_loader *counted)
{
    struct vibe_params *p = l->params;
    size_t n = counted->n_floats ? counted->n_floats : 1;

    p->matrix = calloc(counted->n_matrices + 1, sizeof(struct vibe_matrix *));
    l->staging = calloc(n, sizeof(*l->staging));
    if (!p->matrix || !l->staging)
        return vibe_fail(l->err, VIBE_E_NOMEM, "no memory for %zu floats", n);
    return vibe_tensor_init(&p->vectors, p->be, VIBE_F32, 1, 1, n, l->err);
}

int vibe_params_init(struct vibe_params *p, struct vibe_backend *be,
                     const struct vibe_weights *w, vibe_bind_fn *bind,
                     void *module, struct vibe_error *err)
{
    return vibe_params_init_in(p, be, w, bind, module, NULL, err);
}

int vibe_params_init_in(struct vibe_params *p, struct vibe_backend *be,
                        const struct vibe_weights *w, vibe_bind_fn *bind,
                        void *module, const struct vibe_params_store *store,
                        struct vibe_error *err)
{
    struct vibe_loader check = {.w = w, .err = err};
    struct vibe_loader load = {.w = w, .err = err, .params = p, .store = store};
    struct vibe_stream stream;
    int rc;

    *p = (struct vibe_params){.be = be};
    bind(&check, module);
    if (check.rc)
        return check.rc;

    rc = vibe_stream_init(&stream, be, err);
    if (rc)
        return rc;
    rc = allocate(&load, &check);
    if (rc)
        goto out;
    bind(&load, module);
    rc = load.rc;
    if (rc)
        goto out;
    vibe_write(&stream, p->vectors.data, load.staging,
               p->vectors.C * sizeof(float));
    rc = vibe_stream_check(&stream, err);
out:
    free(load.staging);
    vibe_stream_release(&stream);
    return rc;
}

void vibe_params_release(struct vibe_params *p)
{
    for (size_t i = 0; i < p->n_matrices; i++)
        vibe_matrix_release(p->matrix[i], p->be);
    free(p->matrix);
    if (p->be)
        vibe_tensor_release(&p->vectors, p->be);
    *p = (struct vibe_params){0};
}

size_t vibe_params_bytes(const struct vibe_params *p)
{
    size_t bytes = 0;

    for (size_t i = 0; i < p->n_matrices; i++)
        bytes += p->matrix[i]->bytes;
    return bytes;
}
