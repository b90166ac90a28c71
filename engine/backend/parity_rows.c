/* Parity of every op but the products. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "engine/backend/parity_lab.h"

/* Channels around the widths of vectors. */
static const size_t widths[] = {1, 7, 8, 17, 64, 100, 1536};

enum { N_WIDTHS = sizeof(widths) / sizeof(*widths) };

/* Inputs and weights are in [-1, 1); a sum of n squares rounds by at most
 * about sqrt(n) 2^-24 of itself, which moves its root by half of that. */
static double norm_bound(size_t n)
{
    return 0x1p-24 * (8.0 + sqrt((double)n)) * 2.0;
}

static void rmsnorm(struct vibe_lab *lab)
{
    for (size_t i = 0; i < N_WIDTHS && !lab->err.code; i++) {
        size_t C = widths[i];
        struct vibe_tensor x[VIBE_SIDES], y[VIBE_SIDES];
        float *w[VIBE_SIDES];

        vibe_lab_tensor(lab, x, VIBE_FILL_RANDOM, 2, 3, C);
        vibe_lab_tensor(lab, y, VIBE_FILL_POISON, 2, 3, C);
        vibe_lab_floats(lab, w, C);
        for (int side = 0; side < VIBE_SIDES; side++)
            vibe_rmsnorm(&lab->s[side], &y[side], &x[side], w[side], 1e-6f);
        vibe_lab_compare(lab, "rmsnorm", y, norm_bound(C), "6 x %zu", C);
        for (int side = 0; side < VIBE_SIDES; side++)
            vibe_rmsnorm(&lab->s[side], &x[side], &x[side], NULL, 1e-5f);
        vibe_lab_compare(lab, "rmsnorm", x, norm_bound(C),
                         "6 x %zu in place, no weight", C);
        vibe_lab_clear(lab);
    }
}

static void modulate(struct vibe_lab *lab)
{
    for (size_t i = 0; i < N_WIDTHS && !lab->err.code; i++) {
        size_t C = widths[i];
        struct vibe_tensor x[VIBE_SIDES], y[VIBE_SIDES], both[VIBE_SIDES];
        float *w[VIBE_SIDES];

        vibe_lab_tensor(lab, x, VIBE_FILL_RANDOM, 1, 3, C);
        vibe_lab_tensor(lab, y, VIBE_FILL_POISON, 2, 3, C);
        vibe_lab_tensor(lab, both, VIBE_FILL_RANDOM, 2, 3, 2 * C);
        vibe_lab_floats(lab, w, C);
        for (int side = 0; side < VIBE_SIDES && !lab->err.code; side++) {
            struct vibe_tensor xs = vibe_tensor_broadcast(&x[side], 2);
            struct vibe_tensor shift = vibe_tensor_channels(&both[side], 0, C);
            struct vibe_tensor scale = vibe_tensor_channels(&both[side], C, C);

            vibe_modulate(&lab->s[side], &y[side], &xs, i % 2 ? w[side] : NULL,
                          1e-5f, &shift, &scale);
        }
        vibe_lab_compare(lab, "modulate", y, 3.0 * norm_bound(C), "6 x %zu", C);
        vibe_lab_clear(lab);
    }
}

static void add_silu(struct vibe_lab *lab)
{
    for (size_t i = 0; i < N_WIDTHS && !lab->err.code; i++) {
        size_t C = widths[i];
        struct vibe_tensor a[VIBE_SIDES], b[VIBE_SIDES], y[VIBE_SIDES];

        vibe_lab_tensor(lab, a, VIBE_FILL_RANDOM, 1, 3, C);
        vibe_lab_tensor(lab, b, VIBE_FILL_RANDOM, 2, 3, C);
        vibe_lab_tensor(lab, y, VIBE_FILL_POISON, 2, 3, C);
        for (int side = 0; side < VIBE_SIDES && !lab->err.code; side++) {
            struct vibe_tensor as = vibe_tensor_broadcast(&a[side], 2);

            /* a spread over [-100, 100): both ends of the exponential */
            vibe_affine(&lab->s[side], &a[side], &a[side], 100.0f, 0.0f);
            vibe_add_silu(&lab->s[side], &y[side], &as, &b[side]);
            vibe_add_silu(&lab->s[side], &b[side], &b[side], NULL);
        }
        /* exp is good to 2^-20 of itself, silu to that of |z| < 101 */
        vibe_lab_compare(lab, "add_silu", y, 101.0 * 0x1p-20, "6 x %zu", C);
        vibe_lab_compare(lab, "add_silu", b, 0x1p-20, "6 x %zu in place", C);
        vibe_lab_clear(lab);
    }
}

