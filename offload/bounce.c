#include "offload/bounce.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "engine/base/clock.h"
#include "engine/base/error.h"
#include "engine/base/size.h"
#include "offload/arena.h"
#include "offload/transfer.h"

enum { MAX_BUFFERS = 16, MAX_THREADS = 16, ALIGNMENT = 256 };

enum state {
    FREE,    /* perhaps still being copied, which filling waits for */
    ASKED,   /* a thread may take it */
    FILLING, /* a thread has */
    FILLED,
    FAILED,
};

struct buffer {
    enum state state;
    uint64_t number;
    const struct vibe_arena_chunk *chunk;
    void *data;
    struct vibe_event *copied; /* what was in it last */
    struct vibe_error err;     /* FAILED */
};

struct vibe_bounce {
    struct vibe_backend *be;
    const struct vibe_transfer *move;
    struct vibe_bounce_options options;
    int is_pinned;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    struct buffer buffers[MAX_BUFFERS];
    int n_buffers;
    int is_stopping;
    double filled_bytes, filled_s; /* by one thread or another */
    pthread_t threads[MAX_THREADS];
    int n_threads;
};

/* The buffer that waits longest for a thread, or NULL. */
static struct buffer *next_asked(struct vibe_bounce *b)
{
    struct buffer *next = NULL;

    for (int i = 0; i < b->n_buffers; i++)
        if (b->buffers[i].state == ASKED &&
            (!next || b->buffers[i].number < next->number))
            next = &b->buffers[i];
    return next;
}

