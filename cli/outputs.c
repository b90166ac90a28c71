#include "cli/outputs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audio/sink.h"
#include "cli/failure.h"
#include "cli/folder.h"
#include "cli/options.h"

/* What a name may say of a job. */
enum word { WORD_ID, WORD_STEM, WORD_SEED, WORD_TAKE, WORD_INDEX, N_WORDS };

static const char *const words[N_WORDS] = {
    [WORD_ID] = "{id}",     [WORD_STEM] = "{stem}",   [WORD_SEED] = "{seed}",
    [WORD_TAKE] = "{take}", [WORD_INDEX] = "{index}",
};

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

void vibe_outputs_field(char out[VIBE_OUTPUTS_FIELD],
                        const struct vibe_job *job)
{
    const struct vibe_entry *entry = job->source->entry;

    if (entry && entry->output)
        snprintf(out, VIBE_OUTPUTS_FIELD, "%s: \"output\"", entry->place);
    else
        snprintf(out, VIBE_OUTPUTS_FIELD, "--output");
}

static enum vibe_exit name_job(struct vibe_job *job, const char *pattern,
                               int n_takes, struct vibe_failure *why)
{
    const struct vibe_entry *entry = job->source->entry;
    char *apart;

    if (entry && entry->output) {
        char field[VIBE_OUTPUTS_FIELD];

        pattern = entry->output;
        vibe_outputs_field(field, job);
        if (check_words(pattern, field, why) != VIBE_EXIT_OK)
            return why->status = VIBE_EXIT_INPUT;
    }
    apart = n_takes > 1 ? tell_takes_apart(pattern) : strdup(pattern);
    if (apart)
        job->output = expand(apart, job);
    free(apart);
    return job->output ? VIBE_EXIT_OK
                       : vibe_cli_fail_memory(why, "a file name");
}

/* A file that is to be made. */
struct named {
    char *path;      /* owned */
    const char *who; /* makes it */
    char *place;     /* where, see folder.h; owned */
    size_t index;    /* odd: of a file while it grows */
};

static int by_place(const void *a, const void *b)
{
    const struct named *x = a;
    const struct named *y = b;
    const int order = strcmp(x->place, y->place);

    return order ? order : (x->index > y->index) - (x->index < y->index);
}

/* Add a name to a list that has room for it. */
static enum vibe_exit add_name(struct named *list, size_t *n, char *path,
                               const char *who, struct vibe_failure *why)
{
    struct named *named = &list[*n];

    *named = (struct named){
        .path = path,
        .who = who,
        .place = path ? vibe_folder_place(path) : NULL,
        .index = *n,
    };
    ++*n;
    return named->place ? VIBE_EXIT_OK
                        : vibe_cli_fail_memory(why, "a file name");
}

/* Add a file, which has a name while it grows, too; path may be NULL. */
static enum vibe_exit add_file(struct named *list, size_t *n, const char *path,
                               const char *who, struct vibe_failure *why)
{
    enum vibe_exit status = VIBE_EXIT_OK;

    if (path)
        status = add_name(list, n, strdup(path), who, why);
    if (path && status == VIBE_EXIT_OK)
        status = add_name(list, n, vibe_sink_part_of(path), who, why);
    return status;
}

/* Whether two names are one: those of two files that grow are if the files'
 * own are, which says it better. */
static int is_same(const struct named *a, const struct named *b)
{
    return strcmp(a->place, b->place) == 0 && (a->index & b->index & 1) == 0;
}

/* The files of all jobs, and those of the options. */
static enum vibe_exit check_distinct(const struct vibe_jobs *jobs,
                                     const struct vibe_options *o,
                                     struct vibe_failure *why)
{
    struct named *named = calloc(2 * (jobs->n + 2), sizeof(*named));
    size_t n = 0;
    enum vibe_exit status = VIBE_EXIT_OK;

    if (!named)
        return vibe_cli_fail_memory(why, "a file name");
    for (size_t i = 0; i < jobs->n && status == VIBE_EXIT_OK; i++)
        status = add_file(named, &n, jobs->items[i].output,
                          jobs->items[i].source->name, why);
    if (status == VIBE_EXIT_OK)
        status = add_file(named, &n, o->report, "--report", why);
    if (status == VIBE_EXIT_OK)
        status = add_file(named, &n, o->trace, "--trace", why);
    if (status == VIBE_EXIT_OK)
        qsort(named, n, sizeof(*named), by_place);
    for (size_t i = 1; i < n && status == VIBE_EXIT_OK; i++)
        if (is_same(&named[i - 1], &named[i]))
            status = vibe_cli_fail(why, VIBE_EXIT_USAGE, named[i].path,
                                   "%s and %s would both be written to %s",
                                   named[i - 1].who, named[i].who,
                                   named[i].path);
    for (size_t i = 0; i < n; i++) {
        free(named[i].path);
        free(named[i].place);
    }
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
        return vibe_cli_fail_memory(why, "a file name");
    for (size_t i = 0; i < jobs->n && status == VIBE_EXIT_OK; i++)
        status = name_job(&jobs->items[i], pattern, (int)options->takes, why);
    free(pattern);
    return status == VIBE_EXIT_OK ? check_distinct(jobs, options, why) : status;
}

char *vibe_outputs_folder(const struct vibe_options *options)
{
    char *fixed;
    char *folder;

    if (!options->output)
        return strdup(options->output_dir);
    fixed = strndup(options->output, strcspn(options->output, "{"));
    folder = fixed ? vibe_folder_of(fixed) : NULL;
    free(fixed);
    return folder;
}
