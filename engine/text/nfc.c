#include "engine/text/nfc.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/base/error.h"
#include "engine/text/utf8.h"

/*
 * Characters that NFC leaves alone whatever stands beside them, unless one
 * outside these ranges does.  Not all of them: Latin, CJK and their
 * punctuation, which is what most texts consist of.
 */
static bool is_inert(uint32_t cp)
{
    return cp < 0x300 || (cp >= 0x4E00 && cp <= 0x9FFF) ||
           (cp >= 0x2010 && cp <= 0x2027) || (cp >= 0x3001 && cp <= 0x3029) ||
           (cp >= 0xFF01 && cp <= 0xFFEF);
}

static bool is_nfc_at_a_glance(const char *s, size_t n)
{
    size_t at = 0;
    uint32_t cp;

    while (at < n) {
        at += vibe_utf8_decode(&cp, s + at, n - at);
        if (!is_inert(cp))
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

int vibe_nfc(char **out, size_t *n_out, const char *s, size_t n,
             struct vibe_error *err)
{
    const utf8proc_option_t nfc = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    char *joined = NULL;
    size_t n_joined = 0;

    *out = NULL;
    *n_out = n;
    if (is_nfc_at_a_glance(s, n))
        return VIBE_OK;

    for (size_t at = 0; at < n;) {
        size_t len = before_u11a7(s + at, n - at);
        utf8proc_uint8_t *part = NULL;
        utf8proc_ssize_t got;
        char *grown = NULL;

        got = utf8proc_map((const utf8proc_uint8_t *)s + at,
                           (utf8proc_ssize_t)len, &part, nfc);
        if (got >= 0)
            grown = realloc(joined, n_joined + (size_t)got + 1);
        if (!grown) {
            free(part);
            free(joined);
            return vibe_fail(err, VIBE_E_NOMEM,
                             "no memory to normalise %zu bytes of text", n);
        }
        joined = grown;
        memcpy(joined + n_joined, part, (size_t)got);
        n_joined += (size_t)got;
        free(part);
        at += len;
    }

    *out = joined;
    *n_out = n_joined;
    return VIBE_OK;
}
