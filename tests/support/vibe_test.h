/*
 * vibe_test.h - what every unit test includes, and its main().
 *
 * A test file defines setup() and teardown(), or has VIBE_TEST_FIXTURE() do so,
 * and tests[], and ends with VIBE_TEST_MAIN(tests).
 */
#ifndef VIBE_TEST_H
#define VIBE_TEST_H

/* cmocka.h does not include what it uses: these come first. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* cmocka's own takes NaN and infinity for equal to anything. */
#undef assert_float_equal
/* NOLINTNEXTLINE(readability-identifier-naming): the name is cmocka's */
#define assert_float_equal(got, want, most) \
    vibe_assert_near((got), (want), (most), __FILE__, __LINE__)

static inline void vibe_assert_near(double got, double want, double most,
                                    const char *file, int line)
{
    if (fabs(got - want) <= most)
        return;
    print_error("%.9g is not within %g of %.9g\n", got, most, want);
    _fail(file, line);
}

/* One test run between setup() and teardown() of its own file. */
#define VIBE_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

/* setup() and teardown() of a fixture that starts as zeros and owns nothing. */
#define VIBE_TEST_FIXTURE(type)           \
    static int setup(void **state)        \
    {                                     \
        *state = calloc(1, sizeof(type)); \
        return *state ? 0 : -1;           \
    }                                     \
                                          \
    static int teardown(void **state)     \
    {                                     \
        free(*state);                     \
        return 0;                         \
    }

/* "./test_wav" runs all of tests[]; "./test_wav '*stereo*'" runs a subset. */
#define VIBE_TEST_MAIN(tests)                             \
    int main(int argc, char **argv)                       \
    {                                                     \
        if (argc > 1)                                     \
            cmocka_set_test_filter(argv[1]);              \
        return cmocka_run_group_tests(tests, NULL, NULL); \
    }

#endif /* VIBE_TEST_H */
