/*
 * async_feed.cuh - how weights and x of gemv_async.cu come to their warps.
 *
 * A team has four warps for every 64 outputs, each of which copies the weights
 * of its own 16 and multiplies, and two warps or four that weave x: a tile of
 * rows becomes columns as wgmma reads them from shared memory, a core of 8
 * columns by 8 neighbours being 128 bytes.  They wait for each other at gates,
 * one pair for each stage of what is woven.
 */
#ifndef VIBE_CUDA_ASYNC_FEED_CUH
#define VIBE_CUDA_ASYNC_FEED_CUH

#include "engine/backend/cuda/async.cuh"
#include "engine/backend/cuda/shared.cuh"
#include "engine/backend/cuda/walk.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Where a thread is among those of its team: first come all that multiply, then
 * those that weave. */
struct seat {
    unsigned team, thread;
    unsigned shift; /* of those that weave */
    bool is_weaver;

    __device__ inline void open(const decode &a)
    {
        const unsigned first = __shfl_sync(0xFFFFFFFFu, threadIdx.x, 0);
        const unsigned n_multiply = 2 * a.outputs * a.teams;
        const unsigned shifts = shifts_of(a.teams);
        unsigned i = first, of_team = 2 * a.outputs;

        is_weaver = first >= n_multiply;
        if (is_weaver) {
            i -= n_multiply;
            of_team = WEAVERS * shifts;
        }
        team = i / of_team;
        i -= team * of_team;
        shift = i / WEAVERS;
        thread = (is_weaver ? i % WEAVERS : i) + threadIdx.x % 32;
    }
};

/* A step of a team's way: a tile, and what ends with it. */
enum {
    TILE = 0xFFFF,
    ENDS_FOLD = 1 << 16,
    ENDS_SLICE = 1 << 17,
    IS_LAST = 1 << 18,
    NO_TILE = 1 << 19,
};

/* A team's walk, as a list. */
struct way : walk {
    /* List the rest: how many steps there are, the steps, and as many of no
     * tile as a ring has stages. */
    __device__ inline void list(unsigned *to, const decode &a)
    {
        unsigned n = 0, in_fold = 0;

        while (is_in()) {
            unsigned step = tile;

            if (next(a))
                step |= ENDS_SLICE;
            in_fold++;
            if (step & ENDS_SLICE || in_fold == a.fold) {
                step |= ENDS_FOLD;
                in_fold = 0;
            }
            to[++n] = is_in() ? step : step | IS_LAST;
        }
        to[0] = n;
        for (unsigned i = 0; i < a.depth; i++)
            to[++n] = NO_TILE;
    }
};

/* A team's share of shared memory. */
struct desk {
    unsigned stage_bytes;       /* of weights */
    unsigned weights, x, woven; /* where rings begin */
    unsigned full, empty;       /* where gates are */
    unsigned n_steps, *steps;   /* n_steps: once they are listed */
    float4 *shelves;            /* of the block, behind all teams */

    __device__ inline void open(uint4 *memory, const decode &a,
                                const unsigned long long *gates, unsigned team)
    {
        unsigned char *mine = (unsigned char *)memory;
        unsigned list_at, of_team;

        stage_bytes = a.outputs * TILE_K;
        x = a.depth * stage_bytes;
        woven = x + shifts_of(a.teams) * X_RING * X_STAGE_BYTES;
        list_at = woven + WOVEN * WOVEN_BYTES;
        of_team = list_at + way_bytes(a.n_tiles, a.depth);
        shelves = (float4 *)(mine + a.teams * of_team);
        mine += team * of_team;
        steps = (unsigned *)(mine + list_at);
        weights = shared_address(mine);
        x += weights;
        woven += weights;
        full = shared_address(gates);
        empty = full + WOVEN * 8;
    }

    /* By one thread of the team: those that weave come to the first gate, those
     * that multiply to the other. */
    __device__ inline void prepare(const decode &a, unsigned team) const
    {
        way all;

        for (unsigned i = 0; i < WOVEN; i++) {
            open_gate(full + i * 8, WEAVERS / 32);
            open_gate(empty + i * 8, a.outputs / TILE_N);
        }
        all.open(a, team);
        all.list(steps, a);
    }

    /* After that. */
    __device__ inline void read_list(void)
    {
        n_steps = *steps++;
    }

    __device__ static inline void open_gate(unsigned gate, unsigned n)
    {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(gate),
                     "r"(n)
                     : "memory");
    }
};

/* By one lane for its warp. */
__device__ static inline void arrive_at(unsigned gate)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(gate)
                 : "memory");
}

__device__ static inline void wait_at(unsigned gate, unsigned parity)
{
    unsigned is_open;

    do
        asm volatile("{.reg .pred is_open; "
                     "mbarrier.try_wait.parity.shared::cta.b64 is_open, [%1], "
                     "%2; selp.u32 %0, 1, 0, is_open;}"
                     : "=r"(is_open)
                     : "r"(gate), "r"(parity)
                     : "memory");
    while (!is_open);
}

/* A stage of what is woven, and the parity of its gate. */
struct turn {
    unsigned stage, parity;

    __device__ inline void next(unsigned by)
    {
        stage += by;
        parity ^= stage / WOVEN;
        stage %= WOVEN;
    }
};

__device__ static inline void copy_16(unsigned to, const void *from)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to),
                 "l"(from)
                 : "memory");
}

__device__ static inline void write_shared(unsigned at, unsigned u)
{
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(u) : "memory");
}

