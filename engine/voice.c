#include "engine/voice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/noise.h"
#include "engine/backend/ops.h"
#include "engine/base/hash.h"
#include "engine/format/weights.h"
#include "engine/model/codec_encoder.h"
#include "engine/models.h"
#include "engine/vibevoice.h"

/* Frames that the encoder takes at once: a second, with 20 MB of scratch. */
enum { CHUNK_FRAMES = 8 };

/* A clip that has been encoded, known by a hash of what was encoded. */
struct encoded {
    uint64_t hash;
    size_t n_samples;
    float *mean; /* owned */
};

struct vibe_voices {
    struct encoded *items;
    size_t n;
    struct vibe_codec_encoder *enc; /* NULL while none is needed */
    int is_kept;                    /* it stays once it is there */
};

int vibe_voices_open(struct vibe_voices **out, struct vibe_error *err)
{
    *out = calloc(1, sizeof(**out));
    return *out ? VIBE_OK
                : vibe_fail(err, VIBE_E_NOMEM, "no memory for voices");
}

void vibe_voices_free(struct vibe_voices *voices)
{
    if (!voices)
        return;
    for (size_t i = 0; i < voices->n; i++)
        free(voices->items[i].mean);
    vibe_codec_encoder_free(voices->enc);
    free(voices->items);
    free(voices);
}

void vibe_voices_keep(struct vibe_voices *voices)
{
    voices->is_kept = 1;
}

void vibe_voices_rest(struct vibe_voices *voices,
                      const struct vibe_models *models)
{
    if (voices->is_kept)
        return;
    if (voices->enc)
        vibe_weights_forget(models->w, VIBE_ACOUSTIC_ENCODER);
    vibe_codec_encoder_free(voices->enc);
    voices->enc = NULL;
}

void vibe_voice_normalize(float *out, const float *in, size_t n,
                          const struct vibe_preprocessor *how)
{
    double sum = 0.0;
    float peak = 0.0f;
    float gain;

    for (size_t i = 0; i < n; i++)
        sum += (double)in[i] * (double)in[i];
    gain = powf(10.0f, how->target_db / 20.0f) /
           ((float)sqrt(sum / (double)n) + how->eps);
    for (size_t i = 0; i < n; i++) {
        out[i] = in[i] * gain;
        if (fabsf(out[i]) > peak)
            peak = fabsf(out[i]);
    }
    for (size_t i = 0; i < n && peak > 1.0f; i++)
        out[i] /= peak + how->eps;
}

size_t vibe_voice_frames(const struct vibe_models *models, size_t n)
{
    return (n + models->config.hop - 1) / models->config.hop;
}

static const float *find(const struct vibe_voices *voices, uint64_t hash,
                         size_t n_samples)
{
    for (size_t i = 0; i < voices->n; i++)
        if (voices->items[i].hash == hash &&
            voices->items[i].n_samples == n_samples)
            return voices->items[i].mean;
    return NULL;
}

/* Keep a clip; takes its mean on success. */
static int keep(struct vibe_voices *voices, const struct encoded *clip,
                struct vibe_error *err)
{
    struct encoded *items = realloc(voices->items,
                                    (voices->n + 1) * sizeof(*items));

    if (!items)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for a voice");
    voices->items = items;
    items[voices->n++] = *clip;
    return VIBE_OK;
}

/* The clip at its loudness, followed by silence up to n_samples; owned. */
static float *prepare(const struct vibe_voice *clip, size_t n_samples,
                      const struct vibe_preprocessor *how)
{
    float *samples = calloc(n_samples + 1, sizeof(*samples));

    if (samples && how->db_normalize)
        vibe_voice_normalize(samples, clip->samples, clip->n, how);
    else if (samples)
        memcpy(samples, clip->samples, clip->n * sizeof(*samples));
    return samples;
}

int vibe_voice_encoder_open(struct vibe_codec_encoder **out,
                            const struct vibe_models *models,
                            struct vibe_error *err)
{
    int rc;

    models->be->purpose = VIBE_FOR_ENCODER;
    rc = vibe_codec_encoder_open(
        out, models->be, models->w, VIBE_ACOUSTIC_ENCODER,
        &models->config.acoustic_encoder, 1, CHUNK_FRAMES, err);
    models->be->purpose = VIBE_FOR_OTHER;
    return rc;
}

