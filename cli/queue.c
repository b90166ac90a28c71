#include "cli/queue.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli/errands.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/request.h"
#include "cli/run.h"
#include "cli/signals.h"
#include "cli/state.h"
#include "cli/take.h"
#include "engine/base/clock.h"

enum vibe_exit vibe_queue_init(struct vibe_queue *q, struct vibe_run *run,
                               struct vibe_failure *why)
{
    *q = (struct vibe_queue){
        .run = run,
        .waiting = calloc(run->jobs.n + 1, sizeof(struct vibe_take *)),
    };
    return q->waiting ? vibe_errands_open(&q->errands, why)
                      : vibe_cli_fail_memory(why, "scripts");
}

void vibe_queue_release(struct vibe_queue *q)
{
    vibe_errands_free(q->errands);
    free(q->waiting);
    *q = (struct vibe_queue){0};
}

/* Tell the user of a file: the sum for people, its path for programs. */
static void announce(const struct vibe_take *take, struct json_t *object)
{
    struct vibe_cli *cli = take->run->cli;
    const char *file = take->job->output;
    const double seconds = vibe_take_seconds(take);
    const double wall = vibe_clock_s() - take->start_s;
    char spoken[32], needed[32], first[64] = "";

    if (take->first_s > 0)
        snprintf(first, sizeof(first),
                 ", the first sample %.2f s after the start", take->first_s);
    vibe_log(&cli->log, VIBE_LOG_INFO,
             "%s: %s of speech in %s, %.2f x real time%s", vibe_take_file(take),
             vibe_progress_time(seconds, spoken, sizeof(spoken)),
             vibe_progress_time(wall, needed, sizeof(needed)),
             wall > 0 ? seconds / wall : 0, first);
    if (strcmp(file, "-") == 0)
        return;
    if (cli->options->is_json) {
        vibe_json_print(json_incref(object));
    } else if (!cli->options->is_quiet) {
        printf("%s\n", file);
        fflush(stdout);
    }
}

/* Is nothing else to be spoken after this failure? */
static int is_final(const struct vibe_run *run, const struct vibe_failure *why)
{
    return run->cli->options->is_fail_fast || why->status == VIBE_EXIT_SIGPIPE;
}

/* A job has failed: the only one fails the command, others are told now. */
static void fail_job(struct vibe_queue *q, const struct vibe_failure *why)
{
    struct vibe_run *run = q->run;
    const int is_only = run->jobs.n == 1 && !run->jobs.is_batch;

    run->n_failed++;
    if (is_only || why->status == VIBE_EXIT_SIGPIPE)
        q->why = *why;
    else
        vibe_cli_report(run->cli, why);
    if (is_final(run, why))
        q->is_stopped = 1;
}

/* What is told is done and failed while others speak. */
static void tell(struct vibe_queue *q, const struct vibe_take *take,
                 enum vibe_take_outcome outcome, struct json_t *object)
{
    struct vibe_run *run = q->run;

    pthread_mutex_lock(&run->lock);
    if (outcome == VIBE_TAKE_DONE)
        announce(take, object);
    vibe_report_add(run->report, object);
    run->n_done += outcome == VIBE_TAKE_DONE;
    if (outcome == VIBE_TAKE_FAILED)
        fail_job(q, &take->why);
    pthread_mutex_unlock(&run->lock);
}

/* A batch that cannot be resumed goes no further. */
static void fail_state(struct vibe_queue *q, struct vibe_failure *why)
{
    struct vibe_run *run = q->run;

    pthread_mutex_lock(&run->lock);
    vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, NULL);
    vibe_cli_report(run->cli, why);
    q->is_stopped = 1;
    run->n_failed++;
    pthread_mutex_unlock(&run->lock);
}

/* Write down what became of a take. */
static void record(struct vibe_queue *q, const struct vibe_take *take,
                   enum vibe_take_outcome outcome)
{
    json_t *object = vibe_take_object(take, take->job->output,
                                      outcome == VIBE_TAKE_DONE ? "done"
                                      : outcome == VIBE_TAKE_FAILED
                                          ? "failed"
                                          : "interrupted");
    struct vibe_failure why = {0};

    tell(q, take, outcome, object);
    if (q->run->state &&
        vibe_state_add(q->run->state, object, &why.err) != VIBE_OK)
        fail_state(q, &why);
    json_decref(object);
}

/* An errand: have what was spoken on disk, and write that down. */
static void close_take(void *user, void *object)
{
    struct vibe_queue *q = user;
    struct vibe_take *take = object;

    record(q, take, vibe_take_close(take));
    vibe_take_free(take);
}

/* An errand: the same of a part, while the next one is spoken. */
static void close_part(void *user, void *object)
{
    vibe_take_close_part(user, object);
}

static void on_end(void *user, const struct vibe_request *request,
                   const struct vibe_result *result,
                   const struct vibe_error *err)
{
    struct vibe_queue *q = user;
    struct vibe_run *run = q->run;
    struct vibe_take *take = request->user;
    const enum vibe_take_outcome outcome = vibe_take_end(take, result, err);

    /* ahead of what ends the take, whoever speaks that */
    if (outcome == VIBE_TAKE_GOES_ON)
        vibe_errands_add(q->errands, close_part, take,
                         vibe_take_next_part(take));
    pthread_mutex_lock(&run->lock);
    vibe_progress_end(&run->progress);
    if (outcome == VIBE_TAKE_GOES_ON)
        q->waiting[q->n_waiting++] = take;
    if (outcome == VIBE_TAKE_FAILED && is_final(run, &take->why))
        q->is_stopped = 1;
    pthread_mutex_unlock(&run->lock);
    if (outcome != VIBE_TAKE_GOES_ON)
        vibe_errands_add(q->errands, close_take, q, take);
}

