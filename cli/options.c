#include "cli/options.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options_value.h"
#include "engine/base/error.h"

enum {
    OPTIONS_FILE_MAX = 1 << 20, /* bytes; a person wrote it */
    PLACE_MAX = 160,            /* "opts:3: " */
};

/* One source of words while it is read. */
struct parser {
    struct vibe_options *out;
    enum vibe_option_source source;
    const char *const *words; /* [n] */
    size_t n, i;
    const char *file;    /* of the words, or NULL */
    const size_t *lines; /* [n] in that file */
    int stops;           /* set when nothing more is to be read */
    const struct vibe_option_listener *listener;
    struct vibe_error *err;
};

/* Options that were asked for by name and will not come. */
static const struct {
    const char *name, *why;
} refused[] = {
    {"--checkpoint-path", "LoRA checkpoints are not supported"},
    {"--lora-path", "LoRA checkpoints are not supported"},
};

/* Is name one of a row's spellings? */
static int has_name(const struct vibe_option *row, const char *name)
{
    char spelling[VIBE_OPTION_NAME_MAX];
    const char *at = row->names;

    while (vibe_option_next_name(&at, spelling, sizeof(spelling)))
        if (strcmp(spelling, name) == 0)
            return 1;
    return 0;
}

static const struct vibe_option *find_row(const char *name)
{
    const struct vibe_option *row;

    for (size_t i = 0; (row = vibe_option_at(i)); i++)
        if (has_name(row, name))
            return row;
    return NULL;
}

/* The i of vibe_option_at() that is row. */
static size_t index_of(const struct vibe_option *row)
{
    size_t i = 0;

    while (vibe_option_at(i) != row)
        i++;
    return i;
}

enum vibe_option_source vibe_options_source(const struct vibe_options *options,
                                            const char *name)
{
    const struct vibe_option *row = find_row(name);

    assert(row);
    return options->source[index_of(row)];
}

/* An option as it stands in a word: its row, and "--no-" or "=value". */
struct spelled {
    const struct vibe_option *row;
    char name[VIBE_OPTION_NAME_MAX]; /* with '-' for '_', without "=value" */
    const char *value;               /* after the '=', or NULL */
    int is_no;                       /* spelled --no-x */
    int n_letters;                   /* -vv: 2 */
};

/* "-vv" is the letter of a counted option, several times. */
static int find_letters(struct spelled *s)
{
    char once[3] = {'-', s->name[1], '\0'};
    size_t n = strlen(s->name);

    if (n < 3 || s->name[1] == '-' || strspn(s->name + 1, once + 1) != n - 1)
        return 0;
    s->row = find_row(once);
    if (!s->row || s->row->kind != VIBE_OPT_COUNT) {
        s->row = NULL;
        return 0;
    }
    s->n_letters = (int)n - 1;
    return 1;
}

/* Read an option's spelling; whether there is such an option. */
static int read_name(struct spelled *out, const char *word)
{
    size_t n = strcspn(word, "=");

    *out = (struct spelled){.n_letters = 1};
    if (n >= sizeof(out->name))
        n = sizeof(out->name) - 1;
    memcpy(out->name, word, n);
    for (size_t i = 0; i < n; i++)
        if (out->name[i] == '_')
            out->name[i] = '-';
    if (strchr(word, '='))
        out->value = strchr(word, '=') + 1;

    out->row = find_row(out->name);
    if (out->row || find_letters(out))
        return 1;
    if (strncmp(out->name, "--no-", 5) == 0) {
        char positive[VIBE_OPTION_NAME_MAX];

        snprintf(positive, sizeof(positive), "--%s", out->name + 5);
        out->row = find_row(positive);
        if (out->row && out->row->kind != VIBE_OPT_FLAG)
            out->row = NULL;
        out->is_no = out->row != NULL;
    }
    return out->row != NULL;
}

