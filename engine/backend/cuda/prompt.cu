/*
 * prompt.cu - what products by cuBLASLt begin and end with: rows of x and
 * weights made bf16, sums finished.  Each kernel is bound by memory.
 */
#include <cuda_bf16.h>

#include "engine/backend/cuda/epilogue.cuh"
#include "engine/backend/cuda/weights.cuh"

enum { THREADS = 256 };

__device__ static inline unsigned bf16_pair(float lo, float hi)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(lo)) |
           (unsigned)__bfloat16_as_ushort(__float2bfloat16_rn(hi)) << 16;
}

/* Rows to bf16, a thread eight neighbours, by pieces of 16 bytes where rows of
 * x are aligned. */
struct rounding {
    uint4 *out;
    struct view x;
    unsigned T, K, eights; /* of a row */
    int is_aligned;
};

__global__ void __launch_bounds__(THREADS)
    round_kernel(const __grid_constant__ struct rounding a)
{
    const unsigned m = blockIdx.y;
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    const float *in = a.x.data + row_at(a.x, a.T, m) + 8 * i;
    float v[8] = {};

    wait_for_inputs();
    if (i >= a.eights)
        return;
    if (a.is_aligned && 8 * i + 8 <= a.K) {
        *(float4 *)v = *(const float4 *)in;
        *(float4 *)(v + 4) = *(const float4 *)(in + 4);
    } else {
#pragma unroll
        for (unsigned j = 0; j < 8; j++)
            if (8 * i + j < a.K)
                v[j] = in[j];
    }
#pragma unroll
    for (unsigned j = 0; j < 8; j++)
        v[j] = high_of(v[j], a.x.is_split);
    a.out[(size_t)m * a.eights + i] = make_uint4(
        bf16_pair(v[0], v[1]), bf16_pair(v[2], v[3]), bf16_pair(v[4], v[5]),
        bf16_pair(v[6], v[7]));
}

/* Bytes to bf16, by eight neighbours of a row. */
struct expansion {
    uint4 *out;
    const char *w;
    unsigned n, of_row; /* eights */
    bool is_banded;     /* see matrix.h */
};

/* Where in rows those eight are that lie in w as number i. */
__device__ static inline unsigned in_rows(const expansion &a, unsigned i)
{
    enum {
        OF_TILE_ROW = VIBE_TILE_COLUMNS / 8,
        OF_TILE = VIBE_TILE_ROWS * OF_TILE_ROW,
    };
    const unsigned at = i % (VIBE_TILE_ROWS * a.of_row);

    return a.is_banded ? i - at + at % OF_TILE / OF_TILE_ROW * a.of_row +
                             at / OF_TILE * OF_TILE_ROW + at % OF_TILE_ROW
                       : i;
}

/* A thread does eight. */
template <int dtype>
__global__ void __launch_bounds__(THREADS)
    expand_kernel(const __grid_constant__ struct expansion a)
{
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    weights8<dtype> u;
    float f[8];

    if (i >= a.n)
        return;
    load8(u, a.w + (size_t)8 * i);
    widen8<dtype>(f, u);
    a.out[in_rows(a, i)] = make_uint4(
        bf16_pair(f[0], f[1]), bf16_pair(f[2], f[3]), bf16_pair(f[4], f[5]),
        bf16_pair(f[6], f[7]));
}

struct finishing {
    struct epilogue e;
    const void *sums;
    unsigned stride; /* of sums */
    int is_aligned;  /* y, to 16 bytes */
};

__global__ void __launch_bounds__(THREADS)
    finish_kernel(const __grid_constant__ struct finishing a)
{
    const unsigned n = 2 * (blockIdx.x * THREADS + threadIdx.x);
    const unsigned m = blockIdx.y;
    const float *row = (const float *)a.sums + (size_t)m * a.stride;

    wait_for_inputs();
    if (n < a.e.N)
        store_two(a.e, m, n, row[n], n + 1 < a.e.N ? row[n + 1] : 0.0f);
}

