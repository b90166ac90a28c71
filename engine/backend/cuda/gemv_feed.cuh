/*
 * gemv_feed.cuh - how weights and x of gemv.cu come to a warp.
 *
 * A warp copies what it multiplies: tiles to a ring, several of them ahead, and
 * x beside them, or digits of x (digits.cuh) once, if they are kept.
 */
#ifndef VIBE_CUDA_GEMV_FEED_CUH
#define VIBE_CUDA_GEMV_FEED_CUH

#include "engine/backend/cuda/decode.cuh"
#include "engine/backend/cuda/shared.cuh"

enum {
    ROWS = VIBE_CUDA_GEMV_ROWS, /* of x: two columns each */
    X_BYTES = TILE_K * 4,       /* of a row of x in a tile */
    RING_BYTES = 10 << 10, /* of weights, for a warp, where there is room */
    I4_BYTES = 8 << 10,    /* of int4, beside x in digits, */
    SOME_BYTES = 7 << 10,  /* and beside some at once, which may be many */
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
    LINE = 128,     /* of shared memory: copies are faster into whole ones */
};

/* Rows come in twos: the second may be there twice. */
__host__ __device__ static inline size_t even(size_t n_rows)
{
    return (n_rows + 1) / 2 * 2;
}

/* Of two rows of x in digits in a tile, and their units. */
enum { KEPT_UNITS = 2 * 2 * TILE_K, KEPT_BYTES = KEPT_UNITS + 16 };

/* Of rows of x in digits, two after two, that there is room for: all of a
 * slice, keeps tiles at a time, or if that is 0 this tile and the next. */
__host__ __device__ static inline unsigned kept_bytes(unsigned keeps,
                                                      unsigned n_rows,
                                                      unsigned n_tiles,
                                                      unsigned slices)
{
    const unsigned step = keeps * slices;
    const unsigned n = keeps ? (n_tiles + step - 1) / step * keeps : 2;

    return (n_rows + 1) / 2 * n * KEPT_BYTES;
}

/* Of weights in a warp's ring, where there is room. */
__host__ __device__ static constexpr size_t ring_bytes(int dtype,
                                                       unsigned keeps,
                                                       bool starts_early)
{
    if (!starts_early)
        return dtype == VIBE_I4 || dtype == VIBE_BF16_PACKED ? LATE_SMALL_BYTES
                                                             : LATE_BYTES;
    if (dtype != VIBE_I4)
        return RING_BYTES;
    return keeps == SOME ? SOME_BYTES : I4_BYTES;
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

/* Whether a kernel may start before the one ahead has ended, see launch.cuh. */
enum { STARTS_EARLY = __CUDA_ARCH__ >= 900 };

/* Row m of those of this launch, the last one for those past it. */
__device__ static inline size_t row_of(const decode &a, const struct view &v,
                                       unsigned m)
{
    return row_at(v, a.e.T, a.first + min(m, a.n_rows - 1));
}

/* Eight neighbours of each of eight columns, as mma.m16n8k16 takes them, four
 * times: lanes 8 i, ..., 8 i + 7 say where those of time i are. */
__device__ static inline void read_columns(unsigned u[4], unsigned at)
{
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(u[0]), "=r"(u[1]), "=r"(u[2]), "=r"(u[3])
        : "r"(at)
        : "memory");
}

/*
 * x on its way through the ring: 16 neighbours of up to four rows.  Quads of
 * channels are pieces of 16 bytes; those of the upper half of a row swap
 * places so that lanes meet in no bank, and so do those of each half of woven
 * rows.
 */
struct x_feed {
    const float *from[ROWS / 2]; /* this lane's quad of every other row */
    unsigned to;                 /* its place in a tile */
    unsigned at;                 /* of the first 8 of a column's neighbours */
    enum part part;              /* that the column has */
    unsigned digits, unit;       /* of a column, and a row of sums */

    /* digits_of_two: from those of two rows to those of the next two */
    __device__ inline void open(const decode &a, unsigned lane,
                                unsigned digits_of_two)
    {
        const unsigned quad = lane % 16;
        const unsigned m = min(lane / 8, a.n_rows - 1);
        const unsigned of_sums = min(lane % 4, a.n_rows - 1);

#pragma unroll
        for (unsigned i = 0; i < ROWS / 2; i++) {
            from[i] = a.x.data;
            if (STARTS_EARLY || 2 * i < a.n_rows)
                from[i] += row_of(a, a.x, 2 * i + lane / 16);
            from[i] += 4 * quad;
            keep(from[i]);
        }
        to = a.x.is_woven ? lane / 16 * 2 + quad / 8 : quad / 8;
        to = lane / 16 * X_BYTES + (quad ^ to * 2) * 16;
        part = part_of_lane();
        keep(to);
        keep(part);
        at = a.x.is_woven ? woven_piece(a, lane)
                          : m * X_BYTES + lane % 4 * 64 + lane % 4 / 2 * 32;
        digits = m / 2 * digits_of_two + m % 2 * DIGIT_ROW +
                 digits_at(m, lane / 4 % 2) + lane % 4 * 16;
        unit = of_sums / 2 * digits_of_two + KEPT_UNITS + of_sums % 2 * 4;
    }

