#include "tests/support/fake_device.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "tests/support/vibe_test.h"

struct vibe_event {
    struct fake_device *d;
    unsigned marks, reached; /* recorded, and run */
    double at_s;             /* when the last that was run was reached */
};

enum kind { COPY, RECORD, WAIT, USE };

struct fake_item {
    enum kind kind;
    struct fake_item *next;
    double enqueued_s, seconds;
    void *to; /* COPY; the user of USE */
    const void *from;
    size_t bytes;
    void (*use)(void *user);
    struct vibe_event *event;
    unsigned mark; /* RECORD, WAIT */
};

static struct fake_device *of(struct vibe_backend *be)
{
    return (struct fake_device *)(void *)be;
}

struct vibe_backend *fake_backend(struct fake_device *d)
{
    return (struct vibe_backend *)(void *)d;
}

static void note(struct fake_device *d, char c)
{
    if (d->n_log + 1 < FAKE_LOG)
        d->log[d->n_log++] = c;
}

/* Whether this call is the one to fail.  Under the lock. */
static int fails(struct fake_device *d)
{
    return d->n_calls++ == d->fail_at;
}

static void append(struct fake_device *d, enum vibe_queue queue,
                   struct fake_item item)
{
    struct fake_queue *q = &d->queue[queue];
    struct fake_item *made = malloc(sizeof(*made));

    if (!made)
        abort();
    *made = item;
    made->next = NULL;
    made->enqueued_s = d->host_s;
    if (q->last)
        q->last->next = made;
    else
        q->first = made;
    q->last = made;
}

/* Run the first item of a queue, unless it has to wait: 0. */
static int run_one(struct fake_device *d, enum vibe_queue queue)
{
    struct fake_queue *q = &d->queue[queue];
    struct fake_item *item = q->first;

    if (!item || (item->kind == WAIT && item->event->reached < item->mark))
        return 0;
    if (q->clock_s < item->enqueued_s)
        q->clock_s = item->enqueued_s;
    switch (item->kind) {
    case COPY:
        memcpy(item->to, item->from, item->bytes);
        break;
    case USE:
        item->use(item->to);
        break;
    case RECORD:
        item->event->reached = item->mark;
        item->event->at_s = q->clock_s;
        break;
    case WAIT:
        if (q->clock_s < item->event->at_s) {
            q->wait_s += item->event->at_s - q->clock_s;
            q->clock_s = item->event->at_s;
        }
        break;
    }
    q->clock_s += item->seconds;
    q->busy_s += item->seconds;
    q->first = item->next;
    if (!q->first)
        q->last = NULL;
    free(item);
    return 1;
}

/* Run until nothing can or, with an event, until its last mark is reached. */
static void run(struct fake_device *d, const struct vibe_event *until)
{
    const enum vibe_queue first = d->is_eager ? VIBE_QUEUE_COPY
                                              : VIBE_QUEUE_COMPUTE;
    const enum vibe_queue second = d->is_eager ? VIBE_QUEUE_COMPUTE
                                               : VIBE_QUEUE_COPY;

    while ((!until || until->reached < until->marks) &&
           (run_one(d, first) || run_one(d, second)))
        ;
}

static void *allocate(struct fake_device *d, size_t bytes)
{
    void *data = fails(d) ? NULL : malloc(bytes);

    if (data) {
        memset(data, 0xA5, bytes);
        d->n_live++;
    }
    return data;
}

static void *device_alloc(struct vibe_backend *be, size_t bytes)
{
    struct fake_device *d = of(be);
    void *data;

    pthread_mutex_lock(&d->lock);
    data = allocate(d, bytes);
    pthread_mutex_unlock(&d->lock);
    return data;
}

static void device_free(struct vibe_backend *be, void *device)
{
    struct fake_device *d = of(be);

    pthread_mutex_lock(&d->lock);
    run(d, NULL); /* as a device does before it takes memory back */
    d->n_live -= device != NULL;
    pthread_mutex_unlock(&d->lock);
    free(device);
}

static void *pinned_alloc(struct vibe_backend *be, size_t bytes)
{
    struct fake_device *d = of(be);
    void *data = NULL;

    pthread_mutex_lock(&d->lock);
    if (bytes <= d->pinned_left)
        data = allocate(d, bytes);
    if (data && d->pinned_left != SIZE_MAX)
        d->pinned_left -= bytes;
    pthread_mutex_unlock(&d->lock);
    return data;
}

static int copy(struct vibe_backend *be, void *device, const void *host,
                size_t bytes, struct vibe_error *err)
{
    struct fake_device *d = of(be);
    int rc = VIBE_OK;

    pthread_mutex_lock(&d->lock);
    note(d, 'c');
    if (fails(d))
        rc = vibe_fail(err, VIBE_E_DEVICE, "the fake copy fails");
    else
        append(
            d, VIBE_QUEUE_COPY,
            (struct fake_item){
                .kind = COPY,
                .to = device,
                .from = host,
                .bytes = bytes,
                .seconds = d->link_bps > 0 ? (double)bytes / d->link_bps : 0.0,
            });
    pthread_mutex_unlock(&d->lock);
    return rc;
}

