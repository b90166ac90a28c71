#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "audio/level.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/jobs.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/request.h"
#include "cli/signals.h"
#include "engine/base/clock.h"
#include "engine/base/trace.h"
#include "engine/vibevoice.h"

/* A run over several scripts. */
struct run {
    struct vibe_cli *cli;
    struct vibe_jobs jobs;
    struct vibe_engine *engine;
    struct vibe_engine_info info;
    struct vibe_progress progress;
    uint64_t seed;
    size_t n_done, n_failed, n_skipped;
};

/* One script while it is spoken. */
struct take {
    struct run *run;
    const struct vibe_job *job;
    struct vibe_writer *writer; /* opened by the first frame */
    int has_failed;             /* the writer has, err says how */
    struct vibe_error err;
    struct vibe_meter meter;
    struct vibe_result result;
    json_t *warnings;
    double start_s;
    size_t max_frames; /* what the options allow, 0: no cap */
};

static double take_seconds(const struct take *take)
{
    return (double)take->meter.n / VIBE_SAMPLE_RATE;
}

/* Warn about a take, on the screen and in its JSON object. */
static void warn_take(struct take *take, const char *msg)
{
    vibe_log(&take->run->cli->log, VIBE_LOG_WARN, "%s: %s", take->job->output,
             msg);
    json_array_append_new(take->warnings, vibe_json_string(msg));
}

static void on_prompt(void *user, size_t n_tokens, size_t max_tokens)
{
    struct take *take = user;
    double frame_s = (double)take->run->info.hop / VIBE_SAMPLE_RATE;

    if (take->max_frames && take->max_frames < max_tokens)
        max_tokens = take->max_frames;
    vibe_progress_prompt(&take->run->progress, n_tokens,
                         (double)max_tokens * frame_s);
    vibe_log(&take->run->cli->log, VIBE_LOG_DEBUG,
             "%s: prompt of %zu tokens, at most %zu more", take->job->name,
             n_tokens, max_tokens);
}

/* Start the file; from now on there is something to keep. */
static int open_writer(struct take *take)
{
    if (take->writer)
        return VIBE_OK;
    if (vibe_writer_open(&take->writer, take->job->output,
                         &take->run->jobs.writer, &take->err) != VIBE_OK) {
        take->has_failed = 1;
        return take->err.code;
    }
    vibe_signals_arm();
    return VIBE_OK;
}

static int on_frame(void *user, const float *samples, size_t n)
{
    const double begin_s = vibe_clock_s();
    struct take *take = user;

    if (open_writer(take) != VIBE_OK)
        return 1;
    if (vibe_writer_write(take->writer, samples, n, &take->err) != VIBE_OK) {
        take->has_failed = 1;
        return 1;
    }
    vibe_meter_add(&take->meter, samples, n);
    vibe_progress_frame(&take->run->progress, n);
    vibe_trace_span(take->run->cli->trace, VIBE_TRACK_HOST, "write", begin_s,
                    vibe_clock_s());
    vibe_log(&take->run->cli->log, VIBE_LOG_TRACE,
             "%s: %.3f s spoken at %.3f s", take->job->name, take_seconds(take),
             vibe_clock_s() - take->start_s);
    return vibe_signals_pending() != 0;
}

static const char *finish_name(enum vibe_finish finish)
{
    switch (finish) {
    case VIBE_FINISH_END:
        return "end";
    case VIBE_FINISH_LENGTH:
        return "max_length";
    case VIBE_FINISH_INTERRUPTED:
        return "interrupted";
    }
    return "end";
}

