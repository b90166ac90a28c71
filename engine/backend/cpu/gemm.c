/*
 * vibe_gemm: many rows, bound by arithmetic.
 *
 * A task is a block of y: BLOCK_M rows by BLOCK_N channels.  It goes along K
 * in pieces; of each it widens its rows of W to a panel that stays in the
 * first cache while all rows of x pass by.  Pieces are added up in order,
 * whatever M and the threads are.
 */
#include <omp.h>
#include <string.h>

#include "engine/backend/cpu/product.h"
#include "engine/base/size.h"

enum { BLOCK_M = 192, BLOCK_N = 64, BLOCK_K = VIBE_CPU_EXPAND_K };

/* What one thread works in. */
struct space {
    float panels[BLOCK_N * BLOCK_K]; /* [BLOCK_N / tile_n][k][tile_n] */
    float x[BLOCK_M * BLOCK_K];      /* rows that cannot be read in place */
    float sums[BLOCK_M * BLOCK_N];
    struct vibe_cpu_weights rows[BLOCK_N]; /* of W */
    float wide[VIBE_CPU_PACK * BLOCK_K];   /* those that are expanded */
    uint16_t tile[VIBE_PACK_ROWS * BLOCK_K];
};

struct block {
    const struct vibe_cpu_product *p;
    struct space *s;
    size_t m, n_m;
    size_t n, n_n; /* channels of y */
    size_t n_w;    /* columns of sums: n_n, twice that for a pair, in whole
                       tiles */
    size_t up;     /* column where the second half of a pair starts */
};

/* Find the rows of W for every column; those past the end repeat the last. */
static void find_rows(struct block *b)
{
    const struct vibe_matrix *w = b->p->w;

    for (size_t j = 0; j < b->n_w; j++) {
        size_t half = w->is_pair && j >= b->up;
        size_t i = j - half * b->up;
        size_t n = b->n + (i < b->n_n ? i : b->n_n - 1) + half * w->N / 2;

        b->s->rows[j] = vibe_cpu_weights_row(w, n);
    }
}

/* Do the 8 rows from w on lie among the same 16 of a packed block? */
static int share_tile(const struct vibe_cpu_weights *w)
{
    const size_t tile = w->row / VIBE_PACK_ROWS;

    for (size_t i = 0; i < VIBE_CPU_PACK; i++)
        if (w[i].dtype != VIBE_BF16_PACKED || w[i].part != w->part ||
            w[i].row / VIBE_PACK_ROWS != tile)
            return 0;
    return 1;
}

/* Find columns k .. k + n_k - 1 of 8 rows of W in one dtype: where they are,
 * or expanded. */
static enum vibe_dtype lay_rows(const struct block *b, const void *rows[],
                                size_t j, size_t k, size_t n_k)
{
    const struct vibe_cpu_weights *w = b->s->rows + j;
    const size_t K = b->p->w->K;
    int is_plain = vibe_cpu_is_plain(w->dtype);

    for (size_t i = 0; i < VIBE_CPU_PACK && is_plain; i++) {
        is_plain = w[i].dtype == w->dtype;
        rows[i] = (const char *)w[i].data + vibe_dtype_bytes(w->dtype, k);
    }
    if (is_plain)
        return w->dtype;
    if (share_tile(w)) {
        vibe_cpu_expand_tile(b->p->kernels, b->s->tile, BLOCK_K, w, K, k);
        for (size_t i = 0; i < VIBE_CPU_PACK; i++)
            rows[i] = b->s->tile + w[i].row % VIBE_PACK_ROWS * BLOCK_K;
        return VIBE_BF16;
    }
    for (size_t i = 0; i < VIBE_CPU_PACK; i++) {
        vibe_cpu_expand_row(b->s->wide + i * BLOCK_K, &w[i], K, k, n_k);
        rows[i] = b->s->wide + i * BLOCK_K;
    }
    return VIBE_F32;
}

/* Widen columns k .. k + n_k - 1 of 8 rows of W. */
static void pack_rows(const struct block *b, float *panel, size_t j, size_t k,
                      size_t n_k)
{
    const struct vibe_cpu_kernels *kernels = b->p->kernels;
    const void *rows[VIBE_CPU_PACK];
    enum vibe_dtype dtype = lay_rows(b, rows, j, k, n_k);

    kernels->pack[dtype](panel, (size_t)kernels->tile_n, rows, n_k);
}

static void pack(const struct block *b, size_t k, size_t n_k)
{
    size_t tile_n = (size_t)b->p->kernels->tile_n;

    for (size_t j = 0; j < b->n_w; j += VIBE_CPU_PACK)
        pack_rows(b, b->s->panels + j / tile_n * tile_n * n_k + j % tile_n, j,
                  k, n_k);
}

