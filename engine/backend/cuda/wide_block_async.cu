/*
 * wide_block_async.cu - a block of a codec of 256 channels with many rows, by
 * the products of sm_90a that work beside a warp.
 *
 * As block_async.cu: weights are the 64-row operand of wgmma, from registers;
 * rows are its columns, in shared memory, and hidden channels never leave it.
 * What the second cache gives of weights is what they are bound by, so two
 * blocks of threads, a cluster, each mix a strip of rows, have half of the
 * hidden channels for both, and finish their own.  Two groups of four warps
 * make 128 hidden channels each in a round, and then have 128 channels of y.
 *
 * Sums have the order of columns.cuh, and so the bits of mixed_up.cu,
 * gemm_columns.cu and gemm_tiles.cu: K of W1 has slices of 32, that of W2
 * slices of 128 in groups of two.
 */
#include "engine/backend/cuda/block_rows.cuh"
#include "engine/backend/cuda/wide_pair.cuh"

struct strips {
    struct block block;
    unsigned of_dialogue, rows; /* rows of a strip */
    unsigned n_dialogues;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Where the first eight channels of a step are among those of normed rows, or
 * hidden ones, in bytes. */
__device__ static inline unsigned normed_at(unsigned step, unsigned is_low)
{
    return (is_low * 2 * STEPS + step) * NORMED;
}

__device__ static inline unsigned hidden_at(unsigned step, unsigned is_low)
{
    return (step * 2 + is_low) * 2 * HALF_STEP;
}

/* What N rows, of which this thread has four channels, are to be multiplied by
 * to be normed; parts is memory of the block's. */
template <unsigned N>
__device__ static inline void find_factors(float (&factor)[N],
                                           const vec<4> (&rows)[N],
                                           const struct mixer &a,
                                           float (*parts)[16])
{
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float v[16] = {};

#pragma unroll
    for (unsigned i = 0; i < N; i++)
        v[i] = add_squares<4>(0.0f, rows[i]);
    v[0] = sum_lanes<16>(v);
    if (lane % 2 == 0)
        parts[warp][lane / 2] = v[0];
    __syncthreads();
    v[0] = factor_for<C>(parts[warp][lane / 2] + parts[warp ^ 1][lane / 2], a);
#pragma unroll
    for (unsigned i = 0; i < N; i++)
        factor[i] = __shfl_sync(0xFFFFFFFFu, v[0], 2 * i);
}

/* Leave four channels of a row, normed, as columns of products have them. */
__device__ static inline void leave_normed(unsigned to, const vec<4> &v)
{
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        unsigned high, low;

        split(high, low, make_float2(v.e[2 * half], v.e[2 * half + 1]));
        store_shared(to + half * STEPS * NORMED, high);
        store_shared(to + normed_at(0, 1) + half * STEPS * NORMED, low);
    }
}

/* Mix the rows of a strip from t0 on of dialogue b: as they are, and normed; of
 * its last rows the state is kept. */
__device__ static inline void mix_strip(const struct mixer &a, unsigned b,
                                        unsigned t0, unsigned end,
                                        unsigned char *mixed, unsigned normed,
                                        const weights<4> &w)
{
    __shared__ float parts[2][THREADS / 32][16];
    const unsigned four = threadIdx.x % WIDTH;
    const unsigned run = threadIdx.x / WIDTH;
    const unsigned first = t0 + run * RUN;
    vec<4> column[COLUMNS], y[RUN];
    float of_column[COLUMNS], of_row[RUN];

    read_columns(column, a, b, first, four * 4);
    find_factors(of_column, column, a, parts[0]);
#pragma unroll
    for (unsigned j = 0; j < COLUMNS; j++) {
        mix_next(y, column, j, of_column[j], first, w);
        if (j >= PAST) {
            const unsigned i = j - PAST, t = first + i;

            write<4>((float *)(mixed + (run * RUN + i) * MIXED_ROW) + four * 4,
                     y[i]);
            if (t < end && t + PAST >= a.x.T)
                write_out<4>(row_at(a.state, b, t + PAST - a.x.T) + four * 4,
                             column[j]);
        }
    }
    find_factors(of_row, y, a, parts[1]);
    normed += normed_at(four / 8 * 2 + four % 2, 0) + run * RUN * EIGHT_ROWS +
              four % 8 / 2 * 4;
#pragma unroll
    for (unsigned i = 0; i < RUN; i++)
        leave_normed(normed + i * EIGHT_ROWS,
                     scale<4>(y[i], of_row[i], w.next_norm));
}

/* A warp's way through its weights: units of all products one after the other,
 * of both halves of its group's outputs. */
struct feeder {
    const unsigned short *up, *down; /* this lane's piece of the first row */
    uint4 w[AHEAD][HALVES][2];