/* The JSON object of a file that was written. */
static void print_object(const struct take *take, const char *file)
{
    const struct vibe_options *o = take->run->cli->options;
    double seconds = take_seconds(take);
    double wall = vibe_clock_s() - take->start_s;
    json_t *object = json_object();

    vibe_json_text(object, "file", file);
    vibe_json_text(object, "script", take->job->path);
    vibe_json_number(object, "seconds", seconds);
    vibe_json_count(object, "frames", take->result.frames);
    vibe_json_number(object, "wall_s", wall);
    vibe_json_number(object, "rtf", wall / seconds);
    vibe_json_count(object, "seed", take->run->seed);
    vibe_json_number(object, "cfg_scale", o->cfg_scale);
    vibe_json_count(object, "steps", (size_t)o->steps);
    vibe_json_text(object, "dtype", take->run->info.dtype);
    vibe_json_text(object, "device", take->run->info.device);
    vibe_json_count(object, "prompt_tokens", take->result.prompt_tokens);
    vibe_json_number(object, "prompt_s", take->result.prompt_s);
    vibe_json_number(object, "peak", (double)take->meter.peak);
    vibe_json_count(object, "clipped", take->meter.n_clipped);
    vibe_json_text(object, "finish", finish_name(take->result.finish));
    json_object_set(object, "warnings", take->warnings);
    vibe_json_print(object);
}

/* Tell the user of a file: the sum for people, its path for programs. */
static void announce(const struct take *take, const char *file)
{
    struct vibe_cli *cli = take->run->cli;
    double seconds = take_seconds(take);
    double wall = vibe_clock_s() - take->start_s;
    int is_stream = strcmp(file, "-") == 0;
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
        print_object(take, file);
    } else if (!cli->options->is_quiet) {
        printf("%s\n", file);
        fflush(stdout);
    }
}

/* Keep what was spoken before something went wrong, and say where it is. */
static void keep_part(struct take *take, const char *what)
{
    struct vibe_cli *cli = take->run->cli;
    const char *part = NULL;
    struct vibe_error err = {0};
    char kept[32];

    if (!take->writer)
        return;
    if (vibe_writer_keep(take->writer, &part, &err) != VIBE_OK && !part)
        vibe_log(&cli->log, VIBE_LOG_WARN, "%s", err.msg);
    if (!part)
        return;
    vibe_log(&cli->log, VIBE_LOG_WARN, "%s; %s of speech are kept in %s", what,
             vibe_progress_time(take_seconds(take), kept, sizeof(kept)), part);
    if (cli->options->is_json)
        print_object(take, part);
}

/* What a listener would want to know of a file. */
static void warn_of_result(struct take *take)
{
    char msg[160], length[32];

    vibe_progress_time(take_seconds(take), length, sizeof(length));
    if (take->meter.n == 0) {
        warn_take(take, take->result.finish == VIBE_FINISH_LENGTH
                            ? "holds no speech: the length cap ended it"
                            : "holds no speech: the model ended at once");
    } else if (take->result.finish == VIBE_FINISH_LENGTH) {
        snprintf(msg, sizeof(msg),
                 "the length cap ended it after %s, not the model "
                 "(--max-length-times, --max-frames, --max-seconds)",
                 length);
        warn_take(take, msg);
    }
    if (take->meter.n_clipped &&
        take->run->jobs.writer.sample != VIBE_SAMPLE_F32) {
        snprintf(msg, sizeof(msg), "%zu sample%s clipped, peak %.2f",
                 take->meter.n_clipped,
                 take->meter.n_clipped == 1 ? " was" : "s were",
                 (double)take->meter.peak);
        warn_take(take, msg);
    }
}

/* The writer has failed: the disk is full, or the reader has gone. */
static enum vibe_exit fail_output(struct take *take, struct vibe_failure *why)
{
    int errnum = take->writer ? vibe_writer_errno(take->writer) : 0;

    keep_part(take, "stopped");
    if (errnum == EPIPE)
        return vibe_cli_fail(why, VIBE_EXIT_SIGPIPE, NULL, "%s", "");
    why->err = take->err;
    /* NaN in the speech is the model's doing, all else is the disk's. */
    return vibe_cli_fail_by(why,
                            take->err.code == VIBE_E_FORMAT ? VIBE_EXIT_FAILED
                                                            : VIBE_EXIT_OUTPUT,
                            take->job->output);
}

