/*
 * codec.h - acoustic decoder: latent frames in, 24 kHz samples out.
 *
 * Every convolution is causal and keeps the tail of its input, so decoding
 * N frames in one call or one by one yields the same samples, to rounding.
 * That past is the state of a dialogue, kept by the caller:
 *
 *   a tensor [D][1][vibe_codec_state_size()] f32, one row per dialogue.
 *   Zeros are a fresh start; to forget, keep or bring back the past of
 *   dialogue d is one vibe_zero or vibe_copy on its row.
 */
#ifndef VIBE_MODEL_CODEC_H
#define VIBE_MODEL_CODEC_H

#include <stddef.h>

struct vibe_backend;
struct vibe_codec; /* weights on one backend, and scratch */
struct vibe_error;
struct vibe_stack_config;
struct vibe_stream;
struct vibe_tensor;
struct vibe_weights;

/*
 * Check the decoder's tensors without loading them.
 * Errors: VIBE_E_FORMAT, VIBE_E_NOMEM
 */
int vibe_codec_check(const struct vibe_weights *w,
                     const struct vibe_stack_config *config,
                     struct vibe_error *err);

/*
 * Load the decoder.
 *
 *   out           set to the decoder, or to NULL on error; vibe_codec_free
 *   be, w         borrowed until then
 *   n_dialogues   D of a later call at most
 *   max_frames    T of a later call at most
 *
 * Errors: VIBE_E_FORMAT  a tensor is absent or misshapen; msg names it
 *         VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_codec_open(struct vibe_codec **out, struct vibe_backend *be,
                    const struct vibe_weights *w,
                    const struct vibe_stack_config *config, size_t n_dialogues,
                    size_t max_frames, struct vibe_error *err);

/* Release everything; NULL is allowed. */
void vibe_codec_free(struct vibe_codec *codec);

/* Elements of a dialogue's state. */
size_t vibe_codec_state_size(const struct vibe_codec *codec);

/*
 * Decode T frames of each dialogue.  Asynchronous; latches in s.
 *
 *   pcm      [D][T * hop][1] device; about [-1, 1], never clipped
 *   latent   [D][T][vae_dim] device; in decoder units: x / scale - bias
 *   state    [D][1][state size] device, advanced by T frames
 *   before   a copy of it, left as it is, where the caller has one; or NULL
 */
void vibe_codec_decode(struct vibe_codec *codec, struct vibe_stream *s,
                       const struct vibe_tensor *pcm,
                       const struct vibe_tensor *latent,
                       const struct vibe_tensor *state,
                       const struct vibe_tensor *before);

/* Bytes of weights that one call reads. */
size_t vibe_codec_bytes(const struct vibe_codec *codec);

#endif /* VIBE_MODEL_CODEC_H */
