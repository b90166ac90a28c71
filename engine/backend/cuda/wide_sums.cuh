/*
 * wide_sums.cuh - where the sums of gemv_wide.cu wait, meet and are finished.
 *
 * A warp adds up the slices of its team, in shared memory; there the teams of
 * a block meet, and in global memory the parts of several blocks.
 */
#ifndef VIBE_CUDA_WIDE_SUMS_CUH
#define VIBE_CUDA_WIDE_SUMS_CUH

#include "engine/backend/cuda/wide.cuh"

#if __CUDA_ARCH__ >= 800

/* Where a warp is, and the others of its team. */
struct post {
    unsigned team, warp, n_warps; /* of the team */

    __device__ inline void open(const decode &a)
    {
        n_warps = blockDim.x / 32 / a.teams;
        team = threadIdx.x / 32 / n_warps;
        warp = threadIdx.x / 32 % n_warps;
    }

    /* Wait for the rest of the team. */
    __device__ inline void meet(void) const
    {
        asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "r"(32 * n_warps)
                     : "memory");
    }
};

/* Sums of a lane in memory, stride apart. */
template <int SUMS>
__device__ static inline void put_sums(float4 *to, unsigned stride,
                                       const float4 sums[SUMS])
{
#pragma unroll
    for (unsigned i = 0; i < SUMS; i++)
        to[i * stride] = sums[i];
}

/* What a warp has added up so far: the folds of a slice, and slices, in as many
 * levels as there are in the tree below those that teams and parts add up. */
template <int SUMS> struct shelf {
    float4 *levels; /* this lane's, of folds first where there are several */
    unsigned is_folded, n_folds, in_fold;

    __device__ inline void open(const decode &a, float4 *memory)
    {
        levels = memory + threadIdx.x / 32 * a.levels * SUMS * 32 +
                 threadIdx.x % 32;
        is_folded = a.fold * a.slices < a.n_tiles;
        n_folds = in_fold = 0;
    }

    __device__ inline void add(float4 sums[SUMS], unsigned level) const
    {
#pragma unroll
        for (unsigned i = 0; i < SUMS; i++)
            sums[i] = added(levels[(level * SUMS + i) * 32], sums[i]);
    }

    __device__ inline void put(const float4 sums[SUMS], unsigned level) const
    {
        put_sums<SUMS>(levels + level * SUMS * 32, 32, sums);
    }

    /* A tile is done. */
    __device__ inline bool ends_fold(const decode &a, bool ends_slice)
    {
        const bool ends = ++in_fold == a.fold || ends_slice;

        in_fold = ends ? 0 : in_fold;
        return ends;
    }

    /* Add the folds before this one. */
    __device__ inline void end_fold(float4 sums[SUMS], bool ends_slice)
    {
        if (n_folds)
            add(sums, 0);
        if (!ends_slice)
            put(sums, 0);
        n_folds = ends_slice ? 0 : n_folds + 1;
    }

    /* Add the slices that wait for this one; it may have to wait in turn. */
    __device__ inline void end_slice(float4 sums[SUMS], unsigned visit,
                                     bool is_last)
    {
        unsigned level = is_folded;

        for (; visit & 1; visit >>= 1)
            add(sums, level++);
        if (!is_last)
            put(sums, level);
    }
};

/* Where sums of a warp's outputs meet: n of each, a power of two, beside each
 * other, in fours of a lane. */
struct heap {
    enum { FEW = 4, MOST = MANY_SLICES };

    float4 *sums; /* this lane's */
    unsigned n;

    __device__ inline float4 &at(unsigned i, unsigned s) const
    {
        return sums[(i * n + s) * 32];
    }

    /* Add up every STEP of sum i from the first on, as add_halves would. */
    template <unsigned STEP, unsigned MOST>
    __device__ inline float4 add_from(unsigned i, unsigned first) const
    {
        if constexpr (STEP < MOST)
            return added(add_from<2 * STEP, MOST>(i, first),
                         add_from<2 * STEP, MOST>(i, first + STEP));
        else
            return first < n ? at(i, first)
                             : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }

    __device__ inline float4 read(unsigned i) const
    {
        return n <= FEW ? add_from<1, FEW>(i, 0) : add_from<1, MOST>(i, 0);
    }
};

/* Whether this warp is the last of those that make parts of these sums. */
__device__ static inline bool is_last_warp(const decode &a, unsigned chunk)
{
    unsigned arrived = 0;

    __syncwarp();
    if (threadIdx.x % 32 == 0) {
        __threadfence();
        arrived = atomicAdd(&a.done[chunk], 1) + 1;
        if (arrived == a.parts)
            a.done[chunk] = 0;
        __threadfence();
    }
    return __shfl_sync(0xFFFFFFFFu, arrived, 0) == a.parts;
}

/* A lane's four sums of a row. */
struct corner {
    size_t n; /* so that outputs are at constant distances */
    unsigned m;

    __device__ inline size_t output(unsigned j) const
    {
        return n + j / 2 * 8 + j % 2;
    }

    __device__ inline bool has(const decode &a, const pass &p, unsigned j) const
    {
        return m < p.n && output(j) < a.e.N;
    }

    __device__ inline void read(operands o[4], const decode &a,
                                const pass &p) const
    {
#pragma unroll
        for (unsigned j = 0; j < 4; j++)
            o[j] = {1.0f, 0.0f, 1.0f, 0.0f};
        if (a.e.kind == VIBE_ADD || a.e.kind == VIBE_GATE_ADD) {
#pragma unroll
            for (unsigned j = 0; j < 4; j++)
                if (has(a, p, j))
                    o[j] = read_operands(a.e, p.row[m].y, p.row[m].gate,
                                         output(j));
            return;
        }
#pragma unroll
        for (unsigned j = 0; j < 4; j++) {
            if (has(a, p, j) && a.e.scale)
                o[j].scale = a.e.scale[output(j)];
            if (has(a, p, j) && a.e.bias)
                o[j].bias = a.e.bias[output(j)];
        }
    }

    __device__ inline void finish(const float4 &sums, const operands o[4],
                                  const decode &a, const pass &p) const
    {
        const float z[4] = {
            sums.x * o[0].scale + o[0].bias, sums.y * o[1].scale + o[1].bias,
            sums.z * o[2].scale + o[2].bias, sums.w * o[3].scale + o[3].bias};
        const size_t y_at = p.row[m].y;

#pragma unroll
        for (unsigned j = 0; j < 4; j++) {
            if (!has(a, p, j))
                continue;
            if (a.e.kind != VIBE_SWIGLU)
                put(a.e.y, y_at + output(j), finished(a.e.kind, o[j], z[j]));
            else if (j % 2 == 0)
                put(a.e.y, y_at + output(j) / 2, silu(z[j]) * z[j + 1]);
        }
    }
};

/* Leave the sums of a warp's outputs of all teams where parts meet.  Teams take
 * turns at groups, here and below. */
template <int GROUPS>
__device__ static inline void leave_part(const heap &to, const heap &from,
                                         const decode &a, const post &at)
{
#pragma unroll 1
    for (unsigned g = at.team; g < GROUPS; g += a.teams)
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
            to.at(h * GROUPS + g,
                  blockIdx.y % a.parts) = from.read(h * GROUPS + g);
}

/* Finish the outputs of a warp, as many sums at a time as there are tiles. */
template <int GROUPS>
__device__ static inline void finish_warp(const heap &from, const decode &a,
                                          const pass &p, const post &post,
                                          unsigned group)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll 1
    for (unsigned g = post.team; g < GROUPS; g += a.teams) {
        operands o[HEIGHT][4];
        float4 z[HEIGHT];
        corner at[HEIGHT];

#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
            z[h] = from.read(h * GROUPS + g);
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++) {
            at[h].n = (group + h) * TILE_N + lane % 4 * 2;
            at[h].m = g * ROWS + lane / 4;
            at[h].read(o[h], a, p);
        }
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
            at[h].finish(z[h], o[h], a, p);
    }
}

#endif

#endif /* VIBE_CUDA_WIDE_SUMS_CUH */
