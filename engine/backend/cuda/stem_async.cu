/*
 * stem_async.cu - the widest blocks of a codec for one column each of several
 * dialogues, by the products of sm_90a.
 *
 * Each product is bound by reading its weights once, and by what a
 * multiprocessor gets of x, all of it each: so x comes as products take it, in
 * two parts and their order, to shared memory in whole tiles, half of which
 * each of two blocks, a cluster, has copied for both.  A block of threads has
 * 64 outputs and 32 tiles of K, of W2 a quarter, four groups of four warps
 * eight each; almost all of their weights are on their way before the inputs
 * are there.  Weights are the 64-row operand of wgmma, from registers; its
 * columns are the high parts of eight rows, their low ones, and so on.
 *
 * Sums have the order of decode.cuh, so that a column gets the bits that it
 * gets from gemv.cu.
 */
#include "engine/backend/cuda/block.cuh"
#include "engine/backend/cuda/boxes.cuh"
#include "engine/backend/cuda/decode.cuh"
#include "engine/backend/cuda/products.cuh"
#include "engine/backend/cuda/rows.cuh"
#include "engine/backend/cuda/stem.h"

enum {
    WIDTH = 2048, /* channels */
    ROWS = 16,    /* of x */
    OUTPUTS = 64, /* of a block of threads */
    GROUPS = 4,   /* of a block of threads, and parts of W2's K */
    GROUP = 128,  /* threads that multiply together */
    THREADS = GROUPS * GROUP,
    TILES = 8,                  /* of a group */
    PLACED = 3,                 /* tiles of a warp in shared memory at once */
    HELD = 3,                   /* the same in registers, those behind them */
    X_TILE = ROWS * TILE_K * 4, /* bytes */
    X_STEP = X_TILE / 4,        /* of 16 neighbours */
    X_HALF = X_STEP / 2,        /* of the first eight of a step */
    CORE = 128,                 /* of eight of them of eight columns */
    W_TILE = TILE_N * TILE_K * 2,
    W_ROW = TILE_K * 2,
    X_BYTES = GROUPS * TILES * X_TILE,
    SHARED = X_BYTES + THREADS / 32 * PLACED * W_TILE,
    TABLE_ROW = OUTPUTS + 4, /* floats: lanes meet different banks */
};

struct stem {
    const unsigned short *w;
    const unsigned char *x; /* woven */
    unsigned char *hidden;  /* the same, of W1 */
    const float *bias, *gamma;
    struct chunk y; /* of W2 */
    unsigned n_rows;
    /* where the sums of parts meet */
    float2 *partial;
    unsigned *done;
};

#if __CUDA_ARCH__ >= 800

/* Where the high parts of channels c and the next, c even, of row m are in
 * woven x; the low ones are a core further. */
__device__ static inline unsigned woven_at(unsigned m, unsigned c)
{
    const unsigned step = c % 16 / 4, four = c % TILE_K / 16;

    return c / TILE_K * X_TILE + step * X_STEP + c % 4 / 2 * X_HALF +
           m / 8 * 2 * CORE + m % 8 * 16 + (four ^ step / 2) * 4;
}

__device__ static inline void weave(unsigned char *x, unsigned m, unsigned c,
                                    float2 v)
{
    unsigned *to = (unsigned *)(x + woven_at(m, c));
    unsigned high, low;

    split(high, low, v);
    to[0] = high;
    to[CORE / 4] = low;
}

#endif

