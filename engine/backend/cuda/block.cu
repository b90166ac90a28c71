/*
 * block.cu - a narrow block of a codec (block.cuh), 16 rows in a block of
 * threads: first a few threads mix and norm each row (mixer.cuh), then each
 * warp makes some hidden channels, then some of y from those of all warps.
 *
 * Weights go from the cache to the registers of one warp, the first of them
 * before the inputs are there.
 */
#include "engine/backend/cuda/block.cuh"

enum { ROWS = 16 }; /* of a block */

/* A warp makes a unit of hidden channels and eight channels of y. */
template <unsigned C> struct shape {
    enum {
        WARPS = C / 8,
        THREADS = 32 * WARPS,
        N_UNITS = WARPS,
        WIDTH = C / 4,     /* threads that mix a row: all rows at once */
        IS_EARLY = C < 128 /* whether there are registers to load W1 early */
    };
};

/* Shared memory.  Rows of channels meet different banks; operands lie as lanes
 * take them, of 16 channels high and low parts beside each other. */
template <unsigned C> struct memory {
    float mixed[ROWS][C + 4];
    uint4 normed[C / 16][2][32];
    uint4 hidden[shape<C>::N_UNITS][4][32];
};

#if __CUDA_ARCH__ >= 800

/* Leave four neighbours of a normed row where mma's a wants them. */
template <unsigned C>
__device__ static inline void leave_normed(memory<C> &shared, unsigned row,
                                           unsigned c, const vec<4> &v)
{
    const unsigned k = c / 32 * 2 + c % 8 / 4;
    const unsigned lane = row % 8 * 4 + c % 32 / 8;
    uint2 high, low;

    split(high.x, low.x, make_float2(v.e[0], v.e[1]));
    split(high.y, low.y, make_float2(v.e[2], v.e[3]));
    ((uint2 *)&shared.normed[k][0][lane])[row / 8] = high;
    ((uint2 *)&shared.normed[k][1][lane])[row / 8] = low;
}

template <unsigned C>
__device__ static inline void take_normed(unsigned (&a)[4],
                                          const memory<C> &shared, unsigned k,
                                          unsigned part)
{
    const uint4 v = shared.normed[k][part][threadIdx.x % 32];

    a[0] = v.x;
    a[1] = v.z;
    a[2] = v.y;
    a[3] = v.w;
}

/* Mix and norm 16 rows from m0 on; those past the last are nobody's. */
template <unsigned C>
__device__ static inline void mix_rows(memory<C> &shared, const struct mixer &a,
                                       const weights<4> &w, unsigned m0)
{
    const unsigned c = threadIdx.x % shape<C>::WIDTH * 4;
    const unsigned i = threadIdx.x / shape<C>::WIDTH;
    const unsigned m = m0 + i;
    vec<4> column[TAPS] = {};
    vec<4> y = {};
    float squares[TAPS] = {};
    float sum = 0.0f;

    if (m < a.n_rows)
        load_columns<4>(column, a, m / a.x.T, m % a.x.T, c);
#pragma unroll
    for (unsigned j = 0; j < TAPS; j++) {
        squares[j] = add_squares<4>(0.0f, column[j]);
#pragma unroll
        for (int k = shape<C>::WIDTH / 2; k > 0; k /= 2)
            squares[j] += __shfl_xor_sync(0xFFFFFFFFu, squares[j], k);
    }
    if (m < a.n_rows) {
        y = column[PAST];
        norm_columns<4>(column, squares, a, m / a.x.T, m % a.x.T, c, w.norm);
        y = mix<4>(y, column, w);
    }
    sum = add_squares<4>(0.0f, y);
#pragma unroll
    for (int k = shape<C>::WIDTH / 2; k > 0; k /= 2)
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, k);
    write<4>(&shared.mixed[i][c], y);
    leave_normed<C>(shared, i, c, scale<4>(y, factor_of(sum, a), w.next_norm));
}

/* This lane's weights of this warp's unit. */
template <unsigned C>
__device__ static inline void load_up(uint4 (&w)[C / 32][4],
                                      const struct block &a)
{
    const unsigned unit = threadIdx.x / 32;
    const unsigned short *up = a.up + threadIdx.x % 4 * 8;

#pragma unroll
    for (unsigned k = 0; k < C / 32; k++)
#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            w[k][i] = __ldg(
                (const uint4 *)(up +
                                (unit * UNITS + row_of_unit(i)) * a.up_stride +
                                k * 32));
}

/* The same of this warp's channels of y, of all units. */
template <unsigned C>
__device__ static inline void load_down(uint4 (&w)[shape<C>::N_UNITS][1],
                                        const struct block &a)
{
    const unsigned row = threadIdx.x / 32 * 8 + threadIdx.x % 32 / 4;
    const unsigned short *down = a.down + row * a.down_stride +
                                 threadIdx.x % 4 * 8;

#pragma unroll
    for (unsigned u = 0; u < shape<C>::N_UNITS; u++)
        w[u][0] = __ldg((const uint4 *)(down + u * UNITS));
}

