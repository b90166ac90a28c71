/*
 * vibe_gemm with AMX: bf16 tiles that keep the precision of float.
 *
 * Weights of bf16 (and those that bf16 holds exactly) are the left operand,
 * tiles of 16 rows by 32 columns straight from where they are mapped.
 * Each x is split in two bf16, hi = round(x) and lo = round(x - hi), which
 * keeps 2^-17 of it; both are multiplied into the same sums.  Where float
 * arithmetic was not asked for, the large products of a prompt take hi alone,
 * as the reference does in bf16, and half the time.  Sums come out as
 * tiles of [channel][row] and are transposed when they are finished.
 *
 * BLOCK_M rows of x are split and packed by all threads together; then every
 * thread takes blocks of BLOCK_N channels.  A block goes along K in pieces
 * whose x, 32 rows of it, stay in the first cache while its channels pass.
 * What passes often lies together: x of a piece, and each tile of sums.
 */
#include "engine/backend/cpu/product.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <omp.h>
#include <string.h>

#include "engine/base/size.h"

#define AMX __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw")))

enum {
    TILE = 16,   /* rows of a tile, and words in each */
    PAIR = 32,   /* rows of two */
    TILE_K = 32, /* bf16 in each */
    BLOCK_M = 512,
    BLOCK_N = 256,
    BLOCK_K = 256,
    LINE = 64, /* bytes of a cache line, and of a row of a tile */
    TILE_WORDS = TILE * TILE,
};

/* What one thread works in. */
struct space {
    float sums[BLOCK_N * BLOCK_M];       /* see sums_at */
    uint16_t weights[BLOCK_N * BLOCK_K]; /* those not read in place */
    float z[TILE * BLOCK_N];
    uint32_t words[2][TILE][BLOCK_K / 2];
};

struct job {
    struct vibe_cpu_product p;
    uint32_t *x;              /* BLOCK_M rows, packed; see x_at */
    size_t m, n_m, n_m_tiles; /* the rows that x holds; tiles are even */
    size_t n, n_n, up;        /* channels of y, see gemm.c */
    size_t n_w;               /* rows of W, a multiple of 2 tiles */
    int is_exact;             /* else hi alone is multiplied */
};

/* The tile of sums of rows i .. of W and rows m .. of x. */
static float *sums_at(struct space *s, size_t i, size_t m)
{
    return s->sums + i * BLOCK_M + m * TILE;
}

/* The packed x of a piece: [tile of rows][hi, lo][pair of k][row] words of two
 * bf16, from tile of rows on; n_pairs of k in the piece, whole tiles. */
static uint32_t *x_at(const struct job *j, size_t k, size_t n_pairs,
                      size_t tile)
{
    return j->x + (k * j->n_m_tiles + 2 * n_pairs * tile) * TILE;
}

/* Round to bf16, ties to even, as float. */
AMX static inline __m512i round_bf16(__m512i bits)
{
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16),
                                   _mm512_set1_epi32(1));

    bits = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF));
    bits = _mm512_add_epi32(bits, odd);
    return _mm512_and_si512(bits, _mm512_set1_epi32((int)0xFFFF0000u));
}

/* Split x[n], n <= BLOCK_K, into bf16; zeros follow up to the next tile. */
AMX static void split(uint32_t *hi, uint32_t *lo, const float *x, size_t n)
{
    uint16_t *hi_out = (uint16_t *)hi, *lo_out = (uint16_t *)lo;
    size_t end = vibe_size_round(n, TILE_K);

    for (size_t i = 0; i < end; i += 16) {
        size_t left = i < n ? n - i : 0;
        __mmask16 mask = (__mmask16)(left >= 16 ? 0xFFFFu : (1u << left) - 1u);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        __m512i h = round_bf16(_mm512_castps_si512(v));
        __m512 rest = _mm512_sub_ps(v, _mm512_castsi512_ps(h));
        __m512i l = round_bf16(_mm512_castps_si512(rest));

        _mm256_storeu_si256((__m256i *)(void *)(hi_out + i),
                            _mm512_cvtepi32_epi16(_mm512_srli_epi32(h, 16)));
        _mm256_storeu_si256((__m256i *)(void *)(lo_out + i),
                            _mm512_cvtepi32_epi16(_mm512_srli_epi32(l, 16)));
    }
}

