/* Taking matrices of the file: linear layers stay where they are mapped,
 * convolutions are repacked to [N][K] in the dtype of the file. */
#include <stdlib.h>
#include <string.h>

#include "engine/backend/cpu/state.h"
#include "engine/base/size.h"

/* One allocation per matrix: bias, gamma and scales as f32, then weights. */
struct layout {
    size_t n_floats;
    size_t weights_at; /* bytes */
    size_t bytes;
};

static int is_scaled(const struct vibe_matrix_source *src)
{
    for (int i = 0; i < src->n_parts; i++)
        if (src->part[i].scale)
            return 1;
    return 0;
}

/* Scales of groups of a part. */
static size_t n_group_scales(const struct vibe_matrix_part *part, size_t K)
{
    return part->group_scale ? part->n * (K / part->group) : 0;
}

static int plan(struct layout *l, const struct vibe_matrix_source *src)
{
    size_t elements, bytes;

    l->n_floats = (src->bias ? src->N : 0) + (src->gamma ? src->N : 0) +
                  (is_scaled(src) ? src->N : 0);
    for (int i = 0; i < src->n_parts; i++)
        l->n_floats += n_group_scales(&src->part[i], src->K);
    l->weights_at = vibe_size_round(l->n_floats * sizeof(float), 64);
    l->bytes = l->weights_at;
    if (src->layout == VIBE_LAYOUT_LINEAR)
        return VIBE_OK;
    if (vibe_size_mul(&elements, src->N, src->K) ||
        vibe_size_mul(&bytes, elements, vibe_dtype_size(src->part[0].dtype)) ||
        vibe_size_add(&l->bytes, l->bytes, bytes))
        return VIBE_E_NOMEM;
    return VIBE_OK;
}

/* Copy in[n] to out[N] as often as it fits: once, or once per phase. */
static void repeat(float *out, size_t N, const float *in, size_t n)
{
    for (size_t i = 0; i < N; i += n)
        memcpy(out + i, in, n * sizeof(*out));
}

/* Columns of the file that are taken before the next row of ours: the lines
 * they lie in stay in the first cache for all taps. */
enum { GATHER = 256 };

/* out[i] = in[i * stride], numbers of size bytes. */
static void gather(char *out, const char *in, size_t n, size_t stride,
                   size_t size)
{
    switch (size) {
    case 1:
        for (size_t i = 0; i < n; i++)
            out[i] = in[i * stride];
        return;
    case 2:
        for (size_t i = 0; i < n; i++)
            memcpy(out + 2 * i, in + 2 * i * stride, 2);
        return;
    case 4:
        for (size_t i = 0; i < n; i++)
            memcpy(out + 4 * i, in + 4 * i * stride, 4);
        return;
    }
}

/* [N][in][taps] to [N][taps][in]. */
static void repack_conv(char *out, const struct vibe_matrix_source *src,
                        int threads)
{
    const char *in = src->part[0].data;
    size_t size = vibe_dtype_size(src->part[0].dtype);
    size_t taps = src->K / src->in;

#pragma omp parallel for num_threads(threads)
    for (size_t n = 0; n < src->N; n++) {
        char *to = out + n * src->K * size;
        const char *from = in + n * src->K * size;

        for (size_t tap = 0; tap < taps; tap++)
            gather(to + tap * src->in * size, from + tap * size, src->in, taps,
                   size);
    }
}

/* [in][out][2 * stride] to row phase * out + o, column 0 .. in - 1: tap
 * phase + stride, of the previous column; in .. 2 * in - 1: tap phase. */
static void repack_transposed(char *out, const struct vibe_matrix_source *src,
                              int threads)
{
    const char *in = src->part[0].data;
    size_t size = vibe_dtype_size(src->part[0].dtype);
    size_t stride = src->N / src->out;
    size_t step = src->out * 2 * stride;

    assert(stride > 0);
#pragma omp parallel for num_threads(threads)
    for (size_t o = 0; o < src->out; o++) {
        for (size_t i = 0; i < src->in; i += GATHER) {
            size_t n = src->in - i < GATHER ? src->in - i : GATHER;
            const char *taps = in + (i * step + o * 2 * stride) * size;

            for (size_t tap = 0; tap < 2 * stride; tap++) {
                size_t row = tap % stride * src->out + o;
                size_t column = (tap < stride ? src->in : 0) + i;

                gather(out + (row * src->K + column) * size, taps + tap * size,
                       n, step, size);
            }
        }
    }
}

/* Where any part is scaled every row gets a scale: part[0].scale is [N].
 * Scales of groups come first. */
static void take_parts(struct vibe_matrix *m, float *floats,
                       const struct vibe_matrix_source *src)
{
    float *scales = floats;

    for (int i = 0; i < src->n_parts; i++)
        scales += n_group_scales(&src->part[i], src->K);
    if (!is_scaled(src))
        scales = NULL;
    m->n_parts = src->n_parts;
    for (int i = 0; i < src->n_parts; i++) {
        const float one = 1.0f;
        const float *from = src->part[i].scale ? src->part[i].scale : &one;
        struct vibe_matrix_part *p = &m->part[i];

        *p = src->part[i];
        if (src->layout != VIBE_LAYOUT_LINEAR)
            p->n = src->N;
        m->bytes += vibe_matrix_part_bytes(p, src->K, 0, p->n);
        if (p->group_scale) {
            size_t n = n_group_scales(p, src->K);

            memcpy(floats, p->group_scale, n * sizeof(*floats));
            p->group_scale = floats;
            floats += n;
        }
        if (!scales)
            continue;
        repeat(scales, p->n, from, p->scale ? p->n_scales : 1);
        p->scale = scales;
        p->n_scales = p->n;
        scales += p->n;
    }
}

