/*
 * front.h - the first layers of the language model, on devices of their own.
 *
 * The engine's device holds the last layers and everything else.  Rows that
 * are computed there pass through each front first, by a copy from device to
 * device; keys and values of a layer stay where the layer is.
 */
#ifndef VIBE_FRONT_H
#define VIBE_FRONT_H

#include <stddef.h>

#include "engine/vibevoice.h"

struct vibe_engine;
struct vibe_fronts;

/*
 * Open the other devices of the options, and take so many layers from
 * e->config that each of them holds its share; what no device holds stays
 * with the engine's.
 *
 *   out   set to the fronts, or to NULL on error or where the options name no
 *         other device; free with vibe_fronts_free after the generator
 *   e     its files read and its backend open
 *
 * Errors: VIBE_E_DEVICE, VIBE_E_NOMEM, VIBE_E_FORMAT
 */
int vibe_fronts_open(struct vibe_fronts **out, struct vibe_engine *e,
                     const struct vibe_engine_options *o,
                     struct vibe_error *err);

/*
 * Load the fronts' layers and put them before those of e's model, whose
 * generator is open.  Errors: VIBE_E_NOMEM, VIBE_E_DEVICE, VIBE_E_FORMAT
 */
int vibe_fronts_load(struct vibe_fronts *fronts, struct vibe_engine *e,
                     struct vibe_error *err);

/* What each of them that has layers takes; returns how many, at most max.
 * NULL: none. */
size_t vibe_fronts_plan(const struct vibe_fronts *fronts,
                        struct vibe_front_plan *out, size_t max);

/* Bytes of weights that a step reads there; NULL: none. */
size_t vibe_fronts_step_bytes(const struct vibe_fronts *fronts);

/* Release everything; NULL is allowed. */
void vibe_fronts_free(struct vibe_fronts *fronts);

#endif /* VIBE_FRONT_H */
