#include "offload/ring.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/error.h"
#include "offload/arena.h"
#include "offload/bounce.h"
#include "offload/transfer.h"

struct slot {
    void *data;
    struct vibe_event *ready; /* its chunk is there */
    struct vibe_event *freed; /* its chunk has been used */
};

/* Copies are numbered from the last start on; copy i brings chunk i % n to
 * slot i % slots.  done <= taken <= done + 1, taken <= issued <= asked. */
struct vibe_ring {
    struct vibe_backend *be;
    const struct vibe_transfer *move;
    struct vibe_ring_options options;
    struct slot slots[VIBE_RING_SLOTS];
    struct vibe_bounce *bounce;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t issued_more;
    struct vibe_arena_chunk **chunks; /* owned array */
    size_t n;
    int is_paused; /* no copy is enqueued */
    uint64_t taken, done;
    uint64_t issued; /* copies enqueued */
    uint64_t asked; /* copies whose buffer, where it needs one, was asked for */
    struct vibe_ring_stats stats;
    struct vibe_error err; /* the first failure; nothing is enqueued after it */
};

static struct slot *slot_of(struct vibe_ring *ring, uint64_t number)
{
    return &ring->slots[number % ring->options.slots];
}

static struct vibe_arena_chunk *chunk_of(const struct vibe_ring *ring,
                                         uint64_t number)
{
    return ring->chunks[number % ring->n];
}

/* Can it be copied as it is?  Pageable chunks, where buffers are no better. */
static int is_direct(const struct vibe_ring *ring, uint64_t number,
                     const void **host)
{
    switch (vibe_arena_find(chunk_of(ring, number), host)) {
    case VIBE_PLACE_PINNED:
        return 1;
    case VIBE_PLACE_PAGEABLE:
        return !vibe_bounce_is_pinned(ring->bounce);
    case VIBE_PLACE_FILE:
    case VIBE_N_PLACES:
        break;
    }
    return 0;
}

/* Have buffers filled for the copies to come, as far as there are any. */
static void ask_ahead(struct vibe_ring *ring, uint64_t end)
{
    const void *host;

    for (; ring->asked < end; ring->asked++)
        if (!is_direct(ring, ring->asked, &host) &&
            !vibe_bounce_want(ring->bounce, ring->asked,
                              chunk_of(ring, ring->asked)))
            return;
}

/* Append copy number issued to the queue; *is_waiting when its buffer has not
 * been filled yet. */
static int issue(struct vibe_ring *ring, int *is_waiting)
{
    const uint64_t number = ring->issued;
    struct slot *slot = slot_of(ring, number);
    const size_t bytes = vibe_arena_chunk_bytes(chunk_of(ring, number));
    const void *host = NULL;
    const enum vibe_bounce_state state = vibe_bounce_find(ring->bounce, number,
                                                          &host, &ring->err);
    int rc;

    *is_waiting = 0;
    switch (state) {
    case VIBE_BOUNCE_FAILED:
        return ring->err.code;
    case VIBE_BOUNCE_FILLING:
        *is_waiting = 1;
        return VIBE_OK;
    case VIBE_BOUNCE_NONE:
        if (number >= ring->asked) {
            *is_waiting = 1; /* for a buffer */
            return VIBE_OK;
        }
        is_direct(ring, number, &host);
        break;
    case VIBE_BOUNCE_FILLED:
        break;
    }
    rc = ring->move->event_wait(slot->freed, VIBE_QUEUE_COPY, &ring->err);
    if (rc == VIBE_OK)
        rc = ring->move->copy(ring->be, slot->data, host, bytes, &ring->err);
    if (rc == VIBE_OK)
        rc = ring->move->event_record(slot->ready, VIBE_QUEUE_COPY, &ring->err);
    if (rc == VIBE_OK && state == VIBE_BOUNCE_FILLED)
        rc = vibe_bounce_sent(ring->bounce, number, &ring->err);
    if (rc != VIBE_OK)
        return rc;
    ring->issued++;
    ring->stats.copies++;
    ring->stats.bytes += bytes;
    return VIBE_OK;
}