static int event_create(struct vibe_event **out, struct vibe_backend *be,
                        struct vibe_error *err)
{
    struct fake_device *d = of(be);
    int is_failing;

    *out = NULL;
    pthread_mutex_lock(&d->lock);
    is_failing = fails(d);
    d->n_live += !is_failing;
    pthread_mutex_unlock(&d->lock);
    if (is_failing)
        return vibe_fail(err, VIBE_E_NOMEM, "the fake has no event");
    *out = calloc(1, sizeof(**out));
    if (!*out)
        abort();
    (*out)->d = d;
    return VIBE_OK;
}

static int event_record(struct vibe_event *event, enum vibe_queue queue,
                        struct vibe_error *err)
{
    struct fake_device *d = event->d;
    int rc = VIBE_OK;

    pthread_mutex_lock(&d->lock);
    note(d, queue == VIBE_QUEUE_COPY ? 'r' : 'R');
    if (fails(d))
        rc = vibe_fail(err, VIBE_E_DEVICE, "the fake record fails");
    else
        append(d, queue,
               (struct fake_item){
                   .kind = RECORD, .event = event, .mark = ++event->marks});
    pthread_mutex_unlock(&d->lock);
    return rc;
}

static int event_wait(struct vibe_event *event, enum vibe_queue queue,
                      struct vibe_error *err)
{
    struct fake_device *d = event->d;
    int rc = VIBE_OK;

    pthread_mutex_lock(&d->lock);
    assert_int_not_equal(queue, VIBE_QUEUE_ASIDE);
    note(d, "wW?h"[queue]);
    if (fails(d)) {
        rc = vibe_fail(err, VIBE_E_DEVICE, "the fake wait fails");
    } else if (queue == VIBE_QUEUE_HOST) {
        run(d, event);
        assert_int_equal(event->reached, event->marks);
        if (d->host_s < event->at_s)
            d->host_s = event->at_s;
    } else {
        append(d, queue,
               (struct fake_item){
                   .kind = WAIT, .event = event, .mark = event->marks});
    }
    pthread_mutex_unlock(&d->lock);
    return rc;
}

static void event_destroy(struct vibe_event *event)
{
    struct fake_device *d;

    if (!event)
        return;
    d = event->d;
    pthread_mutex_lock(&d->lock);
    run(d, NULL);
    d->n_live--;
    pthread_mutex_unlock(&d->lock);
    free(event);
}

/* All that has ended is put down to the one who asks. */
static void waited(struct vibe_backend *be, double *seconds, size_t n,
                   size_t waiter)
{
    struct fake_queue *q = &of(be)->queue[VIBE_QUEUE_COMPUTE];

    assert_true(waiter < n);
    seconds[waiter] += q->wait_s;
    q->wait_s = 0;
}

static size_t free_bytes(struct vibe_backend *be)
{
    (void)be;
    return 0;
}

const struct vibe_transfer fake_transfer = {
    .device_alloc = device_alloc,
    .device_free = device_free,
    .pinned_alloc = pinned_alloc,
    .pinned_free = device_free,
    .copy = copy,
    .event_create = event_create,
    .event_record = event_record,
    .event_wait = event_wait,
    .event_destroy = event_destroy,
    .waited = waited,
    .free_bytes = free_bytes,
};

void fake_device_init(struct fake_device *d)
{
    *d = (struct fake_device){.pinned_left = SIZE_MAX, .fail_at = -1};
    pthread_mutex_init(&d->lock, NULL);
}

void fake_device_release(struct fake_device *d)
{
    run(d, NULL);
    assert_null(d->queue[VIBE_QUEUE_COPY].first);
    assert_null(d->queue[VIBE_QUEUE_COMPUTE].first);
    assert_int_equal(d->n_live, 0);
    pthread_mutex_destroy(&d->lock);
}

void fake_use(struct fake_device *d, void (*fn)(void *user), void *user,
              double seconds)
{
    pthread_mutex_lock(&d->lock);
    note(d, 'u');
    append(d, VIBE_QUEUE_COMPUTE,
           (struct fake_item){
               .kind = USE, .use = fn, .to = user, .seconds = seconds});
    pthread_mutex_unlock(&d->lock);
}

void fake_sync(struct fake_device *d)
{
    const struct fake_queue *q = &d->queue[VIBE_QUEUE_COMPUTE];

    pthread_mutex_lock(&d->lock);
    while (q->first &&
           (run_one(d, VIBE_QUEUE_COMPUTE) || run_one(d, VIBE_QUEUE_COPY)))
        ;
    assert_null(q->first);
    if (d->host_s < q->clock_s)
        d->host_s = q->clock_s;
    pthread_mutex_unlock(&d->lock);
}
