/* How fast can memory be read? */
#include "engine/backend/cuda/kernels.h"

enum { THREADS = 512, PER_SM = 4, UNROLL = 8 };

/* Blocks stride through the data, UNROLL loads of 16 bytes in flight. */
__global__ void read_all(const uint4 *data, size_t n, unsigned *out)
{
    const size_t stride = (size_t)gridDim.x * THREADS;
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    unsigned sum = 0;

    for (; i + (UNROLL - 1) * stride < n; i += UNROLL * stride) {
        uint4 v[UNROLL];

        for (int k = 0; k < UNROLL; k++)
            v[k] = __ldcs(data + i + k * stride);
        for (int k = 0; k < UNROLL; k++)
            sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
    }
    for (; i < n; i += stride)
        sum += data[i].x;
    if (sum == 1) /* never for all-equal bytes: keeps the loads */
        *out = sum;
}

cudaError_t vibe_cuda_find_kernel(void)
{
    struct cudaFuncAttributes attributes;
    cudaError_t rc = cudaFuncGetAttributes(&attributes, read_all);

    cudaGetLastError(); /* it is the answer, not an error of a later call */
    return rc;
}

cudaError_t vibe_cuda_read_all(cudaStream_t stream, const void *data,
                               size_t n_bytes, unsigned *out, int n_sm)
{
    read_all<<<(unsigned)(PER_SM * n_sm), THREADS, 0, stream>>>(
        (const uint4 *)data, n_bytes / sizeof(uint4), out);
    return cudaGetLastError();
}
