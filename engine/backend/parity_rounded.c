/* Parity of large products whose rows are rounded to bf16, as those of a prompt
 * may be where float32 arithmetic was not asked for. */
#include <math.h>

#include "engine/backend/parity_lab.h"

struct rounded {
    size_t B, T; /* at least 64 rows and 2^20 weights: fewer are not rounded */
    enum vibe_epilogue epilogue;
    struct vibe_lab_matrix w;
};

/*
 * Rounding x to bf16 puts each product off by up to 2^-9 of itself, by
 * 0.6 * 2^-9 on average, one way or the other.  The products add up to z and
 * so do their errors, as a random walk of the same steps: 0.6 * 2^-9 of the
 * size of z is one deviation, and among the million outputs of a case none is
 * beyond six.  Sums in float are off by a hundredth of that; those of a pair
 * may be rounded, too, by 2^-9 of what is seldom beyond four sizes, for which
 * the slopes of silu have room.
 */
static double bound_of(const struct rounded *p)
{
    double size = p->w.n_scales ? 2.0 : sqrt((double)p->w.K);
    double bound = 6.0 * 0.6 * 0x1p-9;

    /* silu(z) * z' has slope |z| <= 4 sizes in each argument */
    return size * bound * (p->epilogue == VIBE_SWIGLU ? 8.0 : 1.0);
}

/* Ragged about the tiles of AMX and of cuBLASLt. */
static const struct rounded shapes[] = {
    {1, 64, VIBE_STORE, {.N = 1040, .K = 1024, .n_parts = 1}},
    {1, 67, VIBE_STORE, {.N = 1031, .K = 1049, .n_parts = 3, .has_bias = 1}},
    {2, 65, VIBE_ADD, {.N = 515, .K = 2056, .n_parts = 1, .has_gamma = 1}},
    {1,
     130,
     VIBE_SWIGLU,
     {.N = 2050, .K = 520, .n_parts = 2, .is_pair = 1, .n_scales = 1}},
    {1, 100, VIBE_GELU, {.N = 4100, .K = 257, .n_parts = 1, .n_scales = 2}},
    {2, 64, VIBE_GATE_ADD, {.N = 1030, .K = 1032, .n_parts = 1}},
};

static void run_rounded(struct vibe_lab *lab, const struct rounded *p)
{
    const int is_adding = p->epilogue == VIBE_ADD ||
                          p->epilogue == VIBE_GATE_ADD;
    const size_t C = p->w.is_pair ? p->w.N / 2 : p->w.N;
    struct vibe_tensor x[VIBE_SIDES], y[VIBE_SIDES], gate[VIBE_SIDES];
    struct vibe_matrix *w[VIBE_SIDES];

    vibe_lab_tensor(lab, x, VIBE_FILL_RANDOM, p->B, p->T, p->w.K);
    vibe_lab_tensor(lab, y, is_adding ? VIBE_FILL_RANDOM : VIBE_FILL_POISON,
                    p->B, p->T, C);
    vibe_lab_tensor(lab, gate, VIBE_FILL_RANDOM, p->B, p->T, C);
    vibe_lab_matrix(lab, w, &p->w);
    for (int side = 0; side < VIBE_SIDES && !lab->err.code; side++)
        vibe_gemm(&lab->s[side], &y[side], &x[side], w[side], p->epilogue,
                  p->epilogue == VIBE_GATE_ADD ? &gate[side] : NULL);
    vibe_lab_compare(lab, "gemm rounded", y, bound_of(p),
                     "%s M=%zux%zu N=%zu K=%zu epilogue %d",
                     vibe_dtype_name(p->w.dtype), p->B, p->T, p->w.N, p->w.K,
                     (int)p->epilogue);
    vibe_lab_clear(lab);
}

static void rounded_gemm(struct vibe_lab *lab)
{
    static const enum vibe_dtype dtypes[] = {VIBE_BF16, VIBE_F8_E4M3};
    static const struct rounded of_groups = {
        1,
        130,
        VIBE_STORE,
        {VIBE_I4, .N = 1048, .K = 1088, .n_parts = 1, .has_bias = 1}};

    run_rounded(lab, &of_groups);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        for (size_t d = 0; d < sizeof(dtypes) / sizeof(*dtypes); d++) {
            struct rounded p = shapes[i];

            p.w.dtype = dtypes[d];
            if (!lab->err.code)
                run_rounded(lab, &p);
        }
    }
}

vibe_parity_case *const vibe_parity_rounded[] = {rounded_gemm, NULL};
