/*
 * shard.h - which part of a batch is spoken here.
 */
#ifndef VIBE_CLI_SHARD_H
#define VIBE_CLI_SHARD_H

#include <stdint.h>

#include "cli/exit.h"

struct vibe_failure;
struct vibe_options;

/* Which part of how many the options ask for, from 1; 1 of 1 for all.  Fails
 * if Slurm was to say and does not. */
enum vibe_exit vibe_shard_find(const struct vibe_options *options,
                               int64_t *shard, int64_t *n_shards,
                               struct vibe_failure *why);

#endif /* VIBE_CLI_SHARD_H */
