/*
 * wide_feed.cuh - how weights and x of gemv_wide.cu come to a team of warps.
 *
 * x lies in shared memory for all warps of a team, split in halves or made
 * digits where it arrived; each warp copies the weights of its own outputs
 * behind it, and reads them as the columns of mma.m16n8k16.
 */
#ifndef VIBE_CUDA_WIDE_FEED_CUH
#define VIBE_CUDA_WIDE_FEED_CUH

#include "engine/backend/cuda/shared.cuh"
#include "engine/backend/cuda/wide.cuh"
#include "engine/backend/cuda/wide_sums.cuh" /* post */

#if __CUDA_ARCH__ >= 800

/* Wait for the oldest of depth - 1 groups of copies. */
__device__ static inline void stage_wait(unsigned depth)
{
    if (depth == 2)
        copies_wait<0>();
    else if (depth == 3)
        copies_wait<1>();
    else
        copies_wait<MOST_DEPTH - 2>();
}

/* Where four neighbours of row m of x lie in its tile: lanes of two rows that
 * read together meet in no bank. */
__device__ static inline unsigned x_at(unsigned quad, unsigned m)
{
    return m * X_BYTES + (quad ^ (quad / 8 * 2) ^ (m & 1)) * 16;
}

/* Where the unit of its digits is, behind them. */
__device__ static inline unsigned unit_at(unsigned m)
{
    return m * X_BYTES + DIGIT_ROW;
}

/* x on its way to a team's stages: a thread copies the same quad of every so
 * many rows, which lie evenly. */
struct x_feed {
    const float *from; /* the first row's first quad */
    unsigned step;     /* floats from row to row of this thread */
    unsigned to;       /* in shared memory, of the first stage */
    unsigned n, to_step;
    unsigned k;        /* of the quad in a tile */
    unsigned stage, m; /* of the first row */

    /* stage: where x is in the first one */
    __device__ inline void open(const decode &a, unsigned first_stage,
                                const post &at)
    {
        const unsigned by = 2 * at.n_warps;
        const unsigned n_rows = min(a.of_pass,
                                    a.n_rows - blockIdx.x * a.of_pass);

        stage = first_stage;
        m = 2 * at.warp + threadIdx.x / 16 % 2;
        k = threadIdx.x % 16 * 4;
        from = a.x.data + (size_t)blockIdx.x * a.x_pass + (size_t)m * a.x_step +
               k;
        step = by * a.x_step;
        to = stage + x_at(k / 4, m);
        to_step = by * X_BYTES;
        n = m < n_rows ? (n_rows - m + by - 1) / by : 0;
        keep(from);
        keep(step);
        keep(to);
        keep(to_step);
        keep(n);
        keep(k);
    }

    /* Start copying a tile of x to the stage at slot. */
    __device__ inline void fetch(unsigned slot, const decode &a,
                                 unsigned tile) const
    {
        const float *p = from + tile * TILE_K;
        const bool is_in = tile * TILE_K + k < a.K;

        slot += to;
#pragma unroll 1
        for (unsigned i = 0; i < n; i++, slot += to_step, p += step)
            copy_to_shared(slot, p, is_in);
    }

    /* Bring what this thread has copied of a tile of floats to the form that
     * products take. */
    __device__ inline void split(unsigned slot) const
    {
        slot += to;
#pragma unroll 1
        for (unsigned i = 0; i < n; i++, slot += to_step) {
            float4 *x = (float4 *)__cvta_shared_to_generic(slot);

            *x = kept(*x, true);
        }
    }

    /* Or to digits; a warp's lanes stay together, so that a row past the last
     * may come with it. */
    __device__ inline void make_digits(unsigned slot, const decode &a) const
    {
        unsigned char *rows = (unsigned char *)__cvta_shared_to_generic(stage +
                                                                        slot);
        const unsigned most = __shfl_sync(0xFFFFFFFFu, n, 0);

#pragma unroll 1
        for (unsigned i = 0; i < most; i++) {
            const unsigned row = m + i * (to_step / X_BYTES);
            const float4 x = *(const float4 *)(rows + x_at(k / 4, row));

            __syncwarp();
            put_digits(rows + row * X_BYTES, rows + unit_at(row), row, x,
                       a.x.is_split);
        }
    }
};

