#include "engine/text/pretokenize.h"

#include <assert.h>
#include <stdbool.h>
#include <utf8proc.h>

#include "engine/text/utf8.h"

const char *const vibe_pretokenize_pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* What the pattern tells apart; one bit each, so that sets are masks. */
enum kind {
    END = 0,
    LETTER = 1,
    NUMBER = 2,
    NEWLINE = 4, /* \r and \n */
    BLANK = 8,   /* the rest of \s */
    MARK = 16,   /* everything else */
};

struct rune {
    uint32_t cp;
    enum kind kind;
    size_t len; /* 0 at the end of the text */
};

static enum kind kind_of(uint32_t cp)
{
    if (cp == '\r' || cp == '\n')
        return NEWLINE;
    if (vibe_utf8_is_space(cp))
        return BLANK;
    if (cp < 0x80 && (cp | 0x20) >= 'a' && (cp | 0x20) <= 'z')
        return LETTER;

    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return NUMBER;
    default:
        return MARK;
    }
}

static struct rune rune_at(const char *s, size_t n, size_t at)
{
    struct rune r = {0};

    if (at < n) {
        r.len = vibe_utf8_decode(&r.cp, s + at, n - at);
        r.kind = kind_of(r.cp);
    }
    return r;
}

/* End of the run, from at, of characters whose kind is in the mask. */
static size_t run(const char *s, size_t n, size_t at, unsigned mask)
{
    struct rune r = rune_at(s, n, at);

    while (r.kind & mask) {
        at += r.len;
        r = rune_at(s, n, at);
    }
    return at;
}

/* Lower case of the letters that contractions are made of. */
static uint32_t fold(uint32_t cp)
{
    if (cp >= 'A' && cp <= 'Z')
        return cp + 0x20;
    return cp == 0x17F ? 's' : cp; /* the long s folds to s */
}

/* Length of the contraction at the start of s, or 0. */
static size_t contraction(const char *s, size_t n)
{
    struct rune a, b;

    if (s[0] != '\'')
        return 0;
    a = rune_at(s, n, 1);
    switch (fold(a.cp)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
        return 1 + a.len;
    }

    b = rune_at(s, n, 1 + a.len);
    switch (fold(a.cp) << 8 | fold(b.cp)) {
    case 'r' << 8 | 'e':
    case 'v' << 8 | 'e':
    case 'l' << 8 | 'l':
        return 1 + a.len + b.len;
    }
    return 0;
}

/* The last three alternatives: s begins with a blank or a newline. */
static size_t blanks(const char *s, size_t n)
{
    size_t end = 0;
    size_t last = 0;    /* where the last character of the run begins */
    size_t newline = 0; /* end of the last newline of the run */
    struct rune r = rune_at(s, n, 0);

    while (r.kind & (BLANK | NEWLINE)) {
        last = end;
        end += r.len;
        if (r.kind == NEWLINE)
            newline = end;
        r = rune_at(s, n, end);
    }
    if (newline > 0)
        return newline;
    if (end < n && last > 0)
        return last;
    return end;
}

size_t vibe_pretokenize_next(const char *s, size_t n)
{
    struct rune first, second;
    size_t marks, end;

    assert(n > 0);
    end = contraction(s, n);
    if (end > 0)
        return end;

    first = rune_at(s, n, 0);
    if (first.kind == LETTER)
        return run(s, n, 0, LETTER);
    if (first.kind == NUMBER)
        return first.len;

    second = rune_at(s, n, first.len);
    if (first.kind != NEWLINE && second.kind == LETTER)
        return run(s, n, first.len, LETTER);

    marks = first.cp == ' ' ? 1 : 0;
    end = run(s, n, marks, MARK);
    if (end > marks)
        return run(s, n, end, NEWLINE);
    return blanks(s, n);
}
