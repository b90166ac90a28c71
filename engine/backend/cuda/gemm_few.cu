/* gemm_few.cu - products that make many rows from little: matrices of a few
 * outputs, and of a few inputs. */
#include "engine/backend/cuda/pair.cuh"
#include "engine/backend/cuda/weights.cuh"
#include "engine/backend/cuda/window.cuh"

enum {
    THREADS = 256,
    LANES = 8,        /* that make a row of few outputs */
    CHUNK = 256,      /* of K, whose weights are in shared memory */
    STEP = 4 * LANES, /* of K, that they read at once */
    HEIGHT = 4,       /* rows that a thread makes, or LANES do */
};

struct few {
    const void *w;
    struct view x;
    struct source from;
    struct epilogue e;
    unsigned K, stride; /* elements of a row of weights */
    unsigned n_rows;
    bool is_even; /* x and its past, by 16 bytes */
};

static struct few few_of(const struct vibe_cuda_product *p)
{
    const struct vibe_tensor *x = p->x;
    struct few a;

    a.w = p->w->part[0].data;
    a.x = view_of(x);
    a.from = source_of(p, &a.x, 1);
    a.e = epilogue_of(p);
    a.K = (unsigned)p->w->K;
    a.stride = (unsigned)vibe_cuda_stride(a.K);
    a.n_rows = (unsigned)(x->B * x->T);
    a.is_even = a.K % 4 == 0 && (size_t)a.x.data % 16 == 0 &&
                a.x.stride_b % 4 == 0 && a.x.stride_t % 4 == 0 &&
                (size_t)a.from.past % 16 == 0 && a.from.past_stride % 4 == 0 &&
                a.from.edge % 4 == 0;
    return a;
}

/* Row m, or the last one. */
__device__ static inline sourced_row row_of(const few &a, unsigned m)
{
    sourced_row row;

    row.find(a.from, a.x, a.e.T, min(m, a.n_rows - 1));
    return row;
}

/* Four neighbours of a row of x, zeros past its end. */
__device__ static inline float4 read_four(const few &a, const sourced_row &x,
                                          unsigned k)
{
    float v[4] = {};

    if (a.is_even)
        return *(const float4 *)x.from(k);
#pragma unroll
    for (unsigned j = 0; j < 4; j++)
        if (k + j < a.K)
            v[j] = *x.from(k + j);
    return make_float4(v[0], v[1], v[2], v[3]);
}

/* Have weights k0, ..., k0 + CHUNK - 1 of all outputs as floats, zeros past
 * K. */
template <int dtype>
__device__ static inline void load_chunk(float (&w)[VIBE_CUDA_FEW][CHUNK],
                                         const few &a, unsigned k0)
{
    for (unsigned i = threadIdx.x; i < VIBE_CUDA_FEW * CHUNK; i += THREADS) {
        const unsigned n = i / CHUNK;
        const unsigned k = k0 + i % CHUNK;

        w[n][i % CHUNK] = n < a.e.N && k < a.K
                              ? weight_at<dtype>(a.w, (size_t)n * a.stride + k)
                              : 0.0f;
    }
}

