/* vibe_linear: few rows, each row of W read once from where it is mapped. */
#include "engine/backend/cpu/product.h"

enum {
    STRIPE = 128, /* channels that are summed before they are finished */
    ROWS = 24,    /* rows of x that W passes by at once */
    TASK_BYTES = 512 << 10,
    TASKS = 4, /* for each thread, at least */
};

/* Sums of one stripe, of a pair both halves. */
struct sums {
    float z[2][ROWS][STRIPE];
};

/* Up to four rows of W of one dtype, and where their sums go. */
struct quad {
    const struct vibe_cpu_product *p;
    size_t m, n_m; /* rows of x */
    const void *w[VIBE_CPU_DOT_W];
    float *z[VIBE_CPU_DOT_W]; /* [n_m], STRIPE apart */
    size_t n;
    enum vibe_dtype dtype;
};

/* Multiply what is in the quad and empty it. */
static void flush(struct quad *q)
{
    const struct vibe_cpu_kernels *k = q->p->kernels;
    const struct vibe_tensor *x = q->p->x;
    size_t stride = x->T == 1 ? x->stride_b : x->stride_t;
    float out[VIBE_CPU_DOT_W * VIBE_CPU_DOT_X];

    for (size_t r = q->n; r < VIBE_CPU_DOT_W; r++)
        q->w[r] = q->w[q->n - 1];
    for (size_t i = 0, n_x; i < q->n_m; i += n_x) {
        size_t row = q->m + i;

        n_x = q->n_m - i < (size_t)k->dot_x ? q->n_m - i : (size_t)k->dot_x;
        if (x->T > 1 && x->T - row % x->T < n_x) /* the batch ends here */
            n_x = x->T - row % x->T;
        k->dot[q->dtype](out, q->w, vibe_cpu_row(x, row), stride, q->p->w->K,
                         (int)n_x);
        for (size_t r = 0; r < q->n; r++)
            for (size_t j = 0; j < n_x; j++)
                q->z[r][(i + j) * STRIPE] = out[r * VIBE_CPU_DOT_X + j];
    }
    q->n = 0;
}

/* Add row n of W, whose sums go to z. */
static void push(struct quad *q, size_t n, float *z)
{
    struct vibe_cpu_weights row = vibe_cpu_weights_row(q->p->w, n);

    if (q->n && row.dtype != q->dtype)
        flush(q);
    q->dtype = row.dtype;
    q->w[q->n] = row.data;
    q->z[q->n++] = z;
}

/*
 * Channels n .. n + count - 1 of y, for some rows.  W is read in four places
 * at once (of a pair: two in each half), each of which goes on where it was:
 * rows of a few KB, four by four, would be too short for a prefetcher.
 */
static void stripe(const struct vibe_cpu_product *p, size_t n, size_t count,
                   size_t m, size_t n_m)
{
    size_t halves = p->w->is_pair ? 2 : 1;
    size_t places = VIBE_CPU_DOT_W / halves;
    size_t apart = (count + places - 1) / places;
    struct quad q = {.p = p, .m = m, .n_m = n_m};
    struct sums s;

    for (size_t i = 0; i < apart; i++) {
        for (size_t half = 0; half < halves; half++)
            for (size_t c = i; c < count; c += apart)
                push(&q, half * p->w->N / 2 + n + c, &s.z[half][0][c]);
        flush(&q);
    }
    for (size_t i = 0; i < n_m; i++)
        vibe_cpu_finish_row(p, m + i, n, count, s.z[0][i],
                            halves == 2 ? s.z[1][i] : NULL);
}

/* Channels a task takes: whole stripes, in one run of memory. */
static size_t task_channels(const struct vibe_cpu_product *p)
{
    size_t C = p->y->C;
    size_t by_bytes = TASK_BYTES / (p->w->bytes / C + 1);
    size_t by_tasks = C / (TASKS * (size_t)p->threads);
    size_t n = by_bytes < by_tasks ? by_bytes : by_tasks;

    return n < VIBE_CPU_DOT_W ? VIBE_CPU_DOT_W : n & ~(size_t)3;
}

static void linear(struct vibe_stream *s, const struct vibe_tensor *y,
                   const struct vibe_tensor *x, const struct vibe_matrix *w,
                   enum vibe_epilogue epilogue, const struct vibe_tensor *gate)
{
    struct vibe_cpu_product p = vibe_cpu_product(s, y, x, w, epilogue, gate);
    size_t step = task_channels(&p);

#pragma omp parallel for num_threads(p.threads) schedule(dynamic)
    for (size_t first = 0; first < y->C; first += step) {
        size_t end = y->C - first < step ? y->C : first + step;

        for (size_t n = first; n < end; n += STRIPE)
            for (size_t m = 0; m < p.M; m += ROWS)
                stripe(&p, n, end - n < STRIPE ? end - n : STRIPE, m,
                       p.M - m < ROWS ? p.M - m : ROWS);
    }
}

void vibe_cpu_linear_init(struct vibe_ops *ops)
{
    ops->linear = linear;
}
