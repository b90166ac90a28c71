/* Parity of vibe_run: it has the bits of its norms and products, each alone. */
#include <math.h>

#include "engine/backend/parity_lab.h"
#include "engine/base/size.h"

/* What the layers of a model are: in [H][K], gate and up [2 F][H], down [H][F],
 * out [N][H]; x = in a, and x += ffn(n(x)) n_layers times, y = out n(x). */
struct run {
    size_t B, T;
    size_t K, H, F, N;
    size_t n_layers; /* up to MAX_LAYERS, of the same weights */
    enum vibe_dtype dtype;
    int is_modulated; /* as in the diffusion head, whose ffn has gates and
                         whose rows share a; else in a is added to x */
    int is_mixed;     /* in is f32 */
};

enum { MAX_LAYERS = 2, MAX_LINKS = 2 + 2 * MAX_LAYERS };

/* Only of a device that may do them at once. */
static const struct run large[] = {
    {2, 1, 1536, 1536, 8960, 2048, 1, VIBE_BF16, 0, 0},
    {2, 1, 1536, 1536, 8960, 2048, 1, VIBE_F8_E4M3, 0, 0},
    {4, 1, 1536, 1536, 8960, 2048, 1, VIBE_I4, 0, 0},
    {3, 1, 3584, 3584, 4736, 4608, 1, VIBE_BF16_PACKED, 0, 0},
    {1, 1, 3584, 3584, 4736, 4608, 1, VIBE_I8, 0, 0},
    {2, 1, 64, 1536, 4608, 64, 2, VIBE_BF16, 1, 0},
    {2, 2, 64, 3584, 4736, 64, 2, VIBE_F8_E4M3, 1, 0},
};

/* As any dtype. */
static const struct run small[] = {
    {1, 1, 64, 64, 128, 48, 1, VIBE_F32, 0, 0},
    {2, 1, 100, 520, 300, 65, 2, VIBE_F32, 0, 0},
    {3, 1, 250, 257, 101, 33, 1, VIBE_F32, 0, 0},
    {4, 1, 128, 320, 580, 200, 2, VIBE_F32, 0, 0},
    {2, 1, 64, 512, 192, 64, 2, VIBE_F32, 1, 0},
    {2, 2, 37, 100, 70, 9, 1, VIBE_F32, 1, 0},
    {5, 1, 100, 520, 300, 65, 1, VIBE_F32, 0, 0},
    {2, 1, 64, 576, 128, 96, 2, VIBE_F32, 0, 1},
};

enum { A, X, ACT, Y, ROOM, SHIFT, SCALE, GATE, N_TENSORS };
enum { IN, GATE_UP, DOWN, OUT, N_MATRICES };

/* Everything of one side. */
struct side {
    struct vibe_tensor t[N_TENSORS];
    const struct vibe_matrix *m[N_MATRICES];
    const float *w; /* of the norm */
};

static void make_matrices(struct vibe_lab *lab, struct side sides[VIBE_SIDES],
                          const struct run *r)
{
    const struct vibe_lab_matrix specs[N_MATRICES] = {
        [IN] = {.N = r->H,
                .K = r->K,
                .dtype = r->is_mixed ? VIBE_F32 : r->dtype},
        [GATE_UP] = {.N = 2 * r->F, .K = r->H, .dtype = r->dtype, .is_pair = 1},
        [DOWN] = {.N = r->H, .K = r->F, .dtype = r->dtype},
        [OUT] = {.N = r->N, .K = r->H, .dtype = r->dtype, .has_bias = 1},
    };

    for (int i = 0; i < N_MATRICES; i++) {
        struct vibe_lab_matrix spec = specs[i];
        struct vibe_matrix *m[VIBE_SIDES] = {NULL};

        spec.n_parts = spec.is_pair ? 2 : 1;
        spec.n_scales = i % 2 ? 2 : 1;
        vibe_lab_matrix(lab, m, &spec);
        for (int side = 0; side < VIBE_SIDES; side++)
            sides[side].m[i] = m[side];
    }
}