/* Rows first .. first + n - 1 of part i, in its own bytes; returns their size.
 * out NULL: only count. */
static size_t lay_part(char *out, const struct vibe_matrix_part *part, size_t K,
                       size_t first, size_t n)
{
    size_t begin = first < part->n ? first : part->n;
    size_t rows = n < part->n - begin ? n : part->n - begin;
    size_t bytes;

    if (!rows)
        return 0;
    bytes = vibe_matrix_part_bytes(part, K, begin, rows);
    if (out)
        memcpy(out,
               (const char *)part->data +
                   vibe_matrix_part_bytes(part, K, 0, begin),
               bytes);
    return bytes;
}

/* A piece lies as vibe_matrix_piece looks for it: of a pair the gates, then
 * the ups. */
static size_t lay(const struct vibe_matrix_source *src, size_t first, size_t n,
                  char *out)
{
    size_t bytes = 0;
    size_t end = first + n;

    for (int i = 0; i < src->n_parts; i++) {
        const struct vibe_matrix_part *part = &src->part[i];
        char *to = out ? out + bytes : NULL;

        if (src->is_pair) {
            bytes += lay_part(to, part, src->K, first / 2, n / 2);
            continue;
        }
        bytes += lay_part(to, part, src->K, first, end - first);
        first = first < part->n ? 0 : first - part->n;
        end = end < part->n ? 0 : end - part->n;
    }
    return bytes;
}

size_t vibe_cpu_piece_bytes(struct vibe_backend *be,
                            const struct vibe_matrix_source *src, size_t first,
                            size_t n)
{
    (void)be;
    return lay(src, first, n, NULL);
}

void vibe_cpu_matrix_lay(struct vibe_backend *be,
                         const struct vibe_matrix_source *src, size_t first,
                         size_t n, void *out)
{
    (void)be;
    lay(src, first, n, out);
}

int vibe_cpu_matrix_fill(struct vibe_backend *be,
                         const struct vibe_matrix_source *src, size_t first,
                         size_t n, void *device, struct vibe_error *err)
{
    (void)be, (void)err;
    lay(src, first, n, device);
    return VIBE_OK;
}

int vibe_cpu_matrix_measure(struct vibe_backend *be,
                            const struct vibe_matrix_source *src, size_t *rows,
                            size_t *small, struct vibe_error *err)
{
    struct layout l;

    (void)be, (void)err;
    plan(&l, src);
    *rows = lay(src, 0, src->N, NULL);
    *small = l.bytes;
    return VIBE_OK;
}

int vibe_cpu_matrix_load(struct vibe_matrix *m, struct vibe_backend *be,
                         const struct vibe_matrix_source *src,
                         struct vibe_error *err)
{
    struct layout l;
    float *floats = NULL;
    char *weights;
    int threads = ((struct vibe_cpu *)be)->threads;

    if (plan(&l, src) == VIBE_OK)
        floats = aligned_alloc(64, vibe_size_round(l.bytes + 1, 64));
    if (!floats)
        return vibe_fail(err, VIBE_E_NOMEM,
                         "%s: no memory to repack a matrix of %zu x %zu",
                         be->name, src->N, src->K);
    m->owned = floats;
    weights = (char *)floats + l.weights_at;

    if (src->bias) {
        size_t n = src->layout == VIBE_LAYOUT_CONV_TRANSPOSE ? src->out
                                                             : src->N;

        repeat(floats, src->N, src->bias, n);
        m->bias = floats;
        floats += src->N;
    }
    if (src->gamma) {
        memcpy(floats, src->gamma, src->N * sizeof(*floats));
        m->gamma = floats;
        floats += src->N;
    }
    m->N = src->N;
    m->K = src->K;
    m->is_pair = src->is_pair;
    take_parts(m, floats, src);
    switch (src->layout) {
    case VIBE_LAYOUT_LINEAR:
        return VIBE_OK;
    case VIBE_LAYOUT_CONV:
        repack_conv(weights, src, threads);
        break;
    case VIBE_LAYOUT_CONV_TRANSPOSE:
        repack_transposed(weights, src, threads);
        break;
    }
    m->part[0].data = weights;
    return VIBE_OK;
}

int vibe_cpu_matrix_load_small(struct vibe_matrix *m, struct vibe_backend *be,
                               const struct vibe_matrix_source *src,
                               struct vibe_error *err)
{
    /* linear rows are never copied: there is nothing to leave out */
    int rc = vibe_cpu_matrix_load(m, be, src, err);

    m->bytes = 0;
    return rc;
}

void vibe_cpu_matrix_release(struct vibe_matrix *m, struct vibe_backend *be)
{
    (void)be;
    free(m->owned);
}
