#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/jobs.h"
#include "cli/json.h"
#include "cli/outputs.h"
#include "cli/report.h"
#include "cli/request.h"
#include "cli/run.h"
#include "cli/signals.h"
#include "cli/state.h"
#include "cli/take.h"
#include "engine/base/clock.h"
#include "engine/vibevoice.h"

enum { AT_ONCE_CPU = 4, AT_ONCE_GPU = 8 }; /* dialogues, unless it is said */

/* The takes of a run on their way to the engines. */
struct queue {
    struct vibe_run *run;
    size_t next;                /* job */
    struct vibe_take **waiting; /* [n_waiting] with another part; owned */
    size_t n_waiting;
    int is_stopped;          /* nothing more is to be spoken */
    struct vibe_failure why; /* of what stopped it, or of the only job */
};

/* Tell the user of a file: the sum for people, its path for programs. */
static void announce(const struct vibe_take *take, struct json_t *object)
{
    struct vibe_cli *cli = take->run->cli;
    const char *file = take->job->output;
    const double seconds = vibe_take_seconds(take);
    const double wall = vibe_clock_s() - take->start_s;
    const int is_stream = strcmp(file, "-") == 0;
    char spoken[32], needed[32];

    vibe_log(&cli->log, VIBE_LOG_INFO,
             "%s: %s of speech in %s, %.2f x real time",
             is_stream ? "standard output" : file,
             vibe_progress_time(seconds, spoken, sizeof(spoken)),
             vibe_progress_time(wall, needed, sizeof(needed)),
             wall > 0 ? seconds / wall : 0);
    if (is_stream)
        return;
    if (cli->options->is_json) {
        vibe_json_print(json_incref(object));
    } else if (!cli->options->is_quiet) {
        printf("%s\n", file);
        fflush(stdout);
    }
}

/* A job has failed: the only one fails the command, others are told now. */
static void fail_job(struct queue *q, const struct vibe_failure *why)
{
    struct vibe_run *run = q->run;
    const int is_only = run->jobs.n == 1 && !run->jobs.is_batch;

    run->n_failed++;
    if (is_only || why->status == VIBE_EXIT_SIGPIPE)
        q->why = *why;
    else
        vibe_cli_report(run->cli, why);
    if (run->cli->options->is_fail_fast || why->status == VIBE_EXIT_SIGPIPE)
        q->is_stopped = 1;
}

/* Write down what became of a take. */
static void record(struct queue *q, const struct vibe_take *take,
                   enum vibe_take_outcome outcome)
{
    struct vibe_run *run = q->run;
    json_t *object = vibe_take_object(take, take->job->output,
                                      outcome == VIBE_TAKE_DONE ? "done"
                                      : outcome == VIBE_TAKE_FAILED
                                          ? "failed"
                                          : "interrupted");
    struct vibe_failure why = {0};

    if (outcome == VIBE_TAKE_DONE)
        announce(take, object);
    vibe_report_add(run->report, object);
    if (run->state && vibe_state_add(run->state, object, &why.err) != VIBE_OK) {
        vibe_cli_fail_by(&why, VIBE_EXIT_OUTPUT, NULL);
        vibe_cli_report(run->cli, &why);
        q->is_stopped = 1; /* it could not be resumed */
        run->n_failed++;
    }
    json_decref(object);
}

static void on_end(void *user, const struct vibe_request *request,
                   const struct vibe_result *result,
                   const struct vibe_error *err)
{
    struct queue *q = user;
    struct vibe_run *run = q->run;
    struct vibe_take *take = request->user;
    enum vibe_take_outcome outcome;

    pthread_mutex_lock(&run->lock);
    vibe_progress_end(&run->progress);
    outcome = vibe_take_end(take, result, err);
    if (outcome == VIBE_TAKE_GOES_ON) {
        q->waiting[q->n_waiting++] = take;
    } else {
        record(q, take, outcome);
        run->n_done += outcome == VIBE_TAKE_DONE;
        if (outcome == VIBE_TAKE_FAILED)
            fail_job(q, &take->why);
        vibe_take_free(take);
    }
    pthread_mutex_unlock(&run->lock);
}

