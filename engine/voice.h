/*
 * voice.h - reference clips as embeddings of the prompt.
 *
 *   clip -> loudness -> acoustic encoder -> mean -> z = mean + sigma g e
 *        -> (z + bias) * scale -> acoustic connector -> embeddings
 *
 * g is one normal per voice and e one per element, named by the seed.  The
 * encoder is opened for the first clip and closed by vibe_voices_rest, and a
 * clip is encoded once: the means of earlier calls are kept.
 */
#ifndef VIBE_VOICE_H
#define VIBE_VOICE_H

#include <stddef.h>
#include <stdint.h>

struct vibe_codec_encoder;
struct vibe_error;
struct vibe_models;
struct vibe_preprocessor;
struct vibe_stream;
struct vibe_voice;
struct vibe_voices;

/* A clip is shorter than this, in seconds; a good prompt is under a minute. */
enum { VIBE_CLIP_MAX_S = 600 };

/* Means of the clips seen so far; free with vibe_voices_free. */
int vibe_voices_open(struct vibe_voices **out, struct vibe_error *err);
void vibe_voices_free(struct vibe_voices *voices);

/* Let the encoder stay once it has been opened. */
void vibe_voices_keep(struct vibe_voices *voices);

/*
 * Open the encoder of voices, as vibe_voices_encode does.
 *
 *   out   NULL on error; vibe_codec_encoder_free
 */
int vibe_voice_encoder_open(struct vibe_codec_encoder **out,
                            const struct vibe_models *models,
                            struct vibe_error *err);

/* Close the encoder until another clip comes. */
void vibe_voices_rest(struct vibe_voices *voices,
                      const struct vibe_models *models);

/*
 * Bring a clip to the loudness that the model was trained on:
 * x *= 10^(target_db / 20) / (rms + eps), then down to a peak of 1.
 *
 *   out   [n]; may be in
 */
void vibe_voice_normalize(float *out, const float *in, size_t n,
                          const struct vibe_preprocessor *how);

/* Latent frames of a clip of n samples. */
size_t vibe_voice_frames(const struct vibe_models *models, size_t n);

/*
 * Encode the clips of one request.
 *
 *   mean    [n] set to [vibe_voice_frames()][latent] f32, borrowed until
 *           vibe_voices_free
 *   clips   [n]
 *
 * As in the reference, a clip shorter than the longest one is followed by
 * silence, the longest ends in the zero padding of each convolution.
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_voices_encode(struct vibe_voices *voices,
                       const struct vibe_models *models, struct vibe_stream *s,
                       const struct vibe_preprocessor *how, const float **mean,
                       const struct vibe_voice *clips, size_t n,
                       struct vibe_error *err);

/*
 * Sample scaled latents around a mean.
 *
 *   features   [n_frames][latent]
 *   g, e       standard normals: one, and [n_frames][latent]
 */
void vibe_voice_sample(const struct vibe_models *models, float *features,
                       const float *mean, size_t n_frames, float g,
                       const float *e);

/*
 * Draw the normals of voice i.
 *
 *   g    one
 *   e    [n_frames][latent]
 */
void vibe_voice_noise(const struct vibe_models *models, float *g, float *e,
                      size_t n_frames, uint64_t seed, size_t i);

/*
 * Project features into the model's embeddings.  Blocks.
 *
 *   embeds     [n_frames][hidden] host
 *   features   [n_frames][latent] host
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_voice_embed(const struct vibe_models *models, struct vibe_stream *s,
                     float *embeds, const float *features, size_t n_frames,
                     struct vibe_error *err);

#endif /* VIBE_VOICE_H */
