#include "engine/talk.h"

#include <math.h>
#include <stdlib.h>

#include "engine/base/clock.h"
#include "engine/record.h"
#include "engine/sample.h"
#include "engine/voice.h"

/* Encode, sample and project one voice into the rows of its placeholders. */
static int embed_voice(struct vibe_engine *engine, float *rows,
                       const float *mean, size_t n_frames, uint64_t seed,
                       size_t i, struct vibe_recorder *rec,
                       struct vibe_error *err)
{
    const size_t C = engine->config.acoustic_encoder.vae_dim;
    float *e = calloc(2 * n_frames * C, sizeof(*e));
    float *features = e ? e + n_frames * C : NULL;
    float g;
    int rc;

    if (!e)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for a voice");
    vibe_voice_noise(&engine->models, &g, e, n_frames, seed, i);
    vibe_voice_sample(&engine->models, features, mean, n_frames, g, e);
    rc = vibe_voice_embed(&engine->models, &engine->stream, rows, features,
                          n_frames, err);
    if (rc == VIBE_OK)
        vibe_recorder_voice(rec, features, rows, n_frames);
    free(e);
    return rc;
}

/* The prompt as embeddings [prompt.n][H]: tokens, then voices over them. */
static int embed_prompt(struct vibe_engine *engine, float *embeds,
                        const struct vibe_ready *r, uint64_t seed,
                        struct vibe_recorder *rec, struct vibe_error *err)
{
    const size_t H = engine->config.lm.hidden_size;
    const size_t V = r->prompt.n_voices;
    const float **mean = calloc(V + 1, sizeof(*mean));
    int rc = mean ? VIBE_OK
                  : vibe_fail(err, VIBE_E_NOMEM, "no memory for voices");

    /* voices are read where keys and values come later */
    if (V)
        vibe_generator_rest(engine->generator);
    if (rc == VIBE_OK && V)
        rc = vibe_voices_encode(engine->voices, &engine->models,
                                &engine->stream, &engine->preprocessor, mean,
                                r->voices, V, err);
    vibe_voices_rest(engine->voices, &engine->models);
    if (rc == VIBE_OK)
        rc = vibe_qwen2_embed(engine->models.lm, embeds, r->prompt.ids,
                              r->prompt.n, err);
    for (size_t i = 0; i < V && rc == VIBE_OK; i++)
        rc = embed_voice(engine, embeds + r->prompt.voices[i].first * H,
                         mean[i], r->prompt.voices[i].n_frames, seed, i, rec,
                         err);
    free(mean);
    return rc;
}

/* Check the request and embed what it says. */
static int prepare(struct vibe_talk *talk, struct vibe_engine *engine)
{
    const struct vibe_request *request = &talk->request;
    struct vibe_ready *r = &talk->ready;
    struct vibe_error *err = &talk->err;
    int rc = vibe_ready_init(r, engine, request, err);

    if (rc == VIBE_OK && request->dump_dir)
        rc = vibe_recorder_open(&talk->rec, &engine->models, request,
                                &r->prompt, err);
    if (rc != VIBE_OK)
        return rc;
    talk->result.prompt_tokens = r->prompt.n;
    if (request->on_prompt)
        request->on_prompt(request->user, r->prompt.n, r->max_tokens);
    talk->embeds = calloc(r->prompt.n * engine->config.lm.hidden_size,
                          sizeof(*talk->embeds));
    if (!talk->embeds)
        return vibe_fail(err, VIBE_E_NOMEM,
                         "no memory for a prompt of %zu tokens", r->prompt.n);
    return embed_prompt(engine, talk->embeds, r, request->seed, talk->rec, err);
}

int vibe_talk_open(struct vibe_talk **out, struct vibe_engine *engine,
                   const struct vibe_request *request, struct vibe_error *err)
{
    struct vibe_talk *talk = calloc(1, sizeof(*talk));

    *out = talk;
    if (!talk)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for a dialogue");
    talk->request = *request;
    talk->start_s = vibe_clock_s();
    talk->is_over = prepare(talk, engine) != VIBE_OK;
    return VIBE_OK;
}

void vibe_talk_free(struct vibe_talk *talk)
{
    if (!talk)
        return;
    vibe_recorder_free(talk->rec);
    vibe_ready_release(&talk->ready);
    free(talk->embeds);
    free(talk);
}

