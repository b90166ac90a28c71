/*
 * record.h - what a run computed, written for other eyes (--dump-tensors).
 *
 * The file has the names and shapes of the recorded results that --verify
 * reads, so a dump of one device can be verified on another.
 *
 * Calls on a NULL recorder do nothing.  They latch: a failure is kept and
 * returned by vibe_recorder_write.
 */
#ifndef VIBE_RECORD_H
#define VIBE_RECORD_H

#include <stddef.h>

#include "engine/generate.h"

struct vibe_models;
struct vibe_prompt;
struct vibe_recorder;
struct vibe_request;

/*
 * Start a record of a request.
 *
 *   out       set to the recorder, or to NULL on error; vibe_recorder_free
 *   request   dump_dir is created if it is not there; borrowed until then,
 *             as are models
 *
 * Errors: VIBE_E_IO, VIBE_E_NOMEM
 */
int vibe_recorder_open(struct vibe_recorder **out,
                       const struct vibe_models *models,
                       const struct vibe_request *request,
                       const struct vibe_prompt *prompt,
                       struct vibe_error *err);
void vibe_recorder_free(struct vibe_recorder *rec);

/* A voice of the prompt: features [n_frames][latent], embeds [n_frames][H]. */
void vibe_recorder_voice(struct vibe_recorder *rec, const float *features,
                         const float *embeds, size_t n_frames);

/* The step that g has just made for dialogue 0, and the token chosen. */
void vibe_recorder_step(struct vibe_recorder *rec, struct vibe_generator *g,
                        enum vibe_control token);

/*
 * Write dump_dir/golden.safetensors and dump_dir/golden.json.
 *
 * Errors: VIBE_E_IO, VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_recorder_write(struct vibe_recorder *rec,
                        const struct vibe_generator *g, struct vibe_error *err);

#endif /* VIBE_RECORD_H */
