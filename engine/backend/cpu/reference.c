/* Every op in plain C with sums in double: what the other kernels are compared
 * with, and what a processor without them runs. */
#include <math.h>
#include <string.h>

#include "engine/backend/cpu/state.h"
#include "engine/backend/noise.h"
#include "engine/base/float8.h"

/* Rows of x that share one reading of a row of W. */
enum { GROUP = 32, CHUNK = VIBE_CPU_EXPAND_K, LANES = 8 };
enum { MAX_HEAD_DIM = 1024, HEADS = 8 /* at once */ };

static double silu(double z)
{
    return z / (1.0 + exp(-z));
}

/* lanes[j % LANES] += w[j] * x[j], j < n. */
static void add_products(double lanes[LANES], const float *w, const float *x,
                         size_t n)
{
    size_t j = 0;

    for (; j + LANES <= n; j += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            lanes[lane] += (double)w[j + lane] * x[j + lane];
    for (; j < n; j++)
        lanes[j % LANES] += (double)w[j] * x[j];
}

static double sum_of(const double lanes[LANES])
{
    double sum = 0.0;

    for (size_t lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    return sum;
}

/* out[i] = scale * dot(W[n], x[first + i]) + bias[n], i < count <= GROUP. */
static void dot_rows(double out[GROUP], const struct vibe_matrix *w, size_t n,
                     const struct vibe_tensor *x, size_t first, size_t count)
{
    struct vibe_cpu_weights row = vibe_cpu_weights_row(w, n);
    /* bias is the whole's, of a pair with the other half whole_N / 2 on */
    size_t at_bias = w->is_pair && n >= w->N / 2 ? n + (w->whole_N - w->N) / 2
                                                 : n;
    double lanes[GROUP][LANES] = {{0}};
    float chunk[CHUNK];

    for (size_t k = 0; k < w->K; k += CHUNK) {
        size_t n_k = w->K - k < CHUNK ? w->K - k : CHUNK;

        vibe_cpu_expand_row(chunk, &row, w->K, k, n_k);
        for (size_t i = 0; i < count; i++)
            add_products(lanes[i], chunk, vibe_cpu_row(x, first + i) + k, n_k);
    }
    for (size_t i = 0; i < count; i++)
        out[i] = sum_of(lanes[i]) * row.scale +
                 (w->bias ? w->bias[at_bias] : 0.0f);
}

/* Finish output n of row m; z_up belongs to a pair only. */
static void store(const struct vibe_tensor *y, size_t m, size_t n, double z,
                  double z_up, const struct vibe_matrix *w,
                  enum vibe_epilogue epilogue, const struct vibe_tensor *gate)
{
    float *out = vibe_cpu_row(y, m) + n;

    switch (epilogue) {
    case VIBE_STORE:
        *out = (float)z;
        return;
    case VIBE_ADD:
        *out = (float)(*out + (w->gamma ? w->gamma[n] * z : z));
        return;
    case VIBE_GATE_ADD:
        *out = (float)(*out + vibe_cpu_row(gate, m)[n] * z);
        return;
    case VIBE_GELU:
        *out = (float)(z / 2 * (1.0 + erf(z * M_SQRT1_2)));
        return;
    case VIBE_SWIGLU:
        *out = (float)(silu(z) * z_up);
        return;
    }
}

static void linear(struct vibe_stream *s, const struct vibe_tensor *y,
                   const struct vibe_tensor *x, const struct vibe_matrix *w,
                   enum vibe_epilogue epilogue, const struct vibe_tensor *gate)
{
    size_t M = y->B * y->T;
    int threads = vibe_cpu_team(s, M * w->N * w->K);

#pragma omp parallel for num_threads(threads)
    for (size_t n = 0; n < y->C; n++) {
        double z[GROUP], z_up[GROUP] = {0};

        for (size_t m = 0; m < M; m += GROUP) {
            size_t count = M - m < GROUP ? M - m : GROUP;

            dot_rows(z, w, n, x, m, count);
            if (w->is_pair)
                dot_rows(z_up, w, w->N / 2 + n, x, m, count);
            for (size_t i = 0; i < count; i++)
                store(y, m + i, n, z[i], z_up[i], w, epilogue, gate);
        }
    }
}

static double inverse_rms(const float *x, size_t n, float eps)
{
    double sum = 0.0;

    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return 1.0 / sqrt(sum / (double)n + eps);
}

static void rmsnorm_row(float *y, const float *x, size_t n, const float *w,
                        float eps)
{
    double inverse = inverse_rms(x, n, eps);

    for (size_t i = 0; i < n; i++)
        y[i] = (float)(x[i] * inverse * (w ? w[i] : 1.0f));
}

static void rmsnorm(struct vibe_stream *s, const struct vibe_tensor *y,
                    const struct vibe_tensor *x, const float *w, float eps)
{
    (void)s;
    for (size_t m = 0; m < y->B * y->T; m++)
        rmsnorm_row(vibe_cpu_row(y, m), vibe_cpu_row(x, m), y->C, w, eps);
}

static void modulate(struct vibe_stream *s, const struct vibe_tensor *y,
                     const struct vibe_tensor *x, const float *w, float eps,
                     const struct vibe_tensor *shift,
                     const struct vibe_tensor *scale)
{
    (void)s;
    for (size_t m = 0; m < y->B * y->T; m++) {
        float *out = vibe_cpu_row(y, m);
        const float *in = vibe_cpu_row(x, m);
        const float *add = vibe_cpu_row(shift, m);
        const float *mul = vibe_cpu_row(scale, m);
        double inverse = inverse_rms(in, y->C, eps);

        for (size_t i = 0; i < y->C; i++) {
            double n = in[i] * inverse * (w ? w[i] : 1.0f);

            out[i] = (float)(n * (1.0 + mul[i]) + add[i]);
        }
    }
}

static void add_silu(struct vibe_stream *s, const struct vibe_tensor *y,
                     const struct vibe_tensor *a, const struct vibe_tensor *b)
{
    (void)s;
    for (size_t m = 0; m < y->B * y->T; m++) {
        float *out = vibe_cpu_row(y, m);
        const float *in = vibe_cpu_row(a, m);
        const float *more = b ? vibe_cpu_row(b, m) : NULL;

        for (size_t i = 0; i < y->C; i++)
            out[i] = (float)silu(more ? (double)in[i] + more[i] : in[i]);
    }
}

static void affine(struct vibe_stream *s, const struct vibe_tensor *y,
                   const struct vibe_tensor *x, float mul, float add)
{
    (void)s;
    for (size_t m = 0; m < y->B * y->T; m++) {
        float *out = vibe_cpu_row(y, m);
        const float *in = vibe_cpu_row(x, m);

        for (size_t i = 0; i < y->C; i++)
            out[i] = in[i] * mul + add;
    }
}

static void copy(struct vibe_stream *s, const struct vibe_tensor *y,
                 const struct vibe_tensor *x)
{
    (void)s;
    for (size_t m = 0; m < y->B * y->T; m++)
        memcpy(vibe_cpu_row(y, m), vibe_cpu_row(x, m), y->C * sizeof(float));
}

static void zero(struct vibe_stream *s, const struct vibe_tensor *y)
{
    (void)s;
    for (size_t m = 0; m < y->B * y->T; m++)
        memset(vibe_cpu_row(y, m), 0, y->C * sizeof(float));
}

/* Round to the nearest bf16, ties to even; NaN stays NaN. */
static uint16_t to_bf16(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* Where a row of keys (which 0) or values (1) is. */
struct place {
    size_t seq, layer, which, head, pos;
};

static void store_kv(const struct vibe_kv *kv, struct place at, const float *in)
{
    const size_t n = kv->head_dim;
    void *out = vibe_cpu_kv_row(kv, at.seq, at.layer, at.which, at.head,
                                at.pos);
    uint16_t *halves = out;

    if (kv->dtype == VIBE_F32) {
        memcpy(out, in, n * sizeof(*in));
        return;
    }
    if (kv->dtype == VIBE_F8_E4M3) {
        vibe_f8_row(out,
                    vibe_cpu_kv_exponent(kv, at.seq, at.layer, at.which,
                                         at.head, at.pos),
                    in, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        halves[i] = to_bf16(in[i]);
}

static void read_kv(float *out, const struct vibe_kv *kv, struct place at)
{
    float scale = 1.0f;

    vibe_dtype_to_f32(
        out, vibe_cpu_kv_row(kv, at.seq, at.layer, at.which, at.head, at.pos),
        kv->dtype, kv->head_dim);
    if (kv->dtype != VIBE_F8_E4M3)
        return;
    scale = vibe_f8_scale(
        *vibe_cpu_kv_exponent(kv, at.seq, at.layer, at.which, at.head, at.pos));
    for (size_t i = 0; i < kv->head_dim; i++)
        out[i] *= scale;
}

struct rotation {
    float c[MAX_HEAD_DIM / 2], s[MAX_HEAD_DIM / 2];
};

/* The product of position and frequency is taken in double: in float it would
 * be off by 2e-3 radians at position 60,000. */
static void turn_to(struct rotation *r, size_t pos, const float *inv_freq,
                    size_t half)
{
    for (size_t i = 0; i < half; i++) {
        double angle = (double)pos * inv_freq[i];

        r->c[i] = (float)cos(angle);
        r->s[i] = (float)sin(angle);
    }
}

static void rotate(float *head, const struct rotation *r, size_t half)
{
    for (size_t i = 0; i < half; i++) {
        float a = head[i];
        float b = head[i + half];

        head[i] = a * r->c[i] - b * r->s[i];
        head[i + half] = b * r->c[i] + a * r->s[i];
    }
}

void vibe_cpu_rope(struct vibe_stream *s, const struct vibe_tensor *qkv,
                   const struct vibe_kv *kv, size_t layer,
                   const struct vibe_rows *rows, const struct vibe_rope *rope)
{
    size_t hd = kv->head_dim;
    size_t n_kv = kv->n_kv_heads;
    size_t n_heads = qkv->C / hd - 2 * n_kv;
    size_t M = qkv->B * qkv->T;
    int threads = vibe_cpu_team(s, M * qkv->C * 8);

    assert(hd <= MAX_HEAD_DIM);
#pragma omp parallel for num_threads(threads)
    for (size_t m = 0; m < M; m++) {
        float *row = vibe_cpu_row(qkv, m);
        size_t pos = (size_t)rows->pos[m / qkv->T] + m % qkv->T;
        size_t seq = (size_t)rows->seq[m / qkv->T];
        struct rotation r;

        turn_to(&r, pos, rope->inv_freq, hd / 2);
        for (size_t h = 0; h < n_heads + n_kv; h++)
            rotate(row + h * hd, &r, hd / 2);
        if (rope->centre && kv->dtype == VIBE_F8_E4M3)
            for (size_t i = 0; i < n_kv * hd; i++)
                row[n_heads * hd + i] -= rope->centre[i];
        for (size_t h = 0; h < 2 * n_kv; h++)
            store_kv(kv, (struct place){seq, layer, h / n_kv, h % n_kv, pos},
                     row + (n_heads + h) * hd);
    }
}

/* Query heads that share a reading of keys and values. */
struct heads {
    double top[HEADS], total[HEADS];
    double sum[HEADS][MAX_HEAD_DIM];
};

static double score_of(const float *q, const float *key, size_t head_dim)
{
    double lanes[LANES] = {0};

    add_products(lanes, q, key, head_dim);
    return sum_of(lanes) / sqrt((double)head_dim);
}

/* What position at.pos adds to n heads whose largest scores are known. */
static void add_position(struct heads *heads, const float *q, size_t n,
                         const struct vibe_kv *kv, struct place at)
{
    const size_t hd = kv->head_dim;
    float key[MAX_HEAD_DIM], value[MAX_HEAD_DIM];

    read_kv(key, kv, at);
    at.which = 1;
    read_kv(value, kv, at);
    for (size_t h = 0; h < n; h++) {
        double weight = exp(score_of(q + h * hd, key, hd) - heads->top[h]);

        heads->total[h] += weight;
        for (size_t i = 0; i < hd; i++)
            heads->sum[h][i] += weight * value[i];
    }
}

/* y[n][head_dim] = softmax(q k / sqrt(head_dim)) v over positions 0 .. last,
 * n <= HEADS of one head of keys.  First the largest scores, then the weighted
 * sums; scores are computed twice instead of kept. */
static void attend(float *y, const float *q, size_t n, const struct vibe_kv *kv,
                   struct place at, size_t last)
{
    const size_t hd = kv->head_dim;
    struct heads heads = {0};
    float key[MAX_HEAD_DIM];

    for (size_t h = 0; h < n; h++)
        heads.top[h] = -INFINITY;
    for (at.pos = 0; at.pos <= last; at.pos++) {
        read_kv(key, kv, at);
        for (size_t h = 0; h < n; h++)
            heads.top[h] = fmax(heads.top[h], score_of(q + h * hd, key, hd));
    }
    for (at.pos = 0; at.pos <= last; at.pos++)
        add_position(&heads, q, n, kv, at);
    for (size_t h = 0; h < n; h++)
        for (size_t i = 0; i < hd; i++)
            y[h * hd + i] = (float)(heads.sum[h][i] / heads.total[h]);
}

static void attention(struct vibe_stream *s, const struct vibe_tensor *y,
                      const struct vibe_tensor *qkv, const struct vibe_kv *kv,
                      size_t layer, const struct vibe_rows *rows,
                      const struct vibe_rope *rope)
{
    size_t hd = kv->head_dim;
    size_t n_heads = y->C / hd;
    size_t group = n_heads / kv->n_kv_heads;
    size_t n_tasks = y->B * y->T * kv->n_kv_heads;
    int threads = vibe_cpu_team(s, n_tasks * group * hd * 64);

    assert(hd <= MAX_HEAD_DIM);
    vibe_cpu_rope(s, qkv, kv, layer, rows, rope);
#pragma omp parallel for num_threads(threads)
    for (size_t task = 0; task < n_tasks; task++) {
        size_t m = task / kv->n_kv_heads;
        size_t head = task % kv->n_kv_heads;
        size_t last = (size_t)rows->pos[m / y->T] + m % y->T;
        struct place at = {(size_t)rows->seq[m / y->T], layer, 0, head, 0};

        for (size_t h = 0; h < group; h += HEADS) {
            size_t column = (head * group + h) * hd;

            attend(vibe_cpu_row(y, m) + column, vibe_cpu_row(qkv, m) + column,
                   group - h < HEADS ? group - h : HEADS, kv, at, last);
        }
    }
}

void vibe_cpu_keep_last(const struct vibe_tensor *state,
                        const struct vibe_tensor *past,
                        const struct vibe_tensor *x)
{
    for (size_t m = 0; m < state->B * state->T; m++)
        memcpy(vibe_cpu_row(state, m),
               vibe_cpu_row_behind(past, x, m / state->T, x->T + m % state->T),
               state->C * sizeof(float));
}

static void window(struct vibe_stream *s, const struct vibe_tensor *win,
                   const struct vibe_tensor *state,
                   const struct vibe_tensor *past, const struct vibe_tensor *x)
{
    size_t bytes = x->C * sizeof(float);
    size_t M = win->B * win->T;

#pragma omp parallel for num_threads(vibe_cpu_team(s, M * x->C))
    for (size_t m = 0; m < M; m++) {
        float *to = vibe_cpu_row(win, m);
        const float *from = NULL;

        if (m % win->T < past->T + x->T)
            from = vibe_cpu_row_behind(past, x, m / win->T, m % win->T);
        if (!from)
            memset(to, 0, bytes);
        else if (from != to)
            memcpy(to, from, bytes);
    }
    vibe_cpu_keep_last(state, past, x);
}

static void conv(struct vibe_stream *s, const struct vibe_tensor *y,
                 const struct vibe_tensor *rows, const struct vibe_matrix *w,
                 const struct vibe_window *of)
{
    const struct vibe_ops *ops = s->be->ops;

    ops->window(s, of->win, of->state, of->past, of->x);
    if (rows->T == 1)
        ops->linear(s, y, rows, w, VIBE_STORE, NULL);
    else
        ops->gemm(s, y, rows, w, VIBE_STORE, NULL);
}

/* y = x + mixed columns; normed has n(x) on entry. */
static void mix_row(const struct vibe_tensor *y,
                    const struct vibe_tensor *normed,
                    const struct vibe_tensor *past, const struct vibe_tensor *x,
                    size_t m, const struct vibe_mixer *w)
{
    const float *in = vibe_cpu_row(x, m);
    float *out = vibe_cpu_row(y, m);

    for (size_t c = 0; c < x->C; c++) {
        double sum = w->bias[c];

        for (size_t j = 0; j < VIBE_MIXER_TAPS; j++)
            sum += (double)w->taps[j * x->C + c] *
                   vibe_cpu_row_behind(past, normed, m / x->T, m % x->T + j)[c];
        out[c] = (float)(in[c] + w->gamma[c] * sum);
    }
}

static void mixer(struct vibe_stream *s, const struct vibe_tensor *y,
                  const struct vibe_tensor *normed,
                  const struct vibe_tensor *state,
                  const struct vibe_tensor *past, const struct vibe_tensor *x,
                  const struct vibe_mixer *w)
{
    size_t M = x->B * x->T;

    rmsnorm(s, normed, x, w->norm, w->eps);
    vibe_cpu_keep_last(state, past, normed);
    for (size_t m = 0; m < M; m++)
        mix_row(y, normed, past, x, m, w);
    rmsnorm(s, normed, y, w->next_norm, w->eps);
}

static void blocks(struct vibe_stream *s, const struct vibe_block_call *calls,
                   size_t n, const struct vibe_block_room *room)
{
    const struct vibe_ops *ops = s->be->ops;

    for (size_t i = 0; i < n; i++) {
        const struct vibe_block_call *call = &calls[i];
        const struct vibe_block *w = call->w;

        ops->mixer(s, &call->y, room->normed, &call->state, &call->past,
                   &call->x, &w->mixer);
        if (call->x.T == 1) {
            ops->linear(s, room->hidden, room->normed, &w->up, VIBE_GELU, NULL);
            ops->linear(s, &call->y, room->hidden, &w->down, VIBE_ADD, NULL);
        } else {
            ops->gemm(s, room->hidden, room->normed, &w->up, VIBE_GELU, NULL);
            ops->gemm(s, &call->y, room->hidden, &w->down, VIBE_ADD, NULL);
        }
    }
}

static void solve(struct vibe_stream *s, const struct vibe_solver *solver,
                  const struct vibe_solver_coef *coef,
                  const struct vibe_tensor *u, const struct vibe_norm *norm,
                  const struct vibe_matrix *w)
{
    const struct vibe_tensor *x = solver->x;

    vibe_linear_norm(s, solver->v, u, norm, w, VIBE_STORE, NULL);
    for (size_t d = 0; d < x->B; d++) {
        float *now = vibe_cpu_row(x, d);
        float *before = vibe_cpu_row(solver->m1, d);
        const float *pos = vibe_cpu_row(solver->v, d);
        const float *neg = vibe_cpu_row(solver->v, x->B + d);

        for (size_t i = 0; i < x->C; i++) {
            float guided = neg[i] + solver->cfg_scale[d] * (pos[i] - neg[i]);
            float m0 = coef->alpha * now[i] - coef->sigma * guided;

            now[i] = coef->a * now[i] + coef->c0 * m0;
            if (coef->c1 != 0.0f)
                now[i] += coef->c1 * before[i];
            before[i] = m0;
        }
    }
}

static void noise(struct vibe_stream *s, const struct vibe_tensor *x,
                  const struct vibe_noise_key *keys)
{
    (void)s;
    for (size_t d = 0; d < x->B; d++) {
        float *out = vibe_cpu_row(x, d);

        for (size_t i = 0; i < x->C; i++)
            out[i] = vibe_noise_normal(keys[d].seed, keys[d].dialogue,
                                       keys[d].frame, (uint32_t)i);
    }
}

void vibe_cpu_reference_init(struct vibe_ops *ops)
{
    ops->linear = linear;
    ops->gemm = linear;
    ops->rmsnorm = rmsnorm;
    ops->modulate = modulate;
    ops->add_silu = add_silu;
    ops->affine = affine;
    ops->copy = copy;
    ops->zero = zero;
    ops->attention = attention;
    ops->window = window;
    ops->conv = conv;
    ops->mixer = mixer;
    ops->blocks = blocks;
    ops->solve = solve;
    ops->noise = noise;
}
