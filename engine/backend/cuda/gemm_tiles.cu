/*
 * gemm_tiles.cu - products with the columns of a codec (columns.cuh) that are
 * many: bound by arithmetic, and by what the second cache gives.
 *
 * A block makes ROWS by OUTPUTS sums, a warp 32 by SPAN of them; units of x and
 * of the weights come through a ring in shared memory.  Teams of warps make the
 * same sums over different groups of slices: all at once, or where a warp has
 * more sums by turns, which are added up where they end.
 */
#include "engine/backend/cuda/columns_sums.cuh"

/* SPAN in eights; a team's warps are beside each other by ACROSS. */
template <int N_TEAMS, int WARPS, int N_ACROSS, int N_SPAN> struct shape {
    enum {
        TEAMS = N_TEAMS,
        ACROSS = N_ACROSS,
        SPAN = N_SPAN,
        THREADS = 32 * WARPS, /* of a team */
        ALL = TEAMS * THREADS,
        BLOCKS = ALL > 128  ? 1 /* of a multiprocessor */
                 : SPAN > 4 ? 2
                            : 4,
        ROWS = WARPS / ACROSS * HEIGHT * 16,
        OUTPUTS = ACROSS * SPAN * 8,
        X_BYTES = ROWS * X_ROW,
        STAGE = X_BYTES + OUTPUTS * W_ROW,
        DEPTH = SPAN > 4 ? 6 : 4,  /* of a ring */
        LESS = TEAMS == 1 ? 3 : 2, /* the same where there is less room */
        SUMS_ROW = OUTPUTS + 8,    /* floats: 4 rows meet different banks */
        SUMS = ROWS * SUMS_ROW,    /* of a team */
        FOURS = OUTPUTS / 4,       /* of a row; a thread has one of them */
        STEP = ALL / FOURS,        /* from a thread's row to the next */
        EACH = ROWS / STEP,        /* rows of a thread */
        TURNS = TEAMS == 2 ? GROUPS / 2 : 1,
        ENDS = 3 * OUTPUTS * 4, /* bytes of a tile's scales and so on */
    };
};

#if __CUDA_ARCH__ >= 800

/* Wait for the rest of a team. */
template <class S> __device__ static inline void meet_team(unsigned team)
{
    if (S::TEAMS == 1)
        __syncthreads();
    else
        asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "n"((int)S::THREADS)
                     : "memory");
}

