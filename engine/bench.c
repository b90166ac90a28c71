/* bench.c - how long do frames take, and do the ops compute? */
#include <stdlib.h>
#include <sys/resource.h>

#include "engine/backend/ops.h"
#include "engine/backend/parity.h"
#include "engine/base/clock.h"
#include "engine/engine.h"
#include "engine/model/codec.h"
#include "engine/model/codec_encoder.h"
#include "engine/model/diffusion.h"

static void run_lm(void *user)
{
    vibe_generator_run_lm(user);
}

static void run_head(void *user)
{
    struct vibe_generator *g = user;

    const struct vibe_tensor hidden = vibe_tensor_batch(&g->hidden, 0,
                                                        2 * g->n);

    vibe_frame_latent(&g->frame, g->s, &hidden);
}

static void run_decoder(void *user)
{
    struct vibe_generator *g = user;

    vibe_frame_decode(&g->frame, g->s);
}

static void run_semantic(void *user)
{
    struct vibe_generator *g = user;

    vibe_frame_listen(&g->frame, g->s);
}

static void run_connectors(void *user)
{
    struct vibe_generator *g = user;

    vibe_frame_connect(&g->frame, g->s);
}

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

/* Median time of a stage by itself; the first run captures it. */
static int time_stage(struct vibe_generator *g, double *out, double *times,
                      size_t n, void (*body)(void *user),
                      struct vibe_error *err)
{
    struct vibe_graph *graph = NULL;
    int rc = VIBE_OK;

    for (size_t i = 0; i <= n && rc == VIBE_OK; i++) {
        const double start = vibe_clock_s();

        vibe_graph_run(g->s, &graph, body, g);
        rc = vibe_stream_check(g->s, err);
        if (i > 0)
            times[i - 1] = vibe_clock_s() - start;
    }
    vibe_graph_free(g->s, &graph);
    if (rc == VIBE_OK)
        *out = median(times, n);
    return rc;
}

static int time_frames(struct vibe_generator *g, double *out, double *times,
                       size_t n, struct vibe_error *err)
{
    int rc = VIBE_OK;

    /* the first frame allocates, the second is captured */
    for (size_t i = 0; i < n + 2 && rc == VIBE_OK; i++) {
        const double start = vibe_clock_s();

        rc = vibe_generator_step(g, NULL, err);
        for (size_t d = 0; d < g->n; d++)
            vibe_generator_commit(g, d, VIBE_CONTROL_DIFFUSION);
        if (i > 1)
            times[i - 2] = vibe_clock_s() - start;
    }
    if (rc == VIBE_OK)
        *out = median(times, n);
    return rc;
}

static int time_prefill(struct vibe_generator *g, double *out, size_t T,
                        struct vibe_error *err)
{
    const size_t H = g->models->config.lm.hidden_size;
    float *embeds = calloc(T * H, sizeof(*embeds));
    const struct vibe_opening opening = {
        .embeds = embeds,
        .T = T,
        .cfg_scale = 1.3f,
    };
    int rc = VIBE_OK;

    if (!embeds)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu tokens", T);
    for (size_t i = 0; i < T * H; i++)
        embeds[i] = (float)(i % 13) * 0.005f - 0.03f;
    for (int i = 0; i < 2 && rc == VIBE_OK; i++) { /* the second one counts */
        const double start = vibe_clock_s();

        vibe_generator_clear(g);
        rc = vibe_generator_start(g, &opening, err);
        *out = vibe_clock_s() - start;
    }
    free(embeds);
    return rc;
}

static void count_bytes(const struct vibe_models *m, struct vibe_bench *out,
                        size_t steps)
{
    out->stage_bytes[VIBE_STAGE_LM] = vibe_qwen2_step_bytes(m->lm);
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
    static void (*const bodies[VIBE_N_STAGES])(void *user) = {
        [VIBE_STAGE_LM] = run_lm,
        [VIBE_STAGE_HEAD] = run_head,
        [VIBE_STAGE_DECODER] = run_decoder,
        [VIBE_STAGE_SEMANTIC] = run_semantic,
        [VIBE_STAGE_CONNECTORS] = run_connectors,
    };
    struct vibe_generator *g = engine->generator;
    struct vibe_backend *be = engine->backend;
    const size_t max = engine->config.lm.max_position_embeddings;
    double *times = calloc(n_frames + 1, sizeof(*times));
    int rc = VIBE_OK;

    *out = (struct vibe_bench){0};
    if (!times)
        rc = vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu times", n_frames);
    else if (n_frames == 0 || n_prompt > max || n_context > max ||
             n_context + n_frames + 2 > max)
        rc = vibe_fail(err, VIBE_E_ARG,
                       "%zu frames after %zu tokens do not fit in %zu",
                       n_frames, n_context, max);
    vibe_generator_clear(g);
    if (rc == VIBE_OK)
        rc = vibe_generator_prepare(g, (size_t)steps, err);
    if (rc == VIBE_OK && n_prompt)
        rc = time_prefill(g, &out->prefill_s, n_prompt, err);
    if (rc == VIBE_OK)
        rc = place(g, n_context, err);
    if (rc == VIBE_OK)
        rc = time_frames(g, &out->frame_s, times, n_frames, err);
    for (size_t i = 0; i < VIBE_N_STAGES && rc == VIBE_OK; i++)
        rc = time_stage(g, &out->stage_s[i], times, n_frames, bodies[i], err);
    if (rc == VIBE_OK) {
        count_bytes(&engine->models, out, (size_t)steps);
        out->rss_bytes = peak_rss();
        out->bandwidth = be->ops->probe_bandwidth(be);
    }
    free(times);
    return rc;
}

int vibe_self_test(const struct vibe_engine_options *options, uint64_t seed,
                   void (*report)(void *user, const char *op, const char *shape,
                                  double max_err, double bound, int is_ok),
                   void *user, size_t *n_failed, struct vibe_error *err)
{
    const struct vibe_backend_options how = {
        .want_cuda = options->device != VIBE_DEVICE_CPU,
        .device = options->device_index,
        .threads = options->threads,
        .is_exact = 1,
    };
    struct vibe_backend *be = NULL;
    int rc = vibe_backend_open(&be, &how, err);

    *n_failed = 0;
    if (rc == VIBE_OK)
        *n_failed = vibe_parity_run(be, seed, report, user, err);
    vibe_backend_free(be);
    return rc;
}
