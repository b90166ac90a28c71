/* Streaming convolutions: the past in front of a chunk, depthwise taps. */
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/rows.cuh"
#include "engine/backend/cuda/window.cuh"

enum {
    THREADS = 256,
    MAX_THREADS = ROW_THREADS, /* of a mixer's row */
    STRIP = 4,        /* rows that share columns, where there are many */
    MANY_STRIPS = 64, /* blocks of them */
};

/* Whether rows can be moved 4 channels at a time. */
static bool is_even(const struct chunk &c)
{
    return (uintptr_t)c.data % 16 == 0 && c.stride_b % 4 == 0 &&
           c.stride_t % 4 == 0;
}

/* One thread writes a vector. */
template <unsigned V>
__global__ __launch_bounds__(THREADS) void window_kernel(
    const __grid_constant__ struct window a)
{
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;

    let_next_start();
    wait_for_inputs();
    if (i < a.n)
        write_window<V>(a, i);
}

cudaError_t vibe_cuda_window(cudaStream_t stream, const struct vibe_tensor *win,
                             const struct vibe_tensor *state,
                             const struct vibe_tensor *past,
                             const struct vibe_tensor *x)
{
    const bool is_there = x->data ==
                              (float *)win->data + past->T * win->stride_t &&
                          x->stride_b == win->stride_b &&
                          x->stride_t == win->stride_t;
    struct window a = {chunk_of(win),
                       chunk_of(state),
                       chunk_of(past),
                       chunk_of(x),
                       (unsigned)x->C,
                       0,
                       0,
                       0};
    const bool is_wide = x->C % 4 == 0 && is_even(a.win) && is_even(a.state) &&
                         is_even(a.past) && is_even(a.x);

    a.there = is_there ? a.x.T : 0;
    a.written = a.win.T - a.there;
    a.n = (unsigned)(win->B * (a.written + a.state.T) * x->C /
                     (is_wide ? 4 : 1));
    if (a.n == 0)
        return cudaSuccess;
    return launch_waiting(is_wide ? (const void *)window_kernel<4>
                                  : (const void *)window_kernel<1>,
                          dim3((a.n + THREADS - 1) / THREADS), THREADS, 0,
                          stream, &a);
}

/*
 * `width` threads make one row of y: they load the seven columns that it reads
 * and norm them, though neighbours do so too, because all columns of a chunk
 * are in the cache and the loads wait together.  The last FRESH of them may be
 * of the chunk.  N vectors of V channels a thread; if one, its weights come
 * before the inputs.
 */
template <unsigned V, unsigned N, unsigned FRESH>
__global__ __launch_bounds__(MAX_THREADS) void mixer_kernel(
    const __grid_constant__ struct mixer a)
{
    const unsigned lane = threadIdx.x % a.width;
    const unsigned r = blockIdx.x * (blockDim.x / a.width) +
                       threadIdx.x / a.width;
    const bool is_row = r < a.n_rows;
    const unsigned b = is_row ? r / a.x.T : 0;
    const unsigned t = is_row ? r % a.x.T : 0;
    vec<V> column[N][TAPS] = {};
    vec<V> y[N];
    weights<V> w = {};
    float squares[TAPS] = {};
    float fresh[FRESH] = {};
    float sum[1] = {};

    let_next_start();
    if (N == 1 && lane * V < a.C)
        w = load_weights<V>(a, lane * V);
    wait_for_inputs();
#pragma unroll
    for (unsigned i = 0; i < N; i++) {
        const unsigned c = (i * a.width + lane) * V;

        if (is_row && c < a.C)
            load_columns<V>(column[i], a, b, t, c);
    }
#pragma unroll
    for (unsigned i = 0; i < N; i++)
#pragma unroll
        for (unsigned j = 0; j < FRESH; j++)
            fresh[j] = add_squares<V>(fresh[j], column[i][TAPS - FRESH + j]);
    sum_rows<FRESH, 0>(fresh, a.width);
#pragma unroll
    for (unsigned j = 0; j < FRESH; j++)
        squares[TAPS - FRESH + j] = fresh[j];
#pragma unroll
    for (unsigned i = 0; i < N; i++) {
        const unsigned c = (i * a.width + lane) * V;

        if (!is_row || c >= a.C)
            continue;
        if (N > 1)
            w = load_weights<V>(a, c);
        y[i] = column[i][PAST];
        norm_columns<V>(column[i], squares, a, b, t, c, w.norm);
        y[i] = mix<V>(y[i], column[i], w);
        write_out<V>(row_at(a.y, b, t) + c, y[i]);
        sum[0] = add_squares<V>(sum[0], y[i]);
    }
    sum_rows<1, 1>(sum, a.width);
#pragma unroll
    for (unsigned i = 0; i < N; i++) {
        const unsigned c = (i * a.width + lane) * V;

        if (is_row && c < a.C)
            write_kept<V>(
                row_at(a.normed, b, t) + c,
                scale<V>(y[i], factor_of(sum[0], a),
                         N > 1 ? read<V>(a.w.next_norm + c) : w.next_norm),
                a.is_split);
    }
}

