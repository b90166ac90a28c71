/*
 * window.cuh - a chunk behind its past, see vibe_window.
 *
 * A product may read the rows of a window from where they are, the first from
 * the past, and leave the state itself.
 */
#ifndef VIBE_CUDA_WINDOW_CUH
#define VIBE_CUDA_WINDOW_CUH

#include "engine/backend/cuda/epilogue.cuh"
#include "engine/backend/cuda/mixer.cuh"

struct window {
    struct chunk win, state, past, x;
    unsigned C;
    unsigned there;   /* rows of win that are x already */
    unsigned written; /* the others */
    unsigned n;       /* vectors of win and state to write */
};

/* Write vector i of win or of the state, which come from row t of past, x and
 * zeros. */
template <unsigned V>
__device__ static inline void write_window(const struct window &a, unsigned i)
{
    const unsigned c = i % (a.C / V) * V;
    const unsigned row = i / (a.C / V) % (a.written + a.state.T);
    const unsigned b = i / (a.C / V) / (a.written + a.state.T);
    const bool is_state = row >= a.written;
    const unsigned t = is_state         ? a.x.T + row - a.written
                       : row < a.past.T ? row
                                        : row + a.there;
    vec<V> v = {};

    if (t < a.past.T)
        v = read<V>(row_at(a.past, b, t) + c);
    else if (t < a.past.T + a.x.T)
        v = read<V>(row_at(a.x, b, t - a.past.T) + c);
    write<V>(
        (is_state ? row_at(a.state, b, row - a.written) : row_at(a.win, b, t)) +
            c,
        v);
}

/* Where the rows of a product come from. */
struct source {
    struct window window; /* of which only the state is to be written */
    const float *past;
    size_t past_stride; /* from dialogue to dialogue */
    unsigned edge;      /* floats of one's past; 0 without a window */
};

/* Rows of x, or of p's window, in which case x becomes a view of rows that lie
 * before their chunk as if its past were there. */
static inline struct source source_of(const struct vibe_cuda_product *p,
                                      struct view *x, unsigned V)
{
    const struct vibe_window *w = p->window;
    struct source a = {};

    if (!w)
        return a;
    a.window.state = chunk_of(w->state);
    a.window.past = chunk_of(w->past);
    a.window.x = chunk_of(w->x);
    a.window.C = (unsigned)w->x->C;
    a.window.n = (unsigned)(w->state->B * w->state->T * w->state->C / V);
    a.past = (const float *)w->past->data;
    a.past_stride = w->past->stride_b;
    a.edge = (unsigned)(w->past->T * w->past->C);
    x->data = (float *)w->x->data - a.edge;
    x->stride_b = w->x->stride_b;
    return a;
}

/* A row: its first elements may be of the past. */
struct sourced_row {
    const float *past, *x;
    unsigned left; /* elements of the past */

    __device__ inline void find(const source &a, const view &v, unsigned T,
                                unsigned m)
    {
        const size_t at = m % T * v.stride_t;

        left = at < a.edge ? a.edge - (unsigned)at : 0;
        past = a.past + m / T * a.past_stride + at;
        x = v.data + m / T * v.stride_b + at;
    }

    /* Where element k lies, and those behind it up to the edge. */
    __device__ inline const float *from(unsigned k) const
    {
        return (k < left ? past : x) + k;
    }
};

/* Ask for the past of the first dialogue, each thread for a line. */
__device__ static inline void prefetch_past(const struct source &a, unsigned i)
{
    if (i * 32 < a.edge)
        prefetch(a.past + i * 32);
}

/* The same for the dialogues whose first rows are among those from m to end; a
 * dialogue has T. */
__device__ static inline void prefetch_pasts(const source &a, unsigned T,
                                             unsigned m, unsigned end)
{
    for (unsigned b = (m + T - 1) / T; b * T < end; b++)
        for (unsigned i = threadIdx.x; i * 32 < a.edge; i += blockDim.x)
            prefetch(a.past + b * a.past_stride + i * 32);
}

/* Leave the state, each of n threads its part. */
template <unsigned V>
__device__ static inline void leave_state(const struct source &a, unsigned i,
                                          unsigned n)
{
    for (; i < a.window.n; i += n)
        write_window<V>(a.window, i);
}

/* The same of all threads of a grid. */
__device__ static inline void leave_state_by_all(const struct source &a)
{
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x +
                           blockIdx.x;

    leave_state<4>(a, block * blockDim.x + threadIdx.x,
                   gridDim.x * gridDim.y * gridDim.z * blockDim.x);
}

#endif /* VIBE_CUDA_WINDOW_CUH */
