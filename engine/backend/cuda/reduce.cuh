/* reduce.cuh - sums in an order that never depends on the batch, over warps
 * and blocks, and who of several blocks comes last. */
#ifndef VIBE_CUDA_REDUCE_CUH
#define VIBE_CUDA_REDUCE_CUH

__device__ static inline float vibe_warp_sum(float v)
{
    for (int offset = 16; offset > 0; offset /= 2)
        v += __shfl_xor_sync(0xFFFFFFFFu, v, offset);
    return v;
}

/* The sum over a block of up to 32 warps, in every thread. */
__device__ static inline float vibe_block_sum(float v)
{
    __shared__ float of_warp[32];
    const int n_warps = (blockDim.x + 31) / 32;
    float sum = 0.0f;

    v = vibe_warp_sum(v);
    __syncthreads(); /* of_warp may still be read from the call before */
    if (threadIdx.x % 32 == 0)
        of_warp[threadIdx.x / 32] = v;
    __syncthreads();
    for (int i = 0; i < n_warps; i++)
        sum += of_warp[i];
    return sum;
}

/* Whether this block is the last of n to arrive; resets the counter. */
__device__ static inline bool vibe_is_last_block(unsigned *done, unsigned n)
{
    __shared__ bool last;

    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(done, 1) == n - 1;
        if (last)
            *done = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
}

#endif /* VIBE_CUDA_REDUCE_CUH */
