/*
 * gemv_feed.cuh - how weights and x of gemv.cu come to a warp.
 *
 * A warp copies what it multiplies: tiles to a ring, several of them ahead, and
 * x beside them, or that of int4 once, as digits (digits.cuh).
 */
#ifndef VIBE_CUDA_GEMV_FEED_CUH
#define VIBE_CUDA_GEMV_FEED_CUH

#include "engine/backend/cuda/decode.cuh"

enum {
    ROWS = VIBE_CUDA_GEMV_ROWS, /* of x: two columns each */
    X_BYTES = TILE_K * 4,       /* of a row of x in a tile */
    RING_BYTES = 8 << 10, /* of weights, for a warp, where there is room */
    MOST_SLOTS = 8,
    SHORT = 2,       /* slots where there is not */
    BUSY_WARPS = 16, /* that keep a multiprocessor's memory busy */
};

/* Rows come in twos: the second may be there twice. */
__host__ __device__ static inline size_t even(size_t n_rows)
{
    return (n_rows + 1) / 2 * 2;
}

/* Of x in digits in a tile, with units. */
__host__ __device__ static inline size_t kept_bytes(size_t n_rows)
{
    return even(n_rows) * 2 * TILE_K + ROWS * sizeof(float);
}

/* Slots for so many bytes of weights. */
__host__ __device__ static constexpr unsigned slots_of(size_t bytes)
{
    return RING_BYTES / bytes < MOST_SLOTS ? (unsigned)(RING_BYTES / bytes)
                                           : (unsigned)MOST_SLOTS;
}

#if __CUDA_ARCH__ >= 800

/* The most tiles that a slice has. */
__device__ static inline unsigned tiles_of_slice(const decode &a)
{
    return (a.n_tiles + a.slices - 1) / a.slices;
}

/* Row m of those of this launch, the last one for those past it. */
__device__ static inline size_t row_of(const decode &a, const struct view &v,
                                       unsigned m)
{
    return row_at(v, a.e.T, a.first + min(m, a.n_rows - 1));
}

/*
 * x on its way through the ring: 16 neighbours of up to four rows.  Quads of
 * channels are pieces of 16 bytes; those of the upper half of a row swap
 * places so that lanes meet in no bank.
 */
struct x_feed {
    const float *from[ROWS / 2]; /* this lane's quad of every other row */
    unsigned to;                 /* its place in a tile */
    unsigned at;                 /* of the first 8 of a column's neighbours */
    unsigned digits, unit;       /* of a column, and a row of sums */
    unsigned units;              /* behind the digits of a tile */

    __device__ inline void open(const decode &a)
    {
        const unsigned lane = threadIdx.x % 32;
        const unsigned quad = lane % 16;
        const unsigned m = min(lane / 8, a.n_rows - 1);

#pragma unroll
        for (unsigned i = 0; i < ROWS / 2; i++)
            from[i] = a.x.data + row_of(a, a.x, 2 * i + lane / 16) + 4 * quad;
        to = lane / 16 * X_BYTES + (quad ^ (quad / 8 * 2)) * 16;
        at = m * X_BYTES + lane % 4 * 64 + lane % 4 / 2 * 32;
        digits = m * DIGIT_ROW + digits_at(m, lane / 4 % 2) + lane % 4 * 16;
        units = even(a.n_rows) * DIGIT_ROW;
        unit = units + 4 * min(lane % 4, a.n_rows - 1);
    }

    __device__ inline void fetch(unsigned char *tile_at, const decode &a,
                                 unsigned tile) const
    {
        const unsigned k = tile * TILE_K;

#pragma unroll
        for (unsigned i = 0; i < ROWS / 2; i++)
            if (2 * i < a.n_rows)
                copy_async<16>(tile_at + to + 2 * i * X_BYTES, from[i] + k,
                               k + threadIdx.x % 16 * 4 < a.K);
    }

    /* The part that lane's column has of its 16 neighbours. */
    __device__ inline void read(unsigned pairs[8], const unsigned char *tile_at,
                                bool is_split) const
    {
        float4 x[4];

#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            x[i] = *(const float4 *)(tile_at + (at ^ i / 2 * 32) + i % 2 * 16);
        part_of_x(pairs, x, threadIdx.x / 4 % 2, is_split);
    }

    /* The same from the ring. */
    __device__ inline void take(float4 x[ROWS / 2], const decode &a,
                                const unsigned char *tile_at) const
    {
#pragma unroll
        for (unsigned i = 0; i < ROWS / 2; i++)
            if (2 * i < a.n_rows)
                x[i] = *(const float4 *)(tile_at + to + 2 * i * X_BYTES);
        __syncwarp();
    }

