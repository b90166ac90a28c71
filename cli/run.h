/*
 * run.h - what the takes of a run share.
 *
 * Several engines may speak at once, each in its own thread, and files are
 * closed in another (errands.h): whatever here changes is touched with the lock
 * held, but for the state, which is that one's.
 */
#ifndef VIBE_CLI_RUN_H
#define VIBE_CLI_RUN_H

#include <pthread.h>
#include <stddef.h>

#include "cli/jobs.h"
#include "cli/progress.h"
#include "engine/vibevoice.h"

struct vibe_cli;
struct vibe_replicas;
struct vibe_report;
struct vibe_state;

struct vibe_run {
    struct vibe_cli *cli;         /* borrowed */
    struct vibe_jobs jobs;        /* owned */
    struct vibe_engine_info info; /* of the first engine */
    struct vibe_state *state;     /* of a batch, or NULL; owned */
    struct vibe_report *report;   /* owned */
    struct vibe_replicas *others; /* engines beside the first; owned */
    size_t n_at_once;             /* dialogues, of all engines */
    struct vibe_progress progress;
    size_t n_done, n_failed, n_skipped;
    int has_spoken;   /* there is a first sample */
    size_t vram_peak; /* bytes, of all engines */
    double energy_j;  /* that speaking has taken; negative: unknown */
    pthread_mutex_t lock;
};

#endif /* VIBE_CLI_RUN_H */