static void affine_copy_zero(struct vibe_lab *lab)
{
    for (size_t i = 0; i < N_WIDTHS && !lab->err.code; i++) {
        size_t C = widths[i];
        struct vibe_tensor x[VIBE_SIDES], y[VIBE_SIDES];

        vibe_lab_tensor(lab, x, VIBE_FILL_RANDOM, 1, 5, C);
        vibe_lab_tensor(lab, y, VIBE_FILL_POISON, 3, 5, C);
        for (int side = 0; side < VIBE_SIDES && !lab->err.code; side++) {
            struct vibe_tensor xs = vibe_tensor_broadcast(&x[side], 3);
            struct vibe_tensor end = vibe_tensor_batch(&y[side], 2, 1);

            vibe_copy(&lab->s[side], &y[side], &xs);
            vibe_affine(&lab->s[side], &x[side], &x[side], 1.7f, -0.3f);
            end = vibe_tensor_rows(&end, 3, 2);
            vibe_zero(&lab->s[side], &end);
        }
        vibe_lab_compare(lab, "copy", y, 0.0, "15 x %zu, last 2 zero", C);
        /* two roundings of numbers below 2, or one if they are fused */
        vibe_lab_compare(lab, "affine", x, 0x1p-22, "5 x %zu in place", C);
        vibe_lab_clear(lab);
    }
}

struct attention {
    size_t B, T, n_heads, n_kv, head_dim, block, first; /* position of row 0 */
    enum vibe_dtype dtype;
};

/* Ragged ones, then those of the models, whose heads have kernels of their
 * own: one part and many, past a block and past 16,384 positions. */
static const struct attention contexts[] = {
    {1, 1, 1, 1, 2, 1, 0, VIBE_F32},
    {2, 1, 4, 2, 8, 5, 12, VIBE_F32},
    {3, 1, 6, 1, 64, 16, 100, VIBE_F32},
    {2, 1, 12, 2, 128, 64, 1100, VIBE_F32},
    {1, 37, 6, 2, 16, 16, 0, VIBE_F32},
    {1, 1, 2, 1, 16, 256, 16900, VIBE_F32},
    {2, 9, 7, 1, 36, 7, 30, VIBE_BF16},
    {1, 70, 2, 2, 128, 33, 300, VIBE_BF16},
    {2, 1, 14, 2, 128, 64, 700, VIBE_BF16},
    {1, 1, 7, 1, 128, 256, 0, VIBE_BF16},
    {3, 1, 12, 2, 128, 256, 14, VIBE_BF16},
    {2, 1, 28, 4, 128, 32, 127, VIBE_BF16},
    {2, 1, 7, 1, 128, 256, 2900, VIBE_BF16},
    {1, 1, 8, 1, 64, 256, 16900, VIBE_BF16},
    {1, 1, 1, 1, 64, 32, 31, VIBE_BF16},
    {1, 64, 3, 1, 128, 256, 0, VIBE_BF16},
    {2, 70, 4, 2, 128, 256, 250, VIBE_BF16},
    {1, 2, 2, 2, 64, 32, 95, VIBE_BF16},
    {2, 9, 7, 1, 36, 7, 30, VIBE_F8_E4M3},
    {2, 1, 6, 2, 30, 5, 60, VIBE_F8_E4M3},
    {1, 70, 2, 2, 128, 33, 300, VIBE_F8_E4M3},
    {1, 1, 7, 1, 128, 256, 0, VIBE_F8_E4M3},
    {3, 1, 12, 2, 128, 256, 14, VIBE_F8_E4M3},
    {2, 1, 28, 4, 128, 32, 127, VIBE_F8_E4M3},
    {2, 1, 7, 1, 128, 256, 2900, VIBE_F8_E4M3},
    {1, 1, 8, 1, 64, 256, 16900, VIBE_F8_E4M3},
    {1, 64, 3, 1, 128, 256, 0, VIBE_F8_E4M3},
    {2, 70, 4, 2, 128, 256, 250, VIBE_F8_E4M3},
    {1, 2, 2, 2, 64, 32, 95, VIBE_F8_E4M3},
};

