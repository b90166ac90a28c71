/* vibe_linear: few rows, each row of W read once from where it is mapped. */
#include "engine/backend/cpu/product.h"

enum {
    STRIPE = 64,              /* rows of W that a task finishes together */
    STRIPE_BYTES = 128 << 10, /* fewer of them when rows are longer */
    ROWS = 24,                /* rows of x that W passes by at once */
};

/* Sums of one task, of a pair both halves. */
struct sums {
    float z[2][ROWS][STRIPE];
};

/* Rows n .. n + 3 of W times rows m .. m + count - 1 of x, to column at. */
static void dot_rows(const struct vibe_cpu_product *p, float z[ROWS][STRIPE],
                     const void *const w[4], enum vibe_dtype dtype, size_t at,
                     size_t m, size_t count)
{
    const struct vibe_cpu_kernels *k = p->kernels;
    float out[VIBE_CPU_DOT_W * VIBE_CPU_DOT_X];
    size_t step = (size_t)k->dot_x;

    for (size_t i = 0, n_x; i < count; i += n_x) {
        size_t row = m + i;
        size_t left = p->x->T - row % p->x->T; /* rows a stride_t apart */

        n_x = count - i < step ? count - i : step;
        if (p->x->T == 1) {
            k->dot[dtype](out, w, vibe_cpu_row(p->x, row), p->x->stride_b,
                          p->w->K, (int)n_x);
        } else {
            n_x = n_x < left ? n_x : left;
            k->dot[dtype](out, w, vibe_cpu_row(p->x, row), p->x->stride_t,
                          p->w->K, (int)n_x);
        }
        for (size_t r = 0; r < VIBE_CPU_DOT_W; r++)
            for (size_t j = 0; j < n_x; j++)
                z[i + j][at + r] = out[r * VIBE_CPU_DOT_X + j];
    }
}

/* The next rows of W, at most 4 of one dtype; the last is repeated. */
static size_t next_rows(const struct vibe_matrix *w, size_t n, size_t end,
                        const void *rows[4], enum vibe_dtype *dtype)
{
    struct vibe_cpu_weights first = vibe_cpu_weights_row(w, n);
    size_t count = 1;

    *dtype = first.dtype;
    rows[0] = first.data;
    while (count < VIBE_CPU_DOT_W && n + count < end) {
        struct vibe_cpu_weights row = vibe_cpu_weights_row(w, n + count);

        if (row.dtype != first.dtype)
            break;
        rows[count++] = row.data;
    }
    for (size_t i = count; i < VIBE_CPU_DOT_W; i++)
        rows[i] = rows[count - 1];
    return count;
}

/* Channels n .. n + count - 1 of y. */
static void stripe(const struct vibe_cpu_product *p, size_t n, size_t count)
{
    size_t halves = p->w->is_pair ? 2 : 1;
    struct sums s;

    for (size_t m = 0; m < p->M; m += ROWS) {
        size_t n_m = p->M - m < ROWS ? p->M - m : ROWS;

        for (size_t half = 0; half < halves; half++) {
            size_t first = n + half * p->w->N / 2;
            const void *rows[VIBE_CPU_DOT_W];
            enum vibe_dtype dtype;

            for (size_t i = 0; i < count;) {
                size_t got = next_rows(p->w, first + i, first + count, rows,
                                       &dtype);

                dot_rows(p, s.z[half], rows, dtype, i, m, n_m);
                i += got;
            }
        }
        for (size_t i = 0; i < n_m; i++)
            vibe_cpu_finish_row(p, m + i, n, count, s.z[0][i],
                                halves == 2 ? s.z[1][i] : NULL);
    }
}

static void linear(struct vibe_stream *s, const struct vibe_tensor *y,
                   const struct vibe_tensor *x, const struct vibe_matrix *w,
                   enum vibe_epilogue epilogue, const struct vibe_tensor *gate)
{
    struct vibe_cpu_product p = vibe_cpu_product(s, y, x, w, epilogue, gate);
    size_t step = STRIPE_BYTES / (w->bytes / w->N + 1) & ~(size_t)3;

    step = step < VIBE_CPU_DOT_W ? VIBE_CPU_DOT_W : step;
    step = step > STRIPE - VIBE_CPU_DOT_W ? STRIPE - VIBE_CPU_DOT_W : step;
#pragma omp parallel for num_threads(p.threads) schedule(dynamic)
    for (size_t n = 0; n < y->C; n += step)
        stripe(&p, n, y->C - n < step ? y->C - n : step);
}

void vibe_cpu_linear_init(struct vibe_ops *ops)
{
    ops->linear = linear;
}
