/* Every op call: check the shapes, skip after an error, dispatch. */
#include "engine/backend/ops.h"

#include <assert.h>

static int is_alike(const struct vibe_tensor *a, const struct vibe_tensor *b)
{
    return a->B == b->B && a->T == b->T && a->C == b->C;
}

static int is_rows(const struct vibe_tensor *a, size_t B, size_t T)
{
    return a->B == B && a->T == T;
}

/* Whether the stream still runs ops. */
static int is_live(const struct vibe_stream *s)
{
    return s->err.code == VIBE_OK;
}

void vibe_write(struct vibe_stream *s, void *device, const void *host,
                size_t bytes)
{
    if (is_live(s) && bytes)
        s->be->ops->write(s, device, host, bytes);
}

void vibe_read(struct vibe_stream *s, void *host, const void *device,
               size_t bytes)
{
    if (is_live(s) && bytes)
        s->be->ops->read(s, host, device, bytes);
}

void vibe_mark(struct vibe_stream *s, size_t i)
{
    assert(i < VIBE_MARKS);
    if (is_live(s) && s->is_timed)
        s->be->ops->mark(s, i);
}

double vibe_mark_s(struct vibe_stream *s, size_t i)
{
    assert(i < VIBE_MARKS);
    return s->is_timed ? s->be->ops->mark_s(s, i) : 0.0;
}

void vibe_beside(struct vibe_stream *s, void (*body)(void *user), void *user)
{
    if (is_live(s))
        s->be->ops->beside(s, body, user);
}

void vibe_meet(struct vibe_stream *s)
{
    if (is_live(s))
        s->be->ops->meet(s);
}

size_t vibe_copied(struct vibe_backend *be, struct vibe_span *out, size_t max)
{
    return be->ops->copied(be, out, max);
}

void vibe_hand_over(struct vibe_stream *to, void *dst, struct vibe_stream *from,
                    const void *src, size_t bytes)
{
    assert(from->be->is_cuda == to->be->is_cuda);
    if (!is_live(from) && is_live(to))
        to->err = from->err;
    if (is_live(to) && bytes)
        to->be->ops->hand_over(to, dst, from, src, bytes);
}

void vibe_graph_run(struct vibe_stream *s, struct vibe_graph **graph,
                    void (*body)(void *user), void *user)
{
    if (!is_live(s))
        return;
    s->be->ops->graph_run(s, graph, body, user);
}

void vibe_graph_free(struct vibe_stream *s, struct vibe_graph **graph)
{
    if (*graph)
        s->be->ops->graph_free(*graph);
    *graph = NULL;
}

/* Whether ops besides products may read them; NULL is allowed. */
static int is_plain(const struct vibe_tensor *t)
{
    return !t || t->form == VIBE_FORM_PLAIN;
}

static void check_product(const struct vibe_tensor *y,
                          const struct vibe_tensor *x,
                          const struct vibe_matrix *w,
                          enum vibe_epilogue epilogue,
                          const struct vibe_tensor *gate)
{
    assert(is_rows(x, y->B, y->T) && x->C == w->K);
    assert(y->C == (epilogue == VIBE_SWIGLU ? w->N / 2 : w->N));
    assert((epilogue == VIBE_SWIGLU) == (w->is_pair != 0));
    assert((epilogue == VIBE_GATE_ADD) == (gate != NULL));
    assert(!gate || is_alike(gate, y));
    assert(!w->gamma || epilogue == VIBE_ADD);
    assert(is_plain(gate));
    assert((epilogue != VIBE_ADD && epilogue != VIBE_GATE_ADD) || is_plain(y));
    (void)y, (void)x, (void)w, (void)epilogue, (void)gate;
}

/* Whether a form is among usual ones and others, bits 1 << form. */
static int is_among(enum vibe_form form, unsigned others)
{
    return form == VIBE_FORM_PLAIN || form == VIBE_FORM_PARTS ||
           (others >> form & 1);
}

/* Few kernels know the other forms: x must have that which w was asked for. */
static void check_forms(const struct vibe_backend *be,
                        const struct vibe_tensor *y,
                        const struct vibe_tensor *x,
                        const struct vibe_matrix *w)
{
    assert(is_among(x->form, 1u << vibe_form_for(be, x, w, 1u << x->form)));
    assert(is_among(y->form, vibe_linear_forms(be, x, w)));
    (void)be, (void)y, (void)x, (void)w;
}

static void check_normed(const struct vibe_tensor *x,
                         const struct vibe_norm *norm)
{
    assert(is_alike(norm->room, x) && !norm->shift == !norm->scale);
    assert(!norm->shift ||
           (is_alike(norm->shift, x) && is_alike(norm->scale, x)));
    assert(is_plain(x) && is_plain(norm->shift) && is_plain(norm->scale));
    (void)x, (void)norm;
}

