/*
 * bench_cuda - is a GPU right, and how near are its products to its memory?
 *
 * Compares every op with the reference, then runs the matrices of the 1.5B
 * and 7B models, the diffusion head and the codec from a pool of 1 GB, larger
 * than any cache, as one captured graph of about 4 GB of weights, and prints
 * what a product takes, bytes of weights per second as a share of the probed
 * reading speed, and in brackets what it takes with its norm.  Then products
 * of many rows, by time and arithmetic.
 *
 *   bench_cuda [device [any [rows]]]     any: only the speeds; rows: only of
 *                                        products of so many
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/backend/ops.h"
#include "engine/backend/parity.h"
#include "engine/backend/tiles.h"
#include "engine/base/clock.h"

/* Rows with the longest K and N: a piece of a prompt. */
enum { REPEATS = 20, MAX_T = 2000, MAX_K = 18944, MAX_N = 37888, SEED = 7 };

static const size_t pool_bytes = (size_t)1 << 30;
static const size_t graph_bytes = (size_t)4 << 30;

struct bench {
    struct vibe_backend *be;
    struct vibe_stream s;
    struct vibe_tensor pool, x, y, scale; /* scale: [MAX_N] */
    struct vibe_tensor far;               /* of tiles: no escapes */
    struct vibe_tensor room;
    double bandwidth; /* bytes per second */
    size_t only_rows; /* 0: of all numbers of rows */
};

/* One product, over and over, on the next weights of the pool each time. */
struct product {
    struct bench *b;
    enum vibe_dtype dtype;
    size_t B, T, N, K;
    unsigned forms; /* that x may have, see vibe_form_for */
    int is_pair, is_gemm, is_normed;
    size_t count;
};

static void fail(const char *what, const struct vibe_error *err)
{
    fprintf(stderr, "bench_cuda: %s: %s\n", what, err->msg);
    exit(1);
}

static struct vibe_tensor shaped(const struct vibe_tensor *memory, size_t B,
                                 size_t T, size_t C)
{
    struct vibe_tensor t = *memory;

    t.B = B;
    t.T = T;
    t.C = C;
    t.stride_b = T * C;
    t.stride_t = C;
    return t;
}

/* Of a matrix whose K is a multiple of 64, as the backend lays it out. */
static size_t matrix_bytes(enum vibe_dtype dtype, size_t N, size_t K)
{
    return vibe_tile_bytes(dtype) ? vibe_tiles_bytes(dtype, N, K)
                                  : N * vibe_dtype_bytes(dtype, K);
}

