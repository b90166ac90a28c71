/*
 * together.cuh - kernels whose blocks wait for each other: they are launched
 * TOGETHER, one for each multiprocessor, and meet between steps.
 */
#ifndef VIBE_CUDA_TOGETHER_CUH
#define VIBE_CUDA_TOGETHER_CUH

#include "engine/backend/cuda/launch.cuh"

/*
 * Blocks that meet.  What one has written before it arrives, all can read
 * after they have waited, but not by __ldg.
 *
 *   arrived   a counter, zero before and after the kernel
 */
struct meeting {
    unsigned *arrived;
    unsigned expected; /* arrivals so far, of all blocks */

    __device__ inline void arrive(void)
    {
        __syncthreads();
        if (threadIdx.x == 0)
            asm volatile(
                "red.release.gpu.global.add.u32 [%0], 1;" ::"l"(arrived)
                : "memory");
        expected += gridDim.x;
    }

    __device__ inline void wait(void) const
    {
        unsigned n = 0;

        if (threadIdx.x == 0)
            while (n < expected)
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                             : "=r"(n)
                             : "l"(arrived)
                             : "memory");
        __syncthreads();
    }

    /* Go without waiting; the last block leaves zero. */
    __device__ inline void leave(void) const
    {
        if (threadIdx.x == 0 &&
            atomicAdd(arrived, 1) == expected + gridDim.x - 1)
            *arrived = 0;
    }
};

#endif /* VIBE_CUDA_TOGETHER_CUH */
