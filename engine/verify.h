/*
 * verify.h - what the parts of vibe_engine_verify share.
 *
 * Forced: each stage of each frame gets the recorded inputs, caches and codec
 * states being our own, so that errors do not feed back.  Free: everything but
 * the noise and the voices is our own, and only the tokens and the first frame
 * are judged.
 */
#ifndef VIBE_VERIFY_H
#define VIBE_VERIFY_H

#include "engine/engine.h"
#include "engine/golden.h"
#include "engine/prompt.h"

struct vibe_verify {
    struct vibe_engine *engine; /* borrowed */
    struct vibe_golden golden;
    void (*visit)(void *user, const struct vibe_verify_row *row);
    void *user;
    struct vibe_verify_summary *summary;
    struct vibe_error *err;
    struct vibe_prompt prompt; /* our own */
};

/* Report one tensor, judged against bound unless it is free-running; INFINITY
 * does not count as a bound. */
void vibe_verify_report(struct vibe_verify *v, const char *name,
                        double max_error, double max_ref, double bound,
                        int is_free);

/* Compare got[n] with want[n]; the bound is that of float32 arithmetic. */
void vibe_verify_compare(struct vibe_verify *v, const char *name,
                         const float *got, const float *want, size_t n,
                         int is_free);

/* The parts, in their order; each returns what went wrong with the record. */
int vibe_verify_prompt(struct vibe_verify *v);
int vibe_verify_tables(struct vibe_verify *v);
int vibe_verify_voices(struct vibe_verify *v);
int vibe_verify_codec(struct vibe_verify *v);
int vibe_verify_forced(struct vibe_verify *v);
int vibe_verify_free(struct vibe_verify *v);

#endif /* VIBE_VERIFY_H */