/* silu(z) * z' of four neighbouring pairs of bf16 sums. */
__global__ void __launch_bounds__(THREADS)
    finish_pairs_kernel(const __grid_constant__ struct finishing a)
{
    const unsigned n = 8 * (blockIdx.x * THREADS + threadIdx.x);
    const unsigned m = blockIdx.y;
    float *y = a.e.y.data + row_at(a.e.y, a.e.T, m) + n / 2;
    float out[4];
    uint4 u;

    wait_for_inputs();
    if (n >= a.e.N)
        return;
    u = *(const uint4 *)((const __nv_bfloat16 *)a.sums + (size_t)m * a.stride +
                         n);
#pragma unroll
    for (unsigned j = 0; j < 4; j++) {
        const unsigned pair = j == 0 ? u.x : j == 1 ? u.y : j == 2 ? u.z : u.w;
        const unsigned at = min(n + 2 * j, a.e.N - 2);
        float z[2] = {__uint_as_float(pair << 16),
                      __uint_as_float(pair & 0xFFFF0000u)};

#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            if (a.e.scale)
                z[i] *= a.e.scale[at + i];
            if (a.e.bias)
                z[i] += a.e.bias[at + i];
        }
        out[j] = kept(silu(z[0]) * z[1], a.e.y.is_split);
    }
    if (a.is_aligned && n + 8 <= a.e.N) {
        *(float4 *)y = *(const float4 *)out;
        return;
    }
#pragma unroll
    for (unsigned j = 0; j < 4; j++)
        if (n + 2 * j < a.e.N)
            y[j] = out[j];
}

/* Whether rows can be had by 16 bytes. */
static int is_aligned(const struct vibe_tensor *t)
{
    return (size_t)t->data % 16 == 0 && t->stride_b % 4 == 0 &&
           t->stride_t % 4 == 0;
}

cudaError_t vibe_cuda_round(const struct vibe_cuda *cuda, void *out,
                            const struct vibe_tensor *x)
{
    struct rounding a;
    dim3 grid;

    a.out = (uint4 *)out;
    a.x = view_of(x);
    a.T = (unsigned)x->T;
    a.K = (unsigned)x->C;
    a.eights = (unsigned)vibe_cuda_stride(x->C) / 8;
    a.is_aligned = is_aligned(x);
    grid = dim3((a.eights + THREADS - 1) / THREADS, (unsigned)(x->B * x->T));
    return launch_waiting((const void *)round_kernel, grid, THREADS, 0,
                          cuda->compute, &a);
}

cudaError_t vibe_cuda_expand(const struct vibe_cuda *cuda, void *out,
                             const struct vibe_matrix *w)
{
    const size_t of_row = vibe_cuda_stride(w->K) / 8;
    const struct expansion a = {(uint4 *)out, (const char *)w->part[0].data,
                                (unsigned)(w->N * of_row), (unsigned)of_row,
                                vibe_cuda_is_banded(w) != 0};
    const unsigned blocks = (a.n + THREADS - 1) / THREADS;

    if (w->part[0].is_tiled)
        return vibe_cuda_expand_tiles(cuda, out, w);
    if (w->part[0].dtype == VIBE_I8)
        expand_kernel<VIBE_I8><<<blocks, THREADS, 0, cuda->compute>>>(a);
    else if (w->part[0].dtype == VIBE_F8_E4M3)
        expand_kernel<VIBE_F8_E4M3><<<blocks, THREADS, 0, cuda->compute>>>(a);
    else
        return cudaErrorInvalidValue;
    return cudaGetLastError();
}

static cudaError_t launch_finish(const void *kernel,
                                 const struct vibe_cuda *cuda,
                                 const struct vibe_cuda_product *p,
                                 const void *sums, unsigned of_thread)
{
    const unsigned of_block = of_thread * THREADS;
    struct finishing a;

    a.e = epilogue_of(p);
    a.sums = sums;
    a.stride = (unsigned)vibe_cuda_stride(a.e.N);
    a.is_aligned = is_aligned(p->y);
    return launch_waiting(
        kernel,
        dim3((a.e.N + of_block - 1) / of_block, (unsigned)(p->x->B * p->x->T)),
        THREADS, 0, cuda->compute, &a);
}

cudaError_t vibe_cuda_finish(const struct vibe_cuda *cuda,
                             const struct vibe_cuda_product *p,
                             const float *sums)
{
    return launch_finish((const void *)finish_kernel, cuda, p, sums, 2);
}

cudaError_t vibe_cuda_finish_pairs(const struct vibe_cuda *cuda,
                                   const struct vibe_cuda_product *p,
                                   const void *sums)
{
    return launch_finish((const void *)finish_pairs_kernel, cuda, p, sums, 8);
}
