/*
 * memory.c - device memory, and matrices on their way into it.
 *
 * A matrix passes through two pinned buffers: while one is copied, all
 * threads lay out the next rows in the other as matrix.h describes, which
 * also takes the page faults of a mapped file.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/cuda/layout.h"
#include "engine/backend/cuda/matrix.h"
#include "engine/base/size.h"

enum { STAGING_BYTES = VIBE_CUDA_UNIT_BYTES, ALIGNMENT = 256 };

struct vibe_cuda_staging {
    char *data[2];
    int is_pinned[2];
    cudaEvent_t copied[2]; /* what data held has left it */
    int side;              /* to be filled next */
};

static void *cuda_alloc(struct vibe_backend *be, size_t bytes)
{
    struct vibe_cuda *cuda = vibe_cuda_of(be);
    void *data = be->purpose == VIBE_FOR_KV ? vibe_cuda_take_kept(cuda, bytes)
                                            : vibe_cuda_take(cuda, bytes);

    if (!data || cudaMemsetAsync(data, 0, bytes, cuda->compute) == cudaSuccess)
        return data;
    vibe_cuda_give(cuda, data);
    return NULL;
}

static void cuda_free(struct vibe_backend *be, void *data)
{
    vibe_cuda_give(vibe_cuda_of(be), data);
}

/* Copies from memory that is not pinned are slower, and may be all there is. */
static cudaError_t take_side(struct vibe_cuda_staging *staging, int side)
{
    void *data = NULL;

    staging->is_pinned[side] = cudaHostAlloc(&data, STAGING_BYTES,
                                             cudaHostAllocDefault) ==
                               cudaSuccess;
    if (!staging->is_pinned[side]) {
        cudaGetLastError();
        data = malloc(STAGING_BYTES);
    }
    staging->data[side] = data;
    return data ? cudaSuccess : cudaErrorMemoryAllocation;
}

static int make_staging(struct vibe_cuda *cuda, struct vibe_error *err)
{
    struct vibe_cuda_staging *staging = calloc(1, sizeof(*staging));
    cudaError_t rc = cudaSuccess;

    if (!staging)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory to load matrices");
    cuda->staging = staging;
    for (int i = 0; i < 2 && rc == cudaSuccess; i++) {
        rc = take_side(staging, i);
        if (rc == cudaSuccess)
            rc = cudaEventCreateWithFlags(&staging->copied[i],
                                          cudaEventDisableTiming);
    }
    if (rc == cudaSuccess)
        return VIBE_OK;
    vibe_cuda_staging_free(cuda);
    return vibe_cuda_fail(err, rc, "memory to load matrices");
}

void vibe_cuda_staging_free(struct vibe_cuda *cuda)
{
    struct vibe_cuda_staging *staging = cuda->staging;

    if (!staging)
        return;
    cudaStreamSynchronize(cuda->copy);
    for (int i = 0; i < 2; i++) {
        if (staging->copied[i])
            cudaEventDestroy(staging->copied[i]);
        if (staging->is_pinned[i])
            cudaFreeHost(staging->data[i]);
        else
            free(staging->data[i]);
    }
    free(staging);
    cuda->staging = NULL;
}

/* The buffer to fill, once its last copy has ended; NULL with err set. */
static char *take_staging(struct vibe_cuda *cuda, struct vibe_error *err)
{
    struct vibe_cuda_staging *staging = cuda->staging;
    cudaError_t rc;

    assert(staging);
    rc = cudaEventSynchronize(staging->copied[staging->side]);

    if (rc == cudaSuccess)
        return staging->data[staging->side];
    vibe_cuda_fail(err, rc, "copying weights");
    return NULL;
}

/* Copy what was filled, and turn to the other buffer. */
static int send_staging(struct vibe_cuda *cuda, char *device, size_t bytes,
                        struct vibe_error *err)
{
    struct vibe_cuda_staging *staging = cuda->staging;
    int side = staging->side;
    cudaError_t rc = cudaMemcpyAsync(device, staging->data[side], bytes,
                                     cudaMemcpyDefault, cuda->copy);

