#include "cli/manifest.h"

#include <errno.h>
#include <fnmatch.h>
#include <glob.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/failure.h"
#include "cli/folder.h"
#include "cli/lines.h"
#include "cli/names.h"
#include "cli/options_value.h"

enum {
    MAX_ID = 128,        /* bytes: part of a file name */
    MAX_LINE = 16 << 20, /* bytes: room for the longest script */
};

/* A manifest while it is read. */
struct reader {
    struct vibe_manifest *out;
    struct vibe_failure *why;
    const char *name;                /* of the file */
    const struct vibe_words *others; /* files of a folder that are no scripts */
    size_t capacity;
    struct vibe_entry *entry; /* of the line */
};

/* A new entry, which is then that of the line; NULL without memory. */
static struct vibe_entry *add_entry(struct reader *r)
{
    struct vibe_manifest *out = r->out;

    if (out->n == r->capacity) {
        const size_t capacity = r->capacity ? 2 * r->capacity : 64;
        void *grown = realloc(out->entries, capacity * sizeof(*out->entries));

        if (!grown)
            return NULL;
        out->entries = grown;
        r->capacity = capacity;
    }
    r->entry = &out->entries[out->n++];
    *r->entry = (struct vibe_entry){0};
    return r->entry;
}

/* "jobs.jsonl:7: "seed": expected ..., found ...". */
static enum vibe_exit fail_field(struct reader *r, const char *key,
                                 const char *expected, const json_t *value)
{
    char *found = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    const enum vibe_exit status = vibe_cli_fail(
        r->why, VIBE_EXIT_INPUT, r->name,
        "%s: \"%s\": expected %s, found %.80s", r->entry->place, key, expected,
        found ? found : "something else");

    free(found);
    return status;
}

static enum vibe_exit set_string(struct reader *r, char **field,
                                 const char *key, const json_t *value)
{
    if (!json_is_string(value) || !*json_string_value(value) ||
        strlen(json_string_value(value)) != json_string_length(value))
        return fail_field(r, key, "a string that is not empty", value);
    *field = strdup(json_string_value(value));
    return *field ? VIBE_EXIT_OK : vibe_cli_fail_memory(r->why, "a batch");
}

static enum vibe_exit set_path(struct reader *r, const char *key,
                               const json_t *value)
{
    return set_string(r, &r->entry->path, key, value);
}

static enum vibe_exit set_text(struct reader *r, const char *key,
                               const json_t *value)
{
    return set_string(r, &r->entry->text, key, value);
}

static enum vibe_exit set_output(struct reader *r, const char *key,
                                 const json_t *value)
{
    const enum vibe_exit status = set_string(r, &r->entry->output, key, value);

    if (status == VIBE_EXIT_OK && strcmp(r->entry->output, "-") == 0)
        return fail_field(r, key, "a file", value);
    return status;
}

/* Can it be part of a file name? */
static int is_good_id(const char *id)
{
    if (!*id || *id == '.' || strlen(id) > MAX_ID)
        return 0;
    for (; *id; id++)
        if (*id == '/' || (unsigned char)*id < ' ' || *id == 0x7f)
            return 0;
    return 1;
}

static enum vibe_exit set_id(struct reader *r, const char *key,
                             const json_t *value)
{
    if (!json_is_string(value) || !is_good_id(json_string_value(value)) ||
        strlen(json_string_value(value)) != json_string_length(value))
        return fail_field(r, key, "a name without '/' or a leading '.'", value);
    return set_string(r, &r->entry->id, key, value);
}

