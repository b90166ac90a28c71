#include "offload/arena.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/base/size.h"
#include "offload/transfer.h"

enum { ALIGNMENT = 256, MAX_THREADS = 16, PAGE = 2 << 20 };

static const size_t slab_bytes = (size_t)256 << 20;

struct vibe_arena_chunk {
    struct vibe_arena *arena;
    struct vibe_piece piece;
    struct vibe_arena_chunk *next;
    void *host;            /* inside a slab, or NULL; under the lock */
    enum vibe_place place; /* under the lock */
};

struct slab {
    void *data;
    int is_pinned;
    struct slab *next;
};

struct vibe_arena {
    struct vibe_backend *be;
    const struct vibe_transfer *move;
    struct vibe_layer_out source;
    struct vibe_arena_options options;
    pthread_mutex_t lock; /* of what follows */
    struct vibe_arena_chunk *first, *last;
    struct vibe_arena_chunk *unfilled; /* the first without a final place */
    struct vibe_arena_chunk *lent;     /* a list of their own */
    int is_stopping;
    pthread_mutex_t starting; /* of what follows */
    pthread_t thread;
    int has_thread;
    /* of the thread alone */
    struct slab *slabs;
    size_t used;
};

int vibe_arena_open(struct vibe_arena **out, struct vibe_backend *be,
                    const struct vibe_transfer *move,
                    const struct vibe_layer_out *source,
                    const struct vibe_arena_options *options,
                    struct vibe_error *err)
{
    struct vibe_arena *arena = calloc(1, sizeof(*arena));

    *out = NULL;
    if (!arena)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for an arena");
    arena->be = be;
    arena->move = move;
    arena->source = *source;
    arena->options = *options;
    if (!arena->options.slab_bytes)
        arena->options.slab_bytes = slab_bytes;
    if (arena->options.threads < 1)
        arena->options.threads = 1;
    if (arena->options.threads > MAX_THREADS)
        arena->options.threads = MAX_THREADS;
    pthread_mutex_init(&arena->lock, NULL);
    pthread_mutex_init(&arena->starting, NULL);
    *out = arena;
    return VIBE_OK;
}

/* Wait for the thread to end. */
static void join(struct vibe_arena *arena)
{
    if (arena->has_thread)
        pthread_join(arena->thread, NULL);
    arena->has_thread = 0;
}

static void free_chunks(struct vibe_arena_chunk *chunk)
{
    while (chunk) {
        struct vibe_arena_chunk *next = chunk->next;

        free(chunk);
        chunk = next;
    }
}

void vibe_arena_free(struct vibe_arena *arena)
{
    if (!arena)
        return;
    pthread_mutex_lock(&arena->lock);
    arena->is_stopping = 1;
    pthread_mutex_unlock(&arena->lock);
    join(arena);
    free_chunks(arena->first);
    free_chunks(arena->lent);
    while (arena->slabs) {
        struct slab *next = arena->slabs->next;

        if (arena->slabs->is_pinned)
            arena->move->pinned_free(arena->be, arena->slabs->data);
        else
            free(arena->slabs->data);
        free(arena->slabs);
        arena->slabs = next;
    }
    pthread_mutex_destroy(&arena->lock);
    pthread_mutex_destroy(&arena->starting);
    free(arena);
}

/* The chunk of these rows in a list, or NULL. */
static struct vibe_arena_chunk *find(struct vibe_arena_chunk *chunk,
                                     const struct vibe_piece *piece)
{
    while (chunk &&
           (chunk->piece.matrix != piece->matrix ||
            chunk->piece.first != piece->first || chunk->piece.n != piece->n))
        chunk = chunk->next;
    return chunk;
}

/* At the end of what is filled, or anywhere among what never is. */
static void append(struct vibe_arena *arena, struct vibe_arena_chunk *chunk)
{
    if (chunk->piece.is_lent) {
        chunk->next = arena->lent;
        arena->lent = chunk;
        return;
    }
    if (arena->last)
        arena->last->next = chunk;
    else
        arena->first = chunk;
    arena->last = chunk;
    if (!arena->unfilled)
        arena->unfilled = chunk;
}

int vibe_arena_add(struct vibe_arena_chunk **out, struct vibe_arena *arena,
                   const struct vibe_piece *piece, struct vibe_error *err)
{
    struct vibe_arena_chunk *chunk;

    pthread_mutex_lock(&arena->lock);
    chunk = find(piece->is_lent ? arena->lent : arena->first, piece);
    if (!chunk) {
        chunk = calloc(1, sizeof(*chunk));
        if (chunk) {
            chunk->arena = arena;
            chunk->piece = *piece;
            append(arena, chunk);
        }
    }
    pthread_mutex_unlock(&arena->lock);
    *out = chunk;
    return chunk ? VIBE_OK
                 : vibe_fail(err, VIBE_E_NOMEM, "no memory for a chunk");
}

static size_t room_of(const struct vibe_arena_chunk *chunk)
{
    return vibe_size_round(chunk->piece.bytes, ALIGNMENT);
}

/* The chunks that fill a slab, from the first unfilled one on. */
struct batch {
    struct vibe_arena_chunk *first;
    size_t n, bytes; /* others may be added behind them meanwhile */
};

static int take_batch(struct vibe_arena *arena, struct batch *batch)
{
    struct vibe_arena_chunk *chunk;

    pthread_mutex_lock(&arena->lock);
    chunk = arena->is_stopping ? NULL : arena->unfilled;
    *batch = (struct batch){.first = chunk};
    while (chunk && (!batch->bytes || batch->bytes + room_of(chunk) <=
                                          arena->options.slab_bytes)) {
        batch->bytes += room_of(chunk);
        batch->n++;
        chunk = chunk->next;
    }
    pthread_mutex_unlock(&arena->lock);
    return batch->first != NULL;
}