struct cache {
    struct vibe_tensor data[VIBE_SIDES]; /* the blocks, in words of 4 bytes */
    struct vibe_kv kv[VIBE_SIDES];
    int32_t *seq[VIBE_SIDES], *pos[VIBE_SIDES];
};

/* Random bf16 numbers in place of floats. */
static void fill_bf16(struct vibe_lab *lab, struct vibe_tensor t[VIBE_SIDES])
{
    size_t n = 2 * t->C;
    uint16_t *halves = calloc(n, sizeof(*halves));

    assert(halves);
    for (size_t i = 0; i < n; i++)
        halves[i] = (uint16_t)(0x3E00 + vibe_lab_below(lab, 0x180) +
                               0x8000 * vibe_lab_below(lab, 2));
    for (int side = 0; side < VIBE_SIDES; side++)
        vibe_write(&lab->s[side], t[side].data, halves, n * sizeof(*halves));
    free(halves);
}

/* Random codes in place of floats, and exponents that leave them below 2. */
static void fill_f8(struct vibe_lab *lab, struct cache *c)
{
    const size_t n = 4 * c->data[0].C;
    const size_t part = vibe_kv_head_bytes(&c->kv[0]);
    const size_t codes = part - c->kv[0].block_tokens;
    uint8_t *bytes = calloc(n, 1);

    assert(bytes);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i % part < codes
                                 ? vibe_lab_below(lab, 0x7F) +
                                       0x80 * vibe_lab_below(lab, 2)
                                 : 117 + vibe_lab_below(lab, 3));
    for (int side = 0; side < VIBE_SIDES; side++)
        vibe_write(&lab->s[side], c->data[side].data, bytes, n);
    free(bytes);
}

/* Point the table at blocks in reverse order, and name the rows: sequences
 * backwards too, each one position further than the one before. */
static void place(struct vibe_lab *lab, struct cache *c,
                  const struct attention *a, size_t n_blocks)
{
    void **table = calloc(n_blocks, sizeof(*table));
    int32_t *rows = calloc(2 * a->B, sizeof(*rows));
    void *tables[VIBE_SIDES], *names[VIBE_SIDES];

    assert(table && rows);
    for (size_t b = 0; b < a->B; b++) {
        rows[b] = (int32_t)(a->B - 1 - b);
        rows[a->B + b] = (int32_t)(a->first + b);
    }
    vibe_lab_buffer(lab, tables, table, n_blocks * sizeof(*table));
    vibe_lab_buffer(lab, names, rows, 2 * a->B * sizeof(*rows));
    for (int side = 0; side < VIBE_SIDES; side++) {
        size_t stride = c->data[side].C / n_blocks * sizeof(float);

        for (size_t i = 0; i < n_blocks; i++)
            table[i] = (char *)c->data[side].data + (n_blocks - 1 - i) * stride;
        vibe_write(&lab->s[side], tables[side], table,
                   n_blocks * sizeof(*table));
        c->kv[side].table = tables[side];
        c->seq[side] = names[side];
        c->pos[side] = c->seq[side] + a->B;
    }
    free(table);
    free(rows);
}

/* A cache of two layers, long enough for the last row. */
static void make_cache(struct vibe_lab *lab, struct cache *c,
                       const struct attention *a)
{
    size_t per_seq = (a->first + a->T + a->B + a->block - 1) / a->block;
    for (int side = 0; side < VIBE_SIDES; side++)
        c->kv[side] = (struct vibe_kv){
            .n_seqs = a->B,
            .max_blocks = per_seq,
            .block_tokens = a->block,
            .n_layers = 2,
            .n_kv_heads = a->n_kv,
            .head_dim = a->head_dim,
            .dtype = a->dtype,
        };
    /* four parts of each head, so many words as one has bytes */
    vibe_lab_tensor(lab, c->data, VIBE_FILL_RANDOM, 1, 1,
                    vibe_kv_head_bytes(&c->kv[0]) * a->n_kv * a->B * per_seq);
    if (lab->err.code)
        return;
    if (a->dtype == VIBE_BF16)
        fill_bf16(lab, c->data);
    if (a->dtype == VIBE_F8_E4M3)
        fill_f8(lab, c);
    place(lab, c, a, a->B * per_seq);
}

