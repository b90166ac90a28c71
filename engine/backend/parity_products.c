/* Parity of vibe_linear and vibe_gemm, and that rows do not mind each other. */
#include <math.h>
#include <stdio.h>

#include "engine/backend/parity_lab.h"
#include "engine/base/size.h"

/* How the rows of x lie. */
enum rows { DENSE, OVERLAP, BROADCAST };

struct product {
    size_t B, T;
    enum vibe_epilogue epilogue;
    enum rows rows;
    struct vibe_lab_matrix w;
};

typedef void product_op(struct vibe_stream *s, const struct vibe_tensor *y,
                        const struct vibe_tensor *x,
                        const struct vibe_matrix *w,
                        enum vibe_epilogue epilogue,
                        const struct vibe_tensor *gate);

/*
 * Rounding errors of K additions in float add up like a random walk: four of
 * its deviations, and a few roundings for the epilogue, in units of 2^-24 and
 * of the size of z.  A backend may split x in two bf16 parts, which keeps 2^-17
 * of each product; those errors are independent, so of z as well.  Beside int4
 * it may keep 2^-15 of the largest of 64 of them, and so errs 32 times as much.
 */
static double bound_of(const struct product *p)
{
    double root = sqrt((double)p->w.K);
    double size = p->w.n_scales ? 2.0 : fmax(root, 2.0);
    double bound = 0x1p-24 * (8.0 + 4.0 * root) +
                   (p->w.dtype == VIBE_I4 ? 0x1p-11 : 0x1p-16);

    /* silu(z) * z' has slope |z| <= 4 sizes in each argument */
    return size * bound * (p->epilogue == VIBE_SWIGLU ? 8.0 : 1.0);
}

static void make_x(struct vibe_lab *lab, struct vibe_tensor x[VIBE_SIDES],
                   const struct product *p)
{
    const enum vibe_fill fill = p->w.dtype == VIBE_I4 ? VIBE_FILL_UNEVEN
                                                      : VIBE_FILL_RANDOM;
    size_t K = p->w.K;
    size_t step = (K + 2) / 3;

    switch (p->rows) {
    case DENSE:
        vibe_lab_tensor(lab, x, fill, p->B, p->T, K);
        return;
    case BROADCAST:
        vibe_lab_tensor(lab, x, fill, 1, p->T, K);
        for (int side = 0; side < VIBE_SIDES; side++)
            x[side] = vibe_tensor_broadcast(&x[side], p->B);
        return;
    case OVERLAP:
        vibe_lab_tensor(lab, x, fill, p->B, p->T + 2, step);
        for (int side = 0; side < VIBE_SIDES; side++) {
            x[side].T = p->T;
            x[side].C = K;
        }
        return;
    }
}

/*
 * The last row alone has the bits it has among others; for a gemm, which may
 * choose its method by T, the rows of the last dialogue.
 */
static void check_alone(struct vibe_lab *lab, product_op *op, const char *name,
                        const struct product *p, const struct vibe_tensor *y,
                        const struct vibe_tensor *x,
                        const struct vibe_matrix *w)
{
    size_t T = op == vibe_gemm ? p->T : 1;
    struct vibe_tensor both[VIBE_SIDES];
    struct vibe_tensor alone, x_rows, y_rows;

    vibe_lab_tensor(lab, both, VIBE_FILL_POISON, 1, T, y->C);
    if (lab->err.code)
        return;
    alone = both[VIBE_TESTED];
    x_rows = vibe_tensor_batch(x, p->B - 1, 1);
    x_rows = vibe_tensor_rows(&x_rows, p->T - T, T);
    y_rows = vibe_tensor_batch(y, p->B - 1, 1);
    y_rows = vibe_tensor_rows(&y_rows, p->T - T, T);

    op(&lab->s[VIBE_TESTED], &alone, &x_rows, w, p->epilogue, NULL);
    vibe_lab_same(lab, name, &y_rows, &alone, "alone, %s K=%zu of %zux%zu",
                  vibe_dtype_name(p->w.dtype), p->w.K, p->B, p->T);
}

