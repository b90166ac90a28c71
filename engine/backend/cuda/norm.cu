/* RMS norms, plain and modulated. */
#include <assert.h>

#include "engine/backend/cuda/digits.cuh"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/reduce.cuh"

enum {
    THREADS = 256,
    NARROW = 512,       /* channels that a warp does */
    ROW = 512,          /* threads that do a row at once */
    LONG_ROW = 4 * ROW, /* channels, from which a thread keeps two vectors */
    PARTS = 8,          /* blocks that share a row, if there are few */
    FEW = 32,           /* blocks for which there is room anyway */
    SLIM_WARPS = 4,     /* of norm_slim */
};

/* Where row r = b * T + t of a tensor begins. */
struct rows {
    float *data;
    size_t stride_b, stride_t;
    keeping how;
};

static struct rows rows_of(const struct vibe_tensor *t)
{
    struct rows rows = {NULL, 0, 0, {}};

    if (t) {
        rows.data = (float *)t->data;
        rows.stride_b = t->stride_b;
        rows.stride_t = t->stride_t;
        rows.how = keeping_of(t);
    }
    return rows;
}

/* What the kernels of this file take; shift and scale may have no data. */
struct norm {
    struct rows y, x, shift, scale;
    const float *w;
    float eps;
    unsigned n_rows, T, C;
    unsigned parts; /* of a row, a power of two: each a block's */
};

__device__ static inline float *row_at(const struct rows &rows, unsigned b,
                                       unsigned t)
{
    return rows.data ? rows.data + b * rows.stride_b + t * rows.stride_t : NULL;
}

/* Scale row t of b by its factor; lanes first, first + step, ... */
__device__ static void finish(const struct norm &a, unsigned b, unsigned t,
                              float factor, unsigned first, unsigned step)
{
    const float *x = row_at(a.x, b, t);
    const float *shift = row_at(a.shift, b, t);
    const float *scale = row_at(a.scale, b, t);
    float *y = row_at(a.y, b, t);

    for (unsigned c = first; c < a.C; c += step) {
        float v = x[c] * factor;

        if (a.w)
            v *= a.w[c];
        if (scale)
            v = v * (1.0f + scale[c]) + shift[c];
        keep_at(y, c, v, a.y.how);
    }
}

/* One warp does one row of up to NARROW channels; bytes: 2 rows moved. */
__global__ void norm_narrow(const __grid_constant__ struct norm a)
{
    const unsigned r = blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    const unsigned lane = threadIdx.x % 32;
    const unsigned b = r / a.T;
    const unsigned t = r % a.T;
    const float *in = row_at(a.x, b, t);
    float sum = 0.0f;

    let_next_start();
    wait_for_inputs();
    if (r >= a.n_rows)
        return;
    for (unsigned c = lane; c < a.C; c += 32)
        sum += in[c] * in[c];
    sum = vibe_warp_sum(sum);
    finish(a, b, t, 1.0f / sqrtf(sum / (float)a.C + a.eps), lane, 32);
}

/* One block does one row. */
__global__ void norm_wide(const __grid_constant__ struct norm a)
{
    const unsigned b = blockIdx.x / a.T;
    const unsigned t = blockIdx.x % a.T;
    const float *in = row_at(a.x, b, t);
    float sum = 0.0f;

    let_next_start();
    wait_for_inputs();
    for (unsigned c = threadIdx.x; c < a.C; c += THREADS)
        sum += in[c] * in[c];
    sum = vibe_block_sum(sum);
    finish(a, b, t, 1.0f / sqrtf(sum / (float)a.C + a.eps), threadIdx.x,
           THREADS);
}

/* 4 channels from p on, or those of a missing tensor. */
__device__ static inline float4 load(const float *p, unsigned c, float missing)
{
    return p ? *(const float4 *)(p + c)
             : make_float4(missing, missing, missing, missing);
}

/* x * factor * w * (1 + scale) + shift. */
__device__ static inline float4 change(float4 x, float factor, float4 w,
                                       float4 scale, float4 shift)
{
    return make_float4(x.x * factor * w.x * (1.0f + scale.x) + shift.x,
                       x.y * factor * w.y * (1.0f + scale.y) + shift.y,
                       x.z * factor * w.z * (1.0f + scale.z) + shift.z,
                       x.w * factor * w.w * (1.0f + scale.w) + shift.w);
}

/* The sum over a block of up to ROW threads, in every one of them. */
__device__ static inline float sum_block(float v)
{
    __shared__ float parts[ROW / 32];
    float sum = 0.0f;

    v = vibe_warp_sum(v);
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = v;
    __syncthreads();
#pragma unroll
    for (unsigned i = 0; i < ROW / 32; i++)
        sum += i < blockDim.x / 32 ? parts[i] : 0.0f;
    return sum;
}

/* Whether this block finishes vectors k of this warp. */
__device__ static inline bool is_mine(unsigned k, const struct norm &a)
{
    const unsigned i = (k * blockDim.x + threadIdx.x) / 32;

    return (i & (a.parts - 1)) == blockIdx.y;
}

