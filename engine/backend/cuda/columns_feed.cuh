/*
 * columns_feed.cuh - how x and weights of gemm_tiles.cu come to a team of
 * warps, and to a warp's tensor core.
 *
 * S is the shape of a tile, see there.
 */
#ifndef VIBE_CUDA_COLUMNS_FEED_CUH
#define VIBE_CUDA_COLUMNS_FEED_CUH

#include "engine/backend/cuda/columns.cuh"
#include "engine/backend/cuda/shared.cuh"

enum {
    HEIGHT = 2,       /* of a warp, in groups of 16 rows */
    X_ROW = 4 * UNIT, /* bytes in a stage */
    W_ROW = 2 * UNIT,
};

static const unsigned NOWHERE = ~0u;

#if __CUDA_ARCH__ >= 800

/* A team's way along K, by turns that teams take one after the other. */
struct walk {
    unsigned k, left; /* left of a turn */

    __device__ inline void open(const columns &a, unsigned turn)
    {
        k = turn * a.of_turn;
        left = a.of_turn;
    }

    /* Returns whether a turn has ended. */
    __device__ inline bool next(const columns &a)
    {
        k += UNIT;
        left -= UNIT;
        if (left > 0)
            return false;
        k += a.to_turn;
        left = a.of_turn;
        return true;
    }
};

/* Units of a turn, the last ones of which K may cut. */
__device__ static inline unsigned units_of(const columns &a, unsigned turn)
{
    const unsigned first = min(turn * a.of_turn, a.K);

    return (min(a.of_turn, a.K - first) + UNIT - 1) / UNIT;
}

/* Where a piece of 16 bytes of row m of x lies: two rows that are read together
 * meet in no bank. */
__device__ static inline unsigned x_at(unsigned m, unsigned piece)
{
    return m * X_ROW + (piece ^ (m & 1)) * 16;
}

/* What a thread copies: the same piece of several rows, of each.  HAS_PAST: the
 * first of a dialogue may begin in the past of its window. */
template <class S, bool HAS_PAST> struct feeder {
    enum {
        X_STEP = S::THREADS / 8, /* rows between those of a thread */
        W_STEP = S::THREADS / 4,
        N_X = S::ROWS / X_STEP,
        N_W = S::OUTPUTS / W_STEP,
    };
    unsigned x[N_X], w[N_W]; /* where its rows begin; past the last it is that
                                again */
    unsigned past[HAS_PAST ? N_X : 1]; /* or NOWHERE */
    unsigned x_to, w_to;               /* in a stage */

    __device__ inline void open_w(const columns &a, unsigned n0)
    {
        const unsigned row = threadIdx.x % S::THREADS / 4;

        w_to = S::X_BYTES + row * W_ROW + threadIdx.x % 4 * 16;
        keep(w_to);
#pragma unroll
        for (int i = 0; i < N_W; i++) {
            w[i] = min(n0 + row + i * W_STEP, a.e.N - 1) * a.stride +
                   threadIdx.x % 4 * 8;
            keep(w[i]);
        }
    }

    __device__ inline void open_x(const columns &a, unsigned m0)
    {
        const unsigned row = threadIdx.x % S::THREADS / 8;
        const unsigned piece = threadIdx.x % 8;

        x_to = x_at(row, piece); /* X_STEP is even */
        keep(x_to);
#pragma unroll
        for (int i = 0; i < N_X; i++) {
            const unsigned m = min(m0 + row + i * X_STEP, a.n_rows - 1);

            x[i] = (unsigned)row_at(a.x, a.e.T, m) + piece * 4;
            keep(x[i]);
            if (HAS_PAST)
                past[i] = m % a.e.T ? NOWHERE
                                    : m / a.e.T * (unsigned)a.from.past_stride +
                                          piece * 4;
        }
    }

    /* stage: an address in shared memory */
    __device__ inline void fetch_w(unsigned stage, const columns &a,
                                   unsigned k) const
    {
        const bool is_in = k + threadIdx.x % 4 * 8 < a.stride;

#pragma unroll
        for (int i = 0; i < N_W; i++)
            copy_to_shared(stage + w_to + i * W_STEP * W_ROW, a.w + (w[i] + k),
                           is_in);
    }

    __device__ inline void fetch_x(unsigned stage, const columns &a,
                                   unsigned k) const
    {
        const bool is_in = k + threadIdx.x % 8 * 4 < a.K;

#pragma unroll
        for (int i = 0; i < N_X; i++) {
            const float *from = a.x.data + (x[i] + k);

            if (HAS_PAST && k < a.from.edge && past[i] != NOWHERE)
                from = a.from.past + (past[i] + k);
            copy_to_shared(stage + x_to + i * X_STEP * X_ROW, from, is_in);
        }
    }
};

/* A warp's way through stages: where in one its lanes read. */
struct reader {
    unsigned x, w; /* the first row's first piece, the first output's */

    __device__ inline void open(unsigned m, unsigned n, unsigned x_bytes)
    {
        const unsigned row = threadIdx.x % 32 / 4;
        const unsigned q = threadIdx.x % 4;

        x = x_at(m + row, 2 * q);
        w = x_bytes + (n + row) * W_ROW + q * 16;
        keep(x);
        keep(w);
    }

    /* Add a unit, at an address in shared memory, to the sums, of which it may
     * be the first. */
    template <bool IS_SPLIT, bool IS_FIRST, int SPAN>
    __device__ inline void add_unit(float sums[HEIGHT][SPAN][4],
                                    unsigned stage) const
    {
        unsigned v[SPAN][4];

#pragma unroll
        for (int i = 0; i < HEIGHT * SPAN * 4 && IS_FIRST; i++)
            (&sums[0][0][0])[i] = 0.0f;
#pragma unroll
        for (int j = 0; j < SPAN; j++)
            read_shared(v[j], stage + w + j * 8 * W_ROW);
#pragma unroll
        for (int step = 0; step < 2; step++) {
            /* the second piece of a lane is beside the first, see x_at */
            const unsigned from = stage + (x ^ step * 16);
            unsigned parts[HEIGHT][2][4];

#pragma unroll
            for (int i = 0; i < HEIGHT * 2; i++) {
                unsigned(&high)[4] = parts[i / 2][0];
                unsigned(&low)[4] = parts[i / 2][1];
                unsigned u[4];

                read_shared(u, from + i * 8 * X_ROW);
                read_split(
                    high[i % 2], low[i % 2],
                    make_float2(__uint_as_float(u[0]), __uint_as_float(u[1])),
                    IS_SPLIT);
                read_split(
                    high[2 + i % 2], low[2 + i % 2],
                    make_float2(__uint_as_float(u[2]), __uint_as_float(u[3])),
                    IS_SPLIT);
            }
#pragma unroll
            for (int i = 0; i < 2 * HEIGHT * SPAN; i++) {
                const int j = i % SPAN, h = i / SPAN % HEIGHT;

                multiply(sums[h][j], parts[h][i / SPAN / HEIGHT],
                         v[j] + 2 * step);
            }
        }
    }
};

#endif

#endif /* VIBE_CUDA_COLUMNS_FEED_CUH */