static void run_product(struct vibe_lab *lab, const struct product *p,
                        int is_gemm)
{
    product_op *op = is_gemm ? vibe_gemm : vibe_linear;
    const char *name = is_gemm ? "gemm" : "linear";
    int is_adding = p->epilogue == VIBE_ADD || p->epilogue == VIBE_GATE_ADD;
    size_t C = p->w.is_pair ? p->w.N / 2 : p->w.N;
    struct vibe_tensor x[VIBE_SIDES], y[VIBE_SIDES], gate[VIBE_SIDES];
    struct vibe_matrix *w[VIBE_SIDES];

    make_x(lab, x, p);
    vibe_lab_tensor(lab, y, is_adding ? VIBE_FILL_RANDOM : VIBE_FILL_POISON,
                    p->B, p->T, C);
    vibe_lab_tensor(lab, gate, VIBE_FILL_RANDOM, p->B, p->T, C);
    vibe_lab_matrix(lab, w, &p->w);
    for (int side = 0; side < VIBE_SIDES && !lab->err.code; side++)
        op(&lab->s[side], &y[side], &x[side], w[side], p->epilogue,
           p->epilogue == VIBE_GATE_ADD ? &gate[side] : NULL);
    vibe_lab_compare(lab, name, y, bound_of(p),
                     "%s M=%zux%zu N=%zu K=%zu epilogue %d",
                     vibe_dtype_name(p->w.dtype), p->B, p->T, p->w.N, p->w.K,
                     (int)p->epilogue);
    if (!is_adding && !lab->err.code)
        check_alone(lab, op, name, p, &y[VIBE_TESTED], &x[VIBE_TESTED],
                    w[VIBE_TESTED]);
    vibe_lab_clear(lab);
}

/* Sizes about the blocks of every kernel; no scale unless said. */
static const struct product shapes[] = {
    {1, 1, VIBE_STORE, DENSE, {.N = 1, .K = 1}},
    {1, 1, VIBE_STORE, DENSE, {.N = 17, .K = 33, .has_bias = 1}},
    {2, 1, VIBE_STORE, DENSE, {.N = 64, .K = 128, .n_parts = 3, .n_scales = 1}},
    {2, 1, VIBE_ADD, DENSE, {.N = 31, .K = 257, .n_scales = 2}},
    {3, 1, VIBE_ADD, DENSE, {.N = 9, .K = 15, .has_bias = 1, .has_gamma = 1}},
    {4, 1, VIBE_SWIGLU, BROADCAST, {.N = 30, .K = 63, .n_scales = 2}},
    {2, 3, VIBE_SWIGLU, DENSE, {.N = 66, .K = 64, .n_scales = 1}},
    {1, 40, VIBE_SWIGLU, DENSE, {.N = 300, .K = 65, .n_scales = 1}},
    {1, 9, VIBE_SWIGLU, DENSE, {.N = 90, .K = 37, .is_mixed = 1}},
    {4, 1, VIBE_STORE, DENSE, {.N = 70, .K = 40, .n_parts = 3, .is_mixed = 1}},
    {5, 1, VIBE_GATE_ADD, DENSE, {.N = 33, .K = 47, .n_scales = 1}},
    {1, 7, VIBE_GELU, DENSE, {.N = 65, .K = 100, .has_bias = 1}},
    {2, 8, VIBE_STORE, OVERLAP, {.N = 48, .K = 96, .has_bias = 1}},
    {1, 13, VIBE_GELU, OVERLAP, {.N = 5, .K = 7, .has_bias = 1}},
    {2, 5, VIBE_STORE, DENSE, {.N = 20, .K = 1024}},
    {2, 20, VIBE_STORE, DENSE, {.N = 47, .K = 513, .n_parts = 3}},
    {1, 37, VIBE_ADD, DENSE, {.N = 130, .K = 300, .has_gamma = 1}},
    {3, 65, VIBE_STORE, DENSE, {.N = 33, .K = 1031}},
    /* K in uneven slices, more outputs than fit a GPU at once */
    {3, 1, VIBE_STORE, DENSE, {.N = 2001, .K = 2104, .has_bias = 1}},
    {1, 1, VIBE_STORE, DENSE, {.N = 33001, .K = 40, .n_scales = 2}},
    {3, 1, VIBE_SWIGLU, DENSE, {.N = 18002, .K = 56, .n_scales = 2}},
    {12, 1, VIBE_STORE, DENSE, {.N = 37, .K = 776}},
    {2, 70, VIBE_STORE, OVERLAP, {.N = 97, .K = 1080, .has_bias = 1}},
    {1, 521, VIBE_GELU, DENSE, {.N = 2181, .K = 17, .n_scales = 1}},
    {1, 530, VIBE_STORE, DENSE, {.N = 140, .K = 270}},
    {2, 300, VIBE_STORE, OVERLAP, {.N = 70, .K = 96, .has_bias = 1}},
    {2, 41, VIBE_STORE, OVERLAP, {.N = 33, .K = 7, .has_bias = 1}},
    /* K of one tile */
    {4, 1, VIBE_GATE_ADD, BROADCAST, {.N = 50, .K = 64, .n_scales = 1}},
    {17, 1, VIBE_ADD, DENSE, {.N = 75, .K = 64, .has_bias = 1, .has_gamma = 1}},
    {33, 1, VIBE_STORE, BROADCAST, {.N = 75, .K = 64, .n_scales = 1}},
};

