#include "cli/jobs.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"

enum { TRAINED_SPEAKERS = 4 }; /* more were never heard by the models */

int vibe_make_folder(const char *path, struct vibe_error *err)
{
    char *copy = strdup(path);
    char *slash = copy;
    struct stat st;

    if (!copy)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: out of memory", path);
    /* Those above may be there already, and be all that we may see of them. */
    while (slash && (slash = strchr(slash + 1, '/'))) {
        *slash = '\0';
        mkdir(copy, 0777);
        *slash = '/';
    }
    free(copy);
    if (mkdir(path, 0777) == 0)
        return VIBE_OK;
    if (errno != EEXIST)
        return vibe_fail(err, VIBE_E_IO, "%s: %s", path, strerror(errno));
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return vibe_fail(err, VIBE_E_IO, "%s: is not a directory", path);
    return VIBE_OK;
}

/* A sound given as a script: piper's -f names the output. */
static int is_sound(const char *path)
{
    char head[4] = "";
    FILE *file = fopen(path, "rb");
    size_t n = file ? fread(head, 1, sizeof(head), file) : 0;

    if (file)
        fclose(file);
    return n == sizeof(head) &&
           (memcmp(head, "RIFF", 4) == 0 || memcmp(head, "fLaC", 4) == 0 ||
            memcmp(head, "OggS", 4) == 0);
}

/* Read the script that a job names. */
static enum vibe_exit read_script(struct vibe_job *job,
                                  struct vibe_failure *why)
{
    int rc;

    if (strcmp(job->path, "-") != 0 && is_sound(job->path))
        return vibe_cli_fail(why, VIBE_EXIT_INPUT, job->path,
                             "%s: is a recording, not a script; -o names the "
                             "output, -r a voice",
                             job->path);
    rc = vibe_script_read(&job->script, job->path, &why->err);
    return rc == VIBE_OK ? VIBE_EXIT_OK
                         : vibe_cli_fail_by(why, VIBE_EXIT_INPUT, job->path);
}

/* Read the script that stands on the command line. */
static enum vibe_exit read_text(struct vibe_job *job, const char *text,
                                struct vibe_failure *why)
{
    int rc = vibe_script_parse_text(&job->script, job->name, text, strlen(text),
                                    &why->err);

    return rc == VIBE_OK ? VIBE_EXIT_OK
                         : vibe_cli_fail_by(why, VIBE_EXIT_INPUT, NULL);
}

/* What is odd about a script, and no reason to stop. */
static void remark(struct vibe_cli *cli, const struct vibe_job *job)
{
    size_t n_speakers = vibe_script_speakers(&job->script, NULL, 0);

    if (job->script.n_skipped)
        vibe_log(&cli->log, VIBE_LOG_WARN,
                 "%s: %zu objects without text are left out", job->name,
                 job->script.n_skipped);
    if (n_speakers > TRAINED_SPEAKERS)
        vibe_log(&cli->log, VIBE_LOG_WARN,
                 "%s: has %zu speakers; the models have learnt up to %d",
                 job->name, n_speakers, TRAINED_SPEAKERS);
}

/* Standard input ends where it ends: a second script would be empty. */
static enum vibe_exit check_stdin(const struct vibe_words *scripts,
                                  struct vibe_failure *why)
{
    size_t n = 0;

    for (size_t i = 0; i < scripts->n; i++)
        n += strcmp(scripts->items[i], "-") == 0;
    return n < 2 ? VIBE_EXIT_OK
                 : vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                                 "--txt-path: standard input can be read only "
                                 "once");
}

