#include "engine/format/readahead.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/format/pack.h"
#include "engine/format/weights.h"

enum { MAX_THREADS = 8 };

/* Brought in at once: a thread looks so often whether it should stop. */
static const size_t step_bytes = (size_t)16 << 20;

struct vibe_readahead {
    const struct vibe_weights *w;
    pthread_t threads[MAX_THREADS];
    int n_threads;
    pthread_mutex_t lock; /* of what follows */
    size_t next;          /* tensor that nobody reads yet */
    int is_stopping;
};

/* Touch every page, where the kernel cannot be asked to. */
static void touch(const volatile char *data, size_t bytes, size_t page)
{
    for (size_t i = 0; i < bytes; i += page)
        (void)data[i];
}

/* bytes from data, a page's border, on. */
static void bring_in(char *data, size_t bytes, size_t page)
{
#ifdef MADV_POPULATE_READ
    if (madvise(data, bytes, MADV_POPULATE_READ) == 0)
        return;
#endif
    touch(data, bytes, page);
}

static int is_stopping(struct vibe_readahead *r)
{
    int is;

    pthread_mutex_lock(&r->lock);
    is = r->is_stopping;
    pthread_mutex_unlock(&r->lock);
    return is;
}

static size_t bytes_of(const struct vibe_weight *weight)
{
    if (weight->dtype == VIBE_BF16_PACKED)
        return weight->blocks[vibe_pack_n_blocks(weight->shape[0])] -
               weight->blocks[0];
    return vibe_dtype_bytes(weight->dtype, weight->n);
}

static void read_tensor(struct vibe_readahead *r, size_t i)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    struct vibe_weight weight;
    uintptr_t at, end;

    vibe_weights_get(r->w, i, &weight);
    at = (uintptr_t)weight.data / page * page;
    end = (uintptr_t)weight.data + bytes_of(&weight);
    while (at < end && !is_stopping(r)) {
        const size_t n = end - at < step_bytes ? end - at : step_bytes;

        bring_in((char *)at, n, page);
        at += n;
    }
}

static void *read_all(void *user)
{
    struct vibe_readahead *r = user;
    const size_t n = vibe_weights_count(r->w);
    size_t i;

    do {
        pthread_mutex_lock(&r->lock);
        i = r->is_stopping ? n : r->next;
        r->next = i + 1;
        pthread_mutex_unlock(&r->lock);
        if (i < n)
            read_tensor(r, i);
    } while (i < n);
    return NULL;
}

struct vibe_readahead *vibe_readahead_begin(const struct vibe_weights *w,
                                            int threads)
{
    struct vibe_readahead *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->w = w;
    pthread_mutex_init(&r->lock, NULL);
    while (r->n_threads < threads && r->n_threads < MAX_THREADS &&
           pthread_create(&r->threads[r->n_threads], NULL, read_all, r) == 0)
        r->n_threads++;
    return r;
}

void vibe_readahead_wait(struct vibe_readahead *r)
{
    if (!r)
        return;
    for (int i = 0; i < r->n_threads; i++)
        pthread_join(r->threads[i], NULL);
    r->n_threads = 0;
}

void vibe_readahead_end(struct vibe_readahead *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->is_stopping = 1;
    pthread_mutex_unlock(&r->lock);
    vibe_readahead_wait(r);
    pthread_mutex_destroy(&r->lock);
    free(r);
}
