/*
 * talk.h - one dialogue, from its request to its last sample.
 *
 * A talk is opened (its prompt is checked, built and embedded), reads its
 * prompt, makes a step with the others again and again, and is closed.  The
 * generator knows where it stands; here is what was asked and what came of it.
 */
#ifndef VIBE_TALK_H
#define VIBE_TALK_H

#include "engine/engine.h"
#include "engine/request.h"

struct vibe_recorder;

struct vibe_talk {
    struct vibe_request request; /* what it points to is borrowed */
    struct vibe_result result;
    struct vibe_error err;     /* why it failed; code VIBE_OK: it did not */
    struct vibe_ready ready;   /* owned */
    struct vibe_recorder *rec; /* owned; NULL: nothing is recorded */
    float *embeds;             /* [ready.prompt.n][hidden] owned, until read */
    double start_s;            /* of the prompt, then of the frames */
    int is_over;
};

/*
 * Check a request and embed its prompt, voices included.
 *
 *   out   set to the talk, or to NULL without memory; vibe_talk_free.  Any
 *         other failure leaves a talk that is over, with its err.
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_talk_open(struct vibe_talk **out, struct vibe_engine *engine,
                   const struct vibe_request *request, struct vibe_error *err);
void vibe_talk_free(struct vibe_talk *talk);

/* How the generator is to begin it. */
struct vibe_opening vibe_talk_opening(const struct vibe_talk *talk);

/* Its prompt has been read: it speaks from now on, unless it is over. */
void vibe_talk_begin(struct vibe_talk *talk);

/* A step was made, in which it was dialogue d: choose its token, pass its
 * frame on, find out whether it is over. */
void vibe_talk_step(struct vibe_talk *talk, struct vibe_engine *engine,
                    size_t d);

/* It ends here, for this reason, unless it is over already. */
void vibe_talk_fail(struct vibe_talk *talk, const struct vibe_error *why);
void vibe_talk_interrupt(struct vibe_talk *talk);

/* It has ended: complete the result, and write its record. */
void vibe_talk_end(struct vibe_talk *talk, struct vibe_engine *engine);

#endif /* VIBE_TALK_H */