    /* Rows i and 8 + i of an operand are hidden channels that are two apart,
     * each eight of them those of half a step, or neighbours of y. */
    __device__ inline void open(const struct block &a, unsigned hidden)
    {
        const unsigned lane = threadIdx.x % 32, i = lane / 4;
        const unsigned warp = threadIdx.x % GROUP / 32;
        const unsigned first = threadIdx.x / GROUP * HALVES * 64;

        up = a.up + lane % 4 * 8 +
             (hidden + first + hidden_of_step(warp) + i / 2 * 8 + i % 2) * C;
        down = a.down + hidden + lane % 4 * 8 +
               (first + warp * 16 + 2 * i) * 4 * C;
    }

    __device__ inline void load_up(unsigned unit, unsigned round)
    {
        const unsigned short *from = up + round * C * C + unit * UNITS;

#pragma unroll
        for (unsigned i = 0; i < 2 * HALVES; i++)
            w[unit % AHEAD][i / 2][i % 2] = __ldg(
                (const uint4 *)(from + (i / 2 * 64 + i % 2 * 2) * C));
    }

    __device__ inline void load_down(unsigned unit, unsigned round)
    {
        const unsigned short *from = down + round * C + unit * UNITS;

#pragma unroll
        for (unsigned i = 0; i < 2 * HALVES; i++)
            w[unit % AHEAD][i / 2][i % 2] = __ldg(
                (const uint4 *)(from + (i / 2 * 64 + i % 2) * 4 * C));
    }

    /* Operands of a unit's steps. */
    __device__ inline void take(unsigned (&a)[2][4], unsigned unit,
                                unsigned half) const
    {
        const uint4 &u = w[unit % AHEAD][half][0],
                    &v = w[unit % AHEAD][half][1];
        const unsigned to[2][4] = {{u.x, v.x, u.y, v.y}, {u.z, v.z, u.w, v.w}};

#pragma unroll
        for (unsigned j = 0; j < 8; j++)
            a[j / 4][j % 4] = to[j / 4][j % 4];
    }
};

/* Start the products of a unit of columns that products took, or of hidden
 * ones. */
template <int IS_DOWN>
__device__ static inline void start_unit(float (&c)[SUMS],
                                         const unsigned (&a)[2][4], unsigned at,
                                         unsigned unit, bool is_first)
{
    products_begin();
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        const unsigned step = 2 * unit + i / 2, is_low = i % 2;

        multiply_64<IS_DOWN>(
            c, a[i / 2],
            IS_DOWN ? columns_at(at + hidden_at(step, is_low), HALF_STEP)
                    : columns_at(at + normed_at(step, is_low), STEPS * NORMED),
            i > 0 || !is_first);
    }
    products_end();
}

/* Named barriers: of what groups leave for each other, of a group, and that the
 * first has its lead. */
enum { LEFT_BY = 1, GROUP_OF = LEFT_BY + 2 * ROUNDS, LEAD = GROUP_OF + 2 };

__device__ static inline void await(unsigned barrier, int n)
{
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(n) : "memory");
}

__device__ static inline void arrive(unsigned barrier, int n)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(n) : "memory");
}

__device__ static inline void add(float (&to)[SUMS], const float (&c)[SUMS])
{
#pragma unroll
    for (unsigned i = 0; i < SUMS; i++)
        to[i] += c[i];
}

__device__ static inline void clear(float (&v)[HALVES][SUMS])
{
#pragma unroll
    for (unsigned i = 0; i < HALVES * SUMS; i++)
        (&v[0][0])[i] = 0.0f;
}

/* A group's way through all rounds. */
struct worker {
    feeder from;
    unsigned group;
    unsigned normed, hidden, place; /* place: of this lane's hidden channels */
    const float *bias;

    __device__ inline void open(const struct block &a, const struct pair &at)
    {
        const unsigned first = at.rank * ROUNDS * C; /* hidden channel */
        const unsigned lane = threadIdx.x % 32;
        const unsigned warp = threadIdx.x % GROUP / 32;
        unsigned step;

        group = __shfl_sync(0xFFFFFFFFu, threadIdx.x / GROUP, 0);
        step = group * HALVES * 4 + warp;
        normed = at.memory + NORMED_AT;
        hidden = at.memory + HIDDEN_AT;
        place = hidden + hidden_at(step, 0) + lane * 4;
        bias = a.up_bias + first + hidden_of_step(step) + lane / 8 * 8 +
               lane / 4 % 2;
        from.open(a, first);
#pragma unroll
        for (unsigned u = 0; u < AHEAD; u++)
            from.load_up(u, 0);
    }

