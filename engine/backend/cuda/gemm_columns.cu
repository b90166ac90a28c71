/*
 * gemm_columns.cu - products with the columns of a codec (columns.cuh): too
 * many rows to read the weights for each few, too few to be bound by
 * arithmetic.
 *
 * A block makes 16 H outputs of 8 G rows, each warp a slice of K.  Weights and
 * x go straight to registers, since a block uses them once.  Weights come ahead
 * of the inputs.
 */
#include "engine/backend/cuda/columns.cuh"
#include "engine/backend/cuda/pair.cuh"
#include "engine/base/size.h"

enum {
    HELD = 8, /* tiles of 16 by UNIT weights that a warp holds */
    PAD = 4,  /* floats after a row of sums: lanes meet different banks */
};

template <int N_WARPS, int H, int G> struct tile {
    enum {
        OUTPUTS = 16 * H,
        ROWS = 8 * G,
        STRIDE = OUTPUTS + PAD,
        WARP_SUMS = ROWS * STRIDE,
        IS_LARGE = N_WARPS == MANY && H * G > 1,
        UNITS = G == 4   ? 1
                : G == 3 ? 2
                         : HELD / H / (IS_LARGE ? 2 : 1),
        /* units whose x is on its way */
        MOST_AHEAD = G > 2                       ? 1
                     : G == 1 || N_WARPS == MANY ? 3
                                                 : 4,
        AHEAD = UNITS < MOST_AHEAD ? UNITS : MOST_AHEAD,
        /* of a multiprocessor */
        BLOCKS = N_WARPS == MANY || G % 2 == 0 ? 1 : 2,
    };
};

#if __CUDA_ARCH__ >= 800

__device__ static inline uint4 load_weights(const struct columns &a, unsigned n,
                                            unsigned k, unsigned end)
{
    if (k >= end)
        return make_uint4(0, 0, 0, 0);
    return __ldg(
        (const uint4 *)(a.w + (size_t)min(n, a.e.N - 1) * a.stride + k));
}

