/*
 * gemm.cu - products with many rows, bound by arithmetic.
 *
 * mma_kernel multiplies on the tensor cores: x is split into two bf16, high
 * and low, whose products with a weight (bf16, or float8 made bf16) are exact
 * and are added up as floats, so 2^-17 of each product is lost.  A sum is
 * added up along K in steps of 16, high before low, and over slices of K
 * where a matrix is cut (by its shape alone): the same for every tile size
 * and number of rows.
 */
#include "engine/backend/cuda/epilogue.cuh"
#include "engine/backend/cuda/tensor.cuh"
#include "engine/backend/cuda/weights.cuh"

enum {
    THREADS = 128, /* two by two warps */
    BK = 32,
    X_STRIDE = 40, /* floats from row to row: 8 rows meet different banks */
    FFMA_TILE = 64,
    FFMA_BK = 16,
    FFMA_THREADS = 256,
};

struct gemm {
    const void *w;
    struct view x;
    struct epilogue e;
    unsigned K, stride;
    unsigned first, end; /* rows of this launch */
    unsigned slices, steps_per_slice;
    int is_aligned;
    bool is_banded; /* see matrix.h */
    float *partial;
    unsigned *done; /* per tile, zero before and after */
};

#if __CUDA_ARCH__ >= 800
/* Two neighbouring weights as bf16, of which the first is even. */
template <int dtype>
__device__ static inline unsigned weight_pair(const unsigned char *p)
{
    if constexpr (dtype == VIBE_BF16) {
        return *(const unsigned *)p;
    } else {
        const size_t second = (size_t)p & 2;
        unsigned pairs[2];

        format<dtype>::expand4(pairs, *(const unsigned *)(p - second));
        return second ? pairs[1] : pairs[0];
    }
}

/* Rows of a tile's shared memory, stage by stage. */
template <int dtype, int TILE, int STAGES> struct stages {
    enum {
        WEIGHT = dtype == VIBE_BF16 ? 2 : 1,
        W_STRIDE = BK * WEIGHT + 16, /* bytes */
    };

    float x[STAGES][TILE][X_STRIDE];
    unsigned char w[STAGES][TILE][W_STRIDE];
};

/* Start copying step (BK elements) of x into a stage. */
template <int dtype, int TILE, int STAGES>
__device__ static inline void fetch_x(stages<dtype, TILE, STAGES> &s,
                                      unsigned stage, const gemm &a,
                                      const size_t x_at[TILE / 16], unsigned m0,
                                      unsigned step)
{
    const unsigned x_row = threadIdx.x / 8;
    const unsigned x_column = threadIdx.x % 8 * 4;
    const unsigned x_k = step * BK + x_column;

#pragma unroll
    for (unsigned i = 0; i < TILE / 16; i++) {
        const bool is_row = m0 + x_row + i * 16 < a.end;
        float *to = &s.x[stage][x_row + i * 16][x_column];
        const float *from = a.x.data + x_at[i] + x_k;

        if (a.is_aligned) {
            copy_async<16>(to, is_row && x_k < a.K ? from : a.x.data,
                           is_row && x_k < a.K);
            continue;
        }
#pragma unroll
        for (unsigned j = 0; j < 4; j++) {
            const bool is_there = is_row && x_k + j < a.K;

            copy_async<4>(to + j, is_there ? from + j : a.x.data, is_there);
        }
    }
}

/* The same of w, which may be done before the inputs are there. */
template <int dtype, int TILE, int STAGES>
__device__ static inline void fetch_w(stages<dtype, TILE, STAGES> &s,
                                      unsigned stage, const gemm &a,
                                      unsigned n0, unsigned step)
{
    enum { WEIGHT = stages<dtype, TILE, STAGES>::WEIGHT };

    const unsigned w_row = threadIdx.x / 4;
    const unsigned w_column = threadIdx.x % 4 * 8;
    const unsigned w_k = step * BK + w_column;

#pragma unroll
    for (unsigned i = 0; i < TILE / 32; i++) {
        const unsigned n = n0 + w_row + i * 32;
        const bool is_there = n < a.e.N && w_k < a.stride;
        const size_t at = is_there
                              ? element_at<dtype>(n, w_k, a.stride, a.is_banded)
                              : 0;

        copy_async<8 * WEIGHT>(&s.w[stage][w_row + i * 32][w_column * WEIGHT],
                               (const char *)a.w + at * WEIGHT, is_there);
    }
}