/* out[pair * TILE + row] = words[row][pair] */
static void interleave(const struct job *j, uint32_t *out,
                       uint32_t words[TILE][BLOCK_K / 2], size_t n_pairs)
{
    for (size_t r = 0; r < TILE; r += VIBE_CPU_PACK) {
        const void *rows[VIBE_CPU_PACK];

        for (size_t i = 0; i < VIBE_CPU_PACK; i++)
            rows[i] = words[r + i];
        j->p.kernels->pack[VIBE_F32]((float *)(void *)(out + r), TILE, rows,
                                     n_pairs);
    }
}

/* Pack one tile of rows of x; rows past the end are zero. */
static void pack_x(const struct job *j, struct space *s, size_t tile)
{
    size_t K = j->p.w->K;

    for (size_t k = 0; k < K; k += BLOCK_K) {
        size_t n_k = K - k < BLOCK_K ? K - k : BLOCK_K;
        size_t n_pairs = vibe_size_round(n_k, TILE_K) / 2;
        uint32_t *hi = x_at(j, k, n_pairs, tile);

        for (size_t i = 0; i < TILE; i++) {
            size_t m = tile * TILE + i;

            if (m < j->n_m) {
                split(s->words[0][i], s->words[1][i],
                      vibe_cpu_row(j->p.x, j->m + m) + k, n_k);
                continue;
            }
            memset(s->words[0][i], 0, n_pairs * sizeof(uint32_t));
            memset(s->words[1][i], 0, n_pairs * sizeof(uint32_t));
        }
        interleave(j, hi, s->words[0], n_pairs);
        interleave(j, hi + n_pairs * TILE, s->words[1], n_pairs);
    }
}

/* Row i of the block's rows of W; those past the end repeat the last. */
static struct vibe_cpu_weights weights_row(const struct job *j, size_t i)
{
    const struct vibe_matrix *w = j->p.w;
    size_t half = w->is_pair && i >= j->up;

    i -= half * j->up;
    i = i < j->n_n ? i : j->n_n - 1;
    return vibe_cpu_weights_row(w, j->n + i + half * w->N / 2);
}

/* 16 rows of W as a tile is loaded from. */
struct left {
    const void *data;
    size_t stride; /* bytes */
};

/* out[n_k] = columns k .. of a row in bf16: exact for 8 bits, rounded for the
 * products of I4 and its scales; zeros follow. */
