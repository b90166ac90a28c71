/*
 * gemm_tiles.cu - products with the columns of a codec (columns.cuh) that are
 * many: bound by arithmetic, and by what the second cache gives.
 *
 * A block makes ROWS by OUTPUTS sums, a warp 32 by SPAN of them; units of x and
 * of the weights come through a ring in shared memory.
 */
#include "engine/backend/cuda/columns.cuh"
#include "engine/backend/cuda/shared.cuh"

enum {
    DEPTH = 4,        /* of a ring; less where there is no room */
    HEIGHT = 2,       /* of a warp, in groups of 16 rows */
    X_ROW = 4 * UNIT, /* bytes in a stage */
    W_ROW = 2 * UNIT,
};

/* SPAN in eights; a team's warps are beside each other by ACROSS. */
template <int N_TEAMS, int WARPS, int N_ACROSS, int N_SPAN> struct shape {
    enum {
        TEAMS = N_TEAMS,
        ACROSS = N_ACROSS,
        SPAN = N_SPAN,
        THREADS = 32 * WARPS, /* of a team */
        ALL = TEAMS * THREADS,
        BLOCKS = ALL > 256               ? 1
                 : ALL > 128 || SPAN > 4 ? 2
                                         : 3, /* at least */
        ROWS = WARPS / ACROSS * HEIGHT * 16,
        OUTPUTS = ACROSS * SPAN * 8,
        X_BYTES = ROWS * X_ROW,
        STAGE = X_BYTES + OUTPUTS * W_ROW,
        SUMS_ROW = OUTPUTS + 8, /* floats: 4 rows meet different banks */
        SUMS = ROWS * SUMS_ROW, /* of a team */
        FOURS = OUTPUTS / 4,    /* of a row; a thread has one of them */
        STEP = ALL / FOURS,     /* from a thread's row to the next */
        EACH = ROWS / STEP,     /* rows of a thread */
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
    unsigned x[N_X]; /* where its rows begin */
    const unsigned short *w;
    unsigned x_to, w_to; /* in a stage */
    unsigned rows_left;  /* of the weights, from w's on */

    __device__ inline void open_w(const columns &a, unsigned n0)
    {
        const unsigned row = threadIdx.x % S::THREADS / 4;

        w = a.w + (size_t)(n0 + row) * a.stride + threadIdx.x % 4 * 8;
        w_to = S::X_BYTES + row * W_ROW + threadIdx.x % 4 * 16;
        rows_left = n0 + row < a.e.N ? a.e.N - n0 - row : 0;
        keep(w);
        keep(w_to);
        keep(rows_left);
    }

    __device__ inline void open_x(const columns &a, unsigned m0)
    {
        const unsigned row = threadIdx.x % S::THREADS / 8;
        const unsigned piece = threadIdx.x % 8;

        x_to = x_at(row, piece); /* X_STEP is even */
        keep(x_to);
#pragma unroll
        for (int i = 0; i < N_X; i++) {
            x[i] = (unsigned)row_at(a.x, a.e.T,
                                    min(m0 + row + i * X_STEP, a.n_rows - 1)) +
                   piece * 4;
            keep(x[i]);
        }
    }

    /* stage: an address in shared memory */
    __device__ inline void fetch_w(unsigned stage, const columns &a,
                                   unsigned k) const
    {
        const unsigned left = k + threadIdx.x % 4 * 8 < a.stride ? rows_left
                                                                 : 0;

#pragma unroll
        for (int i = 0; i < N_W; i++)
            copy_to_shared(stage + w_to + i * W_STEP * W_ROW,
                           w + k + (size_t)(i * W_STEP) * a.stride,
                           i * W_STEP < left);
    }

    __device__ inline void fetch_x(unsigned stage, const columns &a,
                                   unsigned k) const
    {
        const bool is_in = k + threadIdx.x % 8 * 4 < a.K;

#pragma unroll
        for (int i = 0; i < N_X; i++)
            copy_to_shared(stage + x_to + i * X_STEP * X_ROW,
                           a.x.data + (x[i] + k), is_in);
    }
};

/* A warp's way through stages: where in one its lanes read. */
struct reader {
    unsigned x, w; /* the first row's first piece, the first output's */

    __device__ inline void open(unsigned m, unsigned n, unsigned x_bytes)
    {
        const unsigned row = threadIdx.x % 32 / 4;
        const unsigned q = threadIdx.x % 4;

        x = x_at(m + row, 2 * q);
        w = x_bytes + (n + row) * W_ROW + q * 16;
        keep(x);
        keep(w);
    }

    /* Add a unit, at an address in shared memory, to the sums. */
    template <bool IS_SPLIT, int SPAN>
    __device__ inline void add_unit(float sums[HEIGHT][SPAN][4],
                                    unsigned stage) const
    {
        unsigned v[SPAN][4];

#pragma unroll
        for (int j = 0; j < SPAN; j++)
            read_shared(v[j], stage + w + j * 8 * W_ROW);
#pragma unroll
        for (int step = 0; step < 2; step++) {
            /* the second piece of a lane is beside the first, see x_at */
            const unsigned from = stage + (x ^ step * 16);
            unsigned parts[HEIGHT][2][4];

#pragma unroll
            for (int i = 0; i < HEIGHT * 2; i++) {
                unsigned(&high)[4] = parts[i / 2][0];
                unsigned(&low)[4] = parts[i / 2][1];
                unsigned u[4];

                read_shared(u, from + i * 8 * X_ROW);
                read_split(
                    high[i % 2], low[i % 2],
                    make_float2(__uint_as_float(u[0]), __uint_as_float(u[1])),
                    IS_SPLIT);
                read_split(
                    high[2 + i % 2], low[2 + i % 2],
                    make_float2(__uint_as_float(u[2]), __uint_as_float(u[3])),
                    IS_SPLIT);
            }
#pragma unroll
            for (int i = 0; i < 2 * HEIGHT * SPAN; i++) {
                const int j = i % SPAN, h = i / SPAN % HEIGHT;

                multiply(sums[h][j], parts[h][i / SPAN / HEIGHT],
                         v[j] + 2 * step);
            }
        }
    }
};

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

__device__ static inline float4 plus(const float4 &a, const float4 &b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* What n teams have left of four outputs, one after the other. */
__device__ static inline float4 add_teams(const float *sums, unsigned n,
                                          unsigned distance)
{
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

#pragma unroll 1
    for (unsigned i = 0; i < n; i++, sums += distance)
        sum = plus(sum, *(const float4 *)sums);
    return sum;
}

/*
 * Leave the sums of this part of K in memory.  Returns true in the block that
 * comes last, with those of all parts where one team's were.
 */
template <class S>
__device__ static inline bool meet(const columns &a, float *sums)
{
    __shared__ unsigned arrived;
    const unsigned tile = blockIdx.y * gridDim.x + blockIdx.x;
    float4 *partial = (float4 *)a.partial +
                      (size_t)tile * a.parts * S::EACH * S::ALL + threadIdx.x;

    sums += threadIdx.x / S::FOURS * S::SUMS_ROW + threadIdx.x % S::FOURS * 4;
#pragma unroll
    for (int i = 0; i < S::EACH; i++)
        partial[(blockIdx.z * S::EACH + i) * S::ALL] = add_teams(
            sums + i * S::STEP * S::SUMS_ROW, S::TEAMS, S::SUMS);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        arrived = atomicAdd(&a.done[tile], 1) + 1;
    __syncthreads();
    if (arrived != a.parts)
        return false;
    __threadfence();
    if (threadIdx.x == 0)
        a.done[tile] = 0;
#pragma unroll
    for (int i = 0; i < S::EACH; i++) {
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

        for (unsigned part = 0; part < a.parts; part++)
            sum = plus(sum, __ldcg(&partial[(part * S::EACH + i) * S::ALL]));
        *(float4 *)(sums + i * S::STEP * S::SUMS_ROW) = sum;
    }
    return true;
}

/* Finish the sums that so many teams have of a tile.  Loops stay short: a block
 * runs through them once, and would wait for instructions. */
template <class S>
__device__ static inline void finish_tile(const columns &a, const float *sums,
                                          unsigned n_teams, const finisher &f,
                                          unsigned m0)
{
    enum { BATCH = S::EACH < 4 ? S::EACH : 4 };
    const float *from = sums + threadIdx.x / S::FOURS * S::SUMS_ROW +
                        threadIdx.x % S::FOURS * 4;
    unsigned m = m0 + threadIdx.x / S::FOURS;
    unsigned t = m % a.e.T;
    size_t dialogue = m / a.e.T * a.e.y.stride_b;

    if (f.n >= a.e.N)
        return;
#pragma unroll 1
    for (int i = 0; i < S::EACH; i += BATCH) {
        float4 old[BATCH];
        unsigned y_at[BATCH];

#pragma unroll
        for (int j = 0; j < BATCH; j++) {
            y_at[j] = (unsigned)(dialogue + t * a.e.y.stride_t);
            if (f.is_even && m + j * S::STEP < a.n_rows)
                old[j] = f.read(a.e, y_at[j]);
            for (t += S::STEP; t >= a.e.T; t -= a.e.T)
                dialogue += a.e.y.stride_b;
        }
#pragma unroll 1
        for (int j = 0; j < BATCH;
             j++, m += S::STEP, from += S::STEP * S::SUMS_ROW) {
            const float4 sum = add_teams(from, n_teams, S::SUMS);

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

/* Wait for the rest of a team. */
template <class S> __device__ static inline void meet_team(unsigned team)
{
    if (S::TEAMS == 1)
        __syncthreads();
    else
        asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "n"((int)S::THREADS)
                     : "memory");
}

#endif

template <bool IS_SPLIT, class S>
__global__ void __launch_bounds__(S::ALL, S::BLOCKS)
    tiles_kernel(const __grid_constant__ struct columns a)
{
#if __CUDA_ARCH__ >= 800
    enum { SPAN = S::SPAN };
    extern __shared__ __align__(128) uint4 memory[];
    const unsigned team = threadIdx.x / S::THREADS;
    const unsigned lane = threadIdx.x % 32;
    const unsigned warp = threadIdx.x % S::THREADS / 32;
    const unsigned m = warp / S::ACROSS * HEIGHT * 16;
    const unsigned n = warp % S::ACROSS * SPAN * 8;
    const unsigned m0 = blockIdx.y * S::ROWS;
    const unsigned n0 = blockIdx.x * S::OUTPUTS;
    const unsigned first = (blockIdx.z * S::TEAMS + team) * a.of_team;
    const unsigned k_end = min(first + a.of_team, a.K);
    const unsigned ahead = (a.depth - 1) * UNIT;
    unsigned ring = shared_address(memory) + team * a.depth * S::STAGE;
    float *left = (float *)memory + team * S::SUMS;
    float totals[HEIGHT][SPAN][4] = {}, sums[HEIGHT][SPAN][4] = {};
    feeder<S> from;
    reader at;
    finisher end;
    unsigned stage = 0, in_slice = 0, ring_bytes = a.depth * S::STAGE;

    from.open_w(a, n0);
    for (unsigned k = first; k < min(first + ahead, k_end); k += UNIT)
        from.fetch_w(ring + (k - first) / UNIT * S::STAGE, a, k);
    let_next_start();
    wait_for_inputs();
    from.open_x(a, m0);
    at.open(m, n, S::X_BYTES);
    keep(ring);
    keep(ring_bytes);
    for (unsigned k = first; k < first + ahead; k += UNIT) {
        if (k < k_end)
            from.fetch_x(ring + (k - first) / UNIT * S::STAGE, a, k);
        copies_end();
    }
    for (unsigned k = first; k < k_end; k += UNIT) {
        const unsigned free = (stage ? stage : ring_bytes) - S::STAGE;

        if (a.depth == 2)
            copies_wait<0>();
        else
            copies_wait<DEPTH - 2>();
        meet_team<S>(team);
        if (k + ahead < k_end) {
            from.fetch_x(ring + free, a, k + ahead);
            from.fetch_w(ring + free, a, k + ahead);
        }
        copies_end();
        at.add_unit<IS_SPLIT, S::SPAN>(sums, ring + stage);
        stage += S::STAGE;
        stage = stage < ring_bytes ? stage : 0;
        in_slice += UNIT;
        if (in_slice < a.slice && k + UNIT < k_end)
            continue;
        in_slice = 0;
#pragma unroll
        for (int i = 0; i < HEIGHT * SPAN * 4; i++) {
            (&totals[0][0][0])[i] += (&sums[0][0][0])[i];
            (&sums[0][0][0])[i] = 0.0f;
        }
    }
    end.open(a.e, n0 + threadIdx.x % S::FOURS * 4);
    copies_wait<0>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < HEIGHT * 2; i++)
#pragma unroll
        for (int j = 0; j < SPAN; j++)
            *(float2 *)(left + (m + i * 8 + lane / 4) * S::SUMS_ROW + n +
                        j * 8 +
                        lane % 4 *
                            2) = make_float2(totals[i / 2][j][i % 2 * 2],
                                             totals[i / 2][j][i % 2 * 2 + 1]);
    __syncthreads();
    if (S::TEAMS > 1 && a.parts > 1 && !meet<S>(a, (float *)memory))
        return;
    finish_tile<S>(a, (const float *)memory, a.parts > 1 ? 1 : S::TEAMS, end,
                   m0);
#endif
}

template <class S>
static cudaError_t launch_tiles(const struct vibe_cuda *cuda, struct columns *a)
{
    const void *kernel = a->x.is_split ? (const void *)tiles_kernel<true, S>
                                       : (const void *)tiles_kernel<false, S>;
    const dim3 grid((a->e.N + S::OUTPUTS - 1) / S::OUTPUTS,
                    (a->n_rows + S::ROWS - 1) / S::ROWS, a->parts);
    const size_t most = (size_t)S::TEAMS * DEPTH * S::STAGE;
    size_t shared;
    cudaError_t rc;

    a->depth = most <= shared_limit(cuda) ? DEPTH : 2;
    shared = most / DEPTH * a->depth;
    rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (rc != cudaSuccess)
        return rc;
    return launch_waiting(kernel, grid, S::ALL, shared, cuda->compute, a);
}

bool vibe_cuda_is_tiles(const struct vibe_cuda *cuda, const struct columns *a)
{
    const size_t n_blocks = (size_t)((a->n_rows + 63) / 64) *
                            ((a->e.N + 63) / 64) * a->parts;

    return a->n_rows >= 64 &&
           n_blocks * 8 >= (size_t)cuda->n_sm * (a->groups > 1 ? 3 : 5);
}

cudaError_t vibe_cuda_tiles(const struct vibe_cuda *cuda, struct columns *a)
{
    if (a->groups > 1)
        return launch_tiles<shape<4, 4, 2, 4>>(cuda, a);
    return launch_tiles<shape<1, 4, 2, 4>>(cuda, a);
}