/* The last rows of a batch do not change when they are alone. */
static void attend_alone(struct vibe_lab *lab, const struct attention *a,
                         struct cache *c, const struct vibe_tensor *y,
                         const struct vibe_tensor *qkv,
                         const struct vibe_rope *rope)
{
    struct vibe_tensor alone[VIBE_SIDES];
    const struct vibe_tensor q_rows = vibe_tensor_batch(qkv, a->B - 1, 1);
    const struct vibe_tensor y_rows = vibe_tensor_batch(y, a->B - 1, 1);
    struct vibe_rows rows = {c->seq[VIBE_TESTED] + a->B - 1,
                             c->pos[VIBE_TESTED] + a->B - 1};

    vibe_lab_tensor(lab, alone, VIBE_FILL_POISON, 1, a->T, y->C);
    if (lab->err.code)
        return;
    vibe_attention(&lab->s[VIBE_TESTED], &alone[VIBE_TESTED], &q_rows,
                   &c->kv[VIBE_TESTED], 1, &rows, rope);
    vibe_lab_same(lab, "attention", &y_rows, &alone[VIBE_TESTED],
                  "row alone of %zux%zu at %zu", a->B, a->T, a->first);
}

/* A product of y has the same bits where y is kept for products, but for narrow
 * rows, which are multiplied in floats. */
static void attend_kept(struct vibe_lab *lab, const struct attention *a,
                        struct cache *c, const struct vibe_tensor *y,
                        const struct vibe_tensor *qkv,
                        const struct vibe_rope *rope)
{
    const struct vibe_lab_matrix spec = {
        .dtype = VIBE_BF16, .N = 20, .K = y->C, .n_parts = 1, .n_scales = 1};
    const struct vibe_rows rows = {c->seq[VIBE_TESTED], c->pos[VIBE_TESTED]};
    struct vibe_stream *s = &lab->s[VIBE_TESTED];
    struct vibe_tensor kept[VIBE_SIDES], of_y[VIBE_SIDES], of_kept[VIBE_SIDES];
    struct vibe_matrix *w[VIBE_SIDES];

    if (y->C % 4 != 0)
        return;
    vibe_lab_tensor(lab, kept, VIBE_FILL_POISON, a->B, a->T, y->C);
    vibe_lab_tensor(lab, of_y, VIBE_FILL_POISON, a->B, a->T, spec.N);
    vibe_lab_tensor(lab, of_kept, VIBE_FILL_POISON, a->B, a->T, spec.N);
    vibe_lab_matrix(lab, w, &spec);
    if (lab->err.code)
        return;
    kept[VIBE_TESTED].is_for_products = 1;
    vibe_attention(s, &kept[VIBE_TESTED], qkv, &c->kv[VIBE_TESTED], 1, &rows,
                   rope);
    vibe_linear(s, &of_y[VIBE_TESTED], y, w[VIBE_TESTED], VIBE_STORE, NULL);
    vibe_linear(s, &of_kept[VIBE_TESTED], &kept[VIBE_TESTED], w[VIBE_TESTED],
                VIBE_STORE, NULL);
    vibe_lab_same(lab, "attention", &of_y[VIBE_TESTED], &of_kept[VIBE_TESTED],
                  "kept, %zux%zu at %zu", a->B, a->T, a->first);
}

/* Turned by nothing a key rounds to the same bf16 or e4m3 on both sides. */
static void make_rope(struct vibe_lab *lab, struct vibe_rope both[VIBE_SIDES],
                      const struct attention *a)
{
    float *inv_freq[VIBE_SIDES], *centre[VIBE_SIDES];

    vibe_lab_floats(lab, inv_freq, a->head_dim / 2);
    vibe_lab_floats(lab, centre, a->n_kv * a->head_dim);
    for (int side = 0; side < VIBE_SIDES; side++) {
        const struct vibe_tensor all = {
            .data = inv_freq[side],
            .dtype = VIBE_F32,
            .B = 1,
            .T = 1,
            .C = a->head_dim / 2,
        };

        if (a->dtype != VIBE_F32)
            vibe_zero(&lab->s[side], &all);
        both[side] = (struct vibe_rope){inv_freq[side], centre[side]};
    }
}

