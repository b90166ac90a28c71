/*
 * arena.h - the host's copy of the chunks, laid out as the device reads them.
 *
 * Chunks are added in the order of their use and taken in slabs, which a
 * thread of the arena allocates and fills in the background: pinned while the
 * device grants that, then pageable while there is memory, and then not at
 * all.  Until a chunk is filled, and for those that never are, whoever needs
 * one lays it out itself from the checkpoint.
 *
 * Several devices that read chunks alike may share an arena: any thread may
 * call what is here, and pinned memory is pinned for all of them.
 */
#ifndef VIBE_OFFLOAD_ARENA_H
#define VIBE_OFFLOAD_ARENA_H

#include <stddef.h>

#include "offload/residency.h"

struct vibe_arena;
struct vibe_arena_chunk;
struct vibe_backend;
struct vibe_error;
struct vibe_transfer;

/* Where the bytes of a chunk are; later ones are better. */
enum vibe_place {
    VIBE_PLACE_FILE,     /* to be laid out anew for each copy */
    VIBE_PLACE_PAGEABLE, /* laid out, in memory that copies slowly */
    VIBE_PLACE_PINNED,
    VIBE_N_PLACES,
};

/* Lays rows of a matrix out as the device reads them; called by several
 * threads at once. */
struct vibe_layer_out {
    void (*lay)(void *user, size_t matrix, size_t first, size_t n, void *out);
    void *user; /* borrowed until the arena is freed */
};

struct vibe_arena_options {
    size_t slab_bytes; /* allocated at once; 0: 256 MB */
    size_t limit;      /* bytes of slabs, at most */
    int threads;       /* that fill */
    int is_unpinned;   /* pin nothing */
};

/*
 *   out        set to an empty arena, or to NULL; free with vibe_arena_free
 *   be, move   borrowed until then
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_arena_open(struct vibe_arena **out, struct vibe_backend *be,
                    const struct vibe_transfer *move,
                    const struct vibe_layer_out *source,
                    const struct vibe_arena_options *options,
                    struct vibe_error *err);

/* Stop filling and release; nothing may be copied from it any more. */
void vibe_arena_free(struct vibe_arena *arena);

/*
 * Add a chunk, at first to be laid out by its user; one that is lent stays so.
 * Who adds what is there already gets that.
 *
 *   out   borrowed until vibe_arena_free
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_arena_add(struct vibe_arena_chunk **out, struct vibe_arena *arena,
                   const struct vibe_piece *piece, struct vibe_error *err);

/* Start to fill what was added, or go on with it; where no thread can be had
 * chunks stay in the file. */
void vibe_arena_fill(struct vibe_arena *arena);

/* Wait until all that was added has its final place. */
void vibe_arena_settle(struct vibe_arena *arena);

/* Where a chunk is now; *host is its bytes, or NULL for VIBE_PLACE_FILE. */
enum vibe_place vibe_arena_find(const struct vibe_arena_chunk *chunk,
                                const void **host);

/* Lay a chunk out in out, which has room for its bytes: a copy where there is
 * one. */
void vibe_arena_lay(const struct vibe_arena_chunk *chunk, void *out);

size_t vibe_arena_chunk_bytes(const struct vibe_arena_chunk *chunk);

/* Count bytes of chunks by place, those that are lent aside; returns whether
 * that is where they stay. */
int vibe_arena_count(struct vibe_arena *arena, size_t bytes[VIBE_N_PLACES]);

#endif /* VIBE_OFFLOAD_ARENA_H */
