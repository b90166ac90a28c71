/*
 * utf8.h - checking and walking UTF-8, and the blanks of Unicode.
 *
 * Lengths and offsets count bytes; texts need no terminator.
 */
#ifndef VIBE_TEXT_UTF8_H
#define VIBE_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Return the offset of the first byte of s[n] that is not UTF-8, or n. */
size_t vibe_utf8_check(const char *s, size_t n);

/*
 * Decode the character at the start of s[n] into *cp; return its bytes.
 *
 *   s        valid UTF-8 at a character boundary
 *   n        > 0
 */
size_t vibe_utf8_decode(uint32_t *cp, const char *s, size_t n);

/* Return the length of the longest prefix of valid s[n] within max bytes. */
size_t vibe_utf8_cut(const char *s, size_t n, size_t max);

/*
 * Tell whether cp is one of the 25 characters of \s: the Unicode property
 * White_Space, which U+180E left in Unicode 6.3.
 */
bool vibe_utf8_is_space(uint32_t cp);

#endif /* VIBE_TEXT_UTF8_H */