/* Enqueue every copy that has a slot, in order.  Under the lock. */
static void pump(struct vibe_ring *ring)
{
    const int is_ahead = !ring->options.is_on_demand;
    const uint64_t end = is_ahead ? ring->done + ring->options.slots
                                  : ring->taken;
    int is_waiting = 0;

    while (ring->err.code == VIBE_OK && !is_waiting) {
        /* filling goes ahead of copying by all the buffers there are */
        ask_ahead(ring, is_ahead ? end + (uint64_t)ring->options.buffers : end);
        if (ring->issued >= end)
            break;
        issue(ring, &is_waiting);
    }
    pthread_cond_broadcast(&ring->issued_more);
}

static void buffer_was_filled(void *user)
{
    struct vibe_ring *ring = user;

    pthread_mutex_lock(&ring->lock);
    if (!ring->is_paused)
        pump(ring);
    pthread_mutex_unlock(&ring->lock);
}

static int allocate(struct vibe_ring *ring, struct vibe_error *err)
{
    const struct vibe_bounce_options bounce = {
        .bytes = ring->options.slot_bytes,
        .buffers = ring->options.buffers,
        .threads = ring->options.threads,
        .is_unpinned = ring->options.is_unpinned,
        .filled = buffer_was_filled,
        .user = ring,
    };
    int rc = VIBE_OK;

    for (size_t i = 0; i < ring->options.slots && rc == VIBE_OK; i++) {
        struct slot *slot = &ring->slots[i];

        slot->data = ring->move->device_alloc(ring->be,
                                              ring->options.slot_bytes);
        if (!slot->data)
            return vibe_fail(err, VIBE_E_NOMEM,
                             "no device memory for slot %zu of %zu, %zu bytes",
                             i + 1, ring->options.slots,
                             ring->options.slot_bytes);
        rc = ring->move->event_create(&slot->ready, ring->be, err);
        if (rc == VIBE_OK)
            rc = ring->move->event_create(&slot->freed, ring->be, err);
    }
    if (rc == VIBE_OK)
        rc = vibe_bounce_open(&ring->bounce, ring->be, ring->move, &bounce,
                              err);
    return rc;
}

int vibe_ring_open(struct vibe_ring **out, struct vibe_backend *be,
                   const struct vibe_transfer *move,
                   const struct vibe_ring_options *options,
                   struct vibe_error *err)
{
    struct vibe_ring *ring = calloc(1, sizeof(*ring));
    int rc;

    *out = NULL;
    if (!ring)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for a ring");
    assert(options->slots > 0 && options->slots <= VIBE_RING_SLOTS);
    ring->be = be;
    ring->move = move;
    ring->options = *options;
    ring->is_paused = 1;
    pthread_mutex_init(&ring->lock, NULL);
    pthread_cond_init(&ring->issued_more, NULL);
    rc = allocate(ring, err);
    if (rc != VIBE_OK) {
        vibe_ring_free(ring);
        return rc;
    }
    *out = ring;
    return VIBE_OK;
}

/* Stop enqueueing, and wait for the ends of both queues' work with slots. */
static int drain(struct vibe_ring *ring, struct vibe_error *err)
{
    int rc = VIBE_OK;

    pthread_mutex_lock(&ring->lock);
    ring->is_paused = 1;
    pthread_mutex_unlock(&ring->lock);
    if (ring->bounce)
        vibe_bounce_reset(ring->bounce);
    for (size_t i = 0; i < ring->options.slots; i++) {
        const struct slot *slot = &ring->slots[i];

        if (rc == VIBE_OK && slot->ready)
            rc = ring->move->event_wait(slot->ready, VIBE_QUEUE_HOST, err);
        if (rc == VIBE_OK && slot->freed)
            rc = ring->move->event_wait(slot->freed, VIBE_QUEUE_HOST, err);
    }
    return rc;
}

