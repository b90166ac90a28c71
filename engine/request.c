#include "engine/request.h"

#include <math.h>
#include <stdlib.h>

#include "engine/text/tokenizer.h"
#include "engine/voice.h"

void vibe_ready_release(struct vibe_ready *r)
{
    free(r->voices);
    free(r->n_frames);
    vibe_prompt_release(&r->prompt);
}

static int check_numbers(const struct vibe_request *request,
                         struct vibe_error *err)
{
    const struct vibe_sampling *sampling = &request->sampling;

    if (!(request->cfg_scale >= 0.0f && request->cfg_scale <= 100.0f))
        return vibe_fail(err, VIBE_E_ARG, "cfg scale %g is not in 0 to 100",
                         (double)request->cfg_scale);
    if (request->steps < 1 || request->steps > 1000)
        return vibe_fail(err, VIBE_E_ARG, "%d steps are not 1 to 1000",
                         request->steps);
    if (!(request->max_length_times > 0.0f))
        return vibe_fail(err, VIBE_E_ARG, "length cap %g is not above 0",
                         (double)request->max_length_times);
    if (sampling->is_on &&
        !(sampling->temperature > 0.0f && isfinite(sampling->temperature) &&
          sampling->top_p > 0.0f && sampling->top_p <= 1.0f))
        return vibe_fail(err, VIBE_E_ARG,
                         "temperature %g is not above 0 or top-p %g not in 0 "
                         "to 1",
                         (double)sampling->temperature,
                         (double)sampling->top_p);
    return VIBE_OK;
}

static const struct vibe_voice *voice_of(const struct vibe_request *request,
                                         int speaker)
{
    for (size_t i = 0; i < request->n_voices; i++)
        if (request->voices[i].speaker == speaker)
            return &request->voices[i];
    return NULL;
}

static int speaks(const struct vibe_script *script, int speaker)
{
    for (size_t i = 0; i < script->n_turns; i++)
        if (script->turns[i].speaker == speaker)
            return 1;
    return 0;
}

/*
 * Put the voices in the order of their numbers.  The model is told "Speaker
 * i" for the i-th voice, so numbers must run from 0 without gaps, and every
 * speaker must have exactly one.
 */
static int order_voices(struct vibe_voice *ordered,
                        const struct vibe_request *request,
                        struct vibe_error *err)
{
    const struct vibe_script *script = request->script;
    const int first = script->lowest > 0 ? 1 : 0; /* is told as 0 */

    /* without any voice, the model invents all of them */
    for (size_t i = 0; i < script->n_turns && request->n_voices > 0; i++)
        if (!voice_of(request, script->turns[i].speaker))
            return vibe_fail(err, VIBE_E_ARG, "speaker %d has no voice",
                             script->turns[i].speaker);
    for (size_t i = 0; i < request->n_voices; i++) {
        const struct vibe_voice *voice = &request->voices[i];

        if (!request->has_silent_voices && !speaks(script, voice->speaker))
            return vibe_fail(err, VIBE_E_ARG,
                             "%s: no line of the script is spoken by %d",
                             voice->name, voice->speaker);
        if (voice_of(request, voice->speaker) != voice)
            return vibe_fail(
                err, VIBE_E_ARG, "speaker %d has two voices, %s and %s",
                voice->speaker, voice_of(request, voice->speaker)->name,
                voice->name);
    }
    for (size_t k = 0; k < request->n_voices; k++) {
        const int speaker = (int)k + first;
        const struct vibe_voice *voice = voice_of(request, speaker);

        if (!voice)
            return vibe_fail(err, VIBE_E_ARG,
                             "speaker %d has no voice: with voices, speakers "
                             "count from %d without gaps",
                             speaker, first);
        ordered[k] = *voice;
    }
    return VIBE_OK;
}

/* +-1e-4 (-80 dB) around whatever constant it rests on: three steps of 16-bit
 * audio, quieter than the noise of any recording of a voice. */
static int is_silent(const struct vibe_voice *voice)
{
    float low = voice->samples[0];
    float high = voice->samples[0];

    for (size_t i = 1; i < voice->n && high - low < 2e-4f; i++) {
        low = fminf(low, voice->samples[i]);
        high = fmaxf(high, voice->samples[i]);
    }
    return high - low < 2e-4f;
}