    /* A unit of both halves; a half's sums are there once the other's products
     * have been started. */
    template <int IS_DOWN, class DONE>
    __device__ inline void run_unit(float (&c)[HALVES][SUMS], unsigned at,
                                    unsigned unit, bool is_first,
                                    const DONE &done)
    {
        unsigned a[HALVES][2][4];

        from.take(a[0], unit, 0);
        start_unit<IS_DOWN>(c[0], a[0], at, unit, is_first);
        from.take(a[1], unit, 1);
        start_unit<IS_DOWN>(c[1], a[1], at, unit, is_first);
        products_wait<1>();
        settle(c[0]);
        done(0);
        products_wait<0>();
        settle(c[1]);
        done(1);
    }

    /* Make a round's hidden channels; those of the next product follow.  The
     * first group begins before the other, so that one bends what it has made
     * while the other multiplies. */
    template <bool IS_FIRST>
    __device__ inline void make_hidden(float (&totals)[HALVES][SUMS],
                                       unsigned round)
    {
        float c[HALVES][SUMS];

        clear(totals);
        clear(c);
#pragma unroll
        for (unsigned u = 0; u < STEP_UNITS; u++) {
            if (IS_FIRST && u == 0 && group == 1)
                await(LEAD, THREADS);
            run_unit<0>(c, normed, u, true,
                        [&](unsigned half) { add(totals[half], c[half]); });
            if (IS_FIRST && u + 1 == LEAD_UNITS && group == 0)
                arrive(LEAD, THREADS);
            if (u + AHEAD < STEP_UNITS)
                from.load_up(u + AHEAD, round);
            else if (IS_FIRST)
                from.load_up(u + AHEAD - STEP_UNITS, round + 1);
            else
                from.load_down(u + AHEAD - STEP_UNITS, round - 1);
        }
    }

    /* Add what the hidden channels of a round give. */
    __device__ inline void add_round(float (&sums)[HALVES][SUMS],
                                     unsigned round)
    {
        const unsigned at = hidden + round * HIDDEN_BYTES;
        float c[HALVES][SUMS], both[HALVES][SUMS];

        clear(c);
        clear(both);
        await(LEFT_BY + 2 * round + 1 - group, THREADS);
#pragma unroll
        for (unsigned u = 0; u < STEP_UNITS; u++) {
            run_unit<1>(c, at, u, u % SLICE_UNITS == 0, [&](unsigned half) {
                if (u % SLICE_UNITS == SLICE_UNITS - 1)
                    add(both[half], c[half]);
            });
            if (u + AHEAD < STEP_UNITS)
                from.load_down(u + AHEAD, round);
            else if (round + 1 < ROUNDS)
                from.load_down(u + AHEAD - STEP_UNITS, round + 1);
        }
        add(sums[0], both[0]);
        add(sums[1], both[1]);
    }

    /* Bend hidden channels, and leave them as columns of products. */
    __device__ inline void leave(const float (&c)[HALVES][SUMS], unsigned round)
    {
#pragma unroll
        for (unsigned half = 0; half < HALVES; half++) {
            const float upper = __ldg(bias + round * C + half * 64);
            const float lower = __ldg(bias + round * C + half * 64 + 2);

#pragma unroll
            for (unsigned i = 0; i < SUMS; i += 2) {
                const float b = i % 4 ? lower : upper;
                const unsigned to = place + round * HIDDEN_BYTES +
                                    hidden_at(half * 4, 0) +
                                    i / 4 * 8 * EIGHT_ROWS +
                                    i / 2 % 2 * HALF_STEP;
                unsigned high, low;

                split(high, low,
                      make_float2(gelu(c[half][i] + b),
                                  gelu(c[half][i + 1] + b)));
                store_shared(to, high);
                store_shared(to + 2 * HALF_STEP, low);
            }
        }
        show_stores();
        arrive(LEFT_BY + 2 * round + group, THREADS);
        await(GROUP_OF + group, GROUP);
    }

    /* All hidden channels are made, of which each round gives a sum. */
    __device__ inline void multiply(float (&sums)[ROUNDS][HALVES][SUMS],
                                    const struct pair &at)
    {
        float c[HALVES][SUMS];

        make_hidden<true>(c, 0);
        leave(c, 0);
        make_hidden<false>(c, 1);
        leave(c, 1);
        if (threadIdx.x % GROUP == 0) /* normed rows are of no more use */
            arrive_across(at.may_send(), at.rank ^ 1);
        clear(sums[0]);
        add_round(sums[0], 0);
        if (at.rank == 1)
            at.send_sum<0>(sums[0], 0);
        clear(sums[1]);
        add_round(sums[1], 1);
        if (at.rank == 1) {
            at.send_sum<0>(sums[1], 1);
        } else {
            add(sums[0][0], sums[1][0]);
            add(sums[0][1], sums[1][1]);
            at.send_sum<STRIP / 8 - EIGHTS>(sums[0], 0);
        }
    }
};

