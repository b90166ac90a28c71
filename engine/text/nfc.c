#include "engine/text/nfc.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/base/error.h"
#include "engine/text/utf8.h"

/*
 * Characters that NFC leaves alone among their like: they do not decompose,
 * reorder or join the character before them.  Not all such, but those that
 * most texts consist of.
 */
static const struct {
    uint32_t first, last;
} settled[] = {
    {0, 0x2FF},        /* Latin */
    {0x4E00, 0x9FFF},  /* ideographs */
    {0x3001, 0x3029},  /* CJK punctuation */
    {0xFF01, 0xFFEF},  /* full-width forms */
    {0x3041, 0x3096},  /* hiragana */
    {0x30A0, 0x30FF},  /* katakana */
    {0xAC00, 0xD7A3},  /* Hangul syllables */
    {0x2010, 0x2027},  /* punctuation */
    {0x2030, 0x205E},  /* punctuation */
    {0x388, 0x482},    /* Greek, Cyrillic */
    {0x1E00, 0x1EFF},  /* Latin, Vietnamese */
    {0x2190, 0x2328},  /* arrows, mathematics */
    {0x2500, 0x27BF},  /* boxes, symbols */
    {0x1F300, 0x1FAFF} /* emoji */
};

static bool is_settled(uint32_t cp)
{
    for (size_t i = 0; i < sizeof(settled) / sizeof(*settled); i++)
        if (cp >= settled[i].first && cp <= settled[i].last)
            return true;
    return false;
}

static bool is_nfc_at_a_glance(const char *s, size_t n)
{
    size_t at = 0;
    uint32_t cp;

    while (at < n) {
        at += vibe_utf8_decode(&cp, s + at, n - at);
        if (!is_settled(cp))
            return false;
    }
    return true;
}

/*
 * utf8proc 2.8 drops U+11A7 after a Hangul LV syllable: it takes the vowel
 * for the empty trailing consonant, one code point before the first real one.
 * U+11A7 neither decomposes nor composes nor reorders, so normalising what
 * stands before it on its own is exact, and keeps the two apart.
 */
static size_t before_u11a7(const char *s, size_t n)
{
    const char *found = n > 1 ? memmem(s + 1, n - 1, "\xE1\x86\xA7", 3) : NULL;

    return found ? (size_t)(found - s) : n;
}

/* Bytes that can be normalised without the rest of s[n]: a line, mostly. */
static size_t next_part(const char *s, size_t n)
{
    const char *newline = memchr(s, '\n', n);

    return before_u11a7(s, newline ? (size_t)(newline - s) + 1 : n);
}

struct buffer {
    char *bytes; /* owned */
    size_t n;
    size_t cap;
};

static int append(struct buffer *out, const char *s, size_t n)
{
    size_t cap = 2 * out->cap;
    char *grown;

    if (n == 0)
        return 0;
    if (n > out->cap - out->n) {
        if (cap < out->n + n)
            cap = out->n + n;
        grown = realloc(out->bytes, cap);
        if (!grown)
            return 1;
        out->bytes = grown;
        out->cap = cap;
    }
    memcpy(out->bytes + out->n, s, n);
    out->n += n;
    return 0;
}

/* Append s[n], normalised, to out. */
static int append_nfc(struct buffer *out, const char *s, size_t n)
{
    utf8proc_uint8_t *normal = NULL;
    utf8proc_ssize_t len;
    int rc = 1;

    if (is_nfc_at_a_glance(s, n))
        return append(out, s, n);
    len = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n,
                       &normal, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (len >= 0)
        rc = append(out, (const char *)normal, (size_t)len);
    free(normal);
    return rc;
}

int vibe_nfc(char **out, size_t *n_out, const char *s, size_t n,
             struct vibe_error *err)
{
    struct buffer normal = {0};

    *out = NULL;
    *n_out = n;
    if (is_nfc_at_a_glance(s, n))
        return VIBE_OK;

    for (size_t at = 0, len; at < n; at += len) {
        len = next_part(s + at, n - at);
        if (append_nfc(&normal, s + at, len) == 0)
            continue;
        free(normal.bytes);
        return vibe_fail(err, VIBE_E_NOMEM,
                         "no memory to normalise %zu bytes of text", n);
    }
    *out = normal.bytes;
    *n_out = normal.n;
    return VIBE_OK;
}