/* Make case i one of a dtype: of int4 in whole groups, of either size, of bytes
 * now and then in whole tiles. */
static void suit(struct vibe_lab_matrix *w, enum vibe_dtype dtype, size_t i)
{
    const int is_byte = dtype == VIBE_F8_E4M3 || dtype == VIBE_I8;

    w->dtype = dtype;
    w->is_wild = dtype == VIBE_BF16_PACKED && i % 4;
    if (dtype == VIBE_I4)
        w->K = vibe_size_round(w->K, 64);
    if (is_byte && i % 3)
        vibe_lab_whole(w);
}

static void every_product(struct vibe_lab *lab, int is_gemm)
{
    static const enum vibe_dtype dtypes[] = {
        VIBE_F32, VIBE_BF16, VIBE_F16,         VIBE_F8_E4M3,
        VIBE_I8,  VIBE_I4,   VIBE_BF16_PACKED,
    };

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        for (size_t d = 0; d < sizeof(dtypes) / sizeof(*dtypes); d++) {
            struct product p = shapes[i];

            if (dtypes[d] > VIBE_F8_E4M3 && (i % 2 || p.w.N * p.w.K > 1 << 20))
                continue; /* variants of kernels that the others test */
            suit(&p.w, dtypes[d], i);
            p.w.is_pair = p.epilogue == VIBE_SWIGLU;
            if (!p.w.n_parts)
                p.w.n_parts = p.w.is_pair ? 2 : 1;
            if (!lab->err.code)
                run_product(lab, &p, is_gemm);
        }
    }
}

/*
 * Few rows and so many outputs that the blocks of a GPU take turns at them, by
 * one, two or three tiles; more warps than tiles, and so many tiles for each
 * that x of some is made while others are multiplied.
 */
