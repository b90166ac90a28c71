/*
 * linear.cu - products with few rows, bound by reading the weights once.
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
    MAX_ROWS = VIBE_CUDA_GEMV_ROWS,
    NARROW = 512,            /* up to here a warp norms a row, as in norm.cu */
    SHARED_BYTES = 45 << 10, /* for normed rows, beside 3 KB of static ones */
    IS_EARLY = 1,            /* start before the kernel ahead has ended */
};

struct gemv {
    const void *w;
    const float *x;
    const float *norm_w, *shift, *scale; /* of the norm */
    struct epilogue e;
    size_t x_at[MAX_ROWS], y_at[MAX_ROWS], gate_at[MAX_ROWS];
    size_t shift_at[MAX_ROWS], scale_at[MAX_ROWS];
    unsigned K, stride, n_rows, slices, n_units;
    int is_aligned; /* x can be read by 16 bytes */
    float eps;
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
                            weight_bytes<dtype>(n * a.stride + k);

            if (k < a.K)
                load8(b.w[u][r], p);
        }
    }
}

/* Where element k of a staged row is: so that lanes read 16 bytes each side
 * by side. */
__device__ static inline unsigned staged_at(unsigned k)
{
    return k / STEP * STEP + k / 4 % 2 * (STEP / 2) + k % STEP / 8 * 4 + k % 4;
}

__device__ static inline void two_quads(float v[LANE], const float *a,
                                        const float *b)
{
    const float4 lo = *(const float4 *)a;
    const float4 hi = *(const float4 *)b;

    v[0] = lo.x, v[1] = lo.y, v[2] = lo.z, v[3] = lo.w;
    v[4] = hi.x, v[5] = hi.y, v[6] = hi.z, v[7] = hi.w;
}

template <int is_normed>
__device__ static inline void load_x(float v[LANE], const gemv &a,
                                     const float *staged, unsigned m,
                                     unsigned k, unsigned lane)
{
    if (is_normed) {
        const float *p = staged + m * ((a.K + STEP - 1) / STEP * STEP) +
                         k / STEP * STEP + lane * 4;

        two_quads(v, p, p + STEP / 2);
        return;
    }
    const float *p = a.x + a.x_at[m] + k;

    if (a.is_aligned) {
        two_quads(v, p, p + 4);
        return;
    }
#pragma unroll
    for (int i = 0; i < LANE; i++)
        v[i] = k + i < a.K ? p[i] : 0.0f;
}

template <int dtype, int M, int is_normed>
__device__ static inline void accumulate(float sums[M][OUTPUTS],
                                         const batch<dtype, M> &b,
                                         const gemv &a, const float *staged,
                                         unsigned step, unsigned lane)
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

            load_x<is_normed>(x, a, staged, m, k, lane);
#pragma unroll
            for (int r = 0; r < OUTPUTS; r++)
#pragma unroll
                for (int i = 0; i < LANE; i++)
                    sums[m][r] = fmaf(w[r][i], x[i], sums[m][r]);
        }
    }
}

/* One row of normed x, by the threads first, first + step, ...; the
 * expression is that of norm.cu, so the bits are. */
__device__ static inline void stage_row(float *out, const gemv &a, unsigned m,
                                        float factor, unsigned first,
                                        unsigned step)
{
    const float *in = a.x + a.x_at[m];
    const unsigned padded = (a.K + STEP - 1) / STEP * STEP;

    for (unsigned c = first; c < padded; c += step) {
        float v = 0.0f;

        if (c < a.K) {
            v = in[c] * factor;
            if (a.norm_w)
                v *= a.norm_w[c];
            if (a.scale)
                v = v * (1.0f + a.scale[a.scale_at[m] + c]) +
                    a.shift[a.shift_at[m] + c];
        }
        out[staged_at(c)] = v;
    }
}

__device__ static inline float square_sum(const gemv &a, unsigned m,
                                          unsigned first, unsigned step)
{
    const float *in = a.x + a.x_at[m];
    float sum = 0.0f;

    for (unsigned c = first; c < a.K; c += step)
        sum += in[c] * in[c];
    return sum;
}

