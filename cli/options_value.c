#include "cli/options_value.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "engine/base/error.h"

enum { WORD_MAX = 64 }; /* longest word that is compared letter by letter */

static void *field_of(struct vibe_options *out, const struct vibe_option *row)
{
    return (char *)out + row->offset;
}

int vibe_words_add(struct vibe_words *words, const char *word,
                   struct vibe_error *err)
{
    if (words->n == words->capacity) {
        size_t capacity = words->capacity ? words->capacity * 2 : 8;
        const char **items = reallocarray(words->items, capacity,
                                          sizeof(*items));

        if (!items)
            return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu words",
                             capacity);
        words->items = items;
        words->capacity = capacity;
    }
    words->items[words->n++] = word;
    return VIBE_OK;
}

const char *vibe_option_next_name(const char **at, char *buf, size_t size)
{
    size_t n = strcspn(*at, " ");

    if (n == 0)
        return NULL;
    assert(n < size);
    memcpy(buf, *at, n);
    buf[n] = '\0';
    *at += n;
    if (**at == ' ')
        (*at)++;
    return buf;
}

const char *vibe_option_name(const struct vibe_option *row, char *buf,
                             size_t size)
{
    const char *at = row->names;

    return vibe_option_next_name(&at, buf, size);
}

int vibe_option_takes_value(const struct vibe_option *row)
{
    switch (row->kind) {
    case VIBE_OPT_FLAG:
    case VIBE_OPT_SET:
    case VIBE_OPT_COUNT:
        return 0;
    case VIBE_OPT_STRING:
    case VIBE_OPT_INT:
    case VIBE_OPT_FLOAT:
    case VIBE_OPT_CHOICE:
    case VIBE_OPT_WORDS:
    case VIBE_OPT_APPEND:
    case VIBE_OPT_PARSED:
        return 1;
    }
    return 0;
}

/* Letters are compared as a hurried user means them. */
static int fold(char c)
{
    return c == '_' ? '-' : tolower((unsigned char)c);
}

static int is_same_word(const char *a, const char *b)
{
    while (*a && *b && fold(*a) == fold(*b)) {
        a++;
        b++;
    }
    return !*a && !*b;
}

size_t vibe_word_distance(const char *a, const char *b)
{
    size_t row[3][WORD_MAX + 1]; /* distances of prefixes: this and 2 before */
    size_t n = strlen(a), m = strlen(b);

    if (n > WORD_MAX || m > WORD_MAX)
        return WORD_MAX + 1;
    for (size_t j = 0; j <= m; j++)
        row[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *now = row[i % 3];
        const size_t *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];

        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            int is_equal = fold(a[i - 1]) == fold(b[j - 1]);
            size_t best = last[j - 1] + (is_equal ? 0 : 1);

            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) &&
                fold(a[i - 2]) == fold(b[j - 1]) && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[n % 3][m];
}

int vibe_word_is_near(const char *typed, const char *word)
{
    size_t n = strlen(typed);
    size_t limit = n < 4 ? 1 : n < 9 ? 2 : 3;

    return vibe_word_distance(typed, word) <= limit;
}

const char *vibe_option_range(const struct vibe_option *row, char *buf,
                              size_t size)
{
    if (row->kind == VIBE_OPT_INT && row->max == INT64_MAX)
        snprintf(buf, size, "%lld or more", (long long)row->min);
    else if (row->kind == VIBE_OPT_INT)
        snprintf(buf, size, "%lld to %lld", (long long)row->min,
                 (long long)row->max);
    else if (isinf(row->high))
        snprintf(buf, size, row->is_above_low ? "above %g" : "%g or more",
                 row->low);
    else if (row->is_above_low)
        snprintf(buf, size, "above %g, up to %g", row->low, row->high);
    else
        snprintf(buf, size, "from %g to %g", row->low, row->high);
    return buf;
}

static int store_int(int64_t *out, const struct vibe_option *row,
                     const char *label, const char *word,
                     struct vibe_error *err)
{
    char range[64], *end = NULL;
    long long value;

    for (const struct vibe_choice *c = row->choices; c && c->word; c++) {
        if (is_same_word(word, c->word)) {
            *out = c->value;
            return VIBE_OK;
        }
    }
    errno = 0;
    value = strtoll(word, &end, 10);
    if (end == word || *end || isspace((unsigned char)*word))
        return vibe_fail(err, VIBE_E_ARG, "%s: '%s' is not a whole number",
                         label, word);
    if (errno == ERANGE || value < row->min || value > row->max)
        return vibe_fail(err, VIBE_E_ARG, "%s: %s is out of range (%s%s%s)",
                         label, word,
                         vibe_option_range(row, range, sizeof(range)),
                         row->note ? "; " : "", row->note ? row->note : "");
    *out = value;
    return VIBE_OK;
}

static int store_float(double *out, const struct vibe_option *row,
                       const char *label, const char *word,
                       struct vibe_error *err)
{
    char range[64], *end = NULL;
    double value;

