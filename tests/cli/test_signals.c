#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/signals.h"
#include "tests/support/vibe_test.h"

enum { SURVIVED = 7, PENDING = 8 };

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

/* Run body in a child; returns what waitpid says of it. */
static int status_of(void (*body)(void))
{
    int status = 0;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        vibe_signals_init();
        body();
        _exit(SURVIVED);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void interrupt_once(void)
{
    vibe_signals_arm();
    raise(SIGINT);
    _exit(vibe_signals_pending() == SIGINT ? PENDING : SURVIVED);
}

static void interrupt_twice(void)
{
    vibe_signals_arm();
    raise(SIGTERM);
    raise(SIGINT);
}

static void interrupt_unarmed(void)
{
    raise(SIGTERM);
}

static void interrupt_again_armed_again(void)
{
    vibe_signals_arm();
    raise(SIGINT);
    vibe_signals_arm();
    raise(SIGTERM);
}

static void hang_up_twice(void)
{
    signal(SIGHUP, SIG_DFL); /* the tests may run under nohup */
    vibe_signals_arm();
    raise(SIGHUP);
    raise(SIGHUP);
    _exit(vibe_signals_pending() == SIGHUP ? PENDING : SURVIVED);
}

static void hang_up_where_ignored(void)
{
    signal(SIGHUP, SIG_IGN);
    vibe_signals_init();
    vibe_signals_arm();
    raise(SIGHUP);
    _exit(vibe_signals_pending() ? PENDING : SURVIVED);
}

static void interrupt_where_ignored(void)
{
    signal(SIGINT, SIG_IGN);
    vibe_signals_init();
    raise(SIGINT);
}

static void die_while_armed(void)
{
    vibe_signals_arm();
    vibe_signals_die(SIGTERM);
}

static void the_first_signal_sets_a_flag(void **state)
{
    int status = status_of(interrupt_once);

    (void)state;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), PENDING);
}

static void the_second_signal_kills(void **state)
{
    int status = status_of(interrupt_twice);

    (void)state;
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGINT);
    status = status_of(interrupt_again_armed_again);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGTERM);
}

static void a_closing_terminal_may_say_so_twice(void **state)
{
    (void)state;
    assert_int_equal(WEXITSTATUS(status_of(hang_up_twice)), PENDING);
}

static void nohup_is_obeyed(void **state)
{
    (void)state;
    assert_int_equal(WEXITSTATUS(status_of(hang_up_where_ignored)), SURVIVED);
}

static void signals_kill_unless_armed(void **state)
{
    (void)state;
    assert_int_equal(WTERMSIG(status_of(interrupt_unarmed)), SIGTERM);
    assert_int_equal(WTERMSIG(status_of(interrupt_where_ignored)), SIGINT);
}

static void dying_shows_the_signal(void **state)
{
    int status = status_of(die_while_armed);

    (void)state;
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGTERM);
}

static void statuses_name_their_signals(void **state)
{
    (void)state;
    assert_int_equal(vibe_signals_of(VIBE_EXIT_SIGHUP), SIGHUP);
    assert_int_equal(vibe_signals_of(VIBE_EXIT_SIGINT), SIGINT);
    assert_int_equal(vibe_signals_of(VIBE_EXIT_SIGPIPE), SIGPIPE);
    assert_int_equal(vibe_signals_of(VIBE_EXIT_SIGTERM), SIGTERM);
    assert_int_equal(vibe_signals_of(VIBE_EXIT_OK), 0);
    assert_int_equal(vibe_signals_of(VIBE_EXIT_MEMORY), 0);
    assert_int_equal(vibe_signals_status(SIGTERM), VIBE_EXIT_SIGTERM);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(the_first_signal_sets_a_flag),
    VIBE_TEST(the_second_signal_kills),
    VIBE_TEST(a_closing_terminal_may_say_so_twice),
    VIBE_TEST(nohup_is_obeyed),
    VIBE_TEST(signals_kill_unless_armed),
    VIBE_TEST(dying_shows_the_signal),
    VIBE_TEST(statuses_name_their_signals),
};

VIBE_TEST_MAIN(tests)
