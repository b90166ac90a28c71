#include "cli/state.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/folder.h"
#include "cli/jobs.h"
#include "cli/json.h"
#include "cli/lines.h"
#include "cli/shard.h"
#include "engine/base/hash.h"

enum { MAX_LINE = 1 << 20 }; /* bytes: an object, its file and warnings */

struct vibe_state {
    char *path;    /* owned */
    int fd;        /* -1: none */
    json_t *lines; /* the last of each file, by its path, of any bytes */
};

static enum vibe_exit fail_errno(struct vibe_failure *why, const char *path)
{
    return vibe_cli_fail(why, VIBE_EXIT_OUTPUT, path, "%s: %s", path,
                         strerror(errno));
}

/* Take the lines that are whole; the last one of a killed run may not be. */
static enum vibe_exit read_lines(struct vibe_state *state, const char *path,
                                 struct vibe_failure *why)
{
    FILE *file = fopen(path, "r");
    struct vibe_lines lines = {.file = file, .max = MAX_LINE};
    enum vibe_exit status = VIBE_EXIT_OK;
    ssize_t n;

    if (!file)
        return fail_errno(why, path);
    while ((n = vibe_lines_next(&lines)) > 0 && n <= MAX_LINE) {
        json_t *line = json_loadb(lines.text, (size_t)n, 0, NULL);
        char *spoken = vibe_json_file(line);

        if (spoken)
            json_object_set_nocheck(state->lines, spoken, line);
        free(spoken);
        json_decref(line);
    }
    if (n < 0)
        status = vibe_cli_fail_memory(why, "the state of a batch");
    else if (n > 0)
        status = vibe_cli_fail(why, VIBE_EXIT_OUTPUT, path,
                               "%s: a line of more than %d MiB, expected the "
                               "state of a batch",
                               path, MAX_LINE >> 20);
    free(lines.text);
    fclose(file);
    return status;
}

/* Read the files of all shards, this one's last. */
static enum vibe_exit read_all(struct vibe_state *state, const char *folder,
                               const char *name, struct vibe_failure *why)
{
    enum vibe_exit status = VIBE_EXIT_OK;
    char *in = vibe_folder_pattern(folder);
    char *named = vibe_folder_pattern(name);
    char *pattern = NULL;
    glob_t found = {0};

    if (!in || !named ||
        asprintf(&pattern, "%s/%s*.state.jsonl", in, named) < 0)
        pattern = NULL;
    if (!pattern || glob(pattern, 0, NULL, &found) == GLOB_NOSPACE)
        status = vibe_cli_fail_memory(why, "the state of a batch");
    for (size_t i = 0; i < found.gl_pathc && status == VIBE_EXIT_OK; i++)
        if (strcmp(found.gl_pathv[i], state->path) != 0)
            status = read_lines(state, found.gl_pathv[i], why);
    if (status == VIBE_EXIT_OK)
        status = read_lines(state, state->path, why);
    globfree(&found);
    free(in);
    free(named);
    free(pattern);
    return status;
}

