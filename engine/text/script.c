#include "engine/text/script.h"

#include <assert.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/base/error.h"
#include "engine/text/read_file.h"
#include "engine/text/utf8.h"

enum {
    UNKNOWN = -1, /* speaker of a turn before the first "Speaker N:" */
    FIRST_TURNS = 16,
};

/* A stretch of the script, borrowed from it. */
struct span {
    const char *s;
    size_t n;
};

/* The script so far.  The last turn is open: its text may still grow. */
struct builder {
    struct vibe_script script;
    const char *name;
    size_t cap;    /* of script.turns */
    size_t n_text; /* of script.text */
    struct vibe_error *err;
};

/* The blanks that the reference strips: \s and the four separators. */
static bool is_blank(uint32_t cp)
{
    return vibe_utf8_is_space(cp) || (cp >= 0x1C && cp <= 0x1F);
}

static struct span skip_blanks(struct span span)
{
    uint32_t cp;

    while (span.n > 0) {
        size_t len = vibe_utf8_decode(&cp, span.s, span.n);

        if (!is_blank(cp))
            break;
        span.s += len;
        span.n -= len;
    }
    return span;
}

static struct span trim(struct span span)
{
    uint32_t cp;

    span = skip_blanks(span);
    while (span.n > 0) {
        size_t last = vibe_utf8_cut(span.s, span.n, span.n - 1);

        vibe_utf8_decode(&cp, span.s + last, span.n - last);
        if (!is_blank(cp))
            break;
        span.n = last;
    }
    return span;
}

/* Cut the first line off *rest: CR LF, LF and CR all end one. */
static struct span next_line(struct span *rest)
{
    struct span line = {.s = rest->s};
    size_t end;

    while (line.n < rest->n && line.s[line.n] != '\n' && line.s[line.n] != '\r')
        line.n++;
    end = line.n;
    if (end < rest->n)
        end++;
    if (end < rest->n && rest->s[end - 1] == '\r' && rest->s[end] == '\n')
        end++;
    rest->s += end;
    rest->n -= end;
    return line;
}

/* Value of the digit that span begins with, and its bytes; -1 for none. */
static int digit_at(struct span span, size_t *len)
{
    uint32_t cp = 0;

    if (span.n == 0)
        return -1;
    *len = vibe_utf8_decode(&cp, span.s, span.n);
    if (cp >= '0' && cp <= '9')
        return (int)(cp - '0');
    if (cp >= 0xFF10 && cp <= 0xFF19)
        return (int)(cp - 0xFF10);
    return -1;
}

/*
 * Cut a number off the front of *span.  One that is too large for a speaker
 * comes out as VIBE_SCRIPT_MAX_SPEAKER + 1; -1 means that there is none.
 */
static int take_number(struct span *span)
{
    size_t len = 0;
    int digit = digit_at(*span, &len);
    int number = digit < 0 ? -1 : 0;

    while (digit >= 0) {
        number = 10 * number + digit;
        if (number > VIBE_SCRIPT_MAX_SPEAKER)
            number = VIBE_SCRIPT_MAX_SPEAKER + 1;
        span->s += len;
        span->n -= len;
        digit = digit_at(*span, &len);
    }
    return number;
}

/* Bytes of the colon that span begins with, or 0. */
static size_t colon_at(struct span span)
{
    static const char wide[] = "\xEF\xBC\x9A"; /* U+FF1A */

    if (span.n >= 1 && span.s[0] == ':')
        return 1;
    if (span.n >= 3 && memcmp(span.s, wide, 3) == 0)
        return 3;
    return 0;
}

/*
 * Split "Speaker N: text".  Return N as take_number does and leave the text
 * in *line; return -1 and leave *line alone when it is not of that form.
 */
static int take_header(struct span *line)
{
    static const char word[] = "speaker";
    const size_t n_word = sizeof(word) - 1;
    struct span rest = *line;
    struct span after;
    int speaker;

    if (rest.n < n_word || strncasecmp(rest.s, word, n_word) != 0)
        return -1;
    rest.s += n_word;
    rest.n -= n_word;
    after = skip_blanks(rest);
    if (after.n == rest.n)
        return -1;
    speaker = take_number(&after);
    after = skip_blanks(after);
    if (speaker < 0 || colon_at(after) == 0)
        return -1;

    rest.n = after.n - colon_at(after);
    rest.s = after.s + colon_at(after);
    *line = skip_blanks(rest);
    return speaker;
}

/*
 * Room for the texts of a script of n bytes.  No text grows when it is taken
 * over, and every turn but the first has left a header, or quotes, behind, in
 * place of which its final 0 stands.
 */
static int start(struct builder *b, size_t n)
{
    b->script.text = malloc(n + 1);
    if (!b->script.text)
        return vibe_fail(b->err, VIBE_E_NOMEM, "%s: no memory for %zu bytes",
                         b->name, n);
    return VIBE_OK;
}

/* End the open turn's text, if there is a turn. */
static void close_turn(struct builder *b)
{
    if (b->script.n_turns > 0)
        b->script.text[b->n_text++] = '\0';
}

