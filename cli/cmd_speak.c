#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/devices.h"
#include "cli/folder.h"
#include "cli/jobs.h"
#include "cli/json.h"
#include "cli/outputs.h"
#include "cli/queue.h"
#include "cli/replicas.h"
#include "cli/report.h"
#include "cli/request.h"
#include "cli/run.h"
#include "cli/signals.h"
#include "cli/state.h"
#include "cli/stats.h"
#include "engine/base/clock.h"
#include "engine/vibevoice.h"

enum { AT_ONCE_CPU = 4, AT_ONCE_GPU = 8 }; /* dialogues, unless it is said */

/* All at once have another rate than each. */
static void tell_rate(const struct vibe_run *run)
{
    const struct vibe_report_sum sum = vibe_report_sum(run->report);
    char spoken[32], needed[32];

    if (sum.frames == 0)
        return;
    vibe_log(&run->cli->log, VIBE_LOG_INFO,
             "in all %s of speech in %s, %.2f x real time, %.1f frames/s",
             vibe_progress_time(sum.seconds, spoken, sizeof(spoken)),
             vibe_progress_time(sum.wall_s, needed, sizeof(needed)),
             sum.seconds / sum.wall_s, (double)sum.frames / sum.wall_s);
}

/* Sum up, and find the status of the run. */
static enum vibe_exit conclude(struct vibe_queue *q, struct vibe_failure *why)
{
    struct vibe_run *run = q->run;
    const int signal_number = vibe_signals_pending();

    if (run->jobs.n > 1 || run->jobs.is_batch) {
        tell_rate(run);
        vibe_log(&run->cli->log, VIBE_LOG_INFO,
                 "%zu done, %zu failed, %zu skipped", run->n_done,
                 run->n_failed, run->n_skipped);
    }
    *why = q->why;
    if (signal_number &&
        run->n_done + run->n_failed + run->n_skipped < run->jobs.n)
        return vibe_signals_status(signal_number);
    if (why->status != VIBE_EXIT_OK)
        return why->status;
    return run->n_failed ? VIBE_EXIT_FAILED : VIBE_EXIT_OK;
}

/* Write the report, even of what was interrupted; a failure of the run is
 * worse than one of its report. */
static enum vibe_exit report(struct vibe_run *run, enum vibe_exit status,
                             struct vibe_failure *why)
{
    const char *path = run->cli->options->report;
    struct vibe_failure unwritten = {0};

    if (!path ||
        vibe_report_write(run->report, run, path, &unwritten) == VIBE_EXIT_OK)
        return status;
    if (status != VIBE_EXIT_OK)
        return status;
    *why = unwritten;
    return why->status;
}

static enum vibe_exit speak_all(struct vibe_run *run,
                                struct vibe_engine *engine,
                                struct vibe_failure *why)
{
    struct vibe_queue q;
    struct vibe_failure failure = {0};
    enum vibe_exit status = vibe_queue_init(&q, run, why);

    if (status != VIBE_EXIT_OK)
        return status;
    vibe_queue_settle(&q);
    if (run->n_at_once > 1)
        vibe_progress_start(&run->progress, "speaking", 1);
    if (engine && !q.is_stopped)
        status = vibe_replicas_speak(run->others, &q, engine, &failure);
    if (status != VIBE_EXIT_OK && q.why.status == VIBE_EXIT_OK)
        q.why = failure;
    vibe_queue_close(&q);
    status = conclude(&q, why);
    vibe_queue_release(&q);
    return report(run, status, why);
}

static void print_plan_object(const struct vibe_job *job, size_t n_tokens)
{
    json_t *object = json_object();

    vibe_json_set_file(object, job->output);
    vibe_json_text(object, "script", job->source->path);
    vibe_json_count(object, "turns", job->source->script.n_turns);
    vibe_json_count(object, "voices", job->source->n_voices);
    vibe_json_count(object, "prompt_tokens", n_tokens);
    vibe_json_bool(object, "skipped", job->is_skipped);
    if (job->source->problem)
        vibe_json_text(object, "error", job->source->problem);
    vibe_json_print(object);
}

static const char *plural(size_t n)
{
    return n == 1 ? "" : "s";
}

static void print_plan_line(const struct vibe_job *job, size_t n_tokens)
{
    const struct vibe_source *source = job->source;
    const size_t n_turns = source->script.n_turns;
    const size_t n_speakers = vibe_script_speakers(&source->script, NULL, 0);

    printf("%s -> %s: ", source->name, job->output);
    if (source->problem)
        printf("cannot be spoken: %s\n", source->problem);
    else
        printf("%zu turn%s, %zu speaker%s, %zu voice%s, prompt of %zu "
               "tokens%s\n",
               n_turns, plural(n_turns), n_speakers, plural(n_speakers),
               source->n_voices, plural(source->n_voices), n_tokens,
               job->is_skipped ? ", skipped" : "");
}

/* --dry-run: what would be done, a file a line. */
static enum vibe_exit print_plan(struct vibe_run *run,
                                 struct vibe_engine *engine,
                                 struct vibe_failure *why)
{
    size_t *n_tokens = calloc(run->jobs.n + 1, sizeof(*n_tokens));
    enum vibe_exit status;

