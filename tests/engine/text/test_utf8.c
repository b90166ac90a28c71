#include <stdio.h>
#include <string.h>

#include "engine/text/utf8.h"
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

static void check_accepts_all_lengths_of_character(void **state)
{
    static const char text[] = "a\0\xC3\xA9\xE4\xBD\xA0\xF0\x9F\x99\x82\x7F";

    (void)state;
    assert_int_equal(vibe_utf8_check(text, sizeof(text) - 1), sizeof(text) - 1);
    assert_int_equal(vibe_utf8_check("", 0), 0);
}

/* Each stands behind 9 bytes of ASCII, one more than is checked at once. */
static void check_finds_the_first_bad_byte(void **state)
{
    static const char *const bad[] = {
        "\x80",         "\xC0\xAF",         "\xC3",
        "\xC3(",        "\xE4\xBD",         "\xE0\x80\xAF",
        "\xED\xA0\x80", "\xF0\x9F\x99",     "\xF8\x88\x80",
        "\xFF",         "\xF4\x90\x80\x80", "\xF0\x80\x80\x80",
    };
    char text[32];

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        size_t n = strlen(bad[i]);

        snprintf(text, sizeof(text), "123456789%sx", bad[i]);
        assert_int_equal(vibe_utf8_check(text, 10 + n), 9);
        assert_int_equal(vibe_utf8_check(text + 9, n), 0);
    }
}

static void decode_gives_character_and_length(void **state)
{
    uint32_t cp = 0;

    (void)state;
    assert_int_equal(vibe_utf8_decode(&cp, "Az", 2), 1);
    assert_int_equal(cp, 'A');
    assert_int_equal(vibe_utf8_decode(&cp, "\xE4\xBD\xA0z", 4), 3);
    assert_int_equal(cp, 0x4F60);
    assert_int_equal(vibe_utf8_decode(&cp, "\xF0\x9F\x99\x82", 4), 4);
    assert_int_equal(cp, 0x1F642);
}

static void cut_never_splits_a_character(void **state)
{
    static const char text[] = "a\xE4\xBD\xA0z";

    (void)state;
    assert_int_equal(vibe_utf8_cut(text, 5, 9), 5);
    assert_int_equal(vibe_utf8_cut(text, 5, 4), 4);
    assert_int_equal(vibe_utf8_cut(text, 5, 3), 1);
    assert_int_equal(vibe_utf8_cut(text, 5, 2), 1);
    assert_int_equal(vibe_utf8_cut(text, 5, 0), 0);
}

static void there_are_25_spaces_and_u180e_is_none(void **state)
{
    size_t n = 0;

    (void)state;
    for (uint32_t cp = 0; cp < 0x110000; cp++)
        n += vibe_utf8_is_space(cp);
    assert_int_equal(n, 25);
    assert_true(vibe_utf8_is_space(0x3000));
    assert_true(vibe_utf8_is_space(0x85));
    assert_false(vibe_utf8_is_space(0x180E));
    assert_false(vibe_utf8_is_space(0x200B));
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(check_accepts_all_lengths_of_character),
    VIBE_TEST(check_finds_the_first_bad_byte),
    VIBE_TEST(decode_gives_character_and_length),
    VIBE_TEST(cut_never_splits_a_character),
    VIBE_TEST(there_are_25_spaces_and_u180e_is_none),
};

VIBE_TEST_MAIN(tests)