static int open_turn(struct builder *b, int speaker, size_t line)
{
    struct vibe_script *script = &b->script;

    close_turn(b);
    if (script->n_turns == b->cap) {
        size_t cap = b->cap ? 2 * b->cap : FIRST_TURNS;
        struct vibe_turn *grown = realloc(script->turns,
                                          cap * sizeof(*script->turns));

        if (!grown) {
            vibe_fail(b->err, VIBE_E_NOMEM, "%s: no memory for turns", b->name);
            return VIBE_E_NOMEM;
        }
        script->turns = grown;
        b->cap = cap;
    }
    script->turns[script->n_turns++] = (struct vibe_turn){
        .speaker = speaker,
        .text = script->text + b->n_text,
        .line = line,
    };
    return VIBE_OK;
}

/* Add a trimmed line to the open turn. */
static void append(struct builder *b, struct span line)
{
    const struct vibe_turn *turn = &b->script.turns[b->script.n_turns - 1];
    char *end = b->script.text + b->n_text;

    if (line.n == 0)
        return;
    if (end > turn->text) {
        *end++ = ' ';
        b->n_text++;
    }
    memcpy(end, line.s, line.n);
    b->n_text += line.n;
}

/*
 * Hand the script over, with the speaker of an anonymous beginning named, or
 * say why there is none.
 */
static int finish(struct vibe_script *out, struct builder *b, const char *empty)
{
    struct vibe_script *script = &b->script;

    if (script->n_turns == 0)
        return vibe_fail(b->err, VIBE_E_FORMAT, "%s: %s", b->name, empty);
    close_turn(b);
    script->lowest = VIBE_SCRIPT_MAX_SPEAKER + 1;
    for (size_t i = 0; i < script->n_turns; i++) {
        int speaker = script->turns[i].speaker;

        if (speaker != UNKNOWN && speaker < script->lowest)
            script->lowest = speaker;
    }
    if (script->lowest > VIBE_SCRIPT_MAX_SPEAKER)
        script->lowest = VIBE_SCRIPT_PLAIN_SPEAKER;
    if (script->turns[0].speaker == UNKNOWN)
        script->turns[0].speaker = script->lowest;

    *out = *script;
    *script = (struct vibe_script){0}; /* now owned by *out */
    return VIBE_OK;
}

static int out_of_range(const struct builder *b, const char *what, size_t at)
{
    return vibe_fail(b->err, VIBE_E_FORMAT,
                     "%s: %s %zu: the speaker is not from 0 to %d", b->name,
                     what, at, VIBE_SCRIPT_MAX_SPEAKER);
}

/* Check the encoding and drop a byte-order mark. */
static int check_encoding(struct span *text, const char *name,
                          struct vibe_error *err)
{
    size_t valid = vibe_utf8_check(text->s, text->n);
    const char *nul = memchr(text->s, '\0', valid);

    if (text->n > VIBE_SCRIPT_MAX_BYTES)
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: %zu bytes, more than the %d a script may have",
                         name, text->n, VIBE_SCRIPT_MAX_BYTES);
    if (nul)
        return vibe_fail(err, VIBE_E_FORMAT, "%s: not text (NUL at byte %zu)",
                         name, (size_t)(nul - text->s));
    if (text->n >= 2 && (memcmp(text->s, "\xFF\xFE", 2) == 0 ||
                         memcmp(text->s, "\xFE\xFF", 2) == 0))
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: UTF-16, expected UTF-8 (save it as that)", name);
    if (valid < text->n)
        return vibe_fail(err, VIBE_E_FORMAT, "%s: not UTF-8 (byte %zu)", name,
                         valid);
    if (text->n >= 3 && memcmp(text->s, "\xEF\xBB\xBF", 3) == 0) {
        text->s += 3;
        text->n -= 3;
    }
    return VIBE_OK;
}

static int take_line(struct builder *b, struct span line, size_t number)
{
    int speaker = take_header(&line);
    int rc = VIBE_OK;

    if (speaker > VIBE_SCRIPT_MAX_SPEAKER)
        return out_of_range(b, "line", number);
    if (speaker >= 0)
        rc = open_turn(b, speaker, number);
    else if (b->script.n_turns == 0)
        rc = open_turn(b, UNKNOWN, number);
    if (!rc)
        append(b, line);
    return rc;
}

int vibe_script_parse_text(struct vibe_script *out, const char *name,
                           const char *text, size_t n, struct vibe_error *err)
{
    struct builder b = {.name = name, .err = err};
    struct span rest = {.s = text, .n = n};
    int rc;

    rc = check_encoding(&rest, name, err);
    if (!rc)
        rc = start(&b, rest.n);
    for (size_t number = 1; !rc && rest.n > 0; number++) {
        struct span line = trim(next_line(&rest));

        if (line.n > 0)
            rc = take_line(&b, line, number);
    }
    if (!rc)
        rc = finish(out, &b, "no \"Speaker N:\" lines and no text");
    vibe_script_release(&b.script);
    return rc;
}

