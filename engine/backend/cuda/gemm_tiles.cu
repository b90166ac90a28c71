/*
 * gemm_tiles.cu - products with the columns of a codec (columns.cuh) that are
 * many: bound by arithmetic, and by what the second cache gives.
 *
 * A block makes ROWS by OUTPUTS sums, a warp 32 by SPAN of them; units of x and
 * of the weights come through a ring in shared memory.
 */
#include "engine/backend/cuda/columns.cuh"

enum {
    STAGES = 4,
    HEIGHT = 2,       /* of a warp, in groups of 16 rows */
    X_ROW = 4 * UNIT, /* bytes in a stage */
    W_ROW = 2 * UNIT,
};

/* SPAN in eights; warps are beside each other by ACROSS. */
template <int WARPS, int ACROSS, int SPAN> struct shape {
    enum {
        THREADS = 32 * WARPS,
        ROWS = WARPS / ACROSS * HEIGHT * 16,
        OUTPUTS = ACROSS * SPAN * 8,
        X_BYTES = ROWS * X_ROW,
        STAGE = X_BYTES + OUTPUTS * W_ROW,
        SUMS_ROW = OUTPUTS + 8, /* floats: 4 rows meet different banks */
        FOURS = OUTPUTS / 4,    /* of a row; a thread has one of them */
    };
};

#if __CUDA_ARCH__ >= 800

/* Where a piece of 16 bytes of row m of x lies: two rows that are read together
 * meet in no bank. */
__device__ static inline unsigned x_at(unsigned m, unsigned piece)
{
    return m * X_ROW + (piece ^ (m & 1)) * 16;
}

/* What a thread copies: the same piece of several rows, of each. */
template <class S> struct feeder {
    enum {
        X_STEP = S::THREADS / 8, /* rows between those of a thread */
        W_STEP = S::THREADS / 4,
        N_X = S::ROWS / X_STEP,
        N_W = S::OUTPUTS / W_STEP,
    };
    const float *x[N_X];
    const unsigned short *w;
    unsigned x_to, w_to;
    bool has_row[N_W]; /* of the weights */

    __device__ inline void open_w(const columns &a, unsigned n0)
    {
        const unsigned row = threadIdx.x / 4;

        w = a.w + (size_t)(n0 + row) * a.stride + threadIdx.x % 4 * 8;
        w_to = S::X_BYTES + row * W_ROW + threadIdx.x % 4 * 16;
#pragma unroll
        for (int i = 0; i < N_W; i++)
            has_row[i] = n0 + row + i * W_STEP < a.e.N;
    }

    __device__ inline void open_x(const columns &a, unsigned m0)
    {
        const unsigned row = threadIdx.x / 8;
        const unsigned piece = threadIdx.x % 8;

        x_to = x_at(row, piece); /* X_STEP is even */
#pragma unroll
        for (int i = 0; i < N_X; i++)
            x[i] = a.x.data +
                   row_at(a.x, a.e.T,
                          min(m0 + row + i * X_STEP, a.n_rows - 1)) +
                   piece * 4;
    }

    __device__ inline void fetch_w(unsigned char *stage, const columns &a,
                                   unsigned k) const
    {
        const bool is_in = k + threadIdx.x % 4 * 8 < a.stride;

#pragma unroll
        for (int i = 0; i < N_W; i++) {
            const bool is_there = is_in && has_row[i];

            copy_async<16>(stage + w_to + i * W_STEP * W_ROW,
                           is_there ? w + (size_t)i * W_STEP * a.stride + k
                                    : a.w,
                           is_there);
        }
    }

    __device__ inline void fetch_x(unsigned char *stage, const columns &a,
                                   unsigned k) const
    {
        const bool is_in = k + threadIdx.x % 8 * 4 < a.K;

#pragma unroll
        for (int i = 0; i < N_X; i++)
            copy_async<16>(stage + x_to + i * X_STEP * X_ROW,
                           is_in ? x[i] + k : a.x.data, is_in);
    }
};

/* Add a unit to a warp's sums.  x and w are where its first row and output
 * are. */