static enum vibe_exit read_scripts(struct vibe_jobs *jobs, struct vibe_cli *cli,
                                   struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    size_t n = o->text ? 1 : o->scripts.n;
    enum vibe_exit status = check_stdin(&o->scripts, why);

    if (n == 0)
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "nothing to speak: use --txt-path FILE or --text "
                             "STR");
    jobs->items = calloc(n, sizeof(*jobs->items));
    if (!jobs->items)
        return vibe_cli_fail(why, VIBE_EXIT_MEMORY, NULL,
                             "no memory for %zu scripts", n);
    while (jobs->n < n && status == VIBE_EXIT_OK) {
        struct vibe_job *job = &jobs->items[jobs->n++];

        if (o->text) {
            job->name = "--text";
            status = read_text(job, o->text, why);
        } else {
            job->path = o->scripts.items[jobs->n - 1];
            job->name = strcmp(job->path, "-") == 0 ? "standard input"
                                                    : job->path;
            status = read_script(job, why);
        }
        if (status == VIBE_EXIT_OK)
            remark(cli, job);
    }
    return status;
}

/* The name of a script's file: OUTPUT_DIR/<stem>_generated.wav. */
static char *derive_output(const struct vibe_job *job, const char *folder,
                           enum vibe_audio_format format)
{
    const char *base = !job->path                    ? "text"
                       : strcmp(job->path, "-") == 0 ? "stdin"
                       : strrchr(job->path, '/') ? strrchr(job->path, '/') + 1
                                                 : job->path;
    const char *dot = strrchr(base, '.');
    int stem = (int)(dot && dot != base ? (size_t)(dot - base) : strlen(base));
    int is_here = strcmp(folder, ".") == 0;
    char *path = NULL;

    if (asprintf(&path, "%s%s%.*s_generated.%s", is_here ? "" : folder,
                 is_here || folder[strlen(folder) - 1] == '/' ? "" : "/", stem,
                 base,
                 vibe_audio_format_name(
                     format == VIBE_AUDIO_AUTO ? VIBE_AUDIO_WAV : format)) < 0)
        return NULL;
    return path;
}

static enum vibe_exit name_outputs(struct vibe_jobs *jobs,
                                   const struct vibe_options *o,
                                   struct vibe_failure *why)
{
    if (o->output && jobs->n > 1)
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "--output takes one script; use --output-dir for "
                             "%zu",
                             jobs->n);
    if (o->output && strcmp(o->output, "-") == 0 && o->is_json)
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "--json cannot be combined with --output -");
    for (size_t i = 0; i < jobs->n; i++) {
        struct vibe_job *job = &jobs->items[i];

        job->output = o->output
                          ? strdup(o->output)
                          : derive_output(job, o->output_dir,
                                          (enum vibe_audio_format)o->format);
        if (!job->output)
            return vibe_cli_fail(why, VIBE_EXIT_MEMORY, NULL,
                                 "no memory for a file name");
        for (size_t j = 0; j < i; j++)
            if (strcmp(jobs->items[j].output, job->output) == 0)
                return vibe_cli_fail(why, VIBE_EXIT_USAGE, job->output,
                                     "%s and %s would both be written to %s",
                                     jobs->items[j].name, job->name,
                                     job->output);
    }
    return VIBE_EXIT_OK;
}

static int is_same_file(const struct stat *a, const char *path)
{
    struct stat b;

    return stat(path, &b) == 0 && a->st_dev == b.st_dev &&
           a->st_ino == b.st_ino;
}

/* A file that is there: may it be replaced? */
static enum vibe_exit check_existing(const struct vibe_jobs *jobs,
                                     struct vibe_job *job, struct vibe_cli *cli,
                                     struct vibe_failure *why)
{
    struct stat st;

    if (stat(job->output, &st) != 0 || !S_ISREG(st.st_mode))
        return VIBE_EXIT_OK;
    for (size_t i = 0; i < jobs->n; i++)
        if (jobs->items[i].path && is_same_file(&st, jobs->items[i].path))
            return vibe_cli_fail(why, VIBE_EXIT_USAGE, job->output,
                                 "--output: %s is a script of this run",
                                 job->output);
    for (size_t i = 0; i < jobs->cast.n; i++)
        if (is_same_file(&st, jobs->cast.clips[i].path))
            return vibe_cli_fail(why, VIBE_EXIT_USAGE, job->output,
                                 "--output: %s is a voice of this run",
                                 job->output);
    switch ((enum vibe_on_existing)cli->options->on_existing) {
    case VIBE_EXISTING_DEFAULT:
        vibe_log(&cli->log, VIBE_LOG_INFO, "%s exists and will be replaced",
                 job->output);
        break;
    case VIBE_EXISTING_OVERWRITE:
        break;
    case VIBE_EXISTING_REFUSE:
        return vibe_cli_fail(why, VIBE_EXIT_OUTPUT, job->output,
                             "%s exists (--skip-existing, --overwrite)",
                             job->output);
    case VIBE_EXISTING_SKIP:
        vibe_log(&cli->log, VIBE_LOG_INFO, "%s exists; %s is skipped",
                 job->output, job->name);
        job->is_skipped = 1;
        break;
    }
    return VIBE_EXIT_OK;
}

