#include "cli/jobs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/names.h"
#include "cli/outputs.h"
#include "cli/shard.h"

enum { TRAINED_SPEAKERS = 4 }; /* more were never heard by the models */

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

/* Standard input ends where it ends: a second script would be empty. */
static enum vibe_exit check_stdin(const struct vibe_jobs *jobs,
                                  const struct vibe_options *o,
                                  struct vibe_failure *why)
{
    size_t n = o->batch && strcmp(o->batch, "-") == 0;

    for (size_t i = 0; i < jobs->n_sources; i++)
        n += jobs->sources[i].path && strcmp(jobs->sources[i].path, "-") == 0;
    return n < 2 ? VIBE_EXIT_OK
                 : vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                                 "--txt-path: standard input can be read only "
                                 "once");
}

static enum vibe_exit set_source(struct vibe_source *source, const char *path,
                                 const char *text, const char *name,
                                 struct vibe_failure *why)
{
    const int is_stdin = path && strcmp(path, "-") == 0;

    source->path = path;
    source->text = text;
    source->name = name ? name : is_stdin ? "standard input" : path;
    source->stem = vibe_names_stem(!path ? "text" : is_stdin ? "stdin" : path);
    source->id = source->stem;
    return source->stem ? VIBE_EXIT_OK : vibe_cli_fail_memory(why, "scripts");
}

static enum vibe_exit list_batch(struct vibe_jobs *jobs,
                                 const struct vibe_options *o,
                                 struct vibe_failure *why)
{
    const struct vibe_manifest *manifest = &jobs->manifest;
    /* a folder of scripts may hold what an earlier run has left there, too */
    const char *made[] = {o->report, o->trace, o->log_file};
    const struct vibe_words others = {.items = made, .n = 3};
    enum vibe_exit status = vibe_manifest_read(&jobs->manifest, o->batch,
                                               &others, why);

    if (status != VIBE_EXIT_OK)
        return status;
    jobs->sources = calloc(manifest->n, sizeof(*jobs->sources));
    if (!jobs->sources)
        return vibe_cli_fail_memory(why, "scripts");
    while (jobs->n_sources < manifest->n && status == VIBE_EXIT_OK) {
        struct vibe_entry *entry = &manifest->entries[jobs->n_sources];
        struct vibe_source *source = &jobs->sources[jobs->n_sources++];

        source->entry = entry;
        status = set_source(source, entry->path, entry->text,
                            entry->path ? NULL : entry->place, why);
        source->id = entry->id;
        if (!entry->path) { /* {stem} of a text is its id */
            free(source->stem);
            source->stem = NULL;
        }
    }
    return status;
}

static enum vibe_exit list_sources(struct vibe_jobs *jobs,
                                   const struct vibe_options *o,
                                   struct vibe_failure *why)
{
    const size_t n = o->text ? 1 : o->scripts.n;
    enum vibe_exit status = VIBE_EXIT_OK;

    if (o->batch)
        return list_batch(jobs, o, why);
    if (n == 0)
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "nothing to speak: use --txt-path FILE or --text "
                             "STR");
    jobs->sources = calloc(n, sizeof(*jobs->sources));
    if (!jobs->sources)
        return vibe_cli_fail_memory(why, "scripts");
    while (jobs->n_sources < n && status == VIBE_EXIT_OK) {
        struct vibe_source *source = &jobs->sources[jobs->n_sources];
        const char *path = o->text ? NULL : o->scripts.items[jobs->n_sources];

        jobs->n_sources++;
        status = set_source(source, path, o->text, path ? NULL : "--text", why);
    }
    return status;
}

/* Every take of every script, in the order of the scripts. */
static enum vibe_exit list_jobs(struct vibe_jobs *jobs,
                                const struct vibe_options *o, uint64_t seed,
                                struct vibe_failure *why)
{
    const size_t n_takes = (size_t)o->takes;

    jobs->items = calloc(jobs->n_sources * n_takes, sizeof(*jobs->items));
    if (!jobs->items)
        return vibe_cli_fail_memory(why, "scripts");
    for (; jobs->n < jobs->n_sources * n_takes; jobs->n++) {
        struct vibe_source *source = &jobs->sources[jobs->n / n_takes];
        const struct vibe_entry *entry = source->entry;
        const size_t take = jobs->n % n_takes;

        jobs->items[jobs->n] = (struct vibe_job){
            .source = source,
            .index = jobs->n,
            .take = (int)take + 1,
            .seed = (entry && entry->has_seed ? (uint64_t)entry->seed : seed) +
                    take,
            .cfg_scale = entry && entry->has_cfg_scale ? entry->cfg_scale
                                                       : o->cfg_scale,
            .steps = entry && entry->has_steps ? entry->steps : o->steps,
        };
    }
    return VIBE_EXIT_OK;
}

