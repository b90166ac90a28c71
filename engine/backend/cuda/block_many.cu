/*
 * block_many.cu - a narrow block of a codec (block.cuh) with many rows: each
 * warp makes some on its own, 16 or 32 neighbours of a dialogue.
 *
 * A lane has four channels of a run of eight rows while it mixes and norms
 * them, all in registers; in shared memory they turn into operands, and then
 * wait for what is added to them.  The weights are in shared memory once for
 * all warps of a multiprocessor, unit by unit, all of them if they fit; hidden
 * channels stay in registers.
 */
#include "engine/backend/cuda/block_rows.cuh"

enum { RUN = 8, COLUMNS = RUN + PAST };

template <unsigned C> struct shape {
    enum {
        WIDTH = C / 4,           /* lanes that mix a row */
        RUNS = 32 / WIDTH,       /* that a warp mixes at once */
        TILES = C == 32 ? 2 : 1, /* of 16 rows, of a warp */
        ROWS = 16 * TILES,
        TURNS = ROWS / RUN / RUNS,
        N_UNITS = 4 * C / UNITS,
        STAGES = C == 128 ? 4 : N_UNITS, /* of the weights' ring */
        IS_WHOLE = STAGES == N_UNITS,    /* all weights are there */
        IS_APART = C == 32, /* rows from operands: there registers are short */
        N_FOURS = ROWS * C / 4,                 /* of rows */
        OF_WARP = N_FOURS * (1 + IS_APART) + 1, /* the last is their place */
        WARPS = C == 128 ? 7 : 13,              /* at most, of a block */
    };
};

/* Weights of a unit. */
template <unsigned C> struct stage {
    unsigned short up[UNITS][C]; /* see up_at */
    unsigned short down[C][UNITS];
};

struct many {
    struct block block;
    unsigned of_dialogue, n; /* tasks, each the rows of a warp */
};

/* Where a task's rows begin; that of none is the last one's. */
struct place {
    unsigned b, t0;
};

#if __CUDA_ARCH__ >= 800

template <unsigned C>
__device__ static inline place place_of(const many &a, unsigned task)
{
    task = min(task, a.n - 1);
    return {task / a.of_dialogue, task % a.of_dialogue * shape<C>::ROWS};
}

/* Where eight weights of a row of up begin: two rows that are read together
 * meet in no bank. */
template <unsigned C>
__device__ static inline unsigned up_at(unsigned row, unsigned piece)
{
    return C == 32 ? piece * 8 : (piece ^ (row % 2 * 4)) * 8;
}

/* Start copying the weights of a unit. */
template <unsigned C>
__device__ static inline void fetch(stage<C> &to, const struct block &a,
                                    unsigned unit)
{
    enum { PIECES = C / 8 }; /* of a row of up; a row of down has 4 */
    const unsigned first = unit * UNITS;

    for (unsigned i = threadIdx.x; i < UNITS * PIECES; i += blockDim.x)
        copy_async<16>(
            &to.up[i / PIECES][up_at<C>(i / PIECES, i % PIECES)],
            a.up + (first + i / PIECES) * a.up_stride + i % PIECES * 8, true);
    for (unsigned i = threadIdx.x; i < C * 4; i += blockDim.x)
        copy_async<16>(&to.down[i / 4][i % 4 * 8],
                       a.down + i / 4 * a.down_stride + first + i % 4 * 8,
                       true);
}

/* Where four channels of a row are in a warp's shared memory: lanes that read
 * four rows, every other one, meet in no bank. */
template <unsigned C>
__device__ static inline unsigned four_at(unsigned row, unsigned four)
{
    return row * (C / 4) + (four ^ (row / 2 % 4 * 2));
}

