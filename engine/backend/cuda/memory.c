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

#include "engine/backend/cuda/matrix.h"
#include "engine/base/size.h"
#include "engine/format/pack.h"

enum { STAGING_BYTES = 32 << 20, ALIGNMENT = 256 };

struct vibe_cuda_staging {
    char *data[2];
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

static int make_staging(struct vibe_cuda *cuda, struct vibe_error *err)
{
    struct vibe_cuda_staging *staging = calloc(1, sizeof(*staging));
    cudaError_t rc = cudaSuccess;

    if (!staging)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory to load matrices");
    cuda->staging = staging;
    for (int i = 0; i < 2 && rc == cudaSuccess; i++) {
        rc = cudaHostAlloc((void **)&staging->data[i], STAGING_BYTES,
                           cudaHostAllocDefault);
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
        cudaFreeHost(staging->data[i]);
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

/* A matrix as it will lie on the device. */
struct plan {
    const struct vibe_matrix_source *src;
    enum vibe_dtype dtype; /* all parts widened to this */
    size_t size;           /* of an element */
    size_t row_bytes;
    size_t rows_bytes; /* of all rows */
    /* the small arrays: where they begin, in bytes, and whether they exist */
    size_t scale_at, bias_at, gamma_at;
    int has_scale;
    size_t small_bytes;
};

static int is_scaled(const struct plan *plan)
{
    for (int i = 0; i < plan->src->n_parts; i++)
        if (plan->src->part[i].scale)
            return 1;
    return plan->dtype == VIBE_I8;
}

/* Append an array of N floats. */
static size_t append_floats(struct plan *plan)
{
    size_t at = plan->small_bytes;

    plan->small_bytes += vibe_size_round(plan->src->N * sizeof(float),
                                         ALIGNMENT);
    return at;
}

static int make_plan(struct plan *plan, const struct vibe_matrix_source *src,
                     struct vibe_error *err)
{
    *plan = (struct plan){.src = src, .dtype = vibe_matrix_gpu_dtype(src)};
    plan->size = vibe_dtype_size(plan->dtype);
    if (vibe_size_mul(&plan->row_bytes, vibe_cuda_stride(src->K), plan->size) ||
        vibe_size_mul(&plan->rows_bytes, plan->row_bytes, src->N) ||
        plan->row_bytes > STAGING_BYTES || plan->rows_bytes > SIZE_MAX / 2 ||
        src->N > UINT32_MAX - ALIGNMENT)
        return vibe_fail(err, VIBE_E_UNSUPPORTED,
                         "a matrix of %zu x %zu is too large", src->N, src->K);
    plan->has_scale = is_scaled(plan);
    if (plan->has_scale)
        plan->scale_at = append_floats(plan);
    if (src->bias)
        plan->bias_at = append_floats(plan);
    if (src->gamma)
        plan->gamma_at = append_floats(plan);
    return VIBE_OK;
}

/* Which row of the source is row n on the device. */
static size_t source_row(const struct vibe_matrix_source *src, size_t n)
{
    return src->is_pair ? n / 2 + n % 2 * (src->N / 2) : n;
}

static float byte_to_f32(unsigned char byte, enum vibe_dtype dtype)
{
    float f;

    vibe_dtype_to_f32(&f, &byte, dtype, 1);
    return f;
}

/* out[n] of the plan's dtype = in[n] of another, exactly. */
static void widen(void *out, enum vibe_dtype to, const void *in,
                  enum vibe_dtype from, size_t n)
{
    const unsigned char *bytes = in;
    uint16_t *halves = out;

    if (to == from) {
        memcpy(out, in, n * vibe_dtype_size(to));
        return;
    }
    if (to == VIBE_F32) {
        vibe_dtype_to_f32(out, in, from, n);
        return;
    }
    assert(to == VIBE_BF16 && (from == VIBE_F8_E4M3 || from == VIBE_I8));
    for (size_t i = 0; i < n; i++) {
        float f = byte_to_f32(bytes[i], from);
        uint32_t bits;

        memcpy(&bits, &f, sizeof(bits));
        halves[i] = (uint16_t)(bits >> 16);
    }
}

/* Columns k .. k + n_k - 1 of row n of a part that is expanded, as bf16, which
 * holds what quant.h's int4 stands for; k begins a tile of pack.h. */
static void expand(uint16_t *out, const struct vibe_matrix_part *part, size_t K,
                   size_t n, size_t k, size_t n_k)
{
    const size_t block = n - n % VIBE_PACK_BLOCK;
    const size_t left = part->n - block;
    const char *data = part->data;
    float wide[VIBE_PACK_COLUMNS];

    if (part->dtype == VIBE_BF16_PACKED) {
        vibe_unpack_row(out, data + vibe_matrix_part_bytes(part, K, 0, block),
                        left < VIBE_PACK_BLOCK ? left : VIBE_PACK_BLOCK, K,
                        n % VIBE_PACK_ROWS,
                        (n - block) / VIBE_PACK_ROWS * vibe_pack_across(K) +
                            k / VIBE_PACK_COLUMNS);
        return;
    }
    data += n * vibe_dtype_bytes(part->dtype, K) +
            vibe_dtype_bytes(part->dtype, k);
    vibe_dtype_to_f32(wide, data, part->dtype, n_k);
    for (size_t i = 0; i < n_k; i++) {
        uint32_t bits;

        if (part->group_scale)
            wide[i] *= part->group_scale[n * (K / part->group) +
                                         (k + i) / part->group];
        memcpy(&bits, &wide[i], sizeof(bits));
        out[i] = (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    }
}

static void lay_linear(char *out, const struct plan *plan, size_t n)
{
    const struct vibe_matrix_part *part = plan->src->part;
    size_t K = plan->src->K;
    const char *in;

    for (n = source_row(plan->src, n); n >= part->n; part++)
        n -= part->n;
    for (size_t k = 0; part->dtype > VIBE_I8 && k < K; k += VIBE_PACK_COLUMNS) {
        size_t n_k = K - k < VIBE_PACK_COLUMNS ? K - k : VIBE_PACK_COLUMNS;
        uint16_t halves[VIBE_PACK_COLUMNS];

        expand(halves, part, K, n, k, n_k);
        widen(out + k * plan->size, plan->dtype, halves, VIBE_BF16, n_k);
    }
    if (part->dtype > VIBE_I8)
        return;
    in = (const char *)part->data + n * K * vibe_dtype_size(part->dtype);
    widen(out, plan->dtype, in, part->dtype, K);
}

/* [in][taps] of row n to [taps][in]. */
static void lay_conv(char *out, const struct plan *plan, size_t n)
{
    const struct vibe_matrix_source *src = plan->src;
    size_t size = plan->size;
    size_t taps = src->K / src->in;
    const char *in = (const char *)src->part[0].data + n * src->K * size;

    for (size_t tap = 0; tap < taps; tap++)
        for (size_t i = 0; i < src->in; i++)
            memcpy(out + (tap * src->in + i) * size,
                   in + (i * taps + tap) * size, size);
}

/* Row phase * out + o: tap phase + stride for the previous column, then tap
 * phase for the current one. */
static void lay_transposed(char *out, const struct plan *plan, size_t n)
{
    const struct vibe_matrix_source *src = plan->src;
    size_t size = plan->size;
    size_t stride = src->N / src->out;
    size_t phase = n / src->out;
    const char *in = (const char *)src->part[0].data +
                     (n % src->out * 2 * stride + phase) * size;

    for (size_t i = 0; i < src->in; i++) {
        memcpy(out + i * size, in + stride * size, size);
        memcpy(out + (src->in + i) * size, in, size);
        in += src->out * 2 * stride * size;
    }
}

/* What bits p leave to be put into v, see below. */
static uint32_t left_of(uint32_t p, uint32_t v)
{
    const uint32_t swapped = (v & 0x00FF00FF) << 8 | (v >> 8 & 0x00FF00FF);

    return p ^ swapped ^ v << 4;
}

/*
 * Four float8 as weights.cuh takes them: each half of a word has two, the first
 * with its sign in bit 15 and the rest in bits 10 .. 4.  The second one has
 * these bits in (half with its bytes swapped) ^ half << 4: the free bits of the
 * half are what makes that so.
 */
static uint32_t braid(uint32_t v)
{
    const uint32_t first = (v & 0xFF) | (v & 0xFF00) << 8;
    const uint32_t second = (v >> 16 & 0xFF) | (v >> 8 & 0xFF0000);
    const uint32_t p = (second & 0x00800080) << 8 | (second & 0x007F007F) << 4;
    uint32_t out = (first & 0x00800080) << 8 | (first & 0x007F007F) << 4;
    uint32_t left = left_of(p, out);

    out |= (left >> 4 & 0x08080808) | (left >> 8 & 0x00070007);
    return out | (left_of(p, out) << 8 & 0x70007000);
}

/* Give a row of bytes the form in which they are multiplied. */
static void lay_bytes(char *row, const struct plan *plan)
{
    uint32_t *words = (uint32_t *)(void *)row;

    if (plan->dtype == VIBE_F8_E4M3)
        for (size_t i = 0; i < plan->row_bytes / 4; i++)
            words[i] = braid(words[i]);
    else if (plan->dtype == VIBE_I8)
        for (size_t i = 0; i < plan->row_bytes / 4; i++)
            words[i] ^= 0x80808080; /* 128 more */
}

static void lay_elements(char *out, const struct plan *plan, size_t n)
{
    switch (plan->src->layout) {
    case VIBE_LAYOUT_LINEAR:
        lay_linear(out, plan, n);
        return;
    case VIBE_LAYOUT_CONV:
        lay_conv(out, plan, n);
        return;
    case VIBE_LAYOUT_CONV_TRANSPOSE:
        lay_transposed(out, plan, n);
        return;
    }
}

static void lay_row(char *out, const struct plan *plan, size_t n)
{
    size_t used = plan->src->K * plan->size;

    lay_elements(out, plan, n);
    memset(out + used, 0, plan->row_bytes - used);
    lay_bytes(out, plan);
}

/* Rows from .. end - 1. */
static int send_rows(struct vibe_cuda *cuda, char *device,
                     const struct plan *plan, size_t from, size_t end,
                     struct vibe_error *err)
{
    size_t rows = STAGING_BYTES / plan->row_bytes;

    for (size_t first = from; first < end; first += rows) {
        size_t left = end - first;
        size_t n = left < rows ? left : rows;
        char *staging = take_staging(cuda, err);

        if (!staging)
            return VIBE_E_DEVICE;
            /* small matrices are laid out before a team would have woken up */
#pragma omp parallel for if (n * plan->row_bytes > 1 << 20)
        for (size_t i = 0; i < n; i++)
            lay_row(staging + i * plan->row_bytes, plan, first + i);
        if (send_staging(cuda, device + (first - from) * plan->row_bytes,
                         n * plan->row_bytes, err))
            return VIBE_E_DEVICE;
    }
    return VIBE_OK;
}

/* What sums of row n are multiplied by. */
static float scale_of(const struct plan *plan, size_t n)
{
    const struct vibe_matrix_part *part = plan->src->part;
    float unit = plan->dtype == VIBE_I8 ? 64.0f : 1.0f;

    /* the only part of a convolution may count channels, not rows */
    for (n = source_row(plan->src, n);
         plan->src->layout == VIBE_LAYOUT_LINEAR && n >= part->n; part++)
        n -= part->n;
    if (!part->scale)
        return unit;
    return unit * part->scale[part->n_scales > 1 ? n % part->n_scales : 0];
}

static float bias_of(const struct plan *plan, size_t n)
{
    const struct vibe_matrix_source *src = plan->src;

    if (src->layout == VIBE_LAYOUT_CONV_TRANSPOSE)
        return src->bias[n % src->out];
    return src->bias[source_row(src, n)];
}

static float gamma_of(const struct plan *plan, size_t n)
{
    return plan->src->gamma[source_row(plan->src, n)];
}

static int send_floats(struct vibe_cuda *cuda, char *device,
                       const struct plan *plan,
                       float (*get)(const struct plan *plan, size_t n),
                       struct vibe_error *err)
{
    size_t most = STAGING_BYTES / sizeof(float);

    for (size_t first = 0; first < plan->src->N; first += most) {
        size_t left = plan->src->N - first;
        size_t n = left < most ? left : most;
        char *staging = take_staging(cuda, err);

        if (!staging)
            return VIBE_E_DEVICE;
        for (size_t i = 0; i < n; i++)
            ((float *)(void *)staging)[i] = get(plan, first + i);
        if (send_staging(cuda, device + first * sizeof(float),
                         n * sizeof(float), err))
            return VIBE_E_DEVICE;
    }
    return VIBE_OK;
}

static int send_small(struct vibe_cuda *cuda, char *device,
                      const struct plan *plan, struct vibe_error *err)
{
    int rc = VIBE_OK;

    if (plan->has_scale)
        rc = send_floats(cuda, device + plan->scale_at, plan, scale_of, err);
    if (!rc && plan->src->bias)
        rc = send_floats(cuda, device + plan->bias_at, plan, bias_of, err);
    if (!rc && plan->src->gamma)
        rc = send_floats(cuda, device + plan->gamma_at, plan, gamma_of, err);
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

/* Rows only where there is room for them, and then before the arrays. */
static int load(struct vibe_matrix *m, struct vibe_cuda *cuda,
                const struct plan *plan, size_t rows_bytes,
                struct vibe_error *err)
{
    const struct vibe_matrix_source *src = plan->src;
    size_t small_at = vibe_size_round(rows_bytes, ALIGNMENT);
    void *device = NULL;
    char *small;
    int rc = VIBE_OK;

    if (!cuda->staging)
        rc = make_staging(cuda, err);
    if (rc)
        return rc;
    if (small_at + plan->small_bytes)
        device = vibe_cuda_take_kept(cuda, small_at + plan->small_bytes);
    if (small_at + plan->small_bytes && !device)
        return vibe_fail(err, VIBE_E_NOMEM,
                         "%s: no memory for a matrix of %zu x %zu: %zu MB "
                         "asked, %zu MB free",
                         cuda->base.name, src->N, src->K,
                         (small_at + plan->small_bytes) >> 20,
                         vibe_cuda_free_bytes(cuda) >> 20);
    small = (char *)device + small_at;
    if (rows_bytes)
        rc = send_rows(cuda, device, plan, 0, src->N, err);
    if (!rc)
        rc = send_small(cuda, small, plan, err);
    if (!rc)
        rc = finish_sending(cuda, err);
    if (rc) {
        cudaStreamSynchronize(cuda->copy);
        vibe_cuda_give(cuda, device);
        return rc;
    }
    *m = (struct vibe_matrix){
        .N = src->N,
        .K = src->K,
        .bytes = rows_bytes,
        .part = {{.data = device,
                  .scale = floats_at(small, plan->has_scale, plan->scale_at),
                  .n_scales = src->N,
                  .dtype = plan->dtype,
                  .n = src->N}},
        .n_parts = 1,
        .is_pair = src->is_pair,
        .bias = floats_at(small, src->bias != NULL, plan->bias_at),
        .gamma = floats_at(small, src->gamma != NULL, plan->gamma_at),
        .owned = device,
    };
    return VIBE_OK;
}

int vibe_cuda_matrix_load(struct vibe_matrix *m, struct vibe_backend *be,
                          const struct vibe_matrix_source *src,
                          struct vibe_error *err)
{
    struct plan plan;
    int rc = make_plan(&plan, src, err);

    return rc ? rc : load(m, vibe_cuda_of(be), &plan, plan.rows_bytes, err);
}

static int load_small(struct vibe_matrix *m, struct vibe_backend *be,
                      const struct vibe_matrix_source *src,
                      struct vibe_error *err)
{
    struct plan plan;
    int rc = make_plan(&plan, src, err);

    return rc ? rc : load(m, vibe_cuda_of(be), &plan, 0, err);
}

static int measure(struct vibe_backend *be,
                   const struct vibe_matrix_source *src, size_t *rows,
                   size_t *small, struct vibe_error *err)
{
    struct plan plan;
    int rc = make_plan(&plan, src, err);

    (void)be;
    if (rc)
        return rc;
    *rows = plan.rows_bytes;
    *small = plan.small_bytes;
    return VIBE_OK;
}

static size_t piece_bytes(struct vibe_backend *be,
                          const struct vibe_matrix_source *src, size_t first,
                          size_t n)
{
    struct plan plan;

    (void)be, (void)first;
    return make_plan(&plan, src, NULL) ? 0 : n * plan.row_bytes;
}

static void lay(struct vibe_backend *be, const struct vibe_matrix_source *src,
                size_t first, size_t n, void *out)
{
    struct plan plan;

    (void)be;
    if (make_plan(&plan, src, NULL))
        return; /* not of one that was measured */
    for (size_t i = 0; i < n; i++)
        lay_row((char *)out + i * plan.row_bytes, &plan, first + i);
}

static int fill(struct vibe_backend *be, const struct vibe_matrix_source *src,
                size_t first, size_t n, void *device, struct vibe_error *err)
{
    struct vibe_cuda *cuda = vibe_cuda_of(be);
    struct plan plan;
    int rc = make_plan(&plan, src, err);

    if (!rc && !cuda->staging)
        rc = make_staging(cuda, err);
    if (!rc)
        rc = send_rows(cuda, device, &plan, first, first + n, err);
    return rc ? rc : finish_sending(cuda, err);
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