__device__ static inline float4 load_four(const float *row, unsigned k,
                                          unsigned end)
{
    return k < end ? *(const float4 *)(row + k)
                   : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

/* What a warp has at hand: some units of its slice, which ends at end. */
template <int N_WARPS, int H, int G> struct hand {
    enum { UNITS = tile<N_WARPS, H, G>::UNITS };

    uint4 w[UNITS][H][2];
    const float *x[G]; /* this lane's rows, in their slice */
    unsigned end;

    __device__ inline void load_units(const columns &a, unsigned n,
                                      unsigned first)
    {
        const unsigned k = first + threadIdx.x % 4 * 8;

#pragma unroll
        for (int u = 0; u < UNITS; u++)
#pragma unroll
            for (int h = 0; h < 2 * H; h++)
                w[u][h / 2][h % 2] = load_weights(a, n + 8 * h, k + u * UNIT,
                                                  end);
    }

    __device__ inline void find_rows(const columns &a, unsigned m,
                                     unsigned first)
    {
#pragma unroll
        for (int g = 0; g < G; g++) {
            sourced_row row;

            row.find(a.from, a.x, a.e.T, min(m + 8 * g, a.n_rows - 1));
            x[g] = row.from(first) - first;
        }
    }

    __device__ inline void load_x(float4 v[G][2], unsigned k) const
    {
#pragma unroll
        for (int g = 0; g < G; g++) {
            v[g][0] = load_four(x[g], k, end);
            v[g][1] = load_four(x[g], k + 4, end);
        }
    }

    /* Those from first on, with the x of some on its way. */
    template <bool IS_SPLIT>
    __device__ inline void multiply_units(float c[H][G][4],
                                          unsigned first) const
    {
        enum { AHEAD = tile<N_WARPS, H, G>::AHEAD };
        const unsigned k = first + threadIdx.x % 4 * 8;
        float4 v[AHEAD][G][2];

#pragma unroll
        for (int u = 0; u < AHEAD - 1; u++)
            load_x(v[u], k + u * UNIT);
#pragma unroll
        for (int u = 0; u < UNITS; u++) {
            if (first + u * UNIT >= end)
                break;
            if (u + AHEAD - 1 < UNITS)
                load_x(v[(u + AHEAD - 1) % AHEAD], k + (u + AHEAD - 1) * UNIT);
            multiply_unit<H, G>(c, w[u], v[u % AHEAD], IS_SPLIT);
        }
    }

    /* The whole slice, of which the first units' weights are there. */
    template <bool IS_SPLIT>
    __device__ inline void multiply_slice(float c[H][G][4], const columns &a,
                                          unsigned n, unsigned first)
    {
        multiply_units<IS_SPLIT>(c, first);
        for (first += UNITS * UNIT; first < end; first += UNITS * UNIT) {
            load_units(a, n, first);
            multiply_units<IS_SPLIT>(c, first);
        }
    }
};

/* Leave a warp's sums for the others: outputs lane / 4 and 8 more of rows
 * 2 (lane % 4) and the next. */
template <int STRIDE, int H, int G>
__device__ static inline void leave_sums(float *to, const float c[H][G][4])
{
    const unsigned lane = threadIdx.x % 32;

    to += lane % 4 * 2 * STRIDE + lane / 4;
#pragma unroll
    for (int h = 0; h < H; h++)
#pragma unroll
        for (int g = 0; g < G; g++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                to[(8 * g + i % 2) * STRIDE + 16 * h + i / 2 * 8] = c[h][g][i];
}

/* Two outputs of all warps, the sums of a group at a time. */
template <int N_WARPS, int WARP_SUMS>
__device__ static inline float2 add_warps(const float *from, unsigned of_group)
{
    float2 sum = make_float2(0.0f, 0.0f), group = sum;

#pragma unroll
    for (int s = 0; s < N_WARPS; s++) {
        const float2 v = *(const float2 *)(from + s * WARP_SUMS);

        group.x += v.x;
        group.y += v.y;
        if ((s + 1) & (of_group - 1))
            continue;
        sum.x += group.x;
        sum.y += group.y;
        group = make_float2(0.0f, 0.0f);
    }
    return sum;
}

/* This thread's pairs of the tile that begins with output n0 of row m0. */
template <int N_WARPS, int H, int G> struct outputs {
    typedef tile<N_WARPS, H, G> shape;
    enum {
        THREADS = 32 * N_WARPS,
        ROW = shape::OUTPUTS / 2, /* of pairs */
        PAIRS = shape::ROWS * ROW,
        EACH = (PAIRS + THREADS - 1) / THREADS,
    };

    struct pair pairs[EACH];
    unsigned m0, n0;

    __device__ inline void read_early(const columns &a)
    {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const unsigned p = i * THREADS + threadIdx.x;

            pairs[i].read_early(a.e, p < PAIRS ? a.n_rows : 0, m0 + p / ROW,
                                n0 + p % ROW * 2);
        }
    }

    __device__ inline void read_late(const columns &a)
    {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const unsigned p = i * THREADS + threadIdx.x;

            pairs[i].read_late(a.e, m0 + p / ROW, n0 + p % ROW * 2);
        }
    }

    __device__ inline void store(const columns &a, const float *sums) const
    {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const unsigned p = i * THREADS + threadIdx.x;
            const unsigned m = p / ROW;
            const unsigned n = p % ROW * 2;

            const float *from = sums + m * shape::STRIDE + n;

            if (!pairs[i].is_there[0])
                continue;
            pairs[i].store(
                a.e, n0 + n,
                add_warps<N_WARPS, shape::WARP_SUMS>(from, a.of_group));
        }
    }
};

#endif

/* bytes: x and weights from the caches, once a tile. */
template <int N_WARPS, int H, int G>
__global__ void __launch_bounds__(32 * N_WARPS, tile<N_WARPS, H, G>::BLOCKS)
    columns_kernel(const __grid_constant__ struct columns a)
{
#if __CUDA_ARCH__ >= 800
    typedef tile<N_WARPS, H, G> shape;
    enum { THREADS = 32 * N_WARPS };
    extern __shared__ float sums[];
    const unsigned lane = threadIdx.x % 32;
    const unsigned warp = threadIdx.x / 32;
    const unsigned n0 = blockIdx.x * shape::OUTPUTS;
    const unsigned m0 = blockIdx.y * shape::ROWS;
    const unsigned first = warp * a.slice;
    float c[H][G][4] = {};
    hand<N_WARPS, H, G> at;
    outputs<N_WARPS, H, G> to;

    at.end = min(first + a.slice, a.K);
    at.load_units(a, n0 + lane / 4, first);
    let_next_start();
    prefetch_past(a.from, blockIdx.x * THREADS + threadIdx.x);
    at.find_rows(a, m0 + lane / 4, first);
    to.m0 = m0;
    to.n0 = n0;
    to.read_early(a);
    wait_for_inputs();
    to.read_late(a);
    if (a.x.is_split)
        at.template multiply_slice<true>(c, a, n0 + lane / 4, first);
    else
        at.template multiply_slice<false>(c, a, n0 + lane / 4, first);
    leave_sums<shape::STRIDE, H, G>(sums + warp * shape::WARP_SUMS, c);
    __syncthreads();
    to.store(a, sums);
    leave_state<4>(
        a.from, (blockIdx.y * gridDim.x + blockIdx.x) * THREADS + threadIdx.x,
        gridDim.x * gridDim.y * THREADS);
#endif
}

