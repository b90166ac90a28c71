#include "engine/generate.h"

#include <stdlib.h>
#include <string.h>

#include "engine/model/kvcache.h"
#include "engine/models.h"
#include "offload/transfer.h"

static int init_tensors(struct vibe_generator *g, struct vibe_error *err)
{
    struct vibe_backend *be = g->models->be;
    const size_t D = g->models->n_dialogues;
    const size_t H = g->models->config.lm.hidden_size;
    int rc = vibe_tensor_init(&g->x, be, VIBE_F32, 2 * D, 1, H, err);

    if (rc == VIBE_OK)
        rc = vibe_tensor_init(&g->hidden, be, VIBE_F32, 2 * D, 1, H, err);
    if (rc == VIBE_OK)
        rc = vibe_tensor_init(&g->logits, be, VIBE_F32, D, 1, VIBE_N_CONTROL,
                              err);
    /* int32 is as wide as f32 */
    if (rc == VIBE_OK)
        rc = vibe_tensor_init(&g->seq, be, VIBE_F32, 1, 1, 2 * D, err);
    if (rc == VIBE_OK)
        rc = vibe_tensor_init(&g->pos, be, VIBE_F32, 1, 1, 2 * D, err);
    return rc;
}

static int init_host(struct vibe_generator *g, struct vibe_error *err)
{
    struct vibe_backend *be = g->models->be;
    const size_t D = g->models->n_dialogues;
    const size_t H = g->models->config.lm.hidden_size;

    g->control_embeds = calloc(VIBE_N_CONTROL * H, sizeof(float));
    g->dialogues = calloc(D, sizeof(*g->dialogues));
    g->keys = calloc(D, sizeof(*g->keys));
    g->host_rows = calloc(2 * D, sizeof(*g->host_rows));
    g->host_logits = be->transfer->pinned_alloc(be, D * VIBE_N_CONTROL *
                                                        sizeof(float));
    g->host_pcm = be->transfer->pinned_alloc(be, D * g->models->config.hop *
                                                     sizeof(float));
    if (!g->control_embeds || !g->dialogues || !g->keys || !g->host_rows ||
        !g->host_logits || !g->host_pcm)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu dialogues", D);
    return vibe_qwen2_embed(g->models->lm, g->control_embeds, g->control_ids,
                            VIBE_N_CONTROL, err);
}

/* Sequences never change: row b is sequence b. */
static void number_rows(struct vibe_generator *g)
{
    const size_t n = 2 * g->models->n_dialogues;

    for (size_t b = 0; b < n; b++)
        g->host_rows[b] = (int32_t)b;
    vibe_write(g->s, g->seq.data, g->host_rows, n * sizeof(*g->host_rows));
}

int vibe_generator_open(struct vibe_generator **out, struct vibe_models *models,
                        struct vibe_stream *s, const int32_t *control_ids,
                        struct vibe_error *err)
{
    struct vibe_generator *g = calloc(1, sizeof(*g));
    int rc;

    *out = NULL;
    if (!g)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for a generator");
    g->models = models;
    g->s = s;
    memcpy(g->control_ids, control_ids, sizeof(g->control_ids));
    rc = init_host(g, err);
    if (rc == VIBE_OK)
        rc = init_tensors(g, err);
    if (rc == VIBE_OK)
        rc = vibe_frame_init(&g->frame, models, err);
    if (rc == VIBE_OK)
        rc = vibe_kvcache_open(&g->cache, models->be, &models->config.lm,
                               2 * models->n_dialogues,
                               models->config.lm.max_position_embeddings,
                               models->be->kv_dtype, err);
    if (rc != VIBE_OK) {
        vibe_generator_free(g);
        return rc;
    }
    number_rows(g);
    *out = g;
    return VIBE_OK;
}

static void release_tensors(struct vibe_generator *g, struct vibe_backend *be)
{
    struct vibe_tensor *owned[] = {&g->x, &g->hidden, &g->logits, &g->seq,
                                   &g->pos};

    for (size_t i = 0; i < sizeof(owned) / sizeof(owned[0]); i++)
        vibe_tensor_release(owned[i], be);
}

void vibe_generator_free(struct vibe_generator *g)
{
    struct vibe_backend *be;

    if (!g)
        return;
    be = g->models->be;
    vibe_graph_free(g->s, &g->step);
    vibe_kvcache_free(g->cache);
    vibe_frame_release(&g->frame);
    release_tensors(g, be);
    free(g->control_embeds);
    free(g->dialogues);
    free(g->keys);
    free(g->host_rows);
    be->transfer->pinned_free(be, g->host_logits);
    be->transfer->pinned_free(be, g->host_pcm);
    free(g);
}

/* What dialogue d consumes next: an embedding of the host's. */
static void write_next(struct vibe_generator *g, size_t d, const float *embed)
{
    const struct vibe_tensor next = vibe_tensor_batch(&g->frame.next, d, 1);

    vibe_write(g->s, next.data, embed, next.C * sizeof(float));
}