static void lay_row(uint16_t *out, const struct vibe_cpu_weights *w, size_t K,
                    size_t k, size_t n_k)
{
    float wide[BLOCK_K];

    memset(out, 0, BLOCK_K * sizeof(*out));
    if (w->dtype == VIBE_BF16) {
        memcpy(out, (const uint16_t *)w->data + k, n_k * sizeof(*out));
        return;
    }
    vibe_cpu_expand_row(wide, w, K, k, n_k);
    for (size_t c = 0; c < n_k; c++) {
        uint32_t bits;

        memcpy(&bits, wide + c, sizeof(bits));
        out[c] = (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    }
}

/* Columns k .. k + n_k - 1 of 16 rows: in place if they are bf16, follow each
 * other and fill whole tiles, else a copy. */
static struct left lay_weights(const struct job *j, struct space *s, size_t row,
                               size_t k, size_t n_k)
{
    const size_t K = j->p.w->K;
    struct vibe_cpu_weights first = weights_row(j, row);
    struct vibe_cpu_weights last = weights_row(j, row + TILE - 1);
    size_t stride = K * sizeof(uint16_t);
    uint16_t *copy = s->weights + row * BLOCK_K;
    const int is_run = first.part == last.part &&
                       last.row == first.row + TILE - 1;

    if (first.dtype == VIBE_BF16 && is_run && n_k % TILE_K == 0)
        return (struct left){(const uint16_t *)first.data + k, stride};
    if (first.dtype == VIBE_BF16_PACKED && is_run && n_k == BLOCK_K &&
        first.row % TILE == 0) {
        vibe_cpu_expand_tile(j->p.kernels, copy, BLOCK_K, &first, K, k);
        return (struct left){copy, BLOCK_K * sizeof(uint16_t)};
    }
    for (size_t i = 0; i < TILE; i++) {
        struct vibe_cpu_weights w = weights_row(j, row + i);

        lay_row(copy + i * BLOCK_K, &w, K, k, n_k);
    }
    return (struct left){copy, BLOCK_K * sizeof(uint16_t)};
}

/* What to ask for during a call of multiply. */
struct ahead {
    const char *sums; /* two tiles of the next call */
    const char *x;    /* this call's part of the next rows */
    size_t n_x;       /* lines of it, each step along K */
};

/* Always inline: gcc leaves out calls of what does nothing but prefetch. */
__attribute__((always_inline)) static inline void fetch_step(
    const struct ahead *a, size_t step)
{
    enum { N = 2 * TILE / (BLOCK_K / TILE_K) }; /* two tiles in all steps */

    for (size_t i = step * N; i < (step + 1) * N; i++)
        __builtin_prefetch(a->sums + i * LINE, 0, 3);
    for (size_t i = step * a->n_x; i < (step + 1) * a->n_x; i++)
        __builtin_prefetch(a->x + i * LINE, 0, 2);
}

/* 2 x 2 tiles of sums += 2 tiles of rows of W times 2 tiles of rows of x, see
 * x_at; tiles 0-3 are sums, 4-5 weights, 6-7 x. */
AMX static void multiply(float *sums, const struct left w[2], const uint32_t *x,
                         size_t n_k, int is_first, int is_exact,
                         const struct ahead *ahead)
{
    const size_t size = vibe_size_round(n_k, TILE_K) / 2 * TILE;
    float *right = sums + (size_t)TILE * TILE;
    float *below = sums + (size_t)TILE * BLOCK_M;
    float *last = below + (size_t)TILE * TILE;

    /* gcc does not know what tile loads read: have copies written first */
    __asm__ volatile("" ::: "memory");
    if (is_first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums, LINE);
        _tile_loadd(1, right, LINE);
        _tile_loadd(2, below, LINE);
        _tile_loadd(3, last, LINE);
    }
    for (size_t k = 0; k < n_k; k += TILE_K, x += TILE_WORDS) {
        _tile_loadd(4, (const uint16_t *)w[0].data + k, w[0].stride);
        _tile_loadd(6, x, LINE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, x + 2 * size, LINE);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, (const uint16_t *)w[1].data + k, w[1].stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        fetch_step(ahead, k / TILE_K);
        if (!is_exact)
            continue;
        _tile_loadd(6, x + size, LINE);
        _tile_loadd(7, x + 3 * size, LINE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, LINE);
    _tile_stored(1, right, LINE);
    _tile_stored(2, below, LINE);
    _tile_stored(3, last, LINE);
}

/* Ask for the next piece of the rows of W: rows lie far apart, which no
 * prefetcher of the hardware follows. */
static void fetch_ahead(const struct left *w, size_t n_k)
{
    for (size_t r = 0; r < TILE; r++)
        for (size_t at = 0; at < n_k * sizeof(uint16_t); at += 64)
            __builtin_prefetch((const char *)w->data + r * w->stride +
                                   n_k * sizeof(uint16_t) + at,
                               0, 2);
}

/* What to ask for at tile of rows of x and rows i .. of W.  Sums: those of the
 * next rows of W or, after the last, of x; half of them right away.  The next
 * rows of x: each call for these a part. */
static struct ahead look_ahead(const struct job *j, struct space *s,
                               const uint32_t *x, size_t n_pairs, size_t tile,
                               size_t i)
{
    size_t calls = j->n_w / PAIR;
    size_t next_i = i + PAIR < j->n_w ? i + PAIR : 0;
    size_t next_tile = next_i ? tile : tile + 2;
    struct ahead a = {0};
    const char *below;

    if (next_tile >= j->n_m_tiles)
        next_tile = 0;
    a.sums = (const char *)sums_at(s, next_i, next_tile * TILE);
    below = (const char *)sums_at(s, next_i + TILE, next_tile * TILE);
    for (size_t at = 0; at < 2 * (size_t)TILE * LINE; at += LINE)
        __builtin_prefetch(below + at, 0, 3);
    if (tile + 2 < j->n_m_tiles) {
        a.n_x = 4 * (size_t)TILE / calls; /* of a step's 4 tiles */
        a.x = (const char *)(x + 4 * n_pairs * TILE) +
              i / PAIR * a.n_x * (n_pairs / TILE) * LINE;
    }
    return a;
}

/* Columns k .. k + n_k - 1 of the whole block. */
static void run_piece(const struct job *j, struct space *s, size_t k,
                      size_t n_k)
{
    size_t n_pairs = vibe_size_round(n_k, TILE_K) / 2;
    struct left w[BLOCK_N / TILE] = {{0}};

    for (size_t i = 0; i < j->n_w; i += TILE) {
        w[i / TILE] = lay_weights(j, s, i, k, n_k);
        if (k + n_k < j->p.w->K)
            fetch_ahead(&w[i / TILE], n_k);
    }
    for (size_t tile = 0; tile < j->n_m_tiles; tile += 2) {
        const uint32_t *x = x_at(j, k, n_pairs, tile);

        for (size_t i = 0; i < j->n_w; i += PAIR) {
            struct ahead a = look_ahead(j, s, x, n_pairs, tile, i);

            multiply(sums_at(s, i, tile * TILE), w + i / TILE, x, n_k, k == 0,
                     j->is_exact, &a);
        }
    }
}

/* Transpose sums and store them, 16 rows of y at a time. */
static void finish_block(const struct job *j, struct space *s)
{
    for (size_t m = 0; m < j->n_m; m += TILE) {
        for (size_t n = 0; n < j->n_w; n += VIBE_CPU_PACK) {
            const float *tile = sums_at(s, n - n % TILE, m);
            const void *rows[VIBE_CPU_PACK];

            for (size_t i = 0; i < VIBE_CPU_PACK; i++)
                rows[i] = tile + (n % TILE + i) * TILE;
            j->p.kernels->pack[VIBE_F32](s->z + n, BLOCK_N, rows, TILE);
        }
        for (size_t i = 0; i < TILE && m + i < j->n_m; i++) {
            const float *z = s->z + i * BLOCK_N;

            vibe_cpu_finish_row(&j->p, j->m + m + i, j->n, j->n_n, z,
                                j->p.w->is_pair ? z + j->up : NULL);
        }
    }
}

/* Channels n and following of y, for the rows that x holds. */
static void run_block(const struct job *rows, struct space *s, size_t n,
                      size_t width)
{
    struct job j = *rows;
    size_t K = j.p.w->K;

    j.n = n;
    j.n_n = j.p.y->C - n < width ? j.p.y->C - n : width;
    j.up = vibe_size_round(j.n_n, TILE);
    j.n_w = vibe_size_round(j.p.w->is_pair ? 2 * j.up : j.up, PAIR);
    for (size_t k = 0; k < K; k += BLOCK_K)
        run_piece(&j, s, k, K - k < BLOCK_K ? K - k : BLOCK_K);
    finish_block(&j, s);
}

/* 8 tiles of 16 rows of 64 bytes. */
static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} TILES = {
    .palette = 1,
    .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {TILE, TILE, TILE, TILE, TILE, TILE, TILE, TILE},
};

