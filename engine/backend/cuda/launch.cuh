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

/* How the blocks of a kernel start. */
enum start {
    EARLY,    /* where that can be before the kernel ahead has ended, whose
                 results they wait for by wait_for_inputs */
    TOGETHER, /* all at once, or none, so that they may wait for each other; not
                 early, which would be slower */
};

static inline cudaError_t launch(const void *kernel, enum start start,
                                 dim3 grid, dim3 threads, size_t shared,
                                 cudaStream_t stream, void *args)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute;
    void *list[] = {args};

    if (start == TOGETHER) {
        attribute.id = cudaLaunchAttributeCooperative;
        attribute.val.cooperative = 1;
    } else {
        attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attribute.val.programmaticStreamSerializationAllowed = 1;
    }
    config.gridDim = grid;
    config.blockDim = threads;
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = start == TOGETHER || vibe_cuda_compiled_for() >= 90;
    return cudaLaunchKernelExC(&config, kernel, list);
}

static inline cudaError_t launch_waiting(const void *kernel, dim3 grid,
                                         dim3 threads, size_t shared,
                                         cudaStream_t stream, void *args)
{
    return launch(kernel, EARLY, grid, threads, shared, stream, args);
}

#endif /* VIBE_CUDA_LAUNCH_CUH */
