/*
 * gemv_plain.cu - products with few rows in float arithmetic, for weights that
 * tensor cores do not take and GPUs without them.
 *
 * A warp makes four outputs of up to 16 rows of x.  Its lanes stride over K
 * in steps of 256 elements, eight neighbours per lane; slices of K go to
 * several warps of the block, as many as the matrix alone asks for.  Each sum
 * is therefore added up in one order whatever rows there are: lane by lane,
 * then over lanes, then over slices.
 *
 * Blocks stay and take every gridDim-th unit of work (8 / slices groups of
 * four outputs); the weights of the next step are on their way while one is
 * computed, also from unit to unit, and those of the first before the kernel
 * ahead has ended.
 */
#include "engine/backend/cuda/epilogue.cuh"
#include "engine/backend/cuda/reduce.cuh"
#include "engine/backend/cuda/weights.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    OUTPUTS = 4, /* of a warp */
    LANE = 8,    /* elements that a lane takes of a step */
    STEP = 32 * LANE,
    MAX_ROWS = VIBE_CUDA_PLAIN_ROWS,
};

struct gemv {
    const void *w;
    struct view x;
    struct epilogue e;
    size_t x_at[MAX_ROWS], y_at[MAX_ROWS], gate_at[MAX_ROWS];
    unsigned K, stride, n_rows, slices, n_units;
    int is_aligned; /* x can be read by 16 bytes */
    bool is_banded; /* see matrix.h */
};

/* What a warp loads at once: 2 KB or more, where registers allow. */
template <int dtype, int M> struct batch {
    enum { STEPS = dtype == VIBE_F8_E4M3 && M <= 2 ? 2 : 1 };

    weights8<dtype> w[STEPS][OUTPUTS];
};

template <int dtype, int M>
__device__ static inline void load_batch(batch<dtype, M> &b, const gemv &a,
                                         unsigned first, unsigned step,
                                         unsigned lane)
{
#pragma unroll
    for (int u = 0; u < batch<dtype, M>::STEPS; u++) {
        const unsigned k = (step + u * a.slices) * STEP + lane * LANE;

#pragma unroll
        for (int r = 0; r < OUTPUTS; r++) {
            const size_t n = min(first + r, a.e.N - 1);
            const char *p = (const char *)a.w +
                            weight_bytes<dtype>(
                                element_at<dtype>(n, k, a.stride, a.is_banded));

            if (k < a.K)
                load8(b.w[u][r], p);
        }
    }
}

__device__ static inline void two_quads(float v[LANE], const float *a,
                                        const float *b)
{
    const float4 lo = *(const float4 *)a;
    const float4 hi = *(const float4 *)b;

    v[0] = lo.x, v[1] = lo.y, v[2] = lo.z, v[3] = lo.w;
    v[4] = hi.x, v[5] = hi.y, v[6] = hi.z, v[7] = hi.w;
}

__device__ static inline void load_x(float v[LANE], const gemv &a, unsigned m,
                                     unsigned k)
{
    const float *p = a.x.data + a.x_at[m] + k;

    if (a.is_aligned)
        two_quads(v, p, p + 4);
    else
#pragma unroll
        for (int i = 0; i < LANE; i++)
            v[i] = k + i < a.K ? p[i] : 0.0f;
    if (a.x.is_split)
#pragma unroll
        for (int i = 0; i < LANE; i++)
            v[i] = meant(v[i], true);
}

template <int dtype, int M>
__device__ static inline void accumulate(float sums[M][OUTPUTS],
                                         const batch<dtype, M> &b,
                                         const gemv &a, unsigned step,
                                         unsigned lane)
{
#pragma unroll
    for (int u = 0; u < batch<dtype, M>::STEPS; u++) {
        const unsigned k = (step + u * a.slices) * STEP + lane * LANE;
        float w[OUTPUTS][LANE];

        if (k >= a.K)
            return;
#pragma unroll
        for (int r = 0; r < OUTPUTS; r++)
            widen8<dtype>(w[r], b.w[u][r]);
#pragma unroll
        for (int m = 0; m < M; m++) {
            float x[LANE];

            load_x(x, a, m, k);
#pragma unroll
            for (int r = 0; r < OUTPUTS; r++)
#pragma unroll
                for (int i = 0; i < LANE; i++)
                    sums[m][r] = fmaf(w[r][i], x[i], sums[m][r]);
        }
    }
}

