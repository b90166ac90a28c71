/*
 * bench_gemm - vibe_gemm against OpenBLAS, and the codec's convolutions.
 *
 * First the matrices of a decoder layer with 1000 rows, bf16 weights, beside
 * OpenBLAS's sgemm on the same shape (which needs an f32 copy of the weights);
 * the library is opened at run time and left out when it is not there.  Then
 * the two products of each codec stage for one frame.
 *
 *   bench_gemm [threads]
 *
 * VIBEVOICE_CPU_ISA chooses our kernels; OPENBLAS_CORETYPE=Haswell holds
 * OpenBLAS to AVX2.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/backend/cpu/cpu.h"
#include "engine/backend/ops.h"
#include "engine/base/clock.h"

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 }; /* of cblas.h */

typedef void sgemm(int order, int trans_a, int trans_b, int m, int n, int k,
                   float alpha, const float *a, int lda, const float *b,
                   int ldb, float beta, float *c, int ldc);

struct problem {
    struct vibe_backend *be;
    struct vibe_stream s;
    struct vibe_tensor x, y;
    struct vibe_matrix w;
    uint16_t *weights;
    size_t M;
};

static sgemm *open_blas(int threads)
{
    void *lib = dlopen("libopenblas.so.0", RTLD_NOW);
    void (*set_threads)(int);
    const char *(*config)(void);
    sgemm *fn;

    if (!lib)
        return NULL;
    *(void **)&set_threads = dlsym(lib, "openblas_set_num_threads");
    *(void **)&config = dlsym(lib, "openblas_get_config");
    *(void **)&fn = dlsym(lib, "cblas_sgemm");
    if (set_threads)
        set_threads(threads);
    if (config)
        printf("%s\n", config());
    return fn;
}

/* Numbers in [-1, 1), as the upper half of a float. */
static void fill(float *x, uint16_t *halves, size_t n)
{
    uint32_t r = 1;

    for (size_t i = 0; i < n; i++) {
        r = r * 1664525u + 1013904223u;
        if (x)
            x[i] = (float)(r >> 8) * 0x1p-23f - 1.0f;
        else
            halves[i] = (uint16_t)(0x3E00 + (r >> 24) + (r >> 8 & 0x8000));
    }
}

static void problem_init(struct problem *p, struct vibe_backend *be, size_t M,
                         size_t N, size_t K)
{
    p->be = be;
    p->M = M;
    p->weights = malloc(N * K * sizeof(*p->weights));
    if (!p->weights || vibe_stream_init(&p->s, be, NULL) ||
        vibe_tensor_init(&p->x, be, VIBE_F32, 1, M, K, NULL) ||
        vibe_tensor_init(&p->y, be, VIBE_F32, 1, M, N, NULL))
        exit(1);
    fill(NULL, p->weights, N * K);
    fill(p->x.data, NULL, M * K);
    p->w = (struct vibe_matrix){
        .N = N,
        .K = K,
        .bytes = N * K * sizeof(*p->weights),
        .n_parts = 1,
        .part = {{.data = p->weights, .dtype = VIBE_BF16, .n = N}},
    };
}

static void problem_release(struct problem *p)
{
    vibe_tensor_release(&p->x, p->be);
    vibe_tensor_release(&p->y, p->be);
    vibe_stream_release(&p->s);
    free(p->weights);
}

/* Seconds, best of some runs. */
static double time_ours(struct problem *p, enum vibe_epilogue epilogue,
                        int runs)
{
    double best = 1e9;

    for (int i = 0; i < runs; i++) {
        double start = vibe_clock_s();

        vibe_gemm(&p->s, &p->y, &p->x, &p->w, epilogue, NULL);
        start = vibe_clock_s() - start;
        best = start < best ? start : best;
    }
    return best;
}

