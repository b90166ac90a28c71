#include "cli/exit.h"

#include "engine/base/error.h"
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

static void statuses_are_as_documented(void **state)
{
    (void)state;
    assert_int_equal(VIBE_EXIT_OK, 0);
    assert_int_equal(VIBE_EXIT_FAILED, 1);
    assert_int_equal(VIBE_EXIT_USAGE, 2);
    assert_int_equal(VIBE_EXIT_INPUT, 3);
    assert_int_equal(VIBE_EXIT_OUTPUT, 4);
    assert_int_equal(VIBE_EXIT_DEVICE, 5);
    assert_int_equal(VIBE_EXIT_MEMORY, 6);
    assert_int_equal(VIBE_EXIT_SIGINT, 130);
    assert_int_equal(VIBE_EXIT_SIGTERM, 143);
}

static void files_are_input_or_output(void **state)
{
    (void)state;
    assert_int_equal(vibe_exit_of(VIBE_E_IO, VIBE_EXIT_INPUT), VIBE_EXIT_INPUT);
    assert_int_equal(vibe_exit_of(VIBE_E_IO, VIBE_EXIT_OUTPUT),
                     VIBE_EXIT_OUTPUT);
    assert_int_equal(vibe_exit_of(VIBE_E_FORMAT, VIBE_EXIT_INPUT),
                     VIBE_EXIT_INPUT);
    assert_int_equal(vibe_exit_of(VIBE_E_UNSUPPORTED, VIBE_EXIT_INPUT),
                     VIBE_EXIT_INPUT);
}

static void other_errors_have_their_own_status(void **state)
{
    (void)state;
    assert_int_equal(vibe_exit_of(VIBE_E_NOMEM, VIBE_EXIT_INPUT),
                     VIBE_EXIT_MEMORY);
    assert_int_equal(vibe_exit_of(VIBE_E_DEVICE, VIBE_EXIT_INPUT),
                     VIBE_EXIT_DEVICE);
    assert_int_equal(vibe_exit_of(VIBE_E_ARG, VIBE_EXIT_INPUT),
                     VIBE_EXIT_USAGE);
    assert_int_equal(vibe_exit_of(VIBE_OK, VIBE_EXIT_INPUT), VIBE_EXIT_OK);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(statuses_are_as_documented),
    VIBE_TEST(files_are_input_or_output),
    VIBE_TEST(other_errors_have_their_own_status),
};

VIBE_TEST_MAIN(tests)