    /* Leave their digits. */
    __device__ inline void put(unsigned char *tile_at, const decode &a,
                               const float4 x[ROWS / 2]) const
    {
#pragma unroll
        for (unsigned i = 0; i < ROWS / 2; i++) {
            const unsigned m = 2 * i + threadIdx.x % 32 / 16;

            if (2 * i < a.n_rows)
                put_digits(tile_at + m * DIGIT_ROW,
                           (float *)(tile_at + units) + m, m,
                           digits_of(meant(x[i], a.x.is_split)));
        }
    }
};

/* The tiles that a warp takes: those of its slice, for one round of its block
 * after the other. */
struct route {
    unsigned tile, round, n_rounds;

    __device__ inline void open(const decode &a, unsigned rounds)
    {
        tile = threadIdx.x / 32;
        round = blockIdx.x;
        n_rounds = tile < a.n_tiles ? rounds : 0;
    }

    __device__ inline bool is_in(void) const
    {
        return round < n_rounds;
    }

    /* Returns whether a round begins. */
    __device__ inline bool next(const decode &a)
    {
        tile += a.slices;
        if (tile < a.n_tiles)
            return false;
        tile = threadIdx.x / 32;
        round += gridDim.x;
        return true;
    }
};

/* A warp's ring of a.depth slots of shared memory, each for a tile of HEIGHT
 * groups of outputs and x beside it, unless that is kept, and the route of what
 * is fetched next. */
