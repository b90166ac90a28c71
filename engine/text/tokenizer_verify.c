#include "engine/text/tokenizer_verify.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>

#include "engine/base/error.h"
#include "engine/text/read_file.h"
#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"

enum {
    MAX_FILE = 256 << 20,
    EXCERPT = 60, /* bytes of a text that a mismatch shows */
};

static int read_vectors(json_t **out, const char *path, struct vibe_error *err)
{
    json_error_t why;
    char *data;
    size_t n;
    int rc = vibe_read_file(&data, &n, path, MAX_FILE, err);

    *out = NULL;
    if (rc)
        return rc;
    *out = json_loadb(data, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    free(data);
    if (!*out)
        return vibe_fail(err, VIBE_E_FORMAT, "%s:%d:%d: %s", path, why.line,
                         why.column, why.text);
    if (json_array_size(*out) == 0)
        return vibe_fail(err, VIBE_E_FORMAT, "%s: not a list of vectors", path);
    return VIBE_OK;
}

/* The recorded id at i, or -1 past the end. */
static json_int_t wanted(const json_t *ids, size_t i)
{
    const json_t *id = json_array_get(ids, i);

    return id ? json_integer_value(id) : -1;
}

static bool is_vector(const json_t *vector)
{
    const json_t *ids = json_object_get(vector, "ids");
    size_t i;
    json_t *id;

    if (!json_is_string(json_object_get(vector, "text")) || !json_is_array(ids))
        return false;
    json_array_foreach(ids, i, id)
    {
        json_int_t value = json_integer_value(id);

        if (!json_is_integer(id) || value < 0 || value > INT32_MAX)
            return false;
    }
    return true;
}

/* Index of the first difference; the common length when there is none. */
static size_t first_difference(const struct vibe_ids *got, const json_t *ids)
{
    size_t i = 0;

    while (i < got->n && got->ids[i] == wanted(ids, i))
        i++;
    return i;
}

/* Compare one vector, of which index is filled in; fill in the rest. */
static int compare(struct vibe_tokenizer_mismatch *how,
                   const struct vibe_tokenizer *tokenizer, const json_t *vector,
                   struct vibe_error *err)
{
    const json_t *text = json_object_get(vector, "text");
    const json_t *ids = json_object_get(vector, "ids");
    struct vibe_ids got = {0};
    size_t n = json_string_length(text);
    int rc;

    how->text = json_string_value(text);
    how->n_text = vibe_utf8_cut(how->text, n, EXCERPT);
    rc = vibe_tokenizer_encode(tokenizer, &got, how->text, n,
                               VIBE_SPECIAL_PARSE, err);
    if (!rc) {
        size_t i = first_difference(&got, ids);

        how->position = i;
        how->got = i < got.n ? got.ids[i] : -1;
        how->want = (int32_t)wanted(ids, i);
        how->n_got = got.n;
        how->n_want = json_array_size(ids);
    }
    vibe_ids_release(&got);
    return rc;
}

int vibe_tokenizer_verify(
    struct vibe_tokenizer_report *out, const struct vibe_tokenizer *tokenizer,
    const char *path,
    void (*mismatch)(void *ctx, const struct vibe_tokenizer_mismatch *how),
    void *ctx, struct vibe_error *err)
{
    struct vibe_tokenizer_report report = {0};
    json_t *vectors = NULL;
    size_t i;
    json_t *vector;
    int rc;

    rc = read_vectors(&vectors, path, err);
    if (rc)
        goto out;
    json_array_foreach(vectors, i, vector)
    {
        struct vibe_tokenizer_mismatch how = {.index = i};

        if (!is_vector(vector)) {
            rc = vibe_fail(err, VIBE_E_FORMAT,
                           "%s: entry %zu is not {\"text\": string, "
                           "\"ids\": list of ids}",
                           path, i);
            goto out;
        }
        rc = compare(&how, tokenizer, vector, err);
        if (rc)
            goto out;
        report.n_vectors++;
        if (how.got == how.want)
            report.n_equal++;
        else if (mismatch)
            mismatch(ctx, &how);
    }
    *out = report;

out:
    json_decref(vectors);
    return rc;
}
