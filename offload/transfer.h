/*
 * transfer.h - the calls that move bytes between host and device.
 *
 * The streaming engine knows a device by these alone: it decides what is
 * copied when, a backend fills in how.  The order of its copies and events
 * is therefore tested without a GPU, against a device that records it.
 *
 * There are three queues: copies, which copy() appends to, computing, which
 * the backend's ops append to, and aside, where the host computes for the
 * device: call() appends to it.  Each runs in order; only events
 * order one after the other.  A device without queues (the CPU) finishes every
 * call before it returns, and its events are then always reached.
 */
#ifndef VIBE_OFFLOAD_TRANSFER_H
#define VIBE_OFFLOAD_TRANSFER_H

#include <stddef.h>

struct vibe_backend;
struct vibe_error;
struct vibe_event; /* a mark in a queue; the device defines it */

enum vibe_queue {
    VIBE_QUEUE_COPY,
    VIBE_QUEUE_COMPUTE,
    VIBE_QUEUE_ASIDE,
    VIBE_QUEUE_HOST, /* only to wait: the calling thread */
};

struct vibe_transfer {
    /*
     * Allocate bytes > 0 of device memory, aligned to 256, contents undefined.
     * NULL when there is not so much.  Not called while frames are computed.
     */
    void *(*device_alloc)(struct vibe_backend *be, size_t bytes);

    /* Release; NULL is allowed.  The caller has waited for its last use. */
    void (*device_free)(struct vibe_backend *be, void *device);

    /* The same for host memory that the device can copy at full speed. */
    void *(*pinned_alloc)(struct vibe_backend *be, size_t bytes);
    void (*pinned_free)(struct vibe_backend *be, void *host);

    /*
     * Append a copy to the copy queue and return at once.
     *
     *   device   from device_alloc, or inside it
     *   host     pinned or not; borrowed until an event recorded on
     *            VIBE_QUEUE_COPY after this call is reached
     *
     * Errors: VIBE_E_DEVICE
     */
    int (*copy)(struct vibe_backend *be, void *device, const void *host,
                size_t bytes, struct vibe_error *err);

    /*
     * Make an event, never recorded: waiting for it does not wait.
     *
     *   out   NULL on error; owned, release with event_destroy
     *
     * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
     */
    int (*event_create)(struct vibe_event **out, struct vibe_backend *be,
                        struct vibe_error *err);

    /*
     * Mark the end of what is on the queue now (not VIBE_QUEUE_HOST); an
     * earlier mark of the same event is forgotten.
     *
     * Errors: VIBE_E_DEVICE
     */
    int (*event_record)(struct vibe_event *event, enum vibe_queue queue,
                        struct vibe_error *err);

    /*
     * Hold the queue back until the event's mark is reached.  Blocks the
     * caller only for VIBE_QUEUE_HOST.
     *
     * Errors: VIBE_E_DEVICE, also for what failed before the mark
     */
    int (*event_wait)(struct vibe_event *event, enum vibe_queue queue,
                      struct vibe_error *err);

    /* Release; NULL is allowed. */
    void (*event_destroy)(struct vibe_event *event);

    /*
     * Append a call of work(user) to VIBE_QUEUE_ASIDE, by a thread of the
     * device's; work may not call the device.
     *
     * Errors: VIBE_E_DEVICE
     */
    int (*call)(struct vibe_backend *be, void (*work)(void *user), void *user,
                struct vibe_error *err);

    /*
     * Add what the compute queue has waited for events, of waits that have
     * ended since the last call, to those who waited; from now on waiter does.
     * Waits are timed from the first call on.  By the thread that waits.
     *
     *   seconds   [n], n > waiter
     */
    void (*waited)(struct vibe_backend *be, double *seconds, size_t n,
                   size_t waiter);

    /* Bytes of device memory that an allocation could still get. */
    size_t (*free_bytes)(struct vibe_backend *be);
};

#endif /* VIBE_OFFLOAD_TRANSFER_H */
