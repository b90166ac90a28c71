/*
 * offload.h - the rows of the language model, whether resident or streamed.
 *
 * Follows the table of residency.h: resident pieces are in device memory of
 * their own, the others pass through a ring (ring.h) from the host's copy
 * (arena.h).  One thread takes pieces; between frames it may demote resident
 * ones, which gives their memory back to the device.
 */
#ifndef VIBE_OFFLOAD_OFFLOAD_H
#define VIBE_OFFLOAD_OFFLOAD_H

#include <stddef.h>
#include <stdint.h>

#include "offload/arena.h"
#include "offload/residency.h"

struct vibe_backend;
struct vibe_error;
struct vibe_offload;
struct vibe_transfer;

/* All zero is what is best. */
struct vibe_offload_options {
    size_t slots;      /* of the ring; 0: VIBE_OFFLOAD_SLOTS */
    size_t ring_bytes; /* that it may have, in more slots; 0: no more */
    size_t host_limit; /* bytes of host memory for chunks; 0: most of what is
                           free */
    size_t slab_bytes; /* see arena.h */
    int threads;       /* that lay chunks out; 0: VIBE_OFFLOAD_THREADS */
    struct vibe_offload *like; /* of the same matrices on a like device: its
                                  host copy is used, and it freed later */
    int is_unpinned;           /* use no page-locked memory */
    int is_on_demand;          /* no copy before its chunk is wanted */
    int is_synchronous;        /* no copy while anything is computed */
};

enum { VIBE_OFFLOAD_SLOTS = 3, VIBE_OFFLOAD_THREADS = 4 };

/* Where the rows come from. */
struct vibe_offload_source {
    struct vibe_layer_out out;
    /* bring rows to device memory, before anything that computes from now on */
    int (*fill)(void *user, size_t matrix, size_t first, size_t n, void *device,
                struct vibe_error *err);
};

/* The way that chunks take, from the fastest to the slowest. */
enum vibe_path {
    VIBE_PATH_NONE,     /* everything is resident */
    VIBE_PATH_DIRECT,   /* all pinned, copied from where they are */
    VIBE_PATH_BOUNCE,   /* some through pinned buffers */
    VIBE_PATH_DISK,     /* some laid out from the file for every pass */
    VIBE_PATH_PAGEABLE, /* nothing could be pinned */
};

/* "resident", "direct", "bounce", "disk", "pageable". */
const char *vibe_path_name(enum vibe_path path);

/* The way to expect before anything is streamed; that pinned memory is there
 * for all of it shows only then. */
enum vibe_path vibe_path_expect(size_t streamed,
                                const struct vibe_offload_options *options);

struct vibe_offload_stats {
    enum vibe_path path;
    size_t resident_bytes, streamed_bytes; /* streamed once in each frame */
    size_t lent_bytes;                     /* see residency.h */
    size_t n_chunks, slots, slot_bytes;
    size_t place_bytes[VIBE_N_PLACES]; /* of chunks, on the host */
    int is_settled;                    /* where they stay, and path with them */
    uint64_t transfers, bytes;         /* since the start */
    double waited_s;  /* the caller's, for chunks that were not pinned */
    double fill_rate; /* bytes per second into buffers; 0: not known */
    size_t n_demoted; /* pieces */
};

/*
 * Start with a table whose resident pieces are yet to be loaded; chunks are
 * laid out in the background from now on.
 *
 *   out        NULL on error; free with vibe_offload_free
 *   be, move   borrowed until then, and what source points to
 *   table      taken on success
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_offload_open(struct vibe_offload **out, struct vibe_backend *be,
                      const struct vibe_transfer *move,
                      const struct vibe_offload_source *source,
                      struct vibe_residency *table,
                      const struct vibe_offload_options *options,
                      struct vibe_error *err);

/* Wait for what was enqueued, and release everything; NULL is allowed. */
void vibe_offload_free(struct vibe_offload *o);

/*
 * Bring the resident pieces of a matrix to the device.
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_offload_fill(struct vibe_offload *o, size_t matrix,
                      struct vibe_error *err);

/* What vibe_offload_take hands out; rows first .. first + n - 1. */
struct vibe_taken {
    const void *device; /* until vibe_offload_done */
    size_t n;
    int is_streamed;
};

/*
 * Take the piece of a matrix that begins with row first, for what the compute
 * queue does from now on.  In a pass over the model pieces are taken in the
 * order of the table; what else is right as well, but waits.  A pass takes
 * either all pieces that are lent or none: to change one's mind waits, too.
 *
 * Errors: VIBE_E_DEVICE
 */
int vibe_offload_take(struct vibe_offload *o, struct vibe_taken *out,
                      size_t matrix, size_t first, struct vibe_error *err);

/* All use of the piece that was taken has been enqueued. */
int vibe_offload_done(struct vibe_offload *o, struct vibe_error *err);

/*
 * Give up resident pieces until that many bytes are free again or none is
 * left; nothing may be enqueued that uses one.
 *
 *   freed   set to the bytes that device allocations got back
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_offload_demote(struct vibe_offload *o, size_t bytes, size_t *freed,
                        struct vibe_error *err);

int vibe_offload_is_streaming(const struct vibe_offload *o);

/* Wait until every chunk is where it stays, as before measuring. */
void vibe_offload_settle(struct vibe_offload *o);

void vibe_offload_count(struct vibe_offload *o, struct vibe_offload_stats *out);

/* Copies of a matrix's chunks since the start. */
uint64_t vibe_offload_copies(const struct vibe_offload *o, size_t matrix);

/* The table as it is now. */
const struct vibe_residency *vibe_offload_table(const struct vibe_offload *o);

/* Whether a matrix is one piece, and nothing is streamed or lent. */
int vibe_offload_is_whole(const struct vibe_offload *o, size_t matrix);

/* Rows of a matrix before those that are lent: all of them, where none is. */
size_t vibe_offload_end(const struct vibe_offload *o, size_t matrix);

/* The pass that is going on takes nothing lent.
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE */
int vibe_offload_pass_by(struct vibe_offload *o, struct vibe_error *err);

/*
 * Measure the link: bytes per second from pinned memory, or from pageable, to
 * the device, the best of three copies of bytes; 0 where there is no memory for
 * it.
 */
double vibe_offload_probe(struct vibe_backend *be,
                          const struct vibe_transfer *move, size_t bytes,
                          int is_pageable);

#endif /* VIBE_OFFLOAD_OFFLOAD_H */