/* "--", "-x" and "--x" are options; "-" and "-1" are words. */
static int looks_like_option(const char *word)
{
    return word[0] == '-' && word[1] != '\0' &&
           !(word[1] >= '0' && word[1] <= '9') && word[1] != '.';
}

/* May this word be the value of the option before it?  --opt=--x always may. */
static int is_value(const char *word)
{
    struct spelled s;

    return strncmp(word, "--", 2) != 0 &&
           !(looks_like_option(word) && read_name(&s, word));
}

/* Where a message's cause stands: "opts:3: ", or "" for the command line. */
static const char *place_of(const struct parser *p, char *buf, size_t size)
{
    buf[0] = '\0';
    if (p->file)
        snprintf(buf, size, "%s:%zu: ", p->file, p->lines[p->i]);
    else if (p->source == VIBE_FROM_ENV)
        snprintf(buf, size, "environment: ");
    return buf;
}

/* Has row i been given, and not as --no-x? */
static int is_active(const struct vibe_options *options, size_t i)
{
    const struct vibe_option *row = vibe_option_at(i);

    if (options->source[i] == VIBE_FROM_DEFAULT)
        return 0;
    return row->kind != VIBE_OPT_FLAG ||
           *(const int *)((const char *)options + row->offset) != 0;
}

/*
 * May this source set this row?  Returns 1, or 0 when a stronger source has
 * set it or its rival, or VIBE_E_ARG when this source has set its rival.
 */
static int may_set(struct parser *p, const struct vibe_option *row, int is_off)
{
    const struct vibe_option *other;
    size_t self = index_of(row);
    unsigned char source = (unsigned char)p->source;

    for (size_t i = 0; (other = vibe_option_at(i)); i++) {
        int is_rival = i != self && row->team && other->team == row->team &&
                       is_active(p->out, i) && !is_off;
        char place[PLACE_MAX], first[VIBE_OPTION_NAME_MAX],
            second[VIBE_OPTION_NAME_MAX];

        if ((is_rival || other->offset == row->offset) &&
            p->out->source[i] > source)
            return 0;
        if (!is_rival || p->out->source[i] != source)
            continue;
        vibe_option_name(self > i ? row : other, first, sizeof(first));
        vibe_option_name(self > i ? other : row, second, sizeof(second));
        return vibe_fail(p->err, VIBE_E_ARG, "%s%s cannot be combined with %s",
                         place_of(p, place, sizeof(place)), first, second);
    }
    return 1;
}

/* A scalar that is given again: the last one wins, and the user is told. */
static void warn_repeated(const struct parser *p, const struct vibe_option *row,
                          const char *name, const char *word)
{
    char msg[PLACE_MAX + VIBE_OPTION_NAME_MAX];

    if (p->out->source[index_of(row)] != (unsigned char)p->source ||
        row->kind == VIBE_OPT_WORDS || row->kind == VIBE_OPT_APPEND ||
        !vibe_option_takes_value(row) || !p->listener ||
        !p->listener->on_warning)
        return;
    snprintf(msg, sizeof(msg), "%s is given more than once; '%s' is used", name,
             word);
    p->listener->on_warning(p->listener->user, msg);
}

/* Give a row one word, if this source may. */
static int set_word(struct parser *p, const struct vibe_option *row,
                    const char *name, const char *word)
{
    char label[PLACE_MAX + VIBE_OPTION_NAME_MAX], place[PLACE_MAX];
    int rc = may_set(p, row, 0);

    if (rc <= 0)
        return rc;
    warn_repeated(p, row, name, word);
    snprintf(label, sizeof(label), "%s%s",
             p->file ? place_of(p, place, sizeof(place)) : "", name);
    rc = vibe_option_store(p->out, row, label, word, p->err);
    if (rc == VIBE_OK)
        p->out->source[index_of(row)] = (unsigned char)p->source;
    return rc;
}