static enum vibe_exit set_voices(struct reader *r, const char *key,
                                 const json_t *value)
{
    static const char expected[] = "a list of files, \"FILE\" or \"N=FILE\"";
    struct vibe_words *voices = &r->entry->voices;
    const size_t n = json_array_size(value);

    if (!json_is_array(value))
        return fail_field(r, key, expected, value);
    if (r->entry->voices_field)
        return vibe_cli_fail(r->why, VIBE_EXIT_INPUT, r->name,
                             "%s: expected one of \"voice_files\" and "
                             "\"voices\", found both",
                             r->entry->place);
    r->entry->voices_field = strcmp(key, "voices") == 0 ? "\"voices\""
                                                        : "\"voice_files\"";
    voices->items = calloc(n + 1, sizeof(*voices->items));
    if (!voices->items)
        return vibe_cli_fail_memory(r->why, "a batch");
    for (; voices->n < n; voices->n++) {
        const char *word = json_string_value(json_array_get(value, voices->n));

        if (!word || !*word)
            return fail_field(r, key, expected, value);
        voices->items[voices->n] = strdup(word);
        if (!voices->items[voices->n])
            return vibe_cli_fail_memory(r->why, "a batch");
    }
    return VIBE_EXIT_OK;
}

static enum vibe_exit set_seed(struct reader *r, const char *key,
                               const json_t *value)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return fail_field(r, key, "a whole number, 0 or more", value);
    r->entry->has_seed = 1;
    r->entry->seed = json_integer_value(value);
    return VIBE_EXIT_OK;
}

static enum vibe_exit set_steps(struct reader *r, const char *key,
                                const json_t *value)
{
    if (!json_is_integer(value) || json_integer_value(value) < 1 ||
        json_integer_value(value) > 1000)
        return fail_field(r, key, "a whole number from 1 to 1000", value);
    r->entry->has_steps = 1;
    r->entry->steps = json_integer_value(value);
    return VIBE_EXIT_OK;
}

static enum vibe_exit set_cfg_scale(struct reader *r, const char *key,
                                    const json_t *value)
{
    const double scale = json_number_value(value);

    if (!json_is_number(value) || !(scale >= 0 && scale <= 10))
        return fail_field(r, key, "a number from 0 to 10", value);
    r->entry->has_cfg_scale = 1;
    r->entry->cfg_scale = scale;
    return VIBE_EXIT_OK;
}

static const struct {
    const char *key;
    enum vibe_exit (*set)(struct reader *r, const char *key,
                          const json_t *value);
} fields[] = {
    {"id", set_id},         {"txt_path", set_path},
    {"text", set_text},     {"voice_files", set_voices},
    {"voices", set_voices}, {"output", set_output},
    {"seed", set_seed},     {"cfg_scale", set_cfg_scale},
    {"steps", set_steps},
};

enum { N_FIELDS = sizeof(fields) / sizeof(fields[0]) };

static enum vibe_exit fail_key(struct reader *r, const char *key)
{
    const char *near = NULL;
    size_t best = (size_t)-1;

    for (size_t i = 0; i < N_FIELDS; i++) {
        const size_t distance = vibe_word_distance(key, fields[i].key);

        if (distance < best && vibe_word_is_near(key, fields[i].key)) {
            best = distance;
            near = fields[i].key;
        }
    }
    return vibe_cli_fail(r->why, VIBE_EXIT_INPUT, r->name,
                         "%s: unknown key \"%s\"%s%s%s", r->entry->place, key,
                         near ? "; did you mean \"" : "", near ? near : "",
                         near ? "\"?" : "");
}

static enum vibe_exit set_field(struct reader *r, const char *key,
                                const json_t *value)
{
    for (size_t i = 0; i < N_FIELDS; i++)
        if (strcmp(key, fields[i].key) == 0)
            return fields[i].set(r, key, value);
    return fail_key(r, key);
}