static void many_turns(struct vibe_lab *lab)
{
    static const enum vibe_dtype dtypes[] = {
        VIBE_BF16_PACKED, VIBE_F8_E4M3, VIBE_I8, VIBE_I4, VIBE_I4, VIBE_BF16};
    static const struct vibe_lab_matrix sizes[] = {
        {.N = 18000, .K = 128}, {.N = 13000, .K = 640}, {.N = 3200, .K = 2112},
        {.N = 300, .K = 12352}, {.N = 4300, .K = 4224},
    };
    const size_t n_dtypes = sizeof(dtypes) / sizeof(*dtypes);

    for (size_t i = 0; i < n_dtypes * sizeof(sizes) / sizeof(*sizes); i++) {
        const size_t d = i % n_dtypes;
        struct product p = {
            .B = d % 3 == 0 ? 2 : 3, /* int4 with both */
            .T = 1,
            .epilogue = i / n_dtypes % 2 ? VIBE_SWIGLU : VIBE_STORE,
            .w = sizes[i / n_dtypes],
        };

        suit(&p.w, dtypes[d], i);
        p.w.n_scales = 2;
        p.w.is_pair = p.epilogue == VIBE_SWIGLU;
        p.w.n_parts = p.w.is_pair ? 2 : 1;
        if (!lab->err.code)
            run_product(lab, &p, 0);
    }
}

static void linear(struct vibe_lab *lab)
{
    every_product(lab, 0);
    if (lab->be[VIBE_TESTED]->is_cuda)
        many_turns(lab);
}

/* Every number of rows that shares one reading of the weights, and one more;
 * every epilogue; some K of one step, some of many. */
static void every_row_count(struct vibe_lab *lab)
{
    static const enum vibe_dtype dtypes[] = {VIBE_BF16, VIBE_I4, VIBE_F8_E4M3,
                                             VIBE_BF16_PACKED};
    static const size_t widths[] = {72, 524, 4664, 4, 1984};
    const size_t n_widths = sizeof(widths) / sizeof(*widths);

    for (size_t i = 2; i <= 67 && !lab->err.code; i++) {
        const size_t M = i / 2;
        const enum vibe_epilogue epilogue = (enum vibe_epilogue)(M % 5);
        const enum vibe_dtype dtype = dtypes[M / 2 % 2 * 2 + i % 2];
        const size_t K = widths[M % n_widths];
        const int is_pair = epilogue == VIBE_SWIGLU;
        struct product p = {
            .B = M % 3 == 0 ? 3 : 1,
            .T = M % 3 == 0 ? M / 3 : M,
            .epilogue = epilogue,
            .w = {.dtype = dtype,
                  .N = is_pair ? 2 * M + 30 : M + 13,
                  .K = dtype == VIBE_I4 ? vibe_size_round(K, 64) : K,
                  .n_parts = is_pair ? 2 : 1,
                  .is_pair = is_pair,
                  .n_scales = (int)(M % 3),
                  .has_bias = M % 2 == 0,
                  .has_gamma = epilogue == VIBE_ADD},
        };

        if (dtype == VIBE_F8_E4M3 && M % 8)
            vibe_lab_whole(&p.w);
        run_product(lab, &p, 0);
    }
}

/* Packed bf16 gives the bits of bf16, by whatever kernels. */
static void run_packed(struct vibe_lab *lab, const struct product *p)
{
    product_op *op = p->T > 1 ? vibe_gemm : vibe_linear;
    const size_t C = p->w.is_pair ? p->w.N / 2 : p->w.N;
    struct vibe_lab_matrix packed = p->w;
    struct vibe_tensor x[VIBE_SIDES], y[2][VIBE_SIDES];
    struct vibe_matrix *w[2][VIBE_SIDES];
    uint64_t random;

    vibe_lab_tensor(lab, x, VIBE_FILL_RANDOM, p->B, p->T, p->w.K);
    random = lab->random;
    for (int i = 0; i < 2; i++) {
        lab->random = random; /* the same to add to */
        vibe_lab_tensor(lab, y[i],
                        p->epilogue == VIBE_ADD ? VIBE_FILL_RANDOM
                                                : VIBE_FILL_POISON,
                        p->B, p->T, C);
    }
    random = lab->random;
    vibe_lab_matrix(lab, w[0], &p->w);
    lab->random = random; /* the same weights once more */
    packed.dtype = VIBE_BF16_PACKED;
    vibe_lab_matrix(lab, w[1], &packed);
    for (int i = 0; i < 2 && !lab->err.code; i++)
        op(&lab->s[VIBE_TESTED], &y[i][VIBE_TESTED], &x[VIBE_TESTED],
           w[i][VIBE_TESTED], p->epilogue, NULL);
    vibe_lab_same(lab, p->T > 1 ? "gemm" : "linear", &y[0][VIBE_TESTED],
                  &y[1][VIBE_TESTED], "packed as bf16, M=%zux%zu N=%zu K=%zu",
                  p->B, p->T, p->w.N, p->w.K);
    vibe_lab_clear(lab);
}