/* The engine has failed in the middle. */
static enum vibe_exit fail_engine(struct take *take, struct vibe_failure *why)
{
    const struct vibe_error err = why->err;

    keep_part(take, "stopped");
    return vibe_cli_fail(
        why, err.code == VIBE_E_NOMEM ? VIBE_EXIT_MEMORY : VIBE_EXIT_FAILED,
        take->job->path, "%s: %s", take->job->name, err.msg);
}

/* Close the file according to how the speaking ended. */
static enum vibe_exit finish_take(struct take *take, int rc,
                                  struct vibe_failure *why)
{
    vibe_progress_end(&take->run->progress);
    if (take->has_failed)
        return fail_output(take, why);
    if (rc != VIBE_OK)
        return fail_engine(take, why);
    if (take->result.finish == VIBE_FINISH_INTERRUPTED) {
        int signal_number = vibe_signals_pending();

        keep_part(take, "interrupted");
        return vibe_cli_fail(why,
                             signal_number == SIGTERM ? VIBE_EXIT_SIGTERM
                                                      : VIBE_EXIT_SIGINT,
                             NULL, "%s", "");
    }
    if (open_writer(take) != VIBE_OK ||
        vibe_writer_finish(take->writer, &take->err) != VIBE_OK) {
        why->err = take->err;
        return vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, take->job->output);
    }
    warn_of_result(take);
    announce(take, take->job->output);
    return VIBE_EXIT_OK;
}

static enum vibe_exit speak_job(struct run *run, size_t index,
                                struct vibe_failure *why)
{
    const struct vibe_job *job = &run->jobs.items[index];
    struct take take = {
        .run = run,
        .job = job,
        .warnings = json_array(),
        .start_s = vibe_clock_s(),
    };
    struct vibe_request request;
    enum vibe_exit status;
    int rc;

    vibe_request_fill(&request, run->cli->options, job, run->seed,
                      run->info.hop);
    request.on_frame = on_frame;
    request.on_prompt = on_prompt;
    request.user = &take;
    take.max_frames = request.max_frames;
    vibe_progress_start(&run->progress, job->name, index + 1);
    rc = vibe_speak(run->engine, &request, &take.result, &why->err);
    status = finish_take(&take, rc, why);
    vibe_signals_disarm();
    vibe_writer_free(take.writer);
    json_decref(take.warnings);
    return status;
}

/* After these the remaining scripts are not started. */
static int ends_run(enum vibe_exit status)
{
    return status == VIBE_EXIT_SIGINT || status == VIBE_EXIT_SIGTERM ||
           status == VIBE_EXIT_SIGPIPE;
}

static enum vibe_exit speak_all(struct run *run, struct vibe_failure *why)
{
    enum vibe_exit status = VIBE_EXIT_OK;

    for (size_t i = 0; i < run->jobs.n; i++) {
        *why = (struct vibe_failure){0};
        if (run->jobs.items[i].is_skipped) {
            run->n_skipped++;
            continue;
        }
        status = speak_job(run, i, why);
        if (ends_run(status) || run->jobs.n == 1)
            return status;
        /* A signal may have come with the last frame of a complete file. */
        if (vibe_signals_pending())
            return status;
        if (status == VIBE_EXIT_OK) {
            run->n_done++;
            continue;
        }
        vibe_cli_report(run->cli, why);
        run->n_failed++;
    }
    vibe_log(&run->cli->log, VIBE_LOG_INFO, "%zu done, %zu failed, %zu skipped",
             run->n_done, run->n_failed, run->n_skipped);
    *why = (struct vibe_failure){0};
    return run->n_failed ? VIBE_EXIT_FAILED : VIBE_EXIT_OK;
}

