/*
 * progress.h - how far the speech has come.
 *
 * A bar that is redrawn ten times a second on a terminal, a plain line every
 * ten seconds elsewhere, or JSON lines; all on standard error.
 */
#ifndef VIBE_CLI_PROGRESS_H
#define VIBE_CLI_PROGRESS_H

#include <stddef.h>

#include "cli/options.h"

struct vibe_log;

struct vibe_progress {
    struct vibe_log *log; /* borrowed */
    enum vibe_progress_mode mode;
    int hz;              /* sample rate */
    const char *name;    /* of the script, borrowed */
    size_t index, count; /* script index of count, from 1 */
    size_t samples, frames;
    double cap_s;              /* the length cap in seconds, 0 if unknown */
    double start_s, printed_s; /* clock */
};

/*
 * Settle how to show progress: auto becomes a bar, plain lines or nothing.
 *
 *   is_quiet  nothing but errors is wanted
 */
enum vibe_progress_mode vibe_progress_choose(enum vibe_progress_mode asked,
                                             int is_quiet);

/* A script is about to be spoken; other fields than these are kept. */
void vibe_progress_start(struct vibe_progress *progress, const char *name,
                         size_t index);

/* The prompt is about to be read; it ends in at most max_s of speech. */
void vibe_progress_prompt(struct vibe_progress *progress, size_t n_tokens,
                          double max_s);

/* A frame of n samples was made. */
void vibe_progress_frame(struct vibe_progress *progress, size_t n);

/* The script has ended; the bar goes away. */
void vibe_progress_end(struct vibe_progress *progress);

/* Write seconds as "7.3 s" or "12:05" into buf. */
const char *vibe_progress_time(double seconds, char *buf, size_t size);

#endif /* VIBE_CLI_PROGRESS_H */
