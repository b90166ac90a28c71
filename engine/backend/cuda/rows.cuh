/* rows.cuh - sums over the threads of a row, in one order. */
#ifndef VIBE_CUDA_ROWS_CUH
#define VIBE_CUDA_ROWS_CUH

enum { ROW_THREADS = 512 }; /* of a block, at most */

/* Sums over the threads of each row, in every one of them; calls of different
 * TURNS do not wait for each other. */
template <unsigned COUNT, int TURN>
__device__ static inline void sum_rows(float (&sum)[COUNT], unsigned width)
{
    __shared__ float parts[COUNT][ROW_THREADS / 32];
    const unsigned n_warps = width / 32;
    const unsigned first = threadIdx.x / width * n_warps;

    for (unsigned offset = min(width, 32u) / 2; offset > 0; offset /= 2)
#pragma unroll
        for (unsigned k = 0; k < COUNT; k++)
            sum[k] += __shfl_xor_sync(0xFFFFFFFFu, sum[k], offset);
    if (n_warps < 2)
        return;
    if (threadIdx.x % 32 == 0)
#pragma unroll
        for (unsigned k = 0; k < COUNT; k++)
            parts[k][threadIdx.x / 32] = sum[k];
    __syncthreads();
#pragma unroll
    for (unsigned k = 0; k < COUNT; k++)
        sum[k] = parts[k][first + threadIdx.x % n_warps];
    for (unsigned offset = n_warps / 2; offset > 0; offset /= 2)
#pragma unroll
        for (unsigned k = 0; k < COUNT; k++)
            sum[k] += __shfl_xor_sync(0xFFFFFFFFu, sum[k], offset);
}

/* The same over 2 OFFSET lanes of a warp for N values, a power of two, of which
 * each gets its own: value i in lanes 2 OFFSET / N i and the next ones. */
template <unsigned OFFSET, unsigned N>
__device__ static inline float sum_lanes(const float (&v)[N])
{
    constexpr unsigned LEFT = N > 1 ? N / 2 : 1;
    const bool is_high = threadIdx.x & OFFSET;
    float sums[LEFT];

#pragma unroll
    for (unsigned i = 0; i < LEFT; i++) {
        const float low = v[i], high = v[N - LEFT + i];

        sums[i] = (is_high ? high : low) +
                  __shfl_xor_sync(0xFFFFFFFFu, is_high ? low : high, OFFSET);
    }
    if constexpr (OFFSET > 1)
        return sum_lanes<OFFSET / 2>(sums);
    else
        return sums[0];
}

#endif /* VIBE_CUDA_ROWS_CUH */
