/*
 * measure.h - what a checkpoint takes of a device, counted without one.
 */
#ifndef VIBE_MEASURE_H
#define VIBE_MEASURE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/dtype.h"
#include "offload/plan.h"

struct vibe_config;
struct vibe_error;
struct vibe_weights;

struct vibe_measured {
    const struct vibe_weights *w;
    const struct vibe_config *config;
    const int32_t *control_ids; /* [VIBE_N_CONTROL] */
    size_t n_dialogues, steps;
    enum vibe_dtype kv_dtype;
    enum vibe_weight_dtype lm; /* what the language model is kept in */
};

/*
 * Open every module, the generator and the encoder of voices on a backend that
 * only counts (backend/tally.h).
 *
 *   out   untouched on error
 *
 * Errors: VIBE_E_FORMAT, VIBE_E_NOMEM
 */
int vibe_measure(struct vibe_plan_model *out, const struct vibe_measured *what,
                 struct vibe_error *err);

#endif /* VIBE_MEASURE_H */