static void packed(struct vibe_lab *lab)
{
    static const struct product cases[] = {
        {2, 1, VIBE_STORE, DENSE, {.N = 257, .K = 1536, .n_parts = 1}},
        {3, 1, VIBE_STORE, DENSE, {.N = 75, .K = 64, .n_parts = 1}},
        {19, 1, VIBE_STORE, DENSE, {.N = 75, .K = 64, .n_parts = 1}},
        {4, 1, VIBE_SWIGLU, DENSE, {.N = 320, .K = 520, .n_parts = 2}},
        {11, 1, VIBE_STORE, DENSE, {.N = 90, .K = 4500, .n_parts = 3}},
        {1, 40, VIBE_STORE, DENSE, {.N = 90, .K = 640, .n_parts = 1}},
        {1, 140, VIBE_SWIGLU, DENSE, {.N = 1024, .K = 1100, .n_parts = 2}},
        {2, 10, VIBE_STORE, DENSE, {.N = 4200, .K = 2000, .n_parts = 1}},
    };
    const size_t n = 2 * sizeof(cases) / sizeof(*cases);

    /* the last one is for more weights than a codec has, on a GPU */
    for (size_t i = 0; i < (lab->be[VIBE_TESTED]->is_cuda ? n : n - 2); i++) {
        struct product p = cases[i / 2];

        p.w.dtype = VIBE_BF16;
        p.w.is_pair = p.epilogue == VIBE_SWIGLU;
        p.w.is_wild = i % 2 != 0;
        if (!lab->err.code)
            run_packed(lab, &p);
    }
}

/* As rows of prompts come to a library that rounds them: the same products of
 * both, in pieces or whole. */
static void packed_rounded(struct vibe_lab *lab)
{
    static const struct product cases[] = {
        {1, 65, VIBE_STORE, DENSE, {.N = 1040, .K = 1024, .n_parts = 1}},
        {1, 129, VIBE_SWIGLU, DENSE, {.N = 1032, .K = 1032, .n_parts = 2}},
        {2, 130, VIBE_STORE, DENSE, {.N = 530, .K = 2056, .n_parts = 3}},
        {1, 130, VIBE_ADD, DENSE, {.N = 1044, .K = 1032, .n_parts = 1}},
        {1, 128, VIBE_ADD, DENSE, {.N = 4100, .K = 9216, .n_parts = 1}},
    };
    const size_t n = sizeof(cases) / sizeof(*cases);

    /* the last one is more than a GPU expands at once */
    for (size_t i = 0; i < (lab->be[VIBE_TESTED]->is_cuda ? n : n - 1); i++) {
        struct product p = cases[i];

        p.w.dtype = VIBE_BF16;
        p.w.has_bias = p.epilogue != VIBE_ADD;
        p.w.is_pair = p.epilogue == VIBE_SWIGLU;
        if (!lab->err.code)
            run_packed(lab, &p);
    }
}

/* With many columns of a codec: slices of one unit, of several, and uneven
 * ones; K that teams of warps share, at once or by turns, and blocks; outputs
 * of every tile, even by 16 bytes and not. */