/* One clip: from the kept means, or with the encoder, opened when needed. */
static int encode(struct vibe_voices *voices, const struct vibe_models *models,
                  struct vibe_stream *s, const float **mean,
                  const float *samples, size_t n_samples,
                  struct vibe_error *err)
{
    const struct vibe_stack_config *config = &models->config.acoustic_encoder;
    const uint64_t hash = vibe_hash_f32(VIBE_HASH_START, samples, n_samples);
    float *fresh = NULL;
    int rc = VIBE_OK;

    *mean = find(voices, hash, n_samples);
    if (*mean)
        return VIBE_OK;
    if (!voices->enc)
        rc = vibe_voice_encoder_open(&voices->enc, models, err);
    if (rc != VIBE_OK)
        return rc;
    fresh = calloc(vibe_voice_frames(models, n_samples) * config->vae_dim,
                   sizeof(*fresh));
    if (!fresh)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for a voice");
    rc = vibe_codec_encoder_clip(voices->enc, s, fresh, samples, n_samples,
                                 err);
    if (rc == VIBE_OK)
        rc = keep(voices, &(struct encoded){hash, n_samples, fresh}, err);
    if (rc == VIBE_OK)
        *mean = fresh;
    else
        free(fresh);
    return rc;
}

int vibe_voices_encode(struct vibe_voices *voices,
                       const struct vibe_models *models, struct vibe_stream *s,
                       const struct vibe_preprocessor *how, const float **mean,
                       const struct vibe_voice *clips, size_t n,
                       struct vibe_error *err)
{
    size_t longest = 0;
    int rc = VIBE_OK;

    for (size_t i = 0; i < n; i++)
        if (clips[i].n > longest)
            longest = clips[i].n;

    for (size_t i = 0; i < n && rc == VIBE_OK; i++) {
        const size_t whole = vibe_voice_frames(models, clips[i].n) *
                             models->config.hop;
        const size_t n_samples = whole < longest ? whole : longest;
        float *samples = prepare(&clips[i], n_samples, how);

        if (!samples)
            rc = vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for %zu samples",
                           clips[i].name, n_samples);
        else
            rc = encode(voices, models, s, &mean[i], samples, n_samples, err);
        free(samples);
    }
    return rc;
}

void vibe_voice_sample(const struct vibe_models *models, float *features,
                       const float *mean, size_t n_frames, float g,
                       const float *e)
{
    const size_t n = n_frames * models->config.acoustic_encoder.vae_dim;
    /* the reference divides its fix_std by 0.8 */
    const float sigma = models->config.fix_std / 0.8f * g;

    for (size_t i = 0; i < n; i++) {
        const float z = mean[i] + sigma * e[i];

        features[i] = (z + models->scale.bias) * models->scale.scale;
    }
}

void vibe_voice_noise(const struct vibe_models *models, float *g, float *e,
                      size_t n_frames, uint64_t seed, size_t i)
{
    const size_t C = models->config.acoustic_encoder.vae_dim;
    /* Dialogue 0 names the frames of speech, 2 i + 1 the elements of voice i
     * and 2 i + 2 its g. */
    const uint32_t elements = (uint32_t)(2 * i + 1);

    *g = vibe_noise_normal(seed, elements + 1, 0, 0);
    for (size_t t = 0; t < n_frames; t++)
        for (size_t c = 0; c < C; c++)
            e[t * C + c] = vibe_noise_normal(seed, elements, (uint32_t)t,
                                             (uint32_t)c);
}

int vibe_voice_embed(const struct vibe_models *models, struct vibe_stream *s,
                     float *embeds, const float *features, size_t n_frames,
                     struct vibe_error *err)
{
    const size_t C = models->config.acoustic_encoder.vae_dim;
    const size_t H = models->config.lm.hidden_size;
    struct vibe_tensor x = {0};
    struct vibe_tensor y = {0};
    int rc = vibe_tensor_init(&x, models->be, VIBE_F32, 1, 1, C, err);

    if (rc == VIBE_OK)
        rc = vibe_tensor_init(&y, models->be, VIBE_F32, 1, 1, H, err);
    for (size_t t = 0; t < n_frames && rc == VIBE_OK; t++) {
        vibe_write(s, x.data, features + t * C, C * sizeof(float));
        vibe_connector_forward(models->acoustic_connector, s, &y, &x,
                               VIBE_STORE);
        vibe_read(s, embeds + t * H, y.data, H * sizeof(float));
        rc = vibe_stream_check(s, err);
    }
    vibe_tensor_release(&y, models->be);
    vibe_tensor_release(&x, models->be);
    return rc;
}