/* What the keys of an object say together. */
static enum vibe_exit check_entry(struct reader *r, struct vibe_entry *entry,
                                  size_t line)
{
    if (!entry->path == !entry->text)
        return vibe_cli_fail(r->why, VIBE_EXIT_INPUT, r->name,
                             "%s: expected one of \"txt_path\" and \"text\", "
                             "found %s",
                             entry->place, entry->path ? "both" : "neither");
    if (!entry->id && entry->path && strcmp(entry->path, "-") != 0)
        entry->id = vibe_names_stem(entry->path);
    else if (!entry->id && asprintf(&entry->id, "%zu", line) < 0)
        entry->id = NULL;
    if (!entry->id)
        return vibe_cli_fail_memory(r->why, "a batch");
    if (!is_good_id(entry->id))
        return vibe_cli_fail(r->why, VIBE_EXIT_INPUT, r->name,
                             "%s: \"%s\" cannot name a file: give it an "
                             "\"id\"",
                             entry->place, entry->id);
    return VIBE_EXIT_OK;
}

/*
 * What the parser says of a line.  It calls a number that no computer has by
 * its digits: look for the key, the last string before it.
 */
static enum vibe_exit fail_json(struct reader *r, const char *text,
                                const json_error_t *error)
{
    const size_t n = error->position > 0 ? (size_t)error->position : 0;
    const char *colon = memrchr(text, ':', n);
    const char *end = colon ? memrchr(text, '"', (size_t)(colon - text)) : NULL;
    const char *key = end ? memrchr(text, '"', (size_t)(end - text)) : NULL;

    if (key && json_error_code(error) == json_error_numeric_overflow)
        return vibe_cli_fail(r->why, VIBE_EXIT_INPUT, r->name,
                             "%s: %.*s: expected a smaller number: %s",
                             r->entry->place, (int)(end + 1 - key), key,
                             error->text);
    return vibe_cli_fail(r->why, VIBE_EXIT_INPUT, r->name,
                         "%s: expected a JSON object on one line: %s",
                         r->entry->place, error->text);
}

static enum vibe_exit read_line(struct reader *r, const char *text, size_t n,
                                size_t line)
{
    json_error_t error;
    json_t *object;
    const char *key;
    json_t *value;
    enum vibe_exit status = VIBE_EXIT_OK;
    struct vibe_entry *entry = add_entry(r);

    if (!entry)
        return vibe_cli_fail_memory(r->why, "a batch");
    if (asprintf(&entry->place, "%s:%zu", r->name, line) < 0) {
        entry->place = NULL;
        return vibe_cli_fail_memory(r->why, "a batch");
    }
    object = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    if (!object)
        return fail_json(r, text, &error);
    if (!json_is_object(object)) {
        json_decref(object);
        return vibe_cli_fail(r->why, VIBE_EXIT_INPUT, r->name,
                             "%s: expected a JSON object on one line",
                             entry->place);
    }
    json_object_foreach(object, key, value)
    {
        status = set_field(r, key, value);
        if (status != VIBE_EXIT_OK)
            break;
    }
    if (status == VIBE_EXIT_OK)
        status = check_entry(r, entry, line);
    json_decref(object);
    return status;
}

static enum vibe_exit read_lines(struct reader *r, FILE *file)
{
    enum vibe_exit status = VIBE_EXIT_OK;
    struct vibe_lines lines = {.file = file, .max = MAX_LINE};
    ssize_t n = 0;

    for (size_t line = 1;
         status == VIBE_EXIT_OK && (n = vibe_lines_next(&lines)) > 0; line++) {
        char *text = lines.text;
        /* Windows marks what it saves with a byte-order mark. */
        const size_t mark = line == 1 && strncmp(text, "\xEF\xBB\xBF", 3) == 0
                                ? 3
                                : 0;
        const size_t blanks = mark + strspn(text + mark, " \t\r\n");

        if (n > MAX_LINE)
            status = vibe_cli_fail(r->why, VIBE_EXIT_INPUT, r->name,
                                   "%s:%zu: a line of more than %d MiB, "
                                   "expected a JSON object",
                                   r->name, line, MAX_LINE >> 20);
        else if (blanks < (size_t)n && text[blanks] != '#')
            status = read_line(r, text + mark, (size_t)n - mark, line);
    }
    if (n < 0)
        status = vibe_cli_fail_memory(r->why, "a batch");
    if (status == VIBE_EXIT_OK && ferror(file))
        status = vibe_cli_fail(r->why, VIBE_EXIT_INPUT, r->name, "%s: %s",
                               r->name, strerror(errno));
    free(lines.text);
    return status;
}