/* Add a stage to the sums of a warp: TILE / 2 by TILE / 2 outputs from m, n. */
template <bool IS_SPLIT, int dtype, int TILE, int STAGES>
__device__ static inline void add_stage(float sums[TILE / 32][TILE / 16][4],
                                        const stages<dtype, TILE, STAGES> &s,
                                        unsigned stage, unsigned m, unsigned n)
{
    enum { WEIGHT = stages<dtype, TILE, STAGES>::WEIGHT };

    const unsigned row = threadIdx.x % 32 / 4;
    const unsigned pair = threadIdx.x % 4 * 2;

#pragma unroll
    for (unsigned k = 0; k < BK; k += 16) {
        unsigned b[TILE / 16][2];

#pragma unroll
        for (unsigned j = 0; j < TILE / 16; j++) {
            const unsigned char
                *p = &s.w[stage][n + j * 8 + row][(k + pair) * WEIGHT];

            b[j][0] = weight_pair<dtype>(p);
            b[j][1] = weight_pair<dtype>(p + 8 * WEIGHT);
        }
#pragma unroll
        for (unsigned i = 0; i < TILE / 32; i++) {
            const float *p = &s.x[stage][m + i * 16 + row][k + pair];
            unsigned high[4], low[4];

            read_split(high[0], low[0], *(const float2 *)p, IS_SPLIT);
            read_split(high[1], low[1], *(const float2 *)(p + 8 * X_STRIDE),
                       IS_SPLIT);
            read_split(high[2], low[2], *(const float2 *)(p + 8), IS_SPLIT);
            read_split(high[3], low[3], *(const float2 *)(p + 8 * X_STRIDE + 8),
                       IS_SPLIT);
#pragma unroll
            for (unsigned j = 0; j < TILE / 16; j++) {
                multiply(sums[i][j], high, b[j]);
                multiply(sums[i][j], low, b[j]);
            }
        }
    }
}

/*
 * Leave this slice's sums in memory.  Returns true in the block that comes
 * last, with the sums of all slices in order.
 */
template <int COUNT>
__device__ static inline bool gather(float *sums, const gemm &a)
{
    __shared__ unsigned arrived;
    const unsigned tile = blockIdx.y * gridDim.x + blockIdx.x;
    float4 *partial = (float4 *)a.partial +
                      (size_t)tile * a.slices * (COUNT / 4) * THREADS;

#pragma unroll
    for (unsigned i = 0; i < COUNT / 4; i++)
        partial[(blockIdx.z * (COUNT / 4) + i) * THREADS +
                threadIdx.x] = make_float4(sums[4 * i], sums[4 * i + 1],
                                           sums[4 * i + 2], sums[4 * i + 3]);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        arrived = atomicAdd(&a.done[tile], 1);
    __syncthreads();
    if (arrived != a.slices - 1)
        return false;
    __threadfence();
    if (threadIdx.x == 0)
        a.done[tile] = 0;
#pragma unroll
    for (unsigned i = 0; i < COUNT; i++)
        sums[i] = 0.0f;
    for (unsigned z = 0; z < a.slices; z++)
#pragma unroll
        for (unsigned i = 0; i < COUNT / 4; i++) {
            const float4 v = __ldcg(
                &partial[(z * (COUNT / 4) + i) * THREADS + threadIdx.x]);

            sums[4 * i] += v.x;
            sums[4 * i + 1] += v.y;
            sums[4 * i + 2] += v.z;
            sums[4 * i + 3] += v.w;
        }
    return true;
}

/* Store a warp's sums, the outputs from row m, column n on. */
template <int TILE>
__device__ static inline void store_sums(
    const gemm &a, const float sums[TILE / 32][TILE / 16][4], unsigned m,
    unsigned n)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned i = 0; i < TILE / 32; i++) {
        const unsigned row = m + i * 16 + lane / 4;

#pragma unroll
        for (unsigned j = 0; j < TILE / 16; j++) {
            const unsigned column = n + j * 8 + lane % 4 * 2;

            if (row < a.end)
                store_two(a.e, row, column, sums[i][j][0], sums[i][j][1]);
            if (row + 8 < a.end)
                store_two(a.e, row + 8, column, sums[i][j][2], sums[i][j][3]);
        }
    }
}
#endif

/*
 * A block makes TILE by TILE outputs over one slice of K.  Shared memory is a
 * ring of stages that copies fill ahead of the tensor cores: with few tiles
 * the time is that of the copies, with many that of the products.
 */
