#include "engine/text/tokenizer_build.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/base/error.h"
#include "engine/text/utf8.h"

enum { QUOTE = 40 }; /* bytes of a piece that a message shows */

struct builder {
    struct vibe_tokenizer *tokenizer;
    const struct vibe_tokenizer_source *source;
    bool *is_reached; /* [n_ids] a byte, a merge or an added token makes it */
    size_t n_base;    /* ids of the vocabulary proper are below this */
    struct vibe_error *err;
};

/* Bytes of a piece to show in a message. */
static int shown(const char *piece, size_t n)
{
    return (int)vibe_utf8_cut(piece, n, QUOTE);
}

/* Check the ids of vocabulary and added tokens; size the vocabulary. */
static int measure(struct builder *b, size_t *n_ids, size_t *n_bytes)
{
    const struct vibe_tokenizer_source *source = b->source;
    const size_t n_most = json_object_size(source->vocab) + source->n_added;
    const char *piece;
    json_t *value;

    *n_bytes = 0;
    json_object_foreach((json_t *)source->vocab, piece, value)
    {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;

        /* Ids have no gaps, so none can be larger than this. */
        if (id < 0 || (size_t)id >= n_most || id >= VIBE_TOKENIZER_MAX_IDS)
            return vibe_fail(
                b->err, VIBE_E_FORMAT,
                "%s: the id of \"%.*s\" is not a whole number from 0 to %zu",
                source->vocab_name, shown(piece, strlen(piece)), piece,
                n_most - 1);
        if ((size_t)id >= b->n_base)
            b->n_base = (size_t)id + 1;
        *n_bytes += strlen(piece) + 1;
    }

    *n_ids = b->n_base;
    for (size_t i = 0; i < source->n_added; i++) {
        const struct vibe_added_token *added = &source->added[i];

        if ((size_t)added->id >= *n_ids)
            *n_ids = (size_t)added->id + 1;
        *n_bytes += added->n + 1;
    }
    return VIBE_OK;
}

static int add_entries(struct builder *b)
{
    struct vibe_vocab *vocab = &b->tokenizer->vocab;
    const char *piece;
    json_t *value;

    json_object_foreach((json_t *)b->source->vocab, piece, value)
    {
        int32_t id = (int32_t)json_integer_value(value);
        const char *owner = vibe_vocab_piece(vocab, id);

        if (owner)
            return vibe_fail(b->err, VIBE_E_FORMAT,
                             "%s: \"%.*s\" and \"%.*s\" both have id %d",
                             b->source->vocab_name, shown(owner, strlen(owner)),
                             owner, shown(piece, strlen(piece)), piece, id);
        vibe_vocab_add(vocab, piece, strlen(piece), id);
    }
    return VIBE_OK;
}

/* Added tokens may stand in the vocabulary too, under the same id. */
static int add_token(struct builder *b, const struct vibe_added_token *added)
{
    struct vibe_vocab *vocab = &b->tokenizer->vocab;
    int32_t known = vibe_vocab_find(vocab, added->text, added->n, "", 0);
    const char *owner = vibe_vocab_piece(vocab, added->id);

    if (known >= 0 && known != added->id)
        return vibe_fail(b->err, VIBE_E_FORMAT,
                         "%s: added token \"%.*s\" has id %d, but also id %d",
                         b->source->added_name, shown(added->text, added->n),
                         added->text, added->id, known);
    if (known < 0 && owner)
        return vibe_fail(
            b->err, VIBE_E_FORMAT,
            "%s: added token \"%.*s\" has id %d, which is that of \"%.*s\"",
            b->source->added_name, shown(added->text, added->n), added->text,
            added->id, shown(owner, strlen(owner)), owner);
    if (known < 0)
        vibe_vocab_add(vocab, added->text, added->n, added->id);
    b->is_reached[added->id] = true;
    return VIBE_OK;
}

static int compare_added(const void *a, const void *b)
{
    const struct vibe_added_token *left = a;
    const struct vibe_added_token *right = b;

    if (left->n != right->n)
        return left->n > right->n ? -1 : 1;
    return (left->id > right->id) - (left->id < right->id);
}

