/*
 * async_meet.cuh - where sums of gemv_async.cu meet and are finished.
 *
 * Teams put theirs in a table of the block; blocks of a cluster send each other
 * what each of them is to finish.
 */
#ifndef VIBE_CUDA_ASYNC_MEET_CUH
#define VIBE_CUDA_ASYNC_MEET_CUH

#include "engine/backend/cuda/async_feed.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

enum { SUMS = ASYNC_ROWS / 8 }; /* of a lane, in fours */

/* Where sums of a block meet: of each team [ASYNC_ROWS][row]. */
struct table {
    float *sums;
    unsigned row;

    __device__ inline void put(const float4 v[SUMS], const seat &at) const
    {
        const unsigned lane = threadIdx.x % 32;
        float *to = sums + (at.team * ASYNC_ROWS + lane % 4 * 2) * row +
                    at.thread / 32 * TILE_N + lane / 4;

#pragma unroll
        for (unsigned i = 0; i < SUMS; i++, to += 8 * row) {
            to[0] = v[i].x;
            to[row] = v[i].y;
            to[8] = v[i].z;
            to[row + 8] = v[i].w;
        }
    }

    __device__ inline float4 &at(unsigned team, unsigned m, unsigned n) const
    {
        return *(float4 *)(sums + (team * ASYNC_ROWS + m) * row + n);
    }
};

/* Add up every STEP of n, a power of two, from the first on, as add_halves
 * would. */
template <unsigned STEP, unsigned MOST, class READ>
__device__ static inline float4 add_from(unsigned n, unsigned first,
                                         const READ &read)
{
    if constexpr (STEP < MOST)
        return n > STEP ? added(add_from<2 * STEP, MOST>(n, first, read),
                                add_from<2 * STEP, MOST>(n, first + STEP, read))
                        : read(first);
    else
        return read(first);
}

/* Four neighbours of p, or of other where there is none. */
__device__ static inline float4 four(const float *p, float other, size_t n)
{
    return p ? *(const float4 *)(p + n)
             : make_float4(other, other, other, other);
}

/* What four outputs need besides their sums. */
struct four_operands {
    float4 scale, bias, mul, old;

    __device__ inline void read(const struct epilogue &e, const place &at,
                                unsigned n)
    {
        scale = four(e.scale, 1.0f, n);
        bias = four(e.bias, 0.0f, n);
        if (e.kind != VIBE_ADD && e.kind != VIBE_GATE_ADD)
            return;
        old = four(e.y.data + at.y, 0.0f, n);
        mul = four(e.kind == VIBE_ADD ? e.gamma : e.gate.data + at.gate, 1.0f,
                   n);
    }
};

__device__ static inline float4 times(const float4 &v, float factor)
{
    return make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor);
}

/* Finish outputs n .. n + 3 of a row. */
__device__ static inline void finish(const struct epilogue &e, float *y,
                                     unsigned n, const four_operands &o,
                                     const float4 &sums)
{
    const keeping how = {e.y.is_split, e.y.is_woven};
    float4 z = make_float4(
        sums.x * o.scale.x + o.bias.x, sums.y * o.scale.y + o.bias.y,
        sums.z * o.scale.z + o.bias.z, sums.w * o.scale.w + o.bias.w);

    if (e.kind == VIBE_SWIGLU) {
        keep_at(y, n / 2, make_float2(silu(z.x) * z.y, silu(z.z) * z.w), how);
        return;
    }
    if (e.kind == VIBE_GELU)
        z = make_float4(gelu(z.x), gelu(z.y), gelu(z.z), gelu(z.w));
    if (e.kind == VIBE_ADD || e.kind == VIBE_GATE_ADD)
        z = make_float4(o.old.x + o.mul.x * z.x, o.old.y + o.mul.y * z.y,
                        o.old.z + o.mul.z * z.z, o.old.w + o.mul.w * z.w);
    keep_at(y, n, z, how);
}