/* Set an option that takes no argument. */
static int set_switch(struct parser *p, const struct spelled *s)
{
    const struct vibe_option *row = s->row;
    int *field = (int *)(void *)((char *)p->out + row->offset);
    char place[PLACE_MAX];
    int rc;

    if (s->value)
        return vibe_fail(p->err, VIBE_E_ARG, "%s%s takes no value",
                         place_of(p, place, sizeof(place)), s->name);
    rc = may_set(p, row, s->is_no);
    if (rc <= 0)
        return rc;
    if (row->kind == VIBE_OPT_COUNT)
        *field += s->n_letters;
    else
        *field = row->kind == VIBE_OPT_SET ? row->value : !s->is_no;
    p->out->source[index_of(row)] = (unsigned char)p->source;
    return VIBE_OK;
}

/* Set an option that takes one word, or all until the next option. */
static int set_valued(struct parser *p, const struct spelled *s)
{
    const struct vibe_option *row = s->row;
    int is_list = row->kind == VIBE_OPT_WORDS;
    size_t first = p->i;
    char place[PLACE_MAX];
    int rc = VIBE_OK;

    if (s->value)
        rc = set_word(p, row, s->name, s->value);
    while (rc == VIBE_OK && (is_list || (!s->value && p->i == first)) &&
           p->i + 1 < p->n) {
        const char *word = p->words[p->i + 1];

        if (!is_value(word) || (is_list && looks_like_option(word)))
            break;
        p->i++;
        rc = set_word(p, row, s->name, word);
    }
    if (rc == VIBE_OK && !s->value && p->i == first)
        rc = vibe_fail(p->err, VIBE_E_ARG, "%s%s needs %s",
                       place_of(p, place, sizeof(place)), s->name, row->meta);
    return rc;
}

/* An option that there is not: word as it was typed, name as it was read. */
static int fail_unknown(const struct parser *p, const char *word,
                        const char *name)
{
    char near[VIBE_OPTION_NAME_MAX], place[PLACE_MAX];
    const char *suggestion = vibe_option_suggest(name, near, sizeof(near));

    place_of(p, place, sizeof(place));
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        if (strcmp(name, refused[i].name) == 0)
            return vibe_fail(p->err, VIBE_E_ARG, "%s%s: %s", place, name,
                             refused[i].why);
    if (strchr(name, ' '))
        return vibe_fail(p->err, VIBE_E_ARG,
                         "%s'%s' is one word; give the value as the next one, "
                         "or after '='",
                         place, word);
    return vibe_fail(p->err, VIBE_E_ARG, "%sunknown option '%.*s'%s%s%s", place,
                     (int)strcspn(word, "="), word,
                     suggestion ? "; did you mean '" : "",
                     suggestion ? suggestion : "", suggestion ? "'?" : "");
}

/* Set the option of one word that looks like one. */
static int set_option(struct parser *p, const char *word)
{
    char place[PLACE_MAX];
    struct spelled s;

    if (!read_name(&s, word))
        return fail_unknown(p, word, s.name);
    if (p->file &&
        (s.row->stops ||
         s.row->offset == offsetof(struct vibe_options, options_file)))
        return vibe_fail(p->err, VIBE_E_ARG, "%s%s is for the command line",
                         place_of(p, place, sizeof(place)), s.name);
    p->stops = s.row->stops;
    return vibe_option_takes_value(s.row) ? set_valued(p, &s)
                                          : set_switch(p, &s);
}

static int parse_words(struct parser *p)
{
    const struct vibe_option *scripts = find_row("--txt-path");
    int is_after_dashes = 0;
    int rc = VIBE_OK;

    for (p->i = 0; p->i < p->n && rc == VIBE_OK && !p->stops; p->i++) {
        const char *word = p->words[p->i];

        if (!is_after_dashes && strcmp(word, "--") == 0)
            is_after_dashes = 1;
        else if (is_after_dashes || !looks_like_option(word))
            rc = set_word(p, scripts, "--txt-path", word);
        else
            rc = set_option(p, word);
    }
    return rc;
}

