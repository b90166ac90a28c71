/*
 * bench_offload - how near is a frame to the link's speed, and are its samples
 * the same however little is resident?
 *
 * For each number of resident layers: milliseconds per frame, what the link
 * and the rest of the frame would need at least, their ratio, a hash of a
 * second of speech, and how the chunks travelled.
 *
 *   bench_offload [MODEL [FRAMES [LAYERS...]]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/engine.h"

enum { STEPS = 10, PROBE_BYTES = 256 << 20 };

struct bench {
    const char *model;
    size_t n_frames;
    size_t lm_bytes, n_layers;
    double link; /* bytes per second */
    uint64_t hash;
};

static void fail(const struct vibe_error *err)
{
    fprintf(stderr, "bench_offload: %s\n", err->msg);
    exit(1);
}

static int hash_frame(void *user, const float *samples, size_t n)
{
    const unsigned char *bytes = (const unsigned char *)samples;
    uint64_t *hash = user;

    for (size_t i = 0; i < n * sizeof(*samples); i++)
        *hash = (*hash ^ bytes[i]) * 1099511628211u;
    return 0;
}

static void speak(struct bench *b, struct vibe_engine *engine)
{
    static const char text[] = "Speaker 1: Hello there, how are you today?\n"
                               "Speaker 2: Quite well, thank you.";
    struct vibe_script script = {0};
    struct vibe_error err;
    struct vibe_result result;
    const struct vibe_request request = {
        .script = &script,
        .cfg_scale = 1.3f,
        .steps = STEPS,
        .seed = 7,
        .max_length_times = 2.0f,
        .max_frames = 7,
        .on_frame = hash_frame,
        .user = &b->hash,
    };

    b->hash = 14695981039346656037u;
    if (vibe_script_parse_text(&script, "a script", text, strlen(text), &err) ||
        vibe_speak(engine, &request, &result, &err))
        fail(&err);
    vibe_script_release(&script);
}

/* layers < 0: without offload. */
static void run(struct bench *b, double layers)
{
    struct vibe_engine_options options = {
        .model = b->model,
        .streaming = {.is_on = layers >= 0.0, .resident_bytes = SIZE_MAX},
    };
    struct vibe_offload_stats stats = {0};
    struct vibe_engine *engine = NULL;
    struct vibe_bench times;
    struct vibe_error err;
    double start = vibe_clock_s(), open_s, settle_s, rest, bound;

    if (layers >= 0.0 && layers < (double)b->n_layers)
        options.streaming.resident_bytes = (size_t)((double)b->lm_bytes *
                                                    layers /
                                                    (double)b->n_layers);
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
    if (b->link <= 0.0)
        b->link = vibe_offload_probe(engine->backend, engine->backend->transfer,
                                     PROBE_BYTES);
    rest = times.stage_s[VIBE_STAGE_HEAD] + times.stage_s[VIBE_STAGE_DECODER] +
           times.stage_s[VIBE_STAGE_SEMANTIC] +
           times.stage_s[VIBE_STAGE_CONNECTORS];
    bound = stats.streamed_bytes
                ? rest + ((double)stats.streamed_bytes -
                          (double)(stats.slots * stats.slot_bytes)) /
                             b->link
                : times.frame_s;
    printf("%6.2f layers: frame %8.3f ms, lm %8.3f, rest %6.3f, streamed %8.1f "
           "MB of %zu chunks, link %5.1f GB/s, bound %8.3f, ratio %5.3f, "
           "hash %016llx, %s, opened %.1f + %.1f s\n",
           layers, 1e3 * times.frame_s, 1e3 * times.stage_s[VIBE_STAGE_LM],
           1e3 * rest, 1e-6 * (double)stats.streamed_bytes, stats.n_chunks,
           1e-9 * b->link, 1e3 * bound, times.frame_s / bound,
           (unsigned long long)b->hash, vibe_path_name(stats.path), open_s,
           settle_s);
    fflush(stdout);
    vibe_engine_free(engine);
}

int main(int argc, char **argv)
{
    struct bench b = {
        .model = argc > 1 ? argv[1] : "demo/model",
        .n_frames = argc > 2 ? strtoul(argv[2], NULL, 10) : 5,
    };

    run(&b, 1e9);
    run(&b, -1.0);
    for (int i = 3; i < argc; i++)
        run(&b, strtod(argv[i], NULL));
    if (argc <= 3)
        for (int i = 0; i <= 4; i++)
            run(&b, (double)(b.n_layers * (size_t)i) / 4.0);
    return 0;
}