static int add_tokens(struct builder *b)
{
    struct vibe_tokenizer *t = b->tokenizer;
    size_t n = b->source->n_added;

    t->added = calloc(n + 1, sizeof(*t->added));
    if (!t->added)
        return vibe_fail(b->err, VIBE_E_NOMEM, "no memory for %zu added tokens",
                         n);
    for (size_t i = 0; i < n; i++) {
        struct vibe_added_token token = b->source->added[i];
        int rc = add_token(b, &token);

        if (rc)
            return rc;
        token.text = vibe_vocab_piece(&t->vocab, token.id);
        t->starts_added[(unsigned char)token.text[0]] = true;
        t->added[t->n_added++] = token;
    }
    qsort(t->added, n, sizeof(*t->added), compare_added);
    return VIBE_OK;
}

/* Gaps are looked for below the vocabulary's end, where each is a loss. */
static int check_gaps(const struct builder *b)
{
    for (size_t id = 0; id < b->n_base; id++)
        if (!vibe_vocab_piece(&b->tokenizer->vocab, (int32_t)id))
            return vibe_fail(
                b->err, VIBE_E_FORMAT,
                "%s: no entry has id %zu, though ids run from 0 to %zu",
                b->source->vocab_name, id, b->n_base - 1);
    return VIBE_OK;
}

static int find_bytes(struct builder *b)
{
    for (int byte = 0; byte < 256; byte++) {
        uint32_t cp = vibe_vocab_byte_char((unsigned char)byte);
        utf8proc_uint8_t utf8[4];
        size_t n = (size_t)utf8proc_encode_char((utf8proc_int32_t)cp, utf8);
        int32_t id = vibe_vocab_find(&b->tokenizer->vocab, (const char *)utf8,
                                     n, "", 0);

        if (id < 0)
            return vibe_fail(b->err, VIBE_E_FORMAT,
                             "%s: no entry for byte 0x%02X (\"%.*s\")",
                             b->source->vocab_name, (unsigned)byte, (int)n,
                             (const char *)utf8);
        b->tokenizer->bpe.byte_id[byte] = id;
        b->is_reached[id] = true;
    }
    return VIBE_OK;
}

/* Where the merge stands: "merges.txt: line 7" or "tokenizer.json: merge 7". */
static int fail_merge(const struct builder *b, size_t at, const char *what,
                      const char *piece, size_t n)
{
    return vibe_fail(b->err, VIBE_E_FORMAT, "%s: %s %zu: \"%.*s\" %s",
                     b->source->merges_name,
                     b->source->merge_list ? "merge" : "line", at,
                     shown(piece, n), piece, what);
}

/* Add the merge that is spelt "left right" in pair[n]. */
static int add_merge(struct builder *b, size_t at, const char *pair, size_t n)
{
    const struct vibe_vocab *vocab = &b->tokenizer->vocab;
    struct vibe_bpe *bpe = &b->tokenizer->bpe;
    const size_t rank = bpe->n_merges;
    const char *space = memchr(pair, ' ', n);
    size_t n_left = space ? (size_t)(space - pair) : n;
    size_t n_right = space ? n - n_left - 1 : 0;
    const char *second = pair + n - n_right;
    int32_t left, right, made;

    if (n_left == 0 || n_right == 0 || memchr(second, ' ', n_right))
        return fail_merge(b, at, "is not two pieces with a space between them",
                          pair, n);
    left = vibe_vocab_find(vocab, pair, n_left, "", 0);
    if (left < 0)
        return fail_merge(b, at, "is not in the vocabulary", pair, n_left);
    right = vibe_vocab_find(vocab, second, n_right, "", 0);
    if (right < 0)
        return fail_merge(b, at, "is not in the vocabulary", second, n_right);
    made = vibe_vocab_find(vocab, pair, n_left, second, n_right);
    if (made < 0)
        return fail_merge(b, at, "makes what is not in the vocabulary", pair,
                          n);
    if (vibe_bpe_add(bpe, left, right, made) != rank)
        return fail_merge(b, at, "was there before", pair, n);
    b->is_reached[made] = true;
    return VIBE_OK;
}

static int add_merge_text(struct builder *b)
{
    const struct vibe_text_file *file = &b->source->merge_text;
    size_t line = 1;

    for (size_t at = 0; at < file->n; line++) {
        const char *s = file->data + at;
        const char *newline = memchr(s, '\n', file->n - at);
        size_t n = newline ? (size_t)(newline - s) : file->n - at;
        int rc = VIBE_OK;

        at += n + 1;
        if (n > 0 && s[n - 1] == '\r')
            n--;
        if (line == 1 && n >= 8 && memcmp(s, "#version", 8) == 0)
            continue;
        if (n > 0)
            rc = add_merge(b, line, s, n);
        if (rc)
            return rc;
    }
    return VIBE_OK;
}