static void *run(void *user)
{
    struct vibe_bounce *b = user;

    pthread_mutex_lock(&b->lock);
    for (;;) {
        struct buffer *buffer = next_asked(b);
        double start_s;
        int rc;

        if (b->is_stopping)
            break;
        if (!buffer) {
            pthread_cond_wait(&b->changed, &b->lock);
            continue;
        }
        buffer->state = FILLING;
        pthread_mutex_unlock(&b->lock);

        rc = b->move->event_wait(buffer->copied, VIBE_QUEUE_HOST, &buffer->err);
        start_s = vibe_clock_s();
        if (rc == VIBE_OK)
            vibe_arena_lay(buffer->chunk, buffer->data);

        pthread_mutex_lock(&b->lock);
        b->filled_s += vibe_clock_s() - start_s;
        b->filled_bytes += (double)vibe_arena_chunk_bytes(buffer->chunk);
        buffer->state = rc == VIBE_OK ? FILLED : FAILED;
        pthread_cond_broadcast(&b->changed);
        pthread_mutex_unlock(&b->lock);
        b->options.filled(b->options.user);
        pthread_mutex_lock(&b->lock);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* As many buffers as can be had; of one kind. */
static void allocate(struct vibe_bounce *b)
{
    const size_t bytes = vibe_size_round(b->options.bytes, ALIGNMENT);

    while (!b->options.is_unpinned && b->n_buffers < b->options.buffers) {
        void *data = b->move->pinned_alloc(b->be, bytes);

        if (!data)
            break;
        b->is_pinned = 1;
        b->buffers[b->n_buffers++].data = data;
    }
    while (!b->is_pinned && b->n_buffers < b->options.buffers) {
        void *data = aligned_alloc(ALIGNMENT, bytes);

        if (!data)
            break;
        b->buffers[b->n_buffers++].data = data;
    }
}

static int start(struct vibe_bounce *b, struct vibe_error *err)
{
    int rc = VIBE_OK;

    if (!b->n_buffers)
        return vibe_fail(err, VIBE_E_NOMEM,
                         "no host memory for a chunk of %zu bytes",
                         b->options.bytes);
    for (int i = 0; i < b->n_buffers && rc == VIBE_OK; i++)
        rc = b->move->event_create(&b->buffers[i].copied, b->be, err);
    while (rc == VIBE_OK && b->n_threads < b->options.threads &&
           pthread_create(&b->threads[b->n_threads], NULL, run, b) == 0)
        b->n_threads++;
    if (rc == VIBE_OK && !b->n_threads)
        rc = vibe_fail(err, VIBE_E_NOMEM, "no thread to fill buffers");
    return rc;
}

int vibe_bounce_open(struct vibe_bounce **out, struct vibe_backend *be,
                     const struct vibe_transfer *move,
                     const struct vibe_bounce_options *options,
                     struct vibe_error *err)
{
    struct vibe_bounce *b = calloc(1, sizeof(*b));
    int rc;

    *out = NULL;
    if (!b)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for buffers");
    assert(options->buffers > 0 && options->buffers <= MAX_BUFFERS &&
           options->threads > 0 && options->threads <= MAX_THREADS);
    b->be = be;
    b->move = move;
    b->options = *options;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->changed, NULL);
    allocate(b);
    rc = start(b, err);
    if (rc != VIBE_OK) {
        vibe_bounce_free(b);
        return rc;
    }
    *out = b;
    return VIBE_OK;
}

void vibe_bounce_free(struct vibe_bounce *b)
{
    if (!b)
        return;
    pthread_mutex_lock(&b->lock);
    b->is_stopping = 1;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
    for (int i = 0; i < b->n_threads; i++)
        pthread_join(b->threads[i], NULL);
    for (int i = 0; i < b->n_buffers; i++) {
        b->move->event_destroy(b->buffers[i].copied);
        if (b->is_pinned)
            b->move->pinned_free(b->be, b->buffers[i].data);
        else
            free(b->buffers[i].data);
    }
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

int vibe_bounce_is_pinned(const struct vibe_bounce *b)
{
    return b->is_pinned;
}

double vibe_bounce_rate(struct vibe_bounce *b)
{
    double rate = 0;

    pthread_mutex_lock(&b->lock);
    if (b->filled_s > 0)
        rate = b->n_threads * b->filled_bytes / b->filled_s;
    pthread_mutex_unlock(&b->lock);
    return rate;
}

int vibe_bounce_want(struct vibe_bounce *b, uint64_t number,
                     const struct vibe_arena_chunk *chunk)
{
    struct buffer *oldest = NULL;

    pthread_mutex_lock(&b->lock);
    /* the one whose copy was appended first is the first to be copied */
    for (int i = 0; i < b->n_buffers; i++)
        if (b->buffers[i].state == FREE &&
            (!oldest || b->buffers[i].number < oldest->number))
            oldest = &b->buffers[i];
    if (oldest) {
        oldest->state = ASKED;
        oldest->number = number;
        oldest->chunk = chunk;
        pthread_cond_broadcast(&b->changed);
    }
    pthread_mutex_unlock(&b->lock);
    return oldest != NULL;
}

/* The buffer that was asked for by that number, or NULL. */
static struct buffer *by_number(struct vibe_bounce *b, uint64_t number)
{
    for (int i = 0; i < b->n_buffers; i++)
        if (b->buffers[i].state != FREE && b->buffers[i].number == number)
            return &b->buffers[i];
    return NULL;
}

enum vibe_bounce_state vibe_bounce_find(struct vibe_bounce *b, uint64_t number,
                                        const void **host,
                                        struct vibe_error *err)
{
    enum vibe_bounce_state state = VIBE_BOUNCE_NONE;
    const struct buffer *buffer;

    pthread_mutex_lock(&b->lock);
    buffer = by_number(b, number);
    if (buffer && buffer->state == FILLED) {
        state = VIBE_BOUNCE_FILLED;
        *host = buffer->data;
    } else if (buffer && buffer->state == FAILED) {
        state = VIBE_BOUNCE_FAILED;
        if (err)
            *err = buffer->err;
    } else if (buffer) {
        state = VIBE_BOUNCE_FILLING;
    }
    pthread_mutex_unlock(&b->lock);
    return state;
}

int vibe_bounce_sent(struct vibe_bounce *b, uint64_t number,
                     struct vibe_error *err)
{
    struct buffer *buffer;
    int rc;

    pthread_mutex_lock(&b->lock);
    buffer = by_number(b, number);
    assert(buffer && buffer->state == FILLED);
    rc = b->move->event_record(buffer->copied, VIBE_QUEUE_COPY, err);
    buffer->state = FREE;
    pthread_mutex_unlock(&b->lock);
    return rc;
}

void vibe_bounce_reset(struct vibe_bounce *b)
{
    pthread_mutex_lock(&b->lock);
    for (int i = 0; i < b->n_buffers; i++) {
        struct buffer *buffer = &b->buffers[i];

        if (buffer->state == ASKED)
            buffer->state = FREE;
        while (buffer->state == FILLING)
            pthread_cond_wait(&b->changed, &b->lock);
        buffer->state = FREE;
        buffer->number = 0;
    }
    pthread_mutex_unlock(&b->lock);
}
