#include "cli/take.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/json.h"
#include "cli/request.h"
#include "cli/run.h"
#include "cli/signals.h"
#include "cli/state.h"
#include "engine/base/clock.h"
#include "engine/base/trace.h"

double vibe_take_seconds(const struct vibe_take *take)
{
    return (double)take->meter.n / VIBE_SAMPLE_RATE;
}

static int is_stream(const struct vibe_take *take)
{
    return strcmp(take->job->output, "-") == 0;
}

const char *vibe_take_file(const struct vibe_take *take)
{
    return is_stream(take) ? "standard output" : take->job->output;
}

/* Are its parts files of their own? */
static int has_part_files(const struct vibe_take *take)
{
    return take->chunks.n > 1 && !is_stream(take);
}

/* The file of a part: "out/talk.part-<digest>-003.wav"; owned. */
static char *part_path(const struct vibe_take *take, size_t chunk)
{
    const char *output = take->job->output;
    const char *slash = strrchr(output, '/');
    const char *dot = strrchr(slash ? slash : output, '.');
    const int stem = (int)(dot ? (size_t)(dot - output) : strlen(output));
    char *path = NULL;

    if (asprintf(&path, "%.*s.part-%s-%03zu.wav", stem, output, take->digest,
                 chunk + 1) < 0)
        return NULL;
    return path;
}

/* Warn about a take, on the screen and in its JSON object. */
static void warn(struct vibe_take *take, const char *msg)
{
    struct vibe_run *run = take->run;

    pthread_mutex_lock(&run->lock);
    vibe_log(&run->cli->log, VIBE_LOG_WARN, "%s: %s", vibe_take_file(take),
             msg);
    pthread_mutex_unlock(&run->lock);
    json_array_append_new(take->warnings, vibe_json_string(msg));
}

static void on_prompt(void *user, size_t n_tokens, size_t max_tokens)
{
    struct vibe_take *take = user;
    struct vibe_run *run = take->run;
    const double frame_s = (double)run->info.hop / VIBE_SAMPLE_RATE;

    if (take->max_frames && take->max_frames < max_tokens)
        max_tokens = take->max_frames;
    pthread_mutex_lock(&run->lock);
    if (run->n_at_once == 1)
        vibe_progress_prompt(&run->progress, n_tokens,
                             (double)max_tokens * frame_s);
    vibe_log(&run->cli->log, VIBE_LOG_DEBUG,
             "%s: prompt of %zu tokens, at most %zu more",
             take->job->source->name, n_tokens, max_tokens);
    pthread_mutex_unlock(&run->lock);
}

/* The exit status of what a writer says. */
static void fail_writer(struct vibe_take *take)
{
    const int errnum = take->writer ? vibe_writer_errno(take->writer) : 0;

    if (errnum == EPIPE)
        vibe_cli_fail(&take->why, VIBE_EXIT_SIGPIPE, NULL, "%s", "");
    else /* NaN in the speech is the model's doing, all else is the disk's */
        vibe_cli_fail_by(&take->why,
                         take->why.err.code == VIBE_E_FORMAT ? VIBE_EXIT_FAILED
                                                             : VIBE_EXIT_OUTPUT,
                         take->job->output);
}

/* Start the file; from now on there is something to keep. */
static int open_writer(struct vibe_take *take)
{
    struct vibe_writer_options options = take->run->jobs.writer;
    char *path = NULL;
    int rc;

    if (take->writer)
        return VIBE_OK;
    if (has_part_files(take)) {
        options = (struct vibe_writer_options){
            .rate = VIBE_SAMPLE_RATE,
            .format = VIBE_AUDIO_WAV,
            .sample = VIBE_SAMPLE_F32, /* nothing is lost in between */
        };
        path = part_path(take, take->chunk);
    } else {
        path = strdup(take->job->output);
    }
    rc = path ? vibe_writer_open(&take->writer, path, &options, &take->why.err)
              : vibe_fail(&take->why.err, VIBE_E_NOMEM,
                          "no memory for a file name");
    free(path);
    if (rc != VIBE_OK)
        fail_writer(take);
    else
        vibe_signals_arm();
    return rc;
}

