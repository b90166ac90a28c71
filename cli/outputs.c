#include "cli/outputs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"

/* What a name may say of a job. */
enum word { WORD_ID, WORD_STEM, WORD_SEED, WORD_TAKE, WORD_INDEX, N_WORDS };

static const char *const words[N_WORDS] = {
    [WORD_ID] = "{id}",     [WORD_STEM] = "{stem}",   [WORD_SEED] = "{seed}",
    [WORD_TAKE] = "{take}", [WORD_INDEX] = "{index}",
};

static enum vibe_exit fail_memory(struct vibe_failure *why)
{
    return vibe_cli_fail(why, VIBE_EXIT_MEMORY, NULL,
                         "no memory for a file name");
}

/* The word that a pattern goes on with, or N_WORDS. */
static enum word find_word(const char *pattern)
{
    for (int i = 0; i < N_WORDS; i++)
        if (strncmp(pattern, words[i], strlen(words[i])) == 0)
            return (enum word)i;
    return N_WORDS;
}

static void write_word(FILE *out, enum word word, const struct vibe_job *job)
{
    const struct vibe_source *source = job->source;

    switch (word) {
    case WORD_ID:
        fputs(source->id, out);
        break;
    case WORD_STEM:
        fputs(source->stem ? source->stem : source->id, out);
        break;
    case WORD_SEED:
        fprintf(out, "%" PRIu64, job->seed);
        break;
    case WORD_TAKE:
        fprintf(out, "%d", job->take);
        break;
    case WORD_INDEX:
        fprintf(out, "%zu", job->index + 1);
        break;
    case N_WORDS:
        break;
    }
}

/* Replace the words of a pattern; owned, NULL without memory. */
static char *expand(const char *pattern, const struct vibe_job *job)
{
    char *name = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&name, &n);
    int is_bad;

    if (!out)
        return NULL;
    while (*pattern) {
        const enum word word = find_word(pattern);

        write_word(out, word, job);
        if (word == N_WORDS)
            fputc(*pattern++, out);
        else
            pattern += strlen(words[word]);
    }
    is_bad = ferror(out);
    if (fclose(out) != 0 || is_bad) {
        free(name);
        return NULL;
    }
    return name;
}

/* "{foo}" is a misspelt word; other braces are part of a name. */
static enum vibe_exit check_words(const char *pattern, const char *place,
                                  struct vibe_failure *why)
{
    for (; (pattern = strchr(pattern, '{')); pattern++) {
        const size_t n = strspn(pattern + 1, "abcdefghijklmnopqrstuvwxyz_-");

        if (n > 0 && pattern[n + 1] == '}' && find_word(pattern) == N_WORDS)
            return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                                 "%s: '%.*s' is not one of {id}, {stem}, "
                                 "{seed}, {take}, {index}",
                                 place, (int)n + 2, pattern);
    }
    return VIBE_EXIT_OK;
}

/* The pattern of a job that is given none; owned. */
static char *default_pattern(const struct vibe_jobs *jobs, const char *folder)
{
    const enum vibe_audio_format format = jobs->writer.format;
    const int is_here = strcmp(folder, ".") == 0;
    char *pattern = NULL;

    if (asprintf(&pattern, "%s%s%s.%s", is_here ? "" : folder,
                 is_here || folder[strlen(folder) - 1] == '/' ? "" : "/",
                 jobs->is_batch ? "{id}" : "{stem}_generated",
                 vibe_audio_format_name(
                     format == VIBE_AUDIO_AUTO ? VIBE_AUDIO_WAV : format)) < 0)
        return NULL;
    return pattern;
}

/* A pattern that tells takes apart; owned. */
static char *tell_takes_apart(const char *pattern)
{
    const char *slash = strrchr(pattern, '/');
    const char *base = slash ? slash + 1 : pattern;
    const char *dot = strrchr(base, '.');
    char *name = NULL;

    if (strstr(pattern, words[WORD_SEED]) || strstr(pattern, words[WORD_TAKE]))
        return strdup(pattern);
    if (!dot || dot == base)
        dot = pattern + strlen(pattern);
    if (asprintf(&name, "%.*s.s{seed}%s", (int)(dot - pattern), pattern, dot) <
        0)
        return NULL;
    return name;
}