/* Of a mean of values below 1.  With a float cache scores below
 * 81 / 3 * sqrt(head_dim / 3) / 9 are off by sqrt(head_dim) roundings, which
 * moves weights by as much; beside another one q and the weights may be two
 * bf16, which hold 2^-17, of scores below 16. */
static double attention_bound(const struct attention *a)
{
    if (a->dtype != VIBE_F32)
        return 16.0 * 0x1p-17;
    return 0x1p-24 * (16.0 + 16.0 * sqrt((double)a->head_dim));
}

static void run_attention(struct vibe_lab *lab, const struct attention *a)
{
    size_t C = (a->n_heads + 2 * a->n_kv) * a->head_dim;
    struct vibe_tensor qkv[VIBE_SIDES], y[VIBE_SIDES], again[VIBE_SIDES];
    struct vibe_tensor once_more[VIBE_SIDES];
    struct vibe_rope rope[VIBE_SIDES];
    struct cache c;

    vibe_lab_tensor(lab, qkv, VIBE_FILL_RANDOM, a->B, a->T, C);
    vibe_lab_tensor(lab, again, VIBE_FILL_POISON, a->B, a->T, C);
    vibe_lab_tensor(lab, once_more, VIBE_FILL_POISON, a->B, a->T, C);
    vibe_lab_tensor(lab, y, VIBE_FILL_POISON, a->B, a->T,
                    a->n_heads * a->head_dim);
    make_rope(lab, rope, a);
    make_cache(lab, &c, a);
    for (int side = 0; side < VIBE_SIDES && !lab->err.code; side++) {
        struct vibe_tensor q = vibe_tensor_channels(&qkv[side], 0,
                                                    a->n_heads * a->head_dim);
        struct vibe_rows rows = {c.seq[side], c.pos[side]};

        /* scores of deviation 3, so that some positions matter */
        vibe_affine(&lab->s[side], &q, &q, 9.0f, 0.0f);
        vibe_copy(&lab->s[side], &again[side], &qkv[side]);
        vibe_copy(&lab->s[side], &once_more[side], &qkv[side]);
        vibe_attention(&lab->s[side], &y[side], &qkv[side], &c.kv[side], 1,
                       &rows, &rope[side]);
    }
    vibe_lab_compare(lab, "attention", y, attention_bound(a),
                     "%zux%zu at %zu, %zu of %zu x %zu %s", a->B, a->T,
                     a->first, a->n_heads, a->n_kv, a->head_dim,
                     vibe_dtype_name(a->dtype));
    /* a few roundings of numbers below 2 */
    if (a->dtype == VIBE_F32)
        vibe_lab_compare(lab, "attention", c.data, 0x1p-21,
                         "cache of %zux%zu, %zu x %zu", a->B, a->T, a->n_kv,
                         a->head_dim);
    if (!lab->err.code)
        attend_alone(lab, a, &c, &y[VIBE_TESTED], &again[VIBE_TESTED],
                     &rope[VIBE_TESTED]);
    if (!lab->err.code)
        attend_kept(lab, a, &c, &y[VIBE_TESTED], &once_more[VIBE_TESTED],
                    &rope[VIBE_TESTED]);
    vibe_lab_clear(lab);
}

static void attention(struct vibe_lab *lab)
{
    for (size_t i = 0; i < sizeof(contexts) / sizeof(*contexts); i++)
        if (!lab->err.code)
            run_attention(lab, &contexts[i]);
}

/* p, T, T' - T - p, and channels, of a convolution's window. */
static const struct {
    size_t p, T, more, C;
} windows[] = {
    {0, 3, 0, 8}, {6, 1, 0, 33},   {6, 1, 2, 5},  {6, 40, 0, 64},
    {6, 7, 5, 1}, {1, 8, 3, 17},   {8, 2, 1, 16}, {6, 800, 0, 7},
    {6, 6, 0, 4}, {15, 40, 2, 12},
};

