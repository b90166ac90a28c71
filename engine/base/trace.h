/*
 * trace.h - a timeline of a run, for ui.perfetto.dev and chrome://tracing.
 *
 * Spans lie on one of three tracks, counters beside them.  Times are those of
 * vibe_clock_s.  Only the last events are kept, so memory is bounded however
 * long the run.  Any thread may add events; a NULL trace ignores them.
 */
#ifndef VIBE_BASE_TRACE_H
#define VIBE_BASE_TRACE_H

#include <stddef.h>

struct vibe_error;
struct vibe_trace;

enum vibe_track {
    VIBE_TRACK_HOST,
    VIBE_TRACK_COMPUTE, /* the queue of kernels */
    VIBE_TRACK_COPY,    /* the queue of copies */
    VIBE_N_TRACKS,
};

/*
 * Start a timeline; now is its zero.  FILE.part is made at once, so that a
 * long run does not end with the news that it cannot be.
 *
 *   out        set to it, or to NULL on error; vibe_trace_free
 *   path       copied
 *   capacity   events to keep, > 0, 32 bytes each
 *
 * Errors: VIBE_E_IO, VIBE_E_NOMEM
 */
int vibe_trace_open(struct vibe_trace **out, const char *path, size_t capacity,
                    struct vibe_error *err);

/* What was not written is gone; NULL is allowed. */
void vibe_trace_free(struct vibe_trace *trace);

/*
 * Something took from begin_s to end_s.
 *
 *   name   borrowed until the trace is freed; has nothing that JSON escapes
 */
void vibe_trace_span(struct vibe_trace *trace, enum vibe_track track,
                     const char *name, double begin_s, double end_s);

/* A quantity changed to value, a whole number; name as above. */
void vibe_trace_counter(struct vibe_trace *trace, const char *name, double at_s,
                        size_t value);

/*
 * Write the timeline as Chrome's JSON, once; the file has it whole or not at
 * all.
 *
 * Errors: VIBE_E_IO
 */
int vibe_trace_write(struct vibe_trace *trace, struct vibe_error *err);

#endif /* VIBE_BASE_TRACE_H */
