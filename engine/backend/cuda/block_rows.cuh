/*
 * block_rows.cuh - how a run of neighbouring rows of a narrow block comes to
 * those who mix it: C / 4 lanes, each with four channels of all of them; and
 * the block's weights to the GPU's cache.
 */
#ifndef VIBE_CUDA_BLOCK_ROWS_CUH
#define VIBE_CUDA_BLOCK_ROWS_CUH

#include "engine/backend/cuda/block.cuh"
#include "engine/backend/cuda/rows.cuh"

#if __CUDA_ARCH__ >= 800

/* Sums over the lanes of a row. */
template <unsigned C, unsigned N>
__device__ static inline void add_lanes(float (&sums)[N])
{
#pragma unroll
    for (int k = C / 8; k > 0; k /= 2)
#pragma unroll
        for (unsigned i = 0; i < N; i++)
            sums[i] += __shfl_xor_sync(0xFFFFFFFFu, sums[i], k);
}

/* Ask for all weights, some lines a thread. */
template <unsigned C, unsigned THREADS>
__device__ static inline void prefetch_weights(const struct block &a)
{
    for (unsigned i = threadIdx.x * gridDim.x + blockIdx.x; i < 4 * C * C / 64;
         i += gridDim.x * THREADS) {
        prefetch(a.up + i * 64);
        prefetch(a.down + i * 64);
    }
}

/* Column t of dialogue b, from the first of the past on; channel c. */
__device__ static inline const float *column_at(const struct mixer &a,
                                                unsigned b, unsigned t,
                                                unsigned c)
{
    return (t < PAST ? row_at(a.past, b, t) : row_at(a.x, b, t - PAST)) + c;
}

/* The columns that rows t0 on of dialogue b read, which are the first ones or
 * have PAST before them; past the last it is that again. */
template <unsigned N>
__device__ static inline void read_columns(vec<4> (&column)[N],
                                           const struct mixer &a, unsigned b,
                                           unsigned t0, unsigned c)
{
    const unsigned t = t0 < a.x.T ? t0 : 0; /* else nobody's rows */
    const unsigned stride = (unsigned)a.x.stride_t;
    const float *x = row_at(a.x, b, t) + c;
    const float *past = t ? x - PAST * stride : row_at(a.past, b, 0) + c;
    const unsigned of_past = t ? stride : (unsigned)a.past.stride_t;

#pragma unroll
    for (unsigned j = 0; j < PAST; j++)
        column[j] = read<4>(past + j * of_past);
#pragma unroll
    for (unsigned j = 0; j + PAST < N; j++)
        column[PAST + j] = read<4>(x + min(j, a.x.T - 1 - t) * stride);
}

/* Keep the last columns of a dialogue, normed; a warp does. */
template <unsigned C>
__device__ static inline void keep_state(const struct mixer &a, unsigned b)
{
    enum { WIDTH = C / 4, AT_ONCE = 32 / WIDTH };
    const unsigned c = threadIdx.x % WIDTH * 4;

#pragma unroll 1
    for (unsigned i = 0; i < PAST; i += AT_ONCE) {
        const unsigned j = i + threadIdx.x % 32 / WIDTH;
        const unsigned t = a.x.T + min(j, PAST - 1);
        vec<4> v = read<4>(column_at(a, b, t, c));
        float squares[1] = {add_squares<4>(0.0f, v)};

        add_lanes<C>(squares);
        if (t >= PAST)
            v = scale<4>(v, factor_for<C>(squares[0], a),
                         read<4>(a.w.norm + c));
        if (j < PAST)
            write_out<4>(row_at(a.state, b, j) + c, v);
    }
}

/* The first hidden channel of a step of 16 along K, of whose 32 it has every
 * other four. */
__device__ static inline unsigned hidden_of_step(unsigned step)
{
    return step / 2 * 32 + step % 2 * 4;
}

#endif

#endif /* VIBE_CUDA_BLOCK_ROWS_CUH */
