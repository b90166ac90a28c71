/* Parity of vibe_conv: it has the bits of vibe_window and a product of each
 * dialogue on its own. */
#include "engine/backend/parity_lab.h"

/* Dialogues, p, T, C, the rows of x from one product to the next, their number,
 * and N. */
static const struct conv {
    size_t B, p, T, C, step, taps, N;
    enum vibe_dtype dtype;
} convs[] = {
    {3, 1, 8, 64, 1, 2, 40, VIBE_BF16},
    {3, 1, 40, 256, 1, 2, 80, VIBE_BF16},
    {3, 5, 40, 32, 5, 10, 64, VIBE_BF16},
    {3, 2, 100, 32, 2, 4, 64, VIBE_BF16},
    {3, 8, 64, 132, 8, 16, 33, VIBE_F32},
    {3, 4, 22, 32, 4, 8, 48, VIBE_BF16},
    {3, 6, 100, 32, 1, 7, 1, VIBE_BF16},
    {6, 6, 3200, 32, 1, 7, 1, VIBE_BF16},
    {3, 6, 50, 1, 1, 7, 32, VIBE_BF16},
    {3, 6, 3, 16, 1, 7, 24, VIBE_BF16},
    {3, 1, 700, 128, 1, 2, 256, VIBE_BF16},
    {9, 5, 500, 64, 5, 10, 256, VIBE_BF16},
    {3, 1, 190, 128, 1, 2, 1280, VIBE_BF16},
    {3, 1, 400, 128, 1, 1, 1280, VIBE_BF16},
    {3, 6, 20, 16, 1, 7, 24, VIBE_BF16},
    {3, 6, 9, 32, 1, 7, 24, VIBE_BF16},
    {3, 3, 30, 40, 3, 6, 20, VIBE_BF16},
    {3, 6, 40, 64, 1, 7, 4, VIBE_F8_E4M3},
    {7, 8, 8, 128, 8, 16, 96, VIBE_BF16},
};

/* Tensors of the tested side and, beside it, of ops one after the other. */
struct both {
    struct vibe_tensor win[VIBE_SIDES], state[VIBE_SIDES], y[VIBE_SIDES];
    struct vibe_tensor past[VIBE_SIDES], x[VIBE_SIDES];
};

static struct vibe_tensor rows_of(const struct vibe_tensor *win,
                                  const struct conv *c, size_t T)
{
    struct vibe_tensor rows = *win;

    rows.T = T;
    rows.C = c->taps * c->C;
    rows.stride_t = c->step * c->C;
    return rows;
}

/* x may be where it belongs in win. */
static void run_conv(struct vibe_lab *lab, const struct conv *c, int is_there)
{
    const size_t B = c->B, K = c->taps * c->C;
    const size_t T = (c->T + c->step - 1) / c->step;
    const struct vibe_lab_matrix spec = {.dtype = c->dtype,
                                         .N = c->N,
                                         .K = K,
                                         .n_parts = 1,
                                         .n_scales = 1,
                                         .has_bias = 1};
    struct vibe_matrix *w[VIBE_SIDES];
    struct both one, two;
    struct both *of[2] = {&one, &two};
    struct vibe_stream *s = &lab->s[VIBE_TESTED];

    vibe_lab_matrix(lab, w, &spec);
    vibe_lab_tensor(lab, one.past, VIBE_FILL_RANDOM, B, c->p, c->C);
    vibe_lab_tensor(lab, one.x, VIBE_FILL_RANDOM, B, c->T, c->C);
    for (int i = 0; i < 2; i++) {
        vibe_lab_tensor(lab, of[i]->win, VIBE_FILL_POISON, B,
                        c->p + T * c->step, c->C);
        vibe_lab_tensor(lab, of[i]->state, VIBE_FILL_POISON, B, c->p, c->C);
        vibe_lab_tensor(lab, of[i]->y, VIBE_FILL_POISON, B, T, c->N);
    }
    if (!lab->err.code) {
        struct vibe_tensor *win = &one.win[VIBE_TESTED];
        struct vibe_tensor rows = rows_of(win, c, T);
        struct vibe_tensor x = one.x[VIBE_TESTED];
        const struct vibe_window window = {win, &one.state[VIBE_TESTED],
                                           &one.past[VIBE_TESTED], &x};

        if (is_there) {
            x.data = (float *)win->data + c->p * c->C;
            x.stride_b = win->stride_b;
            vibe_copy(s, &x, &one.x[VIBE_TESTED]);
        }
        vibe_conv(s, &one.y[VIBE_TESTED], &rows, w[VIBE_TESTED], &window);
        rows = rows_of(&two.win[VIBE_TESTED], c, T);
        vibe_window(s, &two.win[VIBE_TESTED], &two.state[VIBE_TESTED],
                    &one.past[VIBE_TESTED], &one.x[VIBE_TESTED]);
        for (size_t b = 0; b < B; b++) {
            const struct vibe_tensor x1 = vibe_tensor_batch(&rows, b, 1);
            const struct vibe_tensor y1 = vibe_tensor_batch(&two.y[VIBE_TESTED],
                                                            b, 1);

            (T == 1 ? vibe_linear : vibe_gemm)(s, &y1, &x1, w[VIBE_TESTED],
                                               VIBE_STORE, NULL);
        }
        vibe_lab_same(lab, "conv", &one.y[VIBE_TESTED], &two.y[VIBE_TESTED],
                      "%zu of %zu behind %zu, N=%zu", T, K, c->p, c->N);
        vibe_lab_same(lab, "conv", &one.state[VIBE_TESTED],
                      &two.state[VIBE_TESTED], "state %zu of %zu", c->p, c->C);
    }
    vibe_lab_clear(lab);
}

static void conv(struct vibe_lab *lab)
{
    for (size_t i = 0; i < 2 * sizeof(convs) / sizeof(*convs); i++)
        if (!lab->err.code)
            run_conv(lab, &convs[i / 2], (int)(i % 2));
}

vibe_parity_case *const vibe_parity_conv[] = {conv, NULL};
