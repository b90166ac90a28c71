/* The op table: each op hands its tensors to a launcher. */
#include "engine/backend/cuda/chain.h"
#include "engine/backend/cuda/device.h"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/matrix.h"
#include "engine/backend/cuda/stem.h"

static cudaStream_t queue(const struct vibe_stream *s)
{
    return vibe_cuda_of(s->be)->compute;
}

static void rmsnorm(struct vibe_stream *s, const struct vibe_tensor *y,
                    const struct vibe_tensor *x, const float *w, float eps)
{
    vibe_cuda_latch(s, vibe_cuda_norm(queue(s), y, x, w, eps, NULL, NULL),
                    "rmsnorm");
}

static void modulate(struct vibe_stream *s, const struct vibe_tensor *y,
                     const struct vibe_tensor *x, const float *w, float eps,
                     const struct vibe_tensor *shift,
                     const struct vibe_tensor *scale)
{
    vibe_cuda_latch(s, vibe_cuda_norm(queue(s), y, x, w, eps, shift, scale),
                    "modulate");
}

static void add_silu(struct vibe_stream *s, const struct vibe_tensor *y,
                     const struct vibe_tensor *a, const struct vibe_tensor *b)
{
    vibe_cuda_latch(s, vibe_cuda_add_silu(queue(s), y, a, b), "add_silu");
}

static void affine(struct vibe_stream *s, const struct vibe_tensor *y,
                   const struct vibe_tensor *x, float mul, float add)
{
    vibe_cuda_latch(s, vibe_cuda_affine(queue(s), y, x, mul, add), "affine");
}

static void copy(struct vibe_stream *s, const struct vibe_tensor *y,
                 const struct vibe_tensor *x)
{
    vibe_cuda_latch(s, vibe_cuda_copy(queue(s), y, x), "copy");
}

static void zero(struct vibe_stream *s, const struct vibe_tensor *y)
{
    vibe_cuda_latch(s, vibe_cuda_zero(queue(s), y), "zero");
}

static void window(struct vibe_stream *s, const struct vibe_tensor *win,
                   const struct vibe_tensor *state,
                   const struct vibe_tensor *past, const struct vibe_tensor *x)
{
    vibe_cuda_latch(s, vibe_cuda_window(queue(s), win, state, past, x),
                    "window");
}

static void mixer(struct vibe_stream *s, const struct vibe_tensor *y,
                  const struct vibe_tensor *normed,
                  const struct vibe_tensor *state,
                  const struct vibe_tensor *past, const struct vibe_tensor *x,
                  const struct vibe_mixer *w)
{
    vibe_cuda_latch(s, vibe_cuda_mixer(queue(s), y, normed, state, past, x, w),
                    "mixer");
}

/* Whether rows can be moved by 16 bytes. */
static int is_even(const struct vibe_tensor *t)
{
    return (size_t)t->data % 16 == 0 && t->stride_b % 4 == 0 &&
           t->stride_t % 4 == 0;
}

static int is_plain_bf16(const struct vibe_matrix *w)
{
    return w->part[0].dtype == VIBE_BF16 && !w->part[0].scale;
}

static int is_even_call(const struct vibe_block_call *call)
{
    return is_even(&call->y) && is_even(&call->state) && is_even(&call->past) &&
           is_even(&call->x);
}

/* Many narrow rows are the work of one kernel: few of them, or wide ones, are
 * bound by reading weights. */
static int is_narrow(const struct vibe_cuda *cuda,
                     const struct vibe_block_call *call)
{
    const size_t few = 16;
    const struct vibe_tensor *x = &call->x;
    const struct vibe_block *w = call->w;

    return cuda->cc >= 80 && vibe_cuda_compiled_for() >= 80 && x->T > few &&
           (x->C == 32 || x->C == 64 || x->C == 128) && w->up.N == 4 * x->C &&
           is_plain_bf16(&w->up) && is_plain_bf16(&w->down) &&
           is_even_call(call);
}

/* Whether many wider rows are that of another. */
static int is_wide(const struct vibe_cuda *cuda,
                   const struct vibe_block_call *call)
{
    return is_plain_bf16(&call->w->up) && is_plain_bf16(&call->w->down) &&
           is_even_call(call) && vibe_cuda_can_wide_block(cuda, call);
}

/* Whether mixing is the work of those who multiply by W1. */
static int is_mixed_up(const struct vibe_cuda *cuda,
                       const struct vibe_block_call *call,
                       const struct vibe_block_room *room)
{
    return is_even_call(call) && is_plain_bf16(&call->w->up) &&
           room->hidden->form != VIBE_FORM_PLAIN && is_even(room->hidden) &&
           room->hidden->stride_t == room->hidden->C &&
           vibe_cuda_is_mixed_up(cuda, call);
}

