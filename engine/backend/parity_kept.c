/* Parity of tensors that only products read: whoever writes them, a product has
 * the bits that it has of others. */
#include "engine/backend/parity_lab.h"

enum writer { NORM, MODULATE, ADD_SILU, COPY, STORE, GELU, SWIGLU };

struct kept {
    enum writer writer;
    int is_gemm;
    size_t B, T, N, K; /* of the product */
    enum vibe_dtype dtype;
};

/* What writers read. */
struct inputs {
    struct vibe_tensor x[VIBE_SIDES], shift[VIBE_SIDES], scale[VIBE_SIDES];
    struct vibe_matrix *w[VIBE_SIDES]; /* of those that are products */
    float *norm[VIBE_SIDES];
};

static int is_product(enum writer writer)
{
    return writer == STORE || writer == GELU || writer == SWIGLU;
}

static void make_inputs(struct vibe_lab *lab, struct inputs *in,
                        const struct kept *p)
{
    const enum vibe_fill fill = p->dtype == VIBE_I4 ? VIBE_FILL_UNEVEN
                                                    : VIBE_FILL_RANDOM;
    const size_t K = is_product(p->writer) ? 72 : p->K;
    const int n = p->writer == SWIGLU ? 2 : 1;
    const struct vibe_lab_matrix w = {
        .dtype = p->dtype,
        .N = (size_t)n * p->K,
        .K = K,
        .n_parts = n,
        .is_pair = n - 1,
        .n_scales = 1,
    };

    vibe_lab_tensor(lab, in->x, fill, p->B, p->T, K);
    vibe_lab_tensor(lab, in->shift, VIBE_FILL_RANDOM, p->B, p->T, K);
    vibe_lab_tensor(lab, in->scale, VIBE_FILL_RANDOM, p->B, p->T, K);
    vibe_lab_floats(lab, in->norm, K);
    if (is_product(p->writer))
        vibe_lab_matrix(lab, in->w, &w);
}

static void multiply(struct vibe_stream *s, const struct kept *p,
                     const struct vibe_tensor *y, const struct vibe_tensor *x,
                     const struct vibe_matrix *w, enum vibe_epilogue epilogue)
{
    if (p->is_gemm)
        vibe_gemm(s, y, x, w, epilogue, NULL);
    else
        vibe_linear(s, y, x, w, epilogue, NULL);
}

static void write(struct vibe_stream *s, const struct vibe_tensor *y,
                  const struct kept *p, const struct inputs *in,
                  enum vibe_side side)
{
    const struct vibe_tensor *x = &in->x[side];

    switch (p->writer) {
    case NORM:
        vibe_rmsnorm(s, y, x, in->norm[side], 1e-6f);
        return;
    case MODULATE:
        vibe_modulate(s, y, x, in->norm[side], 1e-6f, &in->shift[side],
                      &in->scale[side]);
        return;
    case ADD_SILU:
        vibe_add_silu(s, y, x, &in->shift[side]);
        return;
    case COPY:
        vibe_copy(s, y, x);
        return;
    case STORE:
        multiply(s, p, y, x, in->w[side], VIBE_STORE);
        return;
    case GELU:
        multiply(s, p, y, x, in->w[side], VIBE_GELU);
        return;
    case SWIGLU:
        multiply(s, p, y, x, in->w[side], VIBE_SWIGLU);
        return;
    }
}

/* Forms besides the usual ones that a writer can leave y in. */
static unsigned forms_of(const struct vibe_backend *be, enum writer writer,
                         const struct vibe_tensor *y)
{
    switch (writer) {
    case NORM:
    case MODULATE:
        return vibe_norm_forms(be, y);
    case ADD_SILU:
        return 1u << VIBE_FORM_WOVEN;
    case COPY:
        return VIBE_ALL_FORMS;
    case STORE:
    case GELU:
    case SWIGLU:
        return 0;
    }
    return 0;
}

/* Products in float arithmetic take all of a float: of what is kept they get
 * 2^-17 less, and compare with the reference only.  Few rows with bytes that
 * are not in whole tiles are such, too; there are none here. */
static int is_same(const struct kept *p)
{
    const int is_float = p->dtype == VIBE_F32 || p->dtype == VIBE_F16;
    const int is_small = p->is_gemm && ((p->T > 4 && p->T <= 16) || p->N <= 4);

    return !is_float && !is_small;
}

