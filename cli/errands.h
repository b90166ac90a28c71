/*
 * errands.h - work that nobody waits for, done by a thread of its own in the
 * order in which it was given.
 *
 * A disk may take half a second to say that it has a file; those who speak go
 * on meanwhile.
 */
#ifndef VIBE_CLI_ERRANDS_H
#define VIBE_CLI_ERRANDS_H

#include "cli/exit.h"

struct vibe_errands;
struct vibe_failure;

/* Start the thread.  out: set to it, or to NULL on failure. */
enum vibe_exit vibe_errands_open(struct vibe_errands **out,
                                 struct vibe_failure *why);

/*
 * Have errand(user, object) called when all before it are done; any thread may
 * ask.  Where a great many wait already, so does the caller.
 */
void vibe_errands_add(struct vibe_errands *all,
                      void (*errand)(void *user, void *object), void *user,
                      void *object);

/* Wait until all are done, and end the thread; NULL is allowed. */
void vibe_errands_free(struct vibe_errands *all);

#endif /* VIBE_CLI_ERRANDS_H */
