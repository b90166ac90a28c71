/* offload/transfer.h on a GPU: a copy queue beside the computing one. */
#include "offload/transfer.h"

#include <stdlib.h>

#include "engine/backend/cuda/device.h"

struct vibe_event {
    struct vibe_cuda *cuda;
    cudaEvent_t event;
};

static int failed(cudaError_t rc, struct vibe_error *err, const char *what)
{
    return rc == cudaSuccess ? VIBE_OK : vibe_cuda_fail(err, rc, what);
}

/* Threads other than the caller's come here too, with a device of their own. */
static void bind(const struct vibe_backend *be)
{
    cudaSetDevice(vibe_cuda_of(be)->device);
}

static void *device_alloc(struct vibe_backend *be, size_t bytes)
{
    return vibe_cuda_take(vibe_cuda_of(be), bytes);
}

static void device_free(struct vibe_backend *be, void *device)
{
    vibe_cuda_give(vibe_cuda_of(be), device);
}

static void *pinned_alloc(struct vibe_backend *be, size_t bytes)
{
    void *host = NULL;

    bind(be);
    if (cudaHostAlloc(&host, bytes, cudaHostAllocPortable) == cudaSuccess)
        return host;
    cudaGetLastError();
    return NULL;
}

static void pinned_free(struct vibe_backend *be, void *host)
{
    vibe_backend_unsealed(be);
    if (host)
        cudaFreeHost(host);
}

static int copy(struct vibe_backend *be, void *device, const void *host,
                size_t bytes, struct vibe_error *err)
{
    bind(be);
    return failed(vibe_cuda_send(vibe_cuda_of(be), device, host, bytes), err,
                  "copy of weights");
}

static int event_create(struct vibe_event **out, struct vibe_backend *be,
                        struct vibe_error *err)
{
    struct vibe_event *event = calloc(1, sizeof(*event));
    cudaError_t rc;

    *out = NULL;
    if (!event)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for an event");
    event->cuda = vibe_cuda_of(be);
    rc = cudaEventCreateWithFlags(&event->event, cudaEventDisableTiming);
    if (rc != cudaSuccess) {
        free(event);
        return vibe_cuda_fail(err, rc, "event");
    }
    *out = event;
    return VIBE_OK;
}

static cudaStream_t stream_of(const struct vibe_event *event,
                              enum vibe_queue queue)
{
    switch (queue) {
    case VIBE_QUEUE_COPY:
        return event->cuda->copy;
    case VIBE_QUEUE_ASIDE:
        return event->cuda->aside;
    case VIBE_QUEUE_COMPUTE:
    case VIBE_QUEUE_HOST:
        break;
    }
    return event->cuda->compute;
}

static int event_record(struct vibe_event *event, enum vibe_queue queue,
                        struct vibe_error *err)
{
    bind(&event->cuda->base);
    return failed(cudaEventRecord(event->event, stream_of(event, queue)), err,
                  "event");
}

static int event_wait(struct vibe_event *event, enum vibe_queue queue,
                      struct vibe_error *err)
{
    bind(&event->cuda->base);
    if (queue == VIBE_QUEUE_HOST)
        return failed(cudaEventSynchronize(event->event), err, "event");
    if (queue == VIBE_QUEUE_COMPUTE)
        return failed(vibe_cuda_wait(event->cuda, event->event), err, "event");
    return failed(cudaStreamWaitEvent(stream_of(event, queue), event->event, 0),
                  err, "event");
}

static void event_destroy(struct vibe_event *event)
{
    if (event)
        cudaEventDestroy(event->event);
    free(event);
}

static int call(struct vibe_backend *be, void (*work)(void *user), void *user,
                struct vibe_error *err)
{
    bind(be);
    return failed(cudaLaunchHostFunc(vibe_cuda_of(be)->aside, work, user), err,
                  "work of the host");
}

static size_t free_bytes(struct vibe_backend *be)
{
    return vibe_cuda_free_bytes(vibe_cuda_of(be));
}

static void waited(struct vibe_backend *be, double *seconds, size_t n,
                   size_t waiter)
{
    vibe_cuda_waited(vibe_cuda_of(be), seconds, n, waiter);
}

const struct vibe_transfer vibe_cuda_transfer = {
    .device_alloc = device_alloc,
    .device_free = device_free,
    .pinned_alloc = pinned_alloc,
    .pinned_free = pinned_free,
    .copy = copy,
    .event_create = event_create,
    .event_record = event_record,
    .event_wait = event_wait,
    .event_destroy = event_destroy,
    .call = call,
    .waited = waited,
    .free_bytes = free_bytes,
};
