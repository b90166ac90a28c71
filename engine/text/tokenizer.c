#include "engine/text/tokenizer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/base/error.h"
#include "engine/text/nfc.h"
#include "engine/text/pretokenize.h"
#include "engine/text/tokenizer_build.h"
#include "engine/text/utf8.h"

enum {
    /* NFC makes a text up to three times as long; that must fit an int32_t. */
    MAX_TEXT = 256 << 20,
};

/* The longest added token that s[n] begins with, or NULL. */
static const struct vibe_added_token *added_at(
    const struct vibe_tokenizer *tokenizer, const char *s, size_t n)
{
    if (!tokenizer->starts_added[(unsigned char)s[0]])
        return NULL;
    for (size_t i = 0; i < tokenizer->n_added; i++) {
        const struct vibe_added_token *token = &tokenizer->added[i];

        if (token->n <= n && memcmp(token->text, s, token->n) == 0)
            return token;
    }
    return NULL;
}

/* Bytes of s[n] before the first added token, which *token is set to. */
static size_t plain_run(const struct vibe_added_token **token,
                        const struct vibe_tokenizer *tokenizer, const char *s,
                        size_t n)
{
    *token = NULL;
    for (size_t at = 0; at < n; at++) {
        *token = added_at(tokenizer, s + at, n - at);
        if (*token)
            return at;
    }
    return n;
}

/* Encode text without added tokens. */
static int encode_plain(const struct vibe_tokenizer *tokenizer,
                        struct vibe_bpe_scratch *scratch, struct vibe_ids *out,
                        const char *text, size_t n, struct vibe_error *err)
{
    char *normal = NULL;
    int rc = VIBE_OK;

    if (tokenizer->is_nfc)
        rc = vibe_nfc(&normal, &n, text, n, err);
    if (normal)
        text = normal;
    for (size_t at = 0, len; !rc && at < n; at += len) {
        len = vibe_pretokenize_next(text + at, n - at);
        rc = vibe_bpe_encode(&tokenizer->bpe, scratch, out, text + at, len,
                             err);
    }
    free(normal);
    return rc;
}

int vibe_tokenizer_encode(const struct vibe_tokenizer *tokenizer,
                          struct vibe_ids *out, const char *text, size_t n,
                          enum vibe_special special, struct vibe_error *err)
{
    const struct vibe_added_token *token = NULL;
    struct vibe_bpe_scratch scratch = {0};
    const size_t n_before = out->n;
    size_t n_valid, len;
    int rc = VIBE_OK;

    if (n > MAX_TEXT)
        return vibe_fail(err, VIBE_E_UNSUPPORTED,
                         "a text of %zu bytes; at most %d can be tokenized", n,
                         (int)MAX_TEXT);
    n_valid = vibe_utf8_check(text, n);
    if (n_valid < n)
        return vibe_fail(err, VIBE_E_FORMAT, "not UTF-8 (byte %zu)", n_valid);

    for (size_t at = 0; !rc && at < n; at += len) {
        len = n - at;
        if (special == VIBE_SPECIAL_PARSE)
            len = plain_run(&token, tokenizer, text + at, n - at);
        rc = encode_plain(tokenizer, &scratch, out, text + at, len, err);
        if (rc || !token)
            continue;
        len += token->n;
        rc = vibe_ids_push(out, token->id, err);
    }

    if (rc)
        out->n = n_before;
    vibe_bpe_scratch_release(&scratch);
    return rc;
}

int32_t vibe_tokenizer_id(const struct vibe_tokenizer *tokenizer,
                          const char *spelling)
{
    size_t n = strlen(spelling);

    for (size_t i = 0; i < tokenizer->n_added; i++) {
        const struct vibe_added_token *token = &tokenizer->added[i];

        if (token->n == n && memcmp(token->text, spelling, n) == 0)
            return token->id;
    }
    return -1;
}

size_t vibe_tokenizer_n_vocab(const struct vibe_tokenizer *tokenizer)
{
    return tokenizer->vocab.n_ids;
}

const char *vibe_tokenizer_piece(const struct vibe_tokenizer *tokenizer,
                                 int32_t id)
{
    return vibe_vocab_piece(&tokenizer->vocab, id);
}

static bool is_added(const struct vibe_tokenizer *tokenizer, int32_t id)
{
    for (size_t i = 0; i < tokenizer->n_added; i++)
        if (tokenizer->added[i].id == id)
            return true;
    return false;
}

size_t vibe_tokenizer_decode(const struct vibe_tokenizer *tokenizer, char *out,
                             size_t cap, int32_t id)
{
    const char *piece = vibe_tokenizer_piece(tokenizer, id);
    size_t n = piece ? strlen(piece) : 0;
    size_t n_out = 0;
    uint32_t cp;

    if (!piece)
        return 0;
    if (is_added(tokenizer, id)) {
        if (cap > 0)
            memcpy(out, piece, n < cap ? n : cap);
        return n;
    }
    for (size_t at = 0; at < n; n_out++) {
        at += vibe_utf8_decode(&cp, piece + at, n - at);
        if (n_out < cap)
            out[n_out] = (char)vibe_vocab_char_byte(cp);
    }
    return n_out;
}

void vibe_tokenizer_free(struct vibe_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    vibe_vocab_release(&tokenizer->vocab);
    vibe_bpe_release(&tokenizer->bpe);
    free(tokenizer->added);
    free(tokenizer);
}