template <int dtype, int TILE, int STAGES>
__global__ void __launch_bounds__(THREADS)
    mma_kernel(const __grid_constant__ struct gemm a)
{
#if __CUDA_ARCH__ >= 800
    __shared__ __align__(16) stages<dtype, TILE, STAGES> s;
    const unsigned warp = threadIdx.x / 32;
    const unsigned m0 = a.first + blockIdx.y * TILE;
    const unsigned n0 = blockIdx.x * TILE;
    const unsigned m = warp / 2 * (TILE / 2);
    const unsigned n = warp % 2 * (TILE / 2);
    const unsigned begin = blockIdx.z * a.steps_per_slice;
    const unsigned end = min(begin + a.steps_per_slice, (a.K + BK - 1) / BK);
    float sums[TILE / 32][TILE / 16][4] = {};
    size_t x_at[TILE / 16];

    let_next_start();
#pragma unroll
    for (unsigned i = 0; i < STAGES - 1; i++)
        if (begin + i < end)
            fetch_w(s, i, a, n0, begin + i);
    wait_for_inputs();
#pragma unroll
    for (unsigned i = 0; i < TILE / 16; i++) {
        const unsigned row = m0 + threadIdx.x / 8 + i * 16;

        x_at[i] = row_at(a.x, a.e.T, min(row, a.end - 1));
    }
#pragma unroll
    for (unsigned i = 0; i < STAGES - 1; i++) {
        if (begin + i < end)
            fetch_x(s, i, a, x_at, m0, begin + i);
        copies_end();
    }
    for (unsigned step = begin; step < end; step++) {
        const unsigned i = step - begin;

        copies_wait<STAGES - 2>();
        __syncthreads();
        if (step + STAGES - 1 < end) {
            fetch_x(s, (i + STAGES - 1) % STAGES, a, x_at, m0,
                    step + STAGES - 1);
            fetch_w(s, (i + STAGES - 1) % STAGES, a, n0, step + STAGES - 1);
        }
        copies_end();
        if (a.x.is_split)
            add_stage<true>(sums, s, i % STAGES, m, n);
        else
            add_stage<false>(sums, s, i % STAGES, m, n);
    }
    if (a.slices > 1 && !gather<TILE / 32 * TILE / 16 * 4>(&sums[0][0][0], a))
        return;
    store_sums<TILE>(a, sums, m0 + m, n0 + n);
#endif
}

/* A block makes 64 by 64 outputs, a thread 4 by 4 of them, one step of 16
 * after the other along K. */
