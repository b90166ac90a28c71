#include "engine/base/error.h"

#include <string.h>

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

static void a_sentence_is_kept(void **state)
{
    struct vibe_error err = {0};

    (void)state;
    assert_int_equal(vibe_fail(&err, VIBE_E_IO, "%s: %d", "x.wav", 7),
                     VIBE_E_IO);
    assert_int_equal(err.code, VIBE_E_IO);
    assert_string_equal(err.msg, "x.wav: 7");
    assert_int_equal(vibe_fail(NULL, VIBE_E_ARG, "nobody hears"), VIBE_E_ARG);
}

/* One that just fits, one that does not, and one longer than any path. */
static void a_long_path_does_not_hide_what_is_wrong(void **state)
{
    static const char why[] = ": No such file or directory";
    static const size_t lengths[] = {227, 228, 300, 4000, 9000};
    static char path[9001];

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        struct vibe_error err = {0};
        size_t n;

        memset(path, 'p', lengths[i]);
        path[lengths[i]] = '\0';
        vibe_fail(&err, VIBE_E_IO, "/%s%s", path, why);
        n = strlen(err.msg);
        assert_int_equal(strncmp(err.msg, "/ppp", 4), 0);
        if (lengths[i] == 227) {
            assert_int_equal(n, sizeof(err.msg) - 1);
            assert_null(strstr(err.msg, "..."));
        }
        if (lengths[i] > 227) {
            assert_int_equal(n, sizeof(err.msg) - 1);
            assert_non_null(strstr(err.msg, "ppp...ppp"));
        }
        if (lengths[i] < 9000) /* of that even the end is out of reach */
            assert_string_equal(err.msg + n - strlen(why), why);
    }
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(a_sentence_is_kept),
    VIBE_TEST(a_long_path_does_not_hide_what_is_wrong),
};

VIBE_TEST_MAIN(tests)
