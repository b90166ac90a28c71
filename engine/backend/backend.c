/* Opening and closing, memory, streams and views; ops are in ops.c. */
#include "engine/backend/backend.h"

#include <assert.h>
#include <stdlib.h>

#include "engine/backend/cpu/cpu.h"
#include "engine/backend/cuda.h"
#include "engine/backend/ops.h"
#include "engine/backend/tiles.h"
#include "engine/base/size.h"
#include "engine/format/pack.h"

enum vibe_dtype vibe_kv_dtype(enum vibe_weight_dtype as, enum vibe_dtype usual)
{
    switch (as) {
    case VIBE_WEIGHTS_F32:
        return VIBE_F32;
    case VIBE_WEIGHTS_BF16:
        return VIBE_BF16;
    case VIBE_WEIGHTS_F8_E4M3:
        return VIBE_F8_E4M3;
    case VIBE_WEIGHTS_AUTO:
    case VIBE_WEIGHTS_I8:
    case VIBE_WEIGHTS_I4:
    case VIBE_WEIGHTS_BF16_PACKED:
        break;
    }
    return usual;
}

int vibe_backend_open(struct vibe_backend **out,
                      const struct vibe_backend_options *options,
                      struct vibe_error *err)
{
    int rc;

    *out = NULL;
    rc = options->want_cuda ? vibe_cuda_open(out, options, err)
                            : vibe_cpu_open(out, options, err);
    if (rc == VIBE_OK)
        (*out)->kv_dtype = vibe_kv_dtype(options->kv, (*out)->kv_dtype);
    return rc;
}

void vibe_backend_free(struct vibe_backend *be)
{
    if (be)
        be->ops->close(be);
}

void vibe_backend_seal(struct vibe_backend *be)
{
#ifdef VIBE_DEBUG
    be->is_sealed = 1;
#endif
    (void)be;
}

void vibe_backend_unseal(struct vibe_backend *be)
{
    be->is_sealed = 0;
}

void vibe_backend_enter(struct vibe_backend *be)
{
    be->ops->enter(be);
}

int vibe_stream_init(struct vibe_stream *s, struct vibe_backend *be,
                     struct vibe_error *err)
{
    *s = (struct vibe_stream){.be = be};
    return be->ops->stream_init(s, err);
}

void vibe_stream_release(struct vibe_stream *s)
{
    if (s->be)
        s->be->ops->stream_release(s);
    *s = (struct vibe_stream){0};
}

int vibe_stream_check(struct vibe_stream *s, struct vibe_error *err)
{
    int code;

    vibe_backend_unsealed(s->be);
    s->be->ops->sync(s);
    code = s->err.code;
    if (code && err)
        *err = s->err;
    s->err = (struct vibe_error){0};
    return code;
}

int vibe_tensor_init(struct vibe_tensor *t, struct vibe_backend *be,
                     enum vibe_dtype dtype, size_t B, size_t T, size_t C,
                     struct vibe_error *err)
{
    size_t bytes = vibe_dtype_size(dtype);

    *t = (struct vibe_tensor){
        .dtype = dtype,
        .B = B,
        .T = T,
        .C = C,
        .stride_b = T * C,
        .stride_t = C,
    };
    if (!vibe_size_mul(&bytes, bytes, B) && !vibe_size_mul(&bytes, bytes, T) &&
        !vibe_size_mul(&bytes, bytes, C))
        t->data = be->ops->alloc(be, bytes ? bytes : 1);
    if (!t->data)
        return vibe_fail(err, VIBE_E_NOMEM,
                         "%s: no memory for a tensor of %zu x %zu x %zu %s",
                         be->name, B, T, C, vibe_dtype_name(dtype));
    return VIBE_OK;
}

void vibe_tensor_release(struct vibe_tensor *t, struct vibe_backend *be)
{
    if (t->data)
        be->ops->free(be, t->data);
    *t = (struct vibe_tensor){0};
}

/* The part of t that starts at an element. */
static struct vibe_tensor view(const struct vibe_tensor *t, size_t element)
{
    struct vibe_tensor v = *t;

    v.data = (char *)t->data + element * vibe_dtype_size(t->dtype);
    return v;
}

struct vibe_tensor vibe_tensor_rows(const struct vibe_tensor *t, size_t first,
                                    size_t T)
{
    struct vibe_tensor v = view(t, first * t->stride_t);

    assert(first + T <= t->T);
    v.T = T;
    return v;
}

struct vibe_tensor vibe_tensor_batch(const struct vibe_tensor *t, size_t first,
                                     size_t B)
{
    struct vibe_tensor v = view(t, first * t->stride_b);

    assert(first + B <= t->B);
    v.B = B;
    return v;
}

