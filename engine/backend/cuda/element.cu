/* Ops on elements: one thread does one, all are bound by bytes moved. */
#include "engine/backend/cuda/digits.cuh"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/mixer.cuh"
#include "engine/backend/noise.h"

enum { THREADS = 256 };

/* A view: where element i of [B][T][C], counted densely, lies. */
struct view {
    float *data;
    unsigned T, C;
    size_t stride_b, stride_t;
    keeping how;
};

static struct view view_of(const struct vibe_tensor *t)
{
    struct view view = {NULL, 1, 1, 0, 0, {}};

    if (t) {
        view.data = (float *)t->data;
        view.T = (unsigned)t->T;
        view.C = (unsigned)t->C;
        view.stride_b = t->stride_b;
        view.stride_t = t->stride_t;
        view.how = keeping_of(t);
    }
    return view;
}

__device__ static inline float *row_of(const struct view &v, size_t i)
{
    const size_t row = i / v.C;

    return v.data + row / v.T * v.stride_b + row % v.T * v.stride_t;
}

__device__ static inline float *at(const struct view &v, size_t i)
{
    return row_of(v, i) + i % v.C;
}

__device__ static inline float *row_at(const struct view &v, unsigned b,
                                       unsigned t)
{
    return v.data + b * v.stride_b + t * v.stride_t;
}

/* Write element i of a view that may be for products. */
__device__ static inline void keep(const struct view &to, size_t i, float v)
{
    keep_at(row_of(to, i), (unsigned)(i % to.C), v, to.how);
}

static size_t size_of(const struct vibe_tensor *t)
{
    return t->B * t->T * t->C;
}

/* Whether rows can be moved 4 channels at a time. */
static bool is_even(const struct vibe_tensor *t)
{
    return (uintptr_t)t->data % 16 == 0 && t->C % 4 == 0 &&
           t->stride_b % 4 == 0 && t->stride_t % 4 == 0;
}

/* What the kernels of this file take. */
struct element {
    struct view y, a, b;
    float mul, add;
    size_t n; /* elements of y */
};

static struct element element_of(const struct vibe_tensor *y,
                                 const struct vibe_tensor *a,
                                 const struct vibe_tensor *b)
{
    return {view_of(y), view_of(a), view_of(b), 1.0f, 0.0f, size_of(y)};
}

/* A thread for each of n elements. */
static cudaError_t launch_for(size_t n, const void *kernel, cudaStream_t stream,
                              void *args)
{
    return launch_waiting(kernel, dim3((unsigned)((n + THREADS - 1) / THREADS)),
                          THREADS, 0, stream, args);
}

/* Which element this thread does, once its inputs are there. */
__device__ static inline size_t begin(void)
{
    let_next_start();
    wait_for_inputs();
    return (size_t)blockIdx.x * THREADS + threadIdx.x;
}

/* A thread does V neighbours of a row. */
template <unsigned V>
__global__ void add_silu(const __grid_constant__ struct element e)
{
    const unsigned i = (unsigned)begin(), row_vectors = e.y.C / V;
    const unsigned r = i / row_vectors, c = i % row_vectors * V;
    const unsigned b = r / e.y.T, t = r % e.y.T;
    vec<V> v, more = {};

    if (i >= e.n)
        return;
    v = read<V>(row_at(e.a, b, t) + c);
    if (e.b.data)
        more = read<V>(row_at(e.b, b, t) + c);
#pragma unroll
    for (unsigned j = 0; j < V; j++) {
        v.e[j] += more.e[j];
        v.e[j] /= 1.0f + expf(-v.e[j]);
    }
    if constexpr (V == 4)
        keep_at(row_at(e.y, b, t), c,
                make_float4(v.e[0], v.e[1], v.e[2], v.e[3]), e.y.how);
    else
        keep_at(row_at(e.y, b, t), c, v.e[0], e.y.how);
}

cudaError_t vibe_cuda_add_silu(cudaStream_t stream, const struct vibe_tensor *y,
                               const struct vibe_tensor *a,
                               const struct vibe_tensor *b)
{
    const bool by_4 = is_even(y) && is_even(a) && (!b || is_even(b));
    struct element e = element_of(y, a, b);

    e.n /= by_4 ? 4 : 1;
    return launch_for(
        e.n, by_4 ? (const void *)add_silu<4> : (const void *)add_silu<1>,
        stream, &e);
}

