/*
 * queue.h - the takes of a run on their way to one engine or several.
 */
#ifndef VIBE_CLI_QUEUE_H
#define VIBE_CLI_QUEUE_H

#include <stddef.h>

#include "cli/cli.h"

struct vibe_engine;
struct vibe_errands;
struct vibe_run;
struct vibe_take;

struct vibe_queue {
    struct vibe_run *run;         /* borrowed; with its lock held, or by one */
    struct vibe_errands *errands; /* that close files; owned */
    size_t next;                  /* job */
    struct vibe_take **waiting;   /* [n_waiting] with another part; owned */
    size_t n_waiting;
    int is_stopped;          /* nothing more is to be spoken */
    struct vibe_failure why; /* of what stopped it, or of the only job */
};

/* q all zero; release with vibe_queue_release, also after a failure. */
enum vibe_exit vibe_queue_init(struct vibe_queue *q, struct vibe_run *run,
                               struct vibe_failure *why);
void vibe_queue_release(struct vibe_queue *q);

/* Settle what is known of jobs before anything is spoken: those that are done
 * and those that cannot be. */
void vibe_queue_settle(struct vibe_queue *q);

/*
 * Speak with this engine until the queue is empty or stopped.  Any number of
 * threads may do so, each with its engine.
 */
enum vibe_exit vibe_queue_speak(struct vibe_queue *q,
                                struct vibe_engine *engine,
                                struct vibe_failure *why);

/* When all have ended: wait until their files are on disk, and write down what
 * was interrupted between two parts. */
void vibe_queue_close(struct vibe_queue *q);

#endif /* VIBE_CLI_QUEUE_H */