int vibe_options_init(struct vibe_options *out, struct vibe_error *err)
{
    const struct vibe_option *row;

    *out = (struct vibe_options){0};
    for (size_t i = 0; (row = vibe_option_at(i)); i++) {
        int rc = VIBE_OK;

        assert(i < VIBE_OPTIONS_MAX);
        if (row->def)
            rc = vibe_option_store(out, row, row->names, row->def, err);
        if (rc != VIBE_OK)
            return rc;
    }
    return VIBE_OK;
}

int vibe_options_apply_argv(struct vibe_options *out, size_t argc,
                            const char *const *argv,
                            const struct vibe_option_listener *listener,
                            struct vibe_error *err)
{
    struct parser p = {
        .out = out,
        .source = VIBE_FROM_ARGV,
        .words = argv,
        .n = argc,
        .listener = listener,
        .err = err,
    };

    return parse_words(&p);
}

/* "VIBEVOICE_TXT_PATH" for "--txt-path"; NULL for rows without one. */
static const char *env_name(const struct vibe_option *row, char *buf,
                            size_t size)
{
    char name[VIBE_OPTION_NAME_MAX];

    vibe_option_name(row, name, sizeof(name));
    if (row->stops || strncmp(name, "--", 2) != 0)
        return NULL;
    for (char *c = name + 2; *c; c++) {
        if (*c == '-')
            *c = '_';
        else
            *c = (char)toupper((unsigned char)*c);
    }
    snprintf(buf, size, "VIBEVOICE_%s", name + 2);
    return buf;
}

static const char *env_value(const char *const *environment, const char *name)
{
    size_t n = strlen(name);

    for (; *environment; environment++)
        if (strncmp(*environment, name, n) == 0 && (*environment)[n] == '=')
            return *environment + n + 1;
    return NULL;
}

/* Copy text into memory that lives as long as the options; NULL without. */
static char *keep_copy(struct vibe_options *out, const char *text, size_t n,
                       struct vibe_error *err)
{
    struct vibe_option_text *copy = calloc(1, sizeof(*copy) + n + 1);

    if (!copy) {
        vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu bytes of options", n);
        return NULL;
    }
    memcpy(copy->text, text, n);
    copy->next = out->owned;
    out->owned = copy;
    return copy->text;
}

/* A list in the environment has one word per line. */
static int set_env_list(struct parser *p, const struct vibe_option *row,
                        const char *name, const char *value)
{
    char *copy = keep_copy(p->out, value, strlen(value), p->err);
    char *rest = NULL;
    int rc = VIBE_OK;

    if (!copy)
        return VIBE_E_NOMEM;
    for (char *word = strtok_r(copy, "\n", &rest); word && rc == VIBE_OK;
         word = strtok_r(NULL, "\n", &rest))
        rc = set_word(p, row, name, word);
    return rc;
}

int vibe_options_apply_env(struct vibe_options *out,
                           const char *const *environment,
                           struct vibe_error *err)
{
    struct parser p = {.out = out, .source = VIBE_FROM_ENV, .err = err};
    const struct vibe_option *row;

    for (size_t i = 0; (row = vibe_option_at(i)); i++) {
        char buf[VIBE_OPTION_NAME_MAX + 16];
        const char *name = env_name(row, buf, sizeof(buf));
        const char *value = name ? env_value(environment, name) : NULL;
        int is_list = row->kind == VIBE_OPT_WORDS ||
                      row->kind == VIBE_OPT_APPEND;
        int rc = VIBE_OK;

        /* VIBEVOICE_OVERWRITE=0 asks for nothing, so it rivals nothing. */
        if (!value || !*value ||
            (row->kind == VIBE_OPT_SET && strcmp(value, "0") == 0))
            continue;
        rc = is_list ? set_env_list(&p, row, name, value)
                     : set_word(&p, row, name, value);
        if (rc != VIBE_OK)
            return rc;
    }
    return VIBE_OK;
}