/* Have the file, for this run alone. */
static enum vibe_exit lock_file(struct vibe_state *state,
                                struct vibe_failure *why)
{
    state->fd = open(state->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC,
                     0666);
    if (state->fd < 0)
        return fail_errno(why, state->path);
    /* where files cannot be locked, it must do without */
    if (flock(state->fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
        return VIBE_EXIT_OK;
    return vibe_cli_fail(why, VIBE_EXIT_OUTPUT, state->path,
                         "%s: another run is speaking this batch", state->path);
}

/* End what a killed run has left of a line. */
static enum vibe_exit end_torn_line(struct vibe_state *state,
                                    struct vibe_failure *why)
{
    const off_t n = lseek(state->fd, 0, SEEK_END);
    char last = '\n';

    if (n > 0 && pread(state->fd, &last, 1, n - 1) == 1 && last != '\n' &&
        write(state->fd, "\n", 1) != 1)
        return fail_errno(why, state->path);
    return VIBE_EXIT_OK;
}

static char *path_of(const char *folder, const char *name,
                     const struct vibe_options *options, int64_t shard,
                     int64_t n_shards)
{
    char *path = NULL;
    int n = options->n_shards == 0
                ? asprintf(&path, "%s/%s.state.jsonl", folder, name)
                : asprintf(&path,
                           "%s/%s.%" PRId64 "-of-%" PRId64 ".state.jsonl",
                           folder, name, shard, n_shards);

    return n < 0 ? NULL : path;
}

enum vibe_exit vibe_state_open(struct vibe_state **out, const char *folder,
                               const char *name,
                               const struct vibe_options *options,
                               struct vibe_failure *why)
{
    struct vibe_state *state = calloc(1, sizeof(*state));
    int64_t shard = 1;
    int64_t n_shards = 1;
    enum vibe_exit status = VIBE_EXIT_OK;

    *out = NULL;
    if (!state)
        return vibe_cli_fail_memory(why, "the state of a batch");
    state->fd = -1;
    state->lines = json_object();
    if (vibe_shard_find(options, &shard, &n_shards, why) != VIBE_EXIT_OK) {
        status = why->status;
        goto out;
    }
    state->path = path_of(folder, name, options, shard, n_shards);
    if (!state->path || !state->lines) {
        status = vibe_cli_fail_memory(why, "the state of a batch");
        goto out;
    }
    status = lock_file(state, why);
    if (status != VIBE_EXIT_OK)
        goto out;
    if (options->on_existing == VIBE_EXISTING_RESUME)
        status = read_all(state, folder, name, why);
    else if (ftruncate(state->fd, 0) != 0)
        status = fail_errno(why, state->path);
    if (status == VIBE_EXIT_OK)
        status = end_torn_line(state, why);
    if (status != VIBE_EXIT_OK)
        goto out;
    *out = state;
    state = NULL; /* now the caller's */

out:
    vibe_state_free(state);
    return status;
}

void vibe_state_free(struct vibe_state *state)
{
    if (!state)
        return;
    if (state->fd >= 0)
        close(state->fd);
    json_decref(state->lines);
    free(state->path);
    free(state);
}

struct json_t *vibe_state_find(const struct vibe_state *state, const char *file)
{
    return json_object_get(state->lines, file);
}

int vibe_state_add(struct vibe_state *state, const struct json_t *object,
                   struct vibe_error *err)
{
    char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9));
    char *line = NULL;
    const int n = text ? asprintf(&line, "%s\n", text) : -1;
    int rc = VIBE_OK;

    free(text);
    if (n < 0)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: out of memory", state->path);
    /* by one write at the end, so that lines of two programs cannot mix; some
     * kinds of file cannot be synced, which is no loss */
    if (write(state->fd, line, (size_t)n) != (ssize_t)n ||
        (fdatasync(state->fd) != 0 && errno != EINVAL))
        rc = vibe_fail(err, VIBE_E_IO, "%s: %s", state->path, strerror(errno));
    free(line);
    return rc;
}

static uint64_t add_string(uint64_t hash, const char *text)
{
    return vibe_hash_bytes(hash, text ? text : "", text ? strlen(text) + 1 : 1);
}

static uint64_t add_number(uint64_t hash, double number)
{
    return vibe_hash_bytes(hash, &number, sizeof(number));
}

static uint64_t add_count(uint64_t hash, int64_t count)
{
    return vibe_hash_bytes(hash, &count, sizeof(count));
}

void vibe_state_digest(char out[17], const struct vibe_job *job,
                       const struct vibe_options *o)
{
    const struct vibe_source *source = job->source;
    uint64_t hash = VIBE_HASH_START;

    for (size_t i = 0; i < source->script.n_turns; i++) {
        hash = add_count(hash, source->script.turns[i].speaker);
        hash = add_string(hash, source->script.turns[i].text);
    }
    for (size_t i = 0; i < source->n_voices; i++) {
        const struct vibe_voice *voice = &source->voices[i];

        hash = add_count(hash, voice->speaker);
        hash = vibe_hash_f32(hash, voice->samples, voice->n);
    }
    hash = add_count(hash, (int64_t)job->seed);
    hash = add_count(hash, job->steps);
    hash = add_number(hash, job->cfg_scale);
    hash = add_string(hash, vibe_cli_model(o));
    hash = add_string(hash, o->config);
    hash = add_string(hash, o->tokenizer);
    hash = add_count(hash, o->dtype);
    hash = add_count(hash, o->head_dtype);
    hash = add_count(hash, o->codec_dtype);
    hash = add_count(hash, o->kv_dtype);
    hash = add_number(hash, o->max_length_times);
    hash = add_number(hash, o->max_seconds);
    hash = add_count(hash, o->max_frames);
    hash = add_count(hash, o->is_sampling);
    hash = add_number(hash, o->is_sampling ? o->temperature : 0);
    hash = add_number(hash, o->is_sampling ? o->top_p : 0);
    hash = add_number(hash, o->chunk_minutes);
    hash = add_count(hash, o->format);
    hash = add_count(hash, o->sample_format);
    snprintf(out, 17, "%016" PRIx64, hash);
}
