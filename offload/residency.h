/*
 * residency.h - the table of where the language model's rows are.
 *
 * Matrices are numbered in the order of their use.  Each is cut into pieces,
 * rows first .. first + n - 1, of which those at its front are resident and
 * the rest are streamed.  Streamed pieces, the chunks, are about equally large
 * and spread evenly over the matrices, so that a ring of few of them keeps the
 * link busy.  Where a piece is, this table alone says.
 *
 * A share of the streamed rows of each matrix, the last of them, may be lent
 * to the host, which multiplies them itself in a frame; they are streamed for
 * prompts only.
 */
#ifndef VIBE_OFFLOAD_RESIDENCY_H
#define VIBE_OFFLOAD_RESIDENCY_H

#include <stddef.h>

struct vibe_error;

/* Rows of a piece are multiples of this, save at the end of a matrix. */
enum { VIBE_RESIDENCY_UNIT = 64 };

struct vibe_piece {
    size_t matrix;
    size_t first, n; /* rows */
    size_t bytes;
    int is_resident;
    int is_lent; /* streamed, but not in a frame */
};

struct vibe_residency_matrix {
    size_t N;    /* rows */
    int is_kept; /* streamed only when all others are */
};

struct vibe_residency_input {
    const struct vibe_residency_matrix *matrix;
    size_t n_matrices;
    /* bytes of rows first .. first + n - 1 of a matrix on the device */
    size_t (*piece_bytes)(const void *user, size_t matrix, size_t first,
                          size_t n);
    const void *user;
    size_t chunk_bytes; /* of a chunk, at most, where a unit of rows allows */
    size_t granule;     /* device allocations are rounded up to this; 1: not */
    size_t budget;      /* bytes that resident pieces may take, rounded up */
    double lent;        /* share of the streamed rows: 0 .. 1 */
};

struct vibe_residency {
    struct vibe_piece *pieces; /* by matrix, then by row; owned */
    size_t n_pieces;
    size_t n_chunks;       /* that one frame copies */
    size_t n_lent;         /* pieces */
    size_t resident_bytes; /* rounded up by piece */
    size_t streamed_bytes; /* that one frame copies */
    size_t lent_bytes;
    size_t slot_bytes; /* of the largest chunk that could ever stream; 0
                              while nothing streams */
    struct vibe_residency_input input; /* as given; matrix is a copy */
};

/*
 * Make the table with the most rows resident that the budget allows.  Where
 * all fit, every matrix is one piece.
 *
 *   r      release with vibe_residency_release; all zero on error
 *   in     matrix borrowed for this call, user until release
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_residency_init(struct vibe_residency *r,
                        const struct vibe_residency_input *in,
                        struct vibe_error *err);
void vibe_residency_release(struct vibe_residency *r);

/*
 * Choose the resident piece to give up next: of the matrix with the most
 * resident bytes that is not kept, the last; n_pieces when none is resident.
 */
size_t vibe_residency_last(const struct vibe_residency *r);

/*
 * Turn resident piece i into chunks, which take its place in the table.
 *
 * Errors: VIBE_E_NOMEM  nothing has changed
 */
int vibe_residency_demote(struct vibe_residency *r, size_t i,
                          struct vibe_error *err);

#endif /* VIBE_OFFLOAD_RESIDENCY_H */
