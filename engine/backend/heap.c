#include "engine/backend/heap.h"

#include <assert.h>
#include <stdlib.h>

#include "engine/base/size.h"

/* A part of a span, used or not; those of a span are in a list by address. */
struct piece {
    struct piece *next;
    size_t at, bytes;
    int is_used;
    enum vibe_purpose purpose;
};

struct span {
    struct span *next; /* in the order of their taking */
    char *memory;
    size_t bytes;
    int is_reserved;
    struct piece *pieces;
};

struct vibe_heap {
    struct vibe_heap_source source;
    struct span *spans;
    struct vibe_memory count;
};

int vibe_heap_open(struct vibe_heap **out,
                   const struct vibe_heap_source *source,
                   struct vibe_error *err)
{
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for a heap");
    (*out)->source = *source;
    return VIBE_OK;
}

/* Take a span out of the list that *at points into. */
static void release_span(struct vibe_heap *heap, struct span **at)
{
    struct span *span = *at;

    *at = span->next;
    heap->source.give(heap->source.user, span->memory);
    heap->count.taken -= span->bytes;
    while (span->pieces) {
        struct piece *next = span->pieces->next;

        free(span->pieces);
        span->pieces = next;
    }
    free(span);
}

void vibe_heap_free(struct vibe_heap *heap)
{
    if (!heap)
        return;
    while (heap->spans)
        release_span(heap, &heap->spans);
    free(heap);
}

static struct span *add_span(struct vibe_heap *heap, size_t bytes)
{
    struct span *span = calloc(1, sizeof(*span));
    struct piece *whole = calloc(1, sizeof(*whole));
    struct span **end = &heap->spans;

    if (span && whole)
        span->memory = heap->source.take(heap->source.user, bytes);
    if (!span || !whole || !span->memory) {
        free(span);
        free(whole);
        return NULL;
    }
    whole->bytes = bytes;
    span->bytes = bytes;
    span->pieces = whole;
    while (*end)
        end = &(*end)->next;
    *end = span;
    heap->count.taken += bytes;
    if (heap->count.taken > heap->count.taken_peak)
        heap->count.taken_peak = heap->count.taken;
    return span;
}

int vibe_heap_reserve(struct vibe_heap *heap, size_t bytes)
{
    struct span *span = add_span(heap, vibe_size_round(bytes, VIBE_HEAP_SPAN));

    if (!span)
        return 1;
    span->is_reserved = 1;
    return 0;
}

/* The first unused piece that is large enough, or the last one. */
static struct piece *find(const struct span *span, size_t bytes, int is_last)
{
    struct piece *found = NULL;

    for (struct piece *p = span->pieces; p && (is_last || !found); p = p->next)
        if (!p->is_used && p->bytes >= bytes)
            found = p;
    return found;
}

/* That piece, cut to size; or NULL. */
static struct piece *cut(struct span *span, size_t bytes, int is_last)
{
    struct piece *piece = find(span, bytes, is_last);
    struct piece *rest;
    size_t first;

    if (!piece || piece->bytes == bytes)
        return piece;
    rest = calloc(1, sizeof(*rest));
    if (!rest)
        return NULL;
    first = is_last ? piece->bytes - bytes : bytes;
    *rest = (struct piece){
        .next = piece->next,
        .at = piece->at + first,
        .bytes = piece->bytes - first,
    };
    piece->next = rest;
    piece->bytes = first;
    return is_last ? rest : piece;
}

void *vibe_heap_take(struct vibe_heap *heap, size_t bytes,
                     enum vibe_purpose purpose)
{
    const int is_last = purpose == VIBE_FOR_PROMPT;
    struct vibe_memory *count = &heap->count;
    struct span *span = heap->spans;
    struct piece *piece = NULL;

    assert(bytes > 0);
    bytes = vibe_size_round(bytes, VIBE_HEAP_ALIGNMENT);
    for (; span; span = span->next) {
        piece = cut(span, bytes, is_last);
        if (piece)
            break;
    }
    if (!piece) {
        span = add_span(heap, vibe_size_round(bytes, VIBE_HEAP_SPAN));
        piece = span ? cut(span, bytes, is_last) : NULL;
    }
    if (!piece)
        return NULL;
    piece->is_used = 1;
    piece->purpose = purpose;
    count->bytes[purpose] += bytes;
    count->used += bytes;
    if (count->bytes[purpose] > count->peak[purpose])
        count->peak[purpose] = count->bytes[purpose];
    if (count->used > count->used_peak)
        count->used_peak = count->used;
    return span->memory + piece->at;
}

/* Join neighbours that are not used. */
static void join(struct span *span)
{
    struct piece *piece = span->pieces;

    while (piece->next) {
        struct piece *next = piece->next;

        if (piece->is_used || next->is_used) {
            piece = next;
            continue;
        }
        piece->bytes += next->bytes;
        piece->next = next->next;
        free(next);
    }
}

int vibe_heap_give(struct vibe_heap *heap, void *memory)
{
    struct span **at = &heap->spans;
    struct piece *piece;
    size_t offset;

    while (*at && ((char *)memory < (*at)->memory ||
                   (char *)memory >= (*at)->memory + (*at)->bytes))
        at = &(*at)->next;
    if (!memory || !*at)
        return 1;
    offset = (size_t)((char *)memory - (*at)->memory);
    piece = (*at)->pieces;
    while (piece && piece->at != offset)
        piece = piece->next;
    assert(piece && piece->is_used);
    piece->is_used = 0;
    heap->count.bytes[piece->purpose] -= piece->bytes;
    heap->count.used -= piece->bytes;
    join(*at);
    if (!(*at)->is_reserved && !(*at)->pieces->next && !(*at)->pieces->is_used)
        release_span(heap, at);
    return 0;
}

void *vibe_heap_largest(const struct vibe_heap *heap, size_t *bytes)
{
    void *memory = NULL;

    *bytes = 0;
    for (const struct span *span = heap->spans; span; span = span->next)
        if (span->bytes > *bytes) {
            *bytes = span->bytes;
            memory = span->memory;
        }
    return memory;
}

void vibe_heap_count(const struct vibe_heap *heap, struct vibe_memory *out)
{
    *out = heap->count;
}
