#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/base/error.h"
#include "engine/text/nfc.h"
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

static void assert_nfc(const char *text, const char *want)
{
    char *got = NULL;
    size_t n = 0;

    assert_int_equal(vibe_nfc(&got, &n, text, strlen(text), NULL), VIBE_OK);
    assert_int_equal(n, strlen(want));
    assert_memory_equal(got ? got : text, want, n);
    free(got);
}

static void nfc_composes_and_reorders(void **state)
{
    (void)state;
    assert_nfc("e\u0301", "\u00E9");
    assert_nfc("a\u0301\u0323", "\u1EA1\u0301");
    assert_nfc("\u1112\u1161\u11AB", "\uD55C"); /* Hangul jamo */
    assert_nfc("\uAC00\u11A8", "\uAC01");
    assert_nfc("\u304B\u3099", "\u304C"); /* ka and voicing mark */
}

static void nfc_replaces_singletons_and_obeys_exclusions(void **state)
{
    (void)state;
    assert_nfc("\u212A\u212B\u037E", "K\u00C5;");
    assert_nfc("\u0958", "\u0915\u093C");
    assert_nfc("\uF900", "\u8C48");
}

static void nfc_leaves_compatibility_characters(void **state)
{
    (void)state;
    assert_nfc("\uFF21\uFB01\u00B2", "\uFF21\uFB01\u00B2");
}

/* utf8proc 2.8 loses this vowel, the last before the trailing consonants. */
static void nfc_keeps_u11a7_after_a_hangul_syllable(void **state)
{
    (void)state;
    assert_nfc("\uC8FC\u11A7", "\uC8FC\u11A7");
    assert_nfc("\u11A7\u1112\u1161\u11A7\u11A7e\u0301",
               "\u11A7\uD558\u11A7\u11A7\u00E9");
}

static void nfc_copies_nothing_for_plain_text(void **state)
{
    static const char text[] = "Plain, d\u00E9j\u00E0 vu; \u4F60\u597D\uFF01";
    char *got = NULL;
    size_t n = 0;

    (void)state;
    assert_int_equal(vibe_nfc(&got, &n, text, strlen(text), NULL), VIBE_OK);
    assert_null(got);
    assert_int_equal(n, strlen(text));
}

/* Lines and settled characters are shortcuts: utf8proc alone is the judge. */
static void nfc_of_random_text_is_that_of_utf8proc(void **state)
{
    static const char *const alphabet[] = {
        "a",      "e",      "=",          "\n",     "\n",     "\u0301",
        "\u0323", "\u0338", "\u00E9",     "\u1EA1", "\u0391", "\u0301",
        "\u0418", "\u0306", "\u304B",     "\u3099", "\u30CF", "\u309A",
        "\uAC00", "\u1100", "\u1161",     "\u11A8", "\u4E00", "\uF900",
        "\u2260", "\u212B", "\u2014",     "\u0915", "\u093C", "\u0344",
        "\uFF41", "\u037E", "\U0001F642", "\u0F73",
    };
    uint64_t rng = 3;
    char text[128];

    (void)state;
    for (int i = 0; i < 100000; i++) {
        utf8proc_uint8_t *want = NULL;
        char *got = NULL;
        size_t n_got = 0;
        size_t n = 0;
        utf8proc_ssize_t n_want;

        for (int c = 0; c < 12; c++) {
            /* Knuth's MMIX generator; its upper bits are the random ones. */
            rng = rng * 6364136223846793005u + 1442695040888963407u;
            n += (size_t)sprintf(
                text + n, "%s",
                alphabet[(rng >> 33) % (sizeof(alphabet) / sizeof(*alphabet))]);
        }
        n_want = utf8proc_map((utf8proc_uint8_t *)text, (utf8proc_ssize_t)n,
                              &want, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        assert_int_equal(vibe_nfc(&got, &n_got, text, n, NULL), VIBE_OK);
        assert_int_equal(n_got, n_want);
        assert_memory_equal(got ? got : text, want, n_got);
        free(want);
        free(got);
    }
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(nfc_composes_and_reorders),
    VIBE_TEST(nfc_replaces_singletons_and_obeys_exclusions),
    VIBE_TEST(nfc_leaves_compatibility_characters),
    VIBE_TEST(nfc_keeps_u11a7_after_a_hangul_syllable),
    VIBE_TEST(nfc_copies_nothing_for_plain_text),
    VIBE_TEST(nfc_of_random_text_is_that_of_utf8proc),
};

VIBE_TEST_MAIN(tests)
