/* Few bytes for the device, which travel with a launch. */
#include <stdint.h>
#include <string.h>

#include "engine/backend/cuda/kernels.h"

enum { WORDS = VIBE_CUDA_STORE_BYTES / sizeof(uint32_t) };

struct words {
    uint32_t at[WORDS];
};

__global__ void store_words(uint32_t *out, const struct words in)
{
    out[threadIdx.x] = in.at[threadIdx.x];
}

int vibe_cuda_can_store(const void *device, size_t bytes)
{
    return bytes > 0 && bytes <= VIBE_CUDA_STORE_BYTES &&
           bytes % sizeof(uint32_t) == 0 &&
           (uintptr_t)device % sizeof(uint32_t) == 0;
}

cudaError_t vibe_cuda_store(cudaStream_t stream, void *device, const void *host,
                            size_t bytes)
{
    struct words in;

    memcpy(in.at, host, bytes);
    store_words<<<1, (unsigned)(bytes / sizeof(uint32_t)), 0, stream>>>(
        (uint32_t *)device, in);
    return cudaGetLastError();
}