/* A warp's part of a tile. */
template <bool IS_SPLIT, class S> struct worker {
    feeder<S, !IS_SPLIT> from;
    reader at;
    walk here, ahead;
    unsigned ring, ring_bytes, slot;
    float totals[HEIGHT][S::SPAN][4], sums[HEIGHT][S::SPAN][4];

    /* m, n: where its sums are in the tile.  Fills all stages but one, weights
     * before the kernel ahead has ended. */
    __device__ inline void open(const columns &a, unsigned memory,
                                unsigned team, unsigned m, unsigned n)
    {
        here.open(a, blockIdx.z * S::TEAMS + team);
        ring_bytes = a.depth * S::STAGE;
        ring = memory + team * ring_bytes;
        slot = 0;
        from.open_w(a, blockIdx.x * S::OUTPUTS);
        ahead = here;
#pragma unroll 1
        for (unsigned to = ring; to < ring + ring_bytes - S::STAGE;
             to += S::STAGE) {
            if (ahead.k < a.K)
                from.fetch_w(to, a, ahead.k);
            ahead.next(a);
        }
        from.open_x(a, blockIdx.y * S::ROWS);
        let_next_start();
        wait_for_inputs();
        ahead = here;
#pragma unroll 1
        for (unsigned to = ring; to < ring + ring_bytes - S::STAGE;
             to += S::STAGE) {
            if (ahead.k < a.K)
                from.fetch_x(to, a, ahead.k);
            copies_end();
            ahead.next(a);
        }
        at.open(m, n, S::X_BYTES);
        keep(ring);
        keep(ring_bytes);
#pragma unroll
        for (int i = 0; i < HEIGHT * S::SPAN * 4; i++)
            (&totals[0][0][0])[i] = 0.0f;
    }

    /* Add up the slices of a turn; first: that of the first team. */
    __device__ inline void add_turn(const columns &a, unsigned team,
                                    unsigned first)
    {
        bool is_in = here.k < a.K;
        unsigned in_slice = 0;

        while (is_in) {
            const unsigned free = (slot ? slot : ring_bytes) - S::STAGE;

            if (a.depth == S::LESS)
                copies_wait<S::LESS - 2>();
            else
                copies_wait<S::DEPTH - 2>();
            meet_team<S>(team);
            if (ahead.k < a.K) {
                from.fetch_x(ring + free, a, ahead.k);
                from.fetch_w(ring + free, a, ahead.k);
            }
            copies_end();
            ahead.next(a);
            if (in_slice == 0)
                at.add_unit<IS_SPLIT, true, S::SPAN>(sums, ring + slot);
            else
                at.add_unit<IS_SPLIT, false, S::SPAN>(sums, ring + slot);
            slot += S::STAGE;
            slot = slot < ring_bytes ? slot : 0;
            in_slice += UNIT;
            is_in = !here.next(a) && here.k < a.K;
            if (in_slice < a.slice && is_in)
                continue;
            in_slice = 0;
#pragma unroll
            for (int i = 0; i < HEIGHT * S::SPAN * 4; i++)
                (&totals[0][0][0])[i] += (&sums[0][0][0])[i];
        }
        /* as often as the first team: racecheck takes barriers for one
         * another */
        for (unsigned i = units_of(a, first + team);
             S::TEAMS > 1 && i < units_of(a, first); i++)
            meet_team<S>(team);
    }

    /* Leave what there is for the others, beside or upon what they left. */
    __device__ inline void leave(float *to, unsigned m, unsigned n,
                                 bool is_upon)
    {
        const unsigned lane = threadIdx.x % 32;

        to += (m + lane / 4) * S::SUMS_ROW + n + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < HEIGHT * 2; i++)
#pragma unroll
            for (int j = 0; j < S::SPAN; j++) {
                float2 &there = *(float2 *)(to + i * 8 * S::SUMS_ROW + j * 8);
                float(&sum)[4] = totals[i / 2][j];
                float2 v = make_float2(sum[i % 2 * 2], sum[i % 2 * 2 + 1]);

                if (is_upon)
                    v = make_float2(there.x + v.x, there.y + v.y);
                there = v;
                sum[i % 2 * 2] = sum[i % 2 * 2 + 1] = 0.0f;
            }
    }
};

/* All turns of all teams, one upon the other where they end. */
template <class W, class S>
__device__ static inline void take_turns(W &me, const columns &a, unsigned team,
                                         float *left, unsigned m, unsigned n)
{
#pragma unroll 1
    for (unsigned turn = 0; turn < S::TURNS; turn++) {
        me.add_turn(a, team, turn * S::TEAMS);
#pragma unroll 1
        for (unsigned i = 0; i < S::TEAMS; i++) {
            if (i == team)
                me.leave(left, m, n, turn + i > 0);
            __syncthreads();
        }
    }
}

#endif

