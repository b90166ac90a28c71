/*
 * vibe_test.h - what every unit test includes, and its main().
 *
 * A test file defines setup() and teardown(), or has VIBE_TEST_FIXTURE() do so,
 * and tests[], and ends with VIBE_TEST_MAIN(tests).
 */
#ifndef VIBE_TEST_H
#define VIBE_TEST_H

/* cmocka.h does not include what it uses: these come first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

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
