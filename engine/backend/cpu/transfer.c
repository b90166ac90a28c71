/* transfer.h on the CPU, where the device is the host: every call has
 * finished when it returns. */
#include "offload/transfer.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/backend/cpu/state.h"
#include "engine/base/size.h"

enum { ALIGNMENT = 256 };

struct vibe_event {
    int unused; /* every mark is reached at once: nothing to remember */
};

static void *cpu_alloc(struct vibe_backend *be, size_t bytes)
{
    vibe_backend_unsealed(be);
    if (bytes > SIZE_MAX - ALIGNMENT)
        return NULL;
    return aligned_alloc(ALIGNMENT, vibe_size_round(bytes, ALIGNMENT));
}

static void cpu_free(struct vibe_backend *be, void *data)
{
    vibe_backend_unsealed(be);
    free(data);
}

static int cpu_copy(struct vibe_backend *be, void *device, const void *host,
                    size_t bytes, struct vibe_error *err)
{
    (void)be, (void)err;
    memcpy(device, host, bytes);
    return VIBE_OK;
}

static int event_create(struct vibe_event **out, struct vibe_backend *be,
                        struct vibe_error *err)
{
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for an event",
                         be->name);
    return VIBE_OK;
}

static int event_record(struct vibe_event *event, enum vibe_queue queue,
                        struct vibe_error *err)
{
    assert(queue != VIBE_QUEUE_HOST);
    (void)event, (void)queue, (void)err;
    return VIBE_OK;
}

/* All that was on any queue is done. */
static int event_wait(struct vibe_event *event, enum vibe_queue queue,
                      struct vibe_error *err)
{
    (void)event, (void)queue, (void)err;
    return VIBE_OK;
}

static void event_destroy(struct vibe_event *event)
{
    free(event);
}

static int cpu_call(struct vibe_backend *be, void (*work)(void *user),
                    void *user, struct vibe_error *err)
{
    (void)be, (void)err;
    work(user);
    return VIBE_OK;
}

/* What it would wait for is there when a call returns. */
static void waited(struct vibe_backend *be, double *seconds, size_t n,
                   size_t waiter)
{
    (void)be, (void)n;
    seconds[waiter] += 0.0;
}

static size_t free_bytes(struct vibe_backend *be)
{
    long pages = sysconf(_SC_AVPHYS_PAGES);
    long size = sysconf(_SC_PAGESIZE);

    (void)be;
    return pages > 0 && size > 0 ? (size_t)pages * (size_t)size : 0;
}

const struct vibe_transfer vibe_cpu_transfer = {
    .device_alloc = cpu_alloc,
    .device_free = cpu_free,
    .pinned_alloc = cpu_alloc,
    .pinned_free = cpu_free,
    .copy = cpu_copy,
    .event_create = event_create,
    .event_record = event_record,
    .event_wait = event_wait,
    .event_destroy = event_destroy,
    .call = cpu_call,
    .waited = waited,
    .free_bytes = free_bytes,
};
