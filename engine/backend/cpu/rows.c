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

/* shift and scale may be NULL. */
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
                     shift ? vibe_cpu_row(shift, m) : NULL,
                     scale ? vibe_cpu_row(scale, m) : NULL, y->C);
    }
}

static void rmsnorm(struct vibe_stream *s, const struct vibe_tensor *y,
                    const struct vibe_tensor *x, const float *w, float eps)
{
    modulate(s, y, x, w, eps, NULL, NULL);
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

/* n(x) is made in normed, which is what the next norm then overwrites. */
static void mixer(struct vibe_stream *s, const struct vibe_tensor *y,
                  const struct vibe_tensor *normed,
                  const struct vibe_tensor *state,
                  const struct vibe_tensor *past, const struct vibe_tensor *x,
                  const struct vibe_mixer *w)
{
    const struct vibe_cpu_kernels *k = vibe_cpu_of(s)->kernels;
    size_t M = x->B * x->T;

    rmsnorm(s, normed, x, w->norm, w->eps);
    vibe_cpu_keep_last(state, past, normed);
#pragma omp parallel for num_threads(team(s, M, x->C))
    for (size_t m = 0; m < M; m++) {
        const float *win[VIBE_MIXER_TAPS];

        for (size_t j = 0; j < VIBE_MIXER_TAPS; j++)
            win[j] = vibe_cpu_row_behind(past, normed, m / x->T, m % x->T + j);
        k->mix_columns(vibe_cpu_row(y, m), vibe_cpu_row(x, m), win, w, x->C);
    }
    rmsnorm(s, normed, y, w->next_norm, w->eps);
}

void vibe_cpu_rows_init(struct vibe_ops *ops)
{
    ops->rmsnorm = rmsnorm;
    ops->modulate = modulate;
    ops->add_silu = add_silu;
    ops->mixer = mixer;
}
