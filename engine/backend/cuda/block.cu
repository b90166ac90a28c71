/*
 * block.cu - a narrow block of a codec: its mixer, and
 * y += gamma * (W2 gelu(W1 normed + b1) + b2), whose hidden row is 4 C wide.
 *
 * A block makes 16 rows.  First a few threads mix and norm each of them
 * (mixer.cuh), unless a kernel of its own has.  Then a warp takes 32 hidden channels: it multiplies all of the
 * normed row for them and them for all of y, so hidden values stay in its
 * registers; what the warps have for y is added in their order.  Weights come
 * from the cache, each to one warp, in the order in which they lie: of 32
 * neighbours along K lane q of four takes 8, which is any order to a sum.
 *
 * Normed and hidden values are two bf16, high and low, so 2^-17 of each product
 * is lost, as in gemm.cu.
 */
#include "engine/backend/cuda/epilogue.cuh"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/mixer.cuh"
#include "engine/backend/cuda/tensor.cuh"

enum {
    ROWS = 16,  /* of a block */
    UNITS = 32, /* hidden channels of a warp at a time */
    PAD = 8,    /* floats after a row of sums: 4 rows meet different banks */
};

template <unsigned C> struct shape {
    enum {
        WARPS = C == 32 ? 4 : 8,
        THREADS = 32 * WARPS,
        ROUNDS = 4 * C / UNITS / WARPS,
        WIDTH = C / 4, /* threads that mix a row */
        STRIDE = C + PAD,
        /* 128 channels leave no registers: they come mixed and normed */
        MIXES = C < 128,
    };
};

struct block {
    struct mixer mixer;              /* its y is the block's */
    const unsigned short *up, *down; /* bf16 */
    const float *up_bias, *down_bias, *gamma;
    unsigned up_stride, down_stride; /* elements from row to row */
};

/* Shared memory; rows meet different banks. */
template <unsigned C> struct rows {
    float mixed[shape<C>::MIXES ? ROWS : 1][C + 4];
    float normed[shape<C>::MIXES ? ROWS : 1][C + 4];
    float sums[shape<C>::WARPS][ROWS][shape<C>::STRIDE];
};

#if __CUDA_ARCH__ >= 800

/* 16 rows as mma's a, C channels of x or UNITS hidden ones. */
template <unsigned K> struct operand {
    unsigned high[K / 16][4], low[K / 16][4];
};

/* Mix and norm 16 rows from m0 on; those past the last are nobody's. */
template <unsigned C>
__device__ static inline void mix_rows(rows<C> &shared, const struct mixer &a,
                                       const weights<4> &w, unsigned m0)
{
    const unsigned c = threadIdx.x % shape<C>::WIDTH * 4;

    for (unsigned i = threadIdx.x / shape<C>::WIDTH; i < ROWS;
         i += shape<C>::THREADS / shape<C>::WIDTH) {
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
            norm_columns<4>(column, squares, a, m / a.x.T, m % a.x.T, c,
                            w.norm);
            y = mix<4>(y, column, w);
        }
        sum = add_squares<4>(0.0f, y);
#pragma unroll
        for (int k = shape<C>::WIDTH / 2; k > 0; k /= 2)
            sum += __shfl_xor_sync(0xFFFFFFFFu, sum, k);
        write<4>(&shared.mixed[i][c], y);
        write<4>(&shared.normed[i][c],
                 scale<4>(y, factor_of(sum, a), w.next_norm));
    }
}

/* Normed row i of the block, the last one for those past it. */
template <unsigned C>
__device__ static inline const float *normed_row(const rows<C> &shared,
                                                 const struct mixer &a,
                                                 unsigned m0, unsigned i)
{
    const unsigned m = min(m0 + i, a.n_rows - 1);

    if constexpr (shape<C>::MIXES)
        return shared.normed[i];
    else
        return row_at(a.normed, m / a.x.T, m % a.x.T);
}

template <unsigned C>
__device__ static inline void load_x(operand<C> &x, const rows<C> &shared,
                                     const struct mixer &a, unsigned m0)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const float *row = normed_row<C>(shared, a, m0, lane / 4 + half * 8) +
                           lane % 4 * 8;

