/* verify_voices.c - loudness, voices and the one-shot codec. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/codec.h"
#include "engine/model/codec_encoder.h"
#include "engine/verify.h"
#include "engine/voice.h"

/*
 * Voice i: its loudness and, padded with silence to the longest, its row of
 * prompt.input_values [V][n_row].
 */
static int verify_loudness(struct vibe_verify *v, size_t i, float *row,
                           size_t n_row)
{
    char raw[48], normalized[48];
    float *in = NULL;
    float *want = NULL;
    size_t n;
    int rc;

    snprintf(raw, sizeof(raw), "prompt.voice%zu_raw", i);
    snprintf(normalized, sizeof(normalized), "prompt.voice%zu_normalized", i);
    n = vibe_golden_size(&v->golden, raw);
    rc = vibe_golden_f32(&v->golden, &in, raw, n, v->err);
    if (rc == VIBE_OK)
        rc = vibe_golden_f32(&v->golden, &want, normalized, n, v->err);
    if (rc == VIBE_OK && n > n_row)
        rc = vibe_fail(v->err, VIBE_E_FORMAT,
                       "%s has %zu samples, prompt.input_values %zu", raw, n,
                       n_row);
    if (rc == VIBE_OK) {
        vibe_voice_normalize(in, in, n, &v->engine->preprocessor);
        vibe_verify_compare(v, normalized, in, want, n, 0);
        memcpy(row, in, n * sizeof(*row));
    }
    free(in);
    free(want);
    return rc;
}

static int verify_inputs(struct vibe_verify *v, size_t V)
{
    static const char name[] = "prompt.input_values";
    const size_t n = vibe_golden_size(&v->golden, name);
    float *got = calloc(n + 1, sizeof(*got));
    float *want = NULL;
    int rc = vibe_golden_f32(&v->golden, &want, name, n, v->err);

    if (rc == VIBE_OK && !got)
        rc = vibe_fail(v->err, VIBE_E_NOMEM, "no memory for voices");
    for (size_t i = 0; i < V && rc == VIBE_OK; i++)
        rc = verify_loudness(v, i, got + i * (n / V), n / V);
    if (rc == VIBE_OK)
        vibe_verify_compare(v, name, got, want, n, 0);
    free(got);
    free(want);
    return rc;
}

/* Encode recorded samples [n] to frames of C features, in one go. */
static int encode(struct vibe_verify *v, float *features, const char *prefix,
                  const float *pcm, size_t n)
{
    struct vibe_engine *e = v->engine;
    const int is_acoustic = !strcmp(prefix, VIBE_ACOUSTIC_ENCODER);
    struct vibe_codec_encoder *enc = NULL;
    int rc = vibe_codec_encoder_open(&enc, e->backend, e->weights, prefix,
                                     is_acoustic ? &e->config.acoustic_encoder
                                                 : &e->config.semantic_encoder,
                                     1, 8, v->err);

    if (rc == VIBE_OK)
        rc = vibe_codec_encoder_clip(enc, &e->stream, features, pcm, n, v->err);
    vibe_codec_encoder_free(enc);
    return rc;
}

/* voice.latents_sampled [V][T][C] from input_values and recorded draws. */
static int verify_sampling(struct vibe_verify *v, size_t V)
{
    struct vibe_engine *e = v->engine;
    const size_t C = e->config.acoustic_encoder.vae_dim;
    const size_t n = vibe_golden_size(&v->golden, "prompt.input_values") / V;
    const size_t T = vibe_voice_frames(&e->models, n);
    const float sigma = e->config.fix_std / 0.8f;
    float *pcm = NULL;
    float *g = NULL;
    float *noise = NULL;
    float *want = NULL;
    float *got = calloc(V * T * C, sizeof(*got));
    int rc = vibe_golden_f32(&v->golden, &pcm, "prompt.input_values", V * n,
                             v->err);

    if (rc == VIBE_OK)
        rc = vibe_golden_f32(&v->golden, &g, "voice.noise0", V, v->err);
    if (rc == VIBE_OK)
        rc = vibe_golden_f32(&v->golden, &noise, "voice.noise1", V * T * C,
                             v->err);
    if (rc == VIBE_OK)
        rc = vibe_golden_f32(&v->golden, &want, "voice.latents_sampled",
                             V * T * C, v->err);
    if (rc == VIBE_OK && !got)
        rc = vibe_fail(v->err, VIBE_E_NOMEM, "no memory for latents");
    for (size_t i = 0; i < V && rc == VIBE_OK; i++)
        rc = encode(v, got + i * T * C, VIBE_ACOUSTIC_ENCODER, pcm + i * n, n);
    if (rc == VIBE_OK) {
        for (size_t i = 0; i < V * T * C; i++)
            got[i] += sigma * g[i / (T * C)] * noise[i];
        vibe_verify_compare(v, "voice.latents_sampled", got, want, V * T * C,
                            0);
    }
    free(pcm);
    free(g);
    free(noise);
    free(want);
    free(got);
    return rc;
}