static void print_plan_object(const struct vibe_job *job, size_t n_tokens)
{
    json_t *object = json_object();

    vibe_json_text(object, "file", job->output);
    vibe_json_text(object, "script", job->path);
    vibe_json_count(object, "turns", job->script.n_turns);
    vibe_json_count(object, "voices", job->n_voices);
    vibe_json_count(object, "prompt_tokens", n_tokens);
    vibe_json_bool(object, "skipped", job->is_skipped);
    vibe_json_print(object);
}

/* --dry-run: what would be done, a script a line. */
static enum vibe_exit print_plan(struct run *run, struct vibe_failure *why)
{
    size_t *n_tokens = calloc(run->jobs.n, sizeof(*n_tokens));
    enum vibe_exit status;

    if (!n_tokens)
        return vibe_cli_fail(why, VIBE_EXIT_MEMORY, NULL, "out of memory");
    status = vibe_request_check_all(run->engine, run->cli->options, &run->jobs,
                                    n_tokens, why);
    for (size_t i = 0; i < run->jobs.n && status == VIBE_EXIT_OK; i++) {
        const struct vibe_job *job = &run->jobs.items[i];

        if (run->cli->options->is_json) {
            print_plan_object(job, n_tokens[i]);
            continue;
        }
        printf("%s -> %s: %zu turns, %zu speakers, %zu voices, prompt of %zu "
               "tokens%s\n",
               job->name, job->output, job->script.n_turns,
               vibe_script_speakers(&job->script, NULL, 0), job->n_voices,
               n_tokens[i], job->is_skipped ? ", skipped" : "");
    }
    free(n_tokens);
    return status;
}

static int is_all_skipped(const struct vibe_jobs *jobs)
{
    for (size_t i = 0; i < jobs->n; i++)
        if (!jobs->items[i].is_skipped)
            return 0;
    return 1;
}

/* Open the model and see that it can take every script. */
static enum vibe_exit prepare(struct run *run, struct vibe_failure *why)
{
    const struct vibe_options *o = run->cli->options;
    enum vibe_exit status = vibe_cli_open_engine(
        &run->engine, run->cli,
        o->is_dry_run ? VIBE_USE_INSPECT : VIBE_USE_SPEAK, why);

    if (status != VIBE_EXIT_OK)
        return status;
    vibe_engine_describe(run->engine, &run->info);
    if (!o->is_dry_run && o->dump_tensors &&
        vibe_make_folder(o->dump_tensors, &why->err) != VIBE_OK)
        return vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, o->dump_tensors);
    vibe_log(&run->cli->log, VIBE_LOG_DEBUG, "%s, weights %s on %s",
             vibe_cli_model(o), run->info.dtype, run->info.device);
    return vibe_request_check_all(run->engine, o, &run->jobs, NULL, why);
}

enum vibe_exit vibe_cmd_speak(struct vibe_cli *cli, struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    struct run run = {.cli = cli, .seed = vibe_request_seed(o)};
    enum vibe_exit status = vibe_request_options(o, why);

    if (status != VIBE_EXIT_OK)
        return status;
    run.progress = (struct vibe_progress){
        .log = &cli->log,
        .mode = vibe_progress_choose((enum vibe_progress_mode)o->progress,
                                     o->is_quiet),
        .hz = VIBE_SAMPLE_RATE,
    };
    status = vibe_jobs_open(
        &run.jobs, cli, o->is_dry_run ? VIBE_JOBS_PLAN : VIBE_JOBS_WRITE, why);
    run.progress.count = run.jobs.n;
    if (status == VIBE_EXIT_OK && (o->is_dry_run || !is_all_skipped(&run.jobs)))
        status = prepare(&run, why);
    if (status == VIBE_EXIT_OK && o->is_dry_run) {
        status = print_plan(&run, why);
    } else if (status == VIBE_EXIT_OK) {
        if (o->seed < 0)
            vibe_log(&cli->log, VIBE_LOG_INFO, "seed %" PRIu64, run.seed);
        status = speak_all(&run, why);
    }
    vibe_engine_free(run.engine);
    vibe_jobs_release(&run.jobs);
    return status;
}