/* Four neighbours of a row as rows of a product: high parts in the upper
 * eight, low ones in the lower eight. */
__device__ static inline void read_x(unsigned rows[4], unsigned at)
{
    unsigned x[4];

    read_shared(x, at);
    rows[0] = __byte_perm(x[0], x[1], 0x7632);
    rows[1] = __byte_perm(x[0], x[1], 0x5410);
    rows[2] = __byte_perm(x[2], x[3], 0x7632);
    rows[3] = __byte_perm(x[2], x[3], 0x5410);
}

/* A lane's weights of a stage, as they lie there in rows: those of quarter i of
 * the stage are its pairs then. */
template <int dtype> struct strip {
    enum { PIECES = dtype == VIBE_BF16 ? 2 : 1, QUARTERS = 4 / PIECES };

    unsigned at[PIECES]; /* where pieces are in a tile */
    unsigned raw[HEIGHT][2][4];

    __device__ inline void open(const decode &, unsigned)
    {
        const unsigned r = threadIdx.x % 32 / 4;
        const unsigned q = threadIdx.x % 4;

#pragma unroll
        for (unsigned i = 0; i < PIECES; i++)
            at[i] = r * format<dtype>::ROW_BYTES +
                    format<dtype>::place(PIECES * q + i, r) * 16;
#pragma unroll
        for (unsigned i = 0; i < PIECES; i++)
            keep(at[i]);
    }

    __device__ inline void read(unsigned tiles, const decode &, unsigned,
                                unsigned i)
    {
        if (i % QUARTERS)
            return;
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
#pragma unroll
            for (unsigned half = 0; half < 2; half++)
                read_shared(raw[h][half],
                            tiles + at[i / QUARTERS] +
                                (2 * h + half) * 8 * format<dtype>::ROW_BYTES);
    }

    __device__ inline void expand(unsigned pairs[2], unsigned h, unsigned half,
                                  unsigned i) const
    {
        const unsigned *u = raw[h][half];

        if constexpr (dtype == VIBE_BF16) {
            pairs[0] = u[i % 2 * 2];
            pairs[1] = u[i % 2 * 2 + 1];
        } else {
            format<dtype>::expand4(pairs, u[i]);
        }
    }
};

/* The same of packed tiles, half a stage at a time. */
template <> struct strip<VIBE_BF16_PACKED> {
    tile_pairs w[HEIGHT];
    group_of<VIBE_BF16_PACKED> groups[HEIGHT];
    unsigned group;

    __device__ inline void open(const decode &a, unsigned first_group)
    {
        group = first_group;
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
            groups[h].open(a, group + h);
    }

    __device__ inline void read(unsigned tiles, const decode &a, unsigned tile,
                                unsigned i)
    {
        const unsigned char *from = (const unsigned char *)
            __cvta_shared_to_generic(tiles);

        if (i % 2)
            return;
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++) {
            unpack_half(w[h], from + h * VIBE_TILE_PACKED_BYTES, groups[h].base,
                        i / 2);
            groups[h].put(w[h], tile, a, group + h);
        }
    }

    __device__ inline void expand(unsigned pairs[2], unsigned h, unsigned half,
                                  unsigned i) const
    {
        const unsigned *u = half ? w[h].high : w[h].low;

        pairs[0] = u[2 * i];
        pairs[1] = u[2 * i + 1];
    }
};

template <> struct strip<VIBE_I4> {
    __device__ inline void open(const decode &, unsigned) {}
};