template <bool IS_SPLIT, int SPAN>
__device__ static inline void add_unit(float sums[HEIGHT][SPAN][4],
                                       const unsigned char *x,
                                       const unsigned char *w)
{
    /* eights of outputs whose products take turns */
    enum { AT_ONCE = SPAN < 4 ? SPAN : 4 };
    const unsigned row = threadIdx.x % 32 / 4;
    const unsigned q = threadIdx.x % 4;
    struct eight rows[HEIGHT][2];

#pragma unroll
    for (int i = 0; i < HEIGHT * 2; i++) {
        const unsigned m = i * 8 + row;

        split_eight(rows[i / 2][i % 2], *(const float4 *)(x + x_at(m, 2 * q)),
                    *(const float4 *)(x + x_at(m, 2 * q + 1)), IS_SPLIT);
    }
#pragma unroll
    for (int first = 0; first < SPAN; first += AT_ONCE) {
        uint4 v[AT_ONCE];

#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            v[j] = *(const uint4 *)(w + ((first + j) * 8 + row) * W_ROW +
                                    q * 16);
#pragma unroll
        for (int i = 0; i < 4 * HEIGHT * AT_ONCE; i++) {
            const int j = i % AT_ONCE, h = i / AT_ONCE % HEIGHT;
            const int part = i / AT_ONCE / HEIGHT % 2;
            const int step = i / AT_ONCE / HEIGHT / 2;
            const unsigned b[2] = {step ? v[j].z : v[j].x,
                                   step ? v[j].w : v[j].y};
            const unsigned *up = part ? rows[h][0].low : rows[h][0].high;
            const unsigned *down = part ? rows[h][1].low : rows[h][1].high;
            const unsigned a[4] = {up[2 * step], down[2 * step],
                                   up[2 * step + 1], down[2 * step + 1]};

            multiply(sums[h][first + j], a, b);
        }
    }
}

/* Where four outputs of a row end up, and what they need. */
struct finisher {
    float4 scale, bias, gamma;
    unsigned n;
    bool is_even; /* by 16 bytes */

    __device__ inline void open(const epilogue &e, unsigned first)
    {
        const float4 one = make_float4(1.0f, 1.0f, 1.0f, 1.0f);

        n = first;
        is_even = e.N % 4 == 0 && e.y.stride_b % 4 == 0 &&
                  e.y.stride_t % 4 == 0 && (size_t)e.y.data % 16 == 0 &&
                  e.kind != VIBE_SWIGLU && e.kind != VIBE_GATE_ADD;
        scale = gamma = one;
        bias = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (!is_even || n >= e.N)
            return;
        if (e.scale)
            scale = *(const float4 *)(e.scale + n);
        if (e.bias)
            bias = *(const float4 *)(e.bias + n);
        if (e.gamma)
            gamma = *(const float4 *)(e.gamma + n);
    }

    __device__ inline float4 read(const epilogue &e, size_t y_at) const
    {
        return e.kind == VIBE_ADD ? *(const float4 *)(e.y.data + y_at + n)
                                  : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }

    __device__ inline void store(const epilogue &e, size_t y_at, float4 sum,
                                 float4 old) const
    {
        const operands o[4] = {{scale.x, bias.x, gamma.x, old.x},
                               {scale.y, bias.y, gamma.y, old.y},
                               {scale.z, bias.z, gamma.z, old.z},
                               {scale.w, bias.w, gamma.w, old.w}};
        const float z[4] = {sum.x * scale.x + bias.x, sum.y * scale.y + bias.y,
                            sum.z * scale.z + bias.z, sum.w * scale.w + bias.w};

        *(float4 *)(e.y.data + y_at + n) = kept(
            make_float4(
                finished(e.kind, o[0], z[0]), finished(e.kind, o[1], z[1]),
                finished(e.kind, o[2], z[2]), finished(e.kind, o[3], z[3])),
            e.y.is_split);
    }
};

/* Finish the sums of a tile.  Loops stay short: a block runs through them once,
 * and would wait for instructions. */
template <class S>
__device__ static inline void finish_tile(const columns &a, const float *sums,
                                          const finisher &f, unsigned m0)
{
    enum { STEP = S::THREADS / S::FOURS, EACH = S::ROWS / STEP, BATCH = 4 };
    const float *from = sums + threadIdx.x / S::FOURS * S::SUMS_ROW +
                        threadIdx.x % S::FOURS * 4;
    unsigned m = m0 + threadIdx.x / S::FOURS;

    if (f.n >= a.e.N)
        return;
#pragma unroll 1
    for (int i = 0; i < EACH; i += BATCH) {
        float4 old[BATCH];
        size_t y_at[BATCH];

#pragma unroll
        for (int j = 0; j < BATCH; j++) {
            y_at[j] = row_at(a.e.y, a.e.T, min(m + j * STEP, a.n_rows - 1));
            if (f.is_even)
                old[j] = f.read(a.e, y_at[j]);
        }
#pragma unroll 1
        for (int j = 0; j < BATCH; j++, m += STEP, from += STEP * S::SUMS_ROW) {
            const float4 sum = *(const float4 *)from;

            if (m >= a.n_rows)
                return;
            if (f.is_even) {
                f.store(a.e, y_at[0], sum, old[0]);
            } else {
                store_two(a.e, m, f.n, sum.x, sum.y);
                store_two(a.e, m, f.n + 2, sum.z, sum.w);
            }
#pragma unroll
            for (int k = 0; k + 1 < BATCH; k++) {
                y_at[k] = y_at[k + 1];
                old[k] = old[k + 1];
            }
        }
    }
}