/* Values of a warp: output r of row m is value m * OUTPUTS + r, which belongs
 * to the lane of that number. */
template <int M> struct values {
    enum { COUNT = M * OUTPUTS, MINE = (COUNT + 31) / 32 };

    float v[MINE];
    struct operands o[MINE];

    /* What outputs from first on need, ahead of their sums. */
    __device__ inline void read_ahead(const gemv &a, unsigned first,
                                      unsigned lane)
    {
#pragma unroll
        for (int j = 0; j < MINE; j++) {
            const unsigned m = (lane + 32 * j) / OUTPUTS;
            const unsigned n = first + lane % OUTPUTS;

            if (m < a.n_rows && n < a.e.N)
                o[j] = read_operands(a.e, a.y_at[m], a.gate_at[m], n);
        }
    }

    __device__ inline void add_lanes(const float sums[M][OUTPUTS],
                                     unsigned lane)
    {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const float sum = vibe_warp_sum(sums[i / OUTPUTS][i % OUTPUTS]);

            if (lane == i % 32)
                v[i / 32] = sum;
        }
    }

    /* Add the slices' values, which meet in parts, a row for each warp. */
    __device__ inline void add_slices(float (*parts)[COUNT], unsigned slices,
                                      unsigned warp, unsigned lane)
    {
#pragma unroll
        for (int j = 0; j < MINE; j++)
            if (lane + 32 * j < COUNT)
                parts[warp][lane + 32 * j] = v[j];
        __syncthreads();
        if (warp % slices != 0)
            return;
#pragma unroll
        for (int j = 0; j < MINE; j++)
            for (unsigned s = 1; s < slices && lane + 32 * j < COUNT; s++)
                v[j] += parts[warp + s][lane + 32 * j];
    }

    __device__ inline void store(const gemv &a, unsigned first, unsigned lane)
    {
#pragma unroll
        for (int j = 0; j < MINE; j++) {
            const unsigned m = (lane + 32 * j) / OUTPUTS;
            const unsigned n = first + lane % OUTPUTS;
            const bool is_stored = m < a.n_rows && n < a.e.N;
            const float z = is_stored ? v[j] * o[j].scale + o[j].bias : 0.0f;
            const float up = __shfl_xor_sync(0xFFFFFFFFu, z, 1);

            if (!is_stored)
                continue;
            if (a.e.kind != VIBE_SWIGLU)
                put(a.e.y, a.y_at[m] + n, finished(a.e.kind, o[j], z));
            else if (n % 2 == 0)
                put(a.e.y, a.y_at[m] + n / 2, silu(z) * up);
        }
    }
};

/*
 * bytes: the weights once; x comes from the caches.  M is n_rows rounded up:
 * rows past it repeat the last and are not stored.
 */
template <int dtype, int M>
__global__ void __launch_bounds__(THREADS, M <= 8 ? 2 : 1)
    gemv_kernel(const __grid_constant__ struct gemv a)
{
    __shared__ float parts[2][WARPS][values<M>::COUNT];
    const unsigned lane = threadIdx.x % 32;
    const unsigned warp = threadIdx.x / 32;
    const unsigned slice = warp % a.slices;
    const unsigned n_steps = (a.K + STEP - 1) / STEP;
    const unsigned stride = batch<dtype, M>::STEPS * a.slices;
    const unsigned group = warp / a.slices * OUTPUTS;
    const unsigned of_unit = WARPS / a.slices * OUTPUTS;
    unsigned side = 0;
    batch<dtype, M> now, next;

    load_batch(now, a, blockIdx.x * of_unit + group, slice, lane);
    let_next_start();
    wait_for_inputs();

    for (unsigned unit = blockIdx.x; unit < a.n_units;
         unit += gridDim.x, side ^= 1) {
        const unsigned first = unit * of_unit + group;
        float sums[M][OUTPUTS] = {};
        values<M> mine = {};

        if (slice == 0)
            mine.read_ahead(a, first, lane);
        for (unsigned step = slice; step < n_steps; step += stride) {
            if (step + stride < n_steps)
                load_batch(next, a, first, step + stride, lane);
            else if (unit + gridDim.x < a.n_units)
                load_batch(next, a, first + gridDim.x * of_unit, slice, lane);
            accumulate<dtype, M>(sums, now, a, step, lane);
            now = next;
        }
        mine.add_lanes(sums, lane);
        if (a.slices > 1)
            mine.add_slices(parts[side], a.slices, warp, lane);
        if (slice == 0)
            mine.store(a, first, lane);
    }
}