/* Cut a text into trimmed lines, without empty ones and comments. */
static int split_lines(struct vibe_words *words, size_t **lines, char *text,
                       struct vibe_error *err)
{
    size_t n_lines = 1, line = 0;

    for (const char *c = text; *c; c++)
        n_lines += *c == '\n';
    *lines = calloc(n_lines, sizeof(**lines));
    if (!*lines)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu lines", n_lines);
    while (text) {
        char *next = strchr(text, '\n');
        char *end = next ? next : text + strlen(text);

        line++;
        text += strspn(text, " \t\r\n") < (size_t)(end - text)
                    ? strspn(text, " \t\r\n")
                    : (size_t)(end - text);
        while (end > text && strchr(" \t\r", end[-1]))
            end--;
        if (end > text && *text != '#') {
            *end = '\0';
            (*lines)[words->n] = line;
            if (vibe_words_add(words, text, err) != VIBE_OK)
                return VIBE_E_NOMEM;
        }
        text = next ? next + 1 : NULL;
    }
    return VIBE_OK;
}

int vibe_options_apply_text(struct vibe_options *out, const char *name,
                            const char *text, size_t n, struct vibe_error *err)
{
    struct vibe_words words = {0};
    size_t *lines = NULL;
    char *copy = NULL;
    int rc = 0;

    if (memchr(text, '\0', n))
        return vibe_fail(err, VIBE_E_ARG, "%s: is not a text file", name);
    copy = keep_copy(out, text, n, err);
    if (!copy)
        return VIBE_E_NOMEM;
    rc = split_lines(&words, &lines, copy, err);
    if (rc == VIBE_OK) {
        struct parser p = {
            .out = out,
            .source = VIBE_FROM_FILE,
            .words = words.items,
            .n = words.n,
            .file = name,
            .lines = lines,
            .err = err,
        };

        rc = parse_words(&p);
    }
    free(lines);
    free(words.items);
    return rc;
}

static int apply_file(struct vibe_options *out, const char *path,
                      struct vibe_error *err)
{
    char *text = malloc(OPTIONS_FILE_MAX);
    FILE *file = NULL;
    size_t n;
    int rc = 0;

    if (!text)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory to read %s", path);
    file = fopen(path, "rb");
    n = file ? fread(text, 1, OPTIONS_FILE_MAX, file) : 0;
    if (!file || ferror(file))
        rc = vibe_fail(err, VIBE_E_IO, "%s: %s", path, strerror(errno));
    else if (n == OPTIONS_FILE_MAX)
        rc = vibe_fail(err, VIBE_E_IO, "%s: too large for an options file",
                       path);
    else
        rc = vibe_options_apply_text(out, path, text, n, err);
    if (file)
        fclose(file);
    free(text);
    return rc;
}

int vibe_options_parse(struct vibe_options *out, size_t argc,
                       const char *const *argv, const char *const *environment,
                       const struct vibe_option_listener *listener,
                       struct vibe_error *err)
{
    const char *file = NULL;
    int rc = vibe_options_init(out, err);

    if (rc == VIBE_OK)
        rc = vibe_options_apply_argv(out, argc, argv, listener, err);
    if (rc != VIBE_OK || out->show != VIBE_SHOW_NOTHING)
        return rc;
    rc = vibe_options_apply_env(out, environment, err);
    if (rc != VIBE_OK)
        return rc;
    file = out->options_file ? out->options_file
                             : env_value(environment, "VIBEVOICE_CONFIG_PATH");
    return file && *file ? apply_file(out, file, err) : VIBE_OK;
}

void vibe_options_release(struct vibe_options *options)
{
    while (options->owned) {
        struct vibe_option_text *next = options->owned->next;

        free(options->owned);
        options->owned = next;
    }
    free(options->scripts.items);
    free(options->voices.items);
    free(options->speaker_names.items);
    *options = (struct vibe_options){0};
}
