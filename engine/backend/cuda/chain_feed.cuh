/*
 * chain_feed.cuh - a chain of blocks, and how its weights come to a warp: by a
 * ring that goes on from one matrix to the next.
 */
#ifndef VIBE_CUDA_CHAIN_FEED_CUH
#define VIBE_CUDA_CHAIN_FEED_CUH

#include "engine/backend/cuda/block.cuh"
#include "engine/backend/cuda/chain.h"
#include "engine/backend/cuda/decode.cuh"
#include "engine/backend/cuda/shared.cuh"

enum {
    WARPS = 16,
    THREADS = 32 * WARPS,
    WIDTH = 4 * THREADS, /* channels of a column */
    X_TILE = TILE_K * 4, /* bytes of x beside a tile */
    STATIC_BYTES = 256,  /* of shared memory besides, at most */
    W_TILE = format<VIBE_BF16>::TILE_BYTES,
    TILE_BYTES = format<VIBE_BF16>::ROW_BYTES, /* of a row */
    DEEP = 5, /* slots of a ring, where there is room */
    SHALLOW = 2,
};

/* How a matrix is shared out; see struct decode. */
struct plan {
    unsigned row_bytes, n_tiles, n_groups, log_slices, fold;
};

struct chain {
    struct block blocks[VIBE_CUDA_CHAIN];
    struct plan plans[2]; /* of W1 and W2 */
    float *mail;          /* [n] letters, blank before and after the kernel */
    unsigned *arrived;    /* see struct meeting */
    unsigned n;           /* blocks */
};

/* Shared memory, before the rings. */
struct memory {
    float parts[2][WARPS][TILE_N];
    uint4 x[]; /* the longer of normed and hidden */
};

#if __CUDA_ARCH__ >= 800

/* A warp's way through the tiles of all products, which are numbered: of a
 * group of outputs its slice, and then of the next.  There is little to do for
 * most steps, since nothing else is done while they are. */
struct route {
    const unsigned char *from; /* this lane's piece of the tile's first row */
    unsigned product, group;
    unsigned left;      /* tiles of the group */
    unsigned step;      /* bytes from one to the next */
    unsigned rows_step; /* from a piece to that of the next rows */

    __device__ static inline unsigned teams(const plan &p)
    {
        return WARPS >> p.log_slices;
    }

    __device__ static inline unsigned team(const plan &p)
    {
        return threadIdx.x / 32 >> p.log_slices;
    }

    __device__ static inline unsigned slice(const plan &p)
    {
        return threadIdx.x / 32 & ((1 << p.log_slices) - 1);
    }

    __device__ static inline unsigned tiles(const plan &p)
    {
        return (p.n_tiles - slice(p) + (1 << p.log_slices) - 1) >> p.log_slices;
    }

    __device__ inline bool is_in(const chain &a) const
    {
        return product < 2 * a.n;
    }

    __device__ inline void turn(const chain &a)
    {
        const struct block &b = a.blocks[product / 2];
        const plan &p = a.plans[product % 2];
        const unsigned row = group * TILE_N + threadIdx.x % 32 / 8;

        from = (const unsigned char *)(product % 2 ? b.down : b.up) +
               (size_t)row * p.row_bytes + threadIdx.x % 8 * 16 +
               slice(p) * TILE_BYTES;
        left = tiles(p);
    }

    /* Begin a product, or the next one that has tiles for this warp. */
    __device__ inline void begin(const chain &a)
    {
        for (; is_in(a); product++) {
            const plan &p = a.plans[product % 2];

            group = blockIdx.x * teams(p) + team(p);
            if (group >= p.n_groups || slice(p) >= p.n_tiles)
                continue;
            step = TILE_BYTES << p.log_slices;
            rows_step = p.row_bytes * feed<VIBE_BF16>::ROWS;
            turn(a);
            return;
        }
    }

    __device__ inline void next(const chain &a)
    {
        const plan &p = a.plans[product % 2];

        from += step;
        if (--left > 0)
            return;
        group += gridDim.x * teams(p);
        if (group < p.n_groups) {
            turn(a);
            return;
        }
        product++;
        begin(a);
    }
};

/*
 * A warp's ring of tiles.  The last tiles of a product leave their slots empty
 * until the others' outputs have been asked for: a multiprocessor gets what it
 * reads in the order of asking, and would wait for all tiles first.
 */
template <int DEPTH> struct ring {
    enum { HELD = DEPTH > 2 ? 2 : 1 }; /* slots that are left so */

    route ahead;
    unsigned begin, here, there, end; /* shared memory: to read, to fill */
    unsigned place;                   /* of this lane in a slot */
    unsigned empty;                   /* slots */

    __device__ inline void open(const chain &a, unsigned char *memory)
    {
        begin = shared_address(memory) + threadIdx.x / 32 * DEPTH * W_TILE;
        here = there = begin;
        end = begin + DEPTH * W_TILE;
        place = feed<VIBE_BF16>::place_of_lane();
        ahead.product = 0;
        ahead.begin(a);
        empty = DEPTH;
    }

    __device__ inline void turn(unsigned &at) const
    {
        at += W_TILE;
        if (at == end)
            at = begin;
    }

    /* Start filling the empty slots. */
    __device__ inline void fill(const chain &a)
    {
        typedef feed<VIBE_BF16> feed;

        for (; empty > 0; empty--) {
            if (ahead.is_in(a)) {
#pragma unroll
                for (unsigned i = 0; i < TILE_N / feed::ROWS; i++)
                    copy_to_shared(there + place + i * feed::ROWS * feed::BYTES,
                                   ahead.from + i * ahead.rows_step, true);
                ahead.next(a);
            }
            copies_end();
            turn(there);
        }
    }

    /* Wait for the slot at hand. */
    __device__ inline void await(void) const
    {
        if (empty == 0)
            copies_wait<DEPTH - 1>();
        else
            copies_wait<DEPTH - HELD>();
    }

    __device__ inline void take(tile_pairs &w)
    {
        const unsigned r = threadIdx.x % 32 / 4;
        const unsigned q = threadIdx.x % 4;
        const unsigned at = here + r * TILE_BYTES;

        await();
        __syncwarp();
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            const unsigned piece = format<VIBE_BF16>::place(2 * q + half, r);

            read_shared(w.low + 4 * half, at + piece * 16);
            read_shared(w.high + 4 * half, at + 8 * TILE_BYTES + piece * 16);
        }
        __syncwarp();
        turn(here);
        empty++;
    }
};

#endif

#endif /* VIBE_CUDA_CHAIN_FEED_CUH */
