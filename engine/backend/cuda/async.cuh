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
    MOST_COLUMNS = 5,     /* of a team */
    MOST_ASYNC_TEAMS = 2, /* of a block */
    MOST_PARTS = 8,       /* blocks of a cluster */
    MOST_ASYNC_THREADS = 32 + 128 * MOST_COLUMNS,
    MOST_ASYNC_DEPTH = 4,             /* stages */
    BAND_WORDS = TILE_N * TILE_K / 4, /* of weights, of a tile */
    X_ROW_BYTES = 2 * TILE_K, /* of high or low parts of a row in a stage */
    X_PART_BYTES = ASYNC_ROWS * X_ROW_BYTES,
    X_STAGE_BYTES = 2 * X_PART_BYTES,
    ATOM_BYTES = 1024, /* of eight rows, as wgmma takes them; so is aligned what
                          a team has */
    GATES_BYTES = 8 * MOST_ASYNC_DEPTH, /* of one kind */
    PLACES_AT = ATOM_BYTES / 2,         /* of rows, behind gates */
    TABLE_PAD = 4, /* floats, so that lanes meet in no bank */
    SUM_BYTES = ASYNC_ROWS * (int)sizeof(float), /* of an output */
};

/* How the work is shared out. */
struct async_shares {
    unsigned n_passes, n_blocks;    /* n_blocks: of a part of a pass */
    unsigned columns, teams, parts; /* teams, parts: powers of two */
    unsigned depth, levels;         /* of rings, of sums that wait */
    size_t shared;
};

static inline unsigned async_threads(const struct async_shares *s)
{
    return s->teams * (128 * s->columns + 32);
}

/* Levels of the tree of slices, and of folds, where a team's sums wait. */
static inline unsigned async_levels(const struct async_shares *s, size_t K)
{
    unsigned levels = 0;

    while (s->parts * s->teams << levels < slices_of(K))
        levels++;
    return levels + ((size_t)TILE_K * slices_of(K) * fold_of(K) < K);
}

/* Rows of weights that are copied at once, a divisor of a team's. */
__host__ __device__ static inline unsigned rows_of_go(unsigned outputs)
{
    return outputs > 256 ? outputs / 2 : outputs;
}

/* Bytes where sums of a team's outputs meet. */
__host__ __device__ static inline unsigned table_bytes(unsigned outputs)
{
    return ASYNC_ROWS * (outputs + TABLE_PAD) * (unsigned)sizeof(float);
}

__host__ __device__ static inline unsigned stage_bytes_of(unsigned outputs)
{
    return X_STAGE_BYTES + outputs * TILE_K;
}

/* Of shared memory.  Sums of teams meet where stages were; those of other
 * blocks have room of their own. */
static inline size_t async_shared(const struct async_shares *s)
{
    const unsigned outputs = s->columns * COLUMN_OUTPUTS;
    const size_t sums = (size_t)outputs * SUM_BYTES;
    const size_t stages = (size_t)s->teams * s->depth * stage_bytes_of(outputs);
    const size_t tables = (size_t)s->teams * table_bytes(outputs);

    return ATOM_BYTES + (stages > tables ? stages : tables) +
           s->teams * s->levels * sums + sums / s->parts * (s->parts - 1);
}

/* Blocks of many that a multiprocessor has at work together, 2 at most: one
 * begins or ends beside the other's products. */
static inline size_t async_together(const struct async_shares *s,
                                    const struct vibe_cuda *cuda,
                                    size_t n_blocks)
{
    const size_t registers = (size_t)65536 / 96; /* for so many threads */
    const size_t reserved = 1024;                /* bytes of each block */

    return s->depth == MOST_ASYNC_DEPTH && s->parts == 1 &&
                   n_blocks > (size_t)cuda->n_sm &&
                   2 * async_threads(s) <= registers &&
                   blocks_that_fit(cuda, s->shared + reserved, 2) == 2
               ? 2
               : 1;
}

/*
 * Nanoseconds of an H200 for what the busiest multiprocessor takes: to begin
 * and to end, for each step, and for the products of its columns; within 6 % of
 * what the best ways for eight products of the 1.5B take.  Large clusters leave
 * some multiprocessors out.
 */
static inline size_t async_cost(const struct async_shares *s, size_t K,
                                const struct vibe_cuda *cuda)
{
    const size_t n_sm = (size_t)cuda->n_sm;
    const size_t workers = (size_t)s->teams * s->parts;
    const size_t n_steps = (K / TILE_K + workers - 1) / workers;
    const size_t n_blocks = (size_t)s->n_passes * s->n_blocks * s->parts;
    const size_t together = async_together(s, cuda, n_blocks);
    const size_t room = together * (s->parts > 2 ? n_sm * 10 / 11 : n_sm);
    const size_t turns = (n_blocks + room - 1) / room;
    const size_t of_step = 370 / together - 120 * (s->teams - 1) +
                           80 * s->columns * s->teams * together;

    return turns * (3500 + n_steps * of_step) + (s->parts > 1 ? 400 : 0);
}

/* Try one way, as deep as there is room. */
static inline void try_shares(struct async_shares *best, size_t *least,
                              struct async_shares s,
                              const struct vibe_cuda *cuda,
                              const struct vibe_matrix *w)
{
    const size_t room = shared_limit(cuda);
    const size_t outputs = (size_t)s.columns * COLUMN_OUTPUTS;
    size_t cost;

    s.n_blocks = (unsigned)((w->N + outputs - 1) / outputs);
    s.levels = async_levels(&s, w->K);
    for (s.depth = MOST_ASYNC_DEPTH; s.depth > 2; s.depth--)
        if (async_shared(&s) <= room)
            break;
    s.shared = async_shared(&s);
    cost = async_cost(&s, w->K, cuda);
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
