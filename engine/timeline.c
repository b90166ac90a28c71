#include "engine/timeline.h"

#include "engine/backend/ops.h"
#include "engine/base/clock.h"
#include "engine/base/device.h"
#include "engine/base/trace.h"
#include "engine/vibevoice.h"

_Static_assert(VIBE_MARK_STAGE + VIBE_N_STAGES <= VIBE_MARKS,
               "every stage needs a mark");

static const double METER_S = 0.25; /* asking takes a fraction of a ms */

const char *vibe_stage_name(enum vibe_stage stage)
{
    static const char *const names[VIBE_N_STAGES] = {
        [VIBE_STAGE_LM] = "lm",
        [VIBE_STAGE_HEAD] = "head",
        [VIBE_STAGE_DECODER] = "decoder",
        [VIBE_STAGE_SEMANTIC] = "semantic",
        [VIBE_STAGE_CONNECTORS] = "connectors",
    };

    return names[stage];
}

/* Copies go on beside the stages, and over the ends of frames. */
static void trace_copies(struct vibe_timeline *t, struct vibe_stream *s)
{
    struct vibe_span spans[64];
    size_t n;

    while ((n = vibe_copied(s->be, spans, sizeof(spans) / sizeof(*spans))) > 0)
        for (size_t i = 0; i < n; i++)
            vibe_trace_span(t->trace, VIBE_TRACK_COPY, "copy", spans[i].begin_s,
                            spans[i].end_s);
}

void vibe_timeline_prompt(struct vibe_timeline *t, struct vibe_stream *s,
                          double begin_s)
{
    if (!t->trace)
        return;
    vibe_trace_span(t->trace, VIBE_TRACK_COMPUTE, "prompt",
                    vibe_mark_s(s, VIBE_MARK_BEGIN),
                    vibe_mark_s(s, VIBE_MARK_STAGE));
    vibe_trace_span(t->trace, VIBE_TRACK_HOST, "read prompt", begin_s,
                    vibe_clock_s());
    trace_copies(t, s);
    vibe_timeline_meter(t, s);
}

void vibe_timeline_step(struct vibe_timeline *t, struct vibe_stream *s,
                        double begin_s, double queued_s)
{
    const double end_s = vibe_clock_s();
    double from_s;

    if (!t->trace)
        return;
    from_s = vibe_mark_s(s, VIBE_MARK_BEGIN);
    for (size_t i = 0; i < VIBE_N_STAGES; i++) {
        const double to_s = vibe_mark_s(s, VIBE_MARK_STAGE + i);

        vibe_trace_span(t->trace, VIBE_TRACK_COMPUTE,
                        vibe_stage_name((enum vibe_stage)i), from_s, to_s);
        from_s = to_s;
    }
    vibe_trace_span(t->trace, VIBE_TRACK_HOST, "launch", begin_s, queued_s);
    vibe_trace_span(t->trace, VIBE_TRACK_HOST, "wait", queued_s, end_s);
    trace_copies(t, s);
    vibe_timeline_meter(t, s);
}

void vibe_timeline_meter(struct vibe_timeline *t, struct vibe_stream *s)
{
    const double now_s = vibe_clock_s();
    struct vibe_device_reading reading;

    if (!t->trace || (t->metered_s > 0 && now_s < t->metered_s + METER_S))
        return;
    t->metered_s = now_s;
    s->be->ops->meter(s->be, &reading);
    vibe_trace_counter(t->trace, "device memory, bytes", now_s,
                       reading.memory_used);
    if (reading.power_w >= 0)
        vibe_trace_counter(t->trace, "power, W", now_s,
                           (size_t)(reading.power_w + 0.5));
}
