/*
 * block.cuh - a narrow block of a codec: its mixer, and
 * y += gamma * (W2 gelu(W1 normed + b1) + b2), whose hidden row is 4 C wide.
 *
 * A warp makes 16 rows of UNITS hidden channels at a time, from all channels
 * of the normed rows; and 16 rows of some channels of y, from unit after unit.
 * Of 32 neighbours along K lane q of four takes 8, which is any order to a sum.
 *
 * Normed and hidden values are two bf16, high and low, so 2^-17 of each product
 * is lost, as in gemm.cu.
 */
#ifndef VIBE_CUDA_BLOCK_CUH
#define VIBE_CUDA_BLOCK_CUH

#include "engine/backend/cuda/epilogue.cuh"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/mixer.cuh"
#include "engine/backend/cuda/tensor.cuh"

enum { UNITS = 32, ROWS_OF_MANY = 64 };

struct block {
    struct mixer mixer;              /* its y is the block's */
    const unsigned short *up, *down; /* bf16 */
    const float *up_bias, *down_bias, *gamma;
    unsigned up_stride, down_stride; /* elements from row to row */
};

static inline struct block block_of(const struct vibe_block_call *call,
                                    const struct vibe_tensor *normed)
{
    const struct vibe_block *w = call->w;
    const struct block a = {{chunk_of(&call->y), chunk_of(normed),
                             chunk_of(&call->state), chunk_of(&call->past),
                             chunk_of(&call->x), w->mixer, (unsigned)call->x.C,
                             (unsigned)(call->x.B * call->x.T), 1, false},
                            (const unsigned short *)w->up.part[0].data,
                            (const unsigned short *)w->down.part[0].data,
                            w->up.bias,
                            w->down.bias,
                            w->down.gamma,
                            (unsigned)vibe_cuda_stride(w->up.K),
                            (unsigned)vibe_cuda_stride(w->down.K)};

    return a;
}

/* For so many rows that a block for each multiprocessor has work. */
cudaError_t vibe_cuda_block_many(const struct vibe_cuda *cuda,
                                 const struct block *a);

/* The same by the products of sm_90a, where they are there for it. */
bool vibe_cuda_can_block_async(const struct block *a);
cudaError_t vibe_cuda_block_async(const struct vibe_cuda *cuda,
                                  const struct block *a);

#if __CUDA_ARCH__ >= 800

/* factor_of for so many channels. */
template <unsigned C>
__device__ static inline float factor_for(float squares, const struct mixer &a)
{
    return rsqrtf(fmaf(squares, 1.0f / C, a.w.eps));
}

/* 16 rows as mma's a, C channels of x or UNITS hidden ones. */
template <unsigned K> struct operand {
    unsigned high[K / 16][4], low[K / 16][4];
};

/* Rows lane / 4 and 8 more of x. */
template <unsigned C>
__device__ static inline void load_x(operand<C> &x, const float *upper,
                                     const float *lower)
{
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const float *row = (half ? lower : upper) + threadIdx.x % 4 * 8;

#pragma unroll
        for (unsigned k = 0; k < C / 16; k++) { /* 4 of the lane's 8 */
            const float4 v = *(const float4 *)(row + k / 2 * 32 + k % 2 * 4);

            split(x.high[k][half], x.low[k][half], make_float2(v.x, v.y));
            split(x.high[k][2 + half], x.low[k][2 + half],
                  make_float2(v.z, v.w));
        }
    }
}

/* The products of some sums with 32 neighbours along K, from k on in a; w has
 * this lane's.  Those that follow each other are of different sums, which take
 * turns in a tensor core. */
template <unsigned K, unsigned COUNT>
__device__ static inline void multiply32(float (*sums)[4], const operand<K> &a,
                                         unsigned k, const uint4 (&w)[COUNT])
{
#pragma unroll
    for (unsigned step = 0; step < 2; step++)
#pragma unroll
        for (unsigned part = 0; part < 2; part++)
#pragma unroll
            for (unsigned i = 0; i < COUNT; i++) {
                const unsigned b[2] = {step ? w[i].z : w[i].x,
                                       step ? w[i].w : w[i].y};

                multiply(sums[i],
                         part ? a.low[k / 16 + step] : a.high[k / 16 + step],
                         b);
            }
}

/* The row of W1, from a unit's first on, that this lane reads for product i:
 * column n is channel 8 (n / 2) + 2 i + n % 2, so that a lane ends up with 8
 * neighbours. */
__device__ static inline unsigned row_of_unit(unsigned i)
{
    const unsigned lane = threadIdx.x % 32;

    return lane / 8 * 8 + lane / 4 % 2 + 2 * i;
}

/* What the sums of a unit become, of the first products of it; bias is
 * theirs. */
template <unsigned COUNT>
__device__ static inline operand<8 * COUNT> hidden_of(
    const float (&sums)[COUNT][4], const float *bias)
{
    operand<8 * COUNT> h;

    bias += threadIdx.x % 4 * 8;
#pragma unroll
    for (unsigned i = 0; i < COUNT; i++) {
        const float2 b = *(const float2 *)(bias + 2 * i);

#pragma unroll
        for (unsigned half = 0; half < 2; half++)
            split(h.high[i / 2][i % 2 * 2 + half],
                  h.low[i / 2][i % 2 * 2 + half],
                  make_float2(gelu(sums[i][2 * half] + b.x),
                              gelu(sums[i][2 * half + 1] + b.y)));
    }
    return h;
}

/* What channels c and the next of y need. */
struct ending {
    float2 bias, gamma;

    __device__ inline void load(const struct block &a, unsigned c)
    {
        bias = __ldg((const float2 *)(a.down_bias + c));
        gamma = __ldg((const float2 *)(a.gamma + c));
    }

    /* y + gamma * (sum + bias) */
    __device__ inline float2 finish(float2 y, float s0, float s1) const
    {
        return make_float2(fmaf(gamma.x, s0 + bias.x, y.x),
                           fmaf(gamma.y, s1 + bias.y, y.y));
    }
};

#endif

#endif /* VIBE_CUDA_BLOCK_CUH */