static void multiply(void *user)
{
    struct product *p = user;
    struct bench *b = p->b;
    struct vibe_tensor x = shaped(&b->x, p->B, p->T, p->K);
    struct vibe_tensor y = shaped(&b->y, p->B, p->T,
                                  p->is_pair ? p->N / 2 : p->N);
    struct vibe_tensor room = shaped(&b->room, p->B, p->T, p->K);
    const struct vibe_norm norm = {
        .w = b->scale.data, .eps = 1e-6f, .room = &room};
    enum vibe_epilogue epilogue = p->is_pair ? VIBE_SWIGLU : VIBE_STORE;
    size_t bytes = matrix_bytes(p->dtype, p->N, p->K);
    size_t n_pool = pool_bytes / bytes;

    for (size_t i = 0; i < p->count; i++) {
        const struct vibe_matrix w = {
            .N = p->N,
            .K = p->K,
            .whole_N = p->N,
            .bytes = bytes,
            .part = {{.data = (char *)b->pool.data + i % n_pool * bytes,
                      .scale = b->scale.data,
                      .n_scales = p->N,
                      .far = b->far.data,
                      .is_tiled = vibe_tile_bytes(p->dtype) > 0,
                      .dtype = p->dtype,
                      .n = p->N}},
            .n_parts = 1,
            .is_pair = p->is_pair,
        };

        /* as in a model, where only products read it */
        if (!p->is_normed)
            x.form = vibe_form_for(b->be, &x, &w, p->forms);
        if (p->is_normed)
            vibe_linear_norm(&b->s, &y, &x, &norm, &w, epilogue, NULL);
        else if (p->is_gemm)
            vibe_gemm(&b->s, &y, &x, &w, epilogue, NULL);
        else
            vibe_linear(&b->s, &y, &x, &w, epilogue, NULL);
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Seconds of one product: the median of REPEATS graphs. */
static double measure(struct product *p)
{
    struct bench *b = p->b;
    struct vibe_graph *graph = NULL;
    struct vibe_error err = {0};
    double times[REPEATS];

    multiply(p); /* outside of a capture: scratch memory grows here */
    for (int i = -1; i < REPEATS; i++) {
        double start = vibe_clock_s();

        vibe_graph_run(&b->s, &graph, multiply, p);
        if (vibe_stream_check(&b->s, &err))
            fail("product", &err);
        if (i >= 0)
            times[i] = vibe_clock_s() - start;
    }
    vibe_graph_free(&b->s, &graph);
    qsort(times, REPEATS, sizeof(*times), ascending);
    return times[REPEATS / 2] / (double)p->count;
}

/* What else writes x cannot leave it in digits. */
enum {
    BY_NORM_OR_ATTENTION = VIBE_ALL_FORMS,
    BY_OTHERS = 1 << VIBE_FORM_WOVEN
};

/* Matrices that products of few rows are made with. */
static const struct shape {
    const char *name;
    size_t N, K;
    int is_pair, is_normed; /* is_normed: a norm makes its x */
    unsigned forms;         /* those in which a model has x */
} shapes[] = {
    {"7B qkv", 4608, 3584, 0, 1, BY_NORM_OR_ATTENTION},
    {"7B o", 3584, 3584, 0, 0, BY_NORM_OR_ATTENTION},
    {"7B gate up", 37888, 3584, 1, 1, BY_NORM_OR_ATTENTION},
    {"7B down", 3584, 18944, 0, 0, BY_OTHERS},
    {"1.5B qkv", 2048, 1536, 0, 1, BY_NORM_OR_ATTENTION},
    {"1.5B o", 1536, 1536, 0, 0, BY_NORM_OR_ATTENTION},
    {"1.5B gate up", 17920, 1536, 1, 1, BY_NORM_OR_ATTENTION},
    {"1.5B down", 1536, 8960, 0, 0, BY_OTHERS},
    {"7B head up", 21504, 3584, 1, 1, BY_NORM_OR_ATTENTION},
    {"7B head down", 3584, 10752, 0, 0, BY_OTHERS},
    {"1.5B head up", 9216, 1536, 1, 1, BY_NORM_OR_ATTENTION},
    {"1.5B head dn", 1536, 4608, 0, 0, BY_OTHERS},
    {"7B adaLN", 10752, 3584, 0, 0, BY_OTHERS},
    {"codec up", 8192, 2048, 0, 0, BY_OTHERS},
    {"codec down", 2048, 8192, 0, 0, BY_OTHERS},
    {"transposed", 8192, 4096, 0, 0, BY_OTHERS},
};

/* The first of them are those of a layer of the 7B. */
enum { LAYER = 4 };

/* What products of some rows with the matrices of a layer take. */
struct sum {
    double bytes, s, normed_s;
};

/* Print how fast bytes of weights are read in s seconds, and in how many
 * microseconds with what norms take. */
static void print_rate(const struct bench *b, size_t M, double bytes, double s,
                       double normed_s)
{
    printf("  M=%-2zu %6.1f us %3.0f%%", M, 1e6 * s,
           100.0 * bytes / s / b->bandwidth);
    if (normed_s > s)
        printf(" (%.1f)", 1e6 * normed_s);
}

static void bench_shape(struct bench *b, enum vibe_dtype dtype,
                        const struct shape *shape, size_t M, struct sum *sum)
{
    const size_t bytes = matrix_bytes(dtype, shape->N, shape->K);
    struct product p = {
        .b = b,
        .dtype = dtype,
        .B = M,
        .T = 1,
        .N = shape->N,
        .K = shape->K,
        .forms = shape->forms,
        .is_pair = shape->is_pair,
        .count = graph_bytes / bytes,
    };
    const double s = measure(&p);
    double normed_s = s;

    p.is_normed = shape->is_normed;
    if (p.is_normed)
        normed_s = measure(&p);
    print_rate(b, M, (double)bytes, s, normed_s);
    fflush(stdout);
    if (shape < shapes + LAYER)
        *sum = (struct sum){sum->bytes + (double)bytes, sum->s + s,
                            sum->normed_s + normed_s};
}

static void bench_linear(struct bench *b, enum vibe_dtype dtype)
{
    static const size_t rows[] = {1, 2, 4, 8, 16, 32};
    enum { N_ROWS = sizeof(rows) / sizeof(*rows) };
    struct sum layer[N_ROWS] = {0};

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        printf("%-11s %-12s %6.1f MB", vibe_dtype_name(dtype), shapes[i].name,
               1e-6 * (double)matrix_bytes(dtype, shapes[i].N, shapes[i].K));
        for (size_t r = 0; r < N_ROWS; r++)
            if (!b->only_rows || b->only_rows == rows[r])
                bench_shape(b, dtype, &shapes[i], rows[r], &layer[r]);
        printf("\n");
    }
    printf("%-11s 7B layer    ", vibe_dtype_name(dtype));
    for (size_t r = 0; r < N_ROWS; r++)
        if (layer[r].s > 0)
            print_rate(b, rows[r], layer[r].bytes, layer[r].s,
                       layer[r].normed_s);
    printf("\n");
}

static void bench_gemm(struct bench *b, enum vibe_dtype dtype)
{
    static const struct {
        size_t T, N, K;
    } pieces[] = {
        {8, 4096, 1024},     {8, 1024, 4096},     {40, 1280, 1024},
        {40, 2048, 512},     {40, 512, 2048},     {200, 1024, 256},
        {200, 256, 1024},    {800, 512, 128},     {800, 128, 512},
        {1600, 256, 64},     {1600, 64, 256},     {3200, 128, 32},
        {3200, 32, 128},     {3200, 1, 224},      {256, 4608, 3584},
        {256, 37888, 3584},  {256, 3584, 18944},  {1024, 4608, 3584},
        {1024, 3584, 3584},  {1024, 37888, 3584}, {1024, 3584, 18944},
        {2000, 4608, 3584},  {2000, 3584, 3584},  {2000, 37888, 3584},
        {2000, 3584, 18944},
    };

    for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
        struct product p = {
            .b = b,
            .dtype = dtype,
            .B = 1,
            .T = pieces[i].T,
            .N = pieces[i].N,
            .K = pieces[i].K,
            .is_gemm = 1,
            .count = 20,
        };
        double s = measure(&p);
        double flops = 2.0 * (double)(p.T * p.N * p.K);

        printf("gemm %-7s T=%-4zu N=%-5zu K=%-5zu %8.1f us %7.2f TFLOP/s\n",
               vibe_dtype_name(dtype), p.T, p.N, p.K, 1e6 * s,
               1e-12 * flops / s);
    }
}