/* Open the take of the next job, or none. */
static struct vibe_take *open_next(struct queue *q)
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
    struct queue *q = user;
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
    struct queue *q = user;
    int is_stopped;

    pthread_mutex_lock(&q->run->lock);
    is_stopped = q->is_stopped;
    pthread_mutex_unlock(&q->run->lock);
    return is_stopped || vibe_signals_pending() != 0;
}

/* One engine that takes from the queue. */
static enum vibe_exit speak(struct queue *q, struct vibe_engine *engine,
                            struct vibe_failure *why)
{
    const struct vibe_batch batch = {
        .next = next,
        .on_end = on_end,
        .is_stopped = is_stopped,
        .user = q,
    };
    const int rc = vibe_speak_batch(engine, &batch, &why->err);

    return rc == VIBE_OK ? VIBE_EXIT_OK
                         : vibe_cli_fail_by(why, VIBE_EXIT_FAILED, NULL);
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
        return vibe_cli_fail(why, VIBE_EXIT_MEMORY, NULL, "out of memory");
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

/* What is known of jobs before anything is spoken. */
static void settle_unspoken(struct queue *q)
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
            run->state ? vibe_state_find(run->state, job->output) : NULL);
        vibe_report_add(run->report, object);
        json_decref(object);
        run->n_skipped += job->is_skipped != 0;
        if (job->is_skipped)
            continue;
        vibe_cli_fail(&why, VIBE_EXIT_FAILED, job->source->path, "%s", problem);
        fail_job(q, &why);
    }
}

static enum vibe_exit signal_status(int signal_number)
{
    return signal_number == SIGTERM ? VIBE_EXIT_SIGTERM : VIBE_EXIT_SIGINT;
}

/* Sum up, and find the status of the run. */
static enum vibe_exit conclude(struct queue *q, struct vibe_failure *why)
{
    struct vibe_run *run = q->run;
    const int signal_number = vibe_signals_pending();

    if (run->jobs.n > 1 || run->jobs.is_batch)
        vibe_log(&run->cli->log, VIBE_LOG_INFO,
                 "%zu done, %zu failed, %zu skipped", run->n_done,
                 run->n_failed, run->n_skipped);
    *why = q->why;
    if (signal_number &&
        run->n_done + run->n_failed + run->n_skipped < run->jobs.n)
        return signal_status(signal_number);
    if (why->status != VIBE_EXIT_OK)
        return why->status;
    return run->n_failed ? VIBE_EXIT_FAILED : VIBE_EXIT_OK;
}

static enum vibe_exit speak_all(struct queue *q, struct vibe_engine *engine,
                                struct vibe_failure *why)
{
    struct vibe_run *run = q->run;
    enum vibe_exit status = VIBE_EXIT_OK;
    struct vibe_failure failure = {0};
    const char *report = run->cli->options->report;

    settle_unspoken(q);
    if (engine && !q->is_stopped)
        status = prepare_voices(run, engine, &failure);
    if (run->n_at_once > 1)
        vibe_progress_start(&run->progress, "speaking", 1);
    if (engine && !q->is_stopped && status == VIBE_EXIT_OK)
        status = speak(q, engine, &failure);
    while (q->n_waiting > 0) /* interrupted between two parts */
        vibe_take_free(q->waiting[--q->n_waiting]);
    if (status != VIBE_EXIT_OK && q->why.status == VIBE_EXIT_OK)
        q->why = failure;
    status = conclude(q, why);
    if (report) {
        struct vibe_failure unwritten = {0};

        if (vibe_report_write(run->report, run, report, &unwritten) !=
                VIBE_EXIT_OK &&
            status == VIBE_EXIT_OK) {
            *why = unwritten;
            status = why->status;
        }
    }
    return status;
}

