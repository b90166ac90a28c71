/*
 * wide.cuh - how gemv_wide.cu shares a product out among blocks.
 *
 * A block takes the rows of a pass and a part of K, for so many outputs as the
 * warps of a team make; its teams share that part.  What is chosen does not
 * change the sums.
 */
#ifndef VIBE_CUDA_WIDE_CUH
#define VIBE_CUDA_WIDE_CUH

#include <stdint.h>

#include "engine/backend/cuda/decode.cuh"
#include "engine/base/size.h"

enum {
    ROWS = 8, /* of x in a group: rows of a product, with their two parts */
    MOST_ROWS = VIBE_CUDA_WIDE_ROWS,
    X_BYTES = 4 * TILE_K, /* of a row of x in a stage */
    HEIGHT = 2,           /* tiles of outputs of a warp */
    MOST_TEAMS = 8,
    MOST_DEPTH = 4,
    LINE_BYTES = 128, /* of shared memory: copies are faster into whole ones */
    STAGE_BYTES = 8 << 10, /* that could be moved while a group is multiplied */
    WARP_BYTES = 512,      /* the same for one warp more */
    PART_BYTES = 24 << 10, /* and while one part more meets the others */
};

/* Of a block, by the registers that they need. */
static constexpr unsigned most_warps(unsigned groups)
{
    return groups <= 2 ? 16 : 12;
}

/* The rows of a block, and where their y and gate begin. */
struct pass {
    unsigned n;
    struct {
        size_t y, gate;
    } row[MOST_ROWS];
};

/* Of slices' sums in scratch memory. */
static const size_t most_bytes = (size_t)48 << 20;

/* How the work is shared out. */
struct shares {
    unsigned n_passes, rows;  /* of each */
    unsigned groups;          /* of rows, in a pass */
    unsigned warps;           /* of a team */
    unsigned teams, parts;    /* powers of two */
    unsigned n_blocks, depth; /* of a part of a pass; of a team's ring */
    size_t stage, sums;       /* bytes of a team's stage, of a block's sums */
};

static inline size_t blocks_of(const struct shares *s)
{
    return (size_t)s->n_passes * s->parts * s->n_blocks;
}

/* Of sums that wait in a warp: those of the tree above a leaf, and of folds
 * where a slice has several. */
static inline unsigned levels_of(const struct shares *s, size_t K)
{
    const unsigned slices = slices_of(K);
    unsigned levels = 0;

    while (s->parts * s->teams << levels < slices)
        levels++;
    return levels + ((size_t)TILE_K * slices * fold_of(K) < K);
}

/* Of shared memory; sums of teams meet where stages were. */
static inline size_t shared_bytes(const struct shares *s, size_t K,
                                  unsigned depth)
{
    const size_t rings = s->teams * depth * s->stage;

    return (rings > s->sums ? rings : s->sums) + levels_of(s, K) * s->sums;
}

/* Bytes of the sums of parts that meet in global memory. */
static inline size_t meeting_bytes(const struct shares *s)
{
    return s->parts == 1 ? 0 : blocks_of(s) * (s->sums / s->teams);
}

/*
 * What the busiest multiprocessor takes, in bytes that it could move
 * meanwhile: for each stage, and one more to begin and end with, the time of
 * its warps, more of them less each, and half of its bytes, the rest of which
 * that time hides; and for parts to meet.  Chooses within 2 % of the best of
 * all ways to share out 12 products of the 1.5B and 7B on an H200.
 */
static inline size_t cost_of(const struct shares *s, size_t K, size_t n_sm,
                             size_t limit)
{
    const size_t n_tiles = (K + TILE_K - 1) / TILE_K;
    const size_t workers = s->parts * s->teams;
    const size_t n_stages = (n_tiles + workers - 1) / workers + 1;
    const size_t of_sm = (blocks_of(s) + n_sm - 1) / n_sm;
    const size_t room = limit / shared_bytes(s, K, 3);
    const size_t warps = s->warps * s->teams;
    size_t beside = most_warps(s->groups) / warps;
    size_t of_stage;

    beside = room < 1 ? 1 : room < beside ? room : beside;
    of_stage = STAGE_BYTES * (s->groups + 1) +
               WARP_BYTES * s->groups * warps *
                   (of_sm < beside ? of_sm : beside);
    return n_stages * ((of_sm + beside - 1) / beside * of_stage +
                       of_sm * s->teams * s->stage / 2) +
           (s->parts > 1
                ? PART_BYTES * s->parts + 3 * of_sm * s->sums / s->teams
                : 0);
}

