/*
 * solve.cu - the end of a solver step: the last product of the diffusion head,
 * with the norm before it and the step behind it.
 *
 * A warp makes one channel of one dialogue, for both branches, so that guiding
 * and stepping need nobody else.  Its block has normed the two rows of the
 * dialogue, as all blocks do: they are few, and the rows short.  Weights come
 * ahead of the inputs.
 */
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/reduce.cuh"
#include "engine/backend/cuda/weights.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    BRANCHES = 2,
    PER_LANE = 8,         /* neighbours of a row of weights */
    PASS = 32 * PER_LANE, /* of a warp */
    VECTOR = 4 * THREADS, /* channels of u that a block loads at once */
    MAX_K = 4 * VECTOR,
    /* floats from the first four neighbours of lanes to the others, which then
     * are in other banks, and for VECTOR channels */
    HALF = PASS / 2 + 16,
    ROOM = VECTOR / PASS * 2 * HALF,
    FEW = 8, /* dialogues, up to which blocks make half as many channels */
};

struct row {
    const float *data;
    size_t stride_b, stride_t;
};

static struct row row_of(const struct vibe_tensor *t)
{
    struct row row = {NULL, 0, 0};

    if (t) {
        row.data = (const float *)t->data;
        row.stride_b = t->stride_b;
        row.stride_t = t->stride_t;
    }
    return row;
}

struct solve {
    const void *w;
    const float *w_scale, *norm_w; /* or NULL */
    struct row u, shift, scale;    /* [2][D][K] */
    float *x, *m1;
    size_t x_stride, m1_stride;
    const float *cfg_scale;
    struct vibe_solver_coef coef;
    float eps;
    unsigned K, stride, C; /* stride: elements of a row of w */
    unsigned of_block;     /* channels */
    bool is_banded;        /* w, see matrix.h */
};

/* Where four neighbours of a normed row from c on are kept. */
__device__ static inline unsigned kept_at(unsigned c)
{
    return c / PASS * 2 * HALF + c / 4 % 2 * HALF + c % PASS / PER_LANE * 4;
}

/* Four channels of a row, or `missing` where there are none. */
__device__ static inline float4 load_four(const struct row &row, unsigned b,
                                          unsigned t, unsigned c, unsigned K,
                                          float missing)
{
    return row.data && c < K ? *(const float4 *)(row.data + b * row.stride_b +
                                                 t * row.stride_t + c)
                             : make_float4(missing, missing, missing, missing);
}

__device__ static inline float squares_of(float4 v)
{
    return fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, v.w * v.w)));
}

/* Norm and modulate both rows of dialogue d into shared memory, zeros past K;
 * N vectors a thread. */
template <unsigned N>
__device__ static inline void norm_rows(float (&normed)[BRANCHES][N * ROOM],
                                        const struct solve &a, unsigned d)
{
    __shared__ float parts[BRANCHES][WARPS];
    float4 u[BRANCHES][N], by[BRANCHES][N], plus[BRANCHES][N];
    float sum[BRANCHES] = {};

#pragma unroll
    for (unsigned b = 0; b < BRANCHES; b++)
#pragma unroll
        for (unsigned i = 0; i < N; i++) {
            const unsigned c = i * VECTOR + threadIdx.x * 4;

            u[b][i] = load_four(a.u, b, d, c, a.K, 0.0f);
            by[b][i] = load_four(a.scale, b, d, c, a.K, 0.0f);
            plus[b][i] = load_four(a.shift, b, d, c, a.K, 0.0f);
        }
#pragma unroll
    for (unsigned b = 0; b < BRANCHES; b++) {
#pragma unroll
        for (unsigned i = 0; i < N; i++)
            sum[b] += squares_of(u[b][i]);
        sum[b] = vibe_warp_sum(sum[b]);
        if (threadIdx.x % 32 == 0)
            parts[b][threadIdx.x / 32] = sum[b];
    }
    __syncthreads();
#pragma unroll
    for (unsigned b = 0; b < BRANCHES; b++) {
        float total = 0.0f;
        float factor;

#pragma unroll
        for (unsigned i = 0; i < WARPS; i++)
            total += parts[b][i];
        factor = 1.0f / sqrtf(total / (float)a.K + a.eps);
#pragma unroll
        for (unsigned i = 0; i < N; i++) {
            const unsigned c = i * VECTOR + threadIdx.x * 4;
            const struct row w = {a.norm_w, 0, 0};
            const float4 by_w = load_four(w, 0, 0, c, a.K, 1.0f);
            const float4 v = u[b][i], m = by[b][i], s = plus[b][i];

            *(float4 *)&normed[b][kept_at(c)] = make_float4(
                v.x * factor * by_w.x * (1.0f + m.x) + s.x,
                v.y * factor * by_w.y * (1.0f + m.y) + s.y,
                v.z * factor * by_w.z * (1.0f + m.z) + s.z,
                v.w * factor * by_w.w * (1.0f + m.w) + s.w);
        }
    }
    __syncthreads();
}

/* Where a channel of a dialogue stands. */
struct channel {
    float *x, *m1;
    float x_now, before, cfg_scale; /* before: m1, or 0 if it is unread */

    __device__ inline void load(const struct solve &a, unsigned d, unsigned c)
    {
        x = a.x + d * a.x_stride + c;
        m1 = a.m1 + d * a.m1_stride + c;
        x_now = *x;
        before = a.coef.c1 == 0.0f ? 0.0f : *m1;
        cfg_scale = a.cfg_scale[d];
    }

