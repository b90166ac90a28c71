/*
 * finite.h - looking for weights that are no numbers.
 *
 * NaN of bf16 reaches the samples, where it is noticed.  That of float8 does
 * not on every device, and no code of fewer bits says it.
 */
#ifndef VIBE_FORMAT_FINITE_H
#define VIBE_FORMAT_FINITE_H

#include <stddef.h>

struct vibe_error;
struct vibe_weight;

/* Are all of in[n] finite? */
int vibe_finite_f32(const float *in, size_t n);

/*
 * Look through all codes of a float8 weight.
 *
 *   threads   to work with
 *
 * Errors: VIBE_E_FORMAT  one of them is NaN; msg names file and tensor
 */
int vibe_finite_check_f8(const struct vibe_weight *w, int threads,
                         struct vibe_error *err);

#endif /* VIBE_FORMAT_FINITE_H */