/* Tiles are a thread's own.  A constant: gcc takes the intrinsic to read 8
 * bytes only, and might not have written the rest of a local. */
AMX static void enter_tiles(void)
{
    _tile_loadconfig(&TILES);
}

AMX static void leave_tiles(void)
{
    _tile_release();
}

/* Channels of y in a block: half where threads would get less than two. */
static size_t block_width(const struct vibe_cpu_product *p)
{
    size_t width = p->w->is_pair ? BLOCK_N / 2 : BLOCK_N;

    return p->y->C < 2 * width * (size_t)p->threads ? width / 2 : width;
}

static void run(const struct job *job, struct space *spaces)
{
    size_t width = block_width(&job->p);

#pragma omp parallel num_threads(job->p.threads)
    {
        struct space *s = &spaces[omp_get_thread_num()];
        struct job j = *job;

        enter_tiles();
        for (j.m = 0; j.m < j.p.M; j.m += BLOCK_M) {
            j.n_m = j.p.M - j.m < BLOCK_M ? j.p.M - j.m : BLOCK_M;
            j.n_m_tiles = vibe_size_round(j.n_m, PAIR) / TILE;
#pragma omp for schedule(static)
            for (size_t tile = 0; tile < j.n_m_tiles; tile++)
                pack_x(&j, s, tile);
#pragma omp for schedule(dynamic)
            for (size_t n = 0; n < j.p.y->C; n += width)
                run_block(&j, s, n, width);
        }
        leave_tiles();
    }
}

