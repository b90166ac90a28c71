/*
 * planning.h - from a checkpoint, a device and what was asked to a plan, and
 * from there to memory that has been taken.
 */
#ifndef VIBE_PLANNING_H
#define VIBE_PLANNING_H

#include <stddef.h>

#include "engine/base/dtype.h"

struct vibe_backend;
struct vibe_engine;
struct vibe_engine_options;
struct vibe_engine_plan;
struct vibe_error;
struct vibe_plan_model;
struct vibe_plan_rates;

/*
 * Count what e's checkpoint takes of a GPU; e has its files read.
 *
 *   lm   what the language model's matrices are kept in; AUTO: as they are
 *   kv   of keys and values
 *
 * Errors: VIBE_E_FORMAT, VIBE_E_NOMEM
 */
int vibe_planning_measure(struct vibe_plan_model *out,
                          const struct vibe_engine *e,
                          const struct vibe_engine_options *o,
                          enum vibe_weight_dtype lm, enum vibe_dtype kv,
                          struct vibe_error *err);

/*
 * Count the checkpoint's parts on e's backend and plan for the requests of
 * the options.
 *
 * Where no dtype is asked for, and layers of bf16 would be streamed for want of
 * room only, the first of these that avoids it is chosen: packed bf16; int8;
 * int8, for the diffusion head, too.  Where something streams, the device and
 * its link are probed, for a ring that suits them.
 *
 *   e     with its files read and its backend open, nothing loaded; its
 *         weights are kept as out->precision says
 *   out   untouched on error
 *
 * Errors: VIBE_E_NOMEM (it does not fit; see vibe_plan_make), VIBE_E_FORMAT
 */
int vibe_planning_make(struct vibe_engine_plan *out,
                       const struct vibe_engine *e,
                       const struct vibe_engine_options *o,
                       struct vibe_error *err);

/*
 * Count the layers that a device has room for: e's own beside everything else,
 * another one beside what layers need.
 *
 * Errors: VIBE_E_FORMAT, VIBE_E_NOMEM
 */
struct vibe_planning_room {
    double layers;
    size_t layer_rows;  /* bytes of one */
    size_t layer_bytes; /* the same with keys and values */
    size_t fixed;       /* besides, scratch included */
    size_t scratch;     /* of ops */
};

int vibe_planning_layers(struct vibe_planning_room *out,
                         const struct vibe_engine *e, struct vibe_backend *be,
                         const struct vibe_engine_options *o,
                         struct vibe_error *err);

/* Find how fast a device and its link are, from pageable memory where that is
 * asked for or no other is to be had; takes memory for a moment. */
void vibe_planning_probe(struct vibe_plan_rates *out, struct vibe_backend *be,
                         int is_unpinned);

/*
 * Take all the memory of a plan; what is loaded from now on goes there.
 *
 * Errors: VIBE_E_NOMEM  somebody else has taken it since
 */
int vibe_planning_reserve(struct vibe_engine *e,
                          const struct vibe_engine_plan *made,
                          struct vibe_error *err);

#endif /* VIBE_PLANNING_H */