static inline void share_out(struct shares *s, const struct vibe_matrix *w,
                             unsigned warps)
{
    const size_t outputs = (size_t)warps * HEIGHT * TILE_N;
    const size_t rows = (size_t)s->groups * ROWS;

    s->warps = warps;
    s->n_blocks = (unsigned)((w->N + outputs - 1) / outputs);
    s->stage = warps * HEIGHT * tile_bytes(w->part[0].dtype) + rows * X_BYTES;
    s->sums = s->teams * outputs * rows * sizeof(float);
}

/* Whether there is room for it, with depth stages in a ring. */
static inline bool fits(const struct shares *s, size_t K, size_t limit,
                        unsigned depth)
{
    const size_t n_chunks = (size_t)s->n_passes * s->n_blocks * s->warps *
                            s->teams;

    return shared_bytes(s, K, depth) <= limit &&
           meeting_bytes(s) <= most_bytes &&
           (s->parts == 1 || n_chunks <= VIBE_CUDA_COUNTERS);
}

/* As deep as leaves room for a block beside this one, if there is one, but no
 * less than three where there is room for that at all. */
static inline unsigned depth_of(const struct shares *s, size_t K, size_t n_sm,
                                size_t limit)
{
    const size_t room = blocks_of(s) > n_sm ? limit / 2 : limit;
    unsigned depth = MOST_DEPTH;

    while (depth > 3 && shared_bytes(s, K, depth) > room)
        depth--;
    return shared_bytes(s, K, depth) <= limit ? depth : 2;
}

/* The best so far. */
struct choice {
    const struct vibe_matrix *w;
    size_t n_sm, limit;
    struct shares best;
    size_t least_cost;
};

/* Try all numbers of warps for so many workers; 1 / 16 is what passes cost that
 * read the weights once more. */
static inline void try_workers(struct choice *c, struct shares s,
                               unsigned workers, bool is_again)
{
    for (s.teams = 1; s.teams <= MOST_TEAMS && s.teams <= workers;
         s.teams *= 2) {
        s.parts = workers / s.teams;
        for (unsigned warps = most_warps(s.groups) / s.teams; warps > 0;
             warps--) {
            size_t cost;

            share_out(&s, c->w, warps);
            if (!fits(&s, c->w->K, c->limit, 2))
                continue;
            cost = cost_of(&s, c->w->K, c->n_sm, c->limit);
            cost += is_again ? cost / 16 : 0;
            if (cost < c->least_cost) {
                c->least_cost = cost;
                c->best = s;
            }
        }
    }
}

/* Rows that do not lie evenly come to passes by dialogues; others may take
 * twice as many passes as they must, which helps where outputs are few. */
static inline struct shares shares_of(const struct vibe_cuda *cuda,
                                      const struct vibe_cuda_product *p)
{
    const size_t n_rows = p->x->B * p->x->T;
    const size_t least = (n_rows + MOST_ROWS - 1) / MOST_ROWS;
    const bool is_regular = vibe_cuda_is_regular(p->x);
    const unsigned slices = slices_of(p->w->K);
    const unsigned first = p->w->K <= (slices - 1) * TILE_K ? slices : 1;
    struct shares s = {};
    struct choice c = {
        .w = p->w,
        .n_sm = (size_t)cuda->n_sm,
        .limit = shared_limit(cuda) -
                 vibe_size_round(sizeof(struct pass), LINE_BYTES),
        .best = {},
        .least_cost = SIZE_MAX,
    };

    for (unsigned times = 1; times <= (is_regular ? 2 : 1); times++) {
        s.n_passes = (unsigned)(is_regular ? times * least : p->x->B);
        s.rows = (unsigned)((n_rows + s.n_passes - 1) / s.n_passes);
        s.groups = (s.rows + ROWS - 1) / ROWS;
        for (unsigned workers = first; workers <= slices; workers *= 2)
            try_workers(&c, s, workers, times > 1);
    }
    c.best.depth = depth_of(&c.best, p->w->K, c.n_sm, c.limit);
    return c.best;
}

#endif /* VIBE_CUDA_WIDE_CUH */