static void window(struct vibe_lab *lab)
{
    for (size_t i = 0; i < sizeof(windows) / sizeof(*windows); i++) {
        size_t p = windows[i].p, T = windows[i].T, C = windows[i].C;
        struct vibe_tensor x[VIBE_SIDES], win[VIBE_SIDES];
        struct vibe_tensor state[VIBE_SIDES], past[VIBE_SIDES];

        if (lab->err.code)
            return;
        vibe_lab_tensor(lab, x, VIBE_FILL_RANDOM, 2, T, C);
        vibe_lab_tensor(lab, past, VIBE_FILL_RANDOM, 2, p, C);
        vibe_lab_tensor(lab, state, VIBE_FILL_POISON, 2, p, C);
        vibe_lab_tensor(lab, win, VIBE_FILL_POISON, 2, p + T + windows[i].more,
                        C);
        for (int side = 0; side < VIBE_SIDES; side++)
            vibe_window(&lab->s[side], &win[side], &state[side], &past[side],
                        &x[side]);
        vibe_lab_compare(lab, "window", win, 0.0, "2x%zu behind %zu, %zu", T, p,
                         C);
        vibe_lab_compare(lab, "window", state, 0.0, "state %zu of %zu", p, C);
        vibe_lab_clear(lab);
    }
}

/* T and channels: of every stage of a codec, and ragged. */
static const size_t mixers[][2] = {
    {1, 2048}, {8, 1024}, {40, 512}, {200, 256}, {61, 128}, {70, 64}, {100, 32},
    {1, 1},    {3, 7},    {6, 100},  {5, 33},    {7, 1030}, {9, 300}, {2, 1532},
};

static void make_mixer(struct vibe_lab *lab, struct vibe_mixer both[VIBE_SIDES],
                       size_t C)
{
    float *norm[VIBE_SIDES], *taps[VIBE_SIDES], *bias[VIBE_SIDES];
    float *gamma[VIBE_SIDES], *next[VIBE_SIDES];

    vibe_lab_floats(lab, norm, C);
    vibe_lab_floats(lab, taps, VIBE_MIXER_TAPS * C);
    vibe_lab_floats(lab, bias, C);
    vibe_lab_floats(lab, gamma, C);
    vibe_lab_floats(lab, next, C);
    for (int side = 0; side < VIBE_SIDES; side++)
        both[side] = (struct vibe_mixer){norm[side],  taps[side], bias[side],
                                         gamma[side], next[side], 1e-5f};
}

static void run_mixer(struct vibe_lab *lab, size_t T, size_t C)
{
    const size_t p = VIBE_MIXER_TAPS - 1;
    struct vibe_tensor x[VIBE_SIDES], y[VIBE_SIDES], normed[VIBE_SIDES];
    struct vibe_tensor state[VIBE_SIDES], past[VIBE_SIDES];
    struct vibe_mixer w[VIBE_SIDES];

    vibe_lab_tensor(lab, x, VIBE_FILL_RANDOM, 2, T, C);
    vibe_lab_tensor(lab, past, VIBE_FILL_RANDOM, 2, p, C);
    vibe_lab_tensor(lab, state, VIBE_FILL_POISON, 2, p, C);
    vibe_lab_tensor(lab, y, VIBE_FILL_POISON, 2, T, C);
    vibe_lab_tensor(lab, normed, VIBE_FILL_POISON, 2, T, C);
    make_mixer(lab, w, C);
    for (int side = 0; side < VIBE_SIDES; side++)
        vibe_mixer(&lab->s[side], &y[side], &normed[side], &state[side],
                   &past[side], &x[side], &w[side]);
    /* nine roundings of numbers below 16, and the norm of each column */
    vibe_lab_compare(lab, "mixer", y, 9.0 * 0x1p-20 + 7.0 * norm_bound(C),
                     "2x%zu of %zu", T, C);
    /* a narrow row may be close to 0 and is scaled up */
    if (C >= 32)
        vibe_lab_compare(lab, "mixer", normed,
                         4.0 * (9.0 * 0x1p-20 + 7.0 * norm_bound(C)),
                         "norm of 2x%zu of %zu", T, C);
    vibe_lab_compare(lab, "mixer", state, norm_bound(C), "state of %zu", C);
    vibe_lab_clear(lab);
}