/* Mix a run of rows to y, and say by what they are normed. */
template <unsigned C>
__device__ static inline void mix_run(vec<4> (&y)[RUN], float (&factor)[RUN],
                                      const struct mixer &a, unsigned b,
                                      unsigned t0, unsigned row, float *rows,
                                      const weights<4> &w)
{
    const unsigned four = threadIdx.x % shape<C>::WIDTH;
    vec<4> column[COLUMNS];
    float squares[COLUMNS];

    read_columns(column, a, b, t0, four * 4);
#pragma unroll
    for (unsigned j = 0; j < COLUMNS; j++)
        squares[j] = add_squares<4>(0.0f, column[j]);
    add_lanes<C>(squares);
#pragma unroll
    for (unsigned j = 0; j < COLUMNS; j++) {
        mix_next(y, column, j, factor_for<C>(squares[j], a), t0, w);
        if (j >= PAST) {
            const unsigned i = j - PAST;

            factor[i] = add_squares<4>(0.0f, y[i]);
            if (shape<C>::IS_APART)
                write<4>(rows + four_at<C>(row + i, four) * 4, y[i]);
        }
    }
    add_lanes<C>(factor);
#pragma unroll
    for (unsigned i = 0; i < RUN; i++)
        factor[i] = factor_for<C>(factor[i], a);
}

/* Where the high parts of four channels of two neighbouring rows are, and C / 4
 * further the low ones; lanes read two pairs. */
template <unsigned C>
__device__ static inline unsigned pair_at(unsigned pair, unsigned four)
{
    return pair * (C / 2) + (four ^ (pair % 2));
}

/* Leave two neighbouring rows, normed, as an operand has them: rows i and i + 8
 * of it. */
template <unsigned C>
__device__ static inline void leave_pair(uint4 *rows, unsigned pair,
                                         unsigned four, const vec<4> &v0,
                                         const vec<4> &v1)
{
    uint4 high, low;

    split(high.x, low.x, make_float2(v0.e[0], v0.e[1]));
    split(high.y, low.y, make_float2(v1.e[0], v1.e[1]));
    split(high.z, low.z, make_float2(v0.e[2], v0.e[3]));
    split(high.w, low.w, make_float2(v1.e[2], v1.e[3]));
    rows[pair_at<C>(pair, four)] = high;
    rows[pair_at<C>(pair, four) + C / 4] = low;
}

/* This lane's part of 16 rows as an operand. */
template <unsigned C>
__device__ static inline void take_rows(operand<C> &x, const uint4 *rows)
{
#pragma unroll
    for (unsigned k = 0; k < C / 16; k++) {
        const uint4 *from = rows +
                            pair_at<C>(threadIdx.x % 32 / 4,
                                       k / 2 * 8 + threadIdx.x % 4 * 2 + k % 2);

        *(uint4 *)x.high[k] = from[0];
        *(uint4 *)x.low[k] = from[C / 4];
    }
}

/* Mix this warp's rows, from t0 on: normed they are its operands, and as they
 * are they stay in its shared memory. */
template <unsigned C>
__device__ static inline void mix_rows(operand<C> (&x)[shape<C>::TILES],
                                       uint4 *operands, uint4 *rows,
                                       const struct mixer &a, place at,
                                       const weights<4> &w)
{
    typedef shape<C> S;
    const unsigned four = threadIdx.x % S::WIDTH;
    const unsigned first = threadIdx.x % 32 / S::WIDTH * RUN;
    vec<4> y[S::TURNS][RUN];

#pragma unroll
    for (unsigned turn = 0; turn < S::TURNS; turn++) {
        const unsigned row = turn * S::RUNS * RUN + first;
        float factor[RUN];

        mix_run<C>(y[turn], factor, a, at.b, at.t0 + row, row, (float *)rows,
                   w);
        __syncwarp();
#pragma unroll
        for (unsigned i = 0; i < RUN && S::IS_APART; i++)
            y[turn][i] = read<4>(
                (const float *)&rows[four_at<C>(row + i, four)]);
#pragma unroll
        for (unsigned i = 0; i < RUN; i += 2)
            leave_pair<C>(operands, (row + i) / 2, four,
                          scale<4>(y[turn][i], factor[i], w.next_norm),
                          scale<4>(y[turn][i + 1], factor[i + 1], w.next_norm));
    }
    __syncwarp();
#pragma unroll
    for (unsigned i = 0; i < S::TILES; i++)
        take_rows<C>(x[i], operands + i * 16 * (C / 4));
    __syncwarp();
#pragma unroll
    for (unsigned i = 0; i < S::TURNS * RUN && !S::IS_APART; i++)
        write<4>((float *)&rows[four_at<C>(
                     i / RUN * S::RUNS * RUN + first + i % RUN, four)],
                 y[i / RUN][i % RUN]);
    __syncwarp();
}