void vibe_ring_free(struct vibe_ring *ring)
{
    if (!ring)
        return;
    drain(ring, NULL);
    vibe_bounce_free(ring->bounce);
    for (size_t i = 0; i < ring->options.slots; i++) {
        ring->move->event_destroy(ring->slots[i].ready);
        ring->move->event_destroy(ring->slots[i].freed);
        ring->move->device_free(ring->be, ring->slots[i].data);
    }
    pthread_cond_destroy(&ring->issued_more);
    pthread_mutex_destroy(&ring->lock);
    free(ring->chunks);
    free(ring);
}

/* Go on with copies that bring chunk first, and those after it, from now on. */
static void restart(struct vibe_ring *ring, uint64_t first)
{
    pthread_mutex_lock(&ring->lock);
    ring->is_paused = 0;
    ring->taken = ring->done = ring->issued = ring->asked = first;
    pump(ring);
    pthread_mutex_unlock(&ring->lock);
}

int vibe_ring_load(struct vibe_ring *ring,
                   struct vibe_arena_chunk *const *chunks, size_t n,
                   struct vibe_error *err)
{
    struct vibe_arena_chunk **copy = calloc(n,
                                            sizeof(struct vibe_arena_chunk *));
    int rc;

    assert(n > 0);
    if (!copy)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu chunks", n);
    memcpy(copy, chunks, n * sizeof(struct vibe_arena_chunk *));
    rc = drain(ring, err);
    free(ring->chunks);
    ring->chunks = copy;
    ring->n = n;
    if (rc == VIBE_OK)
        restart(ring, 0);
    return rc;
}

/* Wait until the copy of the taken chunk has been enqueued.  Under the lock. */
static void wait_for_issue(struct vibe_ring *ring)
{
    double start;

    if (ring->issued >= ring->taken || ring->err.code != VIBE_OK)
        return;
    start = vibe_clock_s();
    while (ring->issued < ring->taken && ring->err.code == VIBE_OK)
        pthread_cond_wait(&ring->issued_more, &ring->lock);
    ring->stats.waited_s += vibe_clock_s() - start;
}

int vibe_ring_take(struct vibe_ring *ring, const void **device, size_t chunk,
                   struct vibe_error *err)
{
    const struct slot *slot;
    int rc;

    assert(ring->taken == ring->done);
    if (ring->taken % ring->n != chunk) {
        rc = drain(ring, err);
        if (rc != VIBE_OK)
            return rc;
        restart(ring, chunk);
    }
    pthread_mutex_lock(&ring->lock);
    slot = slot_of(ring, ring->taken);
    ring->taken++;
    pump(ring);
    wait_for_issue(ring);
    rc = ring->err.code;
    if (rc != VIBE_OK && err)
        *err = ring->err;
    pthread_mutex_unlock(&ring->lock);
    if (rc == VIBE_OK && ring->options.is_synchronous)
        rc = ring->move->event_wait(slot->ready, VIBE_QUEUE_HOST, err);
    if (rc == VIBE_OK)
        rc = ring->move->event_wait(slot->ready, VIBE_QUEUE_COMPUTE, err);
    *device = slot->data;
    return rc;
}

int vibe_ring_done(struct vibe_ring *ring, struct vibe_error *err)
{
    const struct slot *slot = slot_of(ring, ring->done);
    int rc = ring->move->event_record(slot->freed, VIBE_QUEUE_COMPUTE, err);

    assert(ring->taken == ring->done + 1);
    if (rc == VIBE_OK && ring->options.is_synchronous)
        rc = ring->move->event_wait(slot->freed, VIBE_QUEUE_HOST, err);
    pthread_mutex_lock(&ring->lock);
    ring->done++;
    if (rc == VIBE_OK)
        pump(ring);
    else if (ring->err.code == VIBE_OK)
        ring->err.code = rc; /* the slot is never safe again */
    pthread_mutex_unlock(&ring->lock);
    return rc;
}

void vibe_ring_count(struct vibe_ring *ring, struct vibe_ring_stats *out)
{
    pthread_mutex_lock(&ring->lock);
    *out = ring->stats;
    pthread_mutex_unlock(&ring->lock);
    out->fill_rate = vibe_bounce_rate(ring->bounce);
}

int vibe_ring_is_pinned(const struct vibe_ring *ring)
{
    return vibe_bounce_is_pinned(ring->bounce);
}