/* Memory for a batch, on the arena's list; NULL where there is none. */
static struct slab *make_slab(struct vibe_arena *arena, size_t bytes)
{
    struct slab *slab = NULL;

    if (bytes > arena->options.limit - arena->used)
        return NULL;
    slab = calloc(1, sizeof(*slab));
    if (!slab)
        return NULL;
    if (!arena->options.is_unpinned)
        slab->data = arena->move->pinned_alloc(arena->be, bytes);
    slab->is_pinned = slab->data != NULL;
    if (!slab->is_pinned) {
        arena->options.is_unpinned = 1; /* a quota that is used up stays so */
        slab->data = aligned_alloc(PAGE, vibe_size_round(bytes, PAGE));
    }
    if (!slab->data) {
        free(slab);
        return NULL;
    }
    arena->used += bytes;
    slab->next = arena->slabs;
    arena->slabs = slab;
    return slab;
}

/* One of several threads: lays every n_threads-th chunk out. */
struct filler {
    const struct batch *batch;
    char *data;
    size_t index, n_threads;
};

static void *fill_share(void *user)
{
    const struct filler *f = user;
    const struct vibe_arena_chunk *chunk = NULL;
    char *to = f->data;

    for (size_t i = 0; i < f->batch->n; i++) {
        chunk = chunk ? chunk->next : f->batch->first;
        if (i % f->n_threads == f->index)
            chunk->arena->source.lay(chunk->arena->source.user,
                                     chunk->piece.matrix, chunk->piece.first,
                                     chunk->piece.n, to);
        to += room_of(chunk);
    }
    return NULL;
}

static void fill_batch(const struct vibe_arena *arena,
                       const struct batch *batch, const struct slab *slab)
{
    const size_t n = (size_t)arena->options.threads;
    struct filler fillers[MAX_THREADS];
    pthread_t threads[MAX_THREADS];
    int is_running[MAX_THREADS] = {0};

    for (size_t i = 0; i < n; i++)
        fillers[i] = (struct filler){batch, slab->data, i, n};
    for (size_t i = 1; i < n; i++)
        is_running[i] = pthread_create(&threads[i], NULL, fill_share,
                                       &fillers[i]) == 0;
    for (size_t i = 0; i < n; i++)
        if (!is_running[i])
            fill_share(&fillers[i]);
    for (size_t i = 1; i < n; i++)
        if (is_running[i])
            pthread_join(threads[i], NULL);
}

/* From now on the batch is in the slab, or for good in the file. */
static void place_batch(struct vibe_arena *arena, const struct batch *batch,
                        const struct slab *slab)
{
    struct vibe_arena_chunk *chunk = batch->first;
    char *to = slab ? slab->data : NULL;

    pthread_mutex_lock(&arena->lock);
    for (size_t i = 0; i < batch->n; i++, chunk = chunk->next)
        if (slab) {
            chunk->place = slab->is_pinned ? VIBE_PLACE_PINNED
                                           : VIBE_PLACE_PAGEABLE;
            chunk->host = to;
            to += room_of(chunk);
        }
    arena->unfilled = chunk;
    pthread_mutex_unlock(&arena->lock);
}

static void *fill_all(void *user)
{
    struct vibe_arena *arena = user;
    struct batch batch;

    while (take_batch(arena, &batch)) {
        struct slab *slab = make_slab(arena, batch.bytes);

        if (slab)
            fill_batch(arena, &batch, slab);
        place_batch(arena, &batch, slab);
    }
    return NULL;
}

void vibe_arena_fill(struct vibe_arena *arena)
{
    pthread_mutex_lock(&arena->starting);
    join(arena);
    arena->has_thread = pthread_create(&arena->thread, NULL, fill_all, arena) ==
                        0;
    pthread_mutex_unlock(&arena->starting);
}

void vibe_arena_settle(struct vibe_arena *arena)
{
    pthread_mutex_lock(&arena->starting);
    join(arena);
    pthread_mutex_unlock(&arena->starting);
}

enum vibe_place vibe_arena_find(const struct vibe_arena_chunk *chunk,
                                const void **host)
{
    enum vibe_place place;

    pthread_mutex_lock(&chunk->arena->lock);
    place = chunk->place;
    *host = chunk->host;
    pthread_mutex_unlock(&chunk->arena->lock);
    return place;
}

void vibe_arena_lay(const struct vibe_arena_chunk *chunk, void *out)
{
    const struct vibe_layer_out *source = &chunk->arena->source;
    const struct vibe_piece *piece = &chunk->piece;
    const void *host;

    if (vibe_arena_find(chunk, &host) == VIBE_PLACE_FILE)
        source->lay(source->user, piece->matrix, piece->first, piece->n, out);
    else
        memcpy(out, host, piece->bytes);
}

size_t vibe_arena_chunk_bytes(const struct vibe_arena_chunk *chunk)
{
    return chunk->piece.bytes;
}

int vibe_arena_count(struct vibe_arena *arena, size_t bytes[VIBE_N_PLACES])
{
    int is_settled;

    memset(bytes, 0, VIBE_N_PLACES * sizeof(*bytes));
    pthread_mutex_lock(&arena->lock);
    for (struct vibe_arena_chunk *c = arena->first; c; c = c->next)
        bytes[c->place] += c->piece.bytes;
    is_settled = !arena->unfilled;
    pthread_mutex_unlock(&arena->lock);
    return is_settled;
}
