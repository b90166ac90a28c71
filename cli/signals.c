#include "cli/signals.h"

#include <signal.h>
#include <stddef.h>

/* Handlers can reach nothing else: the one mutable global of the program. */
static volatile sig_atomic_t pending;

static const int caught[] = {SIGINT, SIGTERM};

static void on_signal(int signal_number)
{
    pending = signal_number;
    vibe_signals_disarm();
}

static void set_all(void (*handler)(int))
{
    /* Interrupted writes go on: frames are written whole. */
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};

    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof(caught) / sizeof(caught[0]); i++)
        sigaction(caught[i], &action, NULL);
}

void vibe_signals_init(void)
{
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_IGN); /* ulimit -f is an error of the write */
    set_all(SIG_DFL);
}

void vibe_signals_arm(void)
{
    set_all(on_signal);
}

void vibe_signals_disarm(void)
{
    set_all(SIG_DFL);
}

int vibe_signals_pending(void)
{
    return pending;
}

int vibe_signals_of(int status)
{
    return status > 128 ? status - 128 : 0;
}

void vibe_signals_die(int signal_number)
{
    struct sigaction action = {.sa_handler = SIG_DFL};

    sigemptyset(&action.sa_mask);
    sigaction(signal_number, &action, NULL);
    raise(signal_number);
}
