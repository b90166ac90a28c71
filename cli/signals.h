/*
 * signals.h - the first Ctrl-C ends after the frame, the second at once.
 *
 * While nothing has been spoken there is nothing to keep, and the signals do
 * what they always do.  Armed, the first SIGINT or SIGTERM sets a flag and
 * gives both back to the system, so that another one kills.
 */
#ifndef VIBE_CLI_SIGNALS_H
#define VIBE_CLI_SIGNALS_H

/*
 * At the start of the program: undo what the parent has had ignored.  A closed
 * pipe is to end it quietly, and shells ignore SIGINT in what they start with
 * '&', where whoever sends one means it all the same.  A file that would
 * outgrow its limit is an error of the write, which says so.
 */
void vibe_signals_init(void);

/* Catch SIGINT and SIGTERM. */
void vibe_signals_arm(void);

/* Give them back to the system. */
void vibe_signals_disarm(void);

/* The signal that has come, or 0. */
int vibe_signals_pending(void);

/* The signal that a status of 128 and more stands for, or 0. */
int vibe_signals_of(int status);

/*
 * Die by this signal, so that whoever waits for the program sees why it
 * ended.  Returns only where the signal is blocked.
 */
void vibe_signals_die(int signal_number);

#endif /* VIBE_CLI_SIGNALS_H */