/* One of the two products. */
struct product {
    const struct vibe_tensor *y, *x, *gate;
    const struct vibe_matrix *w;
    enum vibe_epilogue epilogue;
    int is_gemm;
};

static void multiply_here(struct vibe_stream *s, const struct product *p)
{
    const struct vibe_ops *ops = s->be->ops;

    if (p->is_gemm)
        ops->gemm(s, p->y, p->x, p->w, p->epilogue, p->gate);
    else
        ops->linear(s, p->y, p->x, p->w, p->epilogue, p->gate);
}

/* Rows that begin with first; returns how many there were. */
static size_t multiply_piece(struct vibe_stream *s, const struct product *p,
                             size_t first)
{
    const size_t halves = p->w->is_pair ? 2 : 1;
    struct vibe_supply *supply = p->w->supply;
    const void *device = NULL;
    size_t n = 0;
    struct product part = *p;
    struct vibe_matrix piece;
    struct vibe_tensor y, gate;

    if (supply->take(supply, p->w->number, first, &device, &n, &s->err))
        return 0;
    piece = vibe_matrix_piece(p->w, device, first, n);
    y = vibe_tensor_channels(p->y, first / halves, n / halves);
    part.w = &piece;
    part.y = &y;
    if (p->gate) {
        gate = vibe_tensor_channels(p->gate, first / halves, n / halves);
        part.gate = &gate;
    }
    multiply_here(s, &part);
    supply->done(supply, is_live(s) ? &s->err : NULL);
    return n;
}

static void multiply_pieces(struct vibe_stream *s, const struct product *p,
                            size_t end)
{
    for (size_t first = 0; first < end && is_live(s);)
        first += multiply_piece(s, p, first);
}

/* A step, of whose matrix the rows from first on are lent. */
static void multiply_lent(struct vibe_stream *s, const struct product *p,
                          size_t first)
{
    const size_t halves = p->w->is_pair ? 2 : 1;
    struct vibe_supply *supply = p->w->supply;
    struct vibe_tensor y = vibe_tensor_channels(p->y, first / halves,
                                                (p->w->N - first) / halves);

    assert(!p->gate);
    supply->begin(supply, s, p->w->number, &y, p->x, p->epilogue);
    multiply_pieces(s, p, first);
    supply->finish(supply, s, p->w->number, &y);
}

static void multiply(struct vibe_stream *s, const struct product *p)
{
    struct vibe_supply *supply = p->w->supply;
    size_t end = p->w->N;

    if (!is_live(s))
        return;
    if (!supply) {
        multiply_here(s, p);
        return;
    }
    if (supply->lent_from && !p->is_gemm)
        end = supply->lent_from(supply, p->w->number);
    if (end < p->w->N)
        multiply_lent(s, p, end);
    else
        multiply_pieces(s, p, end);
}

void vibe_linear(struct vibe_stream *s, const struct vibe_tensor *y,
                 const struct vibe_tensor *x, const struct vibe_matrix *w,
                 enum vibe_epilogue epilogue, const struct vibe_tensor *gate)
{
    check_product(y, x, w, epilogue, gate);
    check_forms(s->be, y, x, w);
    multiply(s,
             &(const struct product){
                 .y = y, .x = x, .gate = gate, .w = w, .epilogue = epilogue});
}

enum vibe_form vibe_form_for(const struct vibe_backend *be,
                             const struct vibe_tensor *x,
                             const struct vibe_matrix *w, unsigned forms)
{
    struct vibe_supply *supply = w->supply;
    struct vibe_tensor usual = *x;
    enum vibe_form form;

    assert(x->C == w->K);
    usual.form = vibe_usual_form(w);
    if (!be->ops->form ||
        (supply && !(supply->is_whole && supply->is_whole(supply, w->number))))
        return usual.form;
    form = be->ops->form(be, &usual, w);
    return forms >> form & 1 ? form : usual.form;
}

enum vibe_form vibe_usual_form(const struct vibe_matrix *w)
{
    return w->part[0].dtype == VIBE_I4 ? VIBE_FORM_PLAIN : VIBE_FORM_PARTS;
}

unsigned vibe_norm_forms(const struct vibe_backend *be,
                         const struct vibe_tensor *y)
{
    return be->ops->norm_forms ? be->ops->norm_forms(be, y) : 0;
}

unsigned vibe_linear_forms(const struct vibe_backend *be,
                           const struct vibe_tensor *x,
                           const struct vibe_matrix *w)
{
    assert(x->C == w->K);
    return be->ops->linear_forms ? be->ops->linear_forms(be, x, w) : 0;
}

struct vibe_tensor vibe_norm_room(const struct vibe_backend *be,
                                  const struct vibe_norm *norm,
                                  const struct vibe_matrix *w)
{
    struct vibe_tensor room = *norm->room;

    room.form = vibe_form_for(be, &room, w, vibe_norm_forms(be, &room));
    return room;
}