template <bool IS_SPLIT, class S>
__global__ void __launch_bounds__(S::ALL, S::BLOCKS)
    tiles_kernel(const __grid_constant__ struct columns a)
{
#if __CUDA_ARCH__ >= 800
    extern __shared__ __align__(128) uint4 memory[];
    const unsigned team = threadIdx.x / S::THREADS;
    const unsigned warp = threadIdx.x % S::THREADS / 32;
    const unsigned m = warp / S::ACROSS * HEIGHT * 16;
    const unsigned n = warp % S::ACROSS * S::SPAN * 8;
    const unsigned m0 = blockIdx.y * S::ROWS;
    const unsigned n0 = blockIdx.x * S::OUTPUTS;
    const bool is_direct = S::TEAMS == 1 && a.parts == 1 && is_even_by_16(a.e);
    float *behind = (float *)memory + S::TEAMS * a.depth * S::STAGE / 4;
    float *left = S::TURNS > 1 ? behind : (float *)memory;
    worker<IS_SPLIT, S> me;
    finisher end;

    if (is_direct)
        ((ends<S> *)behind)->fetch(a.e, n0);
    me.open(a, shared_address(memory), team, m, n);
    if (S::TURNS > 1)
        take_turns<worker<IS_SPLIT, S>, S>(me, a, team, left, m, n);
    else
        me.add_turn(a, team, blockIdx.z * S::TEAMS);
    if (!IS_SPLIT)
        leave_state_by_all(a.from);
    if (is_direct) {
        store_sums<S>(a, me.totals, *(const ends<S> *)behind, m, n);
        return;
    }
    end.open(a.e, n0 + threadIdx.x % S::FOURS * 4);
    if (S::TURNS == 1) {
        copies_wait<0>();
        __syncthreads();
        me.leave(left + team * S::SUMS, m, n, false);
        __syncthreads();
    }
    if (a.parts > 1 && !meet<S>(a, left))
        return;
    finish_tile<S>(a, left, a.parts > 1 || S::TURNS > 1 ? 1 : S::TEAMS, end,
                   m0);
#endif
}

template <class S>
static cudaError_t launch_tiles(const struct vibe_cuda *cuda, struct columns *a)
{
    const void *kernel = a->x.is_split ? (const void *)tiles_kernel<true, S>
                                       : (const void *)tiles_kernel<false, S>;
    const dim3 grid((a->e.N + S::OUTPUTS - 1) / S::OUTPUTS,
                    (a->n_rows + S::ROWS - 1) / S::ROWS, a->parts);
    const size_t rings = (size_t)S::TEAMS * S::STAGE;
    const size_t behind = S::TURNS > 1   ? S::SUMS * sizeof(float)
                          : S::TEAMS > 1 ? 0
                                         : (size_t)S::ENDS;
    size_t shared;
    cudaError_t rc;

    a->depth = S::BLOCKS * (S::DEPTH * rings + behind) <= shared_limit(cuda)
                   ? (unsigned)S::DEPTH
                   : (unsigned)S::LESS;
    shared = a->depth * rings + behind;
    rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (rc != cudaSuccess)
        return rc;
    return launch_waiting(kernel, grid, S::ALL, shared, cuda->compute, a);
}

bool vibe_cuda_is_tiles(const struct vibe_cuda *cuda, const struct columns *a)
{
    const size_t n_blocks = tiles_of(a) * a->parts;

    return a->n_rows >= 64 &&
           n_blocks * 8 >= (size_t)cuda->n_sm * (a->groups > 1 ? 3 : 5);
}

cudaError_t vibe_cuda_tiles(const struct vibe_cuda *cuda, struct columns *a)
{
    const size_t n_large = a->e.N < 128 ? 0
                                        : (size_t)((a->n_rows + 63) / 64) *
                                              ((a->e.N + 127) / 128);
    const size_t n_sm = (size_t)cuda->n_sm;

    if (vibe_cuda_can_tiles_async(cuda, a))
        return vibe_cuda_tiles_async(cuda, a);
    a->to_turn = a->K;
    if (a->groups == 1) {
        a->of_turn = (a->K + UNIT - 1) / UNIT * UNIT;
        if (n_large >= n_sm && n_large <= 2 * n_sm)
            return launch_tiles<shape<1, 4, 2, 8>>(cuda, a);
        return launch_tiles<shape<1, 4, 2, 4>>(cuda, a);
    }
    a->of_turn = a->parts > 1 ? a->slice : a->slice * a->of_group;
    if (a->parts == 1 && n_large * 8 >= n_sm * 5) {
        a->to_turn = a->of_turn;
        return launch_tiles<shape<2, 4, 2, 8>>(cuda, a);
    }
    return launch_tiles<shape<4, 4, 2, 4>>(cuda, a);
}
