/*
 * gemv_feed.cuh - how weights and x of gemv.cu come to a warp.
 *
 * A warp copies what it multiplies: tiles (gemv_route.cuh) to a ring, several
 * of them ahead, and x (gemv_x.cuh) beside them, or digits of x (digits.cuh)
 * once, if they are kept.
 */
#ifndef VIBE_CUDA_GEMV_FEED_CUH
#define VIBE_CUDA_GEMV_FEED_CUH

#include "engine/backend/cuda/gemv_route.cuh"
#include "engine/backend/cuda/gemv_x.cuh"

enum {
    RING_BYTES = 10 << 10, /* of weights, for a warp, where there is room, */
    TEAM_BYTES = 12 << 10, /* and beside x that two teams share */
    TEAM_PACE = 2, /* slots that these have on their way before x is there */
    I4_BYTES = 8 << 10,   /* of int4, beside x in digits, */
    SOME_BYTES = 7 << 10, /* and beside some at once, which may be many */
    /* where nothing starts early: what is asked for at once comes at once */
    LATE_BYTES = 6 << 10,
    LATE_SMALL_BYTES = 5 << 10, /* of int4 and packed bf16 */
    MOST_SLOTS = 8,
    SHORT = 2,       /* slots where there is not */
    BUSY_WARPS = 16, /* that keep a multiprocessor's memory busy */
    /* tiles of x that become digits at once */
    SOME = 4,       /* of rows up to SHORT_K, or above LONG_K */
    MORE = 8,       /* of others: all of a slice */
    FEW_TURNS = 2,  /* of a block */
    SHORT_K = 2048, /* rows so short that a turn costs more than its tiles */
};

/* Of weights in a warp's ring, where there is room. */
__host__ __device__ static constexpr size_t ring_bytes(int dtype,
                                                       unsigned keeps,
                                                       bool starts_early)
{
    if (!starts_early)
        return dtype == VIBE_I4 || dtype == VIBE_BF16_PACKED ? LATE_SMALL_BYTES
                                                             : LATE_BYTES;
    if (dtype != VIBE_I4)
        return keeps == FOR_TWO ? TEAM_BYTES : RING_BYTES;
    return keeps == SOME || keeps == GIVEN_MANY ? SOME_BYTES : I4_BYTES;
}

/* Slots for so many bytes of weights. */
__host__ __device__ static constexpr unsigned slots_of(int dtype, size_t bytes,
                                                       unsigned keeps,
                                                       bool starts_early)
{
    const size_t n = ring_bytes(dtype, keeps, starts_early) / bytes;

    return n < MOST_SLOTS ? (unsigned)n : (unsigned)MOST_SLOTS;
}

#if __CUDA_ARCH__ >= 800

/* A warp's ring of a.depth slots of shared memory, each for a tile of HEIGHT
 * groups of outputs and x beside it, unless that is kept, and the route of what
 * is fetched next. */