/* Add a script by its path. */
static enum vibe_exit add_script(struct reader *r, const char *path)
{
    struct vibe_entry *entry = add_entry(r);

    if (!entry)
        return vibe_cli_fail_memory(r->why, "a batch");
    entry->place = strdup(path);
    entry->path = strdup(path);
    entry->id = vibe_names_stem(path);
    if (!entry->place || !entry->path || !entry->id)
        return vibe_cli_fail_memory(r->why, "a batch");
    return VIBE_EXIT_OK;
}

/* Does a folder's file look like a script, and is it none of the others? */
static int is_script(const struct reader *r, const char *path,
                     const struct stat *st)
{
    struct stat other;

    for (size_t i = 0; i < r->others->n; i++)
        if (r->others->items[i] && stat(r->others->items[i], &other) == 0 &&
            other.st_dev == st->st_dev && other.st_ino == st->st_ino)
            return 0;
    return fnmatch("*.txt", path, 0) == 0 || fnmatch("*.json", path, 0) == 0;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The files of a pattern by name; of a folder those that are scripts. */
static enum vibe_exit read_matches(struct reader *r, const char *pattern,
                                   int is_folder)
{
    enum vibe_exit status = VIBE_EXIT_OK;
    glob_t found = {0};
    struct stat st;

    if (glob(pattern, GLOB_NOSORT, NULL, &found) == GLOB_NOSPACE)
        status = vibe_cli_fail_memory(r->why, "a batch");
    /* by bytes: the order must not be the locale's, which tasks of a cluster
     * need not share */
    if (found.gl_pathc > 0)
        qsort(found.gl_pathv, found.gl_pathc, sizeof(char *), by_bytes);
    for (size_t i = 0; i < found.gl_pathc && status == VIBE_EXIT_OK; i++)
        if (stat(found.gl_pathv[i], &st) == 0 && !S_ISDIR(st.st_mode) &&
            (!is_folder || is_script(r, found.gl_pathv[i], &st)))
            status = add_script(r, found.gl_pathv[i]);
    globfree(&found);
    return status;
}

static enum vibe_exit read_folder(struct reader *r, const char *path)
{
    char *folder = vibe_folder_pattern(path);
    char *pattern = NULL;
    enum vibe_exit status = VIBE_EXIT_OK;
    size_t n = folder ? strlen(folder) : 0;

    while (n > 0 && folder[n - 1] == '/')
        n--;
    if (!folder || asprintf(&pattern, "%.*s/*", (int)n, folder) < 0)
        status = vibe_cli_fail_memory(r->why, "a batch");
    else
        status = read_matches(r, pattern, 1);
    free(folder);
    free(pattern);
    return status;
}

static int by_id(const void *a, const void *b)
{
    const struct vibe_entry *const *x = a;
    const struct vibe_entry *const *y = b;
    const int order = strcmp((*x)->id, (*y)->id);

    return order ? order : (*x > *y) - (*x < *y);
}

static enum vibe_exit check_ids(const struct vibe_manifest *m,
                                struct vibe_failure *why)
{
    const struct vibe_entry **sorted = calloc(m->n + 1, sizeof(void *));
    enum vibe_exit status = VIBE_EXIT_OK;

    if (!sorted)
        return vibe_cli_fail_memory(why, "a batch");
    for (size_t i = 0; i < m->n; i++)
        sorted[i] = &m->entries[i];
    qsort(sorted, m->n, sizeof(void *), by_id);
    for (size_t i = 1; i < m->n && status == VIBE_EXIT_OK; i++)
        if (strcmp(sorted[i - 1]->id, sorted[i]->id) == 0)
            status = vibe_cli_fail(
                why, VIBE_EXIT_INPUT, NULL, "%s and %s have the same id \"%s\"",
                sorted[i - 1]->place, sorted[i]->place, sorted[i]->id);
    free(sorted);
    return status;
}

/* "talks" for "in/talks.jsonl", "in/talks/" and "in/talks/..."; owned. */
static char *name_of(const char *source)
{
    char *copy = strdup(source);
    char *name = NULL;
    size_t n = copy ? strcspn(copy, "*?[") : 0;

    if (!copy)
        return NULL;
    if (copy[n]) /* a pattern: by its folder */
        while (n > 0 && copy[n - 1] != '/')
            n--;
    while (n > 0 && copy[n - 1] == '/')
        n--;
    copy[n] = '\0';
    name = vibe_names_stem(copy);
    free(copy);
    if (name && (!is_good_id(name) || strcmp(name, "standard input") == 0)) {
        free(name);
        name = strdup("batch");
    }
    return name;
}

/* What was read holds together. */
static enum vibe_exit check_all(const struct vibe_manifest *m,
                                const char *source, struct vibe_failure *why)
{
    if (m->n == 0)
        return vibe_cli_fail(why, VIBE_EXIT_INPUT, source,
                             "--batch: '%s' has no scripts", source);
    return check_ids(m, why);
}

enum vibe_exit vibe_manifest_parse(struct vibe_manifest *out, const char *name,
                                   FILE *file, struct vibe_failure *why)
{
    struct reader r = {.out = out, .why = why, .name = name};
    enum vibe_exit status;

    *out = (struct vibe_manifest){.name = name_of(name)};
    if (!out->name)
        return vibe_cli_fail_memory(why, "a batch");
    status = read_lines(&r, file);
    return status == VIBE_EXIT_OK ? check_all(out, name, why) : status;
}

static enum vibe_exit read_manifest(struct vibe_manifest *out, const char *path,
                                    struct vibe_failure *why)
{
    const int is_stdin = strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "r");
    enum vibe_exit status;

    *out = (struct vibe_manifest){0};
    if (!file)
        return vibe_cli_fail(why, VIBE_EXIT_INPUT, path, "%s: %s", path,
                             strerror(errno));
    status = vibe_manifest_parse(out, is_stdin ? "standard input" : path, file,
                                 why);
    if (!is_stdin)
        fclose(file);
    return status;
}

