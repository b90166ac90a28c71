/*
 * hybrid.h - the CPU multiplies rows that would otherwise be streamed.
 *
 * In a step the input of a product goes to the host, its rows there (the last
 * ones of a matrix) are multiplied by the CPU backend from where the
 * checkpoint is mapped, and their results come back, all behind events: the
 * device meanwhile multiplies the rows that it has or that the link brings.
 * What both compute is rounded differently, so samples depend on how many rows
 * the host has; they do not on anything else.
 */
#ifndef VIBE_HYBRID_H
#define VIBE_HYBRID_H

#include <stddef.h>

#include "engine/backend/ops.h"
#include "offload/share.h"

struct vibe_hybrid;
struct vibe_matrix_source;

/*
 * Open the CPU beside a device.
 *
 *   out       free with vibe_hybrid_free
 *   be        the device; borrowed until then, as sources are
 *   sources   [n] the matrices that stream, in the order of their use
 *   threads   0: all but the one that drives the device
 *   rows      of a step, at most
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_hybrid_open(struct vibe_hybrid **out, struct vibe_backend *be,
                     const struct vibe_matrix_source *sources, size_t n,
                     int threads, size_t rows, struct vibe_error *err);

/* What the device has enqueued is done; NULL is allowed. */
void vibe_hybrid_free(struct vibe_hybrid *h);

/* How fast the CPU multiplies these matrices while the link is busy, see
 * vibe_share_measure. */
int vibe_hybrid_measure(struct vibe_hybrid *h, struct vibe_share_rates *out,
                        struct vibe_error *err);

/*
 * Take rows first .. N - 1 of a matrix, and read them once; src borrowed as
 * by vibe_matrix_load.
 * Errors: VIBE_E_NOMEM
 */
int vibe_hybrid_take(struct vibe_hybrid *h, size_t matrix,
                     const struct vibe_matrix_source *src, size_t first,
                     struct vibe_error *err);

/*
 * Begin y = epilogue(W x) for the rows that were taken of a matrix, behind
 * what is on the stream, and have the stream wait for it; x may not change
 * between the two calls.
 *
 *   y   the channels of those rows
 */
void vibe_hybrid_begin(struct vibe_hybrid *h, struct vibe_stream *s,
                       size_t matrix, const struct vibe_tensor *y,
                       const struct vibe_tensor *x,
                       enum vibe_epilogue epilogue);
void vibe_hybrid_finish(struct vibe_hybrid *h, struct vibe_stream *s,
                        size_t matrix, const struct vibe_tensor *y);

#endif /* VIBE_HYBRID_H */