/* Rows of x as the tile reads them. */
struct rows_of_x {
    const float *data;
    size_t stride;
};

/*
 * In place when the block's rows lie evenly, else a copy.  Rows a multiple of
 * 4096 bytes apart would all fall into the same few lines of the cache.
 */
static struct rows_of_x lay_x(const struct block *b, size_t k, size_t n_k)
{
    const struct vibe_tensor *x = b->p->x;
    size_t stride = x->T == 1 ? x->stride_b : x->stride_t;
    int is_even = x->B == 1 || x->T == 1 || x->stride_b == x->T * x->stride_t ||
                  b->m / x->T == (b->m + b->n_m - 1) / x->T;

    if (is_even && stride % 1024)
        return (struct rows_of_x){vibe_cpu_row(x, b->m) + k, stride};
    for (size_t i = 0; i < b->n_m; i++)
        memcpy(b->s->x + i * n_k, vibe_cpu_row(x, b->m + i) + k,
               n_k * sizeof(float));
    return (struct rows_of_x){b->s->x, n_k};
}

/* sums (+)= x * panels, tile by tile; a panel stays while x passes. */
static void multiply(const struct block *b, const struct rows_of_x *x,
                     size_t n_k, int is_first)
{
    const struct vibe_cpu_kernels *kernels = b->p->kernels;
    size_t tile_m = (size_t)kernels->tile_m;
    size_t tile_n = (size_t)kernels->tile_n;
    size_t n_tiles = (b->n_m + tile_m - 1) / tile_m;

    for (size_t j = 0; j < b->n_w; j += tile_n) {
        size_t left = n_tiles;

        /* tiles of even height: 8 rows are 4 and 4, not 6 and 2 */
        for (size_t i = 0, n_x; i < b->n_m; i += n_x) {
            n_x = (b->n_m - i + left - 1) / left;
            left--;
            kernels->tile(b->s->sums + i * BLOCK_N + j, BLOCK_N,
                          x->data + i * x->stride, x->stride,
                          b->s->panels + j * n_k, n_k, (int)n_x, is_first);
        }
    }
}

static void run_block(struct block *b)
{
    size_t K = b->p->w->K;

    find_rows(b);
    for (size_t k = 0; k < K; k += BLOCK_K) {
        size_t n_k = K - k < BLOCK_K ? K - k : BLOCK_K;
        struct rows_of_x x;

        pack(b, k, n_k);
        x = lay_x(b, k, n_k);
        multiply(b, &x, n_k, k == 0);
    }
    for (size_t i = 0; i < b->n_m; i++) {
        const float *z = b->s->sums + i * BLOCK_N;

        vibe_cpu_finish_row(b->p, b->m + i, b->n, b->n_n, z,
                            b->p->w->is_pair ? z + b->up : NULL);
    }
}

void vibe_cpu_gemm(struct vibe_stream *s, const struct vibe_tensor *y,
                   const struct vibe_tensor *x, const struct vibe_matrix *w,
                   enum vibe_epilogue epilogue, const struct vibe_tensor *gate)
{
    struct vibe_cpu_product p = vibe_cpu_product(s, y, x, w, epilogue, gate);
    size_t tile_n = (size_t)p.kernels->tile_n;
    size_t wide = w->is_pair ? BLOCK_N / 2 : BLOCK_N;
    size_t n_m = (p.M + BLOCK_M - 1) / BLOCK_M;
    size_t n_tasks = (y->C + wide - 1) / wide * n_m;
    struct space *spaces = vibe_cpu_scratch(s, (size_t)p.threads *
                                                   sizeof(*spaces));

    if (!spaces)
        return;
#pragma omp parallel for num_threads(p.threads) schedule(dynamic)
    for (size_t task = 0; task < n_tasks; task++) {
        struct block b = {
            .p = &p,
            .s = &spaces[omp_get_thread_num()],
            .m = task % n_m * BLOCK_M,
            .n = task / n_m * wide,
        };

        b.n_m = p.M - b.m < BLOCK_M ? p.M - b.m : BLOCK_M;
        b.n_n = y->C - b.n < wide ? y->C - b.n : wide;
        b.up = vibe_size_round(b.n_n, VIBE_CPU_PACK);
        b.n_w = vibe_size_round(w->is_pair ? 2 * b.up : b.n_n, tile_n);
        run_block(&b);
    }
}

void vibe_cpu_gemm_init(struct vibe_ops *ops)
{
    ops->gemm = vibe_cpu_gemm;
}