int vibe_voice_check(const struct vibe_voice *voice, struct vibe_error *err)
{
    if (voice->n == 0)
        return vibe_fail(err, VIBE_E_FORMAT, "%s: holds no audio", voice->name);
    if (voice->n >= (size_t)VIBE_CLIP_MAX_S * VIBE_SAMPLE_RATE)
        return vibe_fail(
            err, VIBE_E_FORMAT, "%s: %.0f s long, a voice is shorter than %d s",
            voice->name, (double)voice->n / VIBE_SAMPLE_RATE, VIBE_CLIP_MAX_S);
    for (size_t i = 0; i < voice->n; i++)
        if (!isfinite(voice->samples[i]))
            return vibe_fail(err, VIBE_E_FORMAT,
                             "%s: sample %zu is not a number", voice->name, i);
    if (is_silent(voice))
        return vibe_fail(err, VIBE_E_FORMAT, "%s: is silent", voice->name);
    return VIBE_OK;
}

int vibe_ready_init(struct vibe_ready *r, const struct vibe_engine *engine,
                    const struct vibe_request *request, struct vibe_error *err)
{
    const size_t max_positions = engine->config.lm.max_position_embeddings;
    double max_tokens;
    int rc = check_numbers(request, err);

    r->voices = calloc(request->n_voices + 1, sizeof(*r->voices));
    r->n_frames = calloc(request->n_voices + 1, sizeof(*r->n_frames));
    if (rc == VIBE_OK && (!r->voices || !r->n_frames))
        rc = vibe_fail(err, VIBE_E_NOMEM, "no memory for voices");
    if (rc == VIBE_OK)
        rc = order_voices(r->voices, request, err);
    for (size_t i = 0; i < request->n_voices && rc == VIBE_OK; i++) {
        rc = vibe_voice_check(&r->voices[i], err);
        r->n_frames[i] = vibe_voice_frames(&engine->models, r->voices[i].n);
    }
    if (rc == VIBE_OK)
        rc = vibe_prompt_build(&r->prompt, engine->tokenizer,
                               engine->control_ids, request->script,
                               r->n_frames, request->n_voices, err);
    if (rc != VIBE_OK)
        return rc;
    if (r->prompt.n >= max_positions)
        return vibe_fail(err, VIBE_E_ARG,
                         "script and voices make %zu tokens, the model takes "
                         "%zu",
                         r->prompt.n, max_positions);
    max_tokens = (double)request->max_length_times * (double)r->prompt.n;
    r->max_tokens = max_positions - r->prompt.n;
    if (max_tokens < (double)r->max_tokens)
        r->max_tokens = (size_t)max_tokens;
    return VIBE_OK;
}

int vibe_request_check(struct vibe_engine *engine,
                       const struct vibe_request *request, size_t *n_tokens,
                       struct vibe_error *err)
{
    struct vibe_ready r = {0};
    const int rc = vibe_ready_init(&r, engine, request, err);

    if (rc == VIBE_OK && n_tokens)
        *n_tokens = r.prompt.n;
    vibe_ready_release(&r);
    return rc;
}

static int is_in_voice(const struct vibe_prompt *prompt, size_t i)
{
    for (size_t v = 0; v < prompt->n_voices; v++)
        if (i >= prompt->voices[v].first &&
            i - prompt->voices[v].first < prompt->voices[v].n_frames)
            return 1;
    return 0;
}

int vibe_request_tokens(struct vibe_engine *engine,
                        const struct vibe_request *request,
                        void (*visit)(void *user, size_t i, int32_t id,
                                      const char *text, size_t n),
                        void *user, struct vibe_error *err)
{
    struct vibe_ready r = {0};
    char text[256]; /* longer than any piece of a vocabulary that was read */
    const int rc = vibe_ready_init(&r, engine, request, err);

    for (size_t i = 0; i < r.prompt.n && rc == VIBE_OK; i++) {
        const int32_t id = r.prompt.ids[i];
        size_t n = 0;

        if (!is_in_voice(&r.prompt, i))
            n = vibe_tokenizer_decode(engine->tokenizer, text, sizeof(text),
                                      id);
        visit(user, i, id, text, n < sizeof(text) ? n : sizeof(text));
    }
    vibe_ready_release(&r);
    return rc;
}
