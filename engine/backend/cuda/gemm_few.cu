/* gemm_few.cu - products that make many rows from little: matrices of a few
 * outputs, and of a few inputs. */
#include "engine/backend/cuda/epilogue.cuh"
#include "engine/backend/cuda/weights.cuh"

enum {
    THREADS = 256,
    LANES = 8,   /* that make a row of few outputs */
    CHUNK = 256, /* of K, whose weights are in shared memory */
    HEIGHT = 8,  /* rows of few inputs that a thread makes */
};

struct few {
    const void *w;
    struct view x;
    struct epilogue e;
    unsigned K, stride; /* elements of a row of weights */
    unsigned n_rows;
    bool is_even; /* x, by 16 bytes */
};

static struct few few_of(const struct vibe_cuda_product *p)
{
    const struct vibe_tensor *x = p->x;
    struct few a;

    a.w = p->w->part[0].data;
    a.x = view_of(x);
    a.e = epilogue_of(p);
    a.K = (unsigned)p->w->K;
    a.stride = (unsigned)vibe_cuda_stride(a.K);
    a.n_rows = (unsigned)(x->B * x->T);
    a.is_even = a.K % 4 == 0 && (size_t)x->data % 16 == 0 &&
                x->stride_b % 4 == 0 && x->stride_t % 4 == 0;
    return a;
}

/* Four neighbours of a row of x, zeros past its end. */
__device__ static inline float4 read_four(const few &a, const float *x,
                                          unsigned k)
{
    float v[4] = {};

    if (a.is_even)
        return *(const float4 *)(x + k);
#pragma unroll
    for (unsigned j = 0; j < 4; j++)
        if (k + j < a.K)
            v[j] = x[k + j];
    return make_float4(v[0], v[1], v[2], v[3]);
}

/* Have weights k0, ..., k0 + CHUNK - 1 of all outputs as floats, zeros past
 * K. */
template <int dtype>
__device__ static inline void load_chunk(float (&w)[VIBE_CUDA_FEW][CHUNK],
                                         const few &a, unsigned k0)
{
    for (unsigned i = threadIdx.x; i < VIBE_CUDA_FEW * CHUNK; i += THREADS) {
        const unsigned n = i / CHUNK;
        const unsigned k = k0 + i % CHUNK;

        w[n][i % CHUNK] = n < a.e.N && k < a.K
                              ? weight_at<dtype>(a.w, (size_t)n * a.stride + k)
                              : 0.0f;
    }
}

/* LANES of a warp make the few outputs of one row; x is read once, from the
 * first cache where rows overlap. */
template <int dtype>
__global__ void __launch_bounds__(THREADS)
    few_kernel(const __grid_constant__ struct few a)
{
    __shared__ __align__(16) float w[VIBE_CUDA_FEW][CHUNK];
    const unsigned lane = threadIdx.x % LANES;
    const unsigned m = (blockIdx.x * THREADS + threadIdx.x) / LANES;
    const float *x = a.x.data + row_at(a.x, a.e.T, min(m, a.n_rows - 1));
    float sums[VIBE_CUDA_FEW] = {};

    let_next_start();
    load_chunk<dtype>(w, a, 0);
    wait_for_inputs();
    for (unsigned k0 = 0; k0 < a.K; k0 += CHUNK) {
        const unsigned end = min(a.K - k0, (unsigned)CHUNK);

        if (k0 > 0) {
            __syncthreads();
            load_chunk<dtype>(w, a, k0);
        }
        __syncthreads();
#pragma unroll 4
        for (unsigned k = 4 * lane; k < end; k += 4 * LANES) {
            const float4 v = read_four(a, x, k0 + k);
            const float part[4] = {
                meant(v.x, a.x.is_split), meant(v.y, a.x.is_split),
                meant(v.z, a.x.is_split), meant(v.w, a.x.is_split)};

#pragma unroll
            for (unsigned n = 0; n < VIBE_CUDA_FEW; n++)
#pragma unroll
                for (unsigned j = 0; j < 4 && n < a.e.N; j++)
                    sums[n] = fmaf(part[j], w[n][k + j], sums[n]);
        }
    }
#pragma unroll
    for (unsigned n = 0; n < VIBE_CUDA_FEW; n++)
        for (int offset = LANES / 2; offset > 0 && n < a.e.N; offset /= 2)
            sums[n] += __shfl_xor_sync(0xFFFFFFFFu, sums[n], offset);
#pragma unroll
    for (unsigned n = 0; n < VIBE_CUDA_FEW; n += 2)
        if (lane == n / 2 && m < a.n_rows)
            store_two(a.e, m, n, sums[n], sums[n + 1]);
}

