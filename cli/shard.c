#include "cli/shard.h"

#include <errno.h>
#include <stdlib.h>

#include "cli/failure.h"
#include "cli/options.h"

/* A whole number in the environment, or -1. */
static int64_t env_number(const char *name)
{
    const char *text = getenv(name);
    char *end = NULL;
    long long value;

    if (!text || *text < '0' || *text > '9')
        return -1;
    errno = 0;
    value = strtoll(text, &end, 10);
    return *end || errno || value > INT32_MAX ? -1 : value;
}

enum vibe_exit vibe_shard_find(const struct vibe_options *o, int64_t *shard,
                               int64_t *n_shards, struct vibe_failure *why)
{
    int64_t first;
    int64_t step;

    *shard = o->shard;
    *n_shards = o->n_shards;
    if (o->n_shards == 0)
        *shard = *n_shards = 1;
    if (o->n_shards >= 0)
        return VIBE_EXIT_OK;
    first = env_number("SLURM_ARRAY_TASK_MIN");
    step = env_number("SLURM_ARRAY_TASK_STEP");
    *n_shards = env_number("SLURM_ARRAY_TASK_COUNT");
    *shard = env_number("SLURM_ARRAY_TASK_ID");
    if (*n_shards < 1 || *shard < 0)
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "--shard auto: SLURM_ARRAY_TASK_ID and "
                             "SLURM_ARRAY_TASK_COUNT are not set");
    if (first < 0)
        first = 1;
    *shard = (*shard - first) / (step > 0 ? step : 1) + 1;
    if (*shard >= 1 && *shard <= *n_shards)
        return VIBE_EXIT_OK;
    return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                         "--shard auto: Slurm's task numbers are not evenly "
                         "spaced; use --shard I/N");
}