/* Two ops: in one kernel blocks would norm x first and then race for memory
 * together, while a kernel for the norm hides how the product begins. */
void vibe_linear_norm(struct vibe_stream *s, const struct vibe_tensor *y,
                      const struct vibe_tensor *x, const struct vibe_norm *norm,
                      const struct vibe_matrix *w, enum vibe_epilogue epilogue,
                      const struct vibe_tensor *gate)
{
    const struct vibe_tensor room = vibe_norm_room(s->be, norm, w);

    check_normed(x, norm);
    if (norm->shift)
        vibe_modulate(s, &room, x, norm->w, norm->eps, norm->shift,
                      norm->scale);
    else
        vibe_rmsnorm(s, &room, x, norm->w, norm->eps);
    vibe_linear(s, y, &room, w, epilogue, gate);
}

void vibe_gemm(struct vibe_stream *s, const struct vibe_tensor *y,
               const struct vibe_tensor *x, const struct vibe_matrix *w,
               enum vibe_epilogue epilogue, const struct vibe_tensor *gate)
{
    check_product(y, x, w, epilogue, gate);
    check_forms(s->be, y, x, w);
    multiply(s, &(const struct product){.y = y,
                                        .x = x,
                                        .gate = gate,
                                        .w = w,
                                        .epilogue = epilogue,
                                        .is_gemm = 1});
}

void vibe_rmsnorm(struct vibe_stream *s, const struct vibe_tensor *y,
                  const struct vibe_tensor *x, const float *w, float eps)
{
    assert(is_alike(y, x) && is_plain(x));
    assert(is_among(y->form, vibe_norm_forms(s->be, y)));
    if (is_live(s))
        s->be->ops->rmsnorm(s, y, x, w, eps);
}

void vibe_modulate(struct vibe_stream *s, const struct vibe_tensor *y,
                   const struct vibe_tensor *x, const float *w, float eps,
                   const struct vibe_tensor *shift,
                   const struct vibe_tensor *scale)
{
    assert(is_alike(y, x) && is_alike(y, shift) && is_alike(y, scale));
    assert(is_plain(x) && is_plain(shift) && is_plain(scale));
    assert(is_among(y->form, vibe_norm_forms(s->be, y)));
    if (is_live(s))
        s->be->ops->modulate(s, y, x, w, eps, shift, scale);
}

void vibe_add_silu(struct vibe_stream *s, const struct vibe_tensor *y,
                   const struct vibe_tensor *a, const struct vibe_tensor *b)
{
    assert(is_alike(y, a) && (!b || is_alike(y, b)));
    assert(is_plain(a) && is_plain(b));
    assert(is_among(y->form, 1u << VIBE_FORM_WOVEN));
    if (is_live(s))
        s->be->ops->add_silu(s, y, a, b);
}

void vibe_affine(struct vibe_stream *s, const struct vibe_tensor *y,
                 const struct vibe_tensor *x, float mul, float add)
{
    assert(is_alike(y, x) && is_plain(y) && is_plain(x));
    if (is_live(s))
        s->be->ops->affine(s, y, x, mul, add);
}

void vibe_copy(struct vibe_stream *s, const struct vibe_tensor *y,
               const struct vibe_tensor *x)
{
    assert(is_alike(y, x));
    if (is_live(s))
        s->be->ops->copy(s, y, x);
}

void vibe_zero(struct vibe_stream *s, const struct vibe_tensor *y)
{
    if (is_live(s))
        s->be->ops->zero(s, y);
}

static void check_qkv(const struct vibe_tensor *qkv, const struct vibe_kv *kv,
                      size_t layer)
{
    assert(kv->head_dim % 2 == 0 && layer < kv->n_layers);
    assert(kv->dtype == VIBE_F32 || kv->dtype == VIBE_BF16 ||
           kv->dtype == VIBE_F8_E4M3);
    assert(qkv->C % kv->head_dim == 0);
    assert(qkv->C / kv->head_dim > 2 * kv->n_kv_heads);
    assert(qkv->C / kv->head_dim % kv->n_kv_heads == 0);
    (void)qkv, (void)kv, (void)layer;
}

void vibe_attention(struct vibe_stream *s, const struct vibe_tensor *y,
                    const struct vibe_tensor *qkv, const struct vibe_kv *kv,
                    size_t layer, const struct vibe_rows *rows,
                    const struct vibe_rope *rope)
{
    check_qkv(qkv, kv, layer);
    assert(is_rows(y, qkv->B, qkv->T) && y->data != qkv->data);
    assert(is_plain(qkv));
    assert(y->C == qkv->C - 2 * kv->n_kv_heads * kv->head_dim);
    assert(is_among(y->form, vibe_attention_forms(s->be, y, qkv, kv)));
    if (is_live(s))
        s->be->ops->attention(s, y, qkv, kv, layer, rows, rope);
}

