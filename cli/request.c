#include "cli/request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "cli/chunks.h"
#include "cli/cli.h"
#include "cli/jobs.h"
#include "engine/vibevoice.h"

enum { USUAL_HOP = 3200 };

/* An option that does nothing without another is a mistake. */
static enum vibe_exit need_sampling(const struct vibe_options *options,
                                    const char *name, struct vibe_failure *why)
{
    if (options->is_sampling ||
        vibe_options_source(options, name) != VIBE_FROM_ARGV)
        return VIBE_EXIT_OK;
    return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                         "%s does nothing without --sample", name);
}

enum vibe_exit vibe_request_options(const struct vibe_options *options,
                                    struct vibe_failure *why)
{
    const size_t n_jobs = (options->text || options->batch
                               ? 1
                               : options->scripts.n) *
                          (size_t)options->takes;
    enum vibe_exit status = need_sampling(options, "--temperature", why);

    if (status == VIBE_EXIT_OK)
        status = need_sampling(options, "--top-p", why);
    if (status == VIBE_EXIT_OK && options->dump_tensors && n_jobs > 1)
        status = vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                               "--dump-tensors takes one script, not %zu",
                               n_jobs);
    if (status == VIBE_EXIT_OK && options->dump_tensors && options->batch)
        status = vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                               "--dump-tensors cannot be combined with "
                               "--batch");
    if (status == VIBE_EXIT_OK && options->seed < 0 &&
        options->on_existing == VIBE_EXISTING_RESUME)
        status = vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                               "--resume needs the --seed of the earlier run, "
                               "not one drawn now");
    return status;
}

uint64_t vibe_request_seed(const struct vibe_options *options)
{
    uint64_t seed = 0;

    if (options->seed >= 0)
        return (uint64_t)options->seed;
    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        seed = (uint64_t)time(NULL) * 0x9e3779b97f4a7c15u;
    return seed >> 1; /* what --seed can be given again */
}

/* The smaller of the caps in frames, 0 if there is none. */
static size_t frame_cap(const struct vibe_options *options, size_t hop)
{
    double by_time = ceil(options->max_seconds * VIBE_SAMPLE_RATE /
                          (double)(hop ? hop : 1));
    size_t cap = (size_t)options->max_frames;

    if (options->max_seconds > 0 && (cap == 0 || by_time < (double)cap))
        cap = (size_t)by_time;
    return cap;
}

void vibe_request_fill(struct vibe_request *out,
                       const struct vibe_options *options,
                       const struct vibe_job *job, size_t hop)
{
    *out = (struct vibe_request){
        .script = &job->source->script,
        .voices = job->source->voices,
        .n_voices = job->source->n_voices,
        .cfg_scale = (float)job->cfg_scale,
        .steps = (int)job->steps,
        .seed = job->seed,
        .sampling = {.is_on = options->is_sampling,
                     .temperature = (float)options->temperature,
                     .top_p = (float)options->top_p},
        .max_length_times = (float)options->max_length_times,
        .max_frames = frame_cap(options, hop),
        .dump_dir = options->dump_tensors,
    };
}

struct vibe_request *vibe_requests_of(const struct vibe_options *options,
                                      const struct vibe_jobs *jobs, size_t *n)
{
    struct vibe_request *requests = calloc(jobs->n + 1, sizeof(*requests));

    *n = 0;
    /* the model that knows its hop is not read yet: all have the same */
    for (size_t i = 0; requests && i < jobs->n; i++)
        if (!jobs->items[i].is_skipped && !jobs->items[i].source->problem)
            vibe_request_fill(&requests[(*n)++], options, &jobs->items[i],
                              USUAL_HOP);
    return requests;
}

/* Check a job part by part. */
static int check_parts(struct vibe_engine *engine,
                       const struct vibe_options *options,
                       const struct vibe_job *job, size_t *n_tokens,
                       struct vibe_error *err)
{
    struct vibe_chunks chunks;
    int rc = vibe_chunks_plan(&chunks, &job->source->script,
                              options->chunk_minutes, err);

    *n_tokens = 0;
    for (size_t i = 0; i < chunks.n && rc == VIBE_OK; i++) {
        const struct vibe_script part = vibe_chunks_part(
            &chunks, &job->source->script, i);
        struct vibe_request request;
        size_t n = 0;

        vibe_request_fill(&request, options, job, 0);
        request.script = &part;
        request.has_silent_voices = chunks.n > 1;
        rc = vibe_request_check(engine, &request, &n, err);
        *n_tokens += n;
    }
    vibe_chunks_release(&chunks);
    return rc;
}

enum vibe_exit vibe_request_check_all(struct vibe_engine *engine,
                                      const struct vibe_options *options,
                                      struct vibe_jobs *jobs, size_t *n_tokens,
                                      struct vibe_failure *why)
{
    for (size_t i = 0; i < jobs->n; i++) {
        const struct vibe_job *job = &jobs->items[i];
        struct vibe_error err = {0};
        size_t n = 0;
        int rc;

        if (job->is_skipped || job->source->problem)
            continue;
        rc = check_parts(engine, options, job, &n, &err);
        if (n_tokens)
            n_tokens[i] = n;
        if (rc == VIBE_OK)
            continue;
        /* Options were checked by their ranges: this is about the script. */
        vibe_cli_fail(why,
                      rc == VIBE_E_NOMEM ? VIBE_EXIT_MEMORY : VIBE_EXIT_INPUT,
                      job->source->path, "%s: %s", job->source->name, err.msg);
        if (!jobs->is_batch || rc == VIBE_E_NOMEM)
            return why->status;
        job->source->problem = strdup(why->err.msg);
        *why = (struct vibe_failure){0};
    }
    return VIBE_EXIT_OK;
}