/* Cut K until there are a thousand units, seven or eight for each of the
 * multiprocessors of a large GPU, or no step is left for a slice. */
static unsigned slices_of(size_t N, size_t K)
{
    const size_t n_steps = (K + STEP - 1) / STEP;
    unsigned slices = 1;

    while (slices < WARPS && 2 * slices <= n_steps &&
           N * slices < (size_t)1000 * WARPS * OUTPUTS)
        slices *= 2;
    return slices;
}

/* The number of rows of x that a kernel is made for. */
static size_t rounded_rows(size_t n_rows)
{
    size_t M = 1;

    while (M < n_rows)
        M *= 2;
    return M;
}

static size_t host_row(const struct vibe_tensor *t, size_t m)
{
    return t ? m / t->T * t->stride_b + m % t->T * t->stride_t : 0;
}

static int is_aligned(const struct vibe_tensor *x)
{
    return x->C % LANE == 0 && (size_t)x->data % 16 == 0 &&
           x->stride_b % 4 == 0 && x->stride_t % 4 == 0;
}

static void fill(struct gemv *a, const struct vibe_cuda_product *p,
                 size_t first, size_t n_rows)
{
    a->w = p->w->part[0].data;
    a->x = view_of(p->x);
    a->e = epilogue_of(p);
    for (size_t i = 0; i < MAX_ROWS; i++) {
        const size_t m = first + (i < n_rows ? i : n_rows - 1);

        a->x_at[i] = host_row(p->x, m);
        a->y_at[i] = host_row(p->y, m);
        a->gate_at[i] = host_row(p->gate, m);
    }
    a->K = (unsigned)p->w->K;
    a->stride = (unsigned)vibe_cuda_stride(p->w->K);
    a->is_banded = vibe_cuda_is_banded(p->w);
    a->n_rows = (unsigned)n_rows;
    a->slices = slices_of(p->w->whole_N, p->w->K);
    a->n_units = (unsigned)((p->w->N * a->slices + WARPS * OUTPUTS - 1) /
                            (WARPS * OUTPUTS));
    a->is_aligned = is_aligned(p->x);
}

template <int dtype> static const void *kernel_for(size_t M)
{
    if (M == 1)
        return (const void *)gemv_kernel<dtype, 1>;
    if (M == 2)
        return (const void *)gemv_kernel<dtype, 2>;
    if (M == 4)
        return (const void *)gemv_kernel<dtype, 4>;
    if (M == 8)
        return (const void *)gemv_kernel<dtype, 8>;
    return (const void *)gemv_kernel<dtype, 16>;
}

static const void *choose(enum vibe_dtype dtype, size_t M)
{
    switch (dtype) {
    case VIBE_F32:
        return kernel_for<VIBE_F32>(M);
    case VIBE_BF16:
        return kernel_for<VIBE_BF16>(M);
    case VIBE_F16:
        return kernel_for<VIBE_F16>(M);
    case VIBE_F8_E4M3:
        return kernel_for<VIBE_F8_E4M3>(M);
    case VIBE_I8:
        return kernel_for<VIBE_I8>(M);
    case VIBE_I4:
    case VIBE_BF16_PACKED:
    case VIBE_I64:
    case VIBE_U8:
        break;
    }
    return NULL;
}

cudaError_t vibe_cuda_gemv_plain(const struct vibe_cuda *cuda,
                                 const struct vibe_cuda_product *p,
                                 size_t first, size_t n_rows)
{
    const size_t M = rounded_rows(n_rows);
    const enum vibe_dtype dtype = p->w->part[0].dtype;
    const void *kernel = choose(dtype, M);
    struct gemv a;
    unsigned room;
    int per_sm = 0;
    cudaError_t rc = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &per_sm, kernel, THREADS, 0);

    if (rc != cudaSuccess)
        return rc;
    fill(&a, p, first, n_rows);
    room = (unsigned)(cuda->n_sm * per_sm);
    return launch_waiting(kernel, dim3(a.n_units < room ? a.n_units : room),
                          THREADS, 0, cuda->compute, &a);
}

int vibe_cuda_compiled_for(void)
{
    struct cudaFuncAttributes attributes;
    cudaError_t rc = cudaFuncGetAttributes(
        &attributes, (const void *)gemv_kernel<VIBE_BF16, 1>);

    return rc == cudaSuccess ? attributes.ptxVersion : 0;
}
