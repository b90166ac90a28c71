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
#include <string.h>

#include "engine/backend/ops.h"
#include "engine/base/clock.h"
#include "engine/format/config.h"
#include "engine/model/kvcache.h"

enum { LAYERS = 28, REPEATS = 30, MOST = 100000 };

struct bench {
    struct vibe_backend *be;
    struct vibe_stream s;
    struct vibe_lm_config config;
    struct vibe_kvcache *cache;
    struct vibe_tensor x, qkv, y, inv_freq, rows; /* rows: seq, pos */
    struct vibe_matrix *products;                 /* [LAYERS] */
    size_t B;
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
                                   (int32_t *)b->rows.data + b->B};

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

/* Seconds of the graph with half of the rows at position past. */
static double measure(struct bench *b, size_t past)
{
    struct vibe_graph *graph = NULL;
    struct vibe_error err = {0};
    double times[REPEATS];
    int32_t at[64] = {0};

    for (size_t i = 0; i < b->B; i++) {
        at[i] = (int32_t)i;
        at[b->B + i] = i < b->B / 2 ? (int32_t)past : 100;
        need(vibe_kvcache_ensure(b->cache, &b->s, i, (size_t)at[b->B + i] + 1,
                                 &err),
             &err);
    }
    vibe_write(&b->s, b->rows.data, at, 2 * b->B * sizeof(*at));
    run_layers(b);
    need(vibe_stream_check(&b->s, &err), &err);
    for (int i = -2; i < REPEATS; i++) {
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

static void bench_model(struct bench *b, const char *name, size_t hidden,
                        size_t n_kv, double bandwidth, enum vibe_dtype dtype)
{
    static const size_t pasts[] = {200, 1000, 2000, 4000, 10000, 30000, MOST};
    const size_t hd = 128;
    const size_t n = hidden + 2 * n_kv * hd;
    struct vibe_error err = {0};
    void *weights;
    double empty;

    b->config = (struct vibe_lm_config){.num_hidden_layers = LAYERS,
                                        .num_key_value_heads = n_kv,
                                        .head_dim = hd,
                                        .hidden_size = hidden};
    need(vibe_kvcache_open(&b->cache, b->be, &b->config, b->B, MOST + 1, dtype,
                           &err),
         &err);
    need(vibe_tensor_init(&b->x, b->be, VIBE_F32, b->B, 1, hidden, &err), &err);
    need(vibe_tensor_init(&b->qkv, b->be, VIBE_F32, b->B, 1, n, &err), &err);
    need(vibe_tensor_init(&b->y, b->be, VIBE_F32, b->B, 1, hidden, &err), &err);
    need(vibe_tensor_init(&b->inv_freq, b->be, VIBE_F32, 1, 1, hd / 2, &err),
         &err);
    need(vibe_tensor_init(&b->rows, b->be, VIBE_F32, 1, 1, 2 * b->B, &err),
         &err);
    weights = b->be->ops->alloc(b->be, LAYERS * n * hidden * 2);
    if (!weights)
        exit(1);
    for (size_t i = 0; i < LAYERS; i++)
        b->products[i] = (struct vibe_matrix){
            .N = n,
            .K = hidden,
            .whole_N = n,
            .bytes = n * hidden * 2,
            .part = {{.data = (char *)weights + i * n * hidden * 2,
                      .dtype = VIBE_BF16,
                      .n = n}},
            .n_parts = 1,
        };
    empty = measure(b, 0);
    printf("%-5s %-8s %zu rows: %.2f us a layer with no past\n", name,
           vibe_dtype_name(dtype), b->B, 1e6 * empty / LAYERS);
    for (size_t i = 0; i < sizeof(pasts) / sizeof(*pasts); i++) {
        const double more = measure(b, pasts[i]) - empty;
        const double bytes = (double)(b->B / 2 * pasts[i] *
                                      vibe_kvcache_position_bytes(b->cache));

        printf("  %6zu: +%6.2f us, %6.2f MB, %5.2f us at %.0f GB/s: %.2f x\n",
               pasts[i], 1e6 * more / LAYERS, 1e-6 * bytes / LAYERS,
               1e6 * bytes / bandwidth / LAYERS, 1e-9 * bandwidth,
               more * bandwidth / bytes);
    }
    fflush(stdout);
    b->be->ops->free(b->be, weights);
    vibe_tensor_release(&b->rows, b->be);
    vibe_tensor_release(&b->inv_freq, b->be);
    vibe_tensor_release(&b->y, b->be);
    vibe_tensor_release(&b->qkv, b->be);
    vibe_tensor_release(&b->x, b->be);
    vibe_kvcache_free(b->cache);
}

int main(int argc, char **argv)
{
    const struct vibe_backend_options options = {
        .want_cuda = 1, .device = argc > 1 ? atoi(argv[1]) : 0};
    static struct vibe_matrix products[LAYERS];
    struct bench b = {.B = 2, .products = products};
    struct vibe_error err = {0};
    double bandwidth;

    if (vibe_backend_open(&b.be, &options, &err)) {
        fprintf(stderr, "bench_attend: %s\n", err.msg);
        return 77;
    }
    need(vibe_stream_init(&b.s, b.be, &err), &err);
    bandwidth = b.be->ops->probe_bandwidth(b.be);
    bench_model(&b, "1.5B", 1536, 2, bandwidth, VIBE_BF16);
    bench_model(&b, "7B", 3584, 4, bandwidth, VIBE_BF16);
    bench_model(&b, "1.5B", 1536, 2, bandwidth, VIBE_F8_E4M3);
    bench_model(&b, "7B", 3584, 4, bandwidth, VIBE_F8_E4M3);
    vibe_stream_release(&b.s);
    vibe_backend_free(b.be);
    return 0;
}
