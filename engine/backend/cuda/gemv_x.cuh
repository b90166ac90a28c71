/*
 * gemv_x.cuh - x of gemv.cu: on its way through the ring, and in digits, which
 * are made by it or given.
 */
#ifndef VIBE_CUDA_GEMV_X_CUH
#define VIBE_CUDA_GEMV_X_CUH

#include "engine/backend/cuda/decode.cuh"
#include "engine/backend/cuda/shared.cuh"

enum {
    ROWS = VIBE_CUDA_GEMV_ROWS, /* of x: two columns each */
    X_BYTES = TILE_K * 4,       /* of a row of x in a tile */
};

/* Rows come in twos: the second may be there twice. */
__host__ __device__ static inline size_t even(size_t n_rows)
{
    return (n_rows + 1) / 2 * 2;
}

/* Of two rows of x in digits in a tile, and their units. */
enum { KEPT_UNITS = 2 * 2 * TILE_K, KEPT_BYTES = KEPT_UNITS + 16 };

/* Pieces of 16 bytes that a lane copies of a row of x that is given in digits,
 * of a tile of which there are PIECES: all of a slice. */
enum {
    GIVEN = 5,       /* of rows up to LONG_K */
    GIVEN_MANY = 11, /* of others */
    PIECES = DIGIT_TILE / 16,
};

/* x as it is, kept for two teams of a block, up to TEAM_ROWS of it: their warps
 * copy so many tiles each, all of rows up to LONG_K. */
enum { FOR_TWO = 3, TILES_FOR_TWO = 4, TEAM_ROWS = 2 };

/* Teams of a block, threadIdx.y, each of which makes outputs of its own. */
__host__ __device__ static constexpr unsigned teams_of(unsigned keeps)
{
    return keeps == FOR_TWO ? 2 : 1;
}

__host__ __device__ static constexpr bool is_given(unsigned keeps)
{
    return keeps == GIVEN || keeps == GIVEN_MANY;
}

/* Of rows of x in digits, two after two, that there is room for: all of a
 * slice, keeps tiles at a time unless they are given, or if that is 0 this tile
 * and the next. */
__host__ __device__ static inline unsigned kept_bytes(unsigned keeps,
                                                      unsigned n_rows,
                                                      unsigned n_tiles,
                                                      unsigned slices)
{
    const unsigned at_once = is_given(keeps) ? 1 : keeps;
    const unsigned step = at_once * slices;
    const unsigned n = keeps ? (n_tiles + step - 1) / step * at_once : 2;

    return (n_rows + 1) / 2 * n *
           (is_given(keeps) ? 2 * DIGIT_TILE : KEPT_BYTES);
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
    template <bool IS_GIVEN>
    __device__ inline void open(const decode &a, unsigned lane,
                                unsigned digits_of_two)
    {
        const unsigned of_row = IS_GIVEN ? digits_of_two / 2 : DIGIT_ROW;
        const unsigned of_unit = IS_GIVEN ? digits_of_two / 2 : 4;
        const unsigned unit_at = IS_GIVEN ? DIGIT_ROW : KEPT_UNITS;
        const unsigned quad = lane % 16;
        const unsigned m = min(lane / 8, a.n_rows - 1);
        const unsigned of_sums = min(lane % 4, a.n_rows - 1);

#pragma unroll
        for (unsigned i = 0; i < ROWS / 2; i++) {
            from[i] = a.x.data;
            if (STARTS_EARLY || 2 * i < a.n_rows)
                from[i] += row_of(a, a.x, 2 * i + lane / 16);
            from[i] += IS_GIVEN ? 0 : 4 * quad;
            keep(from[i]);
        }
        to = a.x.is_woven ? lane / 16 * 2 + quad / 8 : quad / 8;
        to = lane / 16 * X_BYTES + (quad ^ to * 2) * 16;
        part = part_of_lane();
        keep(to);
        keep(part);
        at = a.x.is_woven ? woven_piece(a, lane)
                          : m * X_BYTES + lane % 4 * 64 + lane % 4 / 2 * 32;
        digits = m / 2 * digits_of_two + m % 2 * of_row +
                 digits_at(IS_GIVEN ? 0 : m, lane / 4 % 2) + lane % 4 * 16;
        unit = of_sums / 2 * digits_of_two + unit_at + of_sums % 2 * of_unit;
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

/* What a lane copies of two rows of x that are given in digits: half a warp has
 * a row's, which come behind each other. */
template <int N> struct given_pieces {
    enum : unsigned { NONE = ~0u };
    unsigned from[N]; /* of a row, bytes */
    unsigned to;      /* of the first, in shared memory */
    uint4 v[N];

    /* those of the two rows go to kept, each of which has of_row bytes */
    __device__ inline void open(const decode &a, const unsigned char *kept,
                                unsigned of_row)
    {
        const unsigned first = threadIdx.x % 16;

#pragma unroll
        for (unsigned i = 0; i < N; i++) {
            const unsigned piece = first + 16 * i;
            const unsigned tile = threadIdx.x / 32 + piece / PIECES * a.slices;

            from[i] = tile < a.n_tiles ? tile * DIGIT_TILE + piece % PIECES * 16
                                       : (unsigned)NONE;
            keep(from[i]);
        }
        to = shared_address(kept) + threadIdx.x % 32 / 16 * of_row + first * 16;
        keep(to);
    }

    __device__ inline void load(const float *row)
    {
#pragma unroll
        for (unsigned i = 0; i < N; i++)
            if (from[i] != NONE)
                asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                             : "=r"(v[i].x), "=r"(v[i].y), "=r"(v[i].z),
                               "=r"(v[i].w)
                             : "l"((const unsigned char *)row + from[i])
                             : "memory");
    }

    /* offset: in bytes, of rows behind the first two */
    __device__ inline void store(unsigned offset) const
    {
#pragma unroll
        for (unsigned i = 0; i < N; i++)
            if (from[i] != NONE)
                asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(
                                 to + offset + 256 * i),
                             "r"(v[i].x), "r"(v[i].y), "r"(v[i].z), "r"(v[i].w)
                             : "memory");
    }
};

#endif

#endif /* VIBE_CUDA_GEMV_X_CUH */
