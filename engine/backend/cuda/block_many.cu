/*
 * block_many.cu - a narrow block of a codec (block.cuh) with many rows, 64 of
 * one dialogue in a block of threads.
 *
 * First the columns that the rows read are normed in shared memory, each once,
 * and a warp mixes and norms its 16 rows.  Then the weights come through a ring
 * in shared memory, unit by unit, once for all warps; hidden channels stay in
 * registers.
 */
#include "engine/backend/cuda/block.cuh"

enum {
    ROWS = ROWS_OF_MANY,
    THREADS = 32 * ROWS / 16,
    COLUMNS = ROWS + PAST,
    STAGES = 3,
};

template <unsigned C> struct shape {
    enum {
        WIDTH = C / 4,        /* threads that mix a row */
        AT_ONCE = 32 / WIDTH, /* rows that a warp mixes */
        STRIDE = C + 4,       /* of a column; 8 lanes meet different banks */
        /* of a row of up, likewise, and of down */
        UP_STRIDE = C == 32 ? 32 : C + 32,
        DOWN_STRIDE = UNITS,
        N_UNITS = 4 * C / UNITS,
        BLOCKS = C == 128  ? 2
                 : C == 64 ? 4
                           : 5, /* of a multiprocessor */
    };
};

template <unsigned C> struct memory {
    float column[COLUMNS][shape<C>::STRIDE];
    struct __align__(128)
    {
        unsigned short up[UNITS][shape<C>::UP_STRIDE];
        unsigned short down[C][shape<C>::DOWN_STRIDE];
    }
    stage[STAGES];
};

#if __CUDA_ARCH__ >= 800

/* Start copying the weights of a unit. */
template <unsigned C>
__device__ static inline void fetch(memory<C> &shared, const struct block &a,
                                    unsigned unit)
{
    enum { PIECES = C / 8 }; /* of a row of up; a row of down has 4 */
    auto &to = shared.stage[unit % STAGES];
    const unsigned first = unit * UNITS;

    if (unit < shape<C>::N_UNITS) {
#pragma unroll
        for (unsigned i = threadIdx.x; i < UNITS * PIECES; i += THREADS)
            copy_async<16>(&to.up[i / PIECES][i % PIECES * 8],
                           a.up + (first + i / PIECES) * a.up_stride +
                               i % PIECES * 8,
                           true);
#pragma unroll
        for (unsigned i = threadIdx.x; i < C * 4; i += THREADS)
            copy_async<16>(&to.down[i / 4][i % 4 * 8],
                           a.down + i / 4 * a.down_stride + first + i % 4 * 8,
                           true);
    }
    copies_end();
}

template <unsigned C> __device__ static inline float sum_of_row(float sum)
{
#pragma unroll
    for (int k = shape<C>::WIDTH / 2; k > 0; k /= 2)
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, k);
    return sum;
}

/* Norm the columns that rows t0 on of dialogue b read, and keep the last.  Here
 * and below loops stay short: a block runs through them once, and would wait
 * for instructions. */
template <unsigned C>
__device__ static inline void norm_columns(memory<C> &shared,
                                           const struct mixer &a, unsigned b,
                                           unsigned t0, const vec<4> &norm)
{
    enum { STEP = THREADS / shape<C>::WIDTH };
    const unsigned c = threadIdx.x % shape<C>::WIDTH * 4;

#pragma unroll 4
    for (unsigned turn = 0; turn * STEP < COLUMNS; turn++) {
        const unsigned i = turn * STEP + threadIdx.x / shape<C>::WIDTH;
        const unsigned t = t0 + i; /* from the first of the past on */
        const bool is_past = t < PAST;
        vec<4> v = {};
        float squares;

        if (t < PAST + a.x.T)
            v = read<4>(
                (is_past ? row_at(a.past, b, t) : row_at(a.x, b, t - PAST)) +
                c);
        squares = sum_of_row<C>(add_squares<4>(0.0f, v));
        if (!is_past)
            v = scale<4>(v, factor_of(squares, a), norm);
        if (i < COLUMNS)
            write<4>(&shared.column[i][c], v);
        if (i >= PAST && i < COLUMNS && t >= a.x.T && t < PAST + a.x.T)
            write_out<4>(row_at(a.state, b, t - a.x.T) + c, v);
    }
}

