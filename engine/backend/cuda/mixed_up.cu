/*
 * mixed_up.cu - the first half of a block of a codec, where a dialogue has few
 * columns of many channels: they are mixed and normed (mixer.cuh) by those who
 * multiply them with W1, each block of threads what it needs.  Others do the
 * same work, but that is sooner done than another kernel is started.
 *
 * Weights come to shared memory before the inputs are there, those of a lane by
 * itself; those of the products that come next are asked for.  Sums have the
 * order of columns.cuh and codec.cu.
 */
#include "engine/backend/cuda/block.cuh"
#include "engine/backend/cuda/columns.cuh"
#include "engine/backend/cuda/rows.cuh"
#include "engine/backend/cuda/shared.cuh"

enum {
    WARPS = 16,
    THREADS = 32 * WARPS,
    EIGHT = 8, /* rows that a tensor core takes */
    PAD = 4,   /* floats after a row: lanes meet different banks */
};

struct mixed_up {
    struct block block;
    float *hidden;              /* [T][4 C] in two parts */
    const unsigned short *next; /* W1 of the block behind, or NULL */
};

/* A block of threads is two teams of warps, which make 16 H hidden channels of
 * 8 G rows each, every warp a slice of K. */
template <unsigned C> struct shape {
    enum : unsigned {
        H = 1024 / C,
        G = C == 1024 ? 1 : 2,
        ROWS = EIGHT * G,
        OF_TEAM = 16 * H, /* outputs */
        OUTPUTS = WARPS / SLICES * OF_TEAM,
        TILES = 4 * C / OUTPUTS,
        PAIRS = EIGHT * OUTPUTS / 2, /* at once */
        STRIDE = OF_TEAM + PAD,      /* of sums */
        SLICE = C / SLICES,
        UNITS = SLICE / UNIT,
        OF_GROUP = C > SHORT_K ? SLICES / GROUPS : SLICES,
        WIDTH = C / 4, /* threads that mix a row */
        WARPS_OF_ROW = WIDTH / 32,
        STRIP = ROWS * WIDTH / THREADS, /* rows of a thread */
    };
};

template <unsigned C> struct memory {
    typedef shape<C> S;

    float normed[S::ROWS][C + PAD]; /* in two parts */
    float squares[2][EIGHT + PAST][WARPS];
    union {
        /* 16 outputs by UNIT, as lanes take them */
        uint4 weights[WARPS][S::UNITS][S::H][2][32];
        float sums[WARPS][S::ROWS][S::STRIDE];
    };
};

#if __CUDA_ARCH__ >= 800

/* A warp's weights: of 16 outputs rows lane / 4 and 8 more to each lane. */
template <unsigned C>
__device__ static inline void copy_weights(memory<C> &shared,
                                           const struct block &a, unsigned tile)
{
    typedef shape<C> S;
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned n = tile % S::TILES * S::OUTPUTS +
                       warp / SLICES * S::OF_TEAM + lane / 4;
    const unsigned short *w = a.up + (size_t)n * C + warp % SLICES * S::SLICE +
                              lane % 4 * 8;

#pragma unroll
    for (unsigned u = 0; u < S::UNITS; u++)
#pragma unroll
        for (unsigned h = 0; h < 2 * S::H; h++)
            copy_async<16>(&shared.weights[warp][u][h / 2][h % 2][lane],
                           w + 8 * h * C + u * UNIT, true);
    copies_end();
}

/* Ask for a matrix of 4 C by C, some lines a thread. */
template <unsigned C>
__device__ static inline void prefetch_matrix(const unsigned short *w)
{
    for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < 4 * C * C / 64;
         i += gridDim.x * THREADS)
        prefetch(w + i * 64);
}

/* Ask for the past of a dialogue's first columns, where this tile has some. */
template <unsigned C>
__device__ static inline void prefetch_past(const struct mixer &a,
                                            unsigned tile)
{
    const unsigned i = threadIdx.x * 32;

    if (tile / shape<C>::TILES * shape<C>::ROWS < PAST && i < PAST * C)
        prefetch(a.past.data + i);
}

/* The factors of COUNT rows whose squares the threads of a row have parts of,
 * in all of them. */
template <unsigned C, unsigned COUNT>
__device__ static inline void find_factors(float (&factor)[COUNT],
                                           float (*squares)[WARPS],
                                           const vec<4> *rows,
                                           const struct mixer &a)
{
    enum : unsigned {
        OF_ROW = shape<C>::WARPS_OF_ROW,
        N = COUNT > 8   ? 16
            : COUNT > 4 ? 8
            : COUNT > 2 ? 4
                        : 2,
    };
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float v[N] = {}, sums[OF_ROW] = {};

#pragma unroll
    for (unsigned i = 0; i < COUNT; i++)
        v[i] = add_squares<4>(0.0f, rows[i]);
    v[0] = sum_lanes<16>(v);
    if (lane % (32 / N) == 0 && lane / (32 / N) < COUNT)
        squares[lane / (32 / N)][warp] = v[0];
    __syncthreads();
    if (lane < COUNT)
#pragma unroll
        for (unsigned i = 0; i < OF_ROW; i++)
            sums[i] = squares[lane][warp / OF_ROW * OF_ROW + i];
#pragma unroll
    for (unsigned n = OF_ROW / 2; n > 0; n /= 2)
#pragma unroll
        for (unsigned i = 0; i < n; i++)
            sums[i] += sums[i + n];
    sums[0] = factor_for<C>(sums[0], a);
#pragma unroll
    for (unsigned i = 0; i < COUNT; i++)
        factor[i] = __shfl_sync(0xFFFFFFFFu, sums[0], i);
}