/* Add what a unit gives to the sums of 16 rows. */
template <unsigned C>
__device__ static inline void add_unit(float (&sums)[C / 8][4],
                                       const operand<C> &x,
                                       const stage<C> &weights,
                                       const float *bias)
{
    const unsigned q = threadIdx.x % 4;
    float parts[4][4] = {};
    operand<UNITS> hidden;
    uint4 w[4];

#pragma unroll
    for (unsigned k = 0; k < C; k += 32) {
#pragma unroll
        for (unsigned j = 0; j < 4; j++) {
            const unsigned row = row_of_unit(j);

            w[j] = *(const uint4 *)&weights.up[row][up_at<C>(row, k / 8 + q)];
        }
        multiply32<C>(parts, x, k, w);
    }
    hidden = hidden_of(parts, bias);
#pragma unroll
    for (unsigned n = 0; n < C / 8; n += 4) {
#pragma unroll
        for (unsigned j = 0; j < 4; j++)
            w[j] = *(const uint4 *)&weights
                        .down[(n + j) * 8 + threadIdx.x % 32 / 4][q * 8];
        multiply32<UNITS>(sums + n, hidden, 0, w);
    }
}

/* Add all units, of which a ring that does not hold them all has some more on
 * their way. */
template <unsigned C>
__device__ static inline void add_units(
    float (&sums)[shape<C>::TILES][C / 8][4],
    const operand<C> (&x)[shape<C>::TILES], stage<C> *ring,
    const struct block &a)
{
    typedef shape<C> S;

    if (S::IS_WHOLE) {
        copies_wait<0>();
        __syncthreads();
    }
#pragma unroll 1
    for (unsigned unit = 0; unit < S::N_UNITS; unit++) {
        const unsigned ahead = unit + S::STAGES - 1;

        if (!S::IS_WHOLE) {
            copies_wait<S::STAGES - 2>();
            __syncthreads();
            if (ahead < S::N_UNITS)
                fetch<C>(ring[ahead % S::STAGES], a, ahead);
            copies_end();
        }
#pragma unroll
        for (unsigned i = 0; i < S::TILES; i++)
            add_unit<C>(sums[i], x[i],
                        ring[S::IS_WHOLE ? unit : unit % S::STAGES],
                        a.up_bias + unit * UNITS);
    }
}

/* Finish 16 rows from t0 on; from the first of them, mixed. */
template <unsigned C>
__device__ static inline void finish(const struct block &a,
                                     const float (&sums)[C / 8][4],
                                     const uint4 *rows, unsigned b, unsigned t0)
{
    const unsigned q = threadIdx.x % 4;

#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const unsigned m = threadIdx.x % 32 / 4 * 2 + half;
        float *y = row_at(a.mixer.y, b, t0 + m) + q * 2;

        if (t0 + m >= a.mixer.x.T)
            return;
#pragma unroll
        for (unsigned n = 0; n < C / 8; n++) {
            const float2
                *mixed = (const float2 *)&rows[four_at<C>(m, n * 2 + q / 2)];
            ending end;

            end.load(a, n * 8 + q * 2);
            *(float2 *)(y + n * 8) = end.finish(mixed[q % 2], sums[n][2 * half],
                                                sums[n][2 * half + 1]);
        }
    }
}