/* Add what a lane has of a row's chunk, in turns of loading and adding. */
__device__ static inline void add_chunk(float (&sums)[VIBE_CUDA_FEW],
                                        const float (&w)[VIBE_CUDA_FEW][CHUNK],
                                        const few &a, const sourced_row &x,
                                        unsigned k0)
{
    enum { FOURS = 4 };

#pragma unroll 1
    for (unsigned first = threadIdx.x % LANES * 4; first < CHUNK;
         first += FOURS * STEP) {
        float4 v[FOURS];

#pragma unroll
        for (unsigned i = 0; i < FOURS; i++) {
            const unsigned k = k0 + first + i * STEP;

            v[i] = k < a.K ? read_four(a, x, k)
                           : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
#pragma unroll
        for (unsigned i = 0; i < FOURS; i++) {
            const unsigned k = first + i * STEP;
            const float part[4] = {
                meant(v[i].x, a.x.is_split), meant(v[i].y, a.x.is_split),
                meant(v[i].z, a.x.is_split), meant(v[i].w, a.x.is_split)};

            if (k0 + k >= a.K)
                break;
#pragma unroll
            for (unsigned n = 0; n < VIBE_CUDA_FEW; n++)
#pragma unroll
                for (unsigned j = 0; j < 4 && n < a.e.N; j++)
                    sums[n] = fmaf(part[j], w[n][k + j], sums[n]);
        }
    }
}

/* Add up what the lanes of a row have. */
__device__ static inline void add_lanes(float (&sums)[VIBE_CUDA_FEW],
                                        const few &a)
{
#pragma unroll
    for (unsigned n = 0; n < VIBE_CUDA_FEW; n++)
        for (int offset = LANES / 2; offset > 0 && n < a.e.N; offset /= 2)
            sums[n] += __shfl_xor_sync(0xFFFFFFFFu, sums[n], offset);
}

/* LANES of a warp make the few outputs of one row; x is read once, from the
 * first cache where rows overlap. */
template <int dtype>
__global__ void __launch_bounds__(THREADS)
    few_kernel(const __grid_constant__ struct few a)
{
    __shared__ __align__(16) float w[VIBE_CUDA_FEW][CHUNK];
    const unsigned lane = threadIdx.x % LANES;
    const unsigned m = (blockIdx.x * THREADS + threadIdx.x) / LANES;
    const sourced_row x = row_of(a, m);
    float sums[VIBE_CUDA_FEW] = {};
    struct pair to;

    let_next_start();
    prefetch_past(a.from, blockIdx.x * THREADS + threadIdx.x);
    load_chunk<dtype>(w, a, 0);
    to.read_early(a.e, a.n_rows, m, 2 * lane);
    wait_for_inputs();
    to.read_late(a.e, m, 2 * lane);
    for (unsigned k0 = 0; k0 < a.K; k0 += CHUNK) {
        if (k0 > 0) {
            __syncthreads();
            load_chunk<dtype>(w, a, k0);
        }
        __syncthreads();
        add_chunk(sums, w, a, x, k0);
    }
    add_lanes(sums, a);
#pragma unroll
    for (unsigned n = 0; n < VIBE_CUDA_FEW; n += 2)
        if (lane == n / 2 && to.is_there[0])
            to.store(a.e, n, make_float2(sums[n], sums[n + 1]));
    leave_state<1>(a.from, blockIdx.x * THREADS + threadIdx.x,
                   gridDim.x * THREADS);
}

/* The same for HEIGHT rows of a dialogue together, each STEP elements further,
 * of which a lane reads all that it needs once. */
template <int dtype>
__global__ void __launch_bounds__(THREADS)
    few_sliding_kernel(const __grid_constant__ struct few a)
{
    enum { FOURS = CHUNK / STEP };
    __shared__ __align__(16) float w[VIBE_CUDA_FEW][CHUNK];
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    const unsigned lane = threadIdx.x % LANES, mine = lane / 2;
    const unsigned m0 = i / LANES * HEIGHT, n_fours = a.K / STEP;
    const sourced_row x = row_of(a, min(m0, a.n_rows - HEIGHT));
    float4 v[FOURS + HEIGHT - 1];
    float sums[HEIGHT][VIBE_CUDA_FEW] = {};
    struct pair to;

    let_next_start();
    prefetch_past(a.from, i);
    load_chunk<dtype>(w, a, 0);
    to.read_early(a.e, a.n_rows, m0 + mine, lane % 2 * 2);
    wait_for_inputs();
    to.read_late(a.e, m0 + mine, lane % 2 * 2);
#pragma unroll
    for (unsigned j = 0; j < FOURS + HEIGHT - 1; j++)
        if (j < n_fours + HEIGHT - 1)
            v[j] = *(const float4 *)x.from(j * STEP + lane * 4);
    __syncthreads();
#pragma unroll
    for (unsigned j = 0; j < FOURS; j++)
#pragma unroll
        for (unsigned n = 0; n < VIBE_CUDA_FEW; n++) {
            const float4 by = *(const float4 *)&w[n][j * STEP + lane * 4];

            if (j >= n_fours || n >= a.e.N)
                break;
#pragma unroll
            for (unsigned h = 0; h < HEIGHT; h++) {
                float &sum = sums[h][n];

                sum = fmaf(v[j + h].x, by.x, sum);
                sum = fmaf(v[j + h].y, by.y, sum);
                sum = fmaf(v[j + h].z, by.z, sum);
                sum = fmaf(v[j + h].w, by.w, sum);
            }
        }
#pragma unroll
    for (unsigned h = 0; h < HEIGHT; h++) {
        add_lanes(sums[h], a);
#pragma unroll
        for (unsigned n = 0; n < VIBE_CUDA_FEW; n += 2)
            if (lane == (h * VIBE_CUDA_FEW + n) / 2 && to.is_there[0])
                to.store(a.e, n, make_float2(sums[h][n], sums[h][n + 1]));
    }
    leave_state<1>(a.from, i, gridDim.x * THREADS);
}

/* x of rows m0, ..., m0 + HEIGHT - 1, zeros past K.  SLIDES: they are of one
 * dialogue, each an element further. */
template <bool SLIDES>
__device__ static inline void load_rows(float v[HEIGHT][VIBE_CUDA_THIN],
                                        const few &a, unsigned m0)
{
    float span[HEIGHT + VIBE_CUDA_THIN - 1];
    sourced_row x[HEIGHT];

#pragma unroll
    for (unsigned h = 0; h < (SLIDES ? 1 : HEIGHT); h++)
        x[h] = row_of(a, SLIDES ? min(m0, a.n_rows - HEIGHT) : m0 + h);
#pragma unroll
    for (unsigned i = 0; i < HEIGHT + VIBE_CUDA_THIN - 1; i++)
        if (SLIDES)
            span[i] = i < a.K + HEIGHT - 1 ? *x[0].from(i) : 0.0f;
#pragma unroll
    for (unsigned h = 0; h < HEIGHT; h++)
#pragma unroll
        for (unsigned k = 0; k < VIBE_CUDA_THIN; k++)
            v[h][k] = k >= a.K ? 0.0f : SLIDES ? span[h + k] : *x[h].from(k);
}

/* A thread makes two outputs of HEIGHT rows, of at most eight inputs. */
template <int dtype, bool SLIDES>
__global__ void __launch_bounds__(THREADS, SLIDES ? 3 : 1)
    thin_kernel(const __grid_constant__ struct few a)
{
    const unsigned pairs = (a.e.N + 1) / 2;
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    const unsigned m0 = i / pairs * HEIGHT;
    const unsigned n = i % pairs * 2;
    float w[2][VIBE_CUDA_THIN] = {};
    float v[HEIGHT][VIBE_CUDA_THIN];
    struct pair to;

#pragma unroll
    for (unsigned j = 0; j < 2; j++)
#pragma unroll
        for (unsigned k = 0; k < VIBE_CUDA_THIN; k++)
            if (k < a.K && n + j < a.e.N)
                w[j][k] = weight_at<dtype>(a.w, (size_t)(n + j) * a.stride + k);
    let_next_start();
    prefetch_past(a.from, i);
    to.read_early(a.e, a.n_rows, m0, n);
    wait_for_inputs();
    load_rows<SLIDES>(v, a, m0);
#pragma unroll
    for (unsigned h = 0; h < HEIGHT; h++) {
        float2 sum = make_float2(0.0f, 0.0f);

#pragma unroll
        for (unsigned k = 0; k < VIBE_CUDA_THIN; k++) {
            const float x = meant(v[h][k], a.x.is_split);

            sum.x = fmaf(x, w[0][k], sum.x);
            sum.y = fmaf(x, w[1][k], sum.y);
        }
        if (SLIDES && h > 0)
            to.at += a.e.y.stride_t;
        else if (h > 0)
            to.turn_to(a.e, a.n_rows, m0 + h, n);
        to.read_late(a.e, m0 + h, n);
        if (to.is_there[0])
            to.store(a.e, n, sum);
    }
    leave_state<1>(a.from, i, gridDim.x * THREADS);
}

/* Which of the kernels. */
enum kind { FEW, FEW_SLIDING, THIN, THIN_SLIDING };

template <int dtype> static const void *kernel_of(enum kind kind)
{
    return kind == FEW           ? (const void *)few_kernel<dtype>
           : kind == FEW_SLIDING ? (const void *)few_sliding_kernel<dtype>
           : kind == THIN        ? (const void *)thin_kernel<dtype, false>
                                 : (const void *)thin_kernel<dtype, true>;
}

static const void *kernel_for(enum vibe_dtype dtype, enum kind kind)
{
    switch (dtype) {
    case VIBE_F32:
        return kernel_of<VIBE_F32>(kind);
    case VIBE_BF16:
        return kernel_of<VIBE_BF16>(kind);
    case VIBE_F16:
        return kernel_of<VIBE_F16>(kind);
    case VIBE_F8_E4M3:
        return kernel_of<VIBE_F8_E4M3>(kind);
    case VIBE_I8:
        return kernel_of<VIBE_I8>(kind);
    case VIBE_I4:
    case VIBE_BF16_PACKED:
    case VIBE_I64:
    case VIBE_U8:
        break;
    }
    return NULL;
}

static cudaError_t launch_few(const struct vibe_cuda *cuda,
                              const struct vibe_cuda_product *p, enum kind kind)
{
    struct few a = few_of(p);
    const unsigned by_height = (a.n_rows + HEIGHT - 1) / HEIGHT;
    const unsigned n = kind == FEW           ? a.n_rows * LANES
                       : kind == FEW_SLIDING ? by_height * LANES
                                             : by_height * ((a.e.N + 1) / 2);

    return launch_waiting(kernel_for(p->w->part[0].dtype, kind),
                          dim3((n + THREADS - 1) / THREADS), THREADS, 0,
                          cuda->compute, &a);
}

/* Rows that slide are made together where there are enough of them for all
 * multiprocessors. */
cudaError_t vibe_cuda_few(const struct vibe_cuda *cuda,
                          const struct vibe_cuda_product *p)
{
    const struct few a = few_of(p);
    const bool slides = a.is_even && !a.x.is_split && a.x.stride_t == STEP &&
                        a.K % STEP == 0 && a.K <= CHUNK &&
                        p->x->T % HEIGHT == 0 &&
                        a.n_rows / HEIGHT * LANES / THREADS >=
                            (unsigned)cuda->n_sm;

    return launch_few(cuda, p, slides ? FEW_SLIDING : FEW);
}

cudaError_t vibe_cuda_thin(const struct vibe_cuda *cuda,
                           const struct vibe_cuda_product *p)
{
    const bool slides = p->x->stride_t == 1 && p->x->T % HEIGHT == 0;

    return launch_few(cuda, p, slides ? THIN_SLIDING : THIN);
}