/* voice.features [sum of frames][C] from the recorded latents. */
static int verify_features(struct vibe_verify *v, size_t V)
{
    const struct vibe_latent_scale *scale = &v->engine->models.scale;
    const size_t C = v->engine->config.acoustic_encoder.vae_dim;
    const size_t all = vibe_golden_size(&v->golden, "voice.latents_sampled");
    const size_t n = vibe_golden_size(&v->golden, "voice.features");
    float *latents = NULL;
    float *want = NULL;
    size_t at = 0;
    int rc = vibe_golden_f32(&v->golden, &latents, "voice.latents_sampled", all,
                             v->err);

    if (rc == VIBE_OK)
        rc = vibe_golden_f32(&v->golden, &want, "voice.features", n, v->err);
    for (size_t i = 0; i < V && rc == VIBE_OK; i++)
        for (size_t k = 0; k < v->prompt.voices[i].n_frames * C; k++) {
            const float z = latents[i * (all / V) + k];

            /* in place: rows only move towards the front */
            latents[at++] = (z + scale->bias) * scale->scale;
        }
    if (rc == VIBE_OK && at != n)
        rc = vibe_fail(v->err, VIBE_E_FORMAT,
                       "voice.features has %zu elements, expected %zu", n, at);
    if (rc == VIBE_OK)
        vibe_verify_compare(v, "voice.features", latents, want, n, 0);
    free(latents);
    free(want);
    return rc;
}

/* voice.embeds from the recorded features. */
static int verify_embeds(struct vibe_verify *v)
{
    struct vibe_engine *e = v->engine;
    const size_t C = e->config.acoustic_encoder.vae_dim;
    const size_t H = e->config.lm.hidden_size;
    const size_t n = vibe_golden_size(&v->golden, "voice.features");
    float *features = NULL;
    float *want = NULL;
    float *got = calloc(n / C * H, sizeof(*got));
    int rc = vibe_golden_f32(&v->golden, &features, "voice.features", n,
                             v->err);

    if (rc == VIBE_OK)
        rc = vibe_golden_f32(&v->golden, &want, "voice.embeds", n / C * H,
                             v->err);
    if (rc == VIBE_OK && !got)
        rc = vibe_fail(v->err, VIBE_E_NOMEM, "no memory for embeddings");
    if (rc == VIBE_OK)
        rc = vibe_voice_embed(&e->models, &e->stream, got, features, n / C,
                              v->err);
    if (rc == VIBE_OK)
        vibe_verify_compare(v, "voice.embeds", got, want, n / C * H, 0);
    free(features);
    free(want);
    free(got);
    return rc;
}

int vibe_verify_voices(struct vibe_verify *v)
{
    const size_t V = v->prompt.n_voices;
    int rc = VIBE_OK;

    /* a dump of ours has no clips, only what came of them */
    if (V && vibe_golden_size(&v->golden, "prompt.input_values")) {
        rc = verify_inputs(v, V);
        if (rc == VIBE_OK)
            rc = verify_sampling(v, V);
        if (rc == VIBE_OK)
            rc = verify_features(v, V);
    }
    if (rc == VIBE_OK && V)
        rc = verify_embeds(v);
    return rc;
}