__global__ void affine(const __grid_constant__ struct element e)
{
    const size_t i = begin();

    if (i < e.n)
        *at(e.y, i) = *at(e.a, i) * e.mul + e.add;
}

cudaError_t vibe_cuda_affine(cudaStream_t stream, const struct vibe_tensor *y,
                             const struct vibe_tensor *x, float mul, float add)
{
    struct element e = element_of(y, x, NULL);

    e.mul = mul;
    e.add = add;
    return launch_for(e.n, (const void *)affine, stream, &e);
}

/* What is meant by element i of a view. */
__device__ static inline float meant_of(const struct view &v, size_t i)
{
    const float *row = row_of(v, i);
    const unsigned c = (unsigned)(i % v.C);

    return v.how.is_in_digits ? read_digits(row, c) : meant_at(row, c, v.how);
}

__global__ void copy(const __grid_constant__ struct element e)
{
    const size_t i = begin();

    if (i < e.n)
        keep(e.y, i, meant_of(e.a, i));
}

/* The same where y is in digits: a thread does 4 neighbours. */
__global__ void copy_digits(const __grid_constant__ struct element e)
{
    const size_t i = 4 * begin();
    float x[4] = {};

    for (unsigned j = 0; j < 4 && i < e.n; j++)
        x[j] = meant_of(e.a, i + j);
    write_digits(row_of(e.y, i), (unsigned)(i % e.y.C),
                 make_float4(x[0], x[1], x[2], x[3]), i < e.n);
}

cudaError_t vibe_cuda_copy(cudaStream_t stream, const struct vibe_tensor *y,
                           const struct vibe_tensor *x)
{
    struct element e = element_of(y, x, NULL);

    if (e.y.how.is_in_digits)
        return launch_for(e.n / 4, (const void *)copy_digits, stream, &e);
    return launch_for(e.n, (const void *)copy, stream, &e);
}

__global__ void zero(const __grid_constant__ struct element e)
{
    const size_t i = begin();

    if (i < e.n)
        *at(e.y, i) = 0.0f;
}

cudaError_t vibe_cuda_zero(cudaStream_t stream, const struct vibe_tensor *y)
{
    struct element e = element_of(y, NULL, NULL);

    return launch_for(e.n, (const void *)zero, stream, &e);
}

struct solver {
    struct view x, m1, v;
    const float *cfg_scale;
    struct vibe_solver_coef coef;
    size_t n;
};

/* One thread per channel of a dialogue, both rows of it. */
__global__ void solver_step(const __grid_constant__ struct solver s)
{
    const size_t i = begin();
    float positive, negative, guided, m0;

    if (i >= s.n)
        return;
    positive = *at(s.v, i);
    negative = *at(s.v, s.n + i);
    guided = negative + s.cfg_scale[i / s.x.C] * (positive - negative);
    m0 = s.coef.alpha * *at(s.x, i) - s.coef.sigma * guided;
    *at(s.x, i) = s.coef.a * *at(s.x, i) + s.coef.c0 * m0 +
                  (s.coef.c1 == 0.0f ? 0.0f : s.coef.c1 * *at(s.m1, i));
    *at(s.m1, i) = m0;
}

cudaError_t vibe_cuda_solver_step(cudaStream_t stream,
                                  const struct vibe_solver *solver,
                                  const struct vibe_solver_coef *coef)
{
    struct solver s = {view_of(solver->x),
                       view_of(solver->m1),
                       view_of(solver->v),
                       solver->cfg_scale,
                       *coef,
                       size_of(solver->x)};

    return launch_for(s.n, (const void *)solver_step, stream, &s);
}

struct noise {
    struct view x;
    const struct vibe_noise_key *keys;
    size_t n;
};

__global__ void draw_noise(const __grid_constant__ struct noise a)
{
    const size_t i = begin();
    struct vibe_noise_key key;

    if (i >= a.n)
        return;
    key = a.keys[i / a.x.C];
    *at(a.x, i) = vibe_noise_normal(key.seed, key.dialogue, key.frame,
                                    (uint32_t)(i % a.x.C));
}

cudaError_t vibe_cuda_noise(cudaStream_t stream, const struct vibe_tensor *x,
                            const struct vibe_noise_key *keys)
{
    struct noise a = {view_of(x), keys, size_of(x)};

    return launch_for(a.n, (const void *)draw_noise, stream, &a);
}