struct vibe_tensor vibe_tensor_channels(const struct vibe_tensor *t,
                                        size_t first, size_t C)
{
    struct vibe_tensor v = view(t, first);

    assert(first + C <= t->C);
    v.C = C;
    return v;
}

struct vibe_tensor vibe_tensor_broadcast(const struct vibe_tensor *t, size_t B)
{
    struct vibe_tensor v = *t;

    assert(t->B == 1);
    v.B = B;
    v.stride_b = 0;
    return v;
}

static void check_source(const struct vibe_matrix_source *src)
{
    size_t rows = 0;

    assert(src->n_parts >= 1 && src->n_parts <= VIBE_MATRIX_PARTS);
    assert(src->layout == VIBE_LAYOUT_LINEAR || src->n_parts == 1);
    assert(!src->is_pair || (src->n_parts == 2 && src->N % 2 == 0));
    if (src->layout == VIBE_LAYOUT_CONV)
        assert(src->in && src->K % src->in == 0);
    if (src->layout == VIBE_LAYOUT_CONV_TRANSPOSE)
        assert(src->K == 2 * src->in && src->out && src->N % src->out == 0);
    for (int i = 0; i < src->n_parts; i++)
        rows += src->part[i].n;
    assert(src->layout == VIBE_LAYOUT_CONV_TRANSPOSE || rows == src->N);
    (void)rows;
}

int vibe_matrix_load(struct vibe_matrix *m, struct vibe_backend *be,
                     const struct vibe_matrix_source *src,
                     struct vibe_error *err)
{
    int rc;

    check_source(src);
    *m = (struct vibe_matrix){0};
    rc = be->ops->matrix_load(m, be, src, err);
    m->whole_N = m->N;
    return rc;
}

/* The smaller of the two that holds every value of both. */
static enum vibe_dtype common_dtype(enum vibe_dtype a, enum vibe_dtype b)
{
    if (a == b)
        return a;
    if (a == VIBE_F32 || a == VIBE_F16 || b == VIBE_F32 || b == VIBE_F16)
        return VIBE_F32;
    return VIBE_BF16;
}

enum vibe_dtype vibe_matrix_gpu_dtype(const struct vibe_matrix_source *src)
{
    enum vibe_dtype dtype = src->part[0].dtype;

    for (int i = 1; i < src->n_parts; i++)
        dtype = common_dtype(dtype, src->part[i].dtype);
    return dtype;
}

void vibe_matrix_release(struct vibe_matrix *m, struct vibe_backend *be)
{
    if (m->N)
        be->ops->matrix_release(m, be);
    *m = (struct vibe_matrix){0};
}

size_t vibe_matrix_part_bytes(const struct vibe_matrix_part *part, size_t K,
                              size_t first, size_t n)
{
    const uint64_t *blocks = part->blocks;

    if (part->is_tiled)
        return vibe_tiles_bytes(part->dtype, n, K);
    if (part->dtype != VIBE_BF16_PACKED)
        return n * vibe_dtype_bytes(part->dtype, K);
    assert(blocks && first % VIBE_PACK_BLOCK == 0);
    return blocks[vibe_pack_n_blocks(first + n)] -
           blocks[first / VIBE_PACK_BLOCK];
}

static void check_piece(size_t N, size_t first, size_t n)
{
    assert(n > 0 && first % VIBE_MATRIX_UNIT == 0 && first + n <= N);
    assert(n % VIBE_MATRIX_UNIT == 0 || first + n == N);
    (void)N, (void)first, (void)n;
}

int vibe_matrix_measure(struct vibe_backend *be,
                        const struct vibe_matrix_source *src, size_t *rows,
                        size_t *small, struct vibe_error *err)
{
    size_t ignored;

    check_source(src);
    assert(src->layout == VIBE_LAYOUT_LINEAR);
    return be->ops->matrix_measure(be, src, rows ? rows : &ignored,
                                   small ? small : &ignored, err);
}

size_t vibe_matrix_piece_bytes(struct vibe_backend *be,
                               const struct vibe_matrix_source *src,
                               size_t first, size_t n)
{
    check_piece(src->N, first, n);
    return be->ops->piece_bytes(be, src, first, n);
}

void vibe_matrix_lay(struct vibe_backend *be,
                     const struct vibe_matrix_source *src, size_t first,
                     size_t n, void *out)
{
    check_piece(src->N, first, n);
    be->ops->matrix_lay(be, src, first, n, out);
}

