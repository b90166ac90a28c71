/* Ops on elements: one thread does one, all are bound by bytes moved. */
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/noise.h"

enum { THREADS = 256 };

/* A view: where element i of [B][T][C], counted densely, lies. */
struct view {
    float *data;
    unsigned T, C;
    size_t stride_b, stride_t;
};

static struct view view_of(const struct vibe_tensor *t)
{
    struct view view = {NULL, 1, 1, 0, 0};

    if (t) {
        view.data = (float *)t->data;
        view.T = (unsigned)t->T;
        view.C = (unsigned)t->C;
        view.stride_b = t->stride_b;
        view.stride_t = t->stride_t;
    }
    return view;
}

__device__ static inline float *at(struct view v, size_t i)
{
    const unsigned c = (unsigned)(i % v.C);
    const size_t row = i / v.C;

    return v.data + row / v.T * v.stride_b + row % v.T * v.stride_t + c;
}

static size_t size_of(const struct vibe_tensor *t)
{
    return t->B * t->T * t->C;
}

static unsigned blocks_of(size_t n)
{
    return (unsigned)((n + THREADS - 1) / THREADS);
}

__global__ void add_silu(struct view y, struct view a, struct view b, size_t n)
{
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    float v;

    if (i >= n)
        return;
    v = *at(a, i) + (b.data ? *at(b, i) : 0.0f);
    *at(y, i) = v / (1.0f + expf(-v));
}

cudaError_t vibe_cuda_add_silu(cudaStream_t stream, const struct vibe_tensor *y,
                               const struct vibe_tensor *a,
                               const struct vibe_tensor *b)
{
    add_silu<<<blocks_of(size_of(y)), THREADS, 0, stream>>>(
        view_of(y), view_of(a), view_of(b), size_of(y));
    return cudaGetLastError();
}

__global__ void affine(struct view y, struct view x, float mul, float add,
                       size_t n)
{
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;

    if (i < n)
        *at(y, i) = *at(x, i) * mul + add;
}

cudaError_t vibe_cuda_affine(cudaStream_t stream, const struct vibe_tensor *y,
                             const struct vibe_tensor *x, float mul, float add)
{
    affine<<<blocks_of(size_of(y)), THREADS, 0, stream>>>(
        view_of(y), view_of(x), mul, add, size_of(y));
    return cudaGetLastError();
}

__global__ void copy(struct view y, struct view x, size_t n)
{
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;

    if (i < n)
        *at(y, i) = *at(x, i);
}

cudaError_t vibe_cuda_copy(cudaStream_t stream, const struct vibe_tensor *y,
                           const struct vibe_tensor *x)
{
    copy<<<blocks_of(size_of(y)), THREADS, 0, stream>>>(view_of(y), view_of(x),
                                                        size_of(y));
    return cudaGetLastError();
}

__global__ void zero(struct view y, size_t n)
{
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;

    if (i < n)
        *at(y, i) = 0.0f;
}

cudaError_t vibe_cuda_zero(cudaStream_t stream, const struct vibe_tensor *y)
{
    zero<<<blocks_of(size_of(y)), THREADS, 0, stream>>>(view_of(y), size_of(y));
    return cudaGetLastError();
}

/* One thread per channel of a dialogue, both rows of it. */
__global__ void solver_step(struct view x, struct view m1, struct view v,
                            const float *cfg_scale,
                            struct vibe_solver_coef coef, size_t n)
{
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    float positive, negative, guided, m0;

    if (i >= n)
        return;
    positive = *at(v, i);
    negative = *at(v, n + i);
    guided = negative + cfg_scale[i / x.C] * (positive - negative);
    m0 = coef.alpha * *at(x, i) - coef.sigma * guided;
    *at(x, i) = coef.a * *at(x, i) + coef.c0 * m0 + coef.c1 * *at(m1, i);
    *at(m1, i) = m0;
}

cudaError_t vibe_cuda_solver_step(cudaStream_t stream,
                                  const struct vibe_tensor *x,
                                  const struct vibe_tensor *m1,
                                  const struct vibe_tensor *v,
                                  const float *cfg_scale,
                                  const struct vibe_solver_coef *coef)
{
    solver_step<<<blocks_of(size_of(x)), THREADS, 0, stream>>>(
        view_of(x), view_of(m1), view_of(v), cfg_scale, *coef, size_of(x));
    return cudaGetLastError();
}

__global__ void noise(struct view x, const struct vibe_noise_key *keys,
                      size_t n)
{
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    struct vibe_noise_key key;

    if (i >= n)
        return;
    key = keys[i / x.C];
    *at(x, i) = vibe_noise_normal(key.seed, key.dialogue, key.frame,
                                  (uint32_t)(i % x.C));
}

cudaError_t vibe_cuda_noise(cudaStream_t stream, const struct vibe_tensor *x,
                            const struct vibe_noise_key *keys)
{
    noise<<<blocks_of(size_of(x)), THREADS, 0, stream>>>(view_of(x), keys,
                                                         size_of(x));
    return cudaGetLastError();
}