static void print_failure(void *user, const char *op, const char *shape,
                          double max_err, double bound, int ok)
{
    size_t *n_cases = user;

    ++*n_cases;
    if (!ok)
        printf("FAILED  %s %s: error %.3g, allowed %.3g\n", op, shape, max_err,
               bound);
}

static size_t check(struct bench *b)
{
    struct vibe_error err = {0};
    size_t n_cases = 0;
    size_t failed = vibe_parity_run(b->be, SEED, print_failure, &n_cases, &err);

    printf("parity  %zu cases, %zu failed%s%s\n", n_cases, failed,
           err.code ? ": " : "", err.msg);
    fflush(stdout);
    return failed;
}

/* Pseudo-random bytes of magnitude below 2 in every dtype. */
static void fill_pool(struct bench *b)
{
    size_t n = pool_bytes / 16;
    uint64_t *host = malloc(n);
    uint64_t r = 1;

    if (!host)
        exit(1);
    for (size_t i = 0; i < n / sizeof(*host); i++) {
        r = r * 6364136223846793005u + 1442695040888963407u;
        host[i] = (r ^ r >> 29) & 0xBFBFBFBFBFBFBFBFu;
    }
    for (size_t at = 0; at < pool_bytes; at += n)
        vibe_write(&b->s, (char *)b->pool.data + at, host, n);
    /* any bytes of the pool are floats: x gets some that are not zeros */
    for (size_t t = 0; t < MAX_T; t++)
        vibe_write(&b->s, (float *)b->x.data + t * MAX_K, host + t,
                   MAX_K * sizeof(float));
    vibe_write(&b->s, b->scale.data, host, MAX_N * sizeof(float));
    vibe_stream_check(&b->s, NULL);
    free(host);
}

