/*
 * launch.cuh - kernels that start before the kernel ahead of them has ended.
 *
 * From sm_90 on a kernel lets the next one start at its top and waits for its
 * own inputs as late as it can.  All that the kernels ahead have written can be
 * seen after the wait, and all of them have ended: before it a kernel may read
 * what never changes and prefetch, but not write.  Some block of each kernel
 * waits, so that a kernel that has ended means that those ahead have, too.
 */
#ifndef VIBE_CUDA_LAUNCH_CUH
#define VIBE_CUDA_LAUNCH_CUH

#include "engine/backend/cuda/matrix.h"

__device__ static inline void wait_for_inputs(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Let the next kernel start as soon as there is room beside this one. */
__device__ static inline void let_next_start(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Bring the line of p near, ahead of its use. */
__device__ static inline void prefetch(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

static inline size_t attribute_of(const struct vibe_cuda *cuda,
                                  enum cudaDeviceAttr attribute)
{
    int n = 0;

    return cudaDeviceGetAttribute(&n, attribute, cuda->device) == cudaSuccess
               ? (size_t)n
               : 0;
}

/* Bytes of shared memory that a block may have. */
static inline size_t shared_limit(const struct vibe_cuda *cuda)
{
    return attribute_of(cuda, cudaDevAttrMaxSharedMemoryPerBlockOptin);
}

/* Launch, if is_early before the kernel ahead has ended: then the kernel must
 * call wait_for_inputs. */
static inline cudaError_t launch(const void *kernel, dim3 grid, dim3 threads,
                                 size_t shared, cudaStream_t stream,
                                 int is_early, void *args)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute early;
    void *list[] = {args};

    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = threads;
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = is_early ? 1 : 0;
    return cudaLaunchKernelExC(&config, kernel, list);
}

/* Launch a kernel that waits for its inputs, early where that can be. */
static inline cudaError_t launch_waiting(const void *kernel, dim3 grid,
                                         unsigned threads, size_t shared,
                                         cudaStream_t stream, void *args)
{
    return launch(kernel, grid, threads, shared, stream,
                  vibe_cuda_compiled_for() >= 90, args);
}

#endif /* VIBE_CUDA_LAUNCH_CUH */