/* x on its way: a thread copies a quad of every fourth row, and weaves what it
 * has copied.  Columns of rows that are not there have what was there before,
 * which no other column sees. */
struct rows_of_x {
    enum { BY = WEAVERS / 16, TURNS = ASYNC_ROWS / BY };

    const float *from;
    unsigned n, step; /* rows; floats from one to the next */
    unsigned to;      /* in a stage */
    unsigned column;  /* in what is woven */

    __device__ inline void open(const decode &a, unsigned thread)
    {
        const unsigned first = blockIdx.x * ASYNC_ROWS;
        const unsigned n_rows = min((unsigned)ASYNC_ROWS, a.n_rows - first);
        const unsigned m = thread / 16, quad = thread % 16;

        from = a.x.data + (size_t)(first + m) * a.x_step + quad * 4;
        step = BY * a.x_step;
        n = m < n_rows ? (n_rows - m + BY - 1) / BY : 0;
        to = m * X_ROW_BYTES + quad * 16;
        column = quad % 4 * 2 * HALF_BYTES + quad / 4 * 4 + m * 16;
    }

    __device__ inline void fetch(unsigned stage, unsigned tile) const
    {
        const float *p = from + tile * TILE_K;

#pragma unroll
        for (unsigned i = 0; i < TURNS; i++, p += step)
            if (i < n)
                copy_16(stage + to + i * BY * X_ROW_BYTES, p);
    }

    __device__ inline void weave(unsigned stage, unsigned woven) const
    {
        unsigned u[TURNS][4];

#pragma unroll
        for (unsigned i = 0; i < TURNS; i++)
            read_shared(u[i], stage + to + i * BY * X_ROW_BYTES);
#pragma unroll
        for (unsigned i = 0; i < TURNS; i++) {
            const unsigned at = woven + column + i * BY / 8 * 256 +
                                i * BY % 8 * 16;

#pragma unroll
            for (unsigned h = 0; h < 2; h++) {
                const unsigned x = u[i][2 * h], y = u[i][2 * h + 1];

                write_shared(at + h * HALF_BYTES, __byte_perm(x, y, HIGH_PART));
                write_shared(at + h * HALF_BYTES + 128,
                             __byte_perm(x, y, LOW_PART));
            }
        }
    }
};

/* Weave all tiles of a shift. */
__device__ static inline void weave_all(const desk &of, const seat &at,
                                        const decode &a)
{
    const unsigned shifts = shifts_of(a.teams);
    const unsigned ring = of.x + at.shift * X_RING * X_STAGE_BYTES;
    rows_of_x x;
    turn turn = {at.shift, 1};
    unsigned i = at.shift, ahead = at.shift, slot = 0;

    x.open(a, at.thread);
    for (unsigned s = 0; s + 1 < X_RING; s++, ahead += shifts) {
        if (ahead < of.n_steps)
            x.fetch(ring + s * X_STAGE_BYTES, of.steps[ahead] & TILE);
        copies_end();
    }
    for (; i < of.n_steps; i += shifts, ahead += shifts) {
        const unsigned free = slot ? slot - 1 : X_RING - 1;

        if (ahead < of.n_steps)
            x.fetch(ring + free * X_STAGE_BYTES, of.steps[ahead] & TILE);
        copies_end();
        copies_wait<X_RING - 1>();
        wait_at(of.empty + turn.stage * 8, turn.parity);
        x.weave(ring + slot * X_STAGE_BYTES,
                of.woven + turn.stage * WOVEN_BYTES);
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncwarp();
        if (threadIdx.x % 32 == 0)
            arrive_at(of.full + turn.stage * 8);
        turn.next(shifts);
        slot = slot + 1 < X_RING ? slot + 1 : 0;
    }
    copies_wait<0>();
}

/* Weights of a warp in bytes, of which a lane reads what it has copied. */
template <int dtype> struct rows_of_w {
    enum { BYTES = format<dtype>::ROW_BYTES, ROWS = feed<dtype>::ROWS };

    const unsigned char *from;
    unsigned of_go, to; /* bytes; in a stage */

    /* Past the matrix it is the last group once more. */
    __device__ inline void open(const decode &a, unsigned group, unsigned warp)
    {
        feed<dtype> rows;

        rows.turn(a, min(group, a.n_groups - 1));
        from = rows.from;
        of_go = ROWS * a.row_bytes;
        to = warp * format<dtype>::TILE_BYTES + feed<dtype>::place_of_lane();
        keep(from);
        keep(of_go);
        keep(to);
    }

    __device__ inline void fetch(unsigned stage, unsigned tile) const
    {
        const unsigned char *p = from + tile * BYTES;

        copy_16(stage + to, p);
        copy_16(stage + to + ROWS * BYTES, p + of_go);
    }

    /* As the rows of four products. */
    __device__ inline void read(unsigned pairs[4][4], unsigned stage) const
    {
        unsigned low[4], high[4];

        read_shared(low, stage + to);
        read_shared(high, stage + to + ROWS * BYTES);
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            unsigned u[2], v[2];

            format<dtype>::expand4(u, low[i]);
            format<dtype>::expand4(v, high[i]);
            pairs[i][0] = u[0];
            pairs[i][1] = v[0];
            pairs[i][2] = u[1];
            pairs[i][3] = v[1];
        }
    }
};

#endif

#endif /* VIBE_CUDA_ASYNC_FEED_CUH */