/* a as products read it, or the same for all of B. */
static void make_a(struct vibe_lab *lab, struct side sides[VIBE_SIDES],
                   const struct run *r)
{
    struct vibe_tensor a[VIBE_SIDES];

    vibe_lab_tensor(lab, a, VIBE_FILL_RANDOM, r->is_modulated ? 1 : r->B, r->T,
                    r->K);
    for (int side = 0; side < VIBE_SIDES && !lab->err.code; side++) {
        struct vibe_tensor *t = &sides[side].t[A];

        if (r->is_modulated) {
            *t = vibe_tensor_broadcast(&a[side], r->B);
        } else {
            t->is_for_products = 1;
            vibe_copy(&lab->s[side], t, &a[side]);
        }
    }
}

static void make_sides(struct vibe_lab *lab, struct side sides[VIBE_SIDES],
                       const struct run *r)
{
    const struct {
        enum vibe_fill fill;
        size_t C;
    } plan[N_TENSORS] = {
        [A] = {VIBE_FILL_POISON, r->K},     [X] = {VIBE_FILL_RANDOM, r->H},
        [ACT] = {VIBE_FILL_POISON, r->F},   [Y] = {VIBE_FILL_POISON, r->N},
        [ROOM] = {VIBE_FILL_POISON, r->H},  [SHIFT] = {VIBE_FILL_RANDOM, r->H},
        [SCALE] = {VIBE_FILL_RANDOM, r->H}, [GATE] = {VIBE_FILL_RANDOM, r->H},
    };
    float *w[VIBE_SIDES];

    for (int i = 0; i < N_TENSORS; i++) {
        struct vibe_tensor t[VIBE_SIDES];

        vibe_lab_tensor(lab, t, plan[i].fill, r->B, r->T, plan[i].C);
        for (int side = 0; side < VIBE_SIDES; side++)
            sides[side].t[i] = t[side];
    }
    make_a(lab, sides, r);
    vibe_lab_floats(lab, w, r->H);
    for (int side = 0; side < VIBE_SIDES; side++) {
        sides[side].t[ROOM].is_for_products = 1;
        sides[side].t[ACT].is_for_products = 1;
        sides[side].w = w[side];
    }
    make_matrices(lab, sides, r);
}

/* Returns how many links there are. */
static size_t make_links(struct vibe_link links[MAX_LINKS],
                         struct vibe_norm *norm, const struct side *side,
                         const struct run *r)
{
    const struct vibe_tensor *t = side->t;
    const struct vibe_matrix *const *m = side->m;
    const struct vibe_tensor *gate = r->is_modulated ? &t[GATE] : NULL;
    const enum vibe_epilogue add = gate ? VIBE_GATE_ADD : VIBE_ADD;
    struct vibe_link *link = links;

    *norm = (struct vibe_norm){.w = side->w, .eps = 1e-6f, .room = &t[ROOM]};
    if (r->is_modulated) {
        norm->shift = &t[SHIFT];
        norm->scale = &t[SCALE];
    }
    *link++ = (struct vibe_link){
        &t[X], &t[A], NULL, m[IN], gate ? VIBE_STORE : VIBE_ADD, NULL};
    for (size_t i = 0; i < r->n_layers; i++) {
        *link++ = (struct vibe_link){&t[ACT],    &t[X],       norm,
                                     m[GATE_UP], VIBE_SWIGLU, NULL};
        *link++ = (struct vibe_link){&t[X], &t[ACT], NULL, m[DOWN], add, gate};
    }
    *link++ = (struct vibe_link){&t[Y], &t[X], norm, m[OUT], VIBE_STORE, NULL};
    return (size_t)(link - links);
}

/* What a run stands for. */
static void run_apart(struct vibe_stream *s, const struct vibe_link *links,
                      size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct vibe_link *l = &links[i];
        const struct vibe_norm *norm = l->norm;

        if (norm && norm->shift)
            vibe_modulate(s, norm->room, l->x, norm->w, norm->eps, norm->shift,
                          norm->scale);
        else if (norm)
            vibe_rmsnorm(s, norm->room, l->x, norm->w, norm->eps);
        vibe_linear(s, l->y, norm ? norm->room : l->x, l->w, l->epilogue,
                    l->gate);
    }
}

/* Errors of a product, as in parity_products.c; silu(z) * z' and the products
 * beside it make those of a layer's input up to 16 times as large. */