#pragma unroll
        for (unsigned k = 0; k < C / 16; k++) { /* 4 of the lane's 8 */
            const float4 v = *(const float4 *)(row + k / 2 * 32 + k % 2 * 4);

            split(x.high[k][half], x.low[k][half], make_float2(v.x, v.y));
            split(x.high[k][2 + half], x.low[k][2 + half],
                  make_float2(v.z, v.w));
        }
    }
}

/* c += a b for 32 neighbours along K, from k on in a; w has this lane's. */
template <unsigned K>
__device__ static inline void multiply32(float c[4], const operand<K> &a,
                                         unsigned k, uint4 w)
{
    const unsigned b0[2] = {w.x, w.y}, b1[2] = {w.z, w.w};

    multiply(c, a.high[k / 16], b0);
    multiply(c, a.low[k / 16], b0);
    multiply(c, a.high[k / 16 + 1], b1);
    multiply(c, a.low[k / 16 + 1], b1);
}

__device__ static inline uint4 read_weights(const unsigned short *w)
{
    return __ldg((const uint4 *)w);
}

/* Hidden channels first .. first + UNITS - 1.  Column n of product i is channel
 * 8 (n / 2) + 2 i + n % 2, so that a lane ends up with 8 neighbours. */
template <unsigned C>
__device__ static inline void make_hidden(operand<UNITS> &h,
                                          const operand<C> &x,
                                          const struct block &a, unsigned first)
{
    const unsigned lane = threadIdx.x % 32;
    const unsigned row = first + lane / 8 * 8 + lane / 4 % 2;
    const float *bias = a.up_bias + first + lane % 4 * 8;
    float sums[4][4] = {};

#pragma unroll
    for (unsigned i = 0; i < 4; i++)
#pragma unroll
        for (unsigned k = 0; k < C; k += 32)
            multiply32<C>(sums[i], x, k,
                          read_weights(a.up +
                                       (size_t)(row + 2 * i) * a.up_stride + k +
                                       lane % 4 * 8));
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        const float2 b = *(const float2 *)(bias + 2 * i);

#pragma unroll
        for (unsigned half = 0; half < 2; half++)
            split(h.high[i / 2][i % 2 * 2 + half],
                  h.low[i / 2][i % 2 * 2 + half],
                  make_float2(gelu(sums[i][2 * half] + b.x),
                              gelu(sums[i][2 * half + 1] + b.y)));
    }
}

template <unsigned C>
__device__ static inline void add_hidden(float (&sums)[C / 8][4],
                                         const operand<UNITS> &h,
                                         const struct block &a, unsigned first)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned n = 0; n < C / 8; n++)
        multiply32<UNITS>(
            sums[n], h, 0,
            read_weights(a.down + (size_t)(n * 8 + lane / 4) * a.down_stride +
                         first + lane % 4 * 8));
}

/* Add up what the warps have and finish y. */
template <unsigned C>
__device__ static inline void finish(const struct block &a,
                                     const rows<C> &shared, unsigned m0)
{
    for (unsigned i = threadIdx.x; i < ROWS * C / 4; i += shape<C>::THREADS) {
        const unsigned m = m0 + i / (C / 4);
        const unsigned row = i / (C / 4);
        const unsigned c = i % (C / 4) * 4;
        const vec<4> gamma = read<4>(a.gamma + c);
        vec<4> sum = read<4>(a.down_bias + c);
        float *to = row_at(a.mixer.y, m / a.mixer.x.T, m % a.mixer.x.T) + c;
        vec<4> y;

        if (m >= a.mixer.n_rows)
            return;
        y = read<4>(shape<C>::MIXES ? &shared.mixed[row][c] : to);
#pragma unroll
        for (unsigned w = 0; w < shape<C>::WARPS; w++) {
            const vec<4> v = read<4>(&shared.sums[w][row][c]);

#pragma unroll
            for (unsigned e = 0; e < 4; e++)
                sum.e[e] += v.e[e];
        }
#pragma unroll
        for (unsigned e = 0; e < 4; e++)
            y.e[e] = fmaf(gamma.e[e], sum.e[e], y.e[e]);
        write<4>(to, y);
    }
}