    /* Guide and step. */
    __device__ inline void step(const struct solve &a,
                                const float v[BRANCHES]) const
    {
        const float guided = v[1] + cfg_scale * (v[0] - v[1]);
        const float m0 = a.coef.alpha * x_now - a.coef.sigma * guided;

        *x = a.coef.a * x_now + a.coef.c0 * m0 + a.coef.c1 * before;
        *m1 = m0;
    }
};

/* bytes: w once, and two rows for each block, of which there are few. */
template <int dtype, unsigned N>
__global__ void __launch_bounds__(THREADS)
    solve_kernel(const __grid_constant__ struct solve a)
{
    enum { PASSES = N * VECTOR / PASS };
    __shared__ __align__(16) float normed[BRANCHES][N * ROOM];
    const unsigned warp = threadIdx.x / 32;
    const unsigned c = blockIdx.x * a.of_block + warp;
    const unsigned first = threadIdx.x % 32 * PER_LANE;
    const bool is_there = warp < a.of_block && c < a.C;
    weights8<dtype> w[PASSES] = {};
    float v[BRANCHES] = {};
    float scale = 1.0f;
    channel mine = {};

    let_next_start();
#pragma unroll
    for (unsigned i = 0; i < PASSES; i++)
        if (is_there && first + i * PASS < a.stride)
            load8(w[i], (const char *)a.w +
                            weight_bytes<dtype>(element_at<dtype>(
                                c, first + i * PASS, a.stride, a.is_banded)));
    if (is_there && a.w_scale)
        scale = a.w_scale[c];
    wait_for_inputs();
    if (is_there)
        mine.load(a, blockIdx.y, c);
    norm_rows<N>(normed, a, blockIdx.y);
    if (!is_there)
        return;
#pragma unroll
    for (unsigned i = 0; i < PASSES; i++) {
        float f[PER_LANE];

        if (i * PASS >= a.K)
            break;
        widen8<dtype>(f, w[i]);
#pragma unroll
        for (unsigned b = 0; b < BRANCHES; b++)
#pragma unroll
            for (unsigned j = 0; j < PER_LANE; j += 4) {
                const float4 x = *(
                    const float4 *)&normed[b][kept_at(first + i * PASS + j)];

                v[b] = fmaf(f[j], x.x, v[b]);
                v[b] = fmaf(f[j + 1], x.y, v[b]);
                v[b] = fmaf(f[j + 2], x.z, v[b]);
                v[b] = fmaf(f[j + 3], x.w, v[b]);
            }
    }
#pragma unroll
    for (unsigned b = 0; b < BRANCHES; b++)
        v[b] = vibe_warp_sum(v[b]) * scale;
    if (threadIdx.x % 32 == 0)
        mine.step(a, v);
}

template <int dtype> static const void *kernel_for(size_t K)
{
    return K <= 2 * VECTOR ? (const void *)solve_kernel<dtype, 2>
                           : (const void *)solve_kernel<dtype, 4>;
}

/* Whether rows can be moved 4 channels at a time; absent ones can. */
static bool is_even(const struct vibe_tensor *t)
{
    return !t || ((uintptr_t)t->data % 16 == 0 && t->stride_b % 4 == 0 &&
                  t->stride_t % 4 == 0);
}

int vibe_cuda_can_solve(const struct vibe_tensor *u,
                        const struct vibe_norm *norm,
                        const struct vibe_matrix *w)
{
    const enum vibe_dtype dtype = w->part[0].dtype;

    return (dtype == VIBE_BF16 || dtype == VIBE_F8_E4M3 || dtype == VIBE_I8) &&
           !w->bias && w->K <= MAX_K && w->K % 4 == 0 && is_even(u) &&
           is_even(norm->shift) && is_even(norm->scale) &&
           (uintptr_t)norm->w % 16 == 0;
}

cudaError_t vibe_cuda_solve(cudaStream_t stream,
                            const struct vibe_solver *solver,
                            const struct vibe_solver_coef *coef,
                            const struct vibe_tensor *u,
                            const struct vibe_norm *norm,
                            const struct vibe_matrix *w)
{
    struct solve a = {w->part[0].data,
                      w->part[0].scale,
                      norm->w,
                      row_of(u),
                      row_of(norm->shift),
                      row_of(norm->scale),
                      (float *)solver->x->data,
                      (float *)solver->m1->data,
                      solver->x->stride_b,
                      solver->m1->stride_b,
                      solver->cfg_scale,
                      *coef,
                      norm->eps,
                      (unsigned)w->K,
                      (unsigned)vibe_cuda_stride(w->K),
                      (unsigned)w->N,
                      (unsigned)(solver->x->B <= FEW ? WARPS / 2 : WARPS),
                      vibe_cuda_is_banded(w) != 0};
    const enum vibe_dtype dtype = w->part[0].dtype;
    const void *kernel = dtype == VIBE_BF16 ? kernel_for<VIBE_BF16>(w->K)
                         : dtype == VIBE_I8 ? kernel_for<VIBE_I8>(w->K)
                                            : kernel_for<VIBE_F8_E4M3>(w->K);

    return launch_waiting(
        kernel,
        dim3((a.C + a.of_block - 1) / a.of_block, (unsigned)solver->x->B),
        THREADS, 0, stream, &a);
}
