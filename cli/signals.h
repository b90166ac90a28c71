/*
 * signals.h - the first Ctrl-C ends after the frame, the second at once.
 *
 * While nothing has been spoken there is nothing to keep, and the signals do
 * what they always do.  Armed, the first SIGINT, SIGTERM or SIGHUP sets a flag
 * and gives SIGINT and SIGTERM back to the system, so that another one kills.
 * SIGHUP is ignored from then on, for a terminal that closes sends it more than
 * once, and altogether where the parent has had it ignored (nohup).
 */
#ifndef VIBE_CLI_SIGNALS_H
#define VIBE_CLI_SIGNALS_H

#include "cli/exit.h"

/*
 * At the start of the program: undo what the parent has had ignored.  A closed
 * pipe is to end it quietly, and shells ignore SIGINT in what they start with
 * '&', where whoever sends one means it all the same.  A file that would
 * outgrow its limit is an error of the write, which says so.
 */
void vibe_signals_init(void);

/* Catch the first one; after it, do nothing. */
void vibe_signals_arm(void);

/* The signal that has come, or 0. */
int vibe_signals_pending(void);

/* The status that stands for a signal, and the signal that a status of more
 * than 128 stands for, or 0. */
enum vibe_exit vibe_signals_status(int signal_number);
int vibe_signals_of(enum vibe_exit status);

/*
 * Die by this signal, so that whoever waits for the program sees why it
 * ended.  Returns only where the signal is blocked.
 */
void vibe_signals_die(int signal_number);

#endif /* VIBE_CLI_SIGNALS_H */
