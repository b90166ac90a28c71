#include "engine/generate.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/model/diffusion.h"
#include "engine/model/kvcache.h"
#include "engine/models.h"
#include "engine/vibevoice.h"
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
    g->steps = calloc(D + 1, sizeof(*g->steps));
    g->keys = calloc(D, sizeof(*g->keys));
    g->host_rows = calloc(2 * D, sizeof(*g->host_rows));
    g->host_logits = be->transfer->pinned_alloc(be, D * VIBE_N_CONTROL *
                                                        sizeof(float));
    g->host_pcm = be->transfer->pinned_alloc(be, D * g->models->config.hop *
                                                     sizeof(float));
    if (!g->control_embeds || !g->dialogues || !g->steps || !g->keys ||
        !g->host_rows || !g->host_logits || !g->host_pcm)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu dialogues", D);
    for (size_t d = 0; d < D; d++)
        g->dialogues[d].slot = d;
    return vibe_qwen2_embed(g->models->lm, g->control_embeds, g->control_ids,
                            VIBE_N_CONTROL, err);
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
    models->be->purpose = VIBE_FOR_STATES;
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
    models->be->purpose = VIBE_FOR_OTHER;
    if (rc != VIBE_OK) {
        vibe_generator_free(g);
        return rc;
    }
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

void vibe_generator_forget(struct vibe_generator *g)
{
    for (size_t n = 0; g->steps && n <= g->models->n_dialogues; n++) {
        for (size_t turn = 0; turn < 2; turn++) {
            vibe_graph_free(g->s, &g->steps[n].whole[turn]);
            vibe_graph_free(g->s, &g->steps[n].rest[turn]);
        }
        g->steps[n].is_warm = 0;
    }
}