/* Finish the sums of a strip, whose columns are among eights FIRST on: of two
 * neighbouring channels c, of every eight columns 2 q and one more. */
template <unsigned FIRST>
__device__ static inline void finish(const struct block &a, const pair &at,
                                     const unsigned char *memory,
                                     const float (&sums)[ROUNDS][HALVES][SUMS],
                                     unsigned b, unsigned t0, unsigned end)
{
    const int row = (int)(FIRST * 8 + threadIdx.x % 4 * 2 - at.rank * ROWS);

#pragma unroll
    for (unsigned half = 0; half < HALVES; half++) {
        const unsigned c = (threadIdx.x / GROUP * HALVES + half) * 64 +
                           threadIdx.x % GROUP / 32 * 16 +
                           threadIdx.x % 32 / 4 * 2;
        ending w;

        w.load(a, c);
#pragma unroll
        for (unsigned i = 0; i < EIGHTS; i++) {
            const unsigned j = (FIRST + i) * 4;
            float4 v = *at.inbox(half, i, 0);
            float z[4] = {v.x, v.y, v.z, v.w};

            if (at.rank == 0)
                v = *at.inbox(half, i, 1);
            const float more[4] = {v.x, v.y, v.z, v.w};

#pragma unroll
            for (unsigned k = 0; k < 4; k++)
                z[k] = at.rank == 0
                           ? sums[0][half][j + k] + z[k] + more[k]
                           : z[k] + sums[0][half][j + k] + sums[1][half][j + k];
#pragma unroll
            for (unsigned k = 0; k < 2; k++) {
                const int m = row + (int)(i * 8 + k);

                if (m >= 0 && m < ROWS && t0 + m < end)
                    *(float2 *)(row_at(a.mixer.y, b, t0 + m) + c) = w.finish(
                        *(const float2 *)(memory + MIXED_AT + m * MIXED_ROW +
                                          c * 4),
                        z[k], z[k + 2]);
            }
        }
    }
}

#endif

__global__ __launch_bounds__(THREADS, 1) void wide_block_async_kernel(
    const __grid_constant__ struct strips a)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(128) unsigned char memory[];
    const unsigned b = min(blockIdx.x / a.of_dialogue, a.n_dialogues - 1);
    const unsigned t0 = (blockIdx.x - b * a.of_dialogue) * a.rows;
    const unsigned end = min(t0 + a.rows, a.block.mixer.x.T);
    float sums[ROUNDS][HALVES][SUMS];
    worker me;
    pair at;

    at.open(memory);
    let_next_start();
    prefetch_weights<C, THREADS>(a.block);
    {
        const weights<4> w = load_weights<4>(a.block.mixer,
                                             threadIdx.x % WIDTH * 4);

        wait_for_inputs();
        mix_strip(a.block.mixer, b, t0, end, memory + MIXED_AT,
                  at.normed(at.rank), w);
    }
    me.open(a.block, at);
    at.share_normed();
    me.multiply(sums, at);
    at.receive();
    if (at.rank == 0)
        finish<0>(a.block, at, memory, sums, b, t0, end);
    else
        finish<STRIP / 8 - EIGHTS>(a.block, at, memory, sums, b, t0, end);
#endif
}

int vibe_cuda_can_wide_block(const struct vibe_cuda *cuda,
                             const struct vibe_block_call *call)
{
    const size_t n_rows = call->x.B * call->x.T;
    const size_t most = (size_t)cuda->n_sm * ROWS;

    return call->x.C == C && call->w->up.N == 4 * C && call->x.T >= 2 * ROWS &&
           n_rows >= most / 2 && n_rows <= most && call->w->up.bias &&
           call->w->down.bias && call->w->down.gamma &&
           has_products((const void *)wide_block_async_kernel);
}

cudaError_t vibe_cuda_wide_block(const struct vibe_cuda *cuda,
                                 const struct vibe_block_call *call)
{
    const void *kernel = (const void *)wide_block_async_kernel;
    const unsigned T = (unsigned)call->x.T, B = (unsigned)call->x.B;
    const unsigned n_sm = (unsigned)cuda->n_sm;
    const unsigned n = (B * ((T + ROWS - 1) / ROWS) + n_sm - 1) / n_sm;
    struct strips a = {block_of(call, &call->y), n_sm * n / B, 0, B};
    cudaError_t rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);

    if (rc != cudaSuccess)
        return rc;
    a.rows = max((T + a.of_dialogue - 1) / a.of_dialogue, (unsigned)PAST);
    a.of_dialogue = (T + a.rows - 1) / a.rows;
    return launch_pairs(kernel, dim3((B * a.of_dialogue + 1) / 2 * 2), THREADS,
                        SHARED, cuda->compute, &a);
}
