/* bench.c - how long do frames take, and do the ops compute? */
#include <stdlib.h>
#include <sys/resource.h>

#include "engine/backend/ops.h"
#include "engine/backend/parity.h"
#include "engine/base/clock.h"
#include "engine/base/device.h"
#include "engine/engine.h"
#include "engine/front.h"
#include "engine/model/codec.h"
#include "engine/model/codec_encoder.h"
#include "engine/model/diffusion.h"

/* The driver counts energy in steps of about 0.1 s. */
static const double METER_S = 1.0;

enum {
    N_WARM = 3,
    MAX_SPLIT = 100, /* frames whose stages are timed */
};

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof(*values), by_value);
    return values[n / 2];
}

/* Dialogues in the middle of things: noise for input, n_context behind them. */
static int place(struct vibe_generator *g, size_t n_context,
                 struct vibe_error *err)
{
    const size_t H = g->models->config.lm.hidden_size;
    float *embed = calloc(H, sizeof(*embed));
    struct vibe_opening opening = {.embeds = embed, .T = 1, .cfg_scale = 1.3f};
    int rc = VIBE_OK;

    if (!embed)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for an embedding");
    for (size_t i = 0; i < H; i++)
        embed[i] = (float)(i % 7) * 0.01f - 0.03f;
    vibe_generator_clear(g);
    for (size_t d = 0; d < g->models->n_dialogues && rc == VIBE_OK; d++) {
        opening.seed = d;
        rc = vibe_generator_start(g, &opening, err);
        g->dialogues[d].n_positive = n_context;
    }
    free(embed);
    return rc;
}

/* A frame that everybody goes on from. */
static int run_frame(struct vibe_generator *g, struct vibe_error *err)
{
    const int rc = vibe_generator_step(g, NULL, err);

    for (size_t d = 0; d < g->n && rc == VIBE_OK; d++)
        vibe_generator_commit(g, d, VIBE_CONTROL_DIFFUSION);
    return rc;
}

/* The first frame allocates, the next two are captured. */
static int warm_up(struct vibe_generator *g, struct vibe_error *err)
{
    int rc = VIBE_OK;

    for (int i = 0; i < N_WARM && rc == VIBE_OK; i++)
        rc = run_frame(g, err);
    return rc;
}

/* Of weights, from the host since the start. */
static uint64_t copied_bytes(const struct vibe_generator *g)
{
    struct vibe_offload_stats stats = {0};

    if (g->models->streaming.offload)
        vibe_offload_count(g->models->streaming.offload, &stats);
    return stats.bytes;
}

static int time_frames(struct vibe_generator *g, struct vibe_bench *out,
                       double *times, size_t n, struct vibe_error *err)
{
    struct vibe_backend *be = g->models->be;
    struct vibe_device_reading before, after;
    struct vibe_memory first, last;
    uint64_t copied;
    double begin_s;
    int rc = warm_up(g, err);

    be->ops->memory(be, &first);
    copied = copied_bytes(g);
    be->ops->meter(be, &before);
    begin_s = vibe_clock_s();
    for (size_t i = 0; i < n && rc == VIBE_OK; i++) {
        const double start_s = vibe_clock_s();

        rc = run_frame(g, err);
        times[i] = vibe_clock_s() - start_s;
    }
    be->ops->meter(be, &after);
    be->ops->memory(be, &last);
    out->link_bytes = (size_t)(copied_bytes(g) - copied) / n;
    out->memory_used = after.memory_used;
    out->memory_total = after.memory_total;
    out->vram_first = first.used;
    out->vram_last = last.used;
    out->vram_peak = last.taken_peak + last.context;
    out->energy_j = -1.0;
    if (before.energy_j >= 0 && after.energy_j >= 0 &&
        vibe_clock_s() - begin_s > METER_S)
        out->energy_j = (after.energy_j - before.energy_j) / (double)n;
    if (rc == VIBE_OK)
        out->frame_s = median(times, n);
    return rc;
}

/* Times of one frame on a timed stream: its stages, then the rest of it. */
static int split_frame(struct vibe_generator *g, double *times, size_t n,
                       struct vibe_error *err)
{
    const double start_s = vibe_clock_s();
    const int rc = run_frame(g, err);
    const double frame_s = vibe_clock_s() - start_s;
    double from_s;