/* The blocks ask for weights, a line a thread, before their inputs. */
template <unsigned C>
__device__ static inline void prefetch_weights(const struct block &a)
{
    const unsigned i = blockIdx.x * shape<C>::THREADS + threadIdx.x;

    if (i < C * a.down_stride / 64)
        prefetch(a.down + i * 64);
    if (!shape<C>::IS_EARLY && i < 4 * C * a.up_stride / 64)
        prefetch(a.up + i * 64);
}

/* Leave a unit for the other warps, and take it. */
template <unsigned C>
__device__ static inline void leave(memory<C> &shared, unsigned unit,
                                    const operand<UNITS> &h)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned k = 0; k < 2; k++) {
        shared.hidden[unit][2 * k][lane] = make_uint4(
            h.high[k][0], h.high[k][1], h.high[k][2], h.high[k][3]);
        shared.hidden[unit][2 * k + 1][lane] = make_uint4(
            h.low[k][0], h.low[k][1], h.low[k][2], h.low[k][3]);
    }
}

template <unsigned C>
__device__ static inline operand<UNITS> take(const memory<C> &shared,
                                             unsigned unit)
{
    const unsigned lane = threadIdx.x % 32;
    operand<UNITS> h;

#pragma unroll
    for (unsigned k = 0; k < 2; k++) {
        *(uint4 *)h.high[k] = shared.hidden[unit][2 * k][lane];
        *(uint4 *)h.low[k] = shared.hidden[unit][2 * k + 1][lane];
    }
    return h;
}

/* Store what this warp has of y. */
template <unsigned C>
__device__ static inline void finish(const struct block &a,
                                     const memory<C> &shared,
                                     const struct ending &end, unsigned c,
                                     const float sums[4], unsigned m0)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const unsigned row = lane / 4 + half * 8;
        const unsigned m = m0 + row;
        float *to = row_at(a.mixer.y, m / a.mixer.x.T, m % a.mixer.x.T) + c;

        if (m < a.mixer.n_rows)
            *(float2 *)to = end.finish(*(const float2 *)&shared.mixed[row][c],
                                       sums[2 * half], sums[2 * half + 1]);
    }
}

#endif

template <unsigned C>
__global__ __launch_bounds__(shape<C>::THREADS) void block_kernel(
    const __grid_constant__ struct block a)
{
#if __CUDA_ARCH__ >= 800
    typedef shape<C> S;
    extern __shared__ float4 extra[];
    memory<C> &shared = *(memory<C> *)extra;
    const unsigned unit = threadIdx.x / 32;
    const unsigned c = unit * 8 + threadIdx.x % 4 * 2; /* of y */
    const unsigned m0 = blockIdx.x * ROWS;
    const weights<4> w = load_weights<4>(a.mixer, threadIdx.x % S::WIDTH * 4);
    float parts[4][4] = {}, sums[1][4] = {};
    uint4 up[C / 32][4], down[S::N_UNITS][1];
    struct ending end;

    let_next_start();
    if (S::IS_EARLY)
        load_up<C>(up, a);
    prefetch_weights<C>(a);
    wait_for_inputs();
    mix_rows<C>(shared, a.mixer, w, m0);
    if (!S::IS_EARLY)
        load_up<C>(up, a);
    __syncthreads();
#pragma unroll
    for (unsigned k = 0; k < C / 32; k++) {
        operand<32> x;

#pragma unroll
        for (unsigned step = 0; step < 2; step++) {
            take_normed<C>(x.high[step], shared, 2 * k + step, 0);
            take_normed<C>(x.low[step], shared, 2 * k + step, 1);
        }
        multiply32<32>(parts, x, 0, up[k]);
    }
    leave<C>(shared, unit, hidden_of(parts, a.up_bias + unit * UNITS));
    load_down<C>(down, a);
    end.load(a, c);
    __syncthreads();
#pragma unroll
    for (unsigned u = 0; u < S::N_UNITS; u++)
        multiply32<UNITS>(sums, take<C>(shared, u), 0, down[u]);
    finish<C>(a, shared, end, c, sums[0], m0);
#endif
}

template <unsigned C>
static cudaError_t launch_block(cudaStream_t stream, struct block *a)
{
    const void *kernel = (const void *)block_kernel<C>;
    cudaError_t rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(memory<C>));

    if (rc != cudaSuccess)
        return rc;
    return launch_waiting(kernel, dim3((a->mixer.n_rows + ROWS - 1) / ROWS),
                          shape<C>::THREADS, sizeof(memory<C>), stream, a);
}

/* Whether there is a block of threads with many rows for every
 * multiprocessor. */
static bool is_many(const struct vibe_cuda *cuda, const struct mixer *a)
{
    const unsigned of_dialogue = (a->x.T + ROWS_OF_MANY - 1) / ROWS_OF_MANY;

    return (a->n_rows / a->x.T) * of_dialogue >= (unsigned)cuda->n_sm;
}

cudaError_t vibe_cuda_block(const struct vibe_cuda *cuda,
                            const struct vibe_block_call *call,
                            const struct vibe_tensor *normed)
{
    cudaStream_t stream = cuda->compute;
    const size_t C = call->x.C;
    struct block a = block_of(call, normed);

    if (is_many(cuda, &a.mixer))
        return vibe_cuda_block_many(cuda, &a);
    if (C == 32)
        return launch_block<32>(stream, &a);
    return C == 64 ? launch_block<64>(stream, &a)
                   : launch_block<128>(stream, &a);
}
