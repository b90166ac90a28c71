/* vibe_linear: few rows, each row of W read once from where it is mapped. */
#include <omp.h>

#include "engine/backend/cpu/product.h"
#include "engine/base/size.h"

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
    const float *scale[VIBE_CPU_DOT_W]; /* of the groups of I4 */
    float *z[VIBE_CPU_DOT_W];           /* [n_m], STRIPE apart */
    size_t n;
    enum vibe_dtype dtype;
    size_t group; /* of I4, else 0 */
};

/* Multiply what is in the quad and empty it. */
static void flush(struct quad *q)
{
    const struct vibe_cpu_kernels *k = q->p->kernels;
    const struct vibe_tensor *x = q->p->x;
    size_t stride = x->T == 1 ? x->stride_b : x->stride_t;
    float out[VIBE_CPU_DOT_W * VIBE_CPU_DOT_X];

    if (!q->n)
        return;
    for (size_t r = q->n; r < VIBE_CPU_DOT_W; r++) {
        q->w[r] = q->w[q->n - 1];
        q->scale[r] = q->scale[q->n - 1];
    }
    for (size_t i = 0, n_x; i < q->n_m; i += n_x) {
        size_t row = q->m + i;

        n_x = q->n_m - i < (size_t)k->dot_x ? q->n_m - i : (size_t)k->dot_x;
        if (x->T > 1 && x->T - row % x->T < n_x) /* the batch ends here */
            n_x = x->T - row % x->T;
        if (q->group)
            k->dot_i4(out, q->w, q->scale, q->group, vibe_cpu_row(x, row),
                      stride, q->p->w->K, (int)n_x);
        else
            k->dot[q->dtype](out, q->w, vibe_cpu_row(x, row), stride,
                             q->p->w->K, (int)n_x);
        for (size_t r = 0; r < q->n; r++)
            for (size_t j = 0; j < n_x; j++)
                q->z[r][(i + j) * STRIPE] = out[r * VIBE_CPU_DOT_X + j];
    }
    q->n = 0;
}

/* Add a row of W, whose sums go to z. */
static void push(struct quad *q, const struct vibe_cpu_weights *row, float *z)
{
    const size_t group = row->dtype == VIBE_I4 ? row->part->group : 0;

    if (q->n && (row->dtype != q->dtype || group != q->group))
        flush(q);
    q->dtype = row->dtype;
    q->group = group;
    q->w[q->n] = row->data;
    q->scale[q->n] = group ? row->part->group_scale +
                                 row->row * (q->p->w->K / group)
                           : NULL;
    q->z[q->n++] = z;
    if (q->n == VIBE_CPU_DOT_W)
        flush(q);
}

/*
 * Sums of channels n .. n + count - 1.  W is read in four places at once (of a
 * pair: two in each half), each of which goes on where it was: rows of a few
 * KB, four by four, would be too short for a prefetcher.
 */
static void sum_plain(struct quad *q, struct sums *s, size_t n, size_t count)
{
    const struct vibe_matrix *w = q->p->w;
    size_t halves = w->is_pair ? 2 : 1;
    size_t places = VIBE_CPU_DOT_W / halves;
    size_t apart = (count + places - 1) / places;

    for (size_t i = 0; i < apart; i++) {
        for (size_t half = 0; half < halves; half++)
            for (size_t c = i; c < count; c += apart) {
                struct vibe_cpu_weights row = vibe_cpu_weights_row(
                    w, half * w->N / 2 + n + c);

                push(q, &row, &s->z[half][0][c]);
            }
        flush(q);
    }
}

/* Expand all of the 16 rows that a packed row lies among. */
static void expand(const struct vibe_cpu_product *p, uint16_t *rows,
                   const struct vibe_cpu_weights *row)
{
    size_t ld = vibe_size_round(p->w->K, VIBE_CPU_EXPAND_K);

    for (size_t k = 0; k < p->w->K; k += VIBE_CPU_EXPAND_K)
        vibe_cpu_expand_tile(p->kernels, rows + k, ld, row, p->w->K, k);
}

