#include "cli/request.h"

#include <math.h>
#include <sys/random.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/jobs.h"
#include "engine/vibevoice.h"

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
    size_t n_scripts = options->text ? 1 : options->scripts.n;
    enum vibe_exit status = need_sampling(options, "--temperature", why);

    if (status == VIBE_EXIT_OK)
        status = need_sampling(options, "--top-p", why);
    if (status == VIBE_EXIT_OK && options->dump_tensors && n_scripts > 1)
        status = vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                               "--dump-tensors takes one script, not %zu",
                               n_scripts);
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
                       const struct vibe_job *job, uint64_t seed, size_t hop)
{
    *out = (struct vibe_request){
        .script = &job->script,
        .voices = job->voices,
        .n_voices = job->n_voices,
        .cfg_scale = (float)options->cfg_scale,
        .steps = (int)options->steps,
        .seed = seed,
        .sampling = {.is_on = options->is_sampling,
                     .temperature = (float)options->temperature,
                     .top_p = (float)options->top_p},
        .max_length_times = (float)options->max_length_times,
        .max_frames = frame_cap(options, hop),
        .dump_dir = options->dump_tensors,
    };
}

enum vibe_exit vibe_request_check_all(struct vibe_engine *engine,
                                      const struct vibe_options *options,
                                      const struct vibe_jobs *jobs,
                                      size_t *n_tokens,
                                      struct vibe_failure *why)
{
    for (size_t i = 0; i < jobs->n; i++) {
        const struct vibe_job *job = &jobs->items[i];
        struct vibe_request request;
        struct vibe_error err = {0};
        int rc;

        vibe_request_fill(&request, options, job, 0, 0);
        rc = vibe_request_check(engine, &request,
                                n_tokens ? &n_tokens[i] : NULL, &err);
        if (rc == VIBE_OK)
            continue;
        /* Options were checked by their ranges: this is about the script. */
        return vibe_cli_fail(
            why, rc == VIBE_E_NOMEM ? VIBE_EXIT_MEMORY : VIBE_EXIT_INPUT,
            job->path, "%s: %s", job->name, err.msg);
    }
    return VIBE_EXIT_OK;
}