#endif

template <bool IS_SPLIT, int WARPS, int ACROSS, int SPAN>
__global__ void __launch_bounds__(32 * WARPS, 1)
    tiles_kernel(const __grid_constant__ struct columns a)
{
#if __CUDA_ARCH__ >= 800
    typedef shape<WARPS, ACROSS, SPAN> S;
    extern __shared__ __align__(128) uint4 memory[];
    unsigned char *ring = (unsigned char *)memory;
    const unsigned lane = threadIdx.x % 32;
    const unsigned warp = threadIdx.x / 32;
    const unsigned m = warp / ACROSS * HEIGHT * 16;
    const unsigned n = warp % ACROSS * SPAN * 8;
    const unsigned m0 = blockIdx.y * S::ROWS;
    const unsigned n0 = blockIdx.x * S::OUTPUTS;
    float totals[HEIGHT][SPAN][4] = {}, sums[HEIGHT][SPAN][4] = {};
    feeder<S> from;
    finisher end;
    unsigned stage = 0, in_slice = 0;

    end.open(a.e, n0 + threadIdx.x % S::FOURS * 4);
    from.open_w(a, n0);
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++)
        from.fetch_w(ring + i * S::STAGE, a, i * UNIT);
    let_next_start();
    wait_for_inputs();
    from.open_x(a, m0);
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        from.fetch_x(ring + i * S::STAGE, a, i * UNIT);
        copies_end();
    }
    for (unsigned k = 0; k < a.K; k += UNIT) {
        const unsigned char *here = ring + stage * S::STAGE;
        const unsigned next = k + (STAGES - 1) * UNIT;

        copies_wait<STAGES - 2>();
        __syncthreads();
        if (next < a.K) {
            unsigned char *to = ring + (stage + STAGES - 1) % STAGES * S::STAGE;

            from.fetch_x(to, a, next);
            from.fetch_w(to, a, next);
        }
        copies_end();
        add_unit<IS_SPLIT, SPAN>(sums, here + m * X_ROW,
                                 here + S::X_BYTES + n * W_ROW);
        stage = (stage + 1) % STAGES;
        in_slice += UNIT;
        if (in_slice < a.slice && k + UNIT < a.K)
            continue;
        in_slice = 0;
#pragma unroll
        for (int i = 0; i < HEIGHT * SPAN * 4; i++) {
            (&totals[0][0][0])[i] += (&sums[0][0][0])[i];
            (&sums[0][0][0])[i] = 0.0f;
        }
    }
    copies_wait<0>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < HEIGHT * 2; i++)
#pragma unroll
        for (int j = 0; j < SPAN; j++)
            *(float2 *)((float *)memory + (m + i * 8 + lane / 4) * S::SUMS_ROW +
                        n + j * 8 +
                        lane % 4 *
                            2) = make_float2(totals[i / 2][j][i % 2 * 2],
                                             totals[i / 2][j][i % 2 * 2 + 1]);
    __syncthreads();
    finish_tile<S>(a, (const float *)memory, end, m0);
#endif
}

template <int WARPS, int ACROSS, int SPAN>
static cudaError_t launch_tiles(const struct vibe_cuda *cuda, struct columns *a)
{
    typedef shape<WARPS, ACROSS, SPAN> S;
    const void
        *kernel = a->x.is_split
                      ? (const void *)tiles_kernel<true, WARPS, ACROSS, SPAN>
                      : (const void *)tiles_kernel<false, WARPS, ACROSS, SPAN>;
    const dim3 grid((a->e.N + S::OUTPUTS - 1) / S::OUTPUTS,
                    (a->n_rows + S::ROWS - 1) / S::ROWS);
    const size_t shared = STAGES * S::STAGE;
    cudaError_t rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);

    if (rc != cudaSuccess)
        return rc;
    return launch_waiting(kernel, grid, S::THREADS, shared, cuda->compute, a);
}

cudaError_t vibe_cuda_tiles(const struct vibe_cuda *cuda, struct columns *a)
{
    const unsigned rows = (a->n_rows + 63) / 64;
    const unsigned enough = (unsigned)cuda->n_sm * 5 / 8;

    if (a->n_rows >= 64 && rows * ((a->e.N + 127) / 128) >= enough)
        return launch_tiles<8, 4, 4>(cuda, a);
    if (a->n_rows >= 64 && rows * ((a->e.N + 63) / 64) >= enough)
        return launch_tiles<8, 4, 2>(cuda, a);
    return cudaErrorNotSupported;
}
