/*
 * parity.h - does a backend compute what the reference computes?
 *
 * Every op runs on fresh random inputs of ragged sizes (1, odd, a tile more or
 * less one), once on the backend and once in plain C on the CPU.  Outputs are
 * poisoned first, so what an op leaves out shows.  Of a backend that was not
 * opened as exact, only those products are looked at that may differ.
 */
#ifndef VIBE_BACKEND_PARITY_H
#define VIBE_BACKEND_PARITY_H

#include <stddef.h>
#include <stdint.h>

struct vibe_backend;
struct vibe_error;

/*
 * Called once per case.
 *
 *   max_err   largest absolute difference; NaN where a result is NaN
 *   bound     what is allowed; 0 where bits must be equal
 */
typedef void vibe_parity_report(void *user, const char *op, const char *shape,
                                double max_err, double bound, int ok);

/*
 * Compare every op and return how many cases failed; 0 is a pass.
 *
 *   seed     of the inputs
 *   report   may be NULL
 *   err      may be NULL; the first reason why a case could not be run, which
 *            counts as failed, else untouched
 */
size_t vibe_parity_run(struct vibe_backend *be, uint64_t seed,
                       vibe_parity_report *report, void *user,
                       struct vibe_error *err);

#endif /* VIBE_BACKEND_PARITY_H */