/* Can every file be written?  Nothing is created but the output folder. */
static enum vibe_exit check_outputs(struct vibe_jobs *jobs,
                                    struct vibe_cli *cli,
                                    enum vibe_jobs_aim aim,
                                    struct vibe_failure *why)
{
    const char *folder = cli->options->output ? NULL : cli->options->output_dir;
    /* A folder that is yet to be made cannot be looked into. */
    int is_absent = folder && access(folder, F_OK) != 0;

    if (folder && aim == VIBE_JOBS_WRITE &&
        vibe_make_folder(folder, &why->err) != VIBE_OK)
        return vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, folder);
    for (size_t i = 0; i < jobs->n; i++) {
        struct vibe_job *job = &jobs->items[i];
        int rc = VIBE_OK;

        if (aim == VIBE_JOBS_WRITE || !is_absent)
            rc = vibe_writer_check(job->output, &jobs->writer, &why->err);
        if (rc == VIBE_E_UNSUPPORTED)
            rc = why->err.code = VIBE_E_ARG; /* of the options, not a file */
        if (rc != VIBE_OK)
            return vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, job->output);
        if (check_existing(jobs, job, cli, why) != VIBE_EXIT_OK)
            return why->status;
    }
    return VIBE_EXIT_OK;
}

static enum vibe_exit bind_voices(struct vibe_jobs *jobs,
                                  struct vibe_failure *why)
{
    for (size_t i = 0; i < jobs->n; i++) {
        struct vibe_job *job = &jobs->items[i];

        if (vibe_cast_bind(&jobs->cast, &job->voices, &job->n_voices,
                           &job->script, job->name, why) != VIBE_EXIT_OK)
            return why->status;
    }
    return vibe_cast_check(&jobs->cast, why);
}

enum vibe_exit vibe_jobs_open(struct vibe_jobs *out, struct vibe_cli *cli,
                              enum vibe_jobs_aim aim, struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    enum vibe_exit status;

    *out = (struct vibe_jobs){
        .writer = {.rate = VIBE_SAMPLE_RATE,
                   .format = (enum vibe_audio_format)o->format,
                   .sample = (enum vibe_sample_format)o->sample_format},
    };
    status = read_scripts(out, cli, why);
    if (status == VIBE_EXIT_OK)
        status = vibe_cast_open(&out->cast, &o->voices, why);
    if (status == VIBE_EXIT_OK)
        status = bind_voices(out, why);
    if (status == VIBE_EXIT_OK && aim != VIBE_JOBS_READ)
        status = name_outputs(out, o, why);
    if (status == VIBE_EXIT_OK && aim != VIBE_JOBS_READ)
        status = check_outputs(out, cli, aim, why);
    if (status == VIBE_EXIT_OK)
        status = vibe_cast_read(&out->cast, why);
    for (size_t i = 0; i < out->n && status == VIBE_EXIT_OK; i++)
        vibe_cast_lend(&out->cast, out->items[i].voices,
                       out->items[i].n_voices);
    return status;
}

void vibe_jobs_release(struct vibe_jobs *jobs)
{
    for (size_t i = 0; i < jobs->n; i++) {
        vibe_script_release(&jobs->items[i].script);
        free(jobs->items[i].voices);
        free(jobs->items[i].output);
    }
    free(jobs->items);
    vibe_cast_release(&jobs->cast);
    *jobs = (struct vibe_jobs){0};
}