static double bound_of(const struct run *r)
{
    const double root = sqrt((double)(r->F > r->H ? r->F : r->H));
    const double one = 2.0 * (0x1p-24 * (8.0 + 4.0 * root) +
                              (r->dtype == VIBE_I4 ? 0x1p-11 : 0x1p-16));

    return one * 8.0 * pow(16.0, (double)r->n_layers);
}

/* Run the links of each side, and on the tested one once more apart. */
static void run_all(struct vibe_lab *lab, const struct side *sides,
                    const struct side *apart, const struct run *r)
{
    struct vibe_link links[MAX_LINKS];
    struct vibe_norm norm;
    size_t n = make_links(links, &norm, &sides[VIBE_REFERENCE], r);

    run_apart(&lab->s[VIBE_REFERENCE], links, n);
    n = make_links(links, &norm, &sides[VIBE_TESTED], r);
    vibe_run(&lab->s[VIBE_TESTED], links, n);
    n = make_links(links, &norm, apart, r);
    run_apart(&lab->s[VIBE_TESTED], links, n);
}

static void run_case(struct vibe_lab *lab, const struct run *r)
{
    const char *name = vibe_dtype_name(r->dtype);
    struct vibe_tensor x[VIBE_SIDES], y[VIBE_SIDES];
    struct side sides[VIBE_SIDES] = {0};
    struct side apart;

    make_sides(lab, sides, r);
    vibe_lab_tensor(lab, x, VIBE_FILL_POISON, r->B, r->T, r->H);
    vibe_lab_tensor(lab, y, VIBE_FILL_POISON, r->B, r->T, r->N);
    if (lab->err.code)
        return;
    apart = sides[VIBE_TESTED];
    apart.t[X] = x[VIBE_TESTED];
    apart.t[Y] = y[VIBE_TESTED];
    vibe_copy(&lab->s[VIBE_TESTED], &apart.t[X], &sides[VIBE_TESTED].t[X]);
    run_all(lab, sides, &apart, r);
    for (int side = 0; side < VIBE_SIDES; side++) {
        x[side] = sides[side].t[X];
        y[side] = sides[side].t[Y];
    }
    vibe_lab_compare(lab, "run", x, bound_of(r), "%s M=%zux%zu H=%zu F=%zu",
                     name, r->B, r->T, r->H, r->F);
    vibe_lab_compare(lab, "run", y, 4.0 * bound_of(r), "%s M=%zux%zu N=%zu",
                     name, r->B, r->T, r->N);
    vibe_lab_same(lab, "run", &x[VIBE_TESTED], &apart.t[X],
                  "x apart, %s M=%zux%zu H=%zu F=%zu", name, r->B, r->T, r->H,
                  r->F);
    vibe_lab_same(lab, "run", &y[VIBE_TESTED], &apart.t[Y],
                  "y apart, %s M=%zux%zu N=%zu", name, r->B, r->T, r->N);
    vibe_lab_clear(lab);
}

/* int4 has whole groups. */
static void run_as(struct vibe_lab *lab, const struct run *r,
                   enum vibe_dtype dtype)
{
    struct run of = *r;

    of.dtype = dtype;
    if (dtype == VIBE_I4) {
        of.K = vibe_size_round(r->K, 64);
        of.H = vibe_size_round(r->H, 64);
        of.F = vibe_size_round(r->F, 64);
    }
    run_case(lab, &of);
}

static void run(struct vibe_lab *lab)
{
    static const enum vibe_dtype dtypes[] = {
        VIBE_BF16, VIBE_F8_E4M3,     VIBE_I8,  VIBE_I4,
        VIBE_F32,  VIBE_BF16_PACKED, VIBE_F16,
    };

    for (size_t i = 0; i < sizeof(small) / sizeof(*small); i++)
        for (size_t d = i % 2; d < sizeof(dtypes) / sizeof(*dtypes); d += 2)
            if (!lab->err.code)
                run_as(lab, &small[i], dtypes[d]);
    for (size_t i = 0; i < sizeof(large) / sizeof(*large); i++)
        if (!lab->err.code && lab->be[VIBE_TESTED]->is_cuda)
            run_case(lab, &large[i]);
}

vibe_parity_case *const vibe_parity_runs[] = {run, NULL};