template <int dtype, int HEIGHT, bool KEEPS> struct feeder {
    enum {
        TILE_BYTES = format<dtype>::TILE_BYTES,
        X_AT = HEIGHT * TILE_BYTES,
        FULL = slots_of(X_AT), /* where there is room */
    };
    route ahead;
    feed<dtype> weights[HEIGHT];
    x_feed x;
    unsigned char *begin, *end, *here;
    unsigned char *kept, *x_here; /* digits, of the tile at hand */
    unsigned slot_bytes;

    __device__ inline void open(const decode &a, unsigned char *memory,
                                unsigned n_rounds)
    {
        const unsigned warp = threadIdx.x / 32;

        slot_bytes = X_AT + (KEEPS ? 0 : even(a.n_rows) * X_BYTES);
        begin = memory + warp * a.depth * slot_bytes;
        end = begin + a.depth * slot_bytes;
        kept = memory + a.slices * a.depth * slot_bytes +
               warp * tiles_of_slice(a) * kept_bytes(a.n_rows);
        here = begin;
        ahead.open(a, n_rounds);
        turn(a);
    }

    __device__ inline void turn(const decode &a)
    {
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
            weights[h].turn(a, ahead.round * HEIGHT + h);
    }

    __device__ inline void fetch_weights(unsigned char *to, const decode &a)
    {
        if (ahead.is_in())
#pragma unroll
            for (unsigned h = 0; h < HEIGHT; h++)
                weights[h].fetch(to + h * TILE_BYTES, a, ahead.tile);
    }

    __device__ inline void next(const decode &a)
    {
        if (ahead.next(a))
            turn(a);
    }

    /* Fill the ring: weights before the kernel ahead has ended, x after. */
    __device__ inline void fill(const decode &a)
    {
        route way = ahead;

        for (unsigned char *to = begin; to < end; to += slot_bytes) {
            fetch_weights(to, a);
            if (KEEPS)
                copies_end();
            next(a);
        }
        let_next_start();
        wait_for_inputs();
        x.open(a);
        if constexpr (KEEPS)
            keep_x(a);
        else
            fill_x(a, way);
    }

    __device__ inline void fill_x(const decode &a, route way)
    {
        for (unsigned char *to = begin; to < end; to += slot_bytes) {
            if (way.is_in())
                x.fetch(to + X_AT, a, way.tile);
            copies_end();
            way.next(a);
        }
    }

    /* Make digits of all of x that this warp needs; several tiles are on their
     * way together. */
    __device__ inline void keep_x(const decode &a)
    {
        enum { AT_ONCE = 4 };
        const float *rows[ROWS]; /* this lane's first pair */
        unsigned char *to = kept;

#pragma unroll
        for (unsigned m = 0; m < ROWS; m++)
            rows[m] = a.x.data + row_of(a, a.x, m) + threadIdx.x % 32 * 2;

        for (unsigned tile = threadIdx.x / 32; tile < a.n_tiles;
             tile += AT_ONCE * a.slices) {
            float2 v[AT_ONCE][ROWS];

#pragma unroll
            for (unsigned i = 0; i < AT_ONCE; i++)
                load_x(v[i], rows, a, tile + i * a.slices);
#pragma unroll
            for (unsigned i = 0; i < AT_ONCE; i++)
                if (tile + i * a.slices < a.n_tiles) {
                    put_x(to, v[i], a);
                    to += kept_bytes(a.n_rows);
                }
        }
        __syncwarp();
    }

    /* This lane's pairs of a tile. */
    __device__ static inline void load_x(float2 v[ROWS],
                                         const float *const rows[ROWS],
                                         const decode &a, unsigned tile)
    {
        const unsigned k = tile * TILE_K;
        const bool is_in = k + threadIdx.x % 32 * 2 < a.K;

#pragma unroll
        for (unsigned m = 0; m < ROWS; m++)
            v[m] = m < a.n_rows && is_in ? *(const float2 *)(rows[m] + k)
                                         : make_float2(0.0f, 0.0f);
    }

    __device__ inline void put_x(unsigned char *to, const float2 v[ROWS],
                                 const decode &a) const
    {
#pragma unroll
        for (unsigned m = 0; m < ROWS; m++)
            if (m < a.n_rows)
                put_pair(to + m * DIGIT_ROW, (float *)(to + x.units) + m, m,
                         make_float2(meant(v[m].x, a.x.is_split),
                                     meant(v[m].y, a.x.is_split)));
    }

    __device__ inline void await(const decode &a) const
    {
        if (a.depth == FULL)
            copies_wait<FULL - 1>();
        else
            copies_wait<SHORT - 1>();
    }

    /* Have the slot at hand filled again. */
    __device__ inline void refill(const decode &a)
    {
        __syncwarp();
        fetch_weights(here, a);
        if (!KEEPS && ahead.is_in())
            x.fetch(here + X_AT, a, ahead.tile);
        copies_end();
        next(a);
        here += slot_bytes;
        if (here == end)
            here = begin;
    }

    /* Take the tile at hand, which is this one of its groups, n being the
     * first. */
    __device__ inline void take(tile_pairs w[HEIGHT], unsigned pairs[8],
                                const decode &a,
                                const group_of<dtype> groups[HEIGHT],
                                unsigned n, unsigned tile)
    {
        await(a);
        __syncwarp();
#pragma unroll
        for (int h = 0; h < HEIGHT; h++)
            read_tile(w[h], here + h * TILE_BYTES, groups[h]);
        x.read(pairs, here + X_AT, a.x.is_split);
        refill(a);
#pragma unroll
        for (int h = 0; h < HEIGHT; h++)
            groups[h].put(w[h], tile, a, n + h);
    }

    /* The digits of the tile at hand. */
    __device__ inline unsigned char *take_x(const decode &a)
    {
        unsigned char *at = here + X_AT;
        float4 v[ROWS / 2];

        if (KEEPS) {
            at = x_here;
            x_here += kept_bytes(a.n_rows);
        } else {
            x.take(v, a, at);
            x.put(at, a, v);
        }
        __syncwarp();
        return at;
    }

    /* The first and the third sum of each += the tile at hand, of int4, times
     * x. */
    __device__ inline void add_digits(float sums[HEIGHT][4], const decode &a)
    {
        const unsigned lane = threadIdx.x % 32;
        const unsigned char *at;
        i4_words w[HEIGHT];
        float2 scales[HEIGHT];
        unsigned digits[4];
        float unit;

        await(a);
#pragma unroll
        for (int h = 0; h < HEIGHT; h++) /* copied by this lane */
            read_16_bytes(w[h].u, here + h * TILE_BYTES + lane * 16);
        at = take_x(a);
        read_16_bytes(digits, at + x.digits);
        unit = *(const float *)(at + x.unit);
#pragma unroll
        for (int h = 0; h < HEIGHT; h++)
            scales[h] = i4_scales(here + h * TILE_BYTES, lane / 4);
        refill(a);
#pragma unroll
        for (int h = 0; h < HEIGHT; h++) {
            const unsigned *u = w[h].u;
            int c[4] = {};

#pragma unroll
            for (int i = 0; i < 2; i++) {
                const unsigned rows[4] = {i4_bytes(u[0], i), i4_bytes(u[2], i),
                                          i4_bytes(u[1], i), i4_bytes(u[3], i)};

                multiply_bytes(c, rows, digits + 2 * i);
            }
            sums[h][0] = fmaf(sum_of(c[0], c[1]), scales[h].x * unit,
                              sums[h][0]);
            sums[h][2] = fmaf(sum_of(c[2], c[3]), scales[h].y * unit,
                              sums[h][2]);
        }
    }
};

#endif

#endif /* VIBE_CUDA_GEMV_FEED_CUH */
