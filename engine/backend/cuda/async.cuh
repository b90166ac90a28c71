/*
 * async.cuh - how gemv_async.cu shares a product out among blocks.
 *
 * A block takes 32 rows and a part of K, for so many times 64 outputs as its
 * teams have columns; its teams share that part, and the parts of the same
 * outputs are a cluster of blocks.  What is chosen does not change the sums.
 */
#ifndef VIBE_CUDA_ASYNC_CUH
#define VIBE_CUDA_ASYNC_CUH

#include <stdint.h>

#include "engine/backend/cuda/decode.cuh"
#include "engine/base/size.h"

enum {
    ASYNC_ROWS = 32,      /* of x, in a pass */
    COLUMN_OUTPUTS = 64,  /* of four warps */
    MOST_COLUMNS = 4,     /* of a team */
    MOST_ASYNC_TEAMS = 2, /* of a block */
    MOST_PARTS = 8,       /* blocks of a cluster */
    MOST_ASYNC_THREADS = 640,
    MOST_ASYNC_DEPTH = 4,
    WEAVERS = 64,             /* threads of a shift */
    WOVEN = 4,                /* stages of woven x */
    X_RING = 3,               /* stages of x of a shift */
    X_ROW_BYTES = 4 * TILE_K, /* of a row of x in a stage */
    X_STAGE_BYTES = ASYNC_ROWS * X_ROW_BYTES,
    /* from the first eight of sixteen neighbours of all columns to the next;
     * what is more than they have keeps lanes apart */
    HALF_BYTES = 2 * ASYNC_ROWS * 16 + 16,
    WOVEN_BYTES = 8 * HALF_BYTES,
    GATE_BYTES = 16 * WOVEN * MOST_ASYNC_TEAMS,
    TABLE_PAD = 4, /* floats, likewise */
    SUM_BYTES = ASYNC_ROWS * COLUMN_OUTPUTS * (int)sizeof(float),
};

/* How the work is shared out. */
struct async_shares {
    unsigned n_passes, n_blocks;    /* n_blocks: of a part of a pass */
    unsigned columns, teams, parts; /* teams, parts: powers of two */
    unsigned depth, levels;         /* of rings, of sums that wait */
    size_t shared;
};

/* Shifts of those who weave x for a team: they take turns at tiles. */
__host__ __device__ static inline unsigned shifts_of(unsigned teams)
{
    return teams == 1 ? 2 : 1;
}

/* Bytes of a team's list of steps, behind their number. */
__host__ __device__ static inline unsigned way_bytes(unsigned n_tiles,
                                                     unsigned depth)
{
    const unsigned n = (1 + n_tiles + depth) * (unsigned)sizeof(unsigned);

    return (n + 127) / 128 * 128;
}

static inline unsigned async_threads(const struct async_shares *s)
{
    return s->teams * (128 * s->columns + WEAVERS * shifts_of(s->teams));
}

/* Levels of the tree of slices, and of folds, where a team's sums wait. */
static inline unsigned async_levels(const struct async_shares *s, size_t K)
{
    unsigned levels = 0;

    while (s->parts * s->teams << levels < slices_of(K))
        levels++;
    return levels + ((size_t)TILE_K * slices_of(K) * fold_of(K) < K);
}

/* Of shared memory; sums of teams meet where stages were. */
static inline size_t async_shared(const struct async_shares *s, size_t K)
{
    const size_t outputs = (size_t)s->columns * COLUMN_OUTPUTS;
    const size_t of_team = s->depth * outputs * TILE_K +
                           shifts_of(s->teams) * X_RING * X_STAGE_BYTES +
                           WOVEN * WOVEN_BYTES +
                           way_bytes((unsigned)(K / TILE_K), s->depth);
    const size_t table = ASYNC_ROWS * (outputs + TABLE_PAD) * sizeof(float);
    const size_t meeting = of_team > table ? of_team : table;

    return s->teams * (meeting + (size_t)s->levels * s->columns * SUM_BYTES);
}

/*
 * Nanoseconds of an H200 for what the busiest multiprocessor takes: to begin
 * and to end, for each step, and for the products of its columns; within 4 % of
 * what the best ways for eight products of the 1.5B take.  Clusters leave some
 * multiprocessors out.
 */
static inline size_t async_cost(const struct async_shares *s, size_t K,
                                size_t n_sm)
{
    const size_t workers = (size_t)s->teams * s->parts;
    const size_t n_steps = (K / TILE_K + workers - 1) / workers;
    const size_t n_blocks = (size_t)s->n_passes * s->n_blocks * s->parts;
    const size_t room = s->parts > 1 ? n_sm * 3 / 4 : n_sm;
    const size_t turns = (n_blocks + room - 1) / room;

    return turns * (4500 + n_steps * (165 + 121 * s->columns * s->teams)) +
           (s->parts > 1 ? 200 : 0);
}

/* Try one way, as deep as there is room. */
static inline void try_shares(struct async_shares *best, size_t *least,
                              struct async_shares s,
                              const struct vibe_cuda *cuda,
                              const struct vibe_matrix *w)
{
    const size_t room = shared_limit(cuda) - GATE_BYTES;
    const size_t outputs = (size_t)s.columns * COLUMN_OUTPUTS;
    size_t cost;

    s.n_blocks = (unsigned)((w->N + outputs - 1) / outputs);
    s.levels = async_levels(&s, w->K);
    for (s.depth = MOST_ASYNC_DEPTH; s.depth > 2; s.depth--)
        if (async_shared(&s, w->K) <= room)
            break;
    s.shared = async_shared(&s, w->K);
    cost = async_cost(&s, w->K, (size_t)cuda->n_sm);
    if (s.shared <= room && async_threads(&s) <= MOST_ASYNC_THREADS &&
        cost < *least) {
        *least = cost;
        *best = s;
    }
}

static inline struct async_shares async_shares_of(
    const struct vibe_cuda *cuda, const struct vibe_cuda_product *p)
{
    const unsigned slices = slices_of(p->w->K);
    const size_t n_rows = p->x->B * p->x->T;
    struct async_shares s = {}, best = {};
    size_t least = SIZE_MAX;

    s.n_passes = (unsigned)((n_rows + ASYNC_ROWS - 1) / ASYNC_ROWS);
    for (s.columns = 1; s.columns <= MOST_COLUMNS; s.columns++)
        for (s.teams = 1; s.teams <= MOST_ASYNC_TEAMS; s.teams *= 2)
            for (s.parts = 1;
                 s.parts <= MOST_PARTS && s.parts * s.teams <= slices;
                 s.parts *= 2)
                try_shares(&best, &least, s, cuda, p->w);
    return best;
}

#endif /* VIBE_CUDA_ASYNC_CUH */