static void print_plan_object(const struct vibe_job *job, size_t n_tokens)
{
    json_t *object = json_object();

    vibe_json_text(object, "file", job->output);
    vibe_json_text(object, "script", job->source->path);
    vibe_json_count(object, "turns", job->source->script.n_turns);
    vibe_json_count(object, "voices", job->source->n_voices);
    vibe_json_count(object, "prompt_tokens", n_tokens);
    vibe_json_bool(object, "skipped", job->is_skipped);
    if (job->source->problem)
        vibe_json_text(object, "error", job->source->problem);
    vibe_json_print(object);
}

static void print_plan_line(const struct vibe_job *job, size_t n_tokens)
{
    const struct vibe_source *source = job->source;

    if (source->problem)
        printf("%s -> %s: cannot be spoken: %s\n", source->name, job->output,
               source->problem);
    else
        printf("%s -> %s: %zu turns, %zu speakers, %zu voices, prompt of %zu "
               "tokens%s\n",
               source->name, job->output, source->script.n_turns,
               vibe_script_speakers(&source->script, NULL, 0), source->n_voices,
               n_tokens, job->is_skipped ? ", skipped" : "");
}

/* --dry-run: what would be done, a file a line. */
static enum vibe_exit print_plan(struct vibe_run *run,
                                 struct vibe_engine *engine,
                                 struct vibe_failure *why)
{
    size_t *n_tokens = calloc(run->jobs.n + 1, sizeof(*n_tokens));
    enum vibe_exit status;

    if (!n_tokens)
        return vibe_cli_fail(why, VIBE_EXIT_MEMORY, NULL, "out of memory");
    status = vibe_request_check_all(engine, run->cli->options, &run->jobs,
                                    n_tokens, why);
    for (size_t i = 0; i < run->jobs.n && status == VIBE_EXIT_OK; i++) {
        const struct vibe_job *job = &run->jobs.items[i];

        if (run->cli->options->is_json)
            print_plan_object(job, n_tokens[i]);
        else
            print_plan_line(job, n_tokens[i]);
    }
    free(n_tokens);
    return status;
}

/* How many jobs are to be spoken. */
static size_t count_open(const struct vibe_jobs *jobs)
{
    size_t n = 0;

    for (size_t i = 0; i < jobs->n; i++)
        n += !jobs->items[i].is_skipped && !jobs->items[i].source->problem;
    return n;
}

/* Open the model and see that it can take every script. */
static enum vibe_exit prepare(struct vibe_run *run, struct vibe_engine **engine,
                              struct vibe_failure *why)
{
    const struct vibe_options *o = run->cli->options;
    const size_t n_open = count_open(&run->jobs);
    enum vibe_exit status;

    run->n_at_once = o->batch_size                  ? (size_t)o->batch_size
                     : o->device == VIBE_DEVICE_CPU ? AT_ONCE_CPU
                                                    : AT_ONCE_GPU;
    if (run->n_at_once > n_open)
        run->n_at_once = n_open ? n_open : 1;
    run->cli->n_dialogues = run->n_at_once;
    status = vibe_cli_open_engine(
        engine, run->cli, o->is_dry_run ? VIBE_USE_INSPECT : VIBE_USE_SPEAK,
        why);
    if (status != VIBE_EXIT_OK)
        return status;
    vibe_engine_describe(*engine, &run->info);
    if (!o->is_dry_run && o->dump_tensors &&
        vibe_make_folder(o->dump_tensors, &why->err) != VIBE_OK)
        return vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, o->dump_tensors);
    vibe_log(&run->cli->log, VIBE_LOG_DEBUG, "%s, weights %s on %s",
             vibe_cli_model(o), run->info.dtype, run->info.device);
    return vibe_request_check_all(*engine, o, &run->jobs, NULL, why);
}