static void run_kept(struct vibe_lab *lab, const struct kept *p)
{
    const struct vibe_lab_matrix spec = {
        .dtype = p->dtype, .N = p->N, .K = p->K, .n_parts = 1, .n_scales = 1};
    struct vibe_tensor plain[VIBE_SIDES], kept[VIBE_SIDES];
    struct vibe_tensor y[VIBE_SIDES], z[VIBE_SIDES], copy[VIBE_SIDES];
    struct vibe_matrix *w[VIBE_SIDES];
    struct inputs in;

    make_inputs(lab, &in, p);
    vibe_lab_tensor(lab, plain, VIBE_FILL_POISON, p->B, p->T, p->K);
    vibe_lab_tensor(lab, kept, VIBE_FILL_POISON, p->B, p->T, p->K);
    vibe_lab_tensor(lab, y, VIBE_FILL_POISON, p->B, p->T, p->N);
    vibe_lab_tensor(lab, z, VIBE_FILL_POISON, p->B, p->T, p->N);
    vibe_lab_tensor(lab, copy, VIBE_FILL_POISON, p->B, p->T, p->K);
    vibe_lab_matrix(lab, w, &spec);
    for (int side = 0; side < VIBE_SIDES && !lab->err.code; side++) {
        struct vibe_stream *s = &lab->s[side];

        kept[side].form = vibe_form_for(
            s->be, &kept[side], w[side],
            forms_of(s->be, p->writer, &kept[side]));
        write(s, &plain[side], p, &in, (enum vibe_side)side);
        write(s, &kept[side], p, &in, (enum vibe_side)side);
        multiply(s, p, &y[side], &plain[side], w[side], VIBE_STORE);
        multiply(s, p, &z[side], &kept[side], w[side], VIBE_STORE);
        vibe_copy(s, &copy[side], &kept[side]);
    }
    if (is_same(p) && !lab->err.code)
        vibe_lab_same(lab, "kept", &y[VIBE_TESTED], &z[VIBE_TESTED],
                      "%s M=%zux%zu K=%zu writer %d", vibe_dtype_name(p->dtype),
                      p->B, p->T, p->K, (int)p->writer);
    else
        /* sums are of size 2 and lose 2^-17 of each product; the writer's
         * roundings come on top */
        vibe_lab_compare(
            lab, "kept", z, 8.0 * 0x1p-16, "%s M=%zux%zu K=%zu writer %d",
            vibe_dtype_name(p->dtype), p->B, p->T, p->K, (int)p->writer);
    /* of numbers below 128, and what the writer rounds */
    vibe_lab_compare(lab, "kept", copy, 128 * 0x1p-17,
                     "copy M=%zux%zu K=%zu writer %d", p->B, p->T, p->K,
                     (int)p->writer);
    vibe_lab_clear(lab);
}

static void run_all(struct vibe_lab *lab, const struct kept *p, size_t n)
{
    for (size_t i = 0; i < n && !lab->err.code; i++)
        run_kept(lab, &p[i]);
}

/* Each writer, and each kernel that reads. */
static void kept(struct vibe_lab *lab)
{
    static const struct kept cases[] = {
        {NORM, 0, 2, 1, 40, 1536, VIBE_BF16},
        {NORM, 0, 1, 1, 48, 1088, VIBE_F8_E4M3},
        {NORM, 0, 3, 1, 32, 320, VIBE_I8},
        {NORM, 0, 13, 1, 37, 300, VIBE_BF16},
        {NORM, 0, 1, 3, 20, 515, VIBE_F32},
        {NORM, 0, 2, 1, 48, 3584, VIBE_F8_E4M3},
        {COPY, 0, 3, 1, 80, 576, VIBE_F8_E4M3},
        {ADD_SILU, 0, 2, 2, 64, 4672, VIBE_I8},
        {NORM, 0, 20, 1, 48, 1536, VIBE_F8_E4M3},
        {NORM, 0, 4, 17, 656, 576, VIBE_I8},
        {ADD_SILU, 1, 3, 10, 80, 1536, VIBE_F8_E4M3},
        {COPY, 0, 17, 1, 48, 576, VIBE_F8_E4M3},
        {MODULATE, 0, 32, 1, 208, 4672, VIBE_F8_E4M3},
        {NORM, 1, 1, 12, 40, 520, VIBE_BF16},
        {NORM, 1, 2, 20, 40, 520, VIBE_BF16},
        {NORM, 1, 1, 21, 17, 129, VIBE_F8_E4M3},
        {NORM, 1, 1, 17, 3, 260, VIBE_BF16},
        {NORM, 1, 1, 19, 70, 130, VIBE_F32},
        {MODULATE, 0, 2, 1, 40, 3584, VIBE_BF16},
        {MODULATE, 0, 2, 2, 30, 9000, VIBE_BF16},
        {ADD_SILU, 0, 2, 5, 40, 260, VIBE_BF16},
        {COPY, 0, 2, 1, 40, 264, VIBE_BF16},
        {STORE, 0, 2, 1, 18, 264, VIBE_BF16},
        {STORE, 1, 1, 30, 18, 264, VIBE_BF16},
        {GELU, 0, 11, 1, 32, 320, VIBE_F8_E4M3},
        {SWIGLU, 0, 2, 1, 32, 320, VIBE_F8_E4M3},
        {SWIGLU, 0, 10, 1, 18, 264, VIBE_BF16},
        {SWIGLU, 0, 2, 1, 18, 264, VIBE_F32},
        {SWIGLU, 1, 1, 40, 18, 264, VIBE_BF16},
        {NORM, 0, 1, 1, 40, 3584, VIBE_I4},
        {NORM, 0, 2, 1, 4608, 3584, VIBE_I4},
        {NORM, 1, 1, 3, 2048, 1536, VIBE_I4},
        {MODULATE, 0, 2, 2, 48, 3584, VIBE_I4},
        {NORM, 0, 3, 1, 33, 320, VIBE_I4},
        {NORM, 0, 2, 1, 40, 2112, VIBE_I4},
        {NORM, 0, 2, 1, 40, 4672, VIBE_I4},
        {NORM, 0, 5, 1, 40, 1536, VIBE_I4},
        {COPY, 0, 1, 1, 40, 576, VIBE_I4},
        {COPY, 0, 2, 1, 3584, 18944, VIBE_I4},
        {COPY, 0, 3, 1, 80, 8960, VIBE_I4},
        {COPY, 0, 4, 1, 80, 4160, VIBE_I4},
        {ADD_SILU, 0, 2, 1, 80, 1536, VIBE_I4},
    };

    run_all(lab, cases, sizeof(cases) / sizeof(*cases));
}