    if (rc == cudaSuccess)
        rc = cudaEventRecord(staging->copied[side], cuda->copy);
    staging->side = !side;
    return rc == cudaSuccess ? VIBE_OK
                             : vibe_cuda_fail(err, rc, "copying weights");
}

/* Rows from .. from + n_rows - 1. */
static int send_rows(struct vibe_cuda *cuda, char *device,
                     const struct vibe_cuda_layout *l, size_t from,
                     size_t n_rows, struct vibe_error *err)
{
    const size_t begin = from / l->unit;
    const size_t end = begin + vibe_cuda_layout_units(l, n_rows);
    const size_t most = STAGING_BYTES / l->unit_bytes;

    for (size_t first = begin; first < end; first += most) {
        size_t left = end - first;
        size_t n = left < most ? left : most;
        char *staging = take_staging(cuda, err);

        if (!staging)
            return VIBE_E_DEVICE;
            /* small matrices are laid out before a team would have woken up */
#pragma omp parallel for if (n * l->unit_bytes > 1 << 20)
        for (size_t i = 0; i < n; i++)
            vibe_cuda_layout_lay(staging + i * l->unit_bytes, l, first + i);
        if (send_staging(cuda, device + (first - begin) * l->unit_bytes,
                         n * l->unit_bytes, err))
            return VIBE_E_DEVICE;
    }
    return VIBE_OK;
}

static int send_floats(struct vibe_cuda *cuda, char *device,
                       const struct vibe_cuda_layout *l,
                       float (*get)(const struct vibe_cuda_layout *l, size_t n),
                       struct vibe_error *err)
{
    size_t most = STAGING_BYTES / sizeof(float);

    for (size_t first = 0; first < l->src->N; first += most) {
        size_t left = l->src->N - first;
        size_t n = left < most ? left : most;
        char *staging = take_staging(cuda, err);

        if (!staging)
            return VIBE_E_DEVICE;
        for (size_t i = 0; i < n; i++)
            ((float *)(void *)staging)[i] = get(l, first + i);
        if (send_staging(cuda, device + first * sizeof(float),
                         n * sizeof(float), err))
            return VIBE_E_DEVICE;
    }
    return VIBE_OK;
}

static int send_words(struct vibe_cuda *cuda, char *device,
                      const uint32_t *words, size_t n, struct vibe_error *err)
{
    const size_t most = STAGING_BYTES / sizeof(*words);

    for (size_t first = 0; first < n; first += most) {
        const size_t left = n - first;
        const size_t bytes = (left < most ? left : most) * sizeof(*words);
        char *staging = take_staging(cuda, err);

        if (!staging)
            return VIBE_E_DEVICE;
        memcpy(staging, words + first, bytes);
        if (send_staging(cuda, device + first * sizeof(*words), bytes, err))
            return VIBE_E_DEVICE;
    }
    return VIBE_OK;
}

static int send_small(struct vibe_cuda *cuda, char *device,
                      const struct vibe_cuda_layout *l, struct vibe_error *err)
{
    int rc = VIBE_OK;

    if (l->has_scale)
        rc = send_floats(cuda, device + l->scale_at, l, vibe_cuda_layout_scale,
                         err);
    if (!rc && l->src->bias)
        rc = send_floats(cuda, device + l->bias_at, l, vibe_cuda_layout_bias,
                         err);
    if (!rc && l->src->gamma)
        rc = send_floats(cuda, device + l->gamma_at, l, vibe_cuda_layout_gamma,
                         err);
    return rc;
}

/* What computes from now on comes after the last copy. */
static int finish_sending(struct vibe_cuda *cuda, struct vibe_error *err)
{
    const struct vibe_cuda_staging *staging = cuda->staging;
    cudaError_t rc;

    assert(staging);
    rc = cudaStreamWaitEvent(cuda->compute, staging->copied[!staging->side], 0);
    return rc == cudaSuccess ? VIBE_OK
                             : vibe_cuda_fail(err, rc, "copying weights");
}

static float *floats_at(char *small, int is_there, size_t at)
{
    return is_there ? (float *)(void *)(small + at) : NULL;
}

/* The parts of a matrix' memory: rows only where there is room for them, then
 * the arrays, then escapes; bytes. */