/* Products worth their precision's price: by T, the rows of one dialogue, and
 * the matrix alone, so that bits do not depend on what else is computed. */
static int is_exact(const struct vibe_stream *s, const struct vibe_tensor *x,
                    const struct vibe_matrix *w)
{
    return s->be->is_exact || x->T < 64 || w->whole_N * w->K < 1 << 20;
}

static int is_for_tiles(const struct vibe_matrix *w, int exact)
{
    for (int i = 0; i < w->n_parts; i++) {
        enum vibe_dtype dtype = w->part[i].dtype;

        if (dtype == VIBE_F32 || dtype == VIBE_F16 ||
            (dtype == VIBE_I4 && exact))
            return 0;
    }
    return 1;
}

static void gemm(struct vibe_stream *s, const struct vibe_tensor *y,
                 const struct vibe_tensor *x, const struct vibe_matrix *w,
                 enum vibe_epilogue epilogue, const struct vibe_tensor *gate)
{
    struct job j = {.p = vibe_cpu_product(s, y, x, w, epilogue, gate),
                    .is_exact = is_exact(s, x, w)};
    size_t rows = j.p.M < BLOCK_M ? vibe_size_round(j.p.M, PAIR) : BLOCK_M;
    size_t words, bytes;
    struct space *spaces;

    if (!is_for_tiles(w, j.is_exact)) {
        vibe_cpu_gemm(s, y, x, w, epilogue, gate);
        return;
    }
    words = rows * vibe_size_round(w->K, TILE_K); /* hi and lo, a half each */
    bytes = (size_t)j.p.threads * sizeof(*spaces);
    spaces = vibe_cpu_scratch(s, bytes + words * sizeof(*j.x));
    if (!spaces)
        return;
    j.x = (uint32_t *)(void *)(spaces + j.p.threads);
    run(&j, spaces);
}

void vibe_cpu_amx_init(struct vibe_ops *ops)
{
    ops->gemm = gemm;
}
#else
/* Never called: vibe_cpu_has(VIBE_CPU_AMX) is false here. */
void vibe_cpu_amx_init(struct vibe_ops *ops)
{
    (void)ops;
}
#endif
