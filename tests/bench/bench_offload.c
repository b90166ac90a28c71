/*
 * bench_offload - how near is a frame to the link's speed, and are its samples
 * the same however little is resident?
 *
 * For each number of resident layers: milliseconds per frame, what the link (or
 * a resident language model) and the rest of the frame would need at least,
 * their ratio, a hash of a second of speech, and how the chunks travelled.
 *
 *   bench_offload [MODEL[@DTYPE] [FRAMES [LAYERS[:WAY[:SLOTS]]...]]]
 *
 * DTYPE is what the language model is kept as; WAY "unpinned", "sync",
 * "ondemand", "demote" or a number of MB of host memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/engine.h"
#include "engine/model/kvcache.h"
#include "engine/precision.h"

/* Keys and values need another block at frame GROWTH, when frames have been
 * captured: VIBE_KV_BLOCK_TOKENS divides PROMPT - 1 + GROWTH. */
enum {
    STEPS = 10,
    PROMPT = 510,
    FRAMES = 6,
    GROWTH = 3,
    PROBE_BYTES = 256 << 20
};

struct bench {
    char model[256];
    enum vibe_weight_dtype dtype;
    size_t n_frames;
    size_t lm_bytes, n_layers;
    double lm_s, rest_s; /* of a frame when all of it is resident */
    uint64_t hash;
    double prompt_s;
    int has_no_room;
};

static void fail(const struct vibe_error *err)
{
    fprintf(stderr, "bench_offload: %s\n", err->msg);
    exit(1);
}

/* Hash what PROMPT rows and FRAMES steps make, whatever they mean. */
static void speak(struct bench *b, struct vibe_engine *engine)
{
    struct vibe_generator *g = engine->generator;
    const size_t H = engine->config.lm.hidden_size;
    const size_t n = engine->config.hop * sizeof(float);
    float *embeds = calloc(PROMPT * H, sizeof(*embeds));
    const struct vibe_opening opening = {
        .embeds = embeds, .T = PROMPT, .seed = 7, .cfg_scale = 1.3f};
    struct vibe_error err;
    double start;

    if (!embeds)
        exit(1);
    for (size_t i = 0; i < PROMPT * H; i++)
        embeds[i] = (float)(i % 1013 * i % 97) * 0.001f - 0.05f;
    vibe_generator_clear(g);
    if (vibe_generator_prepare(g, STEPS, &err))
        fail(&err);
    start = vibe_clock_s();
    if (vibe_generator_start(g, &opening, &err))
        fail(&err);
    b->prompt_s = vibe_clock_s() - start;
    b->hash = 14695981039346656037u;
    for (int frame = 0; frame < FRAMES; frame++) {
        const unsigned char *bytes = (const unsigned char *)g->host_pcm;

        if (b->has_no_room && frame == GROWTH)
            vibe_kvcache_limit(g->cache, vibe_kvcache_bytes(g->cache),
                               vibe_streaming_make_room,
                               &engine->models.streaming);
        if (vibe_generator_step(g, NULL, &err))
            fail(&err);
        vibe_generator_commit(g, 0, VIBE_CONTROL_DIFFUSION);
        for (size_t i = 0; i < n; i++)
            b->hash = (b->hash ^ bytes[i]) * 1099511628211u;
    }
    vibe_generator_end(g, 0);
    free(embeds);
}

static void choose_way(struct vibe_weight_streaming *s, const char *way)
{
    const char *slots = strchr(way, ':');

    s->ring_slots = slots ? strtoul(slots + 1, NULL, 10) : 0;
    s->is_unpinned = strncmp(way, "unpinned", 8) == 0;
    s->is_synchronous = strncmp(way, "sync", 4) == 0;
    s->is_on_demand = s->is_synchronous || strncmp(way, "ondemand", 8) == 0;
    s->host_bytes = strtoul(way, NULL, 10) << 20;
}

/* The link brings every chunk, but those that the ring holds while the rest of
 * a frame is computed. */
static double bound_of(const struct bench *b,
                       const struct vibe_offload_stats *stats, double link)
{
    const double streamed = (double)stats->streamed_bytes;
    const double ring = (double)(stats->slots * stats->slot_bytes);
    const double copies = streamed > ring ? (streamed - ring) / link : 0;
    const double bound = b->rest_s + (copies > b->lm_s ? copies : b->lm_s);

    return streamed / link > bound ? streamed / link : bound;
}