struct places {
    size_t rows, small_at, far_at, far_words, total;
};

static struct places places_of(const struct vibe_cuda_layout *l,
                               size_t rows_bytes,
                               const struct vibe_tiles_far *far)
{
    struct places at = {
        .rows = rows_bytes,
        .small_at = vibe_size_round(rows_bytes, ALIGNMENT),
        .far_words = vibe_tiles_far_words(far),
    };

    at.far_at = at.small_at + l->small_bytes;
    at.total = at.far_at + at.far_words * sizeof(uint32_t);
    return at;
}

static int take_places(void **device, struct vibe_cuda *cuda,
                       const struct vibe_cuda_layout *l,
                       const struct places *at, struct vibe_error *err)
{
    *device = at->total ? vibe_cuda_take_kept(cuda, at->total) : NULL;
    if (*device || !at->total)
        return VIBE_OK;
    return vibe_fail(err, VIBE_E_NOMEM,
                     "%s: no memory for a matrix of %zu x %zu: %zu MB asked, "
                     "%zu MB free",
                     cuda->base.name, l->src->N, l->src->K, at->total >> 20,
                     vibe_cuda_free_bytes(cuda) >> 20);
}

static int send_far(struct vibe_cuda *cuda, char *device,
                    const struct vibe_tiles_far *far, struct vibe_error *err)
{
    const size_t n = vibe_tiles_far_words(far);
    uint32_t *words = malloc(n * sizeof(*words));
    int rc;

    if (!words)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu escapes",
                         far->n_escapes);
    vibe_tiles_far_write(far, words);
    rc = send_words(cuda, device, words, n, err);
    free(words);
    return rc;
}

static int send(struct vibe_cuda *cuda, char *device,
                const struct vibe_cuda_layout *l, const struct places *at,
                const struct vibe_tiles_far *far, struct vibe_error *err)
{
    int rc = VIBE_OK;

    if (at->rows)
        rc = send_rows(cuda, device, l, 0, l->src->N, err);
    if (!rc)
        rc = send_small(cuda, device + at->small_at, l, err);
    if (!rc && at->far_words)
        rc = send_far(cuda, device + at->far_at, far, err);
    return rc ? rc : finish_sending(cuda, err);
}

static struct vibe_matrix describe(void *device,
                                   const struct vibe_cuda_layout *l,
                                   const struct places *at)
{
    const struct vibe_matrix_source *src = l->src;
    char *small = (char *)device + at->small_at;
    char *far = (char *)device + at->far_at;

    return (struct vibe_matrix){
        .N = src->N,
        .K = src->K,
        .bytes = at->rows,
        .part = {{.data = device,
                  .scale = floats_at(small, l->has_scale, l->scale_at),
                  .n_scales = src->N,
                  .far = at->far_words ? (uint32_t *)(void *)far : NULL,
                  .is_tiled = vibe_tile_bytes(l->dtype) > 0,
                  .dtype = l->dtype,
                  .n = src->N}},
        .n_parts = 1,
        .is_pair = src->is_pair,
        .bias = floats_at(small, src->bias != NULL, l->bias_at),
        .gamma = floats_at(small, src->gamma != NULL, l->gamma_at),
        .owned = device,
    };
}

static int load(struct vibe_matrix *m, struct vibe_cuda *cuda,
                const struct vibe_cuda_layout *l, size_t rows_bytes,
                struct vibe_error *err)
{
    struct vibe_tiles_far far = {0};
    struct places at = {0};
    void *device = NULL;
    int rc = vibe_cuda_layout_far(&far, l, err);

    if (!rc && !cuda->staging)
        rc = make_staging(cuda, err);
    if (!rc) {
        at = places_of(l, rows_bytes, &far);
        rc = take_places(&device, cuda, l, &at, err);
    }
    if (!rc)
        rc = send(cuda, device, l, &at, &far, err);
    vibe_tiles_far_release(&far);
    if (rc && device) {
        cudaStreamSynchronize(cuda->copy);
        vibe_cuda_give(cuda, device);
    }
    if (!rc)
        *m = describe(device, l, &at);
    return rc;
}