template <int dtype, int HEIGHT, int KEEPS> struct feeder {
    enum {
        TILE_BYTES = format<dtype>::TILE_BYTES,
        X_AT = feeds<dtype, HEIGHT>::BYTES,
        FULL = slots_of(dtype, X_AT, KEEPS, STARTS_EARLY), /* if they fit */
        TEAMS = teams_of(KEEPS),
    };
    route<TEAMS> ahead;
    feeds<dtype, HEIGHT> weights;
    x_feed x;
    unsigned char *begin, *end, *here;
    unsigned char *kept, *x_here; /* x, or digits; of the tile at hand */
    unsigned slot_bytes, digits_of_two;
    float4 first_x[KEEPS ? KEEPS : 1]; /* of two rows: digits to be */
    given_pieces<is_given(KEEPS) ? KEEPS : 1> given;

    __device__ static inline unsigned warp_of_block(const decode &a)
    {
        return threadIdx.x / 32 + (TEAMS == 1 ? 0 : threadIdx.y * a.slices);
    }

    __device__ inline void open(const decode &a, unsigned char *memory)
    {
        const unsigned warp = warp_of_block(a);

        slot_bytes = X_AT + (KEEPS ? 0 : even(a.n_rows) * X_BYTES);
        begin = memory + warp * a.depth * slot_bytes;
        end = begin + a.depth * slot_bytes;
        digits_of_two = kept_bytes(KEEPS, 2, a.n_tiles, a.slices);
        kept = memory + TEAMS * a.slices * a.depth * slot_bytes;
        if (KEEPS != FOR_TWO)
            kept += warp * even(a.n_rows) / 2 * digits_of_two;
        here = begin;
        ahead.open(a);
        weights.turn(a, ahead.round);
    }

    __device__ inline void fetch_weights(unsigned char *to, const decode &a,
                                         policy p = passing())
    {
        weights.fetch(to, a, ahead.tile, ahead.is_in(), p);
    }

    /* Of a slot that is filled for the first time. */
    __device__ static inline policy first_policy(const decode &a, bool is_first)
    {
        return is_first && a.first_stays ? staying() : passing();
    }

    __device__ inline void next(const decode &a)
    {
        if (ahead.next(a))
            weights.turn(a, ahead.round);
    }

    /* Fill the ring, and early on look for what else the first round needs. */
    template <class T> __device__ inline void fill(const decode &a, T &first)
    {
        if constexpr (STARTS_EARLY)
            fill_early(a, first);
        else
            fill_slots(a, first);
        if constexpr (KEEPS == FOR_TWO)
            copy_for_two(a);
        else if constexpr (is_given(KEEPS))
            copy_given(a);
        else if constexpr (KEEPS)
            keep_x(a);
        else if constexpr (dtype == VIBE_I4)
            begin_digits(a);
    }

    /* Fill the ring: weights before the kernel ahead has ended, x after.  The
     * next kernel begins to read behind these weights, but beside them where
     * they are nearly all: what it reads first comes one after another.  Or it
     * begins behind x, if that is what this one waits for.  Where blocks have
     * large rings all at once, these are filled at a pace at which what the
     * kernels ahead still read comes soon: those that make x. */
    template <class T>
    __device__ inline void fill_early(const decode &a, T &first)
    {
        route<TEAMS> way = ahead;

        if (a.n_rounds <= n_teams<TEAMS>() && a.next_start == BEFORE_X)
            let_next_start();
        for (unsigned char *to = begin; to < end; to += slot_bytes) {
            fetch_weights(to, a, first_policy(a, to == begin));
            if (KEEPS)
                copies_end();
            if (KEEPS == FOR_TWO)
                copies_wait<TEAM_PACE - 1>();
            next(a);
        }
        first.look(a);
        x.template open<is_given(KEEPS)>(a, threadIdx.x % 32, digits_of_two);
        if constexpr (is_given(KEEPS))
            given.open(a, kept, digits_of_two / 2);
        if (a.next_start == BEFORE_X)
            let_next_start();
        wait_for_inputs();
        if (a.next_start == WITH_X)
            let_next_start();
        for (unsigned char *to = begin; !KEEPS && to < end; to += slot_bytes) {
            if (way.is_in())
                x.fetch(to + X_AT, a, way.tile);
            copies_end();
            way.next(a);
        }
    }

    /* Where nothing comes early a slot is whole before the next is asked for,
     * lest the first waits for all, and weights are asked for before it is
     * known where x is.  What of it becomes digits is read next, so that they
     * are made while weights are on their way. */
    template <class T>
    __device__ inline void fill_slots(const decode &a, T &first)
    {
#pragma unroll 1
        for (unsigned i = 0; i < a.depth; i++) {
            unsigned lane = threadIdx.x % 32;

            fetch_weights(here, a, first_policy(a, i == 0));
            keep(lane);
            if (i == 0)
                x.template open<is_given(KEEPS)>(a, lane, digits_of_two);
            if constexpr (is_given(KEEPS)) {
                if (i == 0) {
                    given.open(a, kept, digits_of_two / 2);
                    given.load(x.from[0]);
                }
            } else if constexpr (KEEPS && KEEPS != FOR_TWO)
                if (i == 0)
                    load_x(first_x, x.from[0], a, threadIdx.x / 32);
            fetch_x(a);
            if (i == 1)
                first.look(a);
        }
    }

    /* Make digits of the first tile's x. */
    __device__ inline void begin_digits(const decode &a)
    {
        if (a.depth == FULL)
            copies_wait<FULL - 1>();
        else
            copies_wait<SHORT - 1>();
        x_here = kept;
        x.make_digits(x_here, begin + X_AT, a, digits_of_two);
    }

    /* Copy x for both teams, each warp its share. */
    __device__ inline void copy_for_two(const decode &a) const
    {
        const unsigned first = warp_of_block(a), step = TEAMS * a.slices;
        float4 v[TILES_FOR_TWO];

#pragma unroll
        for (unsigned i = 0; i < TILES_FOR_TWO; i++)
            if (first + i * step < a.n_tiles)
                v[i] = *(const float4 *)(x.from[0] +
                                         (first + i * step) * TILE_K);
#pragma unroll
        for (unsigned i = 0; i < TILES_FOR_TWO; i++)
            if (first + i * step < a.n_tiles)
                *(float4 *)(x_of(first + i * step) + x.to) = v[i];
        __syncthreads();
    }

    /* Where a tile of x is that two teams share. */
    __device__ inline unsigned char *x_of(unsigned tile) const
    {
        return kept + tile * TEAM_ROWS * X_BYTES;
    }

    /* Copy all of x that this warp needs, in digits. */
    __device__ inline void copy_given(const decode &a)
    {
#pragma unroll
        for (unsigned i = 0; i < ROWS / 2; i++)
            if (2 * i < a.n_rows) {
                if (STARTS_EARLY || i > 0)
                    given.load(x.from[i]);
                given.store(i * digits_of_two);
            }
        if (a.next_start == AFTER_X)
            let_next_start();
        __syncwarp();
    }

    /* Make digits of all of x that this warp needs. */
    __device__ inline void keep_x(const decode &a)
    {
#pragma unroll
        for (unsigned i = 0; i < ROWS / 2; i++)
            if (2 * i < a.n_rows)
                keep_rows(a, i);
        if (a.next_start == AFTER_X)
            let_next_start();
        __syncwarp();
    }

    /* Of rows 2 i and 2 i + 1, all tiles at once, or some while the next ones
     * are on their way. */
    __device__ inline void keep_rows(const decode &a, unsigned i)
    {
        static_assert(MORE * SLICES * TILE_K >= LONG_K, "all of a slice");
        const unsigned m = threadIdx.x % 32 / 16;
        const unsigned step = KEEPS * a.slices;
        unsigned char *to = kept + i * digits_of_two;
        float4 v[KEEPS], next[KEEPS];

        if (STARTS_EARLY || i > 0)
            load_x(v, x.from[i], a, threadIdx.x / 32);
        else
            copy_x(v, first_x);
        for (unsigned tile = threadIdx.x / 32; tile < a.n_tiles; tile += step) {
            if (KEEPS < MORE)
                load_x(next, x.from[i], a, tile + step);
            mean<KEEPS>(v, a.x.is_split);
            put_digits<KEEPS, KEPT_BYTES>(to + m * DIGIT_ROW,
                                          to + KEPT_UNITS + 4 * m, m, v);
            if (KEEPS == MORE)
                break;
            to += KEEPS * KEPT_BYTES;
            copy_x(v, next);
        }
    }

    template <int N>
    __device__ static inline void copy_x(float4 (&to)[N], const float4 (&x)[N])
    {
#pragma unroll
        for (unsigned j = 0; j < N; j++)
            to[j] = x[j];
    }

    /* This lane's quads of some tiles. */
    template <int N>
    __device__ static inline void load_x(float4 (&v)[N], const float *from,
                                         const decode &a, unsigned tile)
    {
#pragma unroll
        for (unsigned j = 0; j < N; j++, tile += a.slices)
            v[j] = tile < a.n_tiles ? *(const float4 *)(from + tile * TILE_K)
                                    : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }

    /* Wait for the slot at hand, and the next one if its x becomes digits. */
    __device__ inline void await(const decode &a) const
    {
        enum { NEXT = dtype == VIBE_I4 && !KEEPS };

        if (KEEPS || a.depth >= FULL)
            copies_wait<FULL - 1 - NEXT>();
        else if (dtype != VIBE_I4 && a.depth == FULL - 1)
            copies_wait<FULL - 2>();
        else
            copies_wait<SHORT - 1 - NEXT>();
    }

    /* Have the slot at hand filled again. */
    __device__ inline void refill(const decode &a)
    {
        __syncwarp();
        fetch_weights(here, a);
        fetch_x(a);
    }

    /* The rest of a slot's copies, and turn to the next one. */
    __device__ inline void fetch_x(const decode &a)
    {
        if (!KEEPS && ahead.is_in())
            x.fetch(here + X_AT, a, ahead.tile);
        copies_end();
        next(a);
        here += slot_bytes;
        if (here == end)
            here = begin;
    }

    /* Take the tile at hand, which is this one of its groups, n being the
     * first, to be multiplied before the slot is filled again: copies get in
     * the way of what other warps read. */
    __device__ inline void take(held_tile<dtype, HEIGHT> w[HEIGHT],
                                unsigned pairs[8], const decode &a,
                                const group_of<dtype> groups[HEIGHT],
                                unsigned n, unsigned tile)
    {
        await(a);
        __syncwarp();
#pragma unroll
        for (int h = 0; h < HEIGHT; h++)
            w[h].read(here + h * TILE_BYTES, groups[h]);
        x.template read<dtype>(
            pairs, KEEPS == FOR_TWO ? x_of(tile) : here + X_AT, a.x);
#pragma unroll
        for (int h = 0; h < HEIGHT; h++)
            groups[h].put(w[h], tile, a, n + h);
    }

    /* Begin with the first of the tiles that are kept. */
    __device__ inline void begin_round(void)
    {
        if (KEEPS)
            x_here = kept;
    }

    /* Turn to the digits of the next tile.  Those that are not kept are made
     * now, while this tile is multiplied; here is its slot already. */
    __device__ inline void next_x(const decode &a)
    {
        if (!KEEPS && x_here != kept)
            x_here = kept;
        else
            x_here += is_given(KEEPS) ? DIGIT_TILE : KEPT_BYTES;
        if (!KEEPS)
            x.make_digits(x_here, here + X_AT, a, digits_of_two);
    }

    /* The first and the third sum of each += the tile at hand, of int4, times
     * x. */
    __device__ inline void add_digits(float sums[HEIGHT][4], const decode &a)
    {
        const unsigned lane = threadIdx.x % 32;
        i4_words w[HEIGHT];
        float2 scales[HEIGHT];
        int c[HEIGHT][4] = {};
        unsigned digits[4];
        float unit;

        await(a);
        __syncwarp();
#pragma unroll
        for (int h = 0; h < HEIGHT; h++)
            read_16_bytes(w[h].u, here + h * VIBE_TILE_SCALES_AT + lane * 16);
        read_16_bytes(digits, x_here + x.digits);
        unit = *(const float *)(x_here + x.unit);
#pragma unroll
        for (int h = 0; h < HEIGHT; h++)
            scales[h] = i4_scales(here + feeds<dtype, HEIGHT>::SCALES_AT +
                                      h * I4_SCALE_BYTES,
                                  lane / 4);
        refill(a);
        multiply_tile<HEIGHT>(c, w, digits);
        next_x(a);
        add_products<HEIGHT>(sums, c, scales, unit);
    }

    /* Whether the rings are just what the block needs: all tiles of a slice, of
     * one fold. */
    __device__ static inline bool holds_all(const decode &a)
    {
        return a.n_rounds <= n_teams<TEAMS>() &&
               a.n_tiles > (FULL - 1) * a.slices &&
               a.n_tiles <= min((unsigned)FULL, a.fold) * a.slices;
    }

    /* The same of all tiles of this warp, in half as many instructions: no slot
     * is filled again, and tiles are read ahead of others' products. */
    __device__ inline void add_all_digits(float sums[HEIGHT][4],
                                          const decode &a) const
    {
        copies_wait<0>();
        __syncwarp();
#pragma unroll
        for (unsigned j = 0; j < FULL; j++) {
            held_digits<HEIGHT> tile;

            tile.read(begin + j * X_AT, kept + j * DIGIT_TILE, x,
                      threadIdx.x / 32 + j * a.slices < a.n_tiles);
            tile.add_to(sums);
        }
    }
};

#endif

#endif /* VIBE_CUDA_GEMV_FEED_CUH */