/* A one-shot encode of voice 0, without sampling. */
static int verify_encode(struct vibe_verify *v, const char *name,
                         const char *prefix, size_t C)
{
    const size_t n = vibe_golden_size(&v->golden, "prompt.voice0_normalized");
    const size_t T = vibe_voice_frames(&v->engine->models, n);
    float *pcm = NULL;
    float *want = NULL;
    float *got = calloc(T * C + 1, sizeof(*got));
    int rc = vibe_golden_f32(&v->golden, &pcm, "prompt.voice0_normalized", n,
                             v->err);

    if (rc == VIBE_OK)
        rc = vibe_golden_f32(&v->golden, &want, name, T * C, v->err);
    if (rc == VIBE_OK && !got)
        rc = vibe_fail(v->err, VIBE_E_NOMEM, "no memory for %s", name);
    if (rc == VIBE_OK)
        rc = encode(v, got, prefix, pcm, n);
    if (rc == VIBE_OK)
        vibe_verify_compare(v, name, got, want, T * C, 0);
    free(pcm);
    free(want);
    free(got);
    return rc;
}

/* Decode latents[T][C] in one call, from silence. */
static int decode(struct vibe_verify *v, float *pcm, const float *latents,
                  size_t T)
{
    struct vibe_engine *e = v->engine;
    const size_t C = e->config.acoustic_decoder.vae_dim;
    struct vibe_codec *codec = NULL;
    struct vibe_tensor x = {0};
    struct vibe_tensor y = {0};
    struct vibe_tensor state = {0};
    int rc = vibe_codec_open(&codec, e->backend, e->weights,
                             &e->config.acoustic_decoder, 1, T, v->err);

    if (rc == VIBE_OK)
        rc = vibe_tensor_init(&x, e->backend, VIBE_F32, 1, T, C, v->err);
    if (rc == VIBE_OK)
        rc = vibe_tensor_init(&y, e->backend, VIBE_F32, 1, T * e->config.hop, 1,
                              v->err);
    if (rc == VIBE_OK)
        rc = vibe_tensor_init(&state, e->backend, VIBE_F32, 1, 1,
                              vibe_codec_state_size(codec), v->err);
    if (rc == VIBE_OK) {
        vibe_write(&e->stream, x.data, latents, T * C * sizeof(float));
        vibe_codec_decode(codec, &e->stream, &y, &x, &state, NULL);
        vibe_read(&e->stream, pcm, y.data, T * e->config.hop * sizeof(float));
        rc = vibe_stream_check(&e->stream, v->err);
    }
    vibe_tensor_release(&state, e->backend);
    vibe_tensor_release(&y, e->backend);
    vibe_tensor_release(&x, e->backend);
    vibe_codec_free(codec);
    return rc;
}

static int verify_decode(struct vibe_verify *v)
{
    const size_t n = vibe_golden_size(&v->golden, "codec.decode_input");
    const size_t T = n / v->engine->config.acoustic_decoder.vae_dim;
    const size_t n_pcm = T * v->engine->config.hop;
    float *latents = NULL;
    float *want = NULL;
    float *got = calloc(n_pcm + 1, sizeof(*got));
    int rc = vibe_golden_f32(&v->golden, &latents, "codec.decode_input", n,
                             v->err);

    if (rc == VIBE_OK)
        rc = vibe_golden_f32(&v->golden, &want, "codec.decode_oneshot", n_pcm,
                             v->err);
    if (rc == VIBE_OK && !got)
        rc = vibe_fail(v->err, VIBE_E_NOMEM, "no memory for %zu frames", T);
    if (rc == VIBE_OK)
        rc = decode(v, got, latents, T);
    if (rc == VIBE_OK)
        vibe_verify_compare(v, "codec.decode_oneshot", got, want, n_pcm, 0);
    free(latents);
    free(want);
    free(got);
    return rc;
}

int vibe_verify_codec(struct vibe_verify *v)
{
    const struct vibe_config *config = &v->engine->config;
    int rc = VIBE_OK;

    if (vibe_golden_size(&v->golden, "codec.decode_oneshot"))
        rc = verify_decode(v);
    if (rc == VIBE_OK &&
        vibe_golden_size(&v->golden, "codec.encode_mean_voice0"))
        rc = verify_encode(v, "codec.encode_mean_voice0", VIBE_ACOUSTIC_ENCODER,
                           config->acoustic_encoder.vae_dim);
    if (rc == VIBE_OK && vibe_golden_size(&v->golden, "codec.semantic_voice0"))
        rc = verify_encode(v, "codec.semantic_voice0", VIBE_SEMANTIC_ENCODER,
                           config->semantic_encoder.vae_dim);
    return rc;
}
