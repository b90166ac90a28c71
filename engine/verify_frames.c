/* verify_frames.c - the loop, forced with recorded inputs and free-running. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/worst.h"
#include "engine/verify.h"

/* Read device rows and the recorded tensor of the same size: [n] each, to be
 * freed, NULL on error. */
static int fetch(struct vibe_verify *v, float **got, float **want,
                 const char *name, const struct vibe_tensor *t)
{
    const size_t n = t->B * t->T * t->C;
    struct vibe_stream *s = &v->engine->stream;
    int rc = vibe_golden_f32(&v->golden, want, name, n, v->err);

    *got = calloc(n, sizeof(**got));
    if (rc == VIBE_OK && !*got)
        rc = vibe_fail(v->err, VIBE_E_NOMEM, "no memory for %s", name);
    if (rc == VIBE_OK) {
        vibe_read(s, *got, t->data, n * sizeof(**got));
        rc = vibe_stream_check(s, v->err);
    }
    return rc;
}

/* Compare device rows with a recorded tensor. */
static int compare_device(struct vibe_verify *v, const char *name,
                          const struct vibe_tensor *t, int is_free)
{
    float *want = NULL;
    float *got = NULL;
    const int rc = fetch(v, &got, &want, name, t);

    if (rc == VIBE_OK)
        vibe_verify_compare(v, name, got, want, t->B * t->T * t->C, is_free);
    free(got);
    free(want);
    return rc;
}

/* Tell how far the latent of a frame is off, under a name of its own: it may be
 * as far as it likes. */
static int tell_latent(struct vibe_verify *v, const char *label,
                       const char *name)
{
    const struct vibe_tensor *t = &v->engine->generator->frame.latent;
    double max_error = 0.0;
    double max_ref = 0.0;
    float *want = NULL;
    float *got = NULL;
    const int rc = fetch(v, &got, &want, name, t);

    for (size_t i = 0; rc == VIBE_OK && i < t->B * t->T * t->C; i++) {
        max_error = vibe_worst(max_error, fabs((double)got[i] - want[i]));
        max_ref = fmax(max_ref, fabs((double)want[i]));
    }
    if (rc == VIBE_OK)
        vibe_verify_report(v, label, max_error, max_ref, INFINITY, 0);
    free(got);
    free(want);
    return rc;
}

/* Write a recorded tensor of n elements over the first elements of t. */
static int force(struct vibe_verify *v, const struct vibe_tensor *t,
                 const char *name, size_t n)
{
    float *values = NULL;
    const size_t want = t->B * t->T * t->C;
    const int rc = vibe_golden_f32(&v->golden, &values, name, n, v->err);

    if (rc == VIBE_OK)
        vibe_write(&v->engine->stream, t->data, values, want * sizeof(*values));
    free(values);
    return rc;
}

/* "frameNNN.<what>", in a buffer of 64. */
static const char *name_of(char *out, size_t frame, const char *what)
{
    snprintf(out, 64, "frame%03zu.%s", frame, what);
    return out;
}

/*
 * Start dialogue 0 with the prompt; voices as recorded.
 *
 * Errors: as vibe_generator_start, VIBE_E_FORMAT
 */
