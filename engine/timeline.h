/*
 * timeline.h - what the steps of a generator leave in a trace.
 */
#ifndef VIBE_TIMELINE_H
#define VIBE_TIMELINE_H

struct vibe_stream;
struct vibe_trace;

struct vibe_timeline {
    struct vibe_trace *trace; /* borrowed; NULL: nothing is recorded */
    double metered_s;         /* when the device was last asked */
};

/* Marks of a step on its stream, see vibe_mark; a stage ends with its own. */
enum { VIBE_MARK_BEGIN, VIBE_MARK_STAGE };

/*
 * A step has run on a timed stream, which was checked since: its stages go to
 * the compute track.  From begin_s to queued_s the host gave it out, then it
 * waited.
 */
void vibe_timeline_step(struct vibe_timeline *t, struct vibe_stream *s,
                        double begin_s, double queued_s);

/* Likewise a block of a prompt, which ends with the first stage's mark. */
void vibe_timeline_prompt(struct vibe_timeline *t, struct vibe_stream *s,
                          double begin_s);

/* What the device says of itself, four times a second at most. */
void vibe_timeline_meter(struct vibe_timeline *t, struct vibe_stream *s);

#endif /* VIBE_TIMELINE_H */