/* Leave out a job that an earlier run has done as it is asked for now. */
static void resume_job(struct vibe_run *run, struct vibe_job *job)
{
    const json_t *line = vibe_state_find(run->state, job->output);
    const char *status = json_string_value(json_object_get(line, "status"));
    const char *digest = json_string_value(json_object_get(line, "digest"));
    char now[17];

    if (!status || strcmp(status, "done") != 0 || !digest ||
        access(job->output, F_OK) != 0)
        return;
    vibe_state_digest(now, job, run->cli->options);
    job->is_skipped = strcmp(digest, now) == 0;
    if (!job->is_skipped)
        vibe_log(&run->cli->log, VIBE_LOG_WARN,
                 "%s: was spoken otherwise before; it is spoken again",
                 job->output);
}

/* Open the state of a batch, and skip what it says is done. */
static enum vibe_exit open_state(struct vibe_run *run, struct vibe_failure *why)
{
    const struct vibe_options *o = run->cli->options;
    char *folder = vibe_outputs_folder(o);
    enum vibe_exit status;

    if (!folder)
        return vibe_cli_fail(why, VIBE_EXIT_MEMORY, NULL, "out of memory");
    if (vibe_make_folder(folder, &why->err) != VIBE_OK)
        status = vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, folder);
    else
        status = vibe_state_open(&run->state, folder, run->jobs.manifest.name,
                                 o, why);
    free(folder);
    for (size_t i = 0; i < run->jobs.n && status == VIBE_EXIT_OK; i++)
        if (!run->jobs.items[i].source->problem)
            resume_job(run, &run->jobs.items[i]);
    return status;
}

/* Everything up to the model. */
static enum vibe_exit open_run(struct vibe_run *run, uint64_t seed,
                               struct vibe_failure *why)
{
    const struct vibe_options *o = run->cli->options;
    enum vibe_exit status = vibe_jobs_open(
        &run->jobs, run->cli, o->is_dry_run ? VIBE_JOBS_PLAN : VIBE_JOBS_WRITE,
        seed, why);

    run->progress = (struct vibe_progress){
        .log = &run->cli->log,
        .mode = vibe_progress_choose((enum vibe_progress_mode)o->progress,
                                     o->is_quiet),
        .hz = VIBE_SAMPLE_RATE,
        .count = run->jobs.n,
    };
    run->report = vibe_report_open();
    if (status == VIBE_EXIT_OK && !run->report)
        status = vibe_cli_fail(why, VIBE_EXIT_MEMORY, NULL, "out of memory");
    if (status == VIBE_EXIT_OK && run->jobs.is_batch && !o->is_dry_run)
        status = open_state(run, why);
    return status;
}

enum vibe_exit vibe_cmd_speak(struct vibe_cli *cli, struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    const uint64_t seed = vibe_request_seed(o);
    struct vibe_run run = {.cli = cli, .lock = PTHREAD_MUTEX_INITIALIZER};
    struct queue q = {.run = &run};
    struct vibe_engine *engine = NULL;
    enum vibe_exit status = vibe_request_options(o, why);

    if (status != VIBE_EXIT_OK)
        return status;
    status = open_run(&run, seed, why);
    q.waiting = calloc(run.jobs.n + 1, sizeof(struct vibe_take *));
    if (status == VIBE_EXIT_OK && !q.waiting)
        status = vibe_cli_fail(why, VIBE_EXIT_MEMORY, NULL, "out of memory");
    if (status == VIBE_EXIT_OK && (o->is_dry_run || count_open(&run.jobs) > 0))
        status = prepare(&run, &engine, why);
    if (status == VIBE_EXIT_OK && o->is_dry_run) {
        status = print_plan(&run, engine, why);
    } else if (status == VIBE_EXIT_OK) {
        if (o->seed < 0)
            vibe_log(&cli->log, VIBE_LOG_INFO, "seed %" PRIu64, seed);
        status = speak_all(&q, engine, why);
    }
    vibe_engine_free(engine);
    vibe_state_free(run.state);
    vibe_report_free(run.report);
    vibe_jobs_release(&run.jobs);
    free(q.waiting);
    return status;
}