static void mixer(struct vibe_lab *lab)
{
    for (size_t i = 0; i < sizeof(mixers) / sizeof(*mixers); i++)
        if (!lab->err.code)
            run_mixer(lab, mixers[i][0], mixers[i][1]);
}

/* T, C and dtype. */
static const struct {
    size_t T, C;
    enum vibe_dtype dtype;
} blocks[] = {
    {1, 64, VIBE_BF16},   {17, 32, VIBE_BF16},    {40, 64, VIBE_BF16},
    {33, 128, VIBE_BF16}, {20, 32, VIBE_F8_E4M3}, {19, 64, VIBE_F32},
    {21, 36, VIBE_BF16},  {17, 160, VIBE_BF16},
};

static void make_ffn(struct vibe_lab *lab, struct vibe_block both[VIBE_SIDES],
                     size_t C, enum vibe_dtype dtype)
{
    const struct vibe_lab_matrix up = {.dtype = dtype,
                                       .N = 4 * C,
                                       .K = C,
                                       .in = C,
                                       .n_parts = 1,
                                       .n_scales = dtype == VIBE_F8_E4M3,
                                       .has_bias = 1};
    const struct vibe_lab_matrix down = {.dtype = dtype,
                                         .N = C,
                                         .K = 4 * C,
                                         .in = 4 * C,
                                         .n_parts = 1,
                                         .n_scales = dtype == VIBE_F8_E4M3,
                                         .has_bias = 1,
                                         .has_gamma = 1};
    struct vibe_matrix *w1[VIBE_SIDES], *w2[VIBE_SIDES];

    vibe_lab_matrix(lab, w1, &up);
    vibe_lab_matrix(lab, w2, &down);
    for (int side = 0; side < VIBE_SIDES; side++) {
        both[side].up = *w1[side];
        both[side].down = *w2[side];
    }
}

static void run_block(struct vibe_lab *lab, size_t T, size_t C,
                      enum vibe_dtype dtype)
{
    const size_t p = VIBE_MIXER_TAPS - 1;
    struct vibe_tensor x[VIBE_SIDES], y[VIBE_SIDES], normed[VIBE_SIDES];
    struct vibe_tensor hidden[VIBE_SIDES], state[VIBE_SIDES], past[VIBE_SIDES];
    struct vibe_mixer mixer[VIBE_SIDES];
    struct vibe_block w[VIBE_SIDES];
    /* deviations of hidden values, and of sums over them */
    const double size = 0.33 * sqrt((double)C) * 0.67 * sqrt((double)C);

    vibe_lab_tensor(lab, x, VIBE_FILL_RANDOM, 2, T, C);
    vibe_lab_tensor(lab, past, VIBE_FILL_RANDOM, 2, p, C);
    vibe_lab_tensor(lab, state, VIBE_FILL_POISON, 2, p, C);
    vibe_lab_tensor(lab, y, VIBE_FILL_POISON, 2, T, C);
    vibe_lab_tensor(lab, normed, VIBE_FILL_POISON, 2, T, C);
    vibe_lab_tensor(lab, hidden, VIBE_FILL_POISON, 2, T, 4 * C);
    make_mixer(lab, mixer, C);
    make_ffn(lab, w, C, dtype);
    for (int side = 0; side < VIBE_SIDES && !lab->err.code; side++) {
        const struct vibe_block_room room = {&normed[side], &hidden[side]};

        w[side].mixer = mixer[side];
        vibe_block(&lab->s[side], &y[side], &state[side], &past[side], &x[side],
                   &w[side], &room);
    }
    /* of every product 2^-17 is lost, here of all at once twice over */
    vibe_lab_compare(lab, "block", y, 8.0 * size * 0x1p-17, "2x%zu of %zu %s",
                     T, C, vibe_dtype_name(dtype));
    vibe_lab_compare(lab, "block", state, norm_bound(C), "state of %zu", C);
    vibe_lab_clear(lab);
}

static void block(struct vibe_lab *lab)
{
    for (size_t i = 0; i < sizeof(blocks) / sizeof(*blocks); i++)
        if (!lab->err.code)
            run_block(lab, blocks[i].T, blocks[i].C, blocks[i].dtype);
}