static int on_frame(void *user, const float *samples, size_t n)
{
    const double begin_s = vibe_clock_s();
    struct vibe_take *take = user;
    struct vibe_run *run = take->run;

    if (open_writer(take) != VIBE_OK)
        return 1;
    if (vibe_writer_write(take->writer, samples, n, &take->why.err) !=
        VIBE_OK) {
        fail_writer(take);
        return 1;
    }
    vibe_meter_add(&take->meter, samples, n);
    vibe_trace_span(run->cli->trace, VIBE_TRACK_HOST, "write", begin_s,
                    vibe_clock_s());
    pthread_mutex_lock(&run->lock);
    if (!run->has_spoken)
        take->first_s = vibe_clock_s() - run->cli->start_s;
    run->has_spoken = 1;
    vibe_progress_frame(&run->progress, n);
    vibe_log(&run->cli->log, VIBE_LOG_TRACE, "%s: %.3f s spoken at %.3f s",
             take->job->source->name, vibe_take_seconds(take),
             vibe_clock_s() - take->start_s);
    pthread_mutex_unlock(&run->lock);
    return vibe_signals_pending() != 0;
}

/* Count a part that an earlier run has finished; 0 if it has not.  One that
 * reaches the cap is the last, which is spoken again. */
static int count_finished_part(struct vibe_take *take, size_t chunk)
{
    char *path = part_path(take, chunk);
    struct vibe_audio audio = {0};
    size_t frames = 0;
    int is_counted = path && access(path, F_OK) == 0 &&
                     vibe_wav_read(&audio, path, NULL) == VIBE_OK;

    if (is_counted)
        frames = audio.n / take->run->info.hop;
    if (take->max_frames && take->result.frames + frames >= take->max_frames)
        is_counted = 0;
    if (is_counted) {
        vibe_meter_add(&take->meter, audio.samples, audio.n);
        take->result.frames += frames;
        take->result.samples += audio.n;
    }
    vibe_audio_release(&audio);
    free(path);
    return is_counted;
}

/* Find the first part that is to be spoken; the last one always is. */
static void skip_finished_parts(struct vibe_take *take)
{
    const struct vibe_cli *cli = take->run->cli;
    struct vibe_request request;

    vibe_request_fill(&request, cli->options, take->job, take->run->info.hop);
    take->max_frames = request.max_frames;
    if (!has_part_files(take) ||
        cli->options->on_existing != VIBE_EXISTING_RESUME)
        return;
    while (take->chunk + 1 < take->chunks.n &&
           count_finished_part(take, take->chunk))
        take->chunk++;
    if (take->chunk > 0)
        vibe_log(&take->run->cli->log, VIBE_LOG_INFO,
                 "%s: goes on with part %zu of %zu", take->job->output,
                 take->chunk + 1, take->chunks.n);
}

enum vibe_exit vibe_take_open(struct vibe_take **out, struct vibe_run *run,
                              const struct vibe_job *job,
                              struct vibe_failure *why)
{
    const struct vibe_options *o = run->cli->options;
    struct vibe_take *take = calloc(1, sizeof(*take));

    *out = NULL;
    if (!take || vibe_chunks_plan(&take->chunks, &job->source->script,
                                  o->chunk_minutes, &why->err) != VIBE_OK) {
        free(take);
        return vibe_cli_fail(why, VIBE_EXIT_MEMORY, NULL,
                             "no memory to speak %s", job->source->name);
    }
    take->run = run;
    take->job = job;
    take->warnings = json_array();
    take->start_s = vibe_clock_s();
    vibe_state_digest(take->digest, job, o);
    skip_finished_parts(take);
    *out = take;
    return VIBE_EXIT_OK;
}

void vibe_take_free(struct vibe_take *take)
{
    if (!take)
        return;
    vibe_writer_free(take->writer);
    json_decref(take->warnings);
    vibe_chunks_release(&take->chunks);
    free(take);
}

