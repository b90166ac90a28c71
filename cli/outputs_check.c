#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audio/sink.h"
#include "cli/cli.h"
#include "cli/folder.h"
#include "cli/outputs.h"

/* A file of this run that must not be overwritten. */
struct input {
    dev_t device;
    ino_t inode;
    const char *kind; /* "script" or "voice" */
};

struct inputs {
    struct input *items; /* [n] by device and inode, owned */
    size_t n;
};

static int by_inode(const void *a, const void *b)
{
    const struct input *x = a;
    const struct input *y = b;

    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    return (x->inode > y->inode) - (x->inode < y->inode);
}

static void add_input(struct inputs *inputs, const char *path, const char *kind)
{
    struct stat st;

    if (path && stat(path, &st) == 0)
        inputs->items[inputs->n++] = (struct input){
            .device = st.st_dev,
            .inode = st.st_ino,
            .kind = kind,
        };
}

/* The scripts and voices of all jobs; release items with free(). */
static enum vibe_exit list_inputs(struct inputs *out,
                                  const struct vibe_jobs *jobs,
                                  struct vibe_failure *why)
{
    size_t n = 1;

    for (size_t i = 0; i < jobs->n_sources; i++)
        n += 1 + jobs->sources[i].n_voices;
    *out = (struct inputs){.items = calloc(n, sizeof(*out->items))};
    if (!out->items)
        return vibe_cli_fail_memory(why, "a file name");
    for (size_t i = 0; i < jobs->n_sources; i++) {
        const struct vibe_source *source = &jobs->sources[i];

        add_input(out, source->path, "script");
        for (size_t v = 0; v < source->n_voices; v++)
            add_input(out, source->voices[v].name, "voice");
    }
    qsort(out->items, out->n, sizeof(*out->items), by_inode);
    return VIBE_EXIT_OK;
}

/* The run reads a file that it would write. */
static enum vibe_exit check_input(const struct inputs *inputs,
                                  const char *option, const char *path,
                                  const struct stat *st,
                                  struct vibe_failure *why)
{
    const struct input key = {.device = st->st_dev, .inode = st->st_ino};
    const struct input *found = bsearch(&key, inputs->items, inputs->n,
                                        sizeof(*found), by_inode);

    return found ? vibe_cli_fail(why, VIBE_EXIT_USAGE, path,
                                 "%s: %s is a %s of this run", option, path,
                                 found->kind)
                 : VIBE_EXIT_OK;
}

/* The same of what a job would write. */
static enum vibe_exit check_job_input(const struct inputs *inputs,
                                      const struct vibe_job *job,
                                      const char *path, const struct stat *st,
                                      struct vibe_failure *why)
{
    char option[VIBE_OUTPUTS_FIELD];

    vibe_outputs_field(option, job);
    return check_input(inputs, option, path, st, why);
}

/* Opening a job's file takes away what has the name under which it grows. */
static enum vibe_exit check_part(const struct inputs *inputs,
                                 const struct vibe_job *job,
                                 struct vibe_failure *why)
{
    char *part = vibe_sink_part_of(job->output);
    enum vibe_exit status = VIBE_EXIT_OK;
    struct stat st;

    if (!part)
        return vibe_cli_fail_memory(why, "a file name");
    if (lstat(part, &st) == 0)
        status = check_job_input(inputs, job, part, &st, why);
    free(part);
    return status;
}

/* A file that is there: may it be replaced? */
static enum vibe_exit check_existing(const struct inputs *inputs,
                                     struct vibe_job *job, struct vibe_cli *cli,
                                     int is_batch, struct vibe_failure *why)
{
    enum vibe_on_existing what = (enum vibe_on_existing)
                                     cli->options->on_existing;
    struct stat st;

    if (stat(job->output, &st) != 0 || !S_ISREG(st.st_mode))
        return VIBE_EXIT_OK;
    if (check_job_input(inputs, job, job->output, &st, why) != VIBE_EXIT_OK)
        return why->status;
    if (what == VIBE_EXISTING_RESUME && !is_batch)
        what = VIBE_EXISTING_SKIP; /* there is nothing else to go by */
    switch (what) {
    case VIBE_EXISTING_DEFAULT:
        vibe_log(&cli->log, is_batch ? VIBE_LOG_DEBUG : VIBE_LOG_INFO,
                 "%s exists and will be replaced", job->output);
        break;
    case VIBE_EXISTING_OVERWRITE:
    case VIBE_EXISTING_RESUME: /* the state of the batch says more */
        break;
    case VIBE_EXISTING_REFUSE:
        return vibe_cli_fail(why, VIBE_EXIT_OUTPUT, job->output,
                             "%s exists (--skip-existing, --overwrite)",
                             job->output);
    case VIBE_EXISTING_SKIP:
        vibe_log(&cli->log, is_batch ? VIBE_LOG_DEBUG : VIBE_LOG_INFO,
                 "%s exists; %s is skipped", job->output, job->source->name);
        job->is_skipped = 1;
        break;
    }
    return VIBE_EXIT_OK;
}

