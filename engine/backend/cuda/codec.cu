/* Streaming convolutions: the past in front of a chunk, depthwise taps. */
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/reduce.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    WIDE = 512,  /* channels from which on a block makes a row */
    VECTORS = 2, /* of 4 channels that each of its threads keeps */
};

/* [B][T][C] with its strides. */
struct chunk {
    float *data;
    unsigned T;
    size_t stride_b, stride_t;
};

static struct chunk chunk_of(const struct vibe_tensor *t)
{
    struct chunk chunk = {(float *)t->data, (unsigned)t->T, t->stride_b,
                          t->stride_t};

    return chunk;
}

__device__ static inline float *row_at(struct chunk c, unsigned b, unsigned t)
{
    return c.data + b * c.stride_b + t * c.stride_t;
}

/* One warp makes one row of win: a row of the state, of n(x), or of zeros. */
__global__ void window(struct chunk win, struct chunk state, struct chunk x,
                       const float *w, float eps, unsigned n_rows, unsigned C)
{
    const unsigned r = blockIdx.x * WARPS + threadIdx.x / 32;
    const unsigned lane = threadIdx.x % 32;
    const unsigned b = r / win.T;
    const unsigned t = r % win.T;
    const float *in = NULL;
    float *out;
    float factor = 1.0f;

    if (r >= n_rows)
        return;
    out = row_at(win, b, t);
    if (t < state.T)
        in = row_at(state, b, t);
    else if (t < state.T + x.T)
        in = row_at(x, b, t - state.T);
    if (!in || t < state.T)
        w = NULL;
    if (w) {
        float sum = 0.0f;

        for (unsigned c = lane; c < C; c += 32)
            sum += in[c] * in[c];
        factor = 1.0f / sqrtf(vibe_warp_sum(sum) / (float)C + eps);
    }
    for (unsigned c = lane; c < C; c += 32)
        out[c] = in ? in[c] * factor * (w ? w[c] : 1.0f) : 0.0f;
}

/* One block makes one row of up to 4 * THREADS * VECTORS channels, which it
 * loads once and all together. */
__global__ void window_row(struct chunk win, struct chunk state, struct chunk x,
                           const float *w, float eps, unsigned C)
{
    const unsigned b = blockIdx.x / win.T;
    const unsigned t = blockIdx.x % win.T;
    const bool is_new = t >= state.T && t < state.T + x.T;
    const float *in = NULL;
    float *out = row_at(win, b, t);
    float4 v[VECTORS], weight[VECTORS];
    float sum = 0.0f;
    float factor = 1.0f;

    if (is_new)
        in = row_at(x, b, t - state.T);
    else if (t < state.T)
        in = row_at(state, b, t);
#pragma unroll
    for (unsigned k = 0; k < VECTORS; k++) {
        const unsigned c = 4 * (k * THREADS + threadIdx.x);

        v[k] = in && c < C ? *(const float4 *)(in + c)
                           : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        weight[k] = is_new && w && c < C ? *(const float4 *)(w + c)
                                         : make_float4(1.0f, 1.0f, 1.0f, 1.0f);
        sum += (v[k].x * v[k].x + v[k].y * v[k].y) +
               (v[k].z * v[k].z + v[k].w * v[k].w);
    }
    if (is_new && w) /* the same for all threads of the block */
        factor = 1.0f / sqrtf(vibe_block_sum(sum) / (float)C + eps);
#pragma unroll
    for (unsigned k = 0; k < VECTORS; k++) {
        const unsigned c = 4 * (k * THREADS + threadIdx.x);

        if (c < C)
            *(float4 *)(out + c) = make_float4(
                v[k].x * factor * weight[k].x, v[k].y * factor * weight[k].y,
                v[k].z * factor * weight[k].z, v[k].w * factor * weight[k].w);
    }
}

/* state = rows T .. T + p - 1 of win, the last p of [state | n(x)]. */
__global__ void remember(struct chunk state, struct chunk win, unsigned T,
                         unsigned n, unsigned C)
{
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    const unsigned b = i / (state.T * C);
    const unsigned t = i / C % state.T;

    if (i < n)
        row_at(state, b, t)[i % C] = row_at(win, b, T + t)[i % C];
}

/* Whether rows can be moved 4 channels at a time. */
static bool is_even(struct chunk c)
{
    return (uintptr_t)c.data % 16 == 0 && c.stride_b % 4 == 0 &&
           c.stride_t % 4 == 0;
}

cudaError_t vibe_cuda_window(cudaStream_t stream, const struct vibe_tensor *win,
                             const struct vibe_tensor *state,
                             const struct vibe_tensor *x, const float *w,
                             float eps)
{
    const unsigned n_rows = (unsigned)(win->B * win->T);
    const unsigned n = (unsigned)(state->B * state->T * state->C);
    const unsigned C = (unsigned)win->C;

    if (C >= WIDE && C % 4 == 0 && C <= 4 * THREADS * VECTORS &&
        is_even(chunk_of(win)) && is_even(chunk_of(state)) &&
        is_even(chunk_of(x)) && (uintptr_t)w % 16 == 0)
        window_row<<<n_rows, THREADS, 0, stream>>>(
            chunk_of(win), chunk_of(state), chunk_of(x), w, eps, C);
    else
        window<<<(n_rows + WARPS - 1) / WARPS, THREADS, 0, stream>>>(
            chunk_of(win), chunk_of(state), chunk_of(x), w, eps, n_rows, C);
    if (n)
        remember<<<(n + THREADS - 1) / THREADS, THREADS, 0, stream>>>(
            chunk_of(state), chunk_of(win), (unsigned)x->T, n,
            (unsigned)state->C);
    return cudaGetLastError();
}

/* One thread makes one element: taps reads of win, mostly from the cache. */
__global__ void dwconv(struct chunk x, struct chunk win, const float *w,
                       const float *bias, const float *gamma, unsigned taps,
                       unsigned n, unsigned C)
{
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    const unsigned c = i % C;
    const unsigned b = i / (x.T * C);
    const unsigned t = i / C % x.T;
    float sum;

    if (i >= n)
        return;
    sum = bias[c];
    for (unsigned j = 0; j < taps; j++)
        sum += w[j * C + c] * row_at(win, b, t + j)[c];
    row_at(x, b, t)[c] += gamma[c] * sum;
}

cudaError_t vibe_cuda_dwconv(cudaStream_t stream, const struct vibe_tensor *x,
                             const struct vibe_tensor *win, const float *w,
                             const float *bias, const float *gamma)
{
    const unsigned n = (unsigned)(x->B * x->T * x->C);
    const unsigned taps = (unsigned)(win->T - x->T + 1);

    dwconv<<<(n + THREADS - 1) / THREADS, THREADS, 0, stream>>>(
        chunk_of(x), chunk_of(win), w, bias, gamma, taps, n, (unsigned)x->C);
    return cudaGetLastError();
}