/* A product whose x is woven writes what the next one reads. */
static void run_woven(struct vibe_lab *lab, size_t n_rows)
{
    enum { C = 576, N = 48 };
    const struct vibe_lab_matrix of_pair = {.dtype = VIBE_F8_E4M3,
                                            .N = (size_t)2 * C,
                                            .K = C,
                                            .n_parts = 2,
                                            .is_pair = 1,
                                            .n_scales = 1};
    const struct vibe_lab_matrix of_y = {
        .dtype = VIBE_F8_E4M3, .N = N, .K = C, .n_parts = 1, .n_scales = 1};
    struct vibe_tensor x[VIBE_SIDES], kept[VIBE_SIDES], act[VIBE_SIDES];
    struct vibe_tensor y[2][VIBE_SIDES];
    struct vibe_matrix *up[VIBE_SIDES], *down[VIBE_SIDES];

    vibe_lab_tensor(lab, x, VIBE_FILL_RANDOM, n_rows, 1, C);
    vibe_lab_tensor(lab, kept, VIBE_FILL_POISON, n_rows, 1, C);
    vibe_lab_tensor(lab, act, VIBE_FILL_POISON, n_rows, 1, C);
    vibe_lab_tensor(lab, y[0], VIBE_FILL_POISON, n_rows, 1, N);
    vibe_lab_tensor(lab, y[1], VIBE_FILL_POISON, n_rows, 1, N);
    vibe_lab_matrix(lab, up, &of_pair);
    vibe_lab_matrix(lab, down, &of_y);
    for (int i = 0; i < 2 * VIBE_SIDES && !lab->err.code; i++) {
        const int side = i / 2, is_woven = i % 2;
        const unsigned forms = is_woven ? VIBE_ALL_FORMS : 0;
        struct vibe_stream *s = &lab->s[side];

        kept[side].form = vibe_form_for(s->be, &kept[side], up[side], forms);
        act[side].form = vibe_form_for(
            s->be, &act[side], down[side],
            vibe_linear_forms(s->be, &kept[side], up[side]));
        vibe_copy(s, &kept[side], &x[side]);
        vibe_linear(s, &act[side], &kept[side], up[side], VIBE_SWIGLU, NULL);
        vibe_linear(s, &y[is_woven][side], &act[side], down[side], VIBE_STORE,
                    NULL);
    }
    if (!lab->err.code)
        vibe_lab_same(lab, "kept", &y[0][VIBE_TESTED], &y[1][VIBE_TESTED],
                      "woven M=%zu K=%d", n_rows, C);
    vibe_lab_clear(lab);
}

static void kept_woven(struct vibe_lab *lab)
{
    run_woven(lab, 20);
    run_woven(lab, 3);
}

/* Products large enough to take x rounded. */
static void kept_rounded(struct vibe_lab *lab)
{
    static const struct kept cases[] = {
        {NORM, 1, 1, 70, 1040, 1024, VIBE_BF16},
        {SWIGLU, 1, 2, 130, 1040, 1024, VIBE_F8_E4M3},
    };

    run_all(lab, cases, sizeof(cases) / sizeof(*cases));
}

vibe_parity_case *const vibe_parity_kept[] = {kept, kept_woven, NULL};
vibe_parity_case *const vibe_parity_kept_rounded[] = {kept_rounded, NULL};