static void block(struct vibe_stream *s, const struct vibe_block_call *call,
                  const struct vibe_block_call *next,
                  const struct vibe_block_room *room)
{
    const struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    const struct vibe_block *w = call->w;

    if (is_wide(cuda, call)) {
        vibe_cuda_latch(s, vibe_cuda_wide_block(cuda, call), "block");
        return;
    }
    if (is_mixed_up(cuda, call, room)) {
        if (next && !is_mixed_up(cuda, next, room))
            next = NULL;
        vibe_cuda_latch(s, vibe_cuda_mixed_up(cuda, call, next, room), "block");
        vibe_cuda_gemm(s, &call->y, room->hidden, &w->down, VIBE_ADD, NULL);
        return;
    }
    mixer(s, &call->y, room->normed, &call->state, &call->past, &call->x,
          &w->mixer);
    if (call->x.T == 1) {
        vibe_cuda_linear(s, room->hidden, room->normed, &w->up, VIBE_GELU,
                         NULL);
        vibe_cuda_linear(s, &call->y, room->hidden, &w->down, VIBE_ADD, NULL);
    } else {
        vibe_cuda_gemm(s, room->hidden, room->normed, &w->up, VIBE_GELU, NULL);
        vibe_cuda_gemm(s, &call->y, room->hidden, &w->down, VIBE_ADD, NULL);
    }
}

/* Whether they are the work of one kernel. */
static int is_chain(struct vibe_stream *s, const struct vibe_block_call *calls,
                    size_t n, const struct vibe_block_room *room)
{
    for (size_t i = 0; i < n; i++)
        if (!is_even_call(&calls[i]))
            return 0;
    return room->hidden->form != VIBE_FORM_PLAIN && is_even(room->hidden) &&
           vibe_cuda_can_chain(vibe_cuda_of(s->be), calls, n);
}

static void chain(struct vibe_stream *s, const struct vibe_block_call *calls,
                  size_t n)
{
    void *mail = vibe_cuda_mail(s, vibe_cuda_chain_mail(calls, n));

    if (mail)
        vibe_cuda_latch(s, vibe_cuda_chain(vibe_cuda_of(s->be), calls, n, mail),
                        "blocks");
}

/* Whether columns of several dialogues are the work of kernels for them. */
static int is_stem(const struct vibe_block_call *calls, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!is_even_call(&calls[i]))
            return 0;
    return vibe_cuda_can_stem(calls, n);
}

static void stem(struct vibe_stream *s, const struct vibe_block_call *calls,
                 size_t n)
{
    void *scratch = vibe_cuda_scratch(s, vibe_cuda_stem_bytes());

    if (scratch)
        vibe_cuda_latch(s,
                        vibe_cuda_stem(vibe_cuda_of(s->be), calls, n, scratch),
                        "blocks");
}

/* Run the first call, and maybe those behind it; how many that were. */
static size_t run_first(struct vibe_stream *s,
                        const struct vibe_block_call *calls, size_t n,
                        const struct vibe_block_room *room)
{
    const struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    size_t n_narrow = 0;

    while (n_narrow < n && is_narrow(cuda, &calls[n_narrow]))
        n_narrow++;
    if (n_narrow == 0 || !is_even(room->normed)) {
        block(s, calls, n > 1 ? calls + 1 : NULL, room);
        return 1;
    }
    n_narrow = vibe_cuda_blocks_at_once(cuda, calls, n_narrow);
    vibe_cuda_latch(s, vibe_cuda_block(cuda, calls, n_narrow, room->normed),
                    "blocks");
    return n_narrow;
}

static void blocks(struct vibe_stream *s, const struct vibe_block_call *calls,
                   size_t n, const struct vibe_block_room *room)
{
    if (is_chain(s, calls, n, room)) {
        chain(s, calls, n);
        return;
    }
    if (is_stem(calls, n)) {
        stem(s, calls, n);
        return;
    }
    for (size_t i = 0, at_once; i < n && s->err.code == VIBE_OK; i += at_once)
        at_once = run_first(s, calls + i, n - i, room);
}

static void solve(struct vibe_stream *s, const struct vibe_solver *solver,
                  const struct vibe_solver_coef *coef,
                  const struct vibe_tensor *u, const struct vibe_norm *norm,
                  const struct vibe_matrix *w)
{
    if (vibe_cuda_can_solve(u, norm, w)) {
        vibe_cuda_latch(s, vibe_cuda_solve(queue(s), solver, coef, u, norm, w),
                        "solve");
        return;
    }
    vibe_linear_norm(s, solver->v, u, norm, w, VIBE_STORE, NULL);
    vibe_cuda_latch(s, vibe_cuda_solver_step(queue(s), solver, coef), "solve");
}

static void noise(struct vibe_stream *s, const struct vibe_tensor *x,
                  const struct vibe_noise_key *keys)
{
    vibe_cuda_latch(s, vibe_cuda_noise(queue(s), x, keys), "noise");
}

void vibe_cuda_compute_init(struct vibe_ops *ops)
{
    ops->form = vibe_cuda_form;
    ops->norm_forms = vibe_cuda_norm_forms;
    ops->attention_forms = vibe_cuda_attention_forms;
    ops->linear_forms = vibe_cuda_linear_forms;
    ops->linear = vibe_cuda_linear;
    ops->gemm = vibe_cuda_gemm;
    ops->rmsnorm = rmsnorm;
    ops->modulate = modulate;
    ops->add_silu = add_silu;
    ops->affine = affine;
    ops->copy = copy;
    ops->zero = zero;
    ops->attention = vibe_cuda_attention;
    ops->window = window;
    ops->conv = vibe_cuda_conv;
    ops->mixer = mixer;
    ops->blocks = blocks;
    ops->solve = solve;
    ops->noise = noise;
}
