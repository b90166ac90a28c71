/* vibe_linear: few rows, each row of W read once from where it is mapped. */
#include "engine/backend/cpu/product.h"

enum {
    STRIPE = 64, /* channels that are summed before they are finished */
    ROWS = 24,   /* rows of x that W passes by at once */
    TASK_BYTES = 512 << 10,
    TASKS = 4, /* for each thread, at least */
};

/* Sums of one stripe, of a pair both halves. */
struct sums {
    float z[2][ROWS][STRIPE];
};

/* Four rows of W of one dtype, and where their sums go: a column each. */
struct quad {
    const void *w[VIBE_CPU_DOT_W];
    float *z[VIBE_CPU_DOT_W]; /* [ROWS][STRIPE] from there on; NULL: nowhere */
    enum vibe_dtype dtype;
    size_t n; /* rows of W that lie between this quad and the next */
};

/* Rows m .. m + count - 1 of x times a quad. */
static void dot_rows(const struct vibe_cpu_product *p, const struct quad *q,
                     size_t m, size_t count)
{
    const struct vibe_cpu_kernels *k = p->kernels;
    const struct vibe_tensor *x = p->x;
    size_t stride = x->T == 1 ? x->stride_b : x->stride_t;
    float out[VIBE_CPU_DOT_W * VIBE_CPU_DOT_X];

    for (size_t i = 0, n_x; i < count; i += n_x) {
        size_t row = m + i;

        n_x = count - i < (size_t)k->dot_x ? count - i : (size_t)k->dot_x;
        if (x->T > 1 && x->T - row % x->T < n_x) /* the batch ends here */
            n_x = x->T - row % x->T;
        k->dot[q->dtype](out, q->w, vibe_cpu_row(x, row), stride, p->w->K,
                         (int)n_x, q->n);
        for (size_t r = 0; r < VIBE_CPU_DOT_W && q->z[r]; r++)
            for (size_t j = 0; j < n_x; j++)
                q->z[r][(i + j) * STRIPE] = out[r * VIBE_CPU_DOT_X + j];
    }
}

/* Put row n of W in place r, its sums in column z; all places after it hold
 * the same row for nobody.  False, with nothing done, for another dtype. */
static int put(struct quad *q, const struct vibe_matrix *w, size_t r, size_t n,
               float *z)
{
    struct vibe_cpu_weights row = vibe_cpu_weights_row(w, n);

    if (r > 0 && row.dtype != q->dtype)
        return 0;
    q->dtype = row.dtype;
    for (size_t i = r; i < VIBE_CPU_DOT_W; i++) {
        q->w[i] = row.data;
        q->z[i] = i == r ? z : NULL;
    }
    return 1;
}

/* Take rows n .. n + count - 1 of W, as many as make a quad. */
static size_t fill(struct quad *q, const struct vibe_matrix *w, float *z,
                   size_t n, size_t count)
{
    size_t got = 0;

    while (got < VIBE_CPU_DOT_W && got < count &&
           put(q, w, got, n + got, z + got))
        got++;
    q->n = VIBE_CPU_DOT_W;
    return got;
}

/* The same of a pair: two channels of each half side by side, so that both
 * halves are read as they lie. */
static size_t fill_pair(struct quad *q, const struct vibe_matrix *w, float *z,
                        float *z_up, size_t n, size_t count)
{
    size_t got = 0;

    for (; got < VIBE_CPU_DOT_W / 2 && got < count; got++) {
        put(q, w, 2 * got, n + got, z + got);
        put(q, w, 2 * got + 1, w->N / 2 + n + got, z_up + got);
    }
    q->n = VIBE_CPU_DOT_W / 2;
    return got;
}

/* Channels n .. n + count - 1 of y, for some rows. */
static void stripe(const struct vibe_cpu_product *p, size_t n, size_t count,
                   size_t m, size_t n_m)
{
    const struct vibe_matrix *w = p->w;
    int is_even = w->is_pair && w->part[0].dtype == w->part[1].dtype;
    struct sums s;
    struct quad q;

    for (size_t i = 0; is_even && i < count;) {
        i += fill_pair(&q, w, &s.z[0][0][i], &s.z[1][0][i], n + i, count - i);
        dot_rows(p, &q, m, n_m);
    }
    for (size_t half = 0; !is_even && half < (w->is_pair ? 2 : 1); half++)
        for (size_t i = 0; i < count;) {
            i += fill(&q, w, &s.z[half][0][i], half * w->N / 2 + n + i,
                      count - i);
            dot_rows(p, &q, m, n_m);
        }
    for (size_t i = 0; i < n_m; i++)
        vibe_cpu_finish_row(p, m + i, n, count, s.z[0][i],
                            w->is_pair ? s.z[1][i] : NULL);
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