/* The blocks ask for all weights, a line a thread, before their inputs. */
template <unsigned C>
__device__ static inline void prefetch_weights(const struct block &a)
{
    const unsigned i = blockIdx.x * shape<C>::THREADS + threadIdx.x;
    const unsigned up_lines = 4 * C * a.up_stride / 64;
    const unsigned down_lines = C * a.down_stride / 64;

    if (i < up_lines)
        prefetch(a.up + i * 64);
    else if (i < up_lines + down_lines)
        prefetch(a.down + (i - up_lines) * 64);
}

#endif

template <unsigned C>
__global__ __launch_bounds__(shape<C>::THREADS) void block_kernel(
    const __grid_constant__ struct block a)
{
#if __CUDA_ARCH__ >= 800
    extern __shared__ float4 memory[];
    rows<C> &shared = *(rows<C> *)memory;
    const unsigned lane = threadIdx.x % 32;
    const unsigned warp = threadIdx.x / 32;
    const unsigned m0 = blockIdx.x * ROWS;
    float *mine = &shared.sums[warp][lane / 4][lane % 4 * 2];
    float sums[C / 8][4] = {};
    operand<C> x;

    let_next_start();
    prefetch_weights<C>(a);
    if constexpr (shape<C>::MIXES) {
        const weights<4> w = load_weights<4>(a.mixer,
                                             threadIdx.x % shape<C>::WIDTH * 4);

        wait_for_inputs();
        mix_rows<C>(shared, a.mixer, w, m0);
        __syncthreads();
    } else {
        wait_for_inputs();
    }
    load_x<C>(x, shared, a.mixer, m0);
#pragma unroll 1
    for (unsigned i = 0; i < shape<C>::ROUNDS; i++) {
        const unsigned first = (i * shape<C>::WARPS + warp) * UNITS;
        operand<UNITS> hidden;

        make_hidden<C>(hidden, x, a, first);
        add_hidden<C>(sums, hidden, a, first);
    }
#pragma unroll
    for (unsigned n = 0; n < C / 8; n++) {
        *(float2 *)(mine + n * 8) = make_float2(sums[n][0], sums[n][1]);
        *(float2 *)(mine + 8 * shape<C>::STRIDE +
                    n * 8) = make_float2(sums[n][2], sums[n][3]);
    }
    __syncthreads();
    finish<C>(a, shared, m0);
#endif
}

template <unsigned C>
static cudaError_t launch_block(cudaStream_t stream, struct block *a)
{
    const void *kernel = (const void *)block_kernel<C>;
    cudaError_t rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(rows<C>));

    if (rc != cudaSuccess)
        return rc;
    return launch_waiting(kernel, dim3((a->mixer.n_rows + ROWS - 1) / ROWS),
                          shape<C>::THREADS, sizeof(rows<C>), stream, a);
}

cudaError_t vibe_cuda_block(cudaStream_t stream, const struct vibe_tensor *y,
                            const struct vibe_tensor *state,
                            const struct vibe_tensor *past,
                            const struct vibe_tensor *x,
                            const struct vibe_block *w,
                            const struct vibe_tensor *normed)
{
    cudaError_t rc = cudaSuccess;
    struct block a = {{chunk_of(y), chunk_of(normed), chunk_of(state),
                       chunk_of(past), chunk_of(x), w->mixer, (unsigned)x->C,
                       (unsigned)(x->B * x->T), 1},
                      (const unsigned short *)w->up.part[0].data,
                      (const unsigned short *)w->down.part[0].data,
                      w->up.bias,
                      w->down.bias,
                      w->down.gamma,
                      (unsigned)vibe_cuda_stride(w->up.K),
                      (unsigned)vibe_cuda_stride(w->down.K)};

    if (x->C == 32)
        return launch_block<32>(stream, &a);
    if (x->C == 64)
        return launch_block<64>(stream, &a);
    rc = vibe_cuda_mixer(stream, y, normed, state, past, x, &w->mixer);
    return rc == cudaSuccess ? launch_block<128>(stream, &a) : rc;
}