static enum vibe_exit name_job(struct vibe_job *job, const char *pattern,
                               int n_takes, struct vibe_failure *why)
{
    const struct vibe_entry *entry = job->source->entry;
    char *apart;

    if (entry && entry->output) {
        pattern = entry->output;
        if (check_words(pattern, entry->place, why) != VIBE_EXIT_OK)
            return why->status = VIBE_EXIT_INPUT;
    }
    apart = n_takes > 1 ? tell_takes_apart(pattern) : strdup(pattern);
    if (apart)
        job->output = expand(apart, job);
    free(apart);
    return job->output ? VIBE_EXIT_OK : fail_memory(why);
}

/* A job by its file, however that is spelled. */
struct named {
    const struct vibe_job *job;
    char *key; /* owned */
};

/* A path without "." and empty components; owned. */
static char *plain_path(const char *path)
{
    char *plain = strdup(path);
    char *out = plain;

    for (const char *in = path; plain && *in;) {
        const size_t n = strcspn(in, "/");
        const int is_noise = (n == 0 && in != path) ||
                             (n == 1 && *in == '.' && in[1] == '/');

        if (!is_noise) {
            memmove(out, in, n);
            out += n;
            if (in[n])
                *out++ = '/';
        }
        in += n + (in[n] == '/');
    }
    if (plain)
        *out = '\0';
    return plain;
}

static int by_key(const void *a, const void *b)
{
    const struct named *x = a;
    const struct named *y = b;
    const int order = strcmp(x->key, y->key);

    return order ? order : (x->job > y->job) - (x->job < y->job);
}

static enum vibe_exit check_distinct(const struct vibe_jobs *jobs,
                                     struct vibe_failure *why)
{
    struct named *named = calloc(jobs->n + 1, sizeof(*named));
    enum vibe_exit status = VIBE_EXIT_OK;

    if (!named)
        return fail_memory(why);
    for (size_t i = 0; i < jobs->n && status == VIBE_EXIT_OK; i++) {
        named[i].job = &jobs->items[i];
        named[i].key = plain_path(jobs->items[i].output);
        if (!named[i].key)
            status = fail_memory(why);
    }
    if (status == VIBE_EXIT_OK)
        qsort(named, jobs->n, sizeof(*named), by_key);
    for (size_t i = 1; i < jobs->n && status == VIBE_EXIT_OK; i++)
        if (strcmp(named[i - 1].key, named[i].key) == 0)
            status = vibe_cli_fail(why, VIBE_EXIT_USAGE, named[i].job->output,
                                   "%s and %s would both be written to %s",
                                   named[i - 1].job->source->name,
                                   named[i].job->source->name,
                                   named[i].job->output);
    for (size_t i = 0; i < jobs->n; i++)
        free(named[i].key);
    free(named);
    return status;
}

/* What --output cannot be with so many jobs. */
static enum vibe_exit check_option(const struct vibe_jobs *jobs,
                                   const struct vibe_options *o,
                                   struct vibe_failure *why)
{
    const int is_stdout = strcmp(o->output, "-") == 0;

    if (is_stdout && o->is_json)
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "--json cannot be combined with --output -");
    if (jobs->n > 1 &&
        (is_stdout || (jobs->n_sources > 1 && !strchr(o->output, '{'))))
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "--output takes one script; use --output-dir for "
                             "%zu",
                             jobs->n);
    return check_words(o->output, "--output", why);
}

enum vibe_exit vibe_outputs_name(struct vibe_jobs *jobs,
                                 const struct vibe_options *options,
                                 struct vibe_failure *why)
{
    enum vibe_exit status = VIBE_EXIT_OK;
    char *pattern;