    /* Where the piece of woven rows is that this lane has the warp read, of its
     * column and quarter of half a tile. */
    __device__ static inline unsigned woven_piece(const decode &a,
                                                  unsigned lane)
    {
        const unsigned column = lane % 8;
        const unsigned m = min(column / 2, a.n_rows - 1);
        const unsigned turn = m % 2 * 2 + column % 2;

        return m * X_BYTES + column % 2 * (X_BYTES / 2) +
               (lane / 8 ^ turn * 2) * 16;
    }

    __device__ inline void fetch(unsigned char *tile_at, const decode &a,
                                 unsigned tile) const
    {
        const unsigned k = tile * TILE_K;

#pragma unroll
        for (unsigned i = 0; i < ROWS / 2; i++)
            if (i == 0 || 2 * i < a.n_rows)
                copy_async<16>(tile_at + to + 2 * i * X_BYTES, from[i] + k,
                               k + threadIdx.x % 16 * 4 < a.K);
    }

    /* The part that lane's column has of its 16 neighbours, grown for weights
     * of this dtype. */
    template <int dtype>
    __device__ inline void read(unsigned pairs[8], const unsigned char *tile_at,
                                const view &of) const
    {
        float4 x[4];

        if (is_byte<dtype> && of.is_woven) {
            read_woven(pairs, tile_at);
            return;
        }
#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            x[i] = *(const float4 *)(tile_at + (at ^ i / 2 * 32) + i % 2 * 16);
        part_of_x(pairs, x, part, of.is_split);
        if (growth<dtype>::OF_X)
#pragma unroll
            for (unsigned i = 0; i < 8; i++)
                pairs[i] = fma_pairs(pairs[i], growth<dtype>::OF_X * 0x10001u,
                                     0x80008000u);
    }

    /* The same of woven ones, which have grown already. */
    __device__ inline void read_woven(unsigned pairs[8],
                                      const unsigned char *tile_at) const
    {
        const unsigned first = shared_address(tile_at);

        read_columns(pairs, first + at);
        read_columns(pairs + 4, first + (at ^ X_BYTES / 4));
    }

    /* Make digits of a tile from the ring, what this lane has copied. */
    __device__ inline void make_digits(unsigned char *to_x,
                                       const unsigned char *tile_at,
                                       const decode &a,
                                       unsigned digits_of_two) const
    {
        const unsigned m = threadIdx.x % 32 / 16;

#pragma unroll
        for (unsigned i = 0; i < ROWS / 2; i++, to_x += digits_of_two) {
            const float4 *v = (const float4 *)(tile_at + to + 2 * i * X_BYTES);

            if (i == 0 || 2 * i < a.n_rows)
                put_digits(to_x + m * DIGIT_ROW, to_x + KEPT_UNITS + 4 * m, m,
                           *v, a.x.is_split);
        }
    }
};

/* The tiles that a warp takes: those of its slice, for one round of its block
 * after the other. */
struct route {
    unsigned tile, round, n_rounds;