/* Open the take of the next job, or none. */
static struct vibe_take *open_next(struct vibe_queue *q)
{
    struct vibe_run *run = q->run;

    while (q->next < run->jobs.n) {
        const struct vibe_job *job = &run->jobs.items[q->next++];
        struct vibe_take *take = NULL;
        struct vibe_failure why = {0};

        if (job->is_skipped || job->source->problem)
            continue;
        if (vibe_take_open(&take, run, job, &why) == VIBE_EXIT_OK)
            return take;
        fail_job(q, &why);
    }
    return NULL;
}

static int next(void *user, struct vibe_request *out)
{
    struct vibe_queue *q = user;
    struct vibe_run *run = q->run;
    struct vibe_take *take = NULL;

    pthread_mutex_lock(&run->lock);
    if (!q->is_stopped && !vibe_signals_pending())
        take = q->n_waiting ? q->waiting[--q->n_waiting] : open_next(q);
    if (take) {
        vibe_take_request(take, out);
        if (run->n_at_once == 1)
            vibe_progress_start(&run->progress, take->job->source->name,
                                take->job->index + 1);
    }
    pthread_mutex_unlock(&run->lock);
    return take != NULL;
}

static int is_stopped(void *user)
{
    struct vibe_queue *q = user;
    int is_stopped;

    pthread_mutex_lock(&q->run->lock);
    is_stopped = q->is_stopped;
    pthread_mutex_unlock(&q->run->lock);
    return is_stopped || vibe_signals_pending() != 0;
}

/* Encode the voices of many jobs before any is spoken. */
static enum vibe_exit prepare_voices(struct vibe_run *run,
                                     struct vibe_engine *engine,
                                     struct vibe_failure *why)
{
    struct vibe_request *requests = calloc(run->jobs.n, sizeof(*requests));
    size_t n = 0;
    int rc = VIBE_OK;

    if (!requests)
        return vibe_cli_fail_memory(why, "scripts");
    for (size_t i = 0; i < run->jobs.n; i++) {
        const struct vibe_job *job = &run->jobs.items[i];

        if (!job->is_skipped && !job->source->problem)
            vibe_request_fill(&requests[n++], run->cli->options, job,
                              run->info.hop);
    }
    if (n > 1)
        rc = vibe_prepare_voices(engine, requests, n, &why->err);
    free(requests);
    return rc == VIBE_OK ? VIBE_EXIT_OK
                         : vibe_cli_fail_by(why, VIBE_EXIT_FAILED, NULL);
}

/* Add what an engine has used since a first look at it. */
static void add_usage(struct vibe_run *run, const struct vibe_engine *engine,
                      const struct vibe_usage *first)
{
    struct vibe_usage last;

    vibe_engine_usage(engine, &last);
    pthread_mutex_lock(&run->lock);
    run->vram_peak += last.vram_peak;
    if (first->energy_j < 0 || last.energy_j < 0)
        run->energy_j = -1;
    else if (run->energy_j >= 0)
        run->energy_j += last.energy_j - first->energy_j;
    pthread_mutex_unlock(&run->lock);
}

enum vibe_exit vibe_queue_speak(struct vibe_queue *q,
                                struct vibe_engine *engine,
                                struct vibe_failure *why)
{
    const struct vibe_batch batch = {
        .next = next,
        .on_end = on_end,
        .is_stopped = is_stopped,
        .user = q,
    };
    struct vibe_usage first;
    int rc;

    if (prepare_voices(q->run, engine, why) != VIBE_EXIT_OK)
        return why->status;
    vibe_engine_usage(engine, &first);
    rc = vibe_speak_batch(engine, &batch, &why->err);
    add_usage(q->run, engine, &first);
    return rc == VIBE_OK ? VIBE_EXIT_OK
                         : vibe_cli_fail_by(why, VIBE_EXIT_FAILED, NULL);
}

void vibe_queue_close(struct vibe_queue *q)
{
    vibe_errands_free(q->errands);
    q->errands = NULL;
    while (q->n_waiting > 0) {
        struct vibe_take *take = q->waiting[--q->n_waiting];

        take->result.finish = VIBE_FINISH_INTERRUPTED;
        record(q, take, VIBE_TAKE_INTERRUPTED);
        vibe_take_free(take);
    }
}

void vibe_queue_settle(struct vibe_queue *q)
{
    struct vibe_run *run = q->run;

    for (size_t i = 0; i < run->jobs.n; i++) {
        const struct vibe_job *job = &run->jobs.items[i];
        const char *problem = job->source->problem;
        struct vibe_failure why = {0};
        json_t *object;

        if (!job->is_skipped && !problem)
            continue;
        object = vibe_report_unspoken(
            job, job->is_skipped ? "skipped" : "failed",
            job->is_skipped ? NULL : problem,
            job->is_skipped && run->state
                ? vibe_state_find(run->state, job->output)
                : NULL);
        vibe_report_add(run->report, object);
        json_decref(object);
        run->n_skipped += job->is_skipped != 0;
        if (job->is_skipped)
            continue;
        vibe_cli_fail(&why, VIBE_EXIT_FAILED, job->source->path, "%s", problem);
        fail_job(q, &why);
    }
}
