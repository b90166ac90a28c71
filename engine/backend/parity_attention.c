/* Parity of attention. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "engine/backend/parity_lab.h"

struct attention {
    size_t B, T, n_heads, n_kv, head_dim, block, first; /* position of row 0 */
    enum vibe_dtype dtype;
};

/* Ragged ones, then those of the models, whose heads have kernels of their
 * own: one part and many, more of them than blocks that run at once, past a
 * block and past 16,384 positions, and more rows than a warp has lanes. */
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
    {9, 1, 4, 2, 128, 64, 1100, VIBE_BF16},
    {40, 1, 2, 1, 64, 64, 540, VIBE_BF16},
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
    {4, 1, 28, 4, 128, 64, 700, VIBE_F8_E4M3},
    {18, 1, 10, 2, 128, 64, 500, VIBE_F8_E4M3},
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

/* A product of y with weights of a dtype has the same bits where y is kept in
 * the form that they want, but for narrow rows and for bytes of no whole tiles,
 * which are multiplied in floats. */
static void attend_kept(struct vibe_lab *lab, const struct attention *a,
                        struct cache *c, const struct vibe_tensor *y,
                        const struct vibe_tensor *qkv,
                        const struct vibe_rope *rope, enum vibe_dtype dtype)
{
    const struct vibe_lab_matrix spec = {
        .dtype = dtype,
        .N = 48,
        .K = y->C,
        .n_parts = 1,
        .n_scales = 1,
    };
    const struct vibe_rows rows = {c->seq[VIBE_TESTED], c->pos[VIBE_TESTED]};
    struct vibe_stream *s = &lab->s[VIBE_TESTED];
    struct vibe_tensor kept[VIBE_SIDES], of_y[VIBE_SIDES], of_kept[VIBE_SIDES];
    struct vibe_tensor row[VIBE_SIDES]; /* attention leaves it undefined */
    struct vibe_matrix *w[VIBE_SIDES];

    if (y->C % 4 != 0)
        return;
    vibe_lab_tensor(lab, row, VIBE_FILL_POISON, a->B, a->T, qkv->C);
    vibe_lab_tensor(lab, kept, VIBE_FILL_POISON, a->B, a->T, y->C);
    vibe_lab_tensor(lab, of_y, VIBE_FILL_POISON, a->B, a->T, spec.N);
    vibe_lab_tensor(lab, of_kept, VIBE_FILL_POISON, a->B, a->T, spec.N);
    vibe_lab_matrix(lab, w, &spec);
    if (lab->err.code)
        return;
    kept[VIBE_TESTED].form = vibe_form_for(
        s->be, &kept[VIBE_TESTED], w[VIBE_TESTED],
        vibe_attention_forms(s->be, &kept[VIBE_TESTED], qkv,
                             &c->kv[VIBE_TESTED]));
    vibe_copy(s, &row[VIBE_TESTED], qkv);
    vibe_attention(s, &kept[VIBE_TESTED], &row[VIBE_TESTED],
                   &c->kv[VIBE_TESTED], 1, &rows, rope);
    vibe_linear(s, &of_y[VIBE_TESTED], y, w[VIBE_TESTED], VIBE_STORE, NULL);
    vibe_linear(s, &of_kept[VIBE_TESTED], &kept[VIBE_TESTED], w[VIBE_TESTED],
                VIBE_STORE, NULL);
    vibe_lab_same(lab, "attention", &of_y[VIBE_TESTED], &of_kept[VIBE_TESTED],
                  "kept for %s, %zux%zu at %zu", vibe_dtype_name(dtype), a->B,
                  a->T, a->first);
}

/* In parts, and where it is whole tiles woven and in digits. */
static void attend_for_products(struct vibe_lab *lab, const struct attention *a,
                                struct cache *c, const struct vibe_tensor *y,
                                const struct vibe_tensor *qkv,
                                const struct vibe_rope *rope)
{
    const enum vibe_dtype dtypes[] = {VIBE_BF16, VIBE_F8_E4M3, VIBE_I4};
    const size_t n = y->C % 64 == 0 ? sizeof(dtypes) / sizeof(*dtypes) : 1;

    for (size_t i = 0; i < n && !lab->err.code; i++)
        attend_kept(lab, a, c, y, qkv, rope, dtypes[i]);
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
        attend_for_products(lab, a, &c, &y[VIBE_TESTED],
                            &once_more[VIBE_TESTED], &rope[VIBE_TESTED]);
    vibe_lab_clear(lab);
}

static void attention(struct vibe_lab *lab)
{
    for (size_t i = 0; i < sizeof(contexts) / sizeof(*contexts); i++)
        if (!lab->err.code)
            run_attention(lab, &contexts[i]);
}

vibe_parity_case *const vibe_parity_attention[] = {attention, NULL};