/* A block of threads mixes a column; normed it is woven. */
__global__ __launch_bounds__(WIDTH / 4) void stem_mixer(
    const __grid_constant__ struct mixer a, unsigned char *x)
{
#if __CUDA_ARCH__ >= 800
    const unsigned b = blockIdx.x, c = threadIdx.x * 4;
    const weights<4> w = load_weights<4>(a, c);
    vec<4> column[TAPS], y;
    float squares[TAPS] = {}, sum[1];

    let_next_start();
    wait_for_inputs();
    load_columns<4>(column, a, b, 0, c);
    sum[0] = add_squares<4>(0.0f, column[PAST]);
    sum_rows<1, 0>(sum, WIDTH / 4);
    squares[PAST] = sum[0];
    y = column[PAST];
    norm_columns<4>(column, squares, a, b, 0, c, w.norm);
    y = mix<4>(y, column, w);
    write_out<4>(row_at(a.y, b, 0) + c, y);
    sum[0] = add_squares<4>(0.0f, y);
    sum_rows<1, 1>(sum, WIDTH / 4);
    y = scale<4>(y, factor_of(sum[0], a), w.next_norm);
    weave(x, b, c, make_float2(y.e[0], y.e[1]));
    weave(x, b, c + 2, make_float2(y.e[2], y.e[3]));
#endif
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Which tile of K is the nth of a group: W1 has eight slices, of which a group
 * has two, one after the other, and W2 sixteen. */
template <bool IS_DOWN>
__device__ static inline unsigned tile_of(unsigned group, unsigned n)
{
    return IS_DOWN ? blockIdx.y + GROUPS * group + MANY_SLICES * n
                   : group + n / 4 * GROUPS + SLICES * (n % 4);
}

/* The pieces of eight neighbours that a lane has of a tile's row: those of the
 * first two steps, and of the last two, in which lanes change places. */
__device__ static inline unsigned first_piece(void)
{
    return threadIdx.x % 4 * 2;
}

__device__ static inline unsigned second_piece(void)
{
    return first_piece() + 1 ^ 2;
}

/* A warp's weights: 16 rows of the matrix. */
template <bool IS_DOWN> struct feeder {
    enum { K = IS_DOWN ? 4 * WIDTH : WIDTH };
    const unsigned short *w; /* its first row */
    unsigned ring, group;

    __device__ inline void open(const struct stem &a, unsigned memory)
    {
        const unsigned warp = threadIdx.x / 32;

        group = warp / 4;
        w = a.w + (size_t)(blockIdx.x * OUTPUTS + warp % 4 * TILE_N) * K;
        ring = memory + X_BYTES + warp * PLACED * W_TILE;
    }

    /* Start copying the nth tile to shared memory. */
    __device__ inline void fetch(unsigned n) const
    {
        const unsigned row = threadIdx.x % 32 / 8, piece = threadIdx.x % 8;
        const unsigned short *from = w + (size_t)row * K +
                                     tile_of<IS_DOWN>(group, n) * TILE_K +
                                     piece * 8;
        const unsigned to = ring + n % PLACED * W_TILE + row * W_ROW +
                            (piece ^ row % 2) * 16;

#pragma unroll
        for (unsigned i = 0; i < TILE_N; i += 4)
            copy_to_shared(to + i * W_ROW, from + (size_t)i * K, true);
        copies_end();
    }

    /* Read it to registers; two lanes share what is read at a time. */
    __device__ inline void hold(uint4 (&v)[4], unsigned n) const
    {
        const unsigned lane = threadIdx.x % 32;
        const bool is_odd = lane % 2;
        const unsigned short *from = w + (size_t)(lane / 4) * K +
                                     tile_of<IS_DOWN>(group, n) * TILE_K;
        const unsigned piece[2] = {is_odd ? second_piece() : first_piece(),
                                   is_odd ? first_piece() : second_piece()};

#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            v[i] = __ldg((const uint4 *)(from + (size_t)(i / 2 * 8) * K +
                                         piece[i % 2] * 8));
    }

    /* Operands of the four steps of a tile. */
    __device__ static inline void arrange(unsigned (&a)[4][4],
                                          const uint4 &upper,
                                          const uint4 &lower, unsigned step)
    {
        const unsigned to[2][4] = {{upper.x, lower.x, upper.y, lower.y},
                                   {upper.z, lower.z, upper.w, lower.w}};

#pragma unroll
        for (unsigned j = 0; j < 8; j++)
            a[step + j / 4][j % 4] = to[j / 4][j % 4];
    }

    __device__ inline void take_held(unsigned (&a)[4][4],
                                     const uint4 (&v)[4]) const
    {
        const bool is_odd = threadIdx.x % 2;

#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            const uint4 upper = is_odd == (half == 0) ? v[1] : v[0];
            const uint4 lower = is_odd == (half == 0) ? v[3] : v[2];

            arrange(a, upper, lower, 2 * half);
        }
    }

    __device__ inline void take_placed(unsigned (&a)[4][4], unsigned n) const
    {
        const unsigned row = threadIdx.x % 32 / 4;
        const unsigned from = ring + n % PLACED * W_TILE + row * W_ROW;

        __syncwarp();
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            const unsigned piece = half ? second_piece() : first_piece();
            const unsigned at = from + (piece ^ row % 2) * 16;
            uint4 upper, lower;

            read_shared((unsigned *)&upper, at);
            read_shared((unsigned *)&lower, at + 8 * W_ROW);
            arrange(a, upper, lower, 2 * half);
        }
        __syncwarp();
    }
};

/* Start multiplying the weights of a tile by x. */
__device__ static inline void start_products(float (&c)[16],
                                             const unsigned (&a)[4][4],
                                             unsigned x, bool is_first)
{
    products_begin();
#pragma unroll
    for (unsigned step = 0; step < 4; step++)
        multiply_64<0>(c, a[step], columns_at(x + step * X_STEP, X_HALF),
                       step > 0 || !is_first);
    products_end();
}