static const struct product columns[] = {
    {24, 26, VIBE_GELU, DENSE, {.N = 1101, .K = 324, .has_bias = 1}},
    {40, 16, VIBE_ADD, DENSE, {.N = 570, .K = 2120, .has_gamma = 1}},
    {13, 56, VIBE_STORE, DENSE, {.N = 450, .K = 160, .has_bias = 1}},
    {24, 26, VIBE_GELU, DENSE, {.N = 450, .K = 1100, .has_bias = 1}},
    {13, 56, VIBE_STORE, DENSE, {.N = 301, .K = 2600, .has_bias = 1}},
    {24, 26, VIBE_GELU, DENSE, {.N = 1860, .K = 324, .has_bias = 1}},
    {40, 16, VIBE_ADD, DENSE, {.N = 700, .K = 480, .has_gamma = 1}},
    {40, 16, VIBE_ADD, DENSE, {.N = 1204, .K = 1100, .has_gamma = 1}},
    {13, 56, VIBE_STORE, DENSE, {.N = 1301, .K = 544, .has_bias = 1}},
};

/* With the rows of some steps of each dialogue: every number of them that is
 * multiplied at once, more than that, and more weights than a codec has. */
static const struct product steps[] = {
    {1, 36, VIBE_ADD, DENSE, {.N = 2101, .K = 4100}},
    {3, 17, VIBE_STORE, DENSE, {.N = 4201, .K = 2004}},
    {5, 15, VIBE_GATE_ADD, DENSE, {.N = 12000, .K = 712}},
    {6,
     14,
     VIBE_SWIGLU,
     DENSE,
     {.N = 4178, .K = 2016, .is_pair = 1, .n_scales = 2}},
    {8, 21, VIBE_STORE, DENSE, {.N = 2100, .K = 4000, .n_scales = 2}},
};

static void gemm(struct vibe_lab *lab)
{
    every_product(lab, 1);
    if (!lab->be[VIBE_TESTED]->is_cuda)
        return;
    for (size_t i = 0; i < sizeof(columns) / sizeof(*columns); i++) {
        struct product p = columns[i];

        p.w.dtype = VIBE_BF16;
        p.w.n_parts = 1;
        if (!lab->err.code)
            run_product(lab, &p, 1);
    }
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        struct product p = steps[i];

        p.w.dtype = VIBE_BF16;
        p.w.n_parts = p.w.is_pair ? 2 : 1;
        if (!lab->err.code)
            run_product(lab, &p, 1);
    }
}

static void run_normed(struct vibe_lab *lab, const struct product *p)
{
    const size_t K = p->w.K;
    const size_t C = p->w.is_pair ? p->w.N / 2 : p->w.N;
    struct vibe_tensor x[VIBE_SIDES], y[VIBE_SIDES], room[VIBE_SIDES];
    struct vibe_tensor both[VIBE_SIDES];
    struct vibe_matrix *w[VIBE_SIDES];
    float *norm_w[VIBE_SIDES];

    vibe_lab_tensor(lab, x, VIBE_FILL_RANDOM, p->B, p->T, K);
    vibe_lab_tensor(lab, room, VIBE_FILL_POISON, p->B, p->T, K);
    vibe_lab_tensor(lab, both, VIBE_FILL_RANDOM, p->B, p->T, 2 * K);
    vibe_lab_tensor(lab, y, VIBE_FILL_POISON, p->B, p->T, C);
    vibe_lab_floats(lab, norm_w, K);
    vibe_lab_matrix(lab, w, &p->w);
    for (int side = 0; side < VIBE_SIDES && !lab->err.code; side++) {
        const struct vibe_tensor shift = vibe_tensor_channels(&both[side], 0,
                                                              K);
        const struct vibe_tensor scale = vibe_tensor_channels(&both[side], K,
                                                              K);
        const int is_modulated = p->epilogue == VIBE_SWIGLU;
        const struct vibe_norm norm = {
            .w = norm_w[side],
            .eps = 1e-6f,
            .shift = is_modulated ? &shift : NULL,
            .scale = is_modulated ? &scale : NULL,
            .room = &room[side],
        };

        vibe_linear_norm(&lab->s[side], &y[side], &x[side], &norm, w[side],
                         p->epilogue, NULL);
    }
    /* a normed row is up to 2 times as large as x, modulated 5 times, and the
     * norm's own rounding comes on top */
    vibe_lab_compare(lab, "linear_norm", y, 8.0 * bound_of(p),
                     "%s M=%zux%zu N=%zu K=%zu epilogue %d",
                     vibe_dtype_name(p->w.dtype), p->B, p->T, p->w.N, K,
                     (int)p->epilogue);
    vibe_lab_clear(lab);
}