    if (options->output)
        status = check_option(jobs, options, why);
    if (status != VIBE_EXIT_OK)
        return status;
    pattern = options->output ? strdup(options->output)
                              : default_pattern(jobs, options->output_dir);
    if (!pattern)
        return fail_memory(why);
    for (size_t i = 0; i < jobs->n && status == VIBE_EXIT_OK; i++)
        status = name_job(&jobs->items[i], pattern, (int)options->takes, why);
    free(pattern);
    return status == VIBE_EXIT_OK ? check_distinct(jobs, why) : status;
}

/* The part of a path before its last slash, or "."; owned. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path))
                 : strdup(".");
}

char *vibe_outputs_folder(const struct vibe_options *options)
{
    char *fixed;
    char *folder;

    if (!options->output)
        return strdup(options->output_dir);
    fixed = strndup(options->output, strcspn(options->output, "{"));
    folder = fixed ? folder_of(fixed) : NULL;
    free(fixed);
    return folder;
}

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
        return fail_memory(why);
    for (size_t i = 0; i < jobs->n_sources; i++) {
        const struct vibe_source *source = &jobs->sources[i];

        add_input(out, source->path, "script");
        for (size_t v = 0; v < source->n_voices; v++)
            add_input(out, source->voices[v].name, "voice");
    }
    qsort(out->items, out->n, sizeof(*out->items), by_inode);
    return VIBE_EXIT_OK;
}

/* A file that is there: may it be replaced? */
static enum vibe_exit check_existing(const struct inputs *inputs,
                                     struct vibe_job *job, struct vibe_cli *cli,
                                     int is_batch, struct vibe_failure *why)
{
    enum vibe_on_existing what = (enum vibe_on_existing)
                                     cli->options->on_existing;
    const struct input *input;
    struct stat st;

    if (stat(job->output, &st) != 0 || !S_ISREG(st.st_mode))
        return VIBE_EXIT_OK;
    input = bsearch(&(struct input){.device = st.st_dev, .inode = st.st_ino},
                    inputs->items, inputs->n, sizeof(*input), by_inode);
    if (input)
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, job->output,
                             "--output: %s is a %s of this run", job->output,
                             input->kind);
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
static enum vibe_exit make_folder_of(const char *output,
                                     struct vibe_failure *why)
{
    char *folder = folder_of(output);
    enum vibe_exit status = VIBE_EXIT_OK;

    if (!folder)
        return fail_memory(why);
    if (access(folder, F_OK) != 0 &&
        vibe_make_folder(folder, &why->err) != VIBE_OK)
        status = vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, folder);
    free(folder);
    return status;
}

static enum vibe_exit check_job(struct vibe_jobs *jobs, struct vibe_job *job,
                                const struct inputs *inputs,
                                struct vibe_cli *cli, enum vibe_jobs_aim aim,
                                int is_absent, struct vibe_failure *why)
{
    int rc = VIBE_OK;

    if (aim == VIBE_JOBS_WRITE && jobs->is_batch &&
        make_folder_of(job->output, why) != VIBE_EXIT_OK)
        return why->status;
    if (aim == VIBE_JOBS_WRITE || (!is_absent && !jobs->is_batch))
        rc = vibe_writer_check(job->output, &jobs->writer, &why->err);
    if (rc == VIBE_E_UNSUPPORTED)
        rc = why->err.code = VIBE_E_ARG; /* of the options, not a file */
    if (rc != VIBE_OK)
        return vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, job->output);
    return check_existing(inputs, job, cli, jobs->is_batch, why);
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
        vibe_make_folder(folder, &why->err) != VIBE_OK)
        status = vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, folder);
    for (size_t i = 0; i < jobs->n && status == VIBE_EXIT_OK; i++)
        status = check_job(jobs, &jobs->items[i], &inputs, cli, aim, is_absent,
                           why);
    free(inputs.items);
    return status;
}
