/*
 * ring.h - slots of device memory that chunks stream through, round and round.
 *
 * Pass after pass uses the same chunks in the same order.  Copies run ahead on
 * the copy queue: as soon as the use of a slot has been enqueued, so is the
 * copy of the chunk that comes into it next, behind an event that marks the
 * end of that use.  So the link goes on while other things are computed, into
 * the next pass too, and nobody waits for the host.
 *
 *   copy queue      ... wait freed[s], copy chunk j, mark ready[s] ...
 *   compute queue   ... wait ready[s], use chunk j, mark freed[s] ...
 *
 * take and done are for one thread; what fills buffers for chunks that are not
 * pinned enqueues their copies itself.
 */
#ifndef VIBE_OFFLOAD_RING_H
#define VIBE_OFFLOAD_RING_H

#include <stddef.h>
#include <stdint.h>

struct vibe_arena_chunk;
struct vibe_backend;
struct vibe_error;
struct vibe_ring;
struct vibe_transfer;

enum { VIBE_RING_SLOTS = 64 }; /* at most */

struct vibe_ring_options {
    size_t slots;       /* 1 .. VIBE_RING_SLOTS */
    size_t slot_bytes;  /* of the largest chunk */
    int buffers;        /* for chunks that are not pinned, see bounce.h */
    int threads;        /* that fill those */
    int is_unpinned;    /* pin nothing */
    int is_on_demand;   /* copy a chunk only when it is taken */
    int is_synchronous; /* wait for each copy, and for each use */
};

struct vibe_ring_stats {
    uint64_t copies;
    uint64_t bytes;
    double waited_s;  /* the caller's, for buffers to be filled */
    double fill_rate; /* of all buffers, bytes per second; 0: none was filled */
};

/*
 * Allocate slots, events and buffers.
 *
 *   out        NULL on error; free with vibe_ring_free
 *   be, move   borrowed until then
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_ring_open(struct vibe_ring **out, struct vibe_backend *be,
                   const struct vibe_transfer *move,
                   const struct vibe_ring_options *options,
                   struct vibe_error *err);

/* Wait for what was enqueued and release; NULL is allowed. */
void vibe_ring_free(struct vibe_ring *ring);

/*
 * Stream these chunks from now on, starting with the first.  Waits for what
 * was enqueued before.
 *
 *   chunks   [n], n > 0, copied; those they point to borrowed until the next
 *            call or vibe_ring_free
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_ring_load(struct vibe_ring *ring,
                   struct vibe_arena_chunk *const *chunks, size_t n,
                   struct vibe_error *err);

/*
 * Take a chunk: what the compute queue does from now on sees its bytes.  Any
 * other than the next in order is a new start there, which waits as
 * vibe_ring_load does.
 *
 *   device   set to where it is, until vibe_ring_done
 *
 * Errors: VIBE_E_DEVICE
 */
int vibe_ring_take(struct vibe_ring *ring, const void **device, size_t chunk,
                   struct vibe_error *err);

/* All use of the chunk that was taken has been enqueued. */
int vibe_ring_done(struct vibe_ring *ring, struct vibe_error *err);

void vibe_ring_count(struct vibe_ring *ring, struct vibe_ring_stats *out);

/* Whether chunks that are not pinned pass through pinned buffers. */
int vibe_ring_is_pinned(const struct vibe_ring *ring);

#endif /* VIBE_OFFLOAD_RING_H */