    errno = 0;
    value = strtod(word, &end);
    /* A NaN fails the comparisons, whichever way they are written. */
    if (end == word || *end || isspace((unsigned char)*word) ||
        !(row->is_above_low ? value > row->low : value >= row->low) ||
        !(value <= row->high) || isinf(value))
        return vibe_fail(err, VIBE_E_ARG, "%s: '%s' is not a number %s%s%s",
                         label, word,
                         vibe_option_range(row, range, sizeof(range)),
                         row->note ? "; " : "", row->note ? row->note : "");
    *out = value;
    return VIBE_OK;
}

/* "'int4' is not one of bfloat16, float8_e4m3fn, auto". */
static int fail_choice(const struct vibe_option *row, const char *label,
                       const char *word, struct vibe_error *err)
{
    const struct vibe_choice *near = NULL;
    char list[160] = "";
    size_t n = 0;

    for (const struct vibe_choice *c = row->choices; c->word; c++) {
        if (!near && vibe_word_is_near(word, c->word))
            near = c;
        if (!c->is_alias && n < sizeof(list))
            n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s",
                                  n ? ", " : "", c->word);
    }
    return vibe_fail(err, VIBE_E_ARG, "%s: '%s' is not one of %s%s%s%s", label,
                     word, list, near ? "; did you mean '" : "",
                     near ? near->word : "", near ? "'?" : "");
}

static int store_choice(int *out, const struct vibe_option *row,
                        const char *label, const char *word,
                        struct vibe_error *err)
{
    for (const struct vibe_choice *c = row->choices; c->word; c++) {
        if (is_same_word(word, c->word)) {
            *out = c->value;
            return VIBE_OK;
        }
    }
    return fail_choice(row, label, word, err);
}

/* "on" and "off" for what takes no argument on a command line. */
static int store_switch(int *out, const struct vibe_option *row,
                        const char *label, const char *word,
                        struct vibe_error *err)
{
    static const char *const on[] = {"1", "on", "yes", "true"};
    static const char *const off[] = {"0", "off", "no", "false"};

    for (size_t i = 0; i < sizeof(on) / sizeof(on[0]); i++) {
        if (is_same_word(word, on[i])) {
            *out = row->kind == VIBE_OPT_SET ? row->value : 1;
            return VIBE_OK;
        }
        if (is_same_word(word, off[i])) {
            if (row->kind != VIBE_OPT_SET)
                *out = 0;
            return VIBE_OK;
        }
    }
    return vibe_fail(err, VIBE_E_ARG, "%s: '%s' is not one of 1, 0", label,
                     word);
}

static int store_count(int *out, const char *label, const char *word,
                       struct vibe_error *err)
{
    if (word[0] < '0' || word[0] > '9' || word[1])
        return vibe_fail(err, VIBE_E_ARG, "%s: '%s' is not one of 0, 1, 2",
                         label, word);
    *out = word[0] - '0';
    return VIBE_OK;
}

int vibe_option_store(struct vibe_options *out, const struct vibe_option *row,
                      const char *label, const char *word,
                      struct vibe_error *err)
{
    void *field = field_of(out, row);
    const char *want = NULL;

    switch (row->kind) {
    case VIBE_OPT_FLAG:
    case VIBE_OPT_SET:
        return store_switch(field, row, label, word, err);
    case VIBE_OPT_COUNT:
        return store_count(field, label, word, err);
    case VIBE_OPT_STRING:
        if (!*word)
            return vibe_fail(err, VIBE_E_ARG, "%s: is empty", label);
        *(const char **)field = word;
        return VIBE_OK;
    case VIBE_OPT_INT:
        return store_int(field, row, label, word, err);
    case VIBE_OPT_FLOAT:
        return store_float(field, row, label, word, err);
    case VIBE_OPT_CHOICE:
        return store_choice(field, row, label, word, err);
    case VIBE_OPT_WORDS:
    case VIBE_OPT_APPEND:
        if (!*word)
            return vibe_fail(err, VIBE_E_ARG, "%s: is empty", label);
        return vibe_words_add(field, word, err);
    case VIBE_OPT_PARSED:
        if (row->parse(out, word, &want) != 0)
            return vibe_fail(err, VIBE_E_ARG, "%s: '%s' %s", label, word, want);
        return VIBE_OK;
    }
    return VIBE_OK;
}

const char *vibe_option_suggest(const char *typed, char *buf, size_t size)
{
    char spelling[VIBE_OPTION_NAME_MAX];
    const struct vibe_option *row;
    size_t best = (size_t)-1;

    for (size_t i = 0; (row = vibe_option_at(i)); i++) {
        const char *at = row->names;

        while (vibe_option_next_name(&at, spelling, sizeof(spelling))) {
            size_t n = strlen(typed);
            /* What was cut short is nearer than any misspelling. */
            size_t distance = n > 5 && strncmp(spelling, typed, n) == 0
                                  ? 1
                                  : vibe_word_distance(typed, spelling);

            if (spelling[1] != '-' || distance >= best ||
                (distance > 1 && !vibe_word_is_near(typed, spelling)))
                continue;
            best = distance;
            snprintf(buf, size, "%s", spelling);
        }
    }
    return best == (size_t)-1 ? NULL : buf;
}