    if (rc != VIBE_OK)
        return rc;
    from_s = vibe_mark_s(g->s, VIBE_MARK_BEGIN);
    for (size_t i = 0; i < VIBE_N_STAGES; i++) {
        const double to_s = vibe_mark_s(g->s, VIBE_MARK_STAGE + i);

        times[i * n] = to_s - from_s;
        from_s = to_s;
    }
    times[VIBE_N_STAGES * n] = frame_s -
                               (from_s - vibe_mark_s(g->s, VIBE_MARK_BEGIN));
    return VIBE_OK;
}

/* Stages as they follow each other in a frame.  Marks between them cost some
 * microseconds, so whole frames are timed without. */
static int time_stages(struct vibe_generator *g, struct vibe_bench *out,
                       size_t n, struct vibe_error *err)
{
    const int was_timed = g->s->is_timed;
    double *times = calloc((VIBE_N_STAGES + 1) * n, sizeof(*times));
    int rc;

    if (!times)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu times", n);
    vibe_generator_forget(g);
    g->s->is_timed = 1;
    rc = warm_up(g, err);
    for (size_t i = 0; i < n && rc == VIBE_OK; i++)
        rc = split_frame(g, times + i, n, err);
    g->s->is_timed = was_timed;
    vibe_generator_forget(g);
    for (size_t i = 0; i < VIBE_N_STAGES && rc == VIBE_OK; i++)
        out->stage_s[i] = median(times + i * n, n);
    if (rc == VIBE_OK)
        out->host_s = median(times + VIBE_N_STAGES * n, n);
    free(times);
    return rc;
}

/* A prompt of T tokens, owned by the caller; embeds NULL after an error. */
static int make_prompt(struct vibe_opening *out, const struct vibe_generator *g,
                       size_t T, struct vibe_error *err)
{
    const size_t H = g->models->config.lm.hidden_size;
    float *embeds = calloc(T * H, sizeof(*embeds));

    *out = (struct vibe_opening){.embeds = embeds, .T = T, .cfg_scale = 1.3f};
    if (!embeds)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu tokens", T);
    for (size_t i = 0; i < T * H; i++)
        embeds[i] = (float)(i % 13) * 0.005f - 0.03f;
    return VIBE_OK;
}

static int time_prefill(struct vibe_generator *g, double *out, size_t T,
                        struct vibe_error *err)
{
    struct vibe_opening opening;
    int rc = make_prompt(&opening, g, T, err);

    for (int i = 0; i < 2 && rc == VIBE_OK; i++) { /* the second one counts */
        const double start = vibe_clock_s();

        vibe_generator_clear(g);
        rc = vibe_generator_start(g, &opening, err);
        *out = vibe_clock_s() - start;
    }
    free((float *)opening.embeds);
    return rc;
}

/* Read prompts as long as a batch does between two frames. */
static int read_for_a_while(struct vibe_generator *g, struct vibe_error *err)
{
    const double end_s = vibe_clock_s() + VIBE_READING_S;
    int rc = VIBE_OK;

    while (rc == VIBE_OK && g->opening.T > 0 && vibe_clock_s() < end_s)
        rc = vibe_generator_read(g, err);
    return rc;
}

/* The longest time between two frames while the last dialogue reads. */
static int time_wait(struct vibe_generator *g, double *out, size_t T,
                     struct vibe_error *err)
{
    struct vibe_opening opening;
    int rc = make_prompt(&opening, g, T, err);

    vibe_generator_end(g, g->n - 1);
    if (rc == VIBE_OK)
        rc = warm_up(g, err); /* there are fewer now */
    if (rc == VIBE_OK)
        rc = vibe_generator_begin(g, &opening, err);
    while (rc == VIBE_OK && g->opening.T > 0) {
        const double start = vibe_clock_s();
        double wait;

        rc = read_for_a_while(g, err);
        if (rc == VIBE_OK)
            rc = run_frame(g, err);
        wait = vibe_clock_s() - start;
        *out = wait > *out ? wait : *out;
    }
    free((float *)opening.embeds);
    return rc;
}