    if (!n_tokens)
        return vibe_cli_fail_memory(why, "scripts");
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

/* Dialogues that each of n engines is to speak at once. */
static size_t count_rows(const struct vibe_options *o, size_t n_open, size_t n)
{
    const size_t share = (n_open + n - 1) / n;
    const size_t rows = o->batch_size                  ? (size_t)o->batch_size
                        : o->device == VIBE_DEVICE_CPU ? AT_ONCE_CPU
                                                       : AT_ONCE_GPU;

    return rows < share ? rows : share ? share : 1;
}

/* Open the model; with fewer dialogues at once where they do not fit and
 * nobody has said how many. */
static enum vibe_exit open_engine(struct vibe_run *run,
                                  struct vibe_engine **engine,
                                  struct vibe_failure *why)
{
    const struct vibe_options *o = run->cli->options;
    const enum vibe_cli_use use = o->is_dry_run ? VIBE_USE_INSPECT
                                                : VIBE_USE_SPEAK;
    enum vibe_exit status = vibe_cli_open_engine(engine, run->cli, use, why);

    while (status == VIBE_EXIT_MEMORY && !o->batch_size &&
           run->cli->n_dialogues > 1) {
        vibe_log(&run->cli->log, VIBE_LOG_DEBUG,
                 "%zu dialogues at once do not fit: %s", run->cli->n_dialogues,
                 why->err.msg);
        *why = (struct vibe_failure){0};
        run->cli->n_dialogues /= 2;
        status = vibe_cli_open_engine(engine, run->cli, use, why);
    }
    /* --device auto may have found no GPU. */
    if (status == VIBE_EXIT_OK && !o->batch_size &&
        run->cli->n_dialogues > AT_ONCE_CPU &&
        !vibe_engine_planned(*engine)->has_gpu)
        run->cli->n_dialogues = AT_ONCE_CPU;
    return status;
}

/* Open the model and see that it can take every script. */
static enum vibe_exit prepare(struct vibe_run *run, struct vibe_engine **engine,
                              struct vibe_failure *why)
{
    const struct vibe_options *o = run->cli->options;
    const size_t n_open = count_open(&run->jobs);
    struct vibe_request *requests = vibe_requests_of(o, &run->jobs,
                                                     &run->cli->n_requests);
    enum vibe_exit status;

    run->cli->requests = requests;
    run->cli->n_dialogues = count_rows(o, n_open,
                                       run->cli->devices->n_replicas);
    status = open_engine(run, engine, why);
    run->n_at_once = run->cli->n_dialogues * run->cli->devices->n_replicas;
    if (status == VIBE_EXIT_OK && !o->is_dry_run)
        status = vibe_replicas_open(&run->others, run->cli, *engine,
                                    run->cli->devices->replicas,
                                    run->cli->devices->n_replicas, why);
    run->cli->requests = NULL;
    run->cli->n_requests = 0;
    free(requests);
    if (status != VIBE_EXIT_OK)
        return status;
    vibe_engine_describe(*engine, &run->info);
    if (!o->is_dry_run && o->dump_tensors &&
        vibe_folder_make(o->dump_tensors, &why->err) != VIBE_OK)
        return vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, o->dump_tensors);
    vibe_log(&run->cli->log, VIBE_LOG_DEBUG, "%s, weights %s on %s",
             vibe_cli_model(o), run->info.dtype, run->info.device);
    vibe_stats_foretell(run->cli, *engine);
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
        return vibe_cli_fail_memory(why, "scripts");
    if (vibe_folder_make(folder, &why->err) != VIBE_OK)
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
        status = vibe_cli_fail_memory(why, "scripts");
    if (status == VIBE_EXIT_OK && run->jobs.is_batch && !o->is_dry_run)
        status = open_state(run, why);
    return status;
}

/* Speak, or say what would be spoken. */
static enum vibe_exit do_run(struct vibe_run *run, uint64_t seed,
                             struct vibe_failure *why)
{
    const struct vibe_options *o = run->cli->options;
    struct vibe_engine *engine = NULL;
    double start_s;
    enum vibe_exit status = open_run(run, seed, why);

    if (status == VIBE_EXIT_OK && (o->is_dry_run || count_open(&run->jobs) > 0))
        status = prepare(run, &engine, why);
    if (status == VIBE_EXIT_OK && o->is_dry_run) {
        status = print_plan(run, engine, why);
    } else if (status == VIBE_EXIT_OK) {
        if (o->seed < 0)
            vibe_log(&run->cli->log, VIBE_LOG_INFO, "seed %" PRIu64, seed);
        start_s = vibe_clock_s();
        vibe_report_start(run->report);
        status = speak_all(run, engine, why);
        if (engine)
            vibe_stats_print(run->cli, engine, vibe_clock_s() - start_s);
    }
    vibe_replicas_free(run->others);
    vibe_engine_free(engine);
    return status;
}

enum vibe_exit vibe_cmd_speak(struct vibe_cli *cli, struct vibe_failure *why)
{
    struct vibe_options options = *cli->options; /* but for the device */
    struct vibe_cli first = *cli;
    struct vibe_run run = {.cli = &first, .lock = PTHREAD_MUTEX_INITIALIZER};
    enum vibe_exit status = vibe_request_options(&options, why);

    first.options = &options;
    if (status != VIBE_EXIT_OK)
        return status;
    status = do_run(&run, vibe_request_seed(&options), why);
    vibe_state_free(run.state);
    vibe_report_free(run.report);
    vibe_jobs_release(&run.jobs);
    return status;
}
