/*
 * connector.h - from codec features to embeddings of the language model:
 * fc2(rmsnorm(fc1(x))), one connector for latents, one for semantic features.
 */
#ifndef VIBE_MODEL_CONNECTOR_H
#define VIBE_MODEL_CONNECTOR_H

#include <stddef.h>

#include "engine/backend/ops.h"

struct vibe_connector; /* weights on one backend, and scratch */
struct vibe_lm_config;
struct vibe_weights;

/*
 * Check a connector's tensors without loading them.
 * Errors: VIBE_E_FORMAT, VIBE_E_NOMEM
 */
int vibe_connector_check(const struct vibe_weights *w, const char *prefix,
                         size_t in, size_t hidden_size, struct vibe_error *err);

/*
 * Load a connector.
 *
 *   out           set to it, or to NULL on error; vibe_connector_free
 *   be, w         borrowed until then
 *   prefix        "model.acoustic_connector." or "model.semantic_connector."
 *   in            features of a frame
 *   n_dialogues   B of a later call at most
 *
 * Errors: VIBE_E_FORMAT  a tensor is absent or misshapen; msg names it
 *         VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_connector_open(struct vibe_connector **out, struct vibe_backend *be,
                        const struct vibe_weights *w, const char *prefix,
                        size_t in, size_t hidden_size, size_t n_dialogues,
                        struct vibe_error *err);

/* Release everything; NULL is allowed. */
void vibe_connector_free(struct vibe_connector *c);

/*
 * Project features.  Asynchronous; latches in s.
 *
 *   y          [B][T][hidden_size] device
 *   x          [B][T][in] device
 *   epilogue   VIBE_STORE, or VIBE_ADD to add to what y holds
 */
void vibe_connector_forward(struct vibe_connector *c, struct vibe_stream *s,
                            const struct vibe_tensor *y,
                            const struct vibe_tensor *x,
                            enum vibe_epilogue epilogue);

/* Bytes of weights that one call reads. */
size_t vibe_connector_bytes(const struct vibe_connector *c);

/*
 * How acoustic latents z are scaled for the model: x = (z + bias) * scale.
 * The decoder takes z = x / scale - bias.
 */
struct vibe_latent_scale {
    float scale, bias;
};

/*
 * Read the two scalars.
 * Errors: VIBE_E_FORMAT  absent, not finite, or a scale of 0
 */
int vibe_latent_scale_read(struct vibe_latent_scale *out,
                           const struct vibe_weights *w,
                           struct vibe_error *err);

/*
 * The float8 file that was published has the two scalars rounded as well.
 * Where a checkpoint of the released sizes holds exactly that pair put back
 * what it was rounded from; returns whether it did.
 */
int vibe_latent_scale_restore(struct vibe_latent_scale *scale,
                              const struct vibe_lm_config *lm);

#endif /* VIBE_MODEL_CONNECTOR_H */