static int begin(struct vibe_verify *v)
{
    struct vibe_engine *e = v->engine;
    const size_t H = e->config.lm.hidden_size;
    const size_t n = vibe_golden_size(&v->golden, "voice.embeds");
    float *embeds = calloc(v->prompt.n * H, sizeof(*embeds));
    struct vibe_opening opening = {
        .T = v->prompt.n,
        .cfg_scale = v->golden.cfg_scale,
    };
    float *voices = NULL;
    size_t at = 0;
    int rc = VIBE_OK;

    if (!embeds)
        rc = vibe_fail(v->err, VIBE_E_NOMEM, "no memory for a prompt");
    if (rc == VIBE_OK)
        rc = vibe_qwen2_embed(e->models.lm, embeds, v->prompt.ids, v->prompt.n,
                              v->err);
    if (rc == VIBE_OK && v->prompt.n_voices)
        rc = vibe_golden_f32(&v->golden, &voices, "voice.embeds", n, v->err);
    for (size_t i = 0; rc == VIBE_OK && i < v->prompt.n_voices; i++) {
        const struct vibe_prompt_voice *voice = &v->prompt.voices[i];

        if (at + voice->n_frames * H > n)
            rc = vibe_fail(v->err, VIBE_E_FORMAT,
                           "voice.embeds has %zu elements, the prompt's voices "
                           "have more",
                           n);
        else
            memcpy(embeds + voice->first * H, voices + at,
                   voice->n_frames * H * sizeof(float));
        at += voice->n_frames * H;
    }
    opening.embeds = embeds;
    vibe_generator_clear(e->generator);
    if (rc == VIBE_OK)
        rc = vibe_generator_prepare(e->generator, v->golden.steps, v->err);
    if (rc == VIBE_OK)
        rc = vibe_generator_start(e->generator, &opening, v->err);
    free(voices);
    free(embeds);
    return rc;
}

/* The control token of a recorded id. */
static int control_of(struct vibe_verify *v, enum vibe_control *out, int64_t id)
{
    for (int i = 0; i < VIBE_N_CONTROL; i++)
        if (v->engine->control_ids[i] == id) {
            *out = (enum vibe_control)i;
            return VIBE_OK;
        }
    return vibe_fail(v->err, VIBE_E_FORMAT,
                     "generated.ids has %lld, not a control token",
                     (long long)id);
}

/* Denoise the recorded noise, of which the first of two rows is used. */
static int denoise(struct vibe_verify *v, size_t frame)
{
    struct vibe_generator *g = v->engine->generator;
    struct vibe_frame *f = &g->frame;
    const struct vibe_tensor hidden = vibe_tensor_batch(&g->hidden, 0, 2);
    char name[64];
    const int rc = force(v, &f->latent, name_of(name, frame, "noise0"),
                         2 * f->latent.C);

    if (rc == VIBE_OK)
        vibe_frame_latent(f, g->s, &hidden);
    return rc;
}

/* Compare the conditions of a frame, and what the head makes of them, which is
 * for tables and not judged; then make the recorded ones. */
static int verify_conditions(struct vibe_verify *v, size_t frame)
{
    static const char *const what[2] = {"pos_condition", "neg_condition"};
    const struct vibe_generator *g = v->engine->generator;
    char name[64], label[64];
    int rc = VIBE_OK;

    for (size_t branch = 0; branch < 2 && rc == VIBE_OK; branch++) {
        const struct vibe_tensor row = vibe_tensor_batch(&g->hidden, branch, 1);

        rc = compare_device(v, name_of(name, frame, what[branch]), &row, 0);
    }
    if (rc == VIBE_OK)
        rc = denoise(v, frame);
    if (rc == VIBE_OK)
        rc = tell_latent(v, name_of(label, frame, "latent of ours"),
                         name_of(name, frame, "latent"));
    for (size_t branch = 0; branch < 2 && rc == VIBE_OK; branch++) {
        const struct vibe_tensor row = vibe_tensor_batch(&g->hidden, branch, 1);

        rc = force(v, &row, name_of(name, frame, what[branch]), row.C);
    }
    return rc;
}

