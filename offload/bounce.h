/*
 * bounce.h - pinned buffers that chunks pass through when they are not pinned
 * themselves, and the threads that fill them.
 *
 * Chunks are asked for in the order of their copies, some ahead of time, and
 * each is named by its number in that order.
 */
#ifndef VIBE_OFFLOAD_BOUNCE_H
#define VIBE_OFFLOAD_BOUNCE_H

#include <stddef.h>
#include <stdint.h>

struct vibe_arena_chunk;
struct vibe_backend;
struct vibe_bounce;
struct vibe_error;
struct vibe_transfer;

struct vibe_bounce_options {
    size_t bytes; /* of the largest chunk */
    int buffers;  /* at most; fewer where fewer can be pinned */
    int threads;
    int is_unpinned; /* pin nothing */
    /* called by a thread after it filled a buffer, or failed to */
    void (*filled)(void *user);
    void *user;
};

/*
 * Allocate buffers, pinned or, where not even one can be, pageable, and start
 * the threads.
 *
 *   out        NULL on error; free with vibe_bounce_free
 *   be, move   borrowed until then
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_bounce_open(struct vibe_bounce **out, struct vibe_backend *be,
                     const struct vibe_transfer *move,
                     const struct vibe_bounce_options *options,
                     struct vibe_error *err);

/* Stop and release; what was sent has been copied. */
void vibe_bounce_free(struct vibe_bounce *b);

int vibe_bounce_is_pinned(const struct vibe_bounce *b);

/* Bytes per second that all threads fill together; 0 before the first. */
double vibe_bounce_rate(struct vibe_bounce *b);

/* Have a chunk laid out in a buffer; 1 when it will be, 0 when none is free. */
int vibe_bounce_want(struct vibe_bounce *b, uint64_t number,
                     const struct vibe_arena_chunk *chunk);

enum vibe_bounce_state {
    VIBE_BOUNCE_NONE,    /* never asked for */
    VIBE_BOUNCE_FILLING, /* not yet */
    VIBE_BOUNCE_FILLED,  /* *host holds it */
    VIBE_BOUNCE_FAILED,
};
enum vibe_bounce_state vibe_bounce_find(struct vibe_bounce *b, uint64_t number,
                                        const void **host,
                                        struct vibe_error *err);

/*
 * The copy of a filled buffer has just been appended to the copy queue.
 * Errors: VIBE_E_DEVICE
 */
int vibe_bounce_sent(struct vibe_bounce *b, uint64_t number,
                     struct vibe_error *err);

/* Forget all that was asked for, once it is filled and copied. */
void vibe_bounce_reset(struct vibe_bounce *b);

#endif /* VIBE_OFFLOAD_BOUNCE_H */
