/*
 * heap.h - memory of a device, handed out in pieces and counted by purpose.
 *
 * A driver rounds every allocation up to megabytes, and says so to nobody.  A
 * heap takes spans from it and cuts them itself, so that what a plan has
 * counted is what is taken: everything fits in the one span that was reserved.
 * What goes beyond it is taken in further spans, which are given back when
 * they are empty.
 *
 * Cutting is first fit at VIBE_HEAP_ALIGNMENT; a heap that is asked for the
 * same pieces in the same order therefore places them the same way, on a
 * device or in imagination (tally.h).  What prompts take is cut from the end,
 * so that it leaves no hole between pieces that stay.  Memory is never touched.
 * One thread.
 */
#ifndef VIBE_BACKEND_HEAP_H
#define VIBE_BACKEND_HEAP_H

#include <stddef.h>

#include "engine/backend/backend.h"

struct vibe_heap;

enum {
    VIBE_HEAP_ALIGNMENT = 256,
    VIBE_HEAP_SPAN = 2 << 20, /* small pieces share spans of this size */
};

/* Where spans come from; take returns NULL when there is no more. */
struct vibe_heap_source {
    void *(*take)(void *user, size_t bytes);
    void (*give)(void *user, void *span);
    void *user;
};

/* Errors: VIBE_E_NOMEM */
int vibe_heap_open(struct vibe_heap **out,
                   const struct vibe_heap_source *source,
                   struct vibe_error *err);

/* Give all spans back; NULL is allowed. */
void vibe_heap_free(struct vibe_heap *heap);

/* Take a span that stays; 0 for success, else nothing has changed. */
int vibe_heap_reserve(struct vibe_heap *heap, size_t bytes);

/* bytes > 0, aligned; NULL when there are no more. */
void *vibe_heap_take(struct vibe_heap *heap, size_t bytes,
                     enum vibe_purpose purpose);

/* Returns 1 where memory is none of this heap's; NULL is nobody's. */
int vibe_heap_give(struct vibe_heap *heap, void *memory);

/* The largest span, or NULL where there is none; *bytes is its size. */
void *vibe_heap_largest(const struct vibe_heap *heap, size_t *bytes);

/* Bytes in use by purpose, their sum and its peak, and the sum of all spans
 * and its peak. */
void vibe_heap_count(const struct vibe_heap *heap, struct vibe_memory *out);

#endif /* VIBE_BACKEND_HEAP_H */