/* One recorded frame: each stage from recorded inputs.  Keeps our samples. */
static int verify_frame(struct vibe_verify *v, size_t frame, float *pcm)
{
    struct vibe_generator *g = v->engine->generator;
    struct vibe_frame *f = &g->frame;
    char name[64];
    int rc = verify_conditions(v, frame);

    if (rc == VIBE_OK)
        rc = denoise(v, frame);
    if (rc == VIBE_OK)
        rc = compare_device(v, name_of(name, frame, "latent"), &f->latent, 0);
    if (rc == VIBE_OK)
        rc = force(v, &f->latent, name, f->latent.C);
    if (rc == VIBE_OK) {
        vibe_frame_decode(f, g->s);
        vibe_read(g->s, pcm, f->pcm.data, f->pcm.T * sizeof(*pcm));
        rc = compare_device(v, name_of(name, frame, "audio"), &f->pcm, 0);
    }
    if (rc == VIBE_OK)
        rc = force(v, &f->pcm, name, f->pcm.T);
    if (rc == VIBE_OK) {
        vibe_frame_listen(f, g->s);
        rc = compare_device(v, name_of(name, frame, "semantic"), &f->semantic,
                            0);
    }
    if (rc == VIBE_OK)
        rc = force(v, &f->semantic, name, f->semantic.C);
    if (rc == VIBE_OK) {
        vibe_frame_connect_latent(f, g->s);
        vibe_frame_connect_semantic(f, g->s);
        rc = compare_device(v, name_of(name, frame, "next_embed"), &f->next, 0);
    }
    return rc == VIBE_OK ? force(v, &f->next, name, f->next.C) : rc;
}

/* What a forced run gathers over its steps, and the records of it. */
struct gathered {
    size_t n; /* tokens */
    int64_t *ids;
    float *logits, *want_logits; /* [n][VIBE_N_CONTROL] */
    size_t n_audio;              /* samples */
    float *audio, *want_audio;
};

static const char LOGITS[] = "generated.logits_start_end_diff_eos";
static const char AUDIO[] = "generated.audio";

static int gathered_init(struct gathered *all, struct vibe_verify *v)
{
    const struct vibe_golden *golden = &v->golden;
    int rc;

    all->n = vibe_golden_size(golden, "generated.ids");
    all->n_audio = vibe_golden_size(golden, AUDIO);
    rc = vibe_golden_i64(golden, &all->ids, "generated.ids", all->n, v->err);
    if (rc == VIBE_OK)
        rc = vibe_golden_f32(golden, &all->want_logits, LOGITS,
                             all->n * VIBE_N_CONTROL, v->err);
    if (rc == VIBE_OK)
        rc = vibe_golden_f32(golden, &all->want_audio, AUDIO, all->n_audio,
                             v->err);
    if (rc != VIBE_OK)
        return rc;
    all->logits = calloc(all->n * VIBE_N_CONTROL + 1, sizeof(float));
    all->audio = calloc(all->n_audio + 1, sizeof(float));
    if (!all->logits || !all->audio)
        return vibe_fail(v->err, VIBE_E_NOMEM, "no memory for %zu tokens",
                         all->n);
    return VIBE_OK;
}

static void gathered_release(struct gathered *all)
{
    free(all->ids);
    free(all->logits);
    free(all->want_logits);
    free(all->audio);
    free(all->want_audio);
}

/* Step number i with recorded inputs. */
static int forced_step(struct vibe_verify *v, struct gathered *all, size_t i)
{
    struct vibe_generator *g = v->engine->generator;
    const size_t frame = g->dialogues[0].frame;
    const size_t hop = v->engine->config.hop;
    enum vibe_control token = VIBE_CONTROL_EOS;
    int rc = control_of(v, &token, all->ids[i]);

    if (rc == VIBE_OK)
        rc = vibe_generator_lm(g, v->err);
    if (rc == VIBE_OK)
        rc = vibe_stream_check(g->s, v->err);
    if (rc != VIBE_OK)
        return rc;
    memcpy(all->logits + i * VIBE_N_CONTROL, g->host_logits,
           VIBE_N_CONTROL * sizeof(float));
    vibe_frame_turn(&g->frame);
    if (token == VIBE_CONTROL_DIFFUSION) {
        if ((frame + 1) * hop > all->n_audio)
            return vibe_fail(v->err, VIBE_E_FORMAT, "%s ends before frame %zu",
                             AUDIO, frame);
        rc = verify_frame(v, frame, all->audio + frame * hop);
    }
    vibe_generator_commit(g, 0, token);
    return rc;
}