int vibe_matrix_load_small(struct vibe_matrix *m, struct vibe_backend *be,
                           const struct vibe_matrix_source *src,
                           struct vibe_error *err)
{
    int rc;

    check_source(src);
    assert(src->layout == VIBE_LAYOUT_LINEAR);
    *m = (struct vibe_matrix){0};
    rc = be->ops->matrix_load_small(m, be, src, err);
    m->whole_N = m->N;
    return rc;
}

int vibe_matrix_fill(struct vibe_backend *be,
                     const struct vibe_matrix_source *src, size_t first,
                     size_t n, void *device, struct vibe_error *err)
{
    check_piece(src->N, first, n);
    return be->ops->matrix_fill(be, src, first, n, device, err);
}

/* Rows first .. first + n - 1 of a part of the file, as far as it has them. */
static struct vibe_matrix_part part_rows(const struct vibe_matrix_part *from,
                                         size_t K, size_t first, size_t n)
{
    const size_t begin = first < from->n ? first : from->n;
    struct vibe_matrix_part part = *from;

    part.n = n < from->n - begin ? n : from->n - begin;
    part.data = (const char *)from->data +
                vibe_matrix_part_bytes(from, K, 0, begin);
    if (from->n_scales > 1) {
        part.scale += begin;
        part.n_scales = part.n;
    }
    if (from->group_scale)
        part.group_scale += begin * (K / from->group);
    if (from->blocks)
        part.blocks += begin / VIBE_PACK_BLOCK;
    return part;
}

struct vibe_matrix_source vibe_matrix_source_rows(
    const struct vibe_matrix_source *src, size_t first, size_t n)
{
    struct vibe_matrix_source rows = *src;
    size_t at = src->is_pair ? first / 2 : first;
    size_t left = src->is_pair ? n / 2 : n;

    check_piece(src->N, first, n);
    assert(src->layout == VIBE_LAYOUT_LINEAR);
    assert(!src->is_pair || (!src->bias && !src->gamma));
    rows.N = n;
    rows.n_parts = 0;
    if (src->bias)
        rows.bias += first;
    if (src->gamma)
        rows.gamma += first;
    for (int i = 0; i < src->n_parts; i++) {
        const struct vibe_matrix_part part = part_rows(&src->part[i], src->K,
                                                       at, left);

        if (part.n)
            rows.part[rows.n_parts++] = part;
        if (src->is_pair)
            continue;
        left -= part.n;
        at = at < src->part[i].n ? 0 : at - src->part[i].n;
    }
    return rows;
}

/* Rows first .. first + n - 1 of part i alone, which begin at *device; returns
 * how many there are. */
static size_t take_part(struct vibe_matrix *piece, const char **device,
                        size_t K, size_t first, size_t n,
                        const struct vibe_matrix_part *from)
{
    size_t begin = first < from->n ? first : from->n;
    size_t rows = n < from->n - begin ? n : from->n - begin;
    struct vibe_matrix_part part = *from;

    if (!rows)
        return 0;
    part.data = *device;
    part.scale = from->scale ? from->scale + begin : NULL;
    if (from->group_scale)
        part.group_scale += begin * (K / from->group);
    if (from->blocks)
        part.blocks += begin / VIBE_PACK_BLOCK;
    part.n = rows;
    if (from->n_scales > 1)
        part.n_scales = rows;
    piece->part[piece->n_parts++] = part;
    *device += vibe_matrix_part_bytes(from, K, begin, rows);
    return rows;
}

struct vibe_matrix vibe_matrix_piece(const struct vibe_matrix *m,
                                     const void *device, size_t first, size_t n)
{
    const int is_halved = m->is_pair && m->n_parts == 2;
    const size_t small = is_halved ? first / 2 : first;
    const char *rows = device;
    struct vibe_matrix piece = {
        .N = n,
        .K = m->K,
        .whole_N = m->whole_N,
        .first = first,
        .is_pair = m->is_pair,
        .bias = m->bias ? m->bias + small : NULL,
        .gamma = m->gamma ? m->gamma + small : NULL,
    };
    size_t at = first;
    size_t left = n;

    check_piece(m->N, first, n);
    for (int i = 0; i < m->n_parts; i++) {
        const struct vibe_matrix_part *from = &m->part[i];

        if (is_halved) {
            take_part(&piece, &rows, m->K, first / 2, n / 2, from);
            continue;
        }
        left -= take_part(&piece, &rows, m->K, at, left, from);
        at = at < from->n ? 0 : at - from->n;
    }
    piece.bytes = (size_t)(rows - (const char *)device);
    return piece;
}
