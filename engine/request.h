/*
 * request.h - a request held against its model before anything is computed.
 */
#ifndef VIBE_REQUEST_H
#define VIBE_REQUEST_H

#include <stddef.h>

#include "engine/engine.h"
#include "engine/prompt.h"

/* A request made ready: what its prompt is, and what it is made of. */
struct vibe_ready {
    struct vibe_voice *voices; /* [n_voices] by number; owned */
    size_t *n_frames;          /* [n_voices] owned */
    struct vibe_prompt prompt; /* owned */
    size_t max_tokens;
};

/*
 * Check a request and build its prompt.
 *
 *   r   all zero; release with vibe_ready_release, also after an error
 *
 * Errors: those of vibe_request_check
 */
int vibe_ready_init(struct vibe_ready *r, const struct vibe_engine *engine,
                    const struct vibe_request *request, struct vibe_error *err);
void vibe_ready_release(struct vibe_ready *r);

#endif /* VIBE_REQUEST_H */