/* Make the folder of a batch's file. */
static int make_folder_of(const char *output, struct vibe_error *err)
{
    char *folder = vibe_folder_of(output);
    int rc = VIBE_OK;

    if (!folder)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for a file name");
    if (access(folder, F_OK) != 0)
        rc = vibe_folder_make(folder, err);
    free(folder);
    return rc;
}

/* What why->err says of a job's file, which a line of the manifest may name. */
static enum vibe_exit fail_output(const struct vibe_job *job,
                                  struct vibe_failure *why)
{
    const struct vibe_entry *entry = job->source->entry;
    const int is_named = entry && entry->output;
    const struct vibe_error err = why->err;
    enum vibe_exit status = vibe_exit_of(err.code, VIBE_EXIT_OUTPUT);
    char field[VIBE_OUTPUTS_FIELD];

    if (err.code == VIBE_E_UNSUPPORTED) /* of the options, not a file */
        status = is_named ? VIBE_EXIT_INPUT : VIBE_EXIT_USAGE;
    vibe_outputs_field(field, job);
    return vibe_cli_fail(why, status, job->output, "%s%s%s",
                         is_named ? field : "", is_named ? ": " : "", err.msg);
}

static enum vibe_exit check_job(struct vibe_jobs *jobs, struct vibe_job *job,
                                const struct inputs *inputs,
                                struct vibe_cli *cli, enum vibe_jobs_aim aim,
                                int is_absent, struct vibe_failure *why)
{
    int rc = VIBE_OK;

    if (aim == VIBE_JOBS_WRITE && jobs->is_batch)
        rc = make_folder_of(job->output, &why->err);
    if (rc == VIBE_OK &&
        (aim == VIBE_JOBS_WRITE || (!is_absent && !jobs->is_batch)))
        rc = vibe_writer_check(job->output, &jobs->writer, &why->err);
    if (rc != VIBE_OK)
        return fail_output(job, why);
    if (check_part(inputs, job, why) != VIBE_EXIT_OK)
        return why->status;
    return check_existing(inputs, job, cli, jobs->is_batch, why);
}

/* A file that an option names, which is written when all is spoken: a mistake
 * is to be found before.  path may be NULL. */
static enum vibe_exit check_beside(const struct inputs *inputs,
                                   enum vibe_jobs_aim aim, const char *option,
                                   const char *path, struct vibe_failure *why)
{
    bool is_stream;
    struct stat st;

    if (!path)
        return VIBE_EXIT_OK;
    if (aim == VIBE_JOBS_WRITE &&
        vibe_sink_check(&is_stream, path, &why->err) == VIBE_E_IO)
        return vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, path);
    if (stat(path, &st) != 0)
        return VIBE_EXIT_OK;
    return check_input(inputs, option, path, &st, why);
}

enum vibe_exit vibe_outputs_check(struct vibe_jobs *jobs, struct vibe_cli *cli,
                                  enum vibe_jobs_aim aim,
                                  struct vibe_failure *why)
{
    const char *folder = cli->options->output ? NULL : cli->options->output_dir;
    /* A folder that is yet to be made cannot be looked into. */
    const int is_absent = folder && access(folder, F_OK) != 0;
    struct inputs inputs;
    enum vibe_exit status = list_inputs(&inputs, jobs, why);

    if (status == VIBE_EXIT_OK && folder && aim == VIBE_JOBS_WRITE &&
        vibe_folder_make(folder, &why->err) != VIBE_OK)
        status = vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, folder);
    for (size_t i = 0; i < jobs->n && status == VIBE_EXIT_OK; i++)
        status = check_job(jobs, &jobs->items[i], &inputs, cli, aim, is_absent,
                           why);
    if (status == VIBE_EXIT_OK)
        status = check_beside(&inputs, aim, "--report", cli->options->report,
                              why);
    if (status == VIBE_EXIT_OK)
        status = check_beside(&inputs, aim, "--trace", cli->options->trace,
                              why);
    free(inputs.items);
    return status;
}