static void release_job(struct vibe_job *job)
{
    free(job->output);
    *job = (struct vibe_job){0};
}

/* Keep the jobs of one shard: every n-th, so that the shards are alike. */
static enum vibe_exit keep_shard(struct vibe_jobs *jobs, struct vibe_cli *cli,
                                 struct vibe_failure *why)
{
    int64_t shard = 1;
    int64_t n_shards = 1;
    size_t kept = 0;
    enum vibe_exit status = vibe_shard_find(cli->options, &shard, &n_shards,
                                            why);

    for (size_t i = 0; i < jobs->n && status == VIBE_EXIT_OK; i++) {
        if (i % (size_t)n_shards + 1 == (size_t)shard)
            jobs->items[kept++] = jobs->items[i];
        else
            release_job(&jobs->items[i]);
    }
    if (status != VIBE_EXIT_OK)
        return status;
    if (kept == 0)
        vibe_log(&cli->log, VIBE_LOG_INFO,
                 "part %" PRId64 " of %" PRId64 " has none of %zu files", shard,
                 n_shards, jobs->n);
    jobs->n = kept;
    return VIBE_EXIT_OK;
}

static int by_steps(const void *a, const void *b)
{
    const struct vibe_job *x = a;
    const struct vibe_job *y = b;

    if (x->steps != y->steps)
        return x->steps < y->steps ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static enum vibe_exit read_script(struct vibe_source *source,
                                  struct vibe_failure *why)
{
    int rc;

    if (source->text)
        rc = vibe_script_parse_text(&source->script, source->name, source->text,
                                    strlen(source->text), &why->err);
    else if (strcmp(source->path, "-") != 0 && is_sound(source->path))
        return vibe_cli_fail(why, VIBE_EXIT_INPUT, source->path,
                             "%s: is a recording, not a script; -o names the "
                             "output, -r a voice",
                             source->path);
    else
        rc = vibe_script_read(&source->script, source->path, &why->err);
    return rc == VIBE_OK ? VIBE_EXIT_OK
                         : vibe_cli_fail_by(why, VIBE_EXIT_INPUT, source->path);
}

/* What is odd about a script, and no reason to stop. */
static void remark(struct vibe_cli *cli, const struct vibe_source *source)
{
    size_t n_speakers = vibe_script_speakers(&source->script, NULL, 0);

    if (source->script.n_skipped)
        vibe_log(&cli->log, VIBE_LOG_WARN,
                 "%s: %zu objects without text are left out", source->name,
                 source->script.n_skipped);
    if (n_speakers > TRAINED_SPEAKERS)
        vibe_log(&cli->log, VIBE_LOG_WARN,
                 "%s: has %zu speakers; the models have learnt up to %d",
                 source->name, n_speakers, TRAINED_SPEAKERS);
}

/* The voices that an entry names for itself, or those of the options. */
static enum vibe_exit find_cast(struct vibe_source *source,
                                struct vibe_cast *options_cast,
                                struct vibe_failure *why)
{
    const struct vibe_entry *entry = source->entry;

    source->cast = options_cast;
    if (!entry || !entry->voices_field)
        return VIBE_EXIT_OK;
    source->cast = calloc(1, sizeof(*source->cast));
    if (!source->cast)
        return vibe_cli_fail_memory(why, "scripts");
    return vibe_cast_open(source->cast, &entry->voices, entry->voices_field,
                          why);
}

/* Read a script and find its voices. */
static enum vibe_exit read_source(struct vibe_jobs *jobs, struct vibe_cli *cli,
                                  struct vibe_source *source,
                                  struct vibe_failure *why)
{
    enum vibe_exit status = read_script(source, why);

    if (status != VIBE_EXIT_OK)
        return status;
    remark(cli, source);
    status = find_cast(source, &jobs->cast, why);
    if (status == VIBE_EXIT_OK)
        status = vibe_cast_bind(source->cast, &source->voices,
                                &source->n_voices, &source->script,
                                source->name, why);
    if (status == VIBE_EXIT_OK && source->cast != &jobs->cast)
        status = vibe_cast_check(source->cast, why);
    return status;
}

/* Read the recordings of its voices. */
static enum vibe_exit read_voices(struct vibe_jobs *jobs, struct vibe_cli *cli,
                                  struct vibe_source *source,
                                  struct vibe_failure *why)
{
    enum vibe_exit status = vibe_cast_read(source->cast, &jobs->recordings,
                                           why);

    (void)cli;
    if (status == VIBE_EXIT_OK)
        vibe_cast_lend(source->cast, source->voices, source->n_voices);
    return status;
}

/* A sentence that begins with the line of a manifest; owned. */
static char *name_line(const struct vibe_source *source, const char *msg)
{
    const char *place = source->entry ? source->entry->place : NULL;
    char *sentence = NULL;

    if (!place || (source->path && strcmp(place, source->path) == 0) ||
        strncmp(msg, place, strlen(place)) == 0)
        return strdup(msg);
    return asprintf(&sentence, "%s: %s", place, msg) < 0 ? NULL : sentence;
}

/*
 * Do something with the source of every job.  In a batch what is wrong with
 * one becomes its problem.
 */
static enum vibe_exit for_sources(
    struct vibe_jobs *jobs, struct vibe_cli *cli,
    enum vibe_exit (*what)(struct vibe_jobs *jobs, struct vibe_cli *cli,
                           struct vibe_source *source,
                           struct vibe_failure *why),
    struct vibe_failure *why)
{
    for (size_t i = 0; i < jobs->n; i++) {
        struct vibe_source *source = jobs->items[i].source;
        const int is_new = i == 0 || jobs->items[i - 1].source != source;
        enum vibe_exit status;

        if (!is_new || source->problem)
            continue;
        status = what(jobs, cli, source, why);
        if (status == VIBE_EXIT_OK)
            continue;
        if (!jobs->is_batch || status == VIBE_EXIT_MEMORY)
            return status;
        source->problem = name_line(source, why->err.msg);
        if (!source->problem)
            return vibe_cli_fail_memory(why, "scripts");
        *why = (struct vibe_failure){0};
    }
    return VIBE_EXIT_OK;
}

/* List the jobs and name their files: nothing that they name is read. */
static enum vibe_exit list_all(struct vibe_jobs *jobs, struct vibe_cli *cli,
                               enum vibe_jobs_aim aim, uint64_t seed,
                               struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    enum vibe_exit status = list_sources(jobs, o, why);

    if (status == VIBE_EXIT_OK)
        status = check_stdin(jobs, o, why);
    if (status == VIBE_EXIT_OK)
        status = list_jobs(jobs, o, seed, why);
    if (status == VIBE_EXIT_OK && aim != VIBE_JOBS_READ)
        status = vibe_outputs_name(jobs, o, why);
    if (status == VIBE_EXIT_OK)
        status = keep_shard(jobs, cli, why);
    return status;
}

enum vibe_exit vibe_jobs_open(struct vibe_jobs *out, struct vibe_cli *cli,
                              enum vibe_jobs_aim aim, uint64_t seed,
                              struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    enum vibe_exit status;

    *out = (struct vibe_jobs){
        .is_batch = o->batch != NULL,
        .writer = {.rate = VIBE_SAMPLE_RATE,
                   .format = (enum vibe_audio_format)o->format,
                   .sample = (enum vibe_sample_format)o->sample_format},
    };
    if (o->voices.n && o->speaker_names.n)
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "--speaker-names cannot be combined with "
                             "--voice-files or --voice");
    status = list_all(out, cli, aim, seed, why);
    if (status == VIBE_EXIT_OK)
        status = vibe_names_find(&out->named, o->voices_dir, &o->speaker_names,
                                 why);
    if (status == VIBE_EXIT_OK)
        status = vibe_cast_open(&out->cast,
                                out->named.n ? &out->named : &o->voices,
                                "--voice", why);
    if (status == VIBE_EXIT_OK)
        status = for_sources(out, cli, read_source, why);
    /* a part of the scripts need not have everyone who speaks in the whole */
    if (status == VIBE_EXIT_OK && o->n_shards == 0)
        status = vibe_cast_check(&out->cast, why);
    if (status == VIBE_EXIT_OK && aim != VIBE_JOBS_READ)
        status = vibe_outputs_check(out, cli, aim, why);
    if (status == VIBE_EXIT_OK)
        status = for_sources(out, cli, read_voices, why);
    if (status != VIBE_EXIT_OK)
        return status;
    vibe_recordings_remark(&out->recordings, &cli->log);
    qsort(out->items, out->n, sizeof(*out->items), by_steps);
    return VIBE_EXIT_OK;
}

void vibe_jobs_release(struct vibe_jobs *jobs)
{
    for (size_t i = 0; i < jobs->n; i++)
        release_job(&jobs->items[i]);
    free(jobs->items);
    for (size_t i = 0; i < jobs->n_sources; i++) {
        struct vibe_source *source = &jobs->sources[i];

        vibe_script_release(&source->script);
        if (source->cast && source->cast != &jobs->cast) {
            vibe_cast_release(source->cast);
            free(source->cast);
        }
        free(source->voices);
        free(source->stem);
        free(source->problem);
    }
    free(jobs->sources);
    vibe_cast_release(&jobs->cast);
    vibe_names_release(&jobs->named);
    vibe_recordings_release(&jobs->recordings);
    vibe_manifest_release(&jobs->manifest);
    *jobs = (struct vibe_jobs){0};
}