template <int dtype>
__global__ void __launch_bounds__(FFMA_THREADS)
    ffma_kernel(const __grid_constant__ struct gemm a)
{
    __shared__ __align__(16) float xs[FFMA_BK][FFMA_TILE + 4];
    __shared__ __align__(16) float ws[FFMA_BK][FFMA_TILE + 4];
    const unsigned m0 = blockIdx.y * FFMA_TILE;
    const unsigned n0 = blockIdx.x * FFMA_TILE;
    const unsigned m = threadIdx.x / 16 * 4;
    const unsigned n = threadIdx.x % 16 * 4;
    float sums[4][4] = {};

    let_next_start();
    wait_for_inputs();
    for (unsigned k0 = 0; k0 < a.K; k0 += FFMA_BK) {
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            const unsigned k = threadIdx.x % FFMA_BK;
            const unsigned row = threadIdx.x / FFMA_BK + i * 16;
            float x = 0.0f, w = 0.0f;

            if (m0 + row < a.end && k0 + k < a.K)
                x = meant(a.x.data[row_at(a.x, a.e.T, m0 + row) + k0 + k],
                          a.x.is_split);
            if (n0 + row < a.e.N && k0 + k < a.K)
                w = weight_at<dtype>(
                    a.w,
                    element_at<dtype>(n0 + row, k0 + k, a.stride, a.is_banded));
            xs[k][row] = x;
            ws[k][row] = w;
        }
        __syncthreads();
#pragma unroll
        for (unsigned k = 0; k < FFMA_BK; k++) {
            const float4 x = *(const float4 *)&xs[k][m];
            const float4 w = *(const float4 *)&ws[k][n];
            const float xv[4] = {x.x, x.y, x.z, x.w};
            const float wv[4] = {w.x, w.y, w.z, w.w};

#pragma unroll
            for (unsigned i = 0; i < 4; i++)
#pragma unroll
                for (unsigned j = 0; j < 4; j++)
                    sums[i][j] = fmaf(xv[i], wv[j], sums[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        if (m0 + m + i >= a.end)
            continue;
        store_two(a.e, m0 + m + i, n0 + n, sums[i][0], sums[i][1]);
        store_two(a.e, m0 + m + i, n0 + n + 2, sums[i][2], sums[i][3]);
    }
}

/* Whether rows can be had by 16 bytes. */
static int is_aligned(const struct vibe_tensor *t)
{
    return (size_t)t->data % 16 == 0 && t->stride_b % 4 == 0 &&
           t->stride_t % 4 == 0;
}

static struct gemm args_of(const struct vibe_cuda_product *p, size_t first,
                           size_t n_rows)
{
    struct gemm a;

    a.w = p->w->part[0].data;
    a.x = view_of(p->x);
    a.e = epilogue_of(p);
    a.K = (unsigned)p->w->K;
    a.stride = (unsigned)vibe_cuda_stride(p->w->K);
    a.first = (unsigned)first;
    a.end = (unsigned)(first + n_rows);
    a.slices = 1;
    a.steps_per_slice = (a.K + BK - 1) / BK;
    a.is_aligned = a.K % 4 == 0 && is_aligned(p->x);
    a.is_banded = vibe_cuda_is_banded(p->w);
    a.partial = NULL;
    a.done = NULL;
    return a;
}

/* A slice of 256 keeps the ring busy; matrices of the LM have tiles enough. */
size_t vibe_cuda_mma_split(const struct vibe_matrix *w)
{
    const size_t most = 8;
    size_t split = w->K / 256;

    if (w->whole_N * w->K > (size_t)4 << 20 || split < 1)
        return 1;
    return split < most ? split : most;
}

template <int dtype>
static cudaError_t launch_mma(const struct vibe_cuda *cuda, struct gemm *a)
{
    const unsigned M = a->end - a->first;
    const unsigned many = 2 * (unsigned)cuda->n_sm;
    const unsigned tiles64 = (M + 63) / 64 * ((a->e.N + 63) / 64);
    const unsigned tile = tiles64 * a->slices >= many ? 64 : 32;
    const dim3 grid((a->e.N + tile - 1) / tile, (M + tile - 1) / tile,
                    a->slices);

    return launch_waiting(tile == 64 ? (const void *)mma_kernel<dtype, 64, 3>
                                     : (const void *)mma_kernel<dtype, 32, 4>,
                          grid, THREADS, 0, cuda->compute, a);
}

cudaError_t vibe_cuda_mma(const struct vibe_cuda *cuda,
                          const struct vibe_cuda_product *p, size_t first,
                          size_t n_rows, float *partial)
{
    struct gemm a = args_of(p, first, n_rows);
    const unsigned steps = a.steps_per_slice;

    a.slices = (unsigned)vibe_cuda_mma_split(p->w);
    a.steps_per_slice = (steps + a.slices - 1) / a.slices;
    a.partial = partial;
    a.done = cuda->done;
    if (p->w->part[0].dtype == VIBE_BF16)
        return launch_mma<VIBE_BF16>(cuda, &a);
    if (p->w->part[0].dtype == VIBE_I8)
        return launch_mma<VIBE_I8>(cuda, &a);
    return launch_mma<VIBE_F8_E4M3>(cuda, &a);
}

static const void *ffma_for(enum vibe_dtype dtype)
{
    switch (dtype) {
    case VIBE_F32:
        return (const void *)ffma_kernel<VIBE_F32>;
    case VIBE_BF16:
        return (const void *)ffma_kernel<VIBE_BF16>;
    case VIBE_F16:
        return (const void *)ffma_kernel<VIBE_F16>;
    case VIBE_F8_E4M3:
        return (const void *)ffma_kernel<VIBE_F8_E4M3>;
    case VIBE_I8:
        return (const void *)ffma_kernel<VIBE_I8>;
    case VIBE_I4:
    case VIBE_BF16_PACKED:
    case VIBE_I64:
    case VIBE_U8:
        break;
    }
    return NULL;
}

cudaError_t vibe_cuda_ffma(const struct vibe_cuda *cuda,
                           const struct vibe_cuda_product *p)
{
    struct gemm a = args_of(p, 0, p->x->B * p->x->T);
    const dim3 grid((a.e.N + FFMA_TILE - 1) / FFMA_TILE,
                    (a.end + FFMA_TILE - 1) / FFMA_TILE);

    return launch_waiting(ffma_for(p->w->part[0].dtype), grid, FFMA_THREADS, 0,
                          cuda->compute, &a);
}