    __device__ inline void open(const decode &a)
    {
        tile = threadIdx.x / 32;
        round = blockIdx.x;
        n_rounds = tile < a.n_tiles ? a.n_rounds : 0;
        keep(n_rounds);
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

/* The way of HEIGHT groups of outputs through tiles. */
template <int dtype, int HEIGHT> struct feeds {
    enum { BYTES = HEIGHT * format<dtype>::TILE_BYTES };
    feed<dtype> rows[HEIGHT];

    __device__ inline void turn(const decode &a, unsigned round)
    {
        const unsigned first = round * a.outputs;
        const unsigned end = min(first + a.outputs, a.e.N);

#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
            rows[h].turn_to(a, first + h * TILE_N, end);
    }

    __device__ inline void fetch(unsigned char *to, const decode &a,
                                 unsigned tile, bool is_in, policy p) const
    {
        if (is_in)
#pragma unroll
            for (unsigned h = 0; h < HEIGHT; h++)
                rows[h].fetch(to + h * format<dtype>::TILE_BYTES, a, tile, p);
    }
};

/* The same of int4, whose scales come together, behind all else. */
template <int HEIGHT> struct feeds<VIBE_I4, HEIGHT> {
    enum {
        TILE = VIBE_TILE_I4_BYTES,
        SCALES_AT = HEIGHT * VIBE_TILE_SCALES_AT,
        BYTES = (HEIGHT * TILE + LINE - 1) / LINE * LINE,
    };
    const unsigned char *from[HEIGHT + 1]; /* of each, and scales */

    /* Past the matrix it is the last group once more. */
    __device__ static inline const unsigned char *tiles_of(const decode &a,
                                                           unsigned group)
    {
        return (const unsigned char *)a.w +
               (size_t)min(group, a.n_groups - 1) * a.n_tiles * TILE;
    }

    __device__ inline void turn(const decode &a, unsigned round)
    {
        const unsigned lane = threadIdx.x % 32;
        const unsigned first_group = round * HEIGHT;

#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
            from[h] = tiles_of(a, first_group + h) + 16 * lane;
        from[HEIGHT] = tiles_of(a, first_group + lane / 2 % HEIGHT) +
                       VIBE_TILE_SCALES_AT + lane % 2 * 16;
#pragma unroll
        for (unsigned h = 0; h <= HEIGHT; h++)
            keep(from[h]);
    }

    __device__ inline void fetch(unsigned char *to, const decode &,
                                 unsigned tile, bool is_in, policy p) const
    {
        const unsigned lane = threadIdx.x % 32;
        const size_t at = (size_t)tile * TILE;

        to += 16 * lane;
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
            copy_if(p, is_in, to + h * VIBE_TILE_SCALES_AT, from[h] + at);
        copy_if(p, is_in && lane < 2 * HEIGHT, to + SCALES_AT,
                from[HEIGHT] + at);
    }
};

/* A warp's ring of a.depth slots of shared memory, each for a tile of HEIGHT
 * groups of outputs and x beside it, unless that is kept, and the route of what
 * is fetched next. */
template <int dtype, int HEIGHT, int KEEPS> struct feeder {
    enum {
        TILE_BYTES = format<dtype>::TILE_BYTES,
        X_AT = feeds<dtype, HEIGHT>::BYTES,
        FULL = slots_of(dtype, X_AT, KEEPS, STARTS_EARLY), /* if they fit */
    };
    route ahead;
    feeds<dtype, HEIGHT> weights;
    x_feed x;
    unsigned char *begin, *end, *here;
    unsigned char *kept, *x_here; /* digits, of the tile at hand */
    unsigned slot_bytes, digits_of_two;
    float4 first_x[KEEPS ? KEEPS : 1]; /* of two rows: digits to be */

    __device__ inline void open(const decode &a, unsigned char *memory)
    {
        const unsigned warp = threadIdx.x / 32;

        slot_bytes = X_AT + (KEEPS ? 0 : even(a.n_rows) * X_BYTES);
        begin = memory + warp * a.depth * slot_bytes;
        end = begin + a.depth * slot_bytes;
        digits_of_two = kept_bytes(KEEPS, 2, a.n_tiles, a.slices);
        kept = memory + a.slices * a.depth * slot_bytes +
               warp * even(a.n_rows) / 2 * digits_of_two;
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
        if constexpr (KEEPS)
            keep_x(a);
        else if constexpr (dtype == VIBE_I4)
            begin_digits(a);
    }

    /* Fill the ring: weights before the kernel ahead has ended, x after.  The
     * next kernel begins to read behind these weights, but beside them where
     * they are nearly all: what it reads first comes one after another.  Or it
     * begins behind x, if that is what this one waits for. */
    template <class T>
    __device__ inline void fill_early(const decode &a, T &first)
    {
        route way = ahead;

        if (a.n_rounds <= gridDim.x && a.next_start == BEFORE_X)
            let_next_start();
        for (unsigned char *to = begin; to < end; to += slot_bytes) {
            fetch_weights(to, a, first_policy(a, to == begin));
            if (KEEPS)
                copies_end();
            next(a);
        }
        first.look(a);
        x.open(a, threadIdx.x % 32, digits_of_two);
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
                x.open(a, lane, digits_of_two);
            if constexpr (KEEPS)
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
        x.template read<dtype>(pairs, here + X_AT, a.x);
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
            x_here += KEPT_BYTES;
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
#pragma unroll
        for (int j = 0; j < 2 * HEIGHT; j++) {
            const unsigned *u = w[j % HEIGHT].u;
            const int i = j / HEIGHT;
            const unsigned rows[4] = {i4_bytes(u[0], i), i4_bytes(u[2], i),
                                      i4_bytes(u[1], i), i4_bytes(u[3], i)};

            multiply_bytes(c[j % HEIGHT], rows, digits + 2 * i);
        }
        next_x(a);
#pragma unroll
        for (int h = 0; h < HEIGHT; h++) {
            sums[h][0] = fmaf(sum_of(c[h][0], c[h][1]), scales[h].x * unit,
                              sums[h][0]);
            sums[h][2] = fmaf(sum_of(c[h][2], c[h][3]), scales[h].y * unit,
                              sums[h][2]);
        }
    }
};

#endif

#endif /* VIBE_CUDA_GEMV_FEED_CUH */
