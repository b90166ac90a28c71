/* Streaming convolutions: the past in front of a chunk, depthwise taps. */
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/reduce.cuh"

enum { THREADS = 256, WARPS = THREADS / 32 };

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

cudaError_t vibe_cuda_window(cudaStream_t stream, const struct vibe_tensor *win,
                             const struct vibe_tensor *state,
                             const struct vibe_tensor *x, const float *w,
                             float eps)
{
    const unsigned n_rows = (unsigned)(win->B * win->T);
    const unsigned n = (unsigned)(state->B * state->T * state->C);

    window<<<(n_rows + WARPS - 1) / WARPS, THREADS, 0, stream>>>(
        chunk_of(win), chunk_of(state), chunk_of(x), w, eps, n_rows,
        (unsigned)win->C);
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
