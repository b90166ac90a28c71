/*
 * codec_encoder.h - 24 kHz samples in, one feature vector per frame out.
 *
 * The acoustic encoder (voices) and the semantic encoder (feedback) are the
 * same stack with other weights.  State is kept as codec.h says.
 */
#ifndef VIBE_MODEL_CODEC_ENCODER_H
#define VIBE_MODEL_CODEC_ENCODER_H

#include <stddef.h>

struct vibe_backend;
struct vibe_codec_encoder; /* weights on one backend, and scratch */
struct vibe_error;
struct vibe_stack_config;
struct vibe_stream;
struct vibe_tensor;
struct vibe_weights;

#define VIBE_ACOUSTIC_ENCODER "model.acoustic_tokenizer.encoder."
#define VIBE_SEMANTIC_ENCODER "model.semantic_tokenizer.encoder."

/*
 * Check an encoder's tensors without loading them.
 * Errors: VIBE_E_FORMAT, VIBE_E_NOMEM
 */
int vibe_codec_encoder_check(const struct vibe_weights *w, const char *prefix,
                             const struct vibe_stack_config *config,
                             struct vibe_error *err);

/*
 * Load an encoder.
 *
 *   out           set to it, or to NULL on error; vibe_codec_encoder_free
 *   be, w         borrowed until then
 *   prefix        VIBE_ACOUSTIC_ENCODER or VIBE_SEMANTIC_ENCODER
 *   n_dialogues   D of a later call at most
 *   max_frames    T of a later call at most; scratch is about 2.5 MB for
 *                 each frame and dialogue
 *
 * Errors: VIBE_E_FORMAT  a tensor is absent or misshapen; msg names it
 *         VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_codec_encoder_open(struct vibe_codec_encoder **out,
                            struct vibe_backend *be,
                            const struct vibe_weights *w, const char *prefix,
                            const struct vibe_stack_config *config,
                            size_t n_dialogues, size_t max_frames,
                            struct vibe_error *err);

/* Release everything; NULL is allowed. */
void vibe_codec_encoder_free(struct vibe_codec_encoder *enc);

/* Elements of a dialogue's state. */
size_t vibe_codec_encoder_state_size(const struct vibe_codec_encoder *enc);

/*
 * Encode T frames of each dialogue.  Asynchronous; latches in s.
 *
 *   features   [D][T][vae_dim] device
 *   pcm        [D][n][1] device, T = ceil(n / hop).  A part of a frame is
 *              completed by zeros in front of every convolution, as the
 *              reference ends a clip; state is of no use after that.
 *   state      [D][1][state size] device, advanced by T frames
 *   before     a copy of it, left as it is, where the caller has one; or NULL
 */
void vibe_codec_encoder_step(struct vibe_codec_encoder *enc,
                             struct vibe_stream *s,
                             const struct vibe_tensor *features,
                             const struct vibe_tensor *pcm,
                             const struct vibe_tensor *state,
                             const struct vibe_tensor *before);

/*
 * Encode a whole clip, max_frames at a time.  Blocks.
 *
 *   features   [ceil(n / hop)][vae_dim] f32, host
 *   pcm        [n] host, n > 0
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_codec_encoder_clip(struct vibe_codec_encoder *enc,
                            struct vibe_stream *s, float *features,
                            const float *pcm, size_t n, struct vibe_error *err);

/* Bytes of weights that one call reads. */
size_t vibe_codec_encoder_bytes(const struct vibe_codec_encoder *enc);

#endif /* VIBE_MODEL_CODEC_ENCODER_H */