template <int N_WARPS, int H, int G>
static cudaError_t launch_tiles(const struct vibe_cuda *cuda, struct columns *a)
{
    typedef tile<N_WARPS, H, G> shape;
    const void *kernel = (const void *)columns_kernel<N_WARPS, H, G>;
    const size_t shared = sizeof(float) * N_WARPS * shape::WARP_SUMS;
    const dim3 grid((a->e.N + shape::OUTPUTS - 1) / shape::OUTPUTS,
                    (a->n_rows + shape::ROWS - 1) / shape::ROWS);
    cudaError_t rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);

    if (rc != cudaSuccess)
        return rc;
    return launch_waiting(kernel, grid, 32 * N_WARPS, shared, cuda->compute, a);
}

/* The largest tile, which reads least, of which there is one for almost every
 * multiprocessor. */
template <int N_WARPS>
static cudaError_t launch_columns(const struct vibe_cuda *cuda,
                                  struct columns *a)
{
    const unsigned enough = (unsigned)cuda->n_sm * 5 / 8;
    const unsigned eights = (a->n_rows + 7) / 8;
    const unsigned pairs = (a->e.N + 31) / 32;

    if (N_WARPS == SLICES && a->slice == UNIT && eights > 3 &&
        (eights + 3) / 4 * ((pairs + 1) / 2) >= enough)
        return launch_tiles<SLICES, 4, 4>(cuda, a);
    if (N_WARPS == SLICES && eights > 2 && (eights + 2) / 3 * pairs >= enough)
        return launch_tiles<SLICES, 2, 3>(cuda, a);
    if (eights > 1 && (eights + 1) / 2 * pairs >= enough)
        return launch_tiles<N_WARPS, 2, 2>(cuda, a);
    if (eights * pairs >= enough)
        return launch_tiles<N_WARPS, 2, 1>(cuda, a);
    if (eights > 1 && (eights + 1) / 2 * 2 * pairs >= enough)
        return launch_tiles<N_WARPS, 1, 2>(cuda, a);
    return launch_tiles<N_WARPS, 1, 1>(cuda, a);
}

int vibe_cuda_columns_read_window(const struct vibe_cuda *cuda,
                                  const struct vibe_cuda_product *p)
{
    const struct columns a = columns_of(cuda, p);

    if (vibe_cuda_is_tiles(cuda, &a))
        return a.from.edge % UNIT == 0 && a.x.stride_t >= a.from.edge;
    return a.from.edge % a.slice == 0 &&
           (a.x.stride_t % a.slice == 0 || a.x.stride_t >= a.from.edge);
}

static size_t bytes_of_parts(const struct columns *a)
{
    return a->parts == 1 ? 0
                         : (size_t)a->parts * vibe_size_round(a->n_rows, 64) *
                               vibe_size_round(a->e.N, 64) * sizeof(float);
}

size_t vibe_cuda_columns_bytes(const struct vibe_cuda *cuda,
                               const struct vibe_cuda_product *p)
{
    const struct columns a = columns_of(cuda, p);

    return vibe_cuda_is_tiles(cuda, &a) ? bytes_of_parts(&a) : 0;
}

cudaError_t vibe_cuda_columns(const struct vibe_cuda *cuda,
                              const struct vibe_cuda_product *p, float *partial)
{
    struct columns a = columns_of(cuda, p);

    a.partial = partial;
    if (vibe_cuda_is_tiles(cuda, &a))
        return vibe_cuda_tiles(cuda, &a);
    return a.K > LONG_K ? launch_columns<MANY>(cuda, &a)
                        : launch_columns<SLICES>(cuda, &a);
}