/* A merge is "left right" in older files and ["left", "right"] in newer. */
static int add_listed_merge(struct builder *b, size_t at, const json_t *merge)
{
    const json_t *left = json_array_get(merge, 0);
    const json_t *right = json_array_get(merge, 1);
    size_t n = json_string_length(left) + 1 + json_string_length(right);
    char *pair;
    int rc;

    if (json_is_string(merge))
        return add_merge(b, at, json_string_value(merge),
                         json_string_length(merge));
    if (!json_is_string(left) || !json_is_string(right) ||
        json_array_size(merge) != 2)
        return vibe_fail(b->err, VIBE_E_FORMAT,
                         "%s: merge %zu is neither a string nor two",
                         b->source->merges_name, at);

    pair = malloc(n + 1);
    if (!pair)
        return vibe_fail(b->err, VIBE_E_NOMEM, "no memory for merge %zu", at);
    memcpy(pair, json_string_value(left), json_string_length(left));
    pair[json_string_length(left)] = ' ';
    memcpy(pair + n - json_string_length(right), json_string_value(right),
           json_string_length(right));
    rc = add_merge(b, at, pair, n);
    free(pair);
    return rc;
}

static int add_merge_list(struct builder *b)
{
    size_t i;
    json_t *merge;

    json_array_foreach(b->source->merge_list, i, merge)
    {
        int rc = add_listed_merge(b, i + 1, merge);

        if (rc)
            return rc;
    }
    return VIBE_OK;
}

static size_t count_merges(const struct vibe_tokenizer_source *source)
{
    const struct vibe_text_file *file = &source->merge_text;
    size_t n = 1;

    if (source->merge_list)
        return json_array_size(source->merge_list);
    for (size_t i = 0; i < file->n; i++)
        n += file->data[i] == '\n';
    return n;
}

/* An entry that nothing makes means that merges are missing. */
static int check_reached(const struct builder *b)
{
    const char *piece;
    size_t n_lost = 0;
    size_t lost = 0;

    for (size_t id = b->n_base; id-- > 0;) {
        if (b->is_reached[id])
            continue;
        lost = id;
        n_lost++;
    }
    if (n_lost == 0)
        return VIBE_OK;
    piece = vibe_vocab_piece(&b->tokenizer->vocab, (int32_t)lost);
    return vibe_fail(b->err, VIBE_E_FORMAT,
                     "%s: %zu of %zu entries of %s come from no merge, first "
                     "\"%.*s\" (id %zu)",
                     b->source->merges_name, n_lost, b->n_base,
                     b->source->vocab_name, shown(piece, strlen(piece)), piece,
                     lost);
}

static int fill(struct builder *b)
{
    int rc;

    rc = add_entries(b);
    if (!rc)
        rc = add_tokens(b);
    if (!rc)
        rc = check_gaps(b);
    if (!rc)
        rc = find_bytes(b);
    if (!rc && b->source->merge_list)
        rc = add_merge_list(b);
    else if (!rc)
        rc = add_merge_text(b);
    if (!rc)
        rc = check_reached(b);
    return rc;
}

int vibe_tokenizer_build(struct vibe_tokenizer *tokenizer,
                         const struct vibe_tokenizer_source *source,
                         struct vibe_error *err)
{
    struct builder b = {.tokenizer = tokenizer, .source = source, .err = err};
    size_t n_ids = 0;
    size_t n_bytes = 0;
    int rc;

    tokenizer->is_nfc = source->is_nfc;
    rc = measure(&b, &n_ids, &n_bytes);
    if (rc)
        return rc;
    rc = vibe_vocab_init(&tokenizer->vocab, n_ids, n_bytes, err);
    if (rc)
        return rc;
    rc = vibe_bpe_init(&tokenizer->bpe, count_merges(source), err);
    if (rc)
        return rc;
    b.is_reached = calloc(n_ids + 1, sizeof(*b.is_reached));
    if (!b.is_reached)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu ids", n_ids);
    rc = fill(&b);
    free(b.is_reached);
    return rc;
}