__device__ static inline void stage(float *staged, const gemv &a)
{
    const unsigned padded = (a.K + STEP - 1) / STEP * STEP;

    if (a.K <= NARROW) {
        for (unsigned m = threadIdx.x / 32; m < a.n_rows; m += WARPS) {
            const unsigned lane = threadIdx.x % 32;
            const float sum = vibe_warp_sum(square_sum(a, m, lane, 32));

            stage_row(staged + m * padded, a, m,
                      1.0f / sqrtf(sum / (float)a.K + a.eps), lane, 32);
        }
    } else {
        for (unsigned m = 0; m < a.n_rows; m++) {
            const float sum = vibe_block_sum(
                square_sum(a, m, threadIdx.x, THREADS));

            stage_row(staged + m * padded, a, m,
                      1.0f / sqrtf(sum / (float)a.K + a.eps), threadIdx.x,
                      THREADS);
        }
    }
    __syncthreads();
}

/*
 * bytes: the weights once; x comes from the caches.  M is n_rows rounded up:
 * rows past it repeat the last and are not stored.
 */
template <int dtype, int M, int is_normed>
__global__ void __launch_bounds__(THREADS, M <= 8 ? 2 : 1)
    gemv_kernel(const __grid_constant__ struct gemv a)
{
    enum { VALUES = M * OUTPUTS, MINE = (VALUES + 31) / 32 };

    extern __shared__ float4 staged_memory[];
    __shared__ float parts[2][WARPS][VALUES];
    float *staged = (float *)staged_memory;
    const unsigned lane = threadIdx.x % 32;
    const unsigned warp = threadIdx.x / 32;
    const unsigned slice = warp % a.slices;
    const unsigned group = warp / a.slices;
    const unsigned n_groups = WARPS / a.slices;
    const unsigned n_steps = (a.K + STEP - 1) / STEP;
    const unsigned stride = batch<dtype, M>::STEPS * a.slices;
    unsigned unit = blockIdx.x;
    unsigned side = 0;
    batch<dtype, M> now, next;

    load_batch(now, a, (unit * n_groups + group) * OUTPUTS, slice, lane);
    let_next_start();
    wait_for_inputs();
    if (is_normed)
        stage(staged, a);

    for (; unit < a.n_units; unit += gridDim.x, side ^= 1) {
        const unsigned first = (unit * n_groups + group) * OUTPUTS;
        float sums[M][OUTPUTS] = {};
        float mine[MINE] = {};
        struct operands operands[MINE];

        if (slice == 0) {
#pragma unroll
            for (int j = 0; j < MINE; j++) {
                const unsigned m = (lane + 32 * j) / OUTPUTS;
                const unsigned n = first + lane % OUTPUTS;

                if (m < a.n_rows && n < a.e.N)
                    operands[j] = read_operands(a.e, a.y_at[m], a.gate_at[m],
                                                n);
            }
        }
        for (unsigned step = slice; step < n_steps; step += stride) {
            if (step + stride < n_steps)
                load_batch(next, a, first, step + stride, lane);
            else if (unit + gridDim.x < a.n_units)
                load_batch(next, a, first + gridDim.x * n_groups * OUTPUTS,
                           slice, lane);
            accumulate<dtype, M, is_normed>(sums, now, a, staged, step, lane);
            now = next;
        }

        /* value m * OUTPUTS + r goes to the lane of that number */
#pragma unroll
        for (int i = 0; i < VALUES; i++) {
            const float v = vibe_warp_sum(sums[i / OUTPUTS][i % OUTPUTS]);

            if (lane == i % 32)
                mine[i / 32] = v;
        }
        if (a.slices > 1) {
#pragma unroll
            for (int j = 0; j < MINE; j++)
                if (lane + 32 * j < VALUES)
                    parts[side][warp][lane + 32 * j] = mine[j];
            __syncthreads();
        }
        if (slice != 0)
            continue;
#pragma unroll
        for (int j = 0; j < MINE; j++) {
            const unsigned i = lane + 32 * j;
            const unsigned m = i / OUTPUTS;
            const unsigned n = first + i % OUTPUTS;
            const bool is_stored = m < a.n_rows && n < a.e.N;
            float z = mine[j], up;

            for (unsigned s = 1; s < a.slices && i < VALUES; s++)
                z += parts[side][warp + s][i];
            if (is_stored)
                z = z * operands[j].scale + operands[j].bias;
            up = __shfl_xor_sync(0xFFFFFFFFu, z, 1);
            if (!is_stored)
                continue;
            if (a.e.kind != VIBE_SWIGLU)
                a.e.y.data[a.y_at[m] + n] = finished(a.e.kind, operands[j], z);
            else if (n % 2 == 0)
                a.e.y.data[a.y_at[m] + n / 2] = silu(z) * up;
        }
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

static size_t staged_bytes(size_t n_rows, size_t K)
{
    return n_rows * ((K + STEP - 1) / STEP * STEP) * sizeof(float);
}

/* The number of rows of x that a kernel is made for. */
static size_t rounded_rows(size_t n_rows)
{
    size_t M = 1;

    while (M < n_rows)
        M *= 2;
    return M;
}

int vibe_cuda_gemv_norms(size_t n_rows, size_t K)
{
    return n_rows <= 8 && staged_bytes(rounded_rows(n_rows), K) <= SHARED_BYTES;
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
    const struct vibe_tensor *shift = p->norm ? p->norm->shift : NULL;
    const struct vibe_tensor *scale = p->norm ? p->norm->scale : NULL;

    a->w = p->w->part[0].data;
    a->x = (const float *)p->x->data;
    a->norm_w = p->norm ? p->norm->w : NULL;
    a->shift = shift ? (const float *)shift->data : NULL;
    a->scale = scale ? (const float *)scale->data : NULL;
    a->eps = p->norm ? p->norm->eps : 0.0f;
    a->e = epilogue_of(p);
    for (size_t i = 0; i < MAX_ROWS; i++) {
        const size_t m = first + (i < n_rows ? i : n_rows - 1);

        a->x_at[i] = host_row(p->x, m);
        a->y_at[i] = host_row(p->y, m);
        a->gate_at[i] = host_row(p->gate, m);
        a->shift_at[i] = host_row(shift, m);
        a->scale_at[i] = host_row(scale, m);
    }
    a->K = (unsigned)p->w->K;
    a->stride = (unsigned)vibe_cuda_stride(p->w->K);
    a->n_rows = (unsigned)n_rows;
    a->slices = slices_of(p->w->whole_N, p->w->K);
    a->n_units = (unsigned)((p->w->N * a->slices + WARPS * OUTPUTS - 1) /
                            (WARPS * OUTPUTS));
    a->is_aligned = is_aligned(p->x);
}

template <int dtype, int is_normed> static const void *kernel_for(size_t M)
{
    if (M == 1)
        return (const void *)gemv_kernel<dtype, 1, is_normed>;
    if (M == 2)
        return (const void *)gemv_kernel<dtype, 2, is_normed>;
    if (M == 4)
        return (const void *)gemv_kernel<dtype, 4, is_normed>;
    if (M == 8 || is_normed)
        return (const void *)gemv_kernel<dtype, 8, is_normed>;
    return (const void *)gemv_kernel<dtype, 16, 0>;
}

template <int is_normed>
static const void *choose(enum vibe_dtype dtype, size_t M)
{
    switch (dtype) {
    case VIBE_F32:
        return kernel_for<VIBE_F32, is_normed>(M);
    case VIBE_BF16:
        return kernel_for<VIBE_BF16, is_normed>(M);
    case VIBE_F16:
        return kernel_for<VIBE_F16, is_normed>(M);
    case VIBE_F8_E4M3:
        return kernel_for<VIBE_F8_E4M3, is_normed>(M);
    case VIBE_I8:
    case VIBE_I4:
    case VIBE_BF16_PACKED:
    case VIBE_I64:
    case VIBE_U8:
        break;
    }
    return NULL;
}

cudaError_t vibe_cuda_gemv(const struct vibe_cuda *cuda,
                           const struct vibe_cuda_product *p, size_t first,
                           size_t n_rows)
{
    const size_t M = rounded_rows(n_rows);
    const enum vibe_dtype dtype = p->w->part[0].dtype;
    const void *kernel = p->norm ? choose<1>(dtype, M) : choose<0>(dtype, M);
    const size_t shared = p->norm ? staged_bytes(M, p->w->K) : 0;
    struct gemv a;
    unsigned room;
    int per_sm = 0;
    cudaError_t rc = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &per_sm, kernel, THREADS, shared);

    if (rc != cudaSuccess)
        return rc;
    fill(&a, p, first, n_rows);
    room = (unsigned)(cuda->n_sm * per_sm);
    return launch(kernel, dim3(a.n_units < room ? a.n_units : room), THREADS,
                  shared, cuda->compute,
                  IS_EARLY && vibe_cuda_compiled_for() >= 90, &a);
}

int vibe_cuda_compiled_for(void)
{
    struct cudaFuncAttributes attributes;
    cudaError_t rc = cudaFuncGetAttributes(
        &attributes, (const void *)gemv_kernel<VIBE_BF16, 1, 0>);

    return rc == cudaSuccess ? attributes.ptxVersion : 0;
}