/* layers < 0: without offload. */
static void run(struct bench *b, double layers, const char *way)
{
    struct vibe_engine_options options = {
        .model = b->model,
        .precision.lm = b->dtype,
        .streaming = {.is_on = layers >= 0.0, .resident_bytes = SIZE_MAX},
    };
    struct vibe_offload_stats stats = {0};
    struct vibe_engine *engine = NULL;
    struct vibe_bench times;
    struct vibe_error err;
    double start = vibe_clock_s(), open_s, settle_s, rest, link, bound;

    if (layers >= 0.0 && layers < (double)b->n_layers)
        options.streaming.resident_bytes = (size_t)((double)b->lm_bytes *
                                                    layers /
                                                    (double)b->n_layers);
    choose_way(&options.streaming, way);
    b->has_no_room = strncmp(way, "demote", 6) == 0;
    if (vibe_engine_open(&engine, &options, &err))
        fail(&err);
    open_s = vibe_clock_s() - start;
    if (options.streaming.is_on)
        vibe_offload_settle(engine->models.streaming.offload);
    settle_s = vibe_clock_s() - start - open_s;
    speak(b, engine);
    if (vibe_engine_bench(engine, &times, b->n_frames, STEPS, 0, 0, &err))
        fail(&err);
    if (options.streaming.is_on)
        vibe_offload_count(engine->models.streaming.offload, &stats);
    b->n_layers = engine->config.lm.num_hidden_layers;
    if (!b->lm_bytes)
        b->lm_bytes = stats.resident_bytes + stats.streamed_bytes;
    link = vibe_offload_probe(engine->backend, engine->backend->transfer,
                              PROBE_BYTES, options.streaming.is_unpinned);
    rest = times.stage_s[VIBE_STAGE_HEAD] + times.stage_s[VIBE_STAGE_DECODER] +
           times.stage_s[VIBE_STAGE_SEMANTIC] +
           times.stage_s[VIBE_STAGE_CONNECTORS];
    if (b->lm_s <= 0.0) {
        b->lm_s = times.stage_s[VIBE_STAGE_LM];
        b->rest_s = rest;
    }
    bound = bound_of(b, &stats, link);
    printf("%6.2f layers: frame %8.3f ms, lm %8.3f, rest %6.3f, streamed %8.1f "
           "MB of %zu chunks, link %5.1f GB/s, bound %8.3f, ratio %5.3f, "
           "hash %016llx, prompt %7.3f s, %s %s, opened %.1f + %.1f s\n",
           layers, 1e3 * times.frame_s, 1e3 * times.stage_s[VIBE_STAGE_LM],
           1e3 * rest, 1e-6 * (double)stats.streamed_bytes, stats.n_chunks,
           1e-9 * link, 1e3 * bound, times.frame_s / bound,
           (unsigned long long)b->hash, b->prompt_s, vibe_path_name(stats.path),
           way, open_s, settle_s);
    fflush(stdout);
    vibe_engine_free(engine);
}

/* "PATH@DTYPE" */
static void choose_model(struct bench *b, const char *name)
{
    const char *at = strchr(name, '@');

    snprintf(b->model, sizeof(b->model), "%.*s",
             at ? (int)(at - name) : (int)strlen(name), name);
    while (at && strcmp(at + 1, vibe_precision_name(b->dtype)) != 0)
        if (++b->dtype > VIBE_WEIGHTS_BF16_PACKED)
            exit(1);
}

int main(int argc, char **argv)
{
    struct bench b = {.n_frames = argc > 2 ? strtoul(argv[2], NULL, 10) : 5};

    choose_model(&b, argc > 1 ? argv[1] : "demo/model");
    run(&b, 1e9, "");
    for (int i = 3; i < argc; i++) {
        const char *colon = strchr(argv[i], ':');

        run(&b, strtod(argv[i], NULL), colon ? colon + 1 : "");
    }
    if (argc <= 3)
        for (int i = 0; i <= 4; i++)
            run(&b, (double)(b.n_layers * (size_t)i) / 4.0, "");
    return 0;
}