/* Add the sums of a fold, high and low: a lane has outputs lane / 4 and 8 more
 * of its warp's, of rows 2 (lane % 4) and one more of every eight. */
__device__ static inline void end_fold(float (&sums)[8], float (&c)[16])
{
    products_wait<0>();
    settle(c);
#pragma unroll
    for (unsigned i = 0; i < 8; i++)
        sums[i] += c[i / 4 * 8 + i % 4] + c[i / 4 * 8 + 4 + i % 4];
}

/* A group's sums; x: its tiles, whose gates follow each other. */
template <bool IS_DOWN>
__device__ static inline void add_tiles(float (&sums)[8],
                                        const feeder<IS_DOWN> &from,
                                        const uint4 (&held)[HELD][4],
                                        unsigned x, unsigned gates)
{
    enum { FOLD = IS_DOWN ? TILES : TILES / 2, LATER = PLACED + HELD };
    float c[16] = {};

#pragma unroll
    for (unsigned n = 0; n < TILES; n++) {
        unsigned a[4][4];

        if (n < PLACED)
            copies_wait<PLACED - 1>();
        else if (n + 1 < TILES)
            copies_wait<1>();
        else
            copies_wait<0>();
        if (n < PLACED || n >= LATER)
            from.take_placed(a, n);
        else
            from.take_held(a, held[n - PLACED]);
        if (n + LATER < TILES)
            from.fetch(n + LATER);
        wait_at(gates + n * 8, 0);
        __syncwarp();
        start_products(c, a, x + n * X_TILE, n % FOLD == 0);
        if ((n + 1) % FOLD == 0)
            end_fold(sums, c);
        else
            products_wait<1>();
    }
}

/* Leave a group's sums where they meet, [GROUPS][ROWS][TABLE_ROW]. */
__device__ static inline void leave(float *table, const float (&sums)[8])
{
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    table += (warp / 4 * ROWS + lane % 4 * 2) * TABLE_ROW + warp % 4 * TILE_N +
             lane / 4;
#pragma unroll
    for (unsigned i = 0; i < 8; i++)
        table[(i / 4 * 8 + i % 2) * TABLE_ROW + i % 4 / 2 * 8] = sums[i];
}

__device__ static inline float2 plus(float2 a, float2 b)
{
    return make_float2(a.x + b.x, a.y + b.y);
}

/* Add up those of all parts of K; whether this block came last, and has
 * them. */
__device__ static inline bool meet(float2 &sum, const struct stem &a)
{
    __shared__ bool is_last;
    float2 *all = a.partial + blockIdx.x * GROUPS * THREADS + threadIdx.x;

    all[blockIdx.y * THREADS] = sum;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last = atomicAdd(&a.done[blockIdx.x], 1) == GROUPS - 1;
        if (is_last)
            a.done[blockIdx.x] = 0;
    }
    __syncthreads();
    if (!is_last)
        return false;
    __threadfence();
    sum = plus(plus(__ldcg(all), __ldcg(all + 2 * THREADS)),
               plus(__ldcg(all + THREADS), __ldcg(all + 3 * THREADS)));
    return true;
}

/* Finish two outputs of a row. */
template <bool IS_DOWN>
__device__ static inline void finish(const float *table, const struct stem &a)
{
    const unsigned m = threadIdx.x / 32, n = threadIdx.x % 32 * 2;
    const unsigned c = blockIdx.x * OUTPUTS + n;
    const float2 bias = __ldg((const float2 *)(a.bias + c));
    float2 v[GROUPS], sum;

#pragma unroll
    for (unsigned i = 0; i < GROUPS; i++)
        v[i] = *(const float2 *)(table + (i * ROWS + m) * TABLE_ROW + n);
    sum = plus(plus(v[0], v[2]), plus(v[1], v[3]));
    if (IS_DOWN && !meet(sum, a))
        return;
    if (m >= a.n_rows)
        return;
    sum = plus(sum, bias);
    if (IS_DOWN) {
        float2 *y = (float2 *)(row_at(a.y, m, 0) + c);
        const float2 mul = __ldg((const float2 *)(a.gamma + c));
        const float2 old = *y;

        *y = make_float2(fmaf(mul.x, sum.x, old.x), fmaf(mul.y, sum.y, old.y));
    } else {
        weave(a.hidden, m, c, make_float2(gelu(sum.x), gelu(sum.y)));
    }
}

#endif