/* Mix and norm the rows of a tile of W1; those past the last are zeros.  The
 * tiles of the first few outputs keep what comes of it, a row each. */
template <unsigned C>
__device__ static inline void mix_rows(memory<C> &shared, const struct mixer &a,
                                       const weights<4> &w, unsigned tile)
{
    typedef shape<C> S;
    enum : unsigned {
        STRIP = S::STRIP,
        KEEPERS = S::TILES < EIGHT ? S::TILES : EIGHT,
    };
    const unsigned c = threadIdx.x % S::WIDTH * 4;
    const unsigned first = threadIdx.x / S::WIDTH * STRIP; /* of the tile */
    const unsigned t = tile / S::TILES * S::ROWS + first;
    const unsigned keeper = tile % S::TILES;
    const float *past = a.past.data + t * C + c;
    const float *x = a.x.data + (ptrdiff_t)(t * C + c) - (ptrdiff_t)(PAST * C);
    vec<4> column[STRIP + PAST], y[STRIP];
    float factor[STRIP + PAST], next[STRIP];

#pragma unroll
    for (unsigned j = 0; j < STRIP + PAST; j++) {
        column[j] = {};
        if (t + j < a.x.T + PAST)
            column[j] = read<4>((t + j < PAST ? past : x) + j * C);
    }
    find_factors<C, STRIP + PAST>(factor, shared.squares[0], column, a);
#pragma unroll
    for (unsigned j = 0; j < STRIP + PAST; j++)
        mix_next(y, column, j, factor[j], t, w);
#pragma unroll
    for (unsigned j = 0; j < STRIP; j++) {
        const bool is_kept = t + j < a.x.T && (t + j) % KEEPERS == keeper;

        if (is_kept)
            write_out<4>(row_at(a.y, 0, t + j) + c, y[j]);
        if (is_kept && t + j + PAST >= a.x.T)
            write_out<4>(row_at(a.state, 0, t + j + PAST - a.x.T) + c,
                         column[PAST + j]);
    }
    find_factors<C, STRIP>(next, shared.squares[1], y, a);
#pragma unroll
    for (unsigned j = 0; j < STRIP; j++)
        write_kept<4>(&shared.normed[first + j][c],
                      scale<4>(y[j], next[j], w.next_norm), true);
    __syncthreads();
}

/* The products of a warp's slice. */
template <unsigned C>
__device__ static inline void multiply_slice(
    float c[shape<C>::H][shape<C>::G][4], const memory<C> &shared)
{
    typedef shape<C> S;
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float
        *x = &shared.normed[lane / 4][warp % SLICES * S::SLICE + lane % 4 * 8];

#pragma unroll
    for (unsigned u = 0; u < S::UNITS; u++) {
        float4 v[S::G][2];

#pragma unroll
        for (unsigned g = 0; g < S::G; g++)
#pragma unroll
            for (unsigned i = 0; i < 2; i++)
                v[g][i] = *(const float4 *)(x + g * EIGHT * (C + PAD) +
                                            u * UNIT + 4 * i);
#pragma unroll
        for (unsigned h = 0; h < S::H; h++) {
            const uint4 w[1][2] = {shared.weights[warp][u][h][0][lane],
                                   shared.weights[warp][u][h][1][lane]};

            multiply_unit<1, S::G>(c + h, w, v, true);
        }
    }
}

/* Leave a warp's sums for the others: outputs lane / 4 and 8 more of rows
 * 2 (lane % 4) and the next. */
template <unsigned C>
__device__ static inline void leave_sums(
    memory<C> &shared, const float c[shape<C>::H][shape<C>::G][4])
{
    typedef shape<C> S;
    const unsigned lane = threadIdx.x % 32;
    float *to = &shared.sums[threadIdx.x / 32][lane % 4 * 2][lane / 4];

#pragma unroll
    for (unsigned h = 0; h < S::H; h++)
#pragma unroll
        for (unsigned g = 0; g < S::G; g++)
#pragma unroll
            for (unsigned i = 0; i < 4; i++)
                to[(g * EIGHT + i % 2) * S::STRIDE + 16 * h +
                   i / 2 * 8] = c[h][g][i];
}