static void linear_norm(struct vibe_lab *lab)
{
    static const struct product cases[] = {
        {.B = 2,
         .T = 1,
         .w = {.dtype = VIBE_BF16, .N = 33, .K = 64, .n_parts = 1}},
        {.B = 2,
         .T = 1,
         .w = {.dtype = VIBE_BF16, .N = 100, .K = 1536, .n_parts = 1}},
        {.B = 2,
         .T = 2,
         .w = {.dtype = VIBE_F8_E4M3,
               .N = 48,
               .K = 3584,
               .n_parts = 1,
               .n_scales = 2}},
        {.B = 1,
         .T = 20,
         .w = {.dtype = VIBE_BF16, .N = 17, .K = 250, .n_parts = 1}},
        {.B = 2,
         .T = 1,
         .epilogue = VIBE_SWIGLU,
         .w = {.dtype = VIBE_BF16,
               .N = 70,
               .K = 1536,
               .n_parts = 2,
               .is_pair = 1,
               .n_scales = 2}},
        {.B = 2,
         .T = 5,
         .epilogue = VIBE_SWIGLU,
         .w = {.dtype = VIBE_F32,
               .N = 34,
               .K = 48,
               .n_parts = 2,
               .is_pair = 1,
               .n_scales = 2}},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        if (!lab->err.code)
            run_normed(lab, &cases[i]);
}

/* Layouts of the file: the reference repacks them by the same code on the CPU,
 * which tests/engine/backend/cpu/test_matrix.c holds to the definition. */
static void convolution(struct vibe_lab *lab)
{
    static const struct product cases[] = {
        {2,
         5,
         VIBE_STORE,
         DENSE,
         {VIBE_BF16, VIBE_LAYOUT_CONV, .N = 19, .K = 35, .in = 5, .n_parts = 1,
          .has_bias = 1}},
        {1,
         9,
         VIBE_GELU,
         OVERLAP,
         {VIBE_F32, VIBE_LAYOUT_CONV, .N = 1, .K = 224, .in = 32, .n_parts = 1,
          .has_bias = 1}},
        {1,
         3,
         VIBE_STORE,
         DENSE,
         {VIBE_F8_E4M3, VIBE_LAYOUT_CONV, .N = 32, .K = 64, .in = 16,
          .n_parts = 1, .n_scales = 2}},
        {2,
         4,
         VIBE_STORE,
         OVERLAP,
         {VIBE_BF16, VIBE_LAYOUT_CONV_TRANSPOSE, .N = 35, .K = 26, .in = 13,
          .out = 7, .n_parts = 1, .has_bias = 1}},
        {1,
         6,
         VIBE_STORE,
         DENSE,
         {VIBE_F16, VIBE_LAYOUT_CONV_TRANSPOSE, .N = 16, .K = 16, .in = 8,
          .out = 8, .n_parts = 1, .has_bias = 1, .n_scales = 1}},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        if (!lab->err.code)
            run_product(lab, &cases[i], 1);
}

vibe_parity_case *const vibe_parity_products[] = {
    linear, every_row_count, packed, linear_norm, gemm, convolution, NULL,
};
vibe_parity_case *const vibe_parity_packed_rounded[] = {packed_rounded, NULL};