void vibe_generator_free(struct vibe_generator *g)
{
    struct vibe_backend *be;

    if (!g)
        return;
    be = g->models->be;
    vibe_generator_forget(g);
    vibe_kvcache_free(g->cache);
    vibe_frame_release(&g->frame);
    release_tensors(g, be);
    free(g->control_embeds);
    free(g->dialogues);
    free(g->steps);
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

int vibe_generator_prepare(struct vibe_generator *g, size_t solver_steps,
                           struct vibe_error *err)
{
    int rc;

    assert(g->n == 0);
    if (g->solver_steps == solver_steps)
        return VIBE_OK;
    vibe_generator_forget(g);
    g->solver_steps = 0;
    g->models->be->purpose = VIBE_FOR_HEAD;
    rc = vibe_diffusion_prepare(g->models->head, g->s, solver_steps, err);
    g->models->be->purpose = VIBE_FOR_OTHER;
    if (rc == VIBE_OK)
        g->solver_steps = solver_steps;
    return rc;
}

/* Say how many speak, and which sequences are theirs. */
static void number_rows(struct vibe_generator *g, size_t n)
{
    const size_t D = g->models->n_dialogues;

    g->n = n;
    g->frame.n = n;
    for (size_t d = 0; d < n; d++) {
        g->host_rows[d] = (int32_t)g->dialogues[d].slot;
        g->host_rows[n + d] = (int32_t)(D + g->dialogues[d].slot);
    }
    vibe_write(g->s, g->seq.data, g->host_rows, 2 * n * sizeof(*g->host_rows));
}

void vibe_generator_clear(struct vibe_generator *g)
{
    g->opening = (struct vibe_opening){0};
    number_rows(g, 0);
}

void vibe_generator_rest(struct vibe_generator *g)
{
    if (g->n == 0 && g->opening.T == 0)
        vibe_kvcache_clear(g->cache);
}

/* Until the next prompt. */
static void lend_prompt(struct vibe_generator *g)
{
    vibe_qwen2_rest(g->models->lm);
    g->models->be->ops->rest(g->models->be);
}

void vibe_generator_lend(struct vibe_generator *g)
{
    assert(g->models->n_dialogues == 1);
    g->lends_prompt = 1;
    lend_prompt(g);
}

int vibe_generator_begin(struct vibe_generator *g,
                         const struct vibe_opening *opening,
                         struct vibe_error *err)
{
    struct vibe_dialogue *dialogue = &g->dialogues[g->n];
    int rc = vibe_qwen2_make_room(g->models->lm, err);

    assert(g->n < g->models->n_dialogues && g->opening.T == 0);
    if (rc == VIBE_OK)
        rc = vibe_kvcache_ensure(g->cache, g->s, dialogue->slot, opening->T,
                                 err);
    if (rc != VIBE_OK)
        return rc;
    *dialogue = (struct vibe_dialogue){
        .slot = dialogue->slot,
        .frame = opening->first_frame,
        .seed = opening->seed,
        .cfg_scale = opening->cfg_scale,
    };
    g->opening = *opening;
    return VIBE_OK;
}

/* Tell the device the guidance of dialogue d. */
static void write_cfg_scale(struct vibe_generator *g, size_t d)
{
    vibe_write(g->s, (float *)g->frame.cfg_scale.data + d,
               &g->dialogues[d].cfg_scale, sizeof(float));
}

/* The prompt is read: its dialogue speaks from now on. */
static void join(struct vibe_generator *g)
{
    const size_t H = g->models->config.lm.hidden_size;
    const size_t d = g->n;

    vibe_frame_silence(&g->frame, g->s, d);
    write_cfg_scale(g, d);
    write_next(g, d, g->opening.embeds + (g->opening.T - 1) * H);
    g->opening = (struct vibe_opening){0};
    number_rows(g, d + 1);
}

int vibe_generator_read(struct vibe_generator *g, struct vibe_error *err)
{
    const size_t H = g->models->config.lm.hidden_size;
    struct vibe_dialogue *dialogue = &g->dialogues[g->n];
    const size_t first = dialogue->n_positive;
    const double begin_s = vibe_clock_s();
    size_t n = g->opening.T - 1 - first;
    int rc;

    assert(g->opening.T > 0);
    if (n > VIBE_PROMPT_ROWS)
        n = VIBE_PROMPT_ROWS;
    vibe_mark(g->s, VIBE_MARK_BEGIN);
    if (n > 0)
        vibe_qwen2_prefill(
            g->models->lm, g->s, NULL, g->opening.embeds + first * H, n,
            vibe_kvcache_kv(g->cache), (int32_t)dialogue->slot, (int32_t)first);
    vibe_mark(g->s, VIBE_MARK_STAGE);
    dialogue->n_positive += n;
    if (dialogue->n_positive == g->opening.T - 1)
        join(g);
    rc = vibe_stream_check(g->s, err);
    if (rc == VIBE_OK)
        vibe_timeline_prompt(&g->timeline, g->s, begin_s);
    if (g->lends_prompt && g->opening.T == 0)
        lend_prompt(g);
    return rc;
}

int vibe_generator_start(struct vibe_generator *g,
                         const struct vibe_opening *opening,
                         struct vibe_error *err)
{
    int rc = vibe_generator_begin(g, opening, err);

    while (rc == VIBE_OK && g->opening.T > 0)
        rc = vibe_generator_read(g, err);
    return rc;
}

void vibe_generator_end(struct vibe_generator *g, size_t d)
{
    const size_t last = g->n - 1;
    const struct vibe_dialogue ended = g->dialogues[d];

    assert(d <= last);
    if (d != last) {
        g->dialogues[d] = g->dialogues[last];
        vibe_frame_move(&g->frame, g->s, d, last);
        write_cfg_scale(g, d);
    }
    g->dialogues[last] = ended;
    if (g->opening.T > 0) { /* that dialogue is called n, whatever n is */
        g->dialogues[last] = g->dialogues[g->n];
        g->dialogues[g->n] = ended;
    }
    number_rows(g, last);
}

int vibe_generator_make_room(struct vibe_generator *g, size_t d,
                             struct vibe_error *err)
{
    const struct vibe_dialogue *dialogue = &g->dialogues[d];
    int rc = vibe_kvcache_ensure(g->cache, g->s, dialogue->slot,
                                 dialogue->n_positive + 1, err);

    if (rc == VIBE_OK)
        rc = vibe_kvcache_ensure(g->cache, g->s,
                                 g->models->n_dialogues + dialogue->slot,
                                 dialogue->n_negative + 1, err);
    return rc;
}

/* Say where every row stands, and make room for it. */
static int place_rows(struct vibe_generator *g, struct vibe_error *err)
{
    int rc = VIBE_OK;

    for (size_t d = 0; d < g->n && rc == VIBE_OK; d++) {
        const struct vibe_dialogue *dialogue = &g->dialogues[d];

        rc = vibe_generator_make_room(g, d, err);
        g->host_rows[d] = (int32_t)dialogue->n_positive;
        g->host_rows[g->n + d] = (int32_t)dialogue->n_negative;
        g->keys[d] = (struct vibe_noise_key){
            .seed = dialogue->seed,
            .frame = (uint32_t)dialogue->frame,
        };
    }
    if (rc == VIBE_OK)
        vibe_write(g->s, g->pos.data, g->host_rows,
                   2 * g->n * sizeof(*g->host_rows));
    return rc;
}

/* Both branches take the same embedding. */
static void feed(struct vibe_generator *g, const struct vibe_tensor *x)
{
    struct vibe_tensor both = *x;
    struct vibe_tensor next = g->frame.next;

    /* [n][1][H] seen as [2][n][H] */
    both.B = next.B = 2;
    both.T = next.T = g->n;
    both.stride_t = x->stride_b;
    both.stride_b = g->n * x->stride_b;
    next.stride_t = next.stride_b;
    next.stride_b = 0;
    vibe_copy(g->s, &both, &next);
}

/* Over rows that are placed. */
static void run_lm(struct vibe_generator *g)
{
    const struct vibe_rows rows = {.seq = g->seq.data, .pos = g->pos.data};
    const struct vibe_tensor x = vibe_tensor_batch(&g->x, 0, 2 * g->n);
    const struct vibe_tensor hidden = vibe_tensor_batch(&g->hidden, 0,
                                                        2 * g->n);

    feed(g, &x);
    vibe_qwen2_step(g->models->lm, g->s, &hidden, &x, vibe_kvcache_kv(g->cache),
                    &rows);
}

/* What the positive rows say comes next. */
static void read_logits(struct vibe_generator *g)
{
    const struct vibe_tensor positive = vibe_tensor_batch(&g->hidden, 0, g->n);
    const struct vibe_tensor logits = vibe_tensor_batch(&g->logits, 0, g->n);

    vibe_qwen2_logits(g->models->lm, g->s, &logits, &positive);
    vibe_read(g->s, g->host_logits, g->logits.data,
              g->n * VIBE_N_CONTROL * sizeof(float));
}

int vibe_generator_lm(struct vibe_generator *g, struct vibe_error *err)
{
    const int rc = place_rows(g, err);

    if (rc == VIBE_OK) {
        run_lm(g);
        read_logits(g);
    }
    return rc;
}

/* What a step does once its rows are placed and its noise is drawn. */
static void run_first(struct vibe_generator *g)
{
    run_lm(g);
    vibe_mark(g->s, VIBE_MARK_STAGE + VIBE_STAGE_LM);
}

/* What is wanted of a frame once its audio is there, but for the next audio;
 * its copy comes first, since a kernel there would share the queue of what is
 * to run beside it. */
static void run_beside(void *user)
{
    struct vibe_generator *g = user;

    vibe_read(g->s, g->host_pcm, g->frame.pcm.data,
              g->n * g->models->config.hop * sizeof(float));
    vibe_frame_connect_latent(&g->frame, g->s);
    read_logits(g);
}

/* The stages of a frame, with marks (timeline.h) after each.  A copy to the
 * host keeps kernels apart, and while the codec listens memory has little to
 * do. */
static void run_rest(void *user)
{
    struct vibe_generator *g = user;
    const struct vibe_tensor hidden = vibe_tensor_batch(&g->hidden, 0,
                                                        2 * g->n);

    vibe_frame_latent(&g->frame, g->s, &hidden);
    vibe_mark(g->s, VIBE_MARK_STAGE + VIBE_STAGE_HEAD);
    vibe_frame_decode(&g->frame, g->s);
    vibe_mark(g->s, VIBE_MARK_STAGE + VIBE_STAGE_DECODER);
    vibe_beside(g->s, run_beside, g);
    vibe_frame_listen(&g->frame, g->s);
    vibe_mark(g->s, VIBE_MARK_STAGE + VIBE_STAGE_SEMANTIC);
    vibe_meet(g->s);
    vibe_frame_connect_semantic(&g->frame, g->s);
    vibe_mark(g->s, VIBE_MARK_STAGE + VIBE_STAGE_CONNECTORS);
}

static void run_whole(void *user)
{
    run_first(user);
    run_rest(user);
}

/* A step after the first of its kind, of which all is captured or, where
 * matrices lie elsewhere each time, what comes after the language model.
 * Nothing is allocated or waited for inside of a frame. */
static void run_again(struct vibe_generator *g,
                      struct vibe_generator_step *step)
{
    if (g->s->is_eager)
        run_first(g);
    vibe_backend_seal(g->s->be);
    if (g->s->is_eager)
        vibe_graph_run(g->s, &step->rest[g->frame.now], run_rest, g);
    else
        vibe_graph_run(g->s, &step->whole[g->frame.now], run_whole, g);
    vibe_backend_unseal(g->s->be);
}

int vibe_generator_step(struct vibe_generator *g, const float *noise,
                        struct vibe_error *err)
{
    struct vibe_generator_step *step = &g->steps[g->n];
    const double begin_s = vibe_clock_s();
    double queued_s;
    int rc = place_rows(g, err);

    assert(g->n > 0);
    if (rc != VIBE_OK)
        return rc;
    if (noise)
        vibe_write(g->s, g->frame.latent.data, noise,
                   g->n * g->frame.latent.C * sizeof(float));
    else
        vibe_frame_noise(&g->frame, g->s, g->keys);
    vibe_frame_turn(&g->frame);
    vibe_mark(g->s, VIBE_MARK_BEGIN);
    if (step->is_warm)
        run_again(g, step);
    else
        run_whole(g);
    step->is_warm = 1;
    queued_s = vibe_clock_s();
    rc = vibe_stream_check(g->s, err);
    if (rc == VIBE_OK)
        vibe_timeline_step(&g->timeline, g->s, begin_s, queued_s);
    return rc;
}

void vibe_generator_commit(struct vibe_generator *g, size_t d,
                           enum vibe_control token)
{
    struct vibe_dialogue *dialogue = &g->dialogues[d];
    const size_t H = g->models->config.lm.hidden_size;

    dialogue->n_positive++;
    if (token == VIBE_CONTROL_DIFFUSION) {
        dialogue->n_negative++;
        dialogue->frame++;
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