/* Outputs n and the next of row m, from the slices of all warps. */
template <unsigned C>
__device__ static inline float2 add_slices(const memory<C> &shared, unsigned m,
                                           unsigned n)
{
    typedef shape<C> S;
    const unsigned first = n / S::OF_TEAM * SLICES;
    float2 sum = make_float2(0.0f, 0.0f), group = sum;

#pragma unroll
    for (unsigned s = 0; s < SLICES; s++) {
        const float2 v = *(const float2 *)&shared
                              .sums[first + s][m][n % S::OF_TEAM];

        group.x += v.x;
        group.y += v.y;
        if ((s + 1) % S::OF_GROUP)
            continue;
        sum.x += group.x;
        sum.y += group.y;
        group = make_float2(0.0f, 0.0f);
    }
    return sum;
}

#endif

/* bytes: the weights once for each tile of rows, the columns once for each of
 * hidden channels, from the caches but for the first. */
template <unsigned C>
__global__ void __launch_bounds__(THREADS, 1)
    mixed_up_kernel(const __grid_constant__ struct mixed_up a)
{
#if __CUDA_ARCH__ >= 800
    typedef shape<C> S;
    extern __shared__ __align__(128) unsigned char bytes[];
    memory<C> &shared = *(memory<C> *)bytes;
    const unsigned m = threadIdx.x / (S::OUTPUTS / 2);
    const unsigned n = threadIdx.x % (S::OUTPUTS / 2) * 2;
    const unsigned to_m = blockIdx.x / S::TILES * S::ROWS + m;
    const unsigned to_n = blockIdx.x % S::TILES * S::OUTPUTS + n;
    const weights<4> w = load_weights<4>(a.block.mixer,
                                         threadIdx.x % S::WIDTH * 4);
    const float2 bias = __ldg((const float2 *)(a.block.up_bias + to_n));
    float c[S::H][S::G][4] = {};

    let_next_start();
    copy_weights<C>(shared, a.block, blockIdx.x);
    prefetch_matrix<C>(a.block.down);
    if (a.next)
        prefetch_matrix<C>(a.next);
    prefetch_past<C>(a.block.mixer, blockIdx.x);
    wait_for_inputs();
    mix_rows<C>(shared, a.block.mixer, w, blockIdx.x);
    copies_wait<0>();
    multiply_slice<C>(c, shared);
    __syncthreads(); /* the weights have been read */
    leave_sums<C>(shared, c);
    __syncthreads();
#pragma unroll
    for (unsigned g = 0; g < S::ROWS; g += EIGHT)
        if (threadIdx.x < S::PAIRS && to_m + g < a.block.mixer.x.T) {
            const float2 sum = add_slices<C>(shared, m + g, n);
            float *to = a.hidden + (size_t)(to_m + g) * 4 * C + to_n;

            *(float2 *)to = make_float2(kept(gelu(sum.x + bias.x), true),
                                        kept(gelu(sum.y + bias.y), true));
        }
#endif
}

template <unsigned C>
static cudaError_t launch_mixed_up(const struct vibe_cuda *cuda,
                                   struct mixed_up *a)
{
    typedef shape<C> S;
    const void *kernel = (const void *)mixed_up_kernel<C>;
    const size_t shared = sizeof(memory<C>);
    const unsigned n_tiles = S::TILES *
                             ((a->block.mixer.x.T + S::ROWS - 1) / S::ROWS);
    cudaError_t rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);

    return rc == cudaSuccess ? launch_waiting(kernel, dim3(n_tiles), THREADS,
                                              shared, cuda->compute, a)
                             : rc;
}

bool vibe_cuda_is_mixed_up(const struct vibe_cuda *cuda,
                           const struct vibe_block_call *call)
{
    const struct vibe_tensor *x = &call->x;
    const size_t most = 16 << 20; /* 16 columns of 1024 channels */
    const size_t largest = max(sizeof(memory<1024>), sizeof(memory<512>));

    return cuda->cc >= 80 && vibe_cuda_compiled_for() >= 80 && x->B == 1 &&
           x->T >= PAST && x->T * x->C * x->C <= most &&
           (x->C == 1024 || x->C == 512 || x->C == 256) &&
           x->stride_t == x->C && call->past.stride_t == x->C &&
           call->w->up.N == 4 * x->C && call->w->up.bias &&
           shared_limit(cuda) >= largest;
}

cudaError_t vibe_cuda_mixed_up(const struct vibe_cuda *cuda,
                               const struct vibe_block_call *call,
                               const struct vibe_block_call *next,
                               const struct vibe_block_room *room)
{
    struct mixed_up a = {
        block_of(call, room->normed), (float *)room->hidden->data,
        next ? (const unsigned short *)next->w->up.part[0].data : NULL};

    if (call->x.C == 1024)
        return launch_mixed_up<1024>(cuda, &a);
    return call->x.C == 512 ? launch_mixed_up<512>(cuda, &a)
                            : launch_mixed_up<256>(cuda, &a);
}
