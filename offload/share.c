#include "offload/share.h"

#include <pthread.h>

#include "engine/base/clock.h"
#include "engine/base/error.h"
#include "offload/transfer.h"

/* No cache of a host holds what the copies read. */
enum { COPY_BYTES = 32 << 20, N_COPIES = 8, N_EVENTS = 2 };

static const double measured_s = 0.15;

/* Faster by less than this is not worth other samples. */
static const double worth = 1.05;

/* The host is asked anew for each matrix, and its team woken up: it is given a
 * little less than it could do. */
static const double host_part = 0.95;

struct helper {
    const struct vibe_share_work *work;
    pthread_mutex_t lock; /* of what follows */
    int is_stopping;
    double bytes, seconds;
};

static void *help(void *user)
{
    struct helper *h = user;
    const double start_s = vibe_clock_s();
    int is_stopping = 0;

    while (!is_stopping) {
        const size_t bytes = h->work->work(h->work->user);

        pthread_mutex_lock(&h->lock);
        h->bytes += (double)bytes;
        h->seconds = vibe_clock_s() - start_s;
        is_stopping = h->is_stopping;
        pthread_mutex_unlock(&h->lock);
    }
    return NULL;
}

/* What copies need. */
struct lane {
    struct vibe_backend *be;
    const struct vibe_transfer *move;
    void *device; /* [COPY_BYTES] */
    char *host;   /* [N_COPIES * COPY_BYTES], pinned */
    struct vibe_event *copied[N_EVENTS];
};

static void release(struct lane *lane)
{
    for (int i = 0; i < N_EVENTS; i++)
        lane->move->event_destroy(lane->copied[i]);
    lane->move->pinned_free(lane->be, lane->host);
    lane->move->device_free(lane->be, lane->device);
}

static int init(struct lane *lane, struct vibe_backend *be,
                const struct vibe_transfer *move, struct vibe_error *err)
{
    int rc = VIBE_OK;

    *lane = (struct lane){
        .be = be,
        .move = move,
        .device = move->device_alloc(be, COPY_BYTES),
        .host = move->pinned_alloc(be, (size_t)N_COPIES * COPY_BYTES),
    };
    if (!lane->device || !lane->host)
        rc = vibe_fail(err, VIBE_E_NOMEM, "no memory to measure the link with");
    for (int i = 0; i < N_EVENTS && rc == VIBE_OK; i++)
        rc = move->event_create(&lane->copied[i], be, err);
    if (rc != VIBE_OK)
        release(lane);
    return rc;
}

/* Copy for a while; *rate in bytes per second. */
static int time_copies(const struct lane *lane, double *rate,
                       struct vibe_error *err)
{
    const struct vibe_transfer *move = lane->move;
    const double start_s = vibe_clock_s();
    size_t n = 0;
    int rc = VIBE_OK;

    while (rc == VIBE_OK && vibe_clock_s() - start_s < measured_s) {
        struct vibe_event *copied = lane->copied[n % N_EVENTS];

        rc = move->event_wait(copied, VIBE_QUEUE_HOST, err);
        if (rc == VIBE_OK)
            rc = move->copy(lane->be, lane->device,
                            lane->host + n % N_COPIES * COPY_BYTES, COPY_BYTES,
                            err);
        if (rc == VIBE_OK)
            rc = move->event_record(copied, VIBE_QUEUE_COPY, err);
        n++;
    }
    for (int i = 0; i < N_EVENTS && rc == VIBE_OK; i++)
        rc = move->event_wait(lane->copied[i], VIBE_QUEUE_HOST, err);
    *rate = (double)n * COPY_BYTES / (vibe_clock_s() - start_s);
    return rc;
}

/* The same while the host works. */
static int time_both(struct vibe_share_rates *out, const struct lane *lane,
                     const struct vibe_share_work *work, struct vibe_error *err)
{
    struct helper h = {.work = work, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t thread;
    int rc;

    if (pthread_create(&thread, NULL, help, &h) != 0)
        return vibe_fail(err, VIBE_E_NOMEM, "no thread to measure with");
    rc = time_copies(lane, &out->link, err); /* until the team is awake */
    if (rc == VIBE_OK)
        rc = time_copies(lane, &out->link, err);
    pthread_mutex_lock(&h.lock);
    h.is_stopping = 1;
    pthread_mutex_unlock(&h.lock);
    pthread_join(thread, NULL);
    out->host = h.seconds > 0 ? h.bytes / h.seconds : 0;
    return rc;
}

int vibe_share_measure(struct vibe_share_rates *out, struct vibe_backend *be,
                       const struct vibe_transfer *move,
                       const struct vibe_share_work *work,
                       struct vibe_error *err)
{
    struct lane lane;
    int rc = init(&lane, be, move, err);

    *out = (struct vibe_share_rates){0};
    if (rc != VIBE_OK)
        return rc;
    work->work(work->user); /* brings its pages in */
    rc = time_copies(&lane, &out->alone, err);
    if (rc == VIBE_OK)
        rc = time_copies(&lane, &out->alone, err);
    if (rc == VIBE_OK)
        rc = time_both(out, &lane, work, err);
    release(&lane);
    return rc;
}

double vibe_share_choose(const struct vibe_share_rates *rates)
{
    const double host = host_part * rates->host;

    if (host + rates->link < worth * rates->alone || host <= 0)
        return 0;
    return host / (host + rates->link);
}

double vibe_share_allow(const struct vibe_share_rates *rates, double asked)
{
    const double best = vibe_share_choose(rates);

    if (best > 0 && asked * rates->alone <= host_part * rates->host)
        return asked;
    return best;
}