/*
 * How a block finishes outputs, in fours: those that it has made, or of a
 * cluster's its share, the same number of rows for each.  16 threads have a
 * column's of a row, those of the next rows follow, then other columns.
 */
struct finish_line {
    unsigned part, rows, shift; /* rows of a part, and their logarithm */
    unsigned share, i;          /* fours; this thread's next one */
    unsigned n_rows, first_n;
    const place *places;
    float4 *inbox; /* [parts - 1][share], from the others of a cluster */
    unsigned mail; /* the gate there */
    float of_sums;
    four_operands o;

    __device__ inline void open(const desk &of, const decode &a, float factor)
    {
        part = blockIdx.y % a.parts;
        rows = ASYNC_ROWS / a.parts;
        shift = __ffs(rows) - 1;
        share = rows * a.outputs / 4;
        i = threadIdx.x;
        n_rows = min((unsigned)ASYNC_ROWS, a.n_rows - blockIdx.x * ASYNC_ROWS);
        first_n = blockIdx.y / a.parts * a.outputs;
        places = of.places;
        inbox = of.inbox;
        mail = of.mail;
        of_sums = factor;
        if (a.parts > 1 && threadIdx.x == 0)
            expect(mail, (a.parts - 1) * rows_here() * a.outputs * 4);
        read(a);
    }

    __device__ inline unsigned rows_here(void) const
    {
        return min(max(n_rows, part * rows) - part * rows, rows);
    }

    __device__ inline unsigned row(void) const
    {
        return part * rows + (i >> 4 & (rows - 1));
    }

    __device__ inline unsigned output(void) const
    {
        return (i >> 4 >> shift) * COLUMN_OUTPUTS + i % 16 * 4;
    }

    /* Whether this thread's next one is there. */
    __device__ inline bool is_there(const decode &a) const
    {
        return row() < n_rows && first_n + output() < a.e.N;
    }

    __device__ inline void read(const decode &a)
    {
        if (i < share && is_there(a))
            o.read(a.e, places[row()], first_n + output());
    }

    __device__ static inline float4 of_teams(const table &from, const decode &a,
                                             unsigned m, unsigned n)
    {
        return add_from<1, MOST_ASYNC_TEAMS>(
            a.teams, 0, [&](unsigned s) { return from.at(s, m, n); });
    }

    /* Where a block has what another sends. */
    __device__ inline float4 *inbox_of(unsigned to, unsigned from) const
    {
        return inbox + (from - (from > to)) * share;
    }

    /* Leave sums with the other blocks that finish them. */
    __device__ inline void send_all(const table &from, const decode &a) const
    {
#pragma unroll 1
        for (unsigned j = threadIdx.x; j < share * a.parts; j += blockDim.x) {
            const unsigned lane = j % 16, m = j / 16 % ASYNC_ROWS;
            const unsigned column = j / 16 / ASYNC_ROWS, to = m >> shift;
            const unsigned at = (column << shift | (m & (rows - 1))) * 16 +
                                lane;

            if (to != part && m < n_rows)
                send(inbox_of(to, part) + at, mail, to,
                     of_teams(from, a, m, column * COLUMN_OUTPUTS + lane * 4));
        }
    }

    __device__ inline float4 sums(const table &from, const decode &a) const
    {
        return add_from<1, MOST_PARTS>(a.parts, 0, [&](unsigned p) {
            return p == part ? of_teams(from, a, row(), output())
                             : inbox_of(part, p)[i];
        });
    }

    /* All that is this thread's. */
    __device__ inline void run(const table &from, const decode &a)
    {
#pragma unroll 1
        while (i < share) {
            const four_operands had = o;
            const bool is_mine = is_there(a);
            const unsigned n = first_n + output();
            float *y = a.e.y.data + places[row()].y;
            const float4 z = sums(from, a);

            i += blockDim.x;
            read(a);
            if (is_mine)
                finish(a.e, y, n, had, times(z, of_sums));
        }
    }
};

#endif

#endif /* VIBE_CUDA_ASYNC_MEET_CUH */