int vibe_verify_forced(struct vibe_verify *v)
{
    struct gathered all = {0};
    int rc = gathered_init(&all, v);

    if (rc == VIBE_OK)
        rc = begin(v);
    for (size_t i = 0; i < all.n && rc == VIBE_OK; i++)
        rc = forced_step(v, &all, i);
    if (rc == VIBE_OK) {
        vibe_verify_compare(v, LOGITS, all.logits, all.want_logits,
                            all.n * VIBE_N_CONTROL, 0);
        vibe_verify_compare(v, AUDIO, all.audio, all.want_audio, all.n_audio,
                            0);
    }
    gathered_release(&all);
    return rc;
}

/* A free step with the recorded noise of its frame, or silence after the last
 * recorded one. */
static int free_step(struct vibe_verify *v, enum vibe_control *token)
{
    struct vibe_generator *g = v->engine->generator;
    const size_t C = g->frame.latent.C;
    const size_t frame = g->dialogues[0].frame;
    float *noise = NULL;
    char name[64];
    int rc = VIBE_OK;

    name_of(name, frame, "noise0");
    if (vibe_golden_size(&v->golden, name))
        rc = vibe_golden_f32(&v->golden, &noise, name, 2 * C, v->err);
    if (rc == VIBE_OK)
        rc = vibe_generator_step(g, noise, v->err);
    free(noise);
    if (rc != VIBE_OK)
        return rc;
    *token = vibe_generator_greedy(g, 0);
    if (*token == VIBE_CONTROL_DIFFUSION &&
        vibe_golden_size(&v->golden, name)) {
        /* the first frame has no error to feed back: it is judged */
        rc = compare_device(v, name_of(name, frame, "latent"), &g->frame.latent,
                            frame > 0);
        if (rc == VIBE_OK)
            rc = compare_device(v, name_of(name, frame, "audio"), &g->frame.pcm,
                                frame > 0);
    }
    vibe_generator_commit(g, 0, *token);
    return rc;
}

int vibe_verify_free(struct vibe_verify *v)
{
    struct vibe_engine *e = v->engine;
    struct vibe_verify_summary *summary = v->summary;
    const size_t n = vibe_golden_size(&v->golden, "generated.ids");
    const size_t cap = n > v->golden.max_new_tokens ? n
                                                    : v->golden.max_new_tokens;
    enum vibe_control token = VIBE_CONTROL_START;
    int64_t *ids = NULL;
    int rc = vibe_golden_i64(&v->golden, &ids, "generated.ids", n, v->err);

    free(e->verified_tokens);
    e->verified_tokens = calloc(cap + 1, sizeof(*e->verified_tokens));
    if (rc == VIBE_OK && !e->verified_tokens)
        rc = vibe_fail(v->err, VIBE_E_NOMEM, "no memory for %zu tokens", cap);
    if (rc == VIBE_OK)
        rc = begin(v);
    summary->n_tokens = n;
    summary->tokens = e->verified_tokens;
    while (rc == VIBE_OK && token != VIBE_CONTROL_EOS &&
           summary->n_tokens_got < cap) {
        const size_t i = summary->n_tokens_got;

        rc = free_step(v, &token);
        if (rc != VIBE_OK)
            break;
        e->verified_tokens[i] = e->control_ids[token];
        summary->n_tokens_equal += i < n && ids[i] == e->control_ids[token];
        summary->n_tokens_got++;
    }
    if (rc == VIBE_OK)
        vibe_verify_report(v, "generated.ids (free-running)",
                           (double)(n - summary->n_tokens_equal) +
                               (summary->n_tokens_got > n),
                           (double)n, 0.0, 0);
    free(ids);
    return rc;
}
