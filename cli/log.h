/*
 * log.h - what the program says to people, on standard error.
 *
 * Every line begins with "vibevoice: ".  A progress bar that is on the screen
 * is erased before a line is printed.
 */
#ifndef VIBE_CLI_LOG_H
#define VIBE_CLI_LOG_H

#include <stdio.h>

enum vibe_log_level {
    VIBE_LOG_ERROR,
    VIBE_LOG_WARN,
    VIBE_LOG_INFO,
    VIBE_LOG_DEBUG,
    VIBE_LOG_TRACE,
};

struct vibe_log {
    FILE *out;  /* borrowed */
    FILE *file; /* borrowed, or NULL: gets all but traces, dated */
    enum vibe_log_level level;
    int has_color;
    int has_bar; /* the cursor is on a line that may be erased */
};

/* Is a stream a terminal that understands escapes? */
int vibe_log_is_terminal(FILE *out);

/*
 * Print one line if its level is wanted; printf's formats.  Control characters
 * become question marks.
 */
void vibe_log(struct vibe_log *log, enum vibe_log_level level, const char *fmt,
              ...) __attribute__((format(printf, 3, 4)));

/* Erase the progress bar, if there is one. */
void vibe_log_clear_bar(struct vibe_log *log);

#endif /* VIBE_CLI_LOG_H */
