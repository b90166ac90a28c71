/* Ops on rows of channels, over kernels. */
#include <math.h>
#include <string.h>

#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/state.h"

/* Fewer floats than this are done before other threads have woken up. */
enum { WORTH_THREADS = 1 << 15 };

/* Threads for M rows of C channels. */
static int team(const struct vibe_stream *s, size_t M, size_t C)
{
    return M > 1 && M * C >= WORTH_THREADS ? vibe_cpu_of(s)->threads : 1;
}

static float inverse_rms(const struct vibe_cpu_kernels *k, const float *x,
                         size_t n, float eps)
{
    return 1.0f / sqrtf(k->squares(x, n) / (float)n + eps);
}

static void rmsnorm(struct vibe_stream *s, const struct vibe_tensor *y,
                    const struct vibe_tensor *x, const float *w, float eps)
{
    const struct vibe_cpu_kernels *k = vibe_cpu_of(s)->kernels;
    size_t M = y->B * y->T;

#pragma omp parallel for num_threads(team(s, M, y->C))
    for (size_t m = 0; m < M; m++) {
        const float *in = vibe_cpu_row(x, m);

        k->normalise(vibe_cpu_row(y, m), in, inverse_rms(k, in, y->C, eps), w,
                     NULL, NULL, y->C);
    }
}

static void modulate(struct vibe_stream *s, const struct vibe_tensor *y,
                     const struct vibe_tensor *x, const float *w, float eps,
                     const struct vibe_tensor *shift,
                     const struct vibe_tensor *scale)
{
    const struct vibe_cpu_kernels *k = vibe_cpu_of(s)->kernels;
    size_t M = y->B * y->T;

#pragma omp parallel for num_threads(team(s, M, y->C))
    for (size_t m = 0; m < M; m++) {
        const float *in = vibe_cpu_row(x, m);

        k->normalise(vibe_cpu_row(y, m), in, inverse_rms(k, in, y->C, eps), w,
                     vibe_cpu_row(shift, m), vibe_cpu_row(scale, m), y->C);
    }
}

static void add_silu(struct vibe_stream *s, const struct vibe_tensor *y,
                     const struct vibe_tensor *a, const struct vibe_tensor *b)
{
    const struct vibe_cpu_kernels *k = vibe_cpu_of(s)->kernels;
    size_t M = y->B * y->T;

#pragma omp parallel for num_threads(team(s, M, y->C))
    for (size_t m = 0; m < M; m++)
        k->add_silu(vibe_cpu_row(y, m), vibe_cpu_row(a, m),
                    b ? vibe_cpu_row(b, m) : NULL, y->C);
}

/* Row i of the window of batch b: past, present, or nothing yet. */
static void window_row(const struct vibe_cpu_kernels *k,
                       const struct vibe_tensor *win,
                       const struct vibe_tensor *state,
                       const struct vibe_tensor *x, size_t m, const float *w,
                       float eps)
{
    size_t b = m / win->T, i = m % win->T, p = state->T;
    size_t bytes = x->C * sizeof(float);
    float *out = vibe_cpu_row(win, m);
    const float *in;

    if (i < p) {
        memcpy(out, vibe_cpu_row(state, b * p + i), bytes);
        return;
    }
    if (i - p >= x->T) {
        memset(out, 0, bytes);
        return;
    }
    in = vibe_cpu_row(x, b * x->T + i - p);
    if (w)
        k->normalise(out, in, inverse_rms(k, in, x->C, eps), w, NULL, NULL,
                     x->C);
    else
        memcpy(out, in, bytes);
}

static void window(struct vibe_stream *s, const struct vibe_tensor *win,
                   const struct vibe_tensor *state, const struct vibe_tensor *x,
                   const float *w, float eps)
{
    const struct vibe_cpu_kernels *k = vibe_cpu_of(s)->kernels;
    size_t M = win->B * win->T;
    size_t p = state->T;

#pragma omp parallel for num_threads(team(s, M, win->C))
    for (size_t m = 0; m < M; m++)
        window_row(k, win, state, x, m, w, eps);

    for (size_t m = 0; m < state->B * p; m++)
        memcpy(vibe_cpu_row(state, m),
               vibe_cpu_row(win, m / p * win->T + x->T + m % p),
               x->C * sizeof(float));
}

static void dwconv(struct vibe_stream *s, const struct vibe_tensor *x,
                   const struct vibe_tensor *win, const float *w,
                   const float *bias, const float *gamma)
{
    const struct vibe_cpu_kernels *k = vibe_cpu_of(s)->kernels;
    size_t M = x->B * x->T;
    size_t taps = win->T - x->T + 1;

#pragma omp parallel for num_threads(team(s, M, x->C))
    for (size_t m = 0; m < M; m++)
        k->dwconv(vibe_cpu_row(x, m),
                  vibe_cpu_row(win, m / x->T * win->T + m % x->T),
                  win->stride_t, taps, w, bias, gamma, x->C);
}

void vibe_cpu_rows_init(struct vibe_ops *ops)
{
    ops->rmsnorm = rmsnorm;
    ops->modulate = modulate;
    ops->add_silu = add_silu;
    ops->window = window;
    ops->dwconv = dwconv;
}
