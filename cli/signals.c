#include "cli/signals.h"

#include <signal.h>

/* Handlers can reach nothing else: the one mutable global of the program. */
static volatile sig_atomic_t pending;

static void set(int signal_number, void (*handler)(int))
{
    /* Interrupted writes go on: frames are written whole. */
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};

    sigemptyset(&action.sa_mask);
    sigaction(signal_number, &action, NULL);
}

static void on_signal(int signal_number)
{
    pending = signal_number;
    set(SIGINT, SIG_DFL);
    set(SIGTERM, SIG_DFL);
    /* a terminal that closes sends it more than once */
    set(SIGHUP, SIG_IGN);
}

/* nohup has it so, and means it. */
static int ignores_hangup(void)
{
    struct sigaction action;

    return sigaction(SIGHUP, NULL, &action) == 0 &&
           action.sa_handler == SIG_IGN;
}

void vibe_signals_init(void)
{
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_IGN); /* ulimit -f is an error of the write */
    set(SIGINT, SIG_DFL);
    set(SIGTERM, SIG_DFL);
}

void vibe_signals_arm(void)
{
    if (pending)
        return;
    set(SIGINT, on_signal);
    set(SIGTERM, on_signal);
    if (!ignores_hangup())
        set(SIGHUP, on_signal);
}

int vibe_signals_pending(void)
{
    return pending;
}

enum vibe_exit vibe_signals_status(int signal_number)
{
    return (enum vibe_exit)(128 + signal_number);
}

int vibe_signals_of(enum vibe_exit status)
{
    return status > 128 ? (int)status - 128 : 0;
}

void vibe_signals_die(int signal_number)
{
    set(signal_number, SIG_DFL);
    raise(signal_number);
}
