/*
 * bench_attend - what does a past cost a step of the language model?
 *
 * Runs product and attention of 28 layers as one captured graph, for a row
 * with a past and one without, as a dialogue has them, and prints per layer
 * what it takes more than without a past, beside the keys and values that are
 * read more at the probed speed.
 *
 *   bench_attend [device]
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/backend/ops.h"
#include "engine/base/clock.h"
#include "engine/format/config.h"
#include "engine/model/kvcache.h"

enum {
    LAYERS = 28,
    HEAD = 128,
    ROWS = 2,
    SHORT = 100, /* the past of the other row */
    MOST = 100000,
    REPEATS = 30,
};

struct bench {
    struct vibe_backend *be;
    struct vibe_stream s;
    struct vibe_kvcache *cache;
    struct vibe_tensor x, qkv, y, inv_freq, rows; /* rows: seq, pos */
    struct vibe_matrix products[LAYERS];
    double bandwidth; /* bytes per second */
};

static void need(int rc, const struct vibe_error *err)
{
    if (!rc)
        return;
    fprintf(stderr, "bench_attend: %s\n", err->msg);
    exit(1);
}

static void run_layers(void *user)
{
    struct bench *b = user;
    const struct vibe_rope rope = {.inv_freq = b->inv_freq.data};
    const struct vibe_rows rows = {b->rows.data,
                                   (int32_t *)b->rows.data + ROWS};

    for (size_t i = 0; i < LAYERS; i++) {
        vibe_linear(&b->s, &b->qkv, &b->x, &b->products[i], VIBE_STORE, NULL);
        vibe_attention(&b->s, &b->y, &b->qkv, vibe_kvcache_kv(b->cache), i,
                       &rows, &rope);
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Seconds of the graph with the first row at position past. */
static double measure(struct bench *b, size_t past)
{
    const int32_t at[2 * ROWS] = {0, 1, (int32_t)past, SHORT};
    struct vibe_graph *graph = NULL;
    struct vibe_error err = {0};
    double times[REPEATS];

    for (size_t i = 0; i < ROWS; i++)
        need(vibe_kvcache_ensure(b->cache, &b->s, i, (size_t)at[ROWS + i] + 1,
                                 &err),
             &err);
    vibe_write(&b->s, b->rows.data, at, sizeof(at));
    run_layers(b); /* outside of a capture: scratch memory grows here */
    need(vibe_stream_check(&b->s, &err), &err);
    for (int i = -1; i < REPEATS; i++) {
        double start = vibe_clock_s();

        vibe_graph_run(&b->s, &graph, run_layers, b);
        need(vibe_stream_check(&b->s, &err), &err);
        if (i >= 0)
            times[i] = vibe_clock_s() - start;
    }
    vibe_graph_free(&b->s, &graph);
    qsort(times, REPEATS, sizeof(*times), ascending);
    return times[REPEATS / 2];
}

/* Weights of [n][hidden] bf16 for each layer, whatever they are; owned. */
static void *make_products(struct bench *b, size_t n, size_t hidden)
{
    const size_t bytes = n * hidden * 2;
    char *weights = b->be->ops->alloc(b->be, LAYERS * bytes);

    if (!weights)
        exit(1);
    for (size_t i = 0; i < LAYERS; i++)
        b->products[i] = (struct vibe_matrix){
            .N = n,
            .K = hidden,
            .whole_N = n,
            .bytes = bytes,
            .part = {{.data = weights + i * bytes, .dtype = VIBE_BF16, .n = n}},
            .n_parts = 1,
        };
    return weights;
}

static void make_tensor(struct bench *b, struct vibe_tensor *t, size_t B,
                        size_t C)
{
    struct vibe_error err = {0};

    need(vibe_tensor_init(t, b->be, VIBE_F32, B, 1, C, &err), &err);
}

static void print_pasts(struct bench *b)
{
    static const size_t pasts[] = {200, 1000, 2000, 4000, 10000, 30000, MOST};
    const double empty = measure(b, 0);

    printf("%.2f us a layer with no past\n", 1e6 * empty / LAYERS);
    for (size_t i = 0; i < sizeof(pasts) / sizeof(*pasts); i++) {
        const double more = measure(b, pasts[i]) - empty;
        const size_t bytes = pasts[i] * vibe_kvcache_position_bytes(b->cache);
        const double least = (double)bytes / b->bandwidth;

        printf("  %6zu: +%6.2f us, %6.2f MB, %5.2f us at %.0f GB/s: %.2f x\n",
               pasts[i], 1e6 * more / LAYERS, 1e-6 * (double)bytes / LAYERS,
               1e6 * least / LAYERS, 1e-9 * b->bandwidth, more / least);
    }
    fflush(stdout);
}

static void bench_model(struct bench *b, const char *name, size_t hidden,
                        size_t n_kv, enum vibe_dtype dtype)
{
    const struct vibe_lm_config config = {.num_hidden_layers = LAYERS,
                                          .num_key_value_heads = n_kv,
                                          .head_dim = HEAD,
                                          .hidden_size = hidden};
    const size_t n = hidden + 2 * n_kv * HEAD;
    struct vibe_tensor *tensors[] = {&b->x, &b->qkv, &b->y, &b->inv_freq,
                                     &b->rows};
    struct vibe_error err = {0};
    void *weights = make_products(b, n, hidden);

    need(vibe_kvcache_open(&b->cache, b->be, &config, ROWS, MOST + 1, dtype,
                           &err),
         &err);
    make_tensor(b, &b->x, ROWS, hidden);
    make_tensor(b, &b->qkv, ROWS, n);
    make_tensor(b, &b->y, ROWS, hidden);
    make_tensor(b, &b->inv_freq, 1, HEAD / 2);
    make_tensor(b, &b->rows, 1, 2 * ROWS); /* int32 is as wide as f32 */
    printf("%-4s %-7s ", name, vibe_dtype_name(dtype));
    print_pasts(b);
    for (size_t i = 0; i < sizeof(tensors) / sizeof(*tensors); i++)
        vibe_tensor_release(tensors[i], b->be);
    vibe_kvcache_free(b->cache);
    b->be->ops->free(b->be, weights);
}

int main(int argc, char **argv)
{
    const struct vibe_backend_options options = {
        .want_cuda = 1,
        .device = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0,
    };
    static const enum vibe_dtype dtypes[] = {VIBE_BF16, VIBE_F8_E4M3};
    static struct bench b;
    struct vibe_error err = {0};

    if (vibe_backend_open(&b.be, &options, &err)) {
        printf("bench_attend: skipped: %s\n", err.msg);
        return 0;
    }
    need(vibe_stream_init(&b.s, b.be, &err), &err);
    b.bandwidth = b.be->ops->probe_bandwidth(b.be);
    for (size_t i = 0; i < 2; i++) {
        bench_model(&b, "1.5B", 1536, 2, dtypes[i]);
        bench_model(&b, "7B", 3584, 4, dtypes[i]);
    }
    vibe_stream_release(&b.s);
    vibe_backend_free(b.be);
    return 0;
}