/* The speaker of an object as take_number has it; -1 when it has none. */
static int json_speaker(const json_t *value)
{
    struct span text = {0};
    int number;

    if (json_is_integer(value)) {
        json_int_t id = json_integer_value(value);

        if (id < 0 || id > VIBE_SCRIPT_MAX_SPEAKER)
            return VIBE_SCRIPT_MAX_SPEAKER + 1;
        return (int)id;
    }
    if (!json_is_string(value))
        return -1;
    text.s = json_string_value(value);
    text.n = json_string_length(value);
    text = trim(text);
    number = take_number(&text);
    return text.n == 0 ? number : -1;
}

static int take_object(struct builder *b, const json_t *object, size_t number)
{
    const json_t *value = json_object_get(object, "text");
    int speaker = json_speaker(json_object_get(object, "speaker"));
    struct span rest = {json_string_value(value), json_string_length(value)};
    int rc;

    if (speaker < 0)
        return vibe_fail(b->err, VIBE_E_FORMAT,
                         "%s: entry %zu: no \"speaker\" that is a number",
                         b->name, number);
    if (speaker > VIBE_SCRIPT_MAX_SPEAKER)
        return out_of_range(b, "entry", number);
    if (!json_is_string(value))
        return vibe_fail(b->err, VIBE_E_FORMAT,
                         "%s: entry %zu: no \"text\" that is a string", b->name,
                         number);
    if (skip_blanks(rest).n == 0) {
        b->script.n_skipped++;
        return VIBE_OK;
    }
    rc = open_turn(b, speaker, number);
    while (!rc && rest.n > 0)
        append(b, trim(next_line(&rest)));
    return rc;
}

static int take_array(struct builder *b, const json_t *array)
{
    size_t i;
    json_t *object;
    int rc = VIBE_OK;

    if (!json_is_array(array))
        return vibe_fail(b->err, VIBE_E_FORMAT,
                         "%s: not a list of {\"speaker\", \"text\"}", b->name);
    json_array_foreach(array, i, object)
    {
        rc = take_object(b, object, i + 1);
        if (rc)
            break;
    }
    return rc;
}

int vibe_script_parse_json(struct vibe_script *out, const char *name,
                           const char *text, size_t n, struct vibe_error *err)
{
    struct builder b = {.name = name, .err = err};
    struct span span = {.s = text, .n = n};
    json_error_t why;
    json_t *root = NULL;
    int rc;

    rc = check_encoding(&span, name, err);
    if (!rc)
        rc = start(&b, span.n);
    if (rc)
        goto out;
    root = json_loadb(span.s, span.n, JSON_REJECT_DUPLICATES, &why);
    if (!root) {
        rc = vibe_fail(err, VIBE_E_FORMAT, "%s:%d:%d: %s", name, why.line,
                       why.column, why.text);
        goto out;
    }
    rc = take_array(&b, root);
    if (!rc)
        rc = finish(out, &b, "no entry has any text");

out:
    json_decref(root);
    vibe_script_release(&b.script);
    return rc;
}

/* JSON from standard input has no name to tell it by. */
static bool looks_like_json(const char *text, size_t n)
{
    struct span span = {.s = text, .n = n};
    json_t *root;

    if (check_encoding(&span, "", NULL))
        return false;
    span = skip_blanks(span);
    if (span.n == 0 || span.s[0] != '[')
        return false;
    root = json_loadb(span.s, span.n, 0, NULL);
    json_decref(root);
    return root != NULL;
}

int vibe_script_read(struct vibe_script *out, const char *path,
                     struct vibe_error *err)
{
    const bool is_stdin = strcmp(path, "-") == 0;
    const char *name = is_stdin ? "standard input" : path;
    size_t n_path = strlen(path);
    bool is_json = n_path >= 5 && strcasecmp(path + n_path - 5, ".json") == 0;
    char *text;
    size_t n;
    int rc;

    rc = vibe_read_file(&text, &n, path, VIBE_SCRIPT_MAX_BYTES, err);
    if (rc)
        return rc;
    if (is_stdin)
        is_json = looks_like_json(text, n);
    if (is_json)
        rc = vibe_script_parse_json(out, name, text, n, err);
    else
        rc = vibe_script_parse_text(out, name, text, n, err);
    free(text);
    return rc;
}

int vibe_script_number(const struct vibe_script *script, int speaker)
{
    return script->lowest > 0 ? speaker - 1 : speaker;
}

size_t vibe_script_speakers(const struct vibe_script *script, int *ids,
                            size_t cap)
{
    bool speaks[VIBE_SCRIPT_MAX_SPEAKER + 1] = {false};
    size_t n = 0;

    for (size_t i = 0; i < script->n_turns; i++)
        speaks[script->turns[i].speaker] = true;
    for (int id = 0; id <= VIBE_SCRIPT_MAX_SPEAKER; id++) {
        if (!speaks[id])
            continue;
        if (n < cap)
            ids[n] = id;
        n++;
    }
    return n;
}

void vibe_script_release(struct vibe_script *script)
{
    free(script->turns);
    free(script->text);
    *script = (struct vibe_script){0};
}