/* Squares added up.  One of the first two is rounded, the others are not, and
 * which one makes the bits: left to nvcc it is now this one, now that, so it is
 * said here, as it was in rows of either length. */
template <unsigned N> __device__ static inline float squares_of(float4 v)
{
    const float rounded = N == 1 ? v.x : v.y;
    const float other = N == 1 ? v.y : v.x;
    const float sum = fmaf(other, other, __fmul_rn(rounded, rounded));

    return fmaf(v.w, v.w, fmaf(v.z, v.z, sum));
}

/*
 * A block does one row, or its part of one whose sum it makes like the others:
 * few rows wait for memory, not for its bandwidth, and shift and scale are
 * twice as much as x.  N vectors of 4 channels a thread.  Unless told that one
 * block is enough, ptxas saves registers by loading scale and shift after the
 * sum.
 */
template <unsigned N, bool IN_DIGITS>
__global__ __launch_bounds__(ROW, 1) void norm_row(
    const __grid_constant__ struct norm a)
{
    const unsigned b = blockIdx.x / a.T;
    const unsigned t = blockIdx.x % a.T;
    const float *in = row_at(a.x, b, t);
    const float *add = row_at(a.shift, b, t);
    const float *mul = row_at(a.scale, b, t);
    float *out = row_at(a.y, b, t);
    float4 v[N], weight[N], by[N], plus[N];
    float sum = 0.0f;
    float factor;

    let_next_start();
#pragma unroll
    for (unsigned k = 0; k < N; k++) {
        const unsigned c = 4 * (k * blockDim.x + threadIdx.x);
        const bool is_in = c < a.C && is_mine(k, a);

        weight[k] = load(is_in ? a.w : NULL, c, 1.0f);
    }
    wait_for_inputs();
#pragma unroll
    for (unsigned k = 0; k < N; k++) {
        const unsigned c = 4 * (k * blockDim.x + threadIdx.x);
        const bool is_in = c < a.C && is_mine(k, a);

        v[k] = load(c < a.C ? in : NULL, c, 0.0f);
        by[k] = load(is_in ? mul : NULL, c, 0.0f);
        plus[k] = load(is_in ? add : NULL, c, 0.0f);
    }
#pragma unroll
    for (unsigned k = 0; k < N; k++)
        sum += squares_of<N>(v[k]);
    factor = 1.0f / sqrtf(sum_block(sum) / (float)a.C + a.eps);
#pragma unroll
    for (unsigned k = 0; k < N; k++) {
        const unsigned c = 4 * (k * blockDim.x + threadIdx.x);
        const float4 y = change(v[k], factor, weight[k], by[k], plus[k]);

        if (!is_mine(k, a))
            continue;
        if constexpr (IN_DIGITS)
            write_digits(out, c, y, c < a.C);
        else if (c < a.C)
            keep_at(out, c, y, a.y.how);
    }
}

/* Where vector i of this lane begins, in the order of norm_slim: warps of
 * norm_row, with two each; a.C if there is none. */
__device__ static inline unsigned slim_at(unsigned i, const struct norm &a)
{
    const unsigned of_warp = 2 * 32 * 4;
    const unsigned n_warps = (a.C + of_warp - 1) / of_warp;
    const unsigned warp = i / 2 * SLIM_WARPS + threadIdx.x / 32;
    const unsigned c = 4 * (32 * (i % 2 * n_warps + warp) + threadIdx.x % 32);

    return warp < n_warps ? min(c, a.C) : a.C;
}

/* Several sums over a warp, as vibe_warp_sum makes each. */
template <unsigned N> __device__ static inline void sum_warp(float (&v)[N])
{
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
#pragma unroll
        for (unsigned i = 0; i < N; i++)
            v[i] += __shfl_xor_sync(0xFFFFFFFFu, v[i], offset);
}

/*
 * norm_row of a long row that PARTS blocks share, a vector of each lane to
 * finish, by warps that do four of its warps each: so few registers that, with
 * little of shared memory held back for a cache, blocks of the next kernel
 * have room beside and begin as early as others.  That pays for woven rows:
 * int4's and bf16's products end later by it.
 */