/* Weights on their way to a warp's stages, a quarter of a stage at a time. */
template <int dtype> struct w_feed {
    enum {
        ROWS = feed<dtype>::ROWS,
        GOES = HEIGHT * TILE_N / ROWS,
        AT_ONCE = (GOES + 3) / 4,
    };

    feed<dtype> rows;
    unsigned to, of_go; /* in shared memory; bytes from go to go */
    unsigned piece_at;  /* in a row of a tile */

    /* stage: where the warp's weights are in the first one */
    __device__ inline void open(const decode &a, unsigned stage, unsigned group)
    {
        rows.turn(a, group);
        to = stage + feed<dtype>::place_of_lane();
        of_go = ROWS * a.row_bytes;
        piece_at = threadIdx.x % feed<dtype>::PIECES * 16;
        keep(rows.from);
        keep(rows.rows_left);
        keep(to);
        keep(of_go);
        keep(piece_at);
    }

    __device__ inline void fetch(unsigned slot, const decode &a, unsigned tile,
                                 bool is_in, unsigned i) const
    {
        const unsigned at = tile * format<dtype>::ROW_BYTES;
        const unsigned left = is_in && at + piece_at < a.row_bytes
                                  ? rows.rows_left
                                  : 0;

#pragma unroll
        for (unsigned go = i * AT_ONCE; go < (i + 1) * AT_ONCE; go++)
            copy_to_shared(to + slot + go * 512,
                           rows.from + at + (size_t)(go * of_go),
                           go * ROWS < left);
    }
};

/* The same of whole tiles, all of them at first. */
template <int dtype> struct tiles_feed {
    unsigned to, group;

    __device__ inline void open(const decode &, unsigned stage,
                                unsigned first_group)
    {
        to = stage;
        group = first_group;
    }

    __device__ inline void fetch(unsigned slot, const decode &a, unsigned tile,
                                 bool is_in, unsigned i) const
    {
        unsigned char *at = (unsigned char *)__cvta_shared_to_generic(to +
                                                                      slot);

        if (i > 0 || !is_in)
            return;
        for (unsigned h = 0; h < HEIGHT; h++) {
            feed<dtype> rows;

            rows.turn(a, group + h);
            rows.fetch(at + h * format<dtype>::TILE_BYTES, a, tile);
        }
    }
};

/* Of tiles of bytes, a quarter of a stage at a time. */
template <int dtype> struct bands_feed {
    enum {
        PIECE = 512, /* of one go */
        OF_TILE = format<dtype>::TILE_BYTES / PIECE,
        AT_ONCE = (HEIGHT * OF_TILE + 3) / 4,
    };

    const unsigned char *from;     /* this lane's bytes of the first tile */
    unsigned to, of_group, n_left; /* n_left: groups that there are */

    __device__ inline void open(const decode &a, unsigned stage, unsigned group)
    {
        const unsigned at = threadIdx.x % 32 * 16;

        of_group = a.n_tiles * format<dtype>::TILE_BYTES;
        from = (const unsigned char *)a.w + (size_t)group * of_group + at;
        to = stage + at;
        n_left = group < a.n_groups ? a.n_groups - group : 0;
        keep(from);
        keep(to);
        keep(of_group);
        keep(n_left);
    }

    __device__ inline void fetch(unsigned slot, const decode &, unsigned tile,
                                 bool is_in, unsigned i) const
    {
        const unsigned left = is_in ? n_left : 0;
        const unsigned char *p = from +
                                 (size_t)tile * format<dtype>::TILE_BYTES;

#pragma unroll
        for (unsigned go = i * AT_ONCE; go < (i + 1) * AT_ONCE; go++)
            copy_to_shared(to + slot + go * PIECE,
                           p + (size_t)(go / OF_TILE * of_group) +
                               go % OF_TILE * PIECE,
                           go / OF_TILE < left);
    }
};

template <> struct w_feed<VIBE_F8_E4M3> : bands_feed<VIBE_F8_E4M3> {
};
template <> struct w_feed<VIBE_I8> : bands_feed<VIBE_I8> {
};
template <> struct w_feed<VIBE_I4> : tiles_feed<VIBE_I4> {
};
template <> struct w_feed<VIBE_BF16_PACKED> : tiles_feed<VIBE_BF16_PACKED> {
};

#endif

#endif /* VIBE_CUDA_WIDE_FEED_CUH */
