#include "engine/text/utf8.h"

#include <assert.h>
#include <string.h>
#include <utf8proc.h>

/* Length of the leading run of ASCII, in whole groups of eight. */
static size_t ascii_run(const char *s, size_t n)
{
    size_t at = 0;
    uint64_t eight;

    while (n - at >= sizeof(eight)) {
        memcpy(&eight, s + at, sizeof(eight));
        if (eight & 0x8080808080808080u)
            break;
        at += sizeof(eight);
    }
    return at;
}

size_t vibe_utf8_check(const char *s, size_t n)
{
    size_t at = ascii_run(s, n);

    while (at < n) {
        utf8proc_int32_t cp;
        utf8proc_ssize_t len;

        len = utf8proc_iterate((const utf8proc_uint8_t *)s + at,
                               (utf8proc_ssize_t)(n - at), &cp);
        if (len <= 0)
            break;
        at += (size_t)len;
        if (cp < 0x80)
            at += ascii_run(s + at, n - at);
    }
    return at;
}

size_t vibe_utf8_decode(uint32_t *cp, const char *s, size_t n)
{
    utf8proc_int32_t decoded;
    utf8proc_ssize_t len;

    if ((unsigned char)s[0] < 0x80) {
        *cp = (unsigned char)s[0];
        return 1;
    }
    len = utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n,
                           &decoded);
    assert(len > 0);
    *cp = (uint32_t)decoded;
    return (size_t)len;
}

size_t vibe_utf8_cut(const char *s, size_t n, size_t max)
{
    if (n <= max)
        return n;
    while (max > 0 && ((unsigned char)s[max] & 0xC0) == 0x80)
        max--;
    return max;
}

bool vibe_utf8_is_space(uint32_t cp)
{
    if (cp < 0x80)
        return cp == ' ' || (cp >= '\t' && cp <= '\r');
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202F || cp == 0x205F || cp == 0x3000;
}