static void count_bytes(const struct vibe_engine *engine,
                        struct vibe_bench *out, size_t steps)
{
    const struct vibe_models *m = &engine->models;

    out->stage_bytes[VIBE_STAGE_LM] = vibe_qwen2_step_bytes(m->lm) +
                                      vibe_fronts_step_bytes(engine->fronts);
    out->stage_bytes[VIBE_STAGE_HEAD] = vibe_diffusion_frame_bytes(m->head) +
                                        steps *
                                            vibe_diffusion_step_bytes(m->head);
    out->stage_bytes[VIBE_STAGE_DECODER] = vibe_codec_bytes(m->decoder);
    out->stage_bytes[VIBE_STAGE_SEMANTIC] = vibe_codec_encoder_bytes(
        m->semantic);
    out->stage_bytes[VIBE_STAGE_CONNECTORS] = vibe_connector_bytes(
                                                  m->acoustic_connector) +
                                              vibe_connector_bytes(
                                                  m->semantic_connector);
}

static size_t peak_rss(void)
{
    struct rusage usage;

    /* Linux counts in KiB */
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (size_t)usage.ru_maxrss * 1024
                                               : 0;
}

int vibe_engine_bench(struct vibe_engine *engine, struct vibe_bench *out,
                      size_t n_frames, int steps, size_t n_context,
                      size_t n_prompt, struct vibe_error *err)
{
    struct vibe_generator *g = engine->generator;
    struct vibe_backend *be = engine->backend;
    const size_t max = engine->config.lm.max_position_embeddings;
    const size_t n_split = n_frames < MAX_SPLIT ? n_frames : MAX_SPLIT;
    double *times = calloc(n_frames + 1, sizeof(*times));
    int rc = VIBE_OK;

    *out = (struct vibe_bench){0};
    if (!times)
        rc = vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu times", n_frames);
    else if (n_frames == 0 || n_prompt > max || n_context > max ||
             n_context + n_frames + n_split + (size_t)3 * N_WARM > max)
        rc = vibe_fail(err, VIBE_E_ARG,
                       "%zu frames after %zu tokens do not fit in %zu",
                       n_frames, n_context, max);
    vibe_generator_clear(g);
    /* whoever lays out chunks takes cores and memory from what is timed */
    if (engine->models.streaming.offload)
        vibe_offload_settle(engine->models.streaming.offload);
    if (rc == VIBE_OK)
        rc = vibe_generator_prepare(g, (size_t)steps, err);
    if (rc == VIBE_OK && n_prompt)
        rc = time_prefill(g, &out->prefill_s, n_prompt, err);
    if (rc == VIBE_OK)
        rc = place(g, n_context, err);
    if (rc == VIBE_OK)
        rc = time_frames(g, out, times, n_frames, err);
    if (rc == VIBE_OK)
        rc = time_stages(g, out, n_split, err);
    if (rc == VIBE_OK && n_prompt && g->n > 1)
        rc = time_wait(g, &out->wait_s, n_prompt, err);
    if (rc == VIBE_OK) {
        count_bytes(engine, out, (size_t)steps);
        out->rss_bytes = peak_rss();
        out->bandwidth = be->ops->probe_bandwidth(be);
        if (out->link_bytes)
            out->link_bandwidth = engine->plan.rates.link;
    }
    free(times);
    return rc;
}

int vibe_self_test(const struct vibe_engine_options *options, uint64_t seed,
                   void (*report)(void *user, const char *op, const char *shape,
                                  double max_err, double bound, int is_ok),
                   void *user, size_t *n_failed, struct vibe_error *err)
{
    struct vibe_backend_options how = {
        .want_cuda = options->device != VIBE_DEVICE_CPU,
        .device = options->device_index,
        .threads = options->threads,
        .notice = {.tell = options->on_notice, .user = options->user},
    };
    int rc = VIBE_OK;

    *n_failed = 0;
    for (how.is_exact = 1; how.is_exact >= 0 && rc == VIBE_OK; how.is_exact--) {
        struct vibe_backend *be = NULL;

        rc = vibe_backend_open(&be, &how, err);
        if (rc == VIBE_OK)
            *n_failed += vibe_parity_run(be, seed, report, user, err);
        vibe_backend_free(be);
    }
    return rc;
}
