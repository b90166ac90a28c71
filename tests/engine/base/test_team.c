#include "engine/base/team.h"

#include <stdatomic.h>

#include "tests/support/vibe_test.h"

enum { TASKS = 1000 };

static atomic_int done[TASKS];

static int setup(void **state)
{
    (void)state;
    for (int i = 0; i < TASKS; i++)
        done[i] = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return 0;
}

static void count(void *user, size_t i)
{
    (void)user;
    atomic_fetch_add(&done[i], 1);
}

static void every_task_runs_once(void **state)
{
    (void)state;
    for (int threads = 0; threads < 9; threads += 4) {
        setup(state);
        vibe_team_run(threads, TASKS, count, NULL);
        for (int i = 0; i < TASKS; i++)
            assert_int_equal(done[i], 1);
    }
}

static void no_tasks_are_nothing_to_do(void **state)
{
    (void)state;
    vibe_team_run(4, 0, count, NULL);
    assert_int_equal(done[0], 0);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(every_task_runs_once),
    VIBE_TEST(no_tasks_are_nothing_to_do),
};

VIBE_TEST_MAIN(tests)