/* The same for STRIP rows of a dialogue together: less work, where there are
 * rows enough to wait beside each other. */
__global__ __launch_bounds__(THREADS) void strip_kernel(
    const __grid_constant__ struct mixer a)
{
    const unsigned c = threadIdx.x % a.width * 4;
    const unsigned r = (blockIdx.x * (THREADS / a.width) +
                        threadIdx.x / a.width) *
                       STRIP;
    const bool is_there = r < a.n_rows && c < a.C;
    const unsigned b = is_there ? r / a.x.T : 0;
    const unsigned t = is_there ? r % a.x.T : 0;
    vec<4> column[STRIP + PAST] = {}, y[STRIP];
    float squares[STRIP + PAST], sums[STRIP];
    weights<4> w = {};

    let_next_start();
    if (is_there)
        w = load_weights<4>(a, c);
    wait_for_inputs();
#pragma unroll
    for (unsigned j = 0; j < STRIP + PAST; j++)
        if (is_there)
            column[j] = read<4>((t + j < PAST ? row_at(a.past, b, t + j)
                                              : row_at(a.x, b, t + j - PAST)) +
                                c);
#pragma unroll
    for (unsigned j = 0; j < STRIP + PAST; j++)
        squares[j] = add_squares<4>(0.0f, column[j]);
    sum_rows<STRIP + PAST, 0>(squares, a.width);
#pragma unroll
    for (unsigned j = 0; j < STRIP + PAST; j++)
        mix_next(y, column, j, factor_of(squares[j], a), t, w);
#pragma unroll
    for (unsigned j = 0; j < STRIP; j++) {
        const unsigned kept = t + j + PAST; /* a row of the state, after T */

        if (is_there && kept >= a.x.T)
            write_out<4>(row_at(a.state, b, kept - a.x.T) + c,
                         column[PAST + j]);
        sums[j] = add_squares<4>(0.0f, y[j]);
    }
    sum_rows<STRIP, 1>(sums, a.width);
#pragma unroll
    for (unsigned j = 0; j < STRIP; j++) {
        if (!is_there)
            continue;
        write_out<4>(row_at(a.y, b, t + j) + c, y[j]);
        write_kept<4>(row_at(a.normed, b, t + j) + c,
                      scale<4>(y[j], factor_of(sums[j], a), w.next_norm),
                      a.is_split);
    }
}

static unsigned power_of_2_from(unsigned n)
{
    unsigned power = 1;

    while (power < n)
        power *= 2;
    return power;
}

/* Blocks of strips, or 0 where there are none or too few. */
static unsigned strips_of(const struct mixer *a)
{
    const unsigned width = power_of_2_from(a->C / 4);
    const unsigned n = width > THREADS || a->x.T % STRIP || a->x.T < 2 * STRIP
                           ? 0
                           : (a->n_rows / STRIP * width + THREADS - 1) /
                                 THREADS;

    return n >= MANY_STRIPS ? n : 0;
}

template <unsigned V, unsigned N, unsigned FRESH>
static cudaError_t launch_mixer(cudaStream_t stream, struct mixer *a)
{
    unsigned threads;

    a->width = power_of_2_from((a->C + V * N - 1) / (V * N));
    if (a->width > MAX_THREADS)
        return cudaErrorNotSupported;
    threads = max(a->width, (unsigned)THREADS);
    return launch_waiting((const void *)mixer_kernel<V, N, FRESH>,
                          dim3((a->n_rows * a->width + threads - 1) / threads),
                          threads, 0, stream, a);
}

cudaError_t vibe_cuda_mixer(cudaStream_t stream, const struct vibe_tensor *y,
                            const struct vibe_tensor *normed,
                            const struct vibe_tensor *state,
                            const struct vibe_tensor *past,
                            const struct vibe_tensor *x,
                            const struct vibe_mixer *w)
{
    struct mixer a = {chunk_of(y),
                      chunk_of(normed),
                      chunk_of(state),
                      chunk_of(past),
                      chunk_of(x),
                      *w,
                      (unsigned)x->C,
                      (unsigned)(x->B * x->T),
                      1,
                      normed->form != VIBE_FORM_PLAIN};

    if (x->C % 4 || !is_even(a.y) || !is_even(a.normed) || !is_even(a.state) ||
        !is_even(a.past) || !is_even(a.x))
        return launch_mixer<1, 4, TAPS>(stream, &a);
    if (x->C > 4 * MAX_THREADS)
        return launch_mixer<4, 2, TAPS>(stream, &a);
    if (x->T == 1)
        return launch_mixer<4, 1, 1>(stream, &a);
    if (strips_of(&a)) {
        a.width = power_of_2_from(a.C / 4);
        return launch_waiting((const void *)strip_kernel, dim3(strips_of(&a)),
                              THREADS, 0, stream, &a);
    }
    return launch_mixer<4, 1, TAPS>(stream, &a);
}