static const struct {
    size_t D, C, K;
    enum vibe_dtype dtype;
    int is_first; /* m1 is not there yet */
} solves[] = {
    {1, 64, 1536, VIBE_BF16, 0}, {3, 64, 3584, VIBE_F8_E4M3, 1},
    {2, 9, 100, VIBE_I8, 0},     {2, 5, 37, VIBE_BF16, 1},
    {3, 64, 48, VIBE_F32, 0},
};

static void run_solve(struct vibe_lab *lab, size_t i)
{
    const size_t D = solves[i].D, C = solves[i].C, K = solves[i].K;
    const struct vibe_solver_coef coef = {0.93f, 0.36f, 0.68f, 0.41f,
                                          solves[i].is_first ? 0.0f : -0.09f};
    const struct vibe_lab_matrix spec = {
        .dtype = solves[i].dtype, .N = C, .K = K, .n_parts = 1, .n_scales = 1};
    /* v is a sum of K products of 2 and 5, and three times that, guided */
    const double bound = 30.0 * (0x1p-16 + 4.0 * sqrt((double)K) * 0x1p-24);
    struct vibe_tensor x[VIBE_SIDES], m1[VIBE_SIDES], v[VIBE_SIDES];
    struct vibe_tensor u[VIBE_SIDES], room[VIBE_SIDES];
    struct vibe_tensor shift[VIBE_SIDES], scale[VIBE_SIDES];
    struct vibe_matrix *w[VIBE_SIDES];
    float *cfg_scale[VIBE_SIDES];

    vibe_lab_tensor(lab, x, VIBE_FILL_RANDOM, D, 1, C);
    vibe_lab_tensor(lab, m1,
                    solves[i].is_first ? VIBE_FILL_POISON : VIBE_FILL_RANDOM, D,
                    1, C);
    vibe_lab_tensor(lab, v, VIBE_FILL_POISON, 2, D, C);
    vibe_lab_tensor(lab, u, VIBE_FILL_RANDOM, 2, D, K);
    vibe_lab_tensor(lab, room, VIBE_FILL_POISON, 2, D, K);
    vibe_lab_tensor(lab, shift, VIBE_FILL_RANDOM, 2, D, K);
    vibe_lab_tensor(lab, scale, VIBE_FILL_RANDOM, 2, D, K);
    vibe_lab_floats(lab, cfg_scale, D);
    vibe_lab_matrix(lab, w, &spec);
    for (int side = 0; side < VIBE_SIDES && !lab->err.code; side++) {
        const struct vibe_solver solver = {&x[side], &m1[side], &v[side],
                                           cfg_scale[side]};
        const struct vibe_norm norm = {.eps = 1e-6f,
                                       .shift = &shift[side],
                                       .scale = &scale[side],
                                       .room = &room[side]};

        vibe_solve(&lab->s[side], &solver, &coef, &u[side], &norm, w[side]);
    }
    vibe_lab_compare(lab, "solve", x, bound, "x, %zu of %zu from %zu", D, C, K);
    vibe_lab_compare(lab, "solve", m1, bound, "m1, %zu of %zu", D, C);
    vibe_lab_clear(lab);
}

static void solve(struct vibe_lab *lab)
{
    for (size_t i = 0; i < sizeof(solves) / sizeof(*solves); i++)
        if (!lab->err.code)
            run_solve(lab, i);
}

static void noise(struct vibe_lab *lab)
{
    const struct vibe_noise_key keys[] = {
        {0, 0, 0}, {42, 1, 7}, {~(uint64_t)0, 3, 0xFFFFFFFFu}};
    struct vibe_tensor x[VIBE_SIDES];
    void *both[VIBE_SIDES];

    vibe_lab_tensor(lab, x, VIBE_FILL_POISON, 3, 1, 67);
    vibe_lab_buffer(lab, both, keys, sizeof(keys));
    for (int side = 0; side < VIBE_SIDES; side++)
        vibe_noise(&lab->s[side], &x[side], both[side]);
    vibe_lab_compare(lab, "noise", x, 0.0, "3 of 67");
    vibe_lab_clear(lab);
}

vibe_parity_case *const vibe_parity_rows[] = {
    rmsnorm,   modulate, add_silu, affine_copy_zero,
    attention, window,   mixer,    block,
    solve,     noise,    NULL,
};
