/*
 * fake_device.h - transfer.h without a device: two queues in this process.
 *
 * What is enqueued runs only when somebody waits for it, and then as
 * adversely as the events allow: with is_eager every copy as early as it may,
 * else as late.  So a use that sees the right bytes in both was ordered.
 *
 * Time is counted, not spent: a copy takes bytes / link_bps, a use what its
 * caller says, and nothing starts before it was enqueued.
 */
#ifndef VIBE_TEST_FAKE_DEVICE_H
#define VIBE_TEST_FAKE_DEVICE_H

#include <pthread.h>
#include <stddef.h>

#include "offload/transfer.h"

enum { FAKE_LOG = 4096 };

struct fake_item; /* of a queue */

struct fake_queue {
    struct fake_item *first, *last;
    double clock_s; /* when all that ran had ended */
    double busy_s;  /* copies, uses */
    double wait_s;  /* not told yet */
};

struct fake_device {
    pthread_mutex_t lock;
    struct fake_queue queue[2]; /* VIBE_QUEUE_COPY, _COMPUTE; not _ASIDE */
    int is_eager;
    double link_bps; /* 0: no time passes */
    double host_s;   /* when the host goes on */

    size_t pinned_left; /* bytes that pinned_alloc grants; SIZE_MAX at first */
    int fail_at;        /* the call that fails, counted from 0; -1: none */
    int n_calls;        /* that could have failed */
    int n_live;         /* allocations and events not released */

    /* c copy, w wait of the copy queue, W of the compute queue, h of the host,
     * r record on the copy queue, R on the compute queue, u use */
    char log[FAKE_LOG];
    size_t n_log;
};

extern const struct vibe_transfer fake_transfer;

void fake_device_init(struct fake_device *d);

/* Run what is left and fail the test if anything leaked. */
void fake_device_release(struct fake_device *d);

struct vibe_backend *fake_backend(struct fake_device *d);

/* Enqueue fn(user) as a computation of so many seconds. */
void fake_use(struct fake_device *d, void (*fn)(void *user), void *user,
              double seconds);

/* The host waits for the compute queue to be empty. */
void fake_sync(struct fake_device *d);

#endif /* VIBE_TEST_FAKE_DEVICE_H */
