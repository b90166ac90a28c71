/* speak.c - one request from its script and voices to its last sample. */
#include <math.h>
#include <stdlib.h>

#include "engine/base/clock.h"
#include "engine/model/diffusion.h"
#include "engine/record.h"
#include "engine/request.h"
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

    if (rc == VIBE_OK && V)
        rc = vibe_voices_encode(engine->voices, &engine->models,
                                &engine->stream, &engine->preprocessor, mean,
                                r->voices, V, err);
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

/* Read the prompt: dialogue 0 of the generator is then ready to step. */
static int begin(struct vibe_engine *engine, const struct vibe_ready *r,
                 const struct vibe_request *request, struct vibe_recorder *rec,
                 struct vibe_error *err)
{
    float *embeds = calloc(r->prompt.n * engine->config.lm.hidden_size,
                           sizeof(*embeds));
    int rc = embeds ? VIBE_OK
                    : vibe_fail(err, VIBE_E_NOMEM,
                                "no memory for a prompt of %zu tokens",
                                r->prompt.n);

    vibe_generator_clear(engine->generator);
    if (rc == VIBE_OK)
        rc = vibe_generator_prepare(engine->generator, (size_t)request->steps,
                                    err);
    if (rc == VIBE_OK)
        rc = embed_prompt(engine, embeds, r, request->seed, rec, err);
    if (rc == VIBE_OK)
        rc = vibe_generator_start(
            engine->generator,
            &(struct vibe_opening){.embeds = embeds,
                                   .T = r->prompt.n,
                                   .seed = request->seed,
                                   .cfg_scale = request->cfg_scale},
            err);
    free(embeds);
    return rc;
}

/* Damaged weights make NaN, and every comparison with NaN chooses something. */
static int check_logits(const struct vibe_generator *g, size_t step,
                        struct vibe_error *err)
{
    for (int i = 0; i < VIBE_N_CONTROL; i++)
        if (!isfinite(g->host_logits[i]))
            return vibe_fail(err, VIBE_E_FORMAT,
                             "the model computes %f for token %zu, expected a "
                             "finite number: its weights are damaged",
                             (double)g->host_logits[i], step);
    return VIBE_OK;
}

static enum vibe_control choose(const struct vibe_engine *engine,
                                const struct vibe_request *request, size_t step)
{
    if (!request->sampling.is_on)
        return vibe_generator_greedy(engine->generator, 0);
    return vibe_sample(engine->generator->host_logits, &request->sampling,
                       request->seed, step);
}

/* Step until the model, a cap or the caller ends it. */
static int run(struct vibe_engine *engine, const struct vibe_request *request,
               size_t max_tokens, struct vibe_recorder *rec,
               struct vibe_result *result, struct vibe_error *err)
{
    struct vibe_generator *g = engine->generator;
    const size_t hop = engine->config.hop;

    result->finish = VIBE_FINISH_LENGTH;
    while (result->tokens < max_tokens &&
           (!request->max_frames || result->frames < request->max_frames)) {
        enum vibe_control token;
        int rc = vibe_generator_step(g, NULL, err);

        if (rc == VIBE_OK)
            rc = check_logits(g, result->tokens, err);
        if (rc != VIBE_OK)
            return rc;
        token = choose(engine, request, result->tokens);
        vibe_recorder_step(rec, g, token);
        vibe_generator_commit(g, 0, token);
        result->tokens++;
        if (token == VIBE_CONTROL_EOS) {
            result->finish = VIBE_FINISH_END;
            break;
        }
        if (token != VIBE_CONTROL_DIFFUSION)
            continue;
        result->frames++;
        result->samples += hop;
        if (request->on_frame &&
            request->on_frame(request->user, g->host_pcm, hop)) {
            result->finish = VIBE_FINISH_INTERRUPTED;
            break;
        }
    }
    return vibe_stream_check(g->s, err);
}

int vibe_speak(struct vibe_engine *engine, const struct vibe_request *request,
               struct vibe_result *result, struct vibe_error *err)
{
    struct vibe_ready r = {0};
    struct vibe_recorder *rec = NULL;
    double start = vibe_clock_s();
    int rc;

    *result = (struct vibe_result){0};
    rc = vibe_ready_init(&r, engine, request, err);
    if (rc == VIBE_OK && request->dump_dir)
        rc = vibe_recorder_open(&rec, &engine->models, request, &r.prompt, err);
    if (rc == VIBE_OK && request->on_prompt)
        request->on_prompt(request->user, r.prompt.n, r.max_tokens);
    if (rc == VIBE_OK)
        rc = begin(engine, &r, request, rec, err);
    result->prompt_tokens = r.prompt.n;
    result->prompt_s = vibe_clock_s() - start;
    start = vibe_clock_s();
    if (rc == VIBE_OK)
        rc = run(engine, request, r.max_tokens, rec, result, err);
    result->frames_s = vibe_clock_s() - start;
    if (rc == VIBE_OK && rec)
        rc = vibe_recorder_write(rec, engine->generator, err);
    vibe_recorder_free(rec);
    vibe_ready_release(&r);
    return rc;
}