unsigned vibe_attention_forms(const struct vibe_backend *be,
                              const struct vibe_tensor *y,
                              const struct vibe_tensor *qkv,
                              const struct vibe_kv *kv)
{
    return be->ops->attention_forms ? be->ops->attention_forms(be, y, qkv, kv)
                                    : 0;
}

static void check_window(const struct vibe_tensor *win,
                         const struct vibe_tensor *state,
                         const struct vibe_tensor *past,
                         const struct vibe_tensor *x)
{
    assert(win->B == x->B && past->B == x->B && is_alike(state, past));
    assert(win->C == x->C && past->C == x->C);
    assert(win->T >= past->T + x->T);
    assert(is_plain(win) && is_plain(state) && is_plain(past) && is_plain(x));
    (void)win, (void)state, (void)past, (void)x;
}

void vibe_window(struct vibe_stream *s, const struct vibe_tensor *win,
                 const struct vibe_tensor *state,
                 const struct vibe_tensor *past, const struct vibe_tensor *x)
{
    check_window(win, state, past, x);
    if (is_live(s))
        s->be->ops->window(s, win, state, past, x);
}

void vibe_conv(struct vibe_stream *s, const struct vibe_tensor *y,
               const struct vibe_tensor *rows, const struct vibe_matrix *w,
               const struct vibe_window *window)
{
    check_window(window->win, window->state, window->past, window->x);
    check_product(y, rows, w, VIBE_STORE, NULL);
    assert(rows->data == window->win->data && !w->supply);
    assert(rows->stride_b == window->win->stride_b);
    if (is_live(s))
        s->be->ops->conv(s, y, rows, w, window);
}

static void check_mixer(const struct vibe_tensor *y,
                        const struct vibe_tensor *normed,
                        const struct vibe_tensor *state,
                        const struct vibe_tensor *past,
                        const struct vibe_tensor *x)
{
    assert(is_alike(y, x) && is_alike(normed, x) && is_alike(state, past));
    assert(is_rows(past, x->B, VIBE_MIXER_TAPS - 1) && past->C == x->C);
    assert(y->data != x->data && y->data != normed->data);
    assert(normed->data != x->data && state->data != past->data);
    assert(is_plain(y) && is_plain(state) && is_plain(past) && is_plain(x));
    assert(is_among(normed->form, 0));
    (void)y, (void)normed, (void)state, (void)past, (void)x;
}

void vibe_mixer(struct vibe_stream *s, const struct vibe_tensor *y,
                const struct vibe_tensor *normed,
                const struct vibe_tensor *state, const struct vibe_tensor *past,
                const struct vibe_tensor *x, const struct vibe_mixer *w)
{
    check_mixer(y, normed, state, past, x);
    if (is_live(s))
        s->be->ops->mixer(s, y, normed, state, past, x, w);
}

void vibe_blocks(struct vibe_stream *s, const struct vibe_block_call *calls,
                 size_t n, const struct vibe_block_room *room)
{
    for (size_t i = 0; i < n; i++) {
        const struct vibe_block_call *call = &calls[i];
        const struct vibe_block *w = call->w;

        check_mixer(&call->y, room->normed, &call->state, &call->past,
                    &call->x);
        check_product(room->hidden, room->normed, &w->up, VIBE_GELU, NULL);
        check_product(&call->y, room->hidden, &w->down, VIBE_ADD, NULL);
        assert(w->up.bias && w->down.bias && w->down.gamma);
        assert(i == 0 || call->x.data == calls[i - 1].y.data);
    }
    if (is_live(s) && n > 0)
        s->be->ops->blocks(s, calls, n, room);
}

void vibe_solve(struct vibe_stream *s, const struct vibe_solver *solver,
                const struct vibe_solver_coef *coef,
                const struct vibe_tensor *u, const struct vibe_norm *norm,
                const struct vibe_matrix *w)
{
    const struct vibe_tensor *x = solver->x;

    assert(is_alike(x, solver->m1) && x->T == 1);
    assert(u->B == 2 && u->T == x->B && solver->v->C == x->C && !w->supply);
    assert(is_plain(x) && is_plain(solver->m1) && is_plain(solver->v));
    check_normed(u, norm);
    check_product(solver->v, u, w, VIBE_STORE, NULL);
    if (is_live(s))
        s->be->ops->solve(s, solver, coef, u, norm, w);
}

void vibe_noise(struct vibe_stream *s, const struct vibe_tensor *x,
                const struct vibe_noise_key *keys)
{
    assert(x->T == 1 && is_plain(x));
    if (is_live(s))
        s->be->ops->noise(s, x, keys);
}