void vibe_take_request(struct vibe_take *take, struct vibe_request *out)
{
    vibe_request_fill(out, take->run->cli->options, take->job,
                      take->run->info.hop);
    take->part = vibe_chunks_part(&take->chunks, &take->job->source->script,
                                  take->chunk);
    out->script = &take->part;
    out->has_silent_voices = take->chunks.n > 1;
    out->first_frame = take->result.frames;
    if (out->max_frames) /* vibe_take_end sees to it that some are left */
        out->max_frames -= take->result.frames;
    out->on_frame = on_frame;
    out->on_prompt = on_prompt;
    out->user = take;
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

struct json_t *vibe_take_object(const struct vibe_take *take, const char *file,
                                const char *status)
{
    const struct vibe_job *job = take->job;
    const struct vibe_run *run = take->run;
    const double seconds = vibe_take_seconds(take);
    const double wall = vibe_clock_s() - take->start_s;
    json_t *object = json_object();

    vibe_json_set_file(object, file);
    vibe_json_text(object, "id", job->source->id);
    vibe_json_text(object, "script", job->source->path);
    vibe_json_text(object, "status", status);
    vibe_json_number(object, "seconds", seconds);
    vibe_json_count(object, "frames", take->result.frames);
    vibe_json_number(object, "wall_s", wall);
    vibe_json_number(object, "rtf", wall / seconds);
    vibe_json_number(object, "first_sample_s",
                     take->first_s > 0 ? take->first_s : NAN);
    vibe_json_count(object, "seed", job->seed);
    vibe_json_number(object, "cfg_scale", job->cfg_scale);
    vibe_json_count(object, "steps", (size_t)job->steps);
    vibe_json_text(object, "dtype", run->info.dtype);
    vibe_json_text(object, "device", run->info.device);
    vibe_json_count(object, "prompt_tokens", take->result.prompt_tokens);
    vibe_json_number(object, "prompt_s", take->result.prompt_s);
    vibe_json_number(object, "peak", (double)take->meter.peak);
    vibe_json_count(object, "clipped", take->meter.n_clipped);
    vibe_json_text(object, "finish", finish_name(take->result.finish));
    vibe_json_text(object, "digest", take->digest);
    json_object_set(object, "warnings", take->warnings);
    if (take->why.err.msg[0])
        vibe_json_text(object, "error", take->why.err.msg);
    return object;
}

/* Say where a part is kept of what was not spoken to its end. */
static void tell_of_part(struct vibe_take *take, const char *part)
{
    struct vibe_cli *cli = take->run->cli;
    char kept[32];

    vibe_log(&cli->log, VIBE_LOG_WARN, "%s; %s of speech are kept in %s",
             take->outcome == VIBE_TAKE_INTERRUPTED ? "interrupted" : "stopped",
             vibe_progress_time(vibe_take_seconds(take), kept, sizeof(kept)),
             part);
    if (cli->options->is_json)
        vibe_json_print(vibe_take_object(take, part, "stopped"));
}

/* Keep what was spoken before something went wrong. */
static void keep_part(struct vibe_take *take)
{
    struct vibe_run *run = take->run;
    const char *part = NULL;
    struct vibe_error err = {0};
    int rc;

    if (!take->writer)
        return;
    rc = vibe_writer_keep(take->writer, &part, &err);
    pthread_mutex_lock(&run->lock);
    if (part)
        tell_of_part(take, part);
    else if (rc != VIBE_OK)
        vibe_log(&run->cli->log, VIBE_LOG_WARN, "%s", err.msg);
    pthread_mutex_unlock(&run->lock);
}

/* What a listener would want to know of a file. */
static void warn_of_result(struct vibe_take *take)
{
    char msg[160], length[32];

    vibe_progress_time(vibe_take_seconds(take), length, sizeof(length));
    if (take->meter.n == 0) {
        warn(take, take->result.finish == VIBE_FINISH_LENGTH
                       ? "holds no speech: the length cap ended it"
                       : "holds no speech: the model ended at once");
    } else if (take->result.finish == VIBE_FINISH_LENGTH) {
        snprintf(msg, sizeof(msg),
                 "the length cap ended it after %s, not the model "
                 "(--max-length-times, --max-frames, --max-seconds)",
                 length);
        warn(take, msg);
    }
    if (take->meter.n_clipped &&
        take->run->jobs.writer.sample != VIBE_SAMPLE_F32) {
        snprintf(msg, sizeof(msg), "%zu sample%s clipped, peak %.2f",
                 take->meter.n_clipped,
                 take->meter.n_clipped == 1 ? " was" : "s were",
                 (double)take->meter.peak);
        warn(take, msg);
    }
}

static int append_part(struct vibe_writer *writer, const struct vibe_take *take,
                       size_t chunk, struct vibe_error *err)
{
    char *path = part_path(take, chunk);
    struct vibe_audio audio = {0};
    int rc = path ? vibe_wav_read(&audio, path, err)
                  : vibe_fail(err, VIBE_E_NOMEM, "no memory for a file name");

    if (rc == VIBE_OK)
        rc = vibe_writer_write(writer, audio.samples, audio.n, err);
    vibe_audio_release(&audio);
    free(path);
    return rc;
}

/* Make the file of its parts, and remove them. */
static int assemble(struct vibe_take *take)
{
    struct vibe_error *err = &take->why.err;
    int rc;

    vibe_writer_free(take->writer);
    take->writer = NULL;
    rc = vibe_writer_open(&take->writer, take->job->output,
                          &take->run->jobs.writer, err);
    for (size_t i = 0; i <= take->chunk && rc == VIBE_OK; i++)
        rc = append_part(take->writer, take, i, err);
    if (rc == VIBE_OK)
        rc = vibe_writer_finish(take->writer, err);
    for (size_t i = 0; i <= take->chunk && rc == VIBE_OK; i++) {
        char *path = part_path(take, i);

        if (path)
            unlink(path); /* one that stays does no harm */
        free(path);
    }
    return rc;
}

/* Add what came of a part; a cap that ended one ended the whole so. */
static void add_result(struct vibe_take *take, const struct vibe_result *part)
{
    struct vibe_result *sum = &take->result;

    if (sum->finish != VIBE_FINISH_LENGTH ||
        part->finish == VIBE_FINISH_INTERRUPTED)
        sum->finish = part->finish;
    sum->frames += part->frames;
    sum->samples += part->samples;
    sum->tokens += part->tokens;
    sum->prompt_tokens += part->prompt_tokens;
    sum->prompt_s += part->prompt_s;
    sum->frames_s += part->frames_s;
}

/* How a part ended, before its file is closed. */
static enum vibe_take_outcome find_outcome(struct vibe_take *take,
                                           const struct vibe_result *result,
                                           const struct vibe_error *err)
{
    const int is_last = take->chunk + 1 == take->chunks.n ||
                        (take->max_frames &&
                         take->result.frames >= take->max_frames);

    if (take->why.status != VIBE_EXIT_OK) /* the writer's */
        return VIBE_TAKE_FAILED;
    if (err->code != VIBE_OK) {
        vibe_cli_fail(&take->why,
                      err->code == VIBE_E_NOMEM ? VIBE_EXIT_MEMORY
                                                : VIBE_EXIT_FAILED,
                      take->job->source->path, "%s: %s",
                      take->job->source->name, err->msg);
        return VIBE_TAKE_FAILED;
    }
    if (result->finish == VIBE_FINISH_INTERRUPTED)
        return VIBE_TAKE_INTERRUPTED;
    if (open_writer(take) != VIBE_OK) /* what has no frame is a file, too */
        return VIBE_TAKE_FAILED;
    return is_last ? VIBE_TAKE_DONE : VIBE_TAKE_GOES_ON;
}

enum vibe_take_outcome vibe_take_end(struct vibe_take *take,
                                     const struct vibe_result *result,
                                     const struct vibe_error *err)
{
    add_result(take, result);
    take->outcome = find_outcome(take, result, err);
    return take->outcome;
}

struct vibe_writer *vibe_take_next_part(struct vibe_take *take)
{
    struct vibe_writer *writer = NULL;

    if (has_part_files(take)) {
        writer = take->writer;
        take->writer = NULL;
    }
    take->chunk++;
    return writer;
}

void vibe_take_close_part(struct vibe_take *take, struct vibe_writer *writer)
{
    struct vibe_error err = {0};

    if (writer && vibe_writer_finish(writer, &err) != VIBE_OK)
        take->unfinished = err;
    vibe_writer_free(writer);
}

/* Give what was spoken to its end its file. */
static int finish(struct vibe_take *take)
{
    int rc = take->unfinished.code;

    if (rc != VIBE_OK)
        take->why.err = take->unfinished;
    else
        rc = vibe_writer_finish(take->writer, &take->why.err);
    if (rc == VIBE_OK && has_part_files(take))
        rc = assemble(take);
    if (rc != VIBE_OK)
        vibe_cli_fail_by(&take->why, VIBE_EXIT_OUTPUT, take->job->output);
    return rc;
}

enum vibe_take_outcome vibe_take_close(struct vibe_take *take)
{
    if (take->outcome != VIBE_TAKE_DONE)
        keep_part(take);
    else if (finish(take) != VIBE_OK)
        take->outcome = VIBE_TAKE_FAILED;
    else
        warn_of_result(take);
    return take->outcome;
}