/* A thread makes two outputs of HEIGHT rows, of at most eight inputs. */
template <int dtype>
__global__ void __launch_bounds__(THREADS)
    thin_kernel(const __grid_constant__ struct few a)
{
    const unsigned pairs = (a.e.N + 1) / 2;
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    const unsigned m0 = i / pairs * HEIGHT;
    const unsigned n = i % pairs * 2;
    float w[2][VIBE_CUDA_THIN] = {};

#pragma unroll
    for (unsigned j = 0; j < 2; j++)
#pragma unroll
        for (unsigned k = 0; k < VIBE_CUDA_THIN; k++)
            if (k < a.K && n + j < a.e.N)
                w[j][k] = weight_at<dtype>(a.w, (size_t)(n + j) * a.stride + k);
    let_next_start();
    wait_for_inputs();
#pragma unroll
    for (unsigned h = 0; h < HEIGHT; h++) {
        const unsigned m = m0 + h;
        const float *x = a.x.data + row_at(a.x, a.e.T, min(m, a.n_rows - 1));
        float sums[2] = {};

#pragma unroll
        for (unsigned k = 0; k < VIBE_CUDA_THIN; k++) {
            const float v = k < a.K ? meant(x[k], a.x.is_split) : 0.0f;

            sums[0] = fmaf(v, w[0][k], sums[0]);
            sums[1] = fmaf(v, w[1][k], sums[1]);
        }
        if (m < a.n_rows)
            store_two(a.e, m, n, sums[0], sums[1]);
    }
}

template <int dtype> static const void *kernel_of(bool is_thin)
{
    return is_thin ? (const void *)thin_kernel<dtype>
                   : (const void *)few_kernel<dtype>;
}

static const void *kernel_for(enum vibe_dtype dtype, bool is_thin)
{
    switch (dtype) {
    case VIBE_F32:
        return kernel_of<VIBE_F32>(is_thin);
    case VIBE_BF16:
        return kernel_of<VIBE_BF16>(is_thin);
    case VIBE_F16:
        return kernel_of<VIBE_F16>(is_thin);
    case VIBE_F8_E4M3:
        return kernel_of<VIBE_F8_E4M3>(is_thin);
    case VIBE_I8:
        return kernel_of<VIBE_I8>(is_thin);
    case VIBE_I4:
    case VIBE_BF16_PACKED:
    case VIBE_I64:
    case VIBE_U8:
        break;
    }
    return NULL;
}

static cudaError_t launch_few(const struct vibe_cuda *cuda,
                              const struct vibe_cuda_product *p, bool is_thin)
{
    struct few a = few_of(p);
    const unsigned n = is_thin ? (a.n_rows + HEIGHT - 1) / HEIGHT *
                                     ((a.e.N + 1) / 2)
                               : a.n_rows * LANES;

    return launch_waiting(kernel_for(p->w->part[0].dtype, is_thin),
                          dim3((n + THREADS - 1) / THREADS), THREADS, 0,
                          cuda->compute, &a);
}

cudaError_t vibe_cuda_few(const struct vibe_cuda *cuda,
                          const struct vibe_cuda_product *p)
{
    return launch_few(cuda, p, false);
}

cudaError_t vibe_cuda_thin(const struct vibe_cuda *cuda,
                           const struct vibe_cuda_product *p)
{
    return launch_few(cuda, p, true);
}
