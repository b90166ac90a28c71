/*
 * wide.cuh - how gemv_wide.cu shares a product out among blocks.
 *
 * A block takes the rows of a pass, so many outputs as its warps make, and some
 * slices of K (decode.cuh).  What is chosen does not change the sums.
 */
#ifndef VIBE_CUDA_WIDE_CUH
#define VIBE_CUDA_WIDE_CUH

#include <stdint.h>

#include "engine/backend/cuda/decode.cuh"

enum {
    ROWS = 8, /* of x in a group: rows of a product, with their two parts */
    MOST_ROWS = VIBE_CUDA_WIDE_ROWS,
    X_BYTES = 4 * TILE_K, /* of a row of x in a stage */
    HEIGHT = 2,           /* tiles of outputs of a warp */
    PAIRED = 2,           /* groups: up to here two blocks fit the registers */
    LEAST_WARPS = 3,
    MOST_DEPTH = 6,
    STAGE_BYTES = 8 << 10, /* that could be moved while a group is multiplied */
};

static constexpr unsigned most_warps(unsigned groups)
{
    return groups <= PAIRED ? 8 : 9;
}

/* The rows of a block, and where their x, y and gate begin. */
struct pass {
    unsigned n;
    struct {
        size_t x, y, gate;
    } row[MOST_ROWS];
};

/* Of slices' sums in scratch memory. */
static const size_t most_bytes = (size_t)48 << 20;

/* How the work is shared out. */
struct shares {
    unsigned n_passes, groups;      /* of rows */
    unsigned warps, share, n_parts; /* n_parts of share slices */
    unsigned n_blocks, depth;       /* of a part of a pass */
    size_t stage;                   /* bytes */
};

/*
 * What the busiest multiprocessor takes, in bytes that it could move
 * meanwhile: for each stage, and three more to begin and end with, those of
 * its blocks, and the time that a stage takes a block however small it is, once
 * for all blocks that run beside each other.  Fits an H200 within 5 % of the
 * best of all ways to share out the products of the 1.5B and 7B, but for one.
 */
static inline size_t cost_of(const struct shares *s, size_t n_tiles,
                             size_t n_sm, size_t limit)
{
    const size_t n_blocks = (size_t)s->n_passes * s->n_parts * s->n_blocks;
    const size_t of_slice = (n_tiles + s->n_parts * s->share - 1) /
                            (s->n_parts * s->share);
    const size_t sums = (size_t)s->share * s->warps * HEIGHT * TILE_N *
                        s->groups * ROWS * sizeof(float);
    const size_t of_sm = (n_blocks + n_sm - 1) / n_sm;
    const size_t room = limit / (3 * s->stage);
    const size_t warps = s->groups <= PAIRED ? 16 : 12; /* by registers */
    size_t beside = warps / s->warps;

    beside = room < 1 ? 1 : room < beside ? room : beside;
    return (of_slice * s->share + 3) *
               (of_sm * s->stage +
                (of_sm + beside - 1) / beside * (s->groups + 1) * STAGE_BYTES) +
           (s->n_parts > 1 ? 2 * of_sm * sums : 0);
}

static inline void share_out(struct shares *s, const struct vibe_matrix *w,
                             unsigned warps, unsigned n_parts)
{
    const size_t outputs = (size_t)warps * HEIGHT * TILE_N;

    s->warps = warps;
    s->n_parts = n_parts;
    s->share = slices_of(w->K) / n_parts;
    s->n_blocks = (unsigned)((w->N + outputs - 1) / outputs);
    s->stage = warps * HEIGHT * tile_bytes(w->part[0].dtype) +
               (size_t)s->groups * ROWS * X_BYTES;
}

/* Bytes of the sums of slices that meet in global memory. */
static inline size_t meeting_bytes(const struct shares *s)
{
    const size_t outputs = (size_t)s->n_blocks * s->warps * HEIGHT * TILE_N;

    return s->n_parts == 1 ? 0
                           : s->n_passes * outputs * s->groups * ROWS *
                                 s->share * s->n_parts * sizeof(float);
}

static inline size_t shared_bytes(const struct shares *s, unsigned depth)
{
    const size_t totals = s->n_parts > 1 ? 0
                                         : (size_t)s->warps * HEIGHT * TILE_N *
                                               s->groups * ROWS * sizeof(float);

    return depth * s->stage + totals;
}

/* As deep as leaves room for a block beside this one, but no less than three
 * where there is room for that at all. */
static inline unsigned depth_of(const struct shares *s, size_t limit)
{
    unsigned depth = MOST_DEPTH;

    while (depth > 3 && shared_bytes(s, depth) > limit / 2)
        depth--;
    return shared_bytes(s, depth) <= limit ? depth : 2;
}

static inline struct shares shares_of(const struct vibe_cuda *cuda,
                                      const struct vibe_matrix *w,
                                      size_t n_rows)
{
    const size_t n_tiles = (w->K + TILE_K - 1) / TILE_K;
    const unsigned slices = slices_of(w->K);
    const unsigned most = n_tiles < slices ? 1 : slices;
    const size_t limit = shared_limit(cuda) - sizeof(struct pass);
    struct shares best = {}, s = {};
    size_t least = SIZE_MAX;

    s.n_passes = (unsigned)((n_rows + MOST_ROWS - 1) / MOST_ROWS);
    s.groups = (unsigned)((n_rows + s.n_passes * ROWS - 1) /
                          (s.n_passes * ROWS));
    for (unsigned n_parts = 1; n_parts <= most; n_parts *= 2)
        for (unsigned warps = most_warps(s.groups); warps >= LEAST_WARPS;
             warps--) {
            size_t cost;

            share_out(&s, w, warps, n_parts);
            cost = cost_of(&s, n_tiles, (size_t)cuda->n_sm, limit);
            if (cost < least && meeting_bytes(&s) <= most_bytes &&
                shared_bytes(&s, 2) <= limit) {
                least = cost;
                best = s;
            }
        }
    best.depth = depth_of(&best, limit);
    return best;
}

#endif /* VIBE_CUDA_WIDE_CUH */
