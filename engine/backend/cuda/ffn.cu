/*
 * ffn.cu - the two products of a narrow codec block in one kernel:
 * y += gamma * (W2 gelu(W1 x + b1) + b2), whose hidden row is 4 C wide.
 *
 * A block makes 16 rows.  A warp takes 32 hidden channels: it multiplies all
 * of x for them and them for all of y, so hidden values stay in its registers;
 * what the warps have for y is added in their order.  Weights come from the
 * cache, each to one warp, in the order in which they lie: of 32 neighbours
 * along K lane q of four takes 8, which is any order to a sum.
 *
 * x and hidden values are two bf16, high and low, so 2^-17 of each product is
 * lost, as in gemm.cu.
 */
#include "engine/backend/cuda/epilogue.cuh"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/tensor.cuh"

enum {
    ROWS = 16,  /* of a block */
    UNITS = 32, /* hidden channels of a warp at a time */
    PAD = 8,    /* floats after a row of sums: 4 rows meet different banks */
};

template <unsigned C> struct shape {
    enum {
        WARPS = C == 32 ? 4 : 8,
        THREADS = 32 * WARPS,
        ROUNDS = 4 * C / UNITS / WARPS,
        STRIDE = C + PAD,
        BYTES = WARPS * ROWS * STRIDE * 4, /* of shared memory */
    };
};

struct ffn {
    const unsigned short *up, *down; /* bf16 */
    const float *up_bias, *down_bias, *gamma;
    struct view x, y;
    unsigned up_stride, down_stride; /* elements from row to row */
    unsigned T, n_rows;
};

#if __CUDA_ARCH__ >= 800

/* 16 rows as mma's a, C channels of x or UNITS hidden ones. */
template <unsigned K> struct operand {
    unsigned high[K / 16][4], low[K / 16][4];
};

template <unsigned C>
__device__ static inline void load_x(operand<C> &x, const struct ffn &a,
                                     unsigned m0)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const unsigned m = min(m0 + lane / 4 + half * 8, a.n_rows - 1);
        const float *row = a.x.data + row_at(a.x, a.T, m) + lane % 4 * 8;

#pragma unroll
        for (unsigned k = 0; k < C / 16; k++) { /* 4 of the lane's 8 */
            const float4 v = *(const float4 *)(row + k / 2 * 32 + k % 2 * 4);

            split(x.high[k][half], x.low[k][half], make_float2(v.x, v.y));
            split(x.high[k][2 + half], x.low[k][2 + half],
                  make_float2(v.z, v.w));
        }
    }
}

/* c += a b for 32 neighbours along K, from k on in a; w has this lane's. */
template <unsigned K>
__device__ static inline void multiply32(float c[4], const operand<K> &a,
                                         unsigned k, uint4 w)
{
    const unsigned b0[2] = {w.x, w.y}, b1[2] = {w.z, w.w};

    multiply(c, a.high[k / 16], b0);
    multiply(c, a.low[k / 16], b0);
    multiply(c, a.high[k / 16 + 1], b1);
    multiply(c, a.low[k / 16 + 1], b1);
}

__device__ static inline uint4 load_weights(const unsigned short *w)
{
    return __ldg((const uint4 *)w);
}

/* Hidden channels first .. first + UNITS - 1.  Column n of product i is channel
 * 8 (n / 2) + 2 i + n % 2, so that a lane ends up with 8 neighbours. */
template <unsigned C>
__device__ static inline void make_hidden(operand<UNITS> &h,
                                          const operand<C> &x,
                                          const struct ffn &a, unsigned first)
{
    const unsigned lane = threadIdx.x % 32;
    const unsigned row = first + lane / 8 * 8 + lane / 4 % 2;
    const float *bias = a.up_bias + first + lane % 4 * 8;
    float sums[4][4] = {};

#pragma unroll
    for (unsigned i = 0; i < 4; i++)
#pragma unroll
        for (unsigned k = 0; k < C; k += 32)
            multiply32<C>(sums[i], x, k,
                          load_weights(a.up +
                                       (size_t)(row + 2 * i) * a.up_stride + k +
                                       lane % 4 * 8));
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        const float2 b = *(const float2 *)(bias + 2 * i);

#pragma unroll
        for (unsigned half = 0; half < 2; half++)
            split(h.high[i / 2][i % 2 * 2 + half],
                  h.low[i / 2][i % 2 * 2 + half],
                  make_float2(gelu(sums[i][2 * half] + b.x),
                              gelu(sums[i][2 * half + 1] + b.y)));
    }
}

template <unsigned C>
__device__ static inline void add_hidden(float (&sums)[C / 8][4],
                                         const operand<UNITS> &h,
                                         const struct ffn &a, unsigned first)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned n = 0; n < C / 8; n++)
        multiply32<UNITS>(
            sums[n], h, 0,
            load_weights(a.down + (size_t)(n * 8 + lane / 4) * a.down_stride +
                         first + lane % 4 * 8));
}