/* The same where rows may be packed: they are bf16 once they are expanded, and
 * have the same sums.  rows has room for 16 of them. */
static void sum_packed(struct quad *q, struct sums *s, size_t n, size_t count,
                       uint16_t *rows)
{
    const struct vibe_matrix *w = q->p->w;
    size_t ld = vibe_size_round(w->K, VIBE_CPU_EXPAND_K);
    size_t total = w->is_pair ? 2 * count : count;

    for (size_t i = 0; i < total; i++) {
        size_t half = i >= count;
        size_t c = i - half * count;
        struct vibe_cpu_weights row = vibe_cpu_weights_row(w, half * w->N / 2 +
                                                                  n + c);
        size_t at = row.row % VIBE_PACK_ROWS;

        if (row.dtype == VIBE_BF16_PACKED) {
            if (at == 0 || c == 0) {
                flush(q);
                expand(q->p, rows, &row);
            }
            row.dtype = VIBE_BF16;
            row.data = rows + at * ld;
        }
        push(q, &row, &s->z[half][0][c]);
    }
    flush(q);
}

/* Channels n .. n + count - 1 of y, for some rows; rows NULL: none is packed.
 */
static void stripe(const struct vibe_cpu_product *p, size_t n, size_t count,
                   size_t m, size_t n_m, uint16_t *rows)
{
    struct quad q = {.p = p, .m = m, .n_m = n_m};
    struct sums s;

    if (rows)
        sum_packed(&q, &s, n, count, rows);
    else
        sum_plain(&q, &s, n, count);
    for (size_t i = 0; i < n_m; i++)
        vibe_cpu_finish_row(p, m + i, n, count, s.z[0][i],
                            p->w->is_pair ? s.z[1][i] : NULL);
}

/* Channels a task takes: whole stripes, in one run of memory. */
static size_t task_channels(const struct vibe_cpu_product *p, size_t unit)
{
    size_t C = p->y->C;
    size_t by_bytes = TASK_BYTES / (p->w->bytes / C + 1);
    size_t by_tasks = C / (TASKS * (size_t)p->threads);
    size_t n = by_bytes < by_tasks ? by_bytes : by_tasks;

    return n < unit ? unit : n / unit * unit;
}

static int is_packed(const struct vibe_matrix *w)
{
    for (int i = 0; i < w->n_parts; i++)
        if (w->part[i].dtype == VIBE_BF16_PACKED)
            return 1;
    return 0;
}

static void linear(struct vibe_stream *s, const struct vibe_tensor *y,
                   const struct vibe_tensor *x, const struct vibe_matrix *w,
                   enum vibe_epilogue epilogue, const struct vibe_tensor *gate)
{
    struct vibe_cpu_product p = vibe_cpu_product(s, y, x, w, epilogue, gate);
    size_t ld = vibe_size_round(w->K, VIBE_CPU_EXPAND_K);
    size_t room = VIBE_PACK_ROWS * ld; /* of a thread, where rows expand */
    size_t step = task_channels(&p, VIBE_CPU_DOT_W);
    uint16_t *rows = NULL;

    if (is_packed(w)) {
        step = task_channels(&p, VIBE_PACK_ROWS);
        rows = vibe_cpu_scratch(s, (size_t)p.threads * room * sizeof(*rows));
        if (!rows)
            return;
    }
#pragma omp parallel for num_threads(p.threads) schedule(dynamic)
    for (size_t first = 0; first < y->C; first += step) {
        size_t end = y->C - first < step ? y->C : first + step;

        for (size_t n = first; n < end; n += STRIPE)
            for (size_t m = 0; m < p.M; m += ROWS)
                stripe(&p, n, end - n < STRIPE ? end - n : STRIPE, m,
                       p.M - m < ROWS ? p.M - m : ROWS,
                       rows ? rows + (size_t)omp_get_thread_num() * room
                            : NULL);
    }
}

void vibe_cpu_linear_init(struct vibe_ops *ops)
{
    ops->linear = linear;
}