enum vibe_exit vibe_manifest_read(struct vibe_manifest *out, const char *source,
                                  const struct vibe_words *others,
                                  struct vibe_failure *why)
{
    struct reader r = {.out = out, .why = why, .others = others};
    enum vibe_exit status;
    struct stat st;
    const int is_there = stat(source, &st) == 0;

    if (!(is_there && S_ISDIR(st.st_mode)) &&
        (is_there || !strpbrk(source, "*?[")))
        return read_manifest(out, source, why);
    *out = (struct vibe_manifest){.name = name_of(source)};
    if (!out->name)
        return vibe_cli_fail_memory(why, "a batch");
    status = is_there ? read_folder(&r, source) : read_matches(&r, source, 0);
    return status == VIBE_EXIT_OK ? check_all(out, source, why) : status;
}

void vibe_manifest_release(struct vibe_manifest *manifest)
{
    for (size_t i = 0; i < manifest->n; i++) {
        struct vibe_entry *entry = &manifest->entries[i];

        free(entry->place);
        free(entry->id);
        free(entry->path);
        free(entry->text);
        for (size_t v = 0; v < entry->voices.n; v++)
            free((char *)entry->voices.items[v]);
        free(entry->voices.items);
        free(entry->output);
    }
    free(manifest->entries);
    free(manifest->name);
    *manifest = (struct vibe_manifest){0};
}