struct vibe_opening vibe_talk_opening(const struct vibe_talk *talk)
{
    return (struct vibe_opening){
        .embeds = talk->embeds,
        .T = talk->ready.prompt.n,
        .first_frame = talk->request.first_frame,
        .seed = talk->request.seed,
        .cfg_scale = talk->request.cfg_scale,
    };
}

/* May it go on? */
static int is_within_caps(const struct vibe_talk *talk)
{
    const size_t max_frames = talk->request.max_frames;

    return talk->result.tokens < talk->ready.max_tokens &&
           (max_frames == 0 || talk->result.frames < max_frames);
}

static void finish(struct vibe_talk *talk, enum vibe_finish how)
{
    talk->result.finish = how;
    talk->is_over = 1;
}

void vibe_talk_begin(struct vibe_talk *talk)
{
    const double now = vibe_clock_s();

    free(talk->embeds);
    talk->embeds = NULL;
    talk->result.prompt_s = now - talk->start_s;
    talk->start_s = now;
    if (!is_within_caps(talk))
        finish(talk, VIBE_FINISH_LENGTH);
}

/* Damaged weights make NaN, and every comparison with NaN chooses something. */
static int check_logits(const float *logits, size_t step,
                        struct vibe_error *err)
{
    for (int i = 0; i < VIBE_N_CONTROL; i++)
        if (!isfinite(logits[i]))
            return vibe_fail(err, VIBE_E_FORMAT,
                             "the model computes %f for token %zu, expected a "
                             "finite number: its weights are damaged",
                             (double)logits[i], step);
    return VIBE_OK;
}

static enum vibe_control choose(const struct vibe_talk *talk,
                                const struct vibe_generator *g, size_t d)
{
    const struct vibe_request *request = &talk->request;

    if (!request->sampling.is_on)
        return vibe_generator_greedy(g, d);
    return vibe_sample(g->host_logits + d * VIBE_N_CONTROL, &request->sampling,
                       request->seed,
                       request->first_frame + talk->result.tokens);
}

/* Hand a frame to the caller, who may have heard enough. */
static void pass_frame(struct vibe_talk *talk, const float *pcm, size_t hop)
{
    const struct vibe_request *request = &talk->request;

    talk->result.frames++;
    talk->result.samples += hop;
    if (request->on_frame && request->on_frame(request->user, pcm, hop))
        finish(talk, VIBE_FINISH_INTERRUPTED);
}

void vibe_talk_step(struct vibe_talk *talk, struct vibe_engine *engine,
                    size_t d)
{
    struct vibe_generator *g = engine->generator;
    const size_t hop = engine->config.hop;
    enum vibe_control token;

    if (check_logits(g->host_logits + d * VIBE_N_CONTROL, talk->result.tokens,
                     &talk->err) != VIBE_OK) {
        talk->is_over = 1;
        return;
    }
    token = choose(talk, g, d);
    vibe_recorder_step(talk->rec, g, token);
    vibe_generator_commit(g, d, token);
    talk->result.tokens++;
    if (token == VIBE_CONTROL_EOS)
        finish(talk, VIBE_FINISH_END);
    if (token == VIBE_CONTROL_DIFFUSION)
        pass_frame(talk, g->host_pcm + d * hop, hop);
    if (!talk->is_over && !is_within_caps(talk))
        finish(talk, VIBE_FINISH_LENGTH);
}

void vibe_talk_fail(struct vibe_talk *talk, const struct vibe_error *why)
{
    if (!talk->is_over)
        talk->err = *why;
    talk->is_over = 1;
}

void vibe_talk_interrupt(struct vibe_talk *talk)
{
    if (!talk->is_over)
        finish(talk, VIBE_FINISH_INTERRUPTED);
}

void vibe_talk_end(struct vibe_talk *talk, struct vibe_engine *engine)
{
    const double elapsed = vibe_clock_s() - talk->start_s;

    if (talk->embeds) /* it never came to speak */
        talk->result.prompt_s = elapsed;
    else
        talk->result.frames_s = elapsed;
    if (talk->rec && talk->err.code == VIBE_OK)
        vibe_recorder_write(talk->rec, engine->generator, &talk->err);
}
