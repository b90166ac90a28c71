/*
 * The scanner against the engine that the reference tokenizer uses, on random
 * strings over an alphabet of everything the pattern tells apart.
 */
#include <stdio.h>
#include <string.h>

#include "engine/text/pretokenize.h"
#include "tests/support/vibe_test.h"

static int setup(void **state)
{
    (void)state;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return 0;
}

#if __has_include(<oniguruma.h>)
#include <oniguruma.h>
#include <utf8proc.h>

enum { N_STRINGS = 200000, MAX_CHARS = 24 };

/* Characters assigned before Unicode 14, so that both tables know them. */
static const int32_t alphabet[] = {
    /* letters of contractions, and those that fold to them or nearly so */
    'a', 'Z', 's', 'S', 't', 'T', 'm', 'd', 'D', 'r', 'R', 'e', 'E', 'v', 'V',
    'l', 'L', '\'', '\'', '\'', 0x2019, 0x17F, 0x212A, 0xFB05,
    /* letters: ideographs, kana, Hangul, sharp s, dotted i, title, modifier */
    0x4E00, 0x4F60, 0x3042, 0xAC00, 0x11A7, 0xDF, 0x130, 0x131, 0x1C5, 0x2B0,
    0x10400,
    /* numbers: decimal digits, fraction, Roman numeral */
    '0', '7', 0x663, 0xFF11, 0x1D7D8, 0xBD, 0x2163,
    /* blanks, and what only looks like one */
    ' ', ' ', ' ', '\t', '\n', '\n', '\r', '\v', '\f', 0x85, 0xA0, 0x1680,
    0x2000, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0x1C, 0x1F, 0x180E,
    0x200B, 0x200D, 0xFEFF,
    /* marks: combining, punctuation, symbols, control, private, unassigned */
    0x301, 0x903, 0x20DD, '.', '!', '-', '_', '$', '+', '^', 0x2026, 0x3002,
    0xFF1A, 0x20AC, 0x1F642, 0xE0001, 0x01, 0xE000, 0x378};

/* splitmix64: the same strings on every machine. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static size_t random_string(char *out, uint64_t *rng)
{
    size_t n_chars = 1 + next_random(rng) % MAX_CHARS;
    size_t n = 0;

    for (size_t i = 0; i < n_chars; i++) {
        size_t pick = next_random(rng) % (sizeof(alphabet) / sizeof(*alphabet));

        n += (size_t)utf8proc_encode_char(alphabet[pick],
                                          (utf8proc_uint8_t *)out + n);
    }
    return n;
}

static regex_t *compile(void)
{
    const OnigUChar *pattern = (const OnigUChar *)vibe_pretokenize_pattern;
    OnigEncoding utf8 = ONIG_ENCODING_UTF8;
    regex_t *regex = NULL;

    assert_int_equal(onig_initialize(&utf8, 1), ONIG_NORMAL);
    assert_int_equal(onig_new(&regex, pattern,
                              pattern + strlen(vibe_pretokenize_pattern),
                              ONIG_OPTION_NONE, utf8, ONIG_SYNTAX_RUBY, NULL),
                     ONIG_NORMAL);
    return regex;
}

static void compare(regex_t *regex, const char *s, size_t n)
{
    const OnigUChar *text = (const OnigUChar *)s;
    OnigRegion *region = onig_region_new();
    size_t at = 0;

    while (at < n) {
        size_t ours = vibe_pretokenize_next(s + at, n - at);
        int found = onig_search(regex, text, text + n, text + at, text + n,
                                region, ONIG_OPTION_NONE);

        if (found != (int)at || region->end[0] != (int)(at + ours))
            fail_msg(
                "piece at byte %zu of \"%.*s\": %zu bytes, oracle %d to %d", at,
                (int)n, s, ours, found, region->end[0]);
        at += ours;
    }
    onig_region_free(region, 1);
}

static void next_cuts_as_oniguruma_does(void **state)
{
    regex_t *regex = compile();
    uint64_t rng = 20250101;
    char text[4 * MAX_CHARS];

    (void)state;
    for (int i = 0; i < N_STRINGS; i++)
        compare(regex, text, random_string(text, &rng));
    onig_free(regex);
    onig_end();
}

#else

static void next_cuts_as_oniguruma_does(void **state)
{
    (void)state;
    printf("oniguruma.h is not installed: the oracle was not asked\n");
    skip();
}

#endif

static const struct CMUnitTest tests[] = {
    VIBE_TEST(next_cuts_as_oniguruma_does),
};

VIBE_TEST_MAIN(tests)
