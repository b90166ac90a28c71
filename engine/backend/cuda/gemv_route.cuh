/*
 * gemv_route.cuh - the way of a warp of gemv.cu through tiles of weights, and
 * those of int4 as it multiplies them.
 */
#ifndef VIBE_CUDA_GEMV_ROUTE_CUH
#define VIBE_CUDA_GEMV_ROUTE_CUH

#include "engine/backend/cuda/gemv_x.cuh"

enum { LINE = 128 }; /* of shared memory: copies are faster into whole ones */

#if __CUDA_ARCH__ >= 800

/* Of all teams of a kernel, this thread's, and how many there are. */
template <int TEAMS> __device__ static inline unsigned this_team(void)
{
    return TEAMS == 1 ? blockIdx.x : blockIdx.x * TEAMS + threadIdx.y;
}
template <int TEAMS> __device__ static inline unsigned n_teams(void)
{
    return gridDim.x * TEAMS;
}

/* The tiles that a warp takes: those of its slice, for one round of its team
 * after the other. */
template <int TEAMS> struct route {
    unsigned tile, round, n_rounds;

    __device__ inline void open(const decode &a)
    {
        tile = threadIdx.x / 32;
        round = this_team<TEAMS>();
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
        round += n_teams<TEAMS>();
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

/* Products of a tile of int4 of HEIGHT groups and x in digits, from 0 on. */
template <int HEIGHT>
__device__ static inline void multiply_tile(int c[HEIGHT][4],
                                            const i4_words w[HEIGHT],
                                            const unsigned digits[4])
{
#pragma unroll
    for (int j = 0; j < 2 * HEIGHT; j++) {
        const unsigned *u = w[j % HEIGHT].u;
        const int i = j / HEIGHT;
        const unsigned rows[4] = {i4_bytes(u[0], i), i4_bytes(u[2], i),
                                  i4_bytes(u[1], i), i4_bytes(u[3], i)};

        multiply_bytes(c[j % HEIGHT], rows, digits + 2 * i);
    }
}

/* The first and the third sum of each += what they are with their scales. */
template <int HEIGHT>
__device__ static inline void add_products(float sums[HEIGHT][4],
                                           const int c[HEIGHT][4],
                                           const float2 scales[HEIGHT],
                                           float unit)
{
#pragma unroll
    for (int h = 0; h < HEIGHT; h++) {
        sums[h][0] = fmaf(sum_of(c[h][0], c[h][1]), scales[h].x * unit,
                          sums[h][0]);
        sums[h][2] = fmaf(sum_of(c[h][2], c[h][3]), scales[h].y * unit,
                          sums[h][2]);
    }
}

/* A tile of int4 of HEIGHT groups, as a lane multiplies it, and x. */
template <int HEIGHT> struct held_digits {
    i4_words w[HEIGHT];
    float2 scales[HEIGHT];
    unsigned digits[4];
    float unit;

    /* One that is not there is nothing, whatever is in its place. */
    __device__ inline void read(const unsigned char *at,
                                const unsigned char *x_at, const x_feed &x,
                                bool is_there)
    {
        const unsigned lane = threadIdx.x % 32;
        const unsigned char *scales_at = at + feeds<VIBE_I4, HEIGHT>::SCALES_AT;

#pragma unroll
        for (int h = 0; h < HEIGHT; h++) {
            read_16_bytes(w[h].u, at + h * VIBE_TILE_SCALES_AT + lane * 16);
            scales[h] = is_there ? i4_scales(scales_at + h * I4_SCALE_BYTES,
                                             lane / 4)
                                 : make_float2(0.0f, 0.0f);
        }
        read_16_bytes(digits, x_at + x.digits);
        unit = is_there ? *(const float *)(x_at + x.unit) : 0.0f;
    }

    /* The first and the third sum of each += the tile times x. */
    __device__ inline void add_to(float sums[HEIGHT][4]) const
    {
        int c[HEIGHT][4] = {};

        multiply_tile<HEIGHT>(c, w, digits);
        add_products<HEIGHT>(sums, c, scales, unit);
    }
};

#endif

#endif /* VIBE_CUDA_GEMV_ROUTE_CUH */
