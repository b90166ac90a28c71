/*
 * models.h - every module that speaks, loaded on one backend.
 *
 * The acoustic encoder is not among them: voice.h opens it for as long as
 * voices are read.
 */
#ifndef VIBE_MODELS_H
#define VIBE_MODELS_H

#include <stddef.h>
#include <stdint.h>

#include "engine/format/config.h"
#include "engine/model/connector.h"
#include "engine/streaming.h"

struct vibe_backend;
struct vibe_codec;
struct vibe_codec_encoder;
struct vibe_diffusion;
struct vibe_error;
struct vibe_qwen2;
struct vibe_weights;

struct vibe_models {
    struct vibe_backend *be;      /* borrowed */
    const struct vibe_weights *w; /* borrowed */
    struct vibe_config config;
    size_t n_dialogues;              /* that advance together */
    struct vibe_streaming streaming; /* of lm's matrices; offload NULL: none */
    struct vibe_qwen2 *lm;
    struct vibe_diffusion *head;
    struct vibe_codec *decoder;
    struct vibe_codec_encoder *semantic;
    struct vibe_connector *acoustic_connector;
    struct vibe_connector *semantic_connector;
    struct vibe_latent_scale scale;
    int is_scale_restored; /* see vibe_latent_scale_restore */
};

/*
 * Check every tensor of a checkpoint, acoustic encoder included, before any
 * is read.
 *
 * Errors: VIBE_E_FORMAT, VIBE_E_NOMEM
 */
int vibe_models_check(const struct vibe_weights *w,
                      const struct vibe_config *config, struct vibe_error *err);

/*
 * Load the modules.
 *
 *   m             all zero; release with vibe_models_release, also after an
 *                 error; must not move until then
 *   be, w         borrowed until then
 *   control_ids   [VIBE_N_CONTROL]
 *   streaming     what of the language model is resident; NULL: all of it, as
 *                 the backend loads it
 *
 * Errors: VIBE_E_FORMAT, VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_models_init(struct vibe_models *m, struct vibe_backend *be,
                     const struct vibe_weights *w,
                     const struct vibe_config *config,
                     const int32_t *control_ids, size_t n_dialogues,
                     const struct vibe_streaming_options *streaming,
                     struct vibe_error *err);
void vibe_models_release(struct vibe_models *m);

/* Bytes of weights that a frame of n steps reads: *frame + n * *step. */
void vibe_models_bytes(const struct vibe_models *m, size_t *frame,
                       size_t *step);

#endif /* VIBE_MODELS_H */