#endif

template <unsigned C>
__global__ __launch_bounds__(32 * shape<C>::WARPS, 1) void many_kernel(
    const __grid_constant__ struct many a)
{
#if __CUDA_ARCH__ >= 800
    typedef shape<C> S;
    extern __shared__ __align__(128) uint4 memory[];
    stage<C> *ring = (stage<C> *)memory;
    uint4 *operands = (uint4 *)(ring + S::STAGES) +
                      threadIdx.x / 32 * S::OF_WARP;
    uint4 *rows = operands + S::N_FOURS * S::IS_APART;
    place &at = *(place *)(rows + S::N_FOURS);
    const unsigned task = threadIdx.x / 32 * gridDim.x + blockIdx.x;
    float sums[S::TILES][C / 8][4];
    operand<C> x[S::TILES];

    let_next_start();
#pragma unroll 1
    for (unsigned i = 0; i < S::STAGES - !S::IS_WHOLE; i++) {
        fetch<C>(ring[i], a.block, i);
        copies_end();
    }
    {
        const weights<4> w = load_weights<4>(a.block.mixer,
                                             threadIdx.x % S::WIDTH * 4);
        const place here = place_of<C>(a, task);

        if (threadIdx.x % 32 == 0)
            at = here;
        wait_for_inputs();
        mix_rows<C>(x, operands, rows, a.block.mixer, here, w);
        if (__any_sync(0xFFFFFFFFu, here.t0 + S::ROWS >= a.block.mixer.x.T))
            keep_state<C>(a.block.mixer, here.b);
    }
#pragma unroll
    for (unsigned n = 0; n < S::TILES * C / 2; n++)
        (&sums[0][0][0])[n] = 0.0f;
    add_units<C>(sums, x, ring, a.block);
    if (task >= a.n)
        return;
#pragma unroll
    for (unsigned i = 0; i < S::TILES; i++)
        finish<C>(a.block, sums[i], rows + i * 16 * (C / 4), at.b,
                  at.t0 + i * 16);
#endif
}

/* As few rounds of blocks as there can be, all of the same work. */
template <unsigned C>
static cudaError_t launch_block(const struct vibe_cuda *cuda,
                                const struct block *block)
{
    typedef shape<C> S;
    const void *kernel = (const void *)many_kernel<C>;
    const size_t of_warp = S::OF_WARP * sizeof(uint4);
    const size_t weights = S::STAGES * sizeof(stage<C>);
    const unsigned n_sm = (unsigned)cuda->n_sm;
    struct many a = {*block, (block->mixer.x.T + S::ROWS - 1) / S::ROWS, 0};
    unsigned most, n_blocks, n_warps;
    cudaError_t rc;

    a.n = block->mixer.n_rows / block->mixer.x.T * a.of_dialogue;
    most = (unsigned)((shared_limit(cuda) - weights) / of_warp);
    most = most < S::WARPS ? most : (unsigned)S::WARPS;
    n_blocks = (a.n + n_sm * most - 1) / (n_sm * most) * n_sm;
    n_warps = (a.n + n_blocks - 1) / n_blocks;
    rc = cudaFuncSetAttribute(kernel,
                              cudaFuncAttributeMaxDynamicSharedMemorySize,
                              (int)(weights + most * of_warp));
    if (rc != cudaSuccess)
        return rc;
    return launch_waiting(kernel, dim3(n_blocks), 32 * n_warps,
                          weights + n_warps * of_warp, cuda->compute, &a);
}

cudaError_t vibe_cuda_block_many(const struct vibe_cuda *cuda,
                                 const struct block *a)
{
    if (vibe_cuda_can_block_async(a))
        return vibe_cuda_block_async(cuda, a);
    return a->mixer.C == 32   ? launch_block<32>(cuda, a)
           : a->mixer.C == 64 ? launch_block<64>(cuda, a)
                              : launch_block<128>(cuda, a);
}