int vibe_generator_begin(struct vibe_generator *g, size_t d,
                         const float *embeds, size_t T, uint64_t seed,
                         float cfg_scale, struct vibe_error *err)
{
    const size_t H = g->models->config.lm.hidden_size;
    int rc = vibe_kvcache_ensure(g->cache, g->s, d, T, err);

    if (rc != VIBE_OK)
        return rc;
    g->dialogues[d] = (struct vibe_dialogue){
        .n_positive = T - 1,
        .seed = seed,
    };
    g->is_warm = 0;
    vibe_graph_free(g->s, &g->step);
    vibe_frame_silence(&g->frame, g->s, d);
    vibe_write(g->s, (float *)g->frame.cfg_scale.data + d, &cfg_scale,
               sizeof(cfg_scale));
    if (T > 1)
        vibe_qwen2_prefill(g->models->lm, g->s, NULL, embeds, T - 1,
                           vibe_kvcache_kv(g->cache), (int32_t)d, 0);
    write_next(g, d, embeds + (T - 1) * H);
    return vibe_stream_check(g->s, err);
}

/* Say where every row stands, and make room for it. */
static int place_rows(struct vibe_generator *g, struct vibe_error *err)
{
    const size_t D = g->models->n_dialogues;
    int rc = VIBE_OK;

    for (size_t d = 0; d < D && rc == VIBE_OK; d++) {
        const struct vibe_dialogue *dialogue = &g->dialogues[d];

        g->host_rows[d] = (int32_t)dialogue->n_positive;
        g->host_rows[D + d] = (int32_t)dialogue->n_negative;
        rc = vibe_kvcache_ensure(g->cache, g->s, d, dialogue->n_positive + 1,
                                 err);
        if (rc == VIBE_OK)
            rc = vibe_kvcache_ensure(g->cache, g->s, D + d,
                                     dialogue->n_negative + 1, err);
        g->keys[d] = (struct vibe_noise_key){
            .seed = dialogue->seed,
            .frame = (uint32_t)dialogue->n_frames,
        };
    }
    if (rc == VIBE_OK)
        vibe_write(g->s, g->pos.data, g->host_rows,
                   2 * D * sizeof(*g->host_rows));
    return rc;
}

void vibe_generator_run_lm(struct vibe_generator *g)
{
    const size_t D = g->models->n_dialogues;
    const struct vibe_rows rows = {.seq = g->seq.data, .pos = g->pos.data};
    const struct vibe_tensor positive = vibe_tensor_batch(&g->hidden, 0, D);

    for (size_t branch = 0; branch < 2; branch++) {
        const struct vibe_tensor x = vibe_tensor_batch(&g->x, branch * D, D);

        vibe_copy(g->s, &x, &g->frame.next);
    }
    vibe_qwen2_step(g->models->lm, g->s, &g->hidden, &g->x,
                    vibe_kvcache_kv(g->cache), &rows);
    vibe_qwen2_logits(g->models->lm, g->s, &g->logits, &positive);
    vibe_read(g->s, g->host_logits, g->logits.data,
              D * VIBE_N_CONTROL * sizeof(float));
}

int vibe_generator_lm(struct vibe_generator *g, struct vibe_error *err)
{
    const int rc = place_rows(g, err);

    if (rc == VIBE_OK)
        vibe_generator_run_lm(g);
    return rc;
}

/* What a step does once its rows are placed and its noise is drawn. */
static void run_step(void *user)
{
    struct vibe_generator *g = user;

    vibe_generator_run_lm(g);
    vibe_frame_save(&g->frame, g->s);
    vibe_frame_run(&g->frame, g->s, &g->hidden);
    vibe_read(g->s, g->host_pcm, g->frame.pcm.data,
              g->models->n_dialogues * g->models->config.hop * sizeof(float));
}

int vibe_generator_step(struct vibe_generator *g, const float *noise,
                        struct vibe_error *err)
{
    const size_t D = g->models->n_dialogues;
    int rc = place_rows(g, err);

    if (rc != VIBE_OK)
        return rc;
    if (noise)
        vibe_write(g->s, g->frame.latent.data, noise,
                   D * g->frame.latent.C * sizeof(float));
    else
        vibe_frame_noise(&g->frame, g->s, g->keys);
    if (g->is_warm)
        vibe_graph_run(g->s, &g->step, run_step, g);
    else
        run_step(g);
    g->is_warm = 1;
    return vibe_stream_check(g->s, err);
}

void vibe_generator_commit(struct vibe_generator *g, size_t d,
                           enum vibe_control token)
{
    struct vibe_dialogue *dialogue = &g->dialogues[d];
    const size_t H = g->models->config.lm.hidden_size;

    dialogue->n_positive++;
    if (token == VIBE_CONTROL_DIFFUSION) {
        dialogue->n_negative++;
        dialogue->n_frames++;
        return;
    }
    vibe_frame_undo(&g->frame, g->s, d);
    if (token == VIBE_CONTROL_END)
        vibe_frame_silence(&g->frame, g->s, d);
    if (token == VIBE_CONTROL_START)
        dialogue->n_negative = 0;
    write_next(g, d, g->control_embeds + (size_t)token * H);
}

enum vibe_control vibe_generator_greedy(const struct vibe_generator *g,
                                        size_t d)
{
    const float *logits = g->host_logits + d * VIBE_N_CONTROL;
    enum vibe_control best = VIBE_CONTROL_START;

    for (int i = 1; i < VIBE_N_CONTROL; i++)
        if (logits[i] > logits[best] ||
            (logits[i] == logits[best] &&
             g->control_ids[i] < g->control_ids[best]))
            best = (enum vibe_control)i;
    return best;
}