/* Add up what the warps have and finish y. */
template <unsigned C>
__device__ static inline void finish(const struct ffn &a, const float *sums,
                                     unsigned m0)
{
    for (unsigned i = threadIdx.x; i < ROWS * C / 4; i += shape<C>::THREADS) {
        const unsigned m = i / (C / 4);
        const unsigned c = i % (C / 4) * 4;
        float4 sum = *(const float4 *)(a.down_bias + c);
        const float4 gamma = *(const float4 *)(a.gamma + c);
        float4 *y;

        if (m0 + m >= a.n_rows)
            return;
        y = (float4 *)(a.y.data + row_at(a.y, a.T, m0 + m) + c);
#pragma unroll
        for (unsigned w = 0; w < shape<C>::WARPS; w++) {
            const float4 v = *(
                const float4 *)(sums + (w * ROWS + m) * shape<C>::STRIDE + c);

            sum.x += v.x;
            sum.y += v.y;
            sum.z += v.z;
            sum.w += v.w;
        }
        *y = make_float4(fmaf(gamma.x, sum.x, y->x), fmaf(gamma.y, sum.y, y->y),
                         fmaf(gamma.z, sum.z, y->z),
                         fmaf(gamma.w, sum.w, y->w));
    }
}

/* The blocks ask for all weights, a line a thread, before their inputs. */
template <unsigned C>
__device__ static inline void prefetch_weights(const struct ffn &a)
{
    const unsigned i = blockIdx.x * shape<C>::THREADS + threadIdx.x;
    const unsigned up_lines = 4 * C * a.up_stride / 64;
    const unsigned down_lines = C * a.down_stride / 64;

    if (i < up_lines)
        prefetch(a.up + i * 64);
    else if (i < up_lines + down_lines)
        prefetch(a.down + (i - up_lines) * 64);
}

#endif

template <unsigned C>
__global__ __launch_bounds__(shape<C>::THREADS) void ffn_kernel(
    const __grid_constant__ struct ffn a)
{
#if __CUDA_ARCH__ >= 800
    extern __shared__ float4 memory[];
    float *parts = (float *)memory;
    const unsigned lane = threadIdx.x % 32;
    const unsigned warp = threadIdx.x / 32;
    const unsigned m0 = blockIdx.x * ROWS;
    float *mine = parts + (warp * ROWS + lane / 4) * shape<C>::STRIDE +
                  lane % 4 * 2;
    float sums[C / 8][4] = {};
    operand<C> x;

    let_next_start();
    prefetch_weights<C>(a);
    wait_for_inputs();
    load_x<C>(x, a, m0);
#pragma unroll 1
    for (unsigned i = 0; i < shape<C>::ROUNDS; i++) {
        const unsigned first = (i * shape<C>::WARPS + warp) * UNITS;
        operand<UNITS> hidden;

        make_hidden<C>(hidden, x, a, first);
        add_hidden<C>(sums, hidden, a, first);
    }
#pragma unroll
    for (unsigned n = 0; n < C / 8; n++) {
        *(float2 *)(mine + n * 8) = make_float2(sums[n][0], sums[n][1]);
        *(float2 *)(mine + 8 * shape<C>::STRIDE +
                    n * 8) = make_float2(sums[n][2], sums[n][3]);
    }
    __syncthreads();
    finish<C>(a, parts, m0);
#endif
}

template <unsigned C>
static cudaError_t launch_ffn(cudaStream_t stream, struct ffn *a)
{
    const void *kernel = (const void *)ffn_kernel<C>;
    cudaError_t rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape<C>::BYTES);

    if (rc != cudaSuccess)
        return rc;
    return launch_waiting(kernel, dim3((a->n_rows + ROWS - 1) / ROWS),
                          shape<C>::THREADS, shape<C>::BYTES, stream, a);
}

cudaError_t vibe_cuda_ffn(cudaStream_t stream, const struct vibe_tensor *y,
                          const struct vibe_tensor *x,
                          const struct vibe_matrix *up,
                          const struct vibe_matrix *down)
{
    struct ffn a = {(const unsigned short *)up->part[0].data,
                    (const unsigned short *)down->part[0].data,
                    up->bias,
                    down->bias,
                    down->gamma,
                    view_of(x),
                    view_of(y),
                    (unsigned)vibe_cuda_stride(up->K),
                    (unsigned)vibe_cuda_stride(down->K),
                    (unsigned)x->T,
                    (unsigned)(x->B * x->T)};

    if (x->C == 32)
        return launch_ffn<32>(stream, &a);
    if (x->C == 64)
        return launch_ffn<64>(stream, &a);
    return launch_ffn<128>(stream, &a);
}