/* Mix this warp's rows to y, and norm them. */
template <unsigned C>
__device__ static inline void mix_rows(const memory<C> &shared,
                                       const struct mixer &a, unsigned b,
                                       unsigned t0, const weights<4> &w)
{
    const unsigned c = threadIdx.x % shape<C>::WIDTH * 4;
    const unsigned first = threadIdx.x / 32 * 16 +
                           threadIdx.x % 32 / shape<C>::WIDTH;

#pragma unroll 2
    for (unsigned i = 0; i < 16; i += shape<C>::AT_ONCE) {
        const unsigned t = min(t0 + first + i, a.x.T - 1); /* or again */
        vec<4> column[TAPS];
        vec<4> y = read<4>(row_at(a.x, b, t) + c);

#pragma unroll
        for (unsigned j = 0; j < TAPS; j++)
            column[j] = read<4>(&shared.column[t - t0 + j][c]);
        y = mix<4>(y, column, w);
        write_out<4>(row_at(a.y, b, t) + c, y);
        write_out<4>(
            row_at(a.normed, b, t) + c,
            scale<4>(y, factor_of(sum_of_row<C>(add_squares<4>(0.0f, y)), a),
                     w.next_norm));
    }
    __syncwarp();
}

/* Finish this warp's rows from t0 on. */
template <unsigned C>
__device__ static inline void finish(const struct block &a,
                                     const float (&sums)[C / 8][4], unsigned b,
                                     unsigned t0)
{
    const unsigned t = t0 + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;

#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        float *row = row_at(a.mixer.y, b, t + 8 * half);

        if (t + 8 * half >= a.mixer.x.T)
            return;
#pragma unroll
        for (unsigned n = 0; n < C / 8; n++) {
            const unsigned c = n * 8 + threadIdx.x % 4 * 2;
            ending end;

            end.load(a, c);
            *(float2 *)(row + c) = end.finish(*(const float2 *)(row + c),
                                              sums[n][2 * half],
                                              sums[n][2 * half + 1]);
        }
    }
}

#endif

template <unsigned C>
__global__ __launch_bounds__(THREADS, shape<C>::BLOCKS) void many_kernel(
    const __grid_constant__ struct block a)
{
#if __CUDA_ARCH__ >= 800
    extern __shared__ __align__(128) float4 extra[];
    memory<C> &shared = *(memory<C> *)extra;
    const unsigned row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    const unsigned k_lane = threadIdx.x % 4 * 8;
    const unsigned b = blockIdx.y;
    const unsigned t0 = blockIdx.x * ROWS;
    float sums[C / 8][4] = {};
    operand<C> x;

    let_next_start();
#pragma unroll
    for (unsigned i = 0; i < STAGES - 1; i++)
        fetch<C>(shared, a, i);
    {
        const weights<4> w = load_weights<4>(a.mixer,
                                             threadIdx.x % shape<C>::WIDTH * 4);

        wait_for_inputs();
        norm_columns<C>(shared, a.mixer, b, t0, w.norm);
        __syncthreads();
        mix_rows<C>(shared, a.mixer, b, t0, w);
    }
    load_x<C>(x, row_at(a.mixer.normed, b, min(t0 + row, a.mixer.x.T - 1)),
              row_at(a.mixer.normed, b, min(t0 + row + 8, a.mixer.x.T - 1)));
#pragma unroll 1
    for (unsigned i = 0; i < shape<C>::N_UNITS; i++) {
        const auto &unit = shared.stage[i % STAGES];
        float parts[4][4] = {};
        operand<UNITS> hidden;
        uint4 w[4];

        copies_wait<STAGES - 2>();
        __syncthreads();
        fetch<C>(shared, a, i + STAGES - 1);
#pragma unroll
        for (unsigned k = 0; k < C; k += 32) {
#pragma unroll
            for (unsigned j = 0; j < 4; j++)
                w[j] = *(const uint4 *)&unit.up[row_of_unit(j)][k + k_lane];
            multiply32<C>(parts, x, k, w);
        }
        hidden = hidden_of(parts, a.up_bias + i * UNITS);
#pragma unroll
        for (unsigned n = 0; n < C / 8; n += 4) {
#pragma unroll
            for (unsigned j = 0; j < 4; j++)
                w[j] = *(const uint4 *)&unit
                            .down[(n + j) * 8 + row % 8][k_lane];
            multiply32<UNITS>(sums + n, hidden, 0, w);
        }
    }
    finish<C>(a, sums, b, t0);
#endif
}

template <unsigned C>
static cudaError_t launch_block(cudaStream_t stream, struct block *a)
{
    const void *kernel = (const void *)many_kernel<C>;
    const dim3 grid((a->mixer.x.T + ROWS - 1) / ROWS,
                    a->mixer.n_rows / a->mixer.x.T);
    cudaError_t rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(memory<C>));

    if (rc != cudaSuccess)
        return rc;
    return launch_waiting(kernel, grid, THREADS, sizeof(memory<C>), stream, a);
}

cudaError_t vibe_cuda_block_many(cudaStream_t stream, struct block *a)
{
    return a->mixer.C == 32   ? launch_block<32>(stream, a)
           : a->mixer.C == 64 ? launch_block<64>(stream, a)
                              : launch_block<128>(stream, a);
}
