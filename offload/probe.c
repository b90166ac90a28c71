/* probe.c - how fast is the link? */
#include <stdlib.h>

#include "engine/base/clock.h"
#include "engine/base/error.h"
#include "offload/offload.h"
#include "offload/transfer.h"

/* Seconds of one copy, or 0. */
static double time_copy(struct vibe_backend *be,
                        const struct vibe_transfer *move, void *device,
                        const void *host, size_t bytes,
                        struct vibe_event *copied)
{
    const double start = vibe_clock_s();

    if (move->copy(be, device, host, bytes, NULL) != VIBE_OK ||
        move->event_record(copied, VIBE_QUEUE_COPY, NULL) != VIBE_OK ||
        move->event_wait(copied, VIBE_QUEUE_HOST, NULL) != VIBE_OK)
        return 0.0;
    return vibe_clock_s() - start;
}

double vibe_offload_probe(struct vibe_backend *be,
                          const struct vibe_transfer *move, size_t bytes,
                          int is_pageable)
{
    enum { RUNS = 4 }; /* the first one wakes the link */
    void *device = move->device_alloc(be, bytes);
    void *host = is_pageable ? calloc(1, bytes) : move->pinned_alloc(be, bytes);
    struct vibe_event *copied = NULL;
    double best = 0.0;

    if (device && host && move->event_create(&copied, be, NULL) == VIBE_OK)
        for (int i = 0; i < RUNS; i++) {
            const double s = time_copy(be, move, device, host, bytes, copied);

            if (i && s > 0.0 && (best <= 0.0 || s < best))
                best = s;
        }
    move->event_destroy(copied);
    if (is_pageable)
        free(host);
    else
        move->pinned_free(be, host);
    move->device_free(be, device);
    return best > 0.0 ? (double)bytes / best : 0.0;
}
