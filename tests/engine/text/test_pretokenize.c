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

/* Cut text and compare with the pieces, which are separated by '|'. */
static void assert_pieces(const char *text, const char *want)
{
    const size_t n = strlen(text);
    char got[256];
    size_t n_got = 0;

    for (size_t at = 0; at < n;) {
        size_t len = vibe_pretokenize_next(text + at, n - at);

        assert_in_range(len, 1, n - at);
        if (at > 0)
            got[n_got++] = '|';
        memcpy(got + n_got, text + at, len);
        n_got += len;
        at += len;
    }
    got[n_got] = '\0';
    assert_string_equal(got, want);
}

static void a_word_takes_one_mark_before_it(void **state)
{
    (void)state;
    assert_pieces("Hello world", "Hello| world");
    assert_pieces("(a((b", "(a|((|b");
    assert_pieces("a\tb\xC2\xA0"
                  "c",
                  "a|\tb|\xC2\xA0"
                  "c");
    assert_pieces("a_b", "a|_b");
}

static void every_digit_stands_alone(void **state)
{
    (void)state;
    assert_pieces("a2025b", "a|2|0|2|5|b");
    assert_pieces(" 12", " |1|2");
    assert_pieces("\xC2\xBD\xE2\x85\xA3", "\xC2\xBD|\xE2\x85\xA3");
}

static void contractions_come_first_in_any_case(void **state)
{
    (void)state;
    assert_pieces("it's I'LLx", "it|'s| I|'LL|x");
    assert_pieces("'rE've'D'M'T", "'rE|'ve|'D|'M|'T");
    assert_pieces("'\xC5\xBFx", "'\xC5\xBF|x"); /* the long s */
    assert_pieces("'ra 'sa", "'ra| '|sa");
    assert_pieces("'", "'");
}

static void marks_take_a_space_before_and_newlines_after(void **state)
{
    (void)state;
    assert_pieces("a. b", "a|.| b");
    assert_pieces("a ...\n\r\nb", "a| ...\n\r\n|b");
    assert_pieces("a\t!", "a|\t|!");
    assert_pieces("\xE2\x80\x9Cq\xE2\x80\x9D", "\xE2\x80\x9Cq|\xE2\x80\x9D");
}

static void blanks_end_at_the_last_newline_of_a_run(void **state)
{
    (void)state;
    assert_pieces("a \n \n  b", "a| \n \n| | b");
    assert_pieces("a\r\nb", "a|\r\n|b");
}

static void blanks_leave_one_for_the_next_word(void **state)
{
    (void)state;
    assert_pieces("a   b", "a|  | b");
    assert_pieces("a   1", "a|  | |1");
    assert_pieces("a   ", "a|   ");
    assert_pieces(" ", " ");
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(a_word_takes_one_mark_before_it),
    VIBE_TEST(every_digit_stands_alone),
    VIBE_TEST(contractions_come_first_in_any_case),
    VIBE_TEST(marks_take_a_space_before_and_newlines_after),
    VIBE_TEST(blanks_end_at_the_last_newline_of_a_run),
    VIBE_TEST(blanks_leave_one_for_the_next_word),
};

VIBE_TEST_MAIN(tests)