int vibe_cuda_matrix_load(struct vibe_matrix *m, struct vibe_backend *be,
                          const struct vibe_matrix_source *src,
                          struct vibe_error *err)
{
    struct vibe_cuda_layout l;
    int rc = vibe_cuda_layout_make(&l, src, err);

    return rc ? rc : load(m, vibe_cuda_of(be), &l, l.rows_bytes, err);
}

static int load_small(struct vibe_matrix *m, struct vibe_backend *be,
                      const struct vibe_matrix_source *src,
                      struct vibe_error *err)
{
    struct vibe_cuda_layout l;
    int rc = vibe_cuda_layout_make(&l, src, err);

    return rc ? rc : load(m, vibe_cuda_of(be), &l, 0, err);
}

static int measure(struct vibe_backend *be,
                   const struct vibe_matrix_source *src, size_t *rows,
                   size_t *small, struct vibe_error *err)
{
    struct vibe_cuda_layout l;
    int rc = vibe_cuda_layout_make(&l, src, err);

    (void)be;
    if (rc)
        return rc;
    *rows = l.rows_bytes;
    *small = l.small_bytes + vibe_tiles_list_bytes(l.dtype, src->N, src->K);
    return VIBE_OK;
}

static size_t piece_bytes(struct vibe_backend *be,
                          const struct vibe_matrix_source *src, size_t first,
                          size_t n)
{
    struct vibe_cuda_layout l;

    (void)be, (void)first;
    if (vibe_cuda_layout_make(&l, src, NULL))
        return 0;
    return vibe_cuda_layout_units(&l, n) * l.unit_bytes;
}

static void lay(struct vibe_backend *be, const struct vibe_matrix_source *src,
                size_t first, size_t n, void *out)
{
    struct vibe_cuda_layout l;

    (void)be;
    if (vibe_cuda_layout_make(&l, src, NULL))
        return; /* not of one that was measured */
    first /= l.unit;
    for (size_t i = 0; i < vibe_cuda_layout_units(&l, n); i++)
        vibe_cuda_layout_lay((char *)out + i * l.unit_bytes, &l, first + i);
}

static int fill(struct vibe_backend *be, const struct vibe_matrix_source *src,
                size_t first, size_t n, void *device, struct vibe_error *err)
{
    struct vibe_cuda *cuda = vibe_cuda_of(be);
    struct vibe_cuda_layout l;
    int rc = vibe_cuda_layout_make(&l, src, err);

    if (!rc && !cuda->staging)
        rc = make_staging(cuda, err);
    if (!rc)
        rc = send_rows(cuda, device, &l, first, n, err);
    return rc ? rc : finish_sending(cuda, err);
}

struct vibe_matrix vibe_cuda_rows(const struct vibe_matrix *m, size_t first,
                                  size_t n)
{
    const enum vibe_dtype dtype = m->part[0].dtype;
    const size_t size = vibe_dtype_size(dtype);
    struct vibe_matrix rows = *m;

    rows.N = n;
    rows.first += first;
    rows.part[0].n = n;
    rows.part[0].data = (const char *)m->part[0].data +
                        (m->part[0].is_tiled
                             ? vibe_tiles_bytes(dtype, first, m->K)
                             : first * vibe_cuda_stride(m->K) * size);
    rows.part[0].scale = m->part[0].scale ? m->part[0].scale + first : NULL;
    rows.bias = m->bias ? m->bias + first : NULL;
    rows.gamma = m->gamma ? m->gamma + first : NULL;
    return rows;
}

void vibe_cuda_matrix_release(struct vibe_matrix *m, struct vibe_backend *be)
{
    vibe_cuda_give(vibe_cuda_of(be), m->owned);
}

void vibe_cuda_memory_init(struct vibe_ops *ops)
{
    ops->alloc = cuda_alloc;
    ops->free = cuda_free;
    ops->matrix_load = vibe_cuda_matrix_load;
    ops->matrix_release = vibe_cuda_matrix_release;
    ops->matrix_measure = measure;
    ops->piece_bytes = piece_bytes;
    ops->matrix_lay = lay;
    ops->matrix_load_small = load_small;
    ops->matrix_fill = fill;
}