/* bytes: the weights, and x for each block. */
template <bool IS_DOWN>
__global__ __launch_bounds__(THREADS, 1) void stem_kernel(
    const __grid_constant__ struct stem a)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(128) unsigned char memory[];
    __shared__ unsigned long long gates[GROUPS * TILES];
    const unsigned at = shared_address(memory);
    const unsigned group = threadIdx.x / GROUP, n = threadIdx.x % GROUP;
    const unsigned tile = group * TILES + n;
    uint4 held[HELD][4];
    float sums[8] = {};
    feeder<IS_DOWN> from;

    from.open(a, at);
#pragma unroll
    for (unsigned i = 0; i < PLACED; i++)
        from.fetch(i);
#pragma unroll
    for (unsigned i = 0; i < HELD; i++)
        from.hold(held[i], PLACED + i);
    let_next_start();
    if (n < TILES) {
        open_gate(shared_address(&gates[tile]), 1);
        show_gates();
        expect(shared_address(&gates[tile]), X_TILE);
    }
    __syncthreads();
    reach_cluster();
    wait_for_inputs();
    join_cluster();
    if (n < TILES && n % 2 == blockIdx.x % 2)
        spread_bytes(at + tile * X_TILE,
                     a.x + (size_t)tile_of<IS_DOWN>(group, n) * X_TILE, X_TILE,
                     shared_address(&gates[tile]));
    add_tiles<IS_DOWN>(sums, from, held, at + group * TILES * X_TILE,
                       shared_address(&gates[group * TILES]));
    __syncthreads();
    leave((float *)memory, sums);
    __syncthreads();
    finish<IS_DOWN>((const float *)memory, a);
#endif
}

static bool is_taken(const struct vibe_block_call *call)
{
    const struct vibe_matrix *up = &call->w->up, *down = &call->w->down;

    return up->part[0].dtype == VIBE_BF16 && !up->part[0].scale && up->bias &&
           up->N == 4 * WIDTH && down->part[0].dtype == VIBE_BF16 &&
           !down->part[0].scale && down->bias && down->gamma;
}

bool vibe_cuda_can_stem(const struct vibe_block_call *calls, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct vibe_tensor *x = &calls[i].x;

        if (x->T != 1 || x->C != WIDTH || x->B <= VIBE_CUDA_GEMV_ROWS ||
            x->B > ROWS || !is_taken(&calls[i]))
            return false;
    }
    return has_products((const void *)stem_kernel<true>);
}

/* Normed columns and hidden ones, woven, and sums of parts. */
enum {
    NORMED_BYTES = WIDTH / TILE_K * X_TILE,
    HIDDEN_BYTES = 4 * NORMED_BYTES,
    PARTIAL_BYTES = GROUPS * ROWS * WIDTH * (int)sizeof(float),
};

size_t vibe_cuda_stem_bytes(void)
{
    return NORMED_BYTES + HIDDEN_BYTES + PARTIAL_BYTES;
}

template <bool IS_DOWN>
static cudaError_t launch_product(const struct vibe_cuda *cuda, struct stem *a)
{
    const void *kernel = (const void *)stem_kernel<IS_DOWN>;
    const cudaError_t rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);

    if (rc != cudaSuccess)
        return rc;
    return launch_pairs(kernel,
                        IS_DOWN ? dim3(WIDTH / OUTPUTS, GROUPS)
                                : dim3(4 * WIDTH / OUTPUTS),
                        THREADS, SHARED, cuda->compute, a);
}

static cudaError_t launch_mixer(cudaStream_t stream, struct mixer *mixer,
                                unsigned char *normed)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute;
    void *list[] = {mixer, &normed};

    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = dim3(mixer->n_rows);
    config.blockDim = dim3(WIDTH / 4);
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    return cudaLaunchKernelExC(&config, (const void *)stem_mixer, list);
}

cudaError_t vibe_cuda_stem(const struct vibe_cuda *cuda,
                           const struct vibe_block_call *calls, size_t n,
                           void *scratch)
{
    unsigned char *normed = (unsigned char *)scratch;
    unsigned char *hidden = normed + NORMED_BYTES;
    cudaError_t rc = cudaSuccess;

    for (size_t i = 0; i < n && rc == cudaSuccess; i++) {
        struct block b = block_of(&calls[i], &calls[i].y);
        struct stem up = {b.up,      normed,         hidden, b.up_bias, NULL,
                          b.mixer.y, b.mixer.n_rows, NULL,   NULL};
        struct stem down = {b.down,         hidden,
                            NULL,           b.down_bias,
                            b.gamma,        b.mixer.y,
                            b.mixer.n_rows, (float2 *)(hidden + HIDDEN_BYTES),
                            cuda->done};

        rc = launch_mixer(cuda->compute, &b.mixer, normed);
        if (rc == cudaSuccess)
            rc = launch_product<false>(cuda, &up);
        if (rc == cudaSuccess)
            rc = launch_product<true>(cuda, &down);
    }
    return rc;
}
