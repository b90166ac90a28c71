/*
 * state.h - what became of a batch, kept while it runs so that it can resume.
 *
 * NAME.state.jsonl has an object a line for each dialogue that has ended, of
 * the form that --json prints, with a digest of what was asked.  A line is
 * written when the file it tells of is on disk under its final name, and is on
 * disk before the next one: whatever kills a run, a line tells the truth, and
 * what was cut off in the middle of one is no line.  Shards have a file each
 * (NAME.1-of-4.state.jsonl) and read those of the others.
 *
 * A run holds a lock on its file: a second one of the same is refused.
 */
#ifndef VIBE_CLI_STATE_H
#define VIBE_CLI_STATE_H

#include <stdint.h>

#include "cli/exit.h"

struct json_t;
struct vibe_error;
struct vibe_failure;
struct vibe_job;
struct vibe_options;
struct vibe_state;

/*
 * Open the state of a batch in a folder.
 *
 *   out      set to it, or to NULL on failure; vibe_state_free
 *   name     of the batch
 *   options  shard; and with --resume what earlier runs have written counts,
 *            else this run's file starts empty
 */
enum vibe_exit vibe_state_open(struct vibe_state **out, const char *folder,
                               const char *name,
                               const struct vibe_options *options,
                               struct vibe_failure *why);
void vibe_state_free(struct vibe_state *state);

/* What an earlier run has written last of a file, or NULL; borrowed. */
struct json_t *vibe_state_find(const struct vibe_state *state,
                               const char *file);

/*
 * Add a line, and wait until it is on disk.  Errors: VIBE_E_IO
 */
int vibe_state_add(struct vibe_state *state, const struct json_t *object,
                   struct vibe_error *err);

/* A digest of all that decides what a job's file holds; 16 digits. */
void vibe_state_digest(char out[17], const struct vibe_job *job,
                       const struct vibe_options *options);

#endif /* VIBE_CLI_STATE_H */