__global__ __launch_bounds__(32 * SLIM_WARPS, 8) void norm_slim(
    const __grid_constant__ struct norm a)
{
    enum { N = PARTS / 2 }; /* warps of norm_row */
    __shared__ float parts[N * SLIM_WARPS];
    const unsigned b = blockIdx.x / a.T;
    const unsigned t = blockIdx.x % a.T;
    const float *in = row_at(a.x, b, t);
    const float *add = row_at(a.shift, b, t);
    const float *mul = row_at(a.scale, b, t);
    float *out = row_at(a.y, b, t);
    const unsigned c = slim_at(blockIdx.y, a);
    const bool is_in = c < a.C;
    float4 v[2 * N], mine, weight, by, plus;
    float sums[N], sum = 0.0f;

    let_next_start();
    weight = load(is_in ? a.w : NULL, c, 1.0f);
    wait_for_inputs();
#pragma unroll
    for (unsigned i = 0; i < 2 * N; i++)
        v[i] = load(slim_at(i, a) < a.C ? in : NULL, slim_at(i, a), 0.0f);
    by = load(is_in ? mul : NULL, c, 0.0f);
    plus = load(is_in ? add : NULL, c, 0.0f);
#pragma unroll
    for (unsigned i = 0; i < N; i++)
        sums[i] = squares_of<2>(v[2 * i]) + squares_of<2>(v[2 * i + 1]);
    sum_warp(sums);
    if (threadIdx.x % 32 == 0)
#pragma unroll
        for (unsigned i = 0; i < N; i++)
            parts[i * SLIM_WARPS + threadIdx.x / 32] = sums[i];
#pragma unroll
    for (unsigned i = 0; i < 2 * N; i++)
        if (i == blockIdx.y)
            mine = v[i];
    __syncthreads();
#pragma unroll
    for (unsigned i = 0; i < N * SLIM_WARPS; i++)
        sum += parts[i];
    mine = change(mine, 1.0f / sqrtf(sum / (float)a.C + a.eps), weight, by,
                  plus);
    if (is_in)
        keep_at(out, c, mine, a.y.how);
}

/* Those that share a row must not write where others still read; short rows are
 * read as soon by one. */
static unsigned parts_of(const struct norm *a)
{
    const bool is_shared = a->C > LONG_ROW && a->y.data != a->x.data;
    unsigned parts = is_shared ? PARTS : 1;

    while (parts > 1 && parts * a->n_rows > FEW)
        parts /= 2;
    return parts;
}

static cudaError_t launch_slim(cudaStream_t stream, struct norm *a)
{
    const void *kernel = (const void *)norm_slim;
    const cudaError_t rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
        cudaSharedmemCarveoutMaxShared);

    if (rc != cudaSuccess)
        return rc;
    return launch_waiting(kernel, dim3(a->n_rows, PARTS), 32 * SLIM_WARPS, 0,
                          stream, a);
}

template <unsigned N>
static cudaError_t launch_row(cudaStream_t stream, struct norm *a)
{
    const unsigned of_warp = 32 * 4 * N;
    const unsigned n_warps = (a->C + of_warp - 1) / of_warp;

    a->parts = parts_of(a);
    if (a->parts == PARTS && a->y.how.is_woven &&
        vibe_cuda_compiled_for() >= 90)
        return launch_slim(stream, a);
    return launch_waiting(
        a->y.how.is_in_digits ? (const void *)norm_row<N, true>
                              : (const void *)norm_row<N, false>,
        dim3(a->n_rows, a->parts), 32 * n_warps, 0, stream, a);
}

/* Whether rows can be moved 4 channels at a time; absent ones can. */
static bool is_even(struct rows rows)
{
    return (uintptr_t)rows.data % 16 == 0 && rows.stride_b % 4 == 0 &&
           rows.stride_t % 4 == 0;
}

/* Digits are those of norm_row, which does a tile of them at once and adds up
 * otherwise than the kernels for other rows. */
unsigned vibe_cuda_norm_forms(const struct vibe_backend *,
                              const struct vibe_tensor *y)
{
    const bool is_row = y->C > NARROW && y->C <= 2 * LONG_ROW;

    return is_row ? (int)VIBE_ALL_FORMS : 1 << VIBE_FORM_WOVEN;
}

cudaError_t vibe_cuda_norm(cudaStream_t stream, const struct vibe_tensor *y,
                           const struct vibe_tensor *x, const float *w,
                           float eps, const struct vibe_tensor *shift,
                           const struct vibe_tensor *scale)
{
    const unsigned n_warps = THREADS / 32;
    struct norm a = {rows_of(y),
                     rows_of(x),
                     rows_of(shift),
                     rows_of(scale),
                     w,
                     eps,
                     (unsigned)(x->B * x->T),
                     (unsigned)x->T,
                     (unsigned)x->C,
                     1};

    assert(!a.y.how.is_in_digits || a.C > NARROW);
    if (a.C <= NARROW)
        return launch_waiting((const void *)norm_narrow,
                              dim3((a.n_rows + n_warps - 1) / n_warps), THREADS,
                              0, stream, &a);
    if (a.C % 4 == 0 && a.C <= 2 * LONG_ROW && is_even(a.y) && is_even(a.x) &&
        is_even(a.shift) && is_even(a.scale) && (uintptr_t)w % 16 == 0)
        return a.C <= LONG_ROW ? launch_row<1>(stream, &a)
                               : launch_row<2>(stream, &a);
    assert(!a.y.how.is_in_digits);
    return launch_waiting((const void *)norm_wide, dim3(a.n_rows), THREADS, 0,
                          stream, &a);
}