static double time_blas(struct problem *p, sgemm *blas, int runs)
{
    size_t N = p->w.N, K = p->w.K;
    float *b = malloc(N * K * sizeof(*b));
    double best = 1e9;

    if (!b)
        exit(1);
    vibe_dtype_to_f32(b, p->weights, VIBE_BF16, N * K);
    for (int i = 0; i < runs; i++) {
        double start = vibe_clock_s();

        blas(ROW_MAJOR, NO_TRANS, TRANS, (int)p->M, (int)N, (int)K, 1.0f,
             p->x.data, (int)K, b, (int)K, 0.0f, p->y.data, (int)N);
        start = vibe_clock_s() - start;
        best = start < best ? start : best;
    }
    free(b);
    return best;
}

static void prefill(struct vibe_backend *be, sgemm *blas)
{
    static const struct {
        const char *name;
        size_t N, K;
    } shapes[] = {
        {"qkv", 2048, 1536},
        {"o", 1536, 1536},
        {"gate, up", 17920, 1536},
        {"down", 1536, 8960},
    };
    double ours = 0.0, theirs = 0.0;

    printf("\nprompt of 1000 tokens, one layer of the 1.5B\n");
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        struct problem p;
        double flop = 2e-9 * 1000.0 * (double)(shapes[i].N * shapes[i].K);
        double t, u = 0.0;

        problem_init(&p, be, 1000, shapes[i].N, shapes[i].K);
        t = time_ours(&p, VIBE_STORE, 3);
        if (blas)
            u = time_blas(&p, blas, 3);
        ours += t;
        theirs += u;
        printf("  %-8s N=%-5zu K=%-4zu %7.1f ms %7.1f GFLOP/s", shapes[i].name,
               shapes[i].N, shapes[i].K, 1e3 * t, flop / t);
        if (blas)
            printf("   OpenBLAS %7.1f GFLOP/s, ratio %.2f", flop / u, u / t);
        printf("\n");
        problem_release(&p);
    }
    printf("  all %.1f ms", 1e3 * ours);
    if (blas)
        printf(", OpenBLAS %.1f ms, ratio %.2f", 1e3 * theirs, theirs / ours);
    printf("\n");
}

/* Both products of a block, times the blocks of that stage. */
static void codec(struct vibe_backend *be)
{
    static const struct {
        size_t C, T, blocks;
    } stages[] = {
        {1024, 8, 3},  {512, 40, 3},  {256, 200, 3},
        {128, 800, 3}, {64, 1600, 3}, {32, 3200, 3},
    };
    double total = 0.0, flop_all = 0.0;

    printf("\none frame of one codec tower, stages of more than one column\n");
    for (size_t i = 0; i < sizeof(stages) / sizeof(*stages); i++) {
        size_t C = stages[i].C, T = stages[i].T;
        double flop = 2e-9 * (double)(T * 4 * C * C);
        struct problem up, down;
        double t, u;

        problem_init(&up, be, T, 4 * C, C);
        problem_init(&down, be, T, C, 4 * C);
        t = time_ours(&up, VIBE_GELU, 5);
        u = time_ours(&down, VIBE_ADD, 5);
        printf("  C=%-4zu T=%-4zu  up and GELU %6.2f ms %6.1f GFLOP/s   down "
               "%6.2f ms %6.1f GFLOP/s\n",
               C, T, 1e3 * t, flop / t, 1e3 * u, flop / u);
        total += (t + u) * (double)stages[i].blocks;
        flop_all += 2.0 * flop * (double)stages[i].blocks;
        problem_release(&up);
        problem_release(&down);
    }
    printf("  all %.1f ms, %.1f GFLOP/s\n", 1e3 * total, flop_all / total);
}

int main(int argc, char **argv)
{
    struct vibe_backend_options options = {
        .threads = argc > 1 ? (int)strtol(argv[1], NULL, 10)
                            : vibe_cpu_threads(),
    };
    struct vibe_error err;
    struct vibe_backend *be = NULL;
    sgemm *blas;

    if (vibe_backend_open(&be, &options, &err)) {
        fprintf(stderr, "bench_gemm: %s\n", err.msg);
        return 1;
    }
    printf("%s\n", be->name);
    blas = open_blas(options.threads);
    prefill(be, blas);
    codec(be);
    vibe_backend_free(be);
    return 0;
}
