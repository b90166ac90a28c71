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

#endif /* VIBE_CUDA_ROWS_CUH */
