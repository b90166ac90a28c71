/*
 * diffusion.h - the diffusion head: two hidden states and noise in, one
 * latent frame per dialogue out.
 *
 * D dialogues are sampled together; each has a positive and a negative row.
 * Both rows see the same noisy latent and are mixed by the guidance scale.
 * What does not depend on the latent (the modulation of every layer at every
 * step) is computed once per frame, so a step reads only the rest.
 */
#ifndef VIBE_MODEL_DIFFUSION_H
#define VIBE_MODEL_DIFFUSION_H

#include <stddef.h>

struct vibe_backend;
struct vibe_diffusion; /* weights on one backend, and scratch */
struct vibe_error;
struct vibe_head_config;
struct vibe_stream;
struct vibe_tensor;
struct vibe_weights;

/*
 * Check the head's tensors without loading them.
 * Errors: VIBE_E_FORMAT, VIBE_E_NOMEM
 */
int vibe_diffusion_check(const struct vibe_weights *w,
                         const struct vibe_head_config *config,
                         struct vibe_error *err);

/*
 * Load the head.
 *
 *   out           set to the head, or to NULL on error; vibe_diffusion_free
 *   be, w         borrowed until then
 *   n_dialogues   D of a later call at most
 *
 * Errors: VIBE_E_FORMAT  a tensor is absent or misshapen; msg names it
 *         VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_diffusion_open(struct vibe_diffusion **out, struct vibe_backend *be,
                        const struct vibe_weights *w,
                        const struct vibe_head_config *config,
                        size_t n_dialogues, struct vibe_error *err);

/* Release everything; NULL is allowed. */
void vibe_diffusion_free(struct vibe_diffusion *head);

/*
 * Make ready to sample with n_steps solver steps: tables, timestep
 * embeddings, scratch.  Blocks.  To prepare the same number again is free.
 *
 * Errors: VIBE_E_ARG  n_steps is not 1 .. 1000
 *         VIBE_E_NOMEM, VIBE_E_DEVICE.  The head must then be prepared again.
 */
int vibe_diffusion_prepare(struct vibe_diffusion *head, struct vibe_stream *s,
                           size_t n_steps, struct vibe_error *err);

/* Bytes of device memory that preparing for n_steps takes. */
size_t vibe_diffusion_prepared_bytes(const struct vibe_diffusion *head,
                                     size_t n_steps);

/*
 * Turn noise into latents, as prepared.  Asynchronous; latches in s.
 *
 *   latent      [D][1][latent_size] device; standard normals, replaced by the
 *               latents in the scale of the connector
 *   cond        [2 * D][1][hidden_size] device: D positive rows, D negative
 *   cfg_scale   [D] device
 */
void vibe_diffusion_sample(struct vibe_diffusion *head, struct vibe_stream *s,
                           const struct vibe_tensor *latent,
                           const struct vibe_tensor *cond,
                           const float *cfg_scale);

/* Bytes of weights that a frame of n steps reads: frame_bytes + n *
 * step_bytes. */
size_t vibe_diffusion_frame_bytes(const struct vibe_diffusion *head);
size_t vibe_diffusion_step_bytes(const struct vibe_diffusion *head);

#endif /* VIBE_MODEL_DIFFUSION_H */