static void make(struct bench *b)
{
    struct vibe_error err = {0};
    size_t x = (size_t)MAX_T * MAX_K;
    size_t y = (size_t)MAX_T * MAX_N;

    if (vibe_stream_init(&b->s, b->be, &err) ||
        vibe_tensor_init(&b->pool, b->be, VIBE_F32, 1, 1, pool_bytes / 4,
                         &err) ||
        vibe_tensor_init(&b->x, b->be, VIBE_F32, 1, 1, x, &err) ||
        vibe_tensor_init(&b->y, b->be, VIBE_F32, 1, 1, y, &err) ||
        vibe_tensor_init(&b->room, b->be, VIBE_F32, 1, 32, MAX_K, &err) ||
        vibe_tensor_init(&b->scale, b->be, VIBE_F32, 1, 1, MAX_N, &err) ||
        vibe_tensor_init(&b->far, b->be, VIBE_F32, 1, 1, MAX_N, &err))
        fail("memory", &err);
    fill_pool(b);
}

int main(int argc, char **argv)
{
    const struct vibe_backend_options options = {
        .want_cuda = 1,
        .device = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0,
    };
    struct vibe_error err = {0};
    struct bench b = {0};
    size_t failed;

    if (vibe_backend_open(&b.be, &options, &err)) {
        printf("bench_cuda: skipped: %s\n", err.msg);
        return 0;
    }
    failed = argc > 2 ? 0 : check(&b);
    b.only_rows = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    make(&b);
    b.bandwidth = b.be->ops->probe_bandwidth(b.be);
    printf("%s; memory reads %.1f GB/s\n", b.be->name, 1e-9 * b.bandwidth);
    bench_linear(&b, VIBE_BF16);
    bench_linear(&b, VIBE_F8_E4M3);
    bench_linear(&b, VIBE_I8);
    bench_linear(&b, VIBE_I4);
    bench_linear(&b, VIBE_BF16_PACKED);
    if (!b.only_rows) {
        bench_gemm(&b, VIBE_BF16);
        bench_gemm(&b, VIBE_F8_E4M3);
    }

    vibe_tensor_release(&b.pool, b.be);
    vibe_tensor_release(&b.x, b.be);
    vibe_tensor_release(&b.y, b.be);
    vibe_tensor_release(&b.room, b.be);
    vibe_tensor_release(&b.scale, b.be);
    vibe_tensor_release(&b.far, b.be);
    vibe_stream_release(&b.s);
    vibe_backend_free(b.be);
    return failed ? 1 : 0;
}
