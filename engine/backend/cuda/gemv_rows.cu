/*
 * gemv_rows.cu - products with several rows of each dialogue, such as the
 * modulations of all its steps: up to 160 rows in one reading of the weights.
 *
 * A warp makes 32 outputs of 16 TALL rows, over all of K; a block has columns
 * of warps for its outputs and one or two rows of them.  A stage is a tile of
 * K: the weights of a column, which its warps share, and x, which all do.  x is
 * the 16-row operand of mma.m16n8k16, its high and its low parts one after the
 * other, and a sum is added up along K in that order alone: no bit depends on
 * how many rows there are, nor on how they are shared out.
 *
 * Bound by reading weights up to about 60 rows, by products with more; x comes
 * from the second cache for each block, which its columns make cheap.
 */
#include "engine/backend/cuda/wide.cuh"
#include "engine/backend/cuda/wide_feed.cuh"

enum {
    UNIT_ROWS = 16, /* of x in a product */
    MOST_COLUMNS = 6,
    X_COLUMNS = 2,    /* that take about as long as a block's x does */
    BLOCK_WARPS = 12, /* by the registers that they need */
    PAD = 8, /* floats after a row of sums: lanes meet different banks */
};

/* How the work is shared out. */
struct layout {
    unsigned tall, high; /* units of a warp; rows of warps */
    unsigned columns;
    unsigned n_passes, n_blocks; /* of rows; of outputs */
};

static inline size_t stage_of(const struct layout *l, enum vibe_dtype dtype)
{
    return l->columns * HEIGHT * tile_bytes(dtype) +
           (size_t)l->high * l->tall * UNIT_ROWS * X_BYTES;
}

/* Of shared memory: sums lie where stages were. */
static inline size_t shared_of(const struct layout *l, enum vibe_dtype dtype,
                               unsigned depth)
{
    const size_t outputs = l->columns * HEIGHT * TILE_N + PAD;
    const size_t rows = (size_t)l->high * l->tall * UNIT_ROWS;
    const size_t sums = outputs * rows * sizeof(float);
    const size_t ring = depth * stage_of(l, dtype);

    return ring > sums ? ring : sums;
}

#if __CUDA_ARCH__ >= 800

/* 16 rows of a quarter of a stage: their high parts and their low ones. */
__device__ static inline void read_rows(unsigned high[4], unsigned low[4],
                                        unsigned at)
{
#pragma unroll
    for (unsigned i = 0; i < 2; i++) {
        unsigned x[4];

        read_shared(x, at + i * ROWS * X_BYTES);
        high[i] = __byte_perm(x[0], x[1], 0x7632);
        low[i] = __byte_perm(x[0], x[1], 0x5410);
        high[2 + i] = __byte_perm(x[2], x[3], 0x7632);
        low[2 + i] = __byte_perm(x[2], x[3], 0x5410);
    }
}

/* A warp and what it copies.  A lane has sums of rows lane / 4 and 8 more of
 * each unit for outputs 2 (lane % 4) and the next of each eight. */
template <int dtype, int TALL> struct rows_worker {
    unsigned weights, x; /* of the first stage, where this lane reads */
    strip<dtype> w;
    w_feed<dtype> w_ahead;
    x_feed x_ahead;
    float c[TALL][HEIGHT][2][4];

    /* The first of a column's outputs. */
    __device__ static inline unsigned group(void)
    {
        return (blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32) * HEIGHT;
    }

    __device__ inline void open(const decode &a, const void *memory)
    {
        const unsigned columns = blockDim.x / 32;
        const unsigned column = threadIdx.x / 32;
        const unsigned of_column = HEIGHT * format<dtype>::TILE_BYTES;
        const post at = {0, threadIdx.y * columns + column,
                         blockDim.y * columns};

        weights = shared_address(memory);
        x = weights + columns * of_column;
        weights += column * of_column;
        w_ahead.open(a, weights, group());
        x_ahead.open(a, x, at);
        x += threadIdx.y * TALL * UNIT_ROWS * X_BYTES +
             x_at(threadIdx.x % 4 * 4, threadIdx.x % 32 / 4);
        w.open(a, group());
#pragma unroll
        for (unsigned i = 0; i < TALL * HEIGHT * 2 * 4; i++)
            (&c[0][0][0][0])[i] = 0.0f;
    }

    /* Start copying this warp's share of a column's weights of a tile. */
    __device__ inline void fetch_weights(unsigned slot, const decode &a,
                                         unsigned tile) const
    {
#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            if (i * blockDim.y / 4 == threadIdx.y)
                w_ahead.fetch(slot, a, tile, tile < a.n_tiles, i);
    }

    /* c += the weights of the stage at slot, of a tile, times its x. */
    __device__ inline void add(unsigned slot, unsigned tile, const decode &a)
    {
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            unsigned pairs[HEIGHT][2][2];

            w.read(weights + slot, a, tile, i);
#pragma unroll
            for (unsigned h = 0; h < HEIGHT * 2; h++)
                w.expand(pairs[h / 2][h % 2], h / 2, h % 2, i);
#pragma unroll
            for (unsigned t = 0; t < TALL; t++) {
                unsigned parts[2][4];

                __syncwarp(); /* or x would be read before there is room */
                read_rows(parts[0], parts[1],
                          ((x + slot) ^ (i * 16)) + t * UNIT_ROWS * X_BYTES);
#pragma unroll
                for (unsigned part = 0; part < 2; part++)
#pragma unroll
                    for (unsigned h = 0; h < HEIGHT * 2; h++)
                        multiply(c[t][h / 2][h % 2], parts[part],
                                 pairs[h / 2][h % 2]);
            }
        }
    }

    /* Leave the sums for the block, rows of them stride apart. */
    __device__ inline void leave(float *sums, unsigned stride) const
    {
        const unsigned lane = threadIdx.x % 32;

        sums += (threadIdx.y * TALL * UNIT_ROWS + lane / 4) * stride +
                threadIdx.x / 32 * HEIGHT * TILE_N + lane % 4 * 2;
#pragma unroll
        for (unsigned t = 0; t < TALL; t++)
#pragma unroll
            for (unsigned i = 0; i < 2; i++)
#pragma unroll
                for (unsigned h = 0; h < HEIGHT * 2; h++) {
                    const float *z = c[t][h / 2][h % 2] + 2 * i;

                    *(float2 *)(sums + (t * UNIT_ROWS + i * ROWS) * stride +
                                8 * h) = make_float2(z[0], z[1]);
                }
    }
};

/* Finish the sums of a block, a warp a row at a time. */
__device__ static inline void finish_rows(const float *sums, unsigned stride,
                                          const decode &a)
{
    const unsigned outputs = blockDim.x * HEIGHT * TILE_N / 32;
    const unsigned first = blockIdx.x * a.of_pass;
    const unsigned n_rows = min(a.of_pass, a.n_rows - first);
    const unsigned warp = (threadIdx.y * blockDim.x + threadIdx.x) / 32;

    for (unsigned m = warp; m < n_rows; m += blockDim.x * blockDim.y / 32)
        for (unsigned n = threadIdx.x % 32 * 2; n < outputs; n += 64) {
            const float2 z = *(const float2 *)(sums + m * stride + n);

            store_two(a.e, first + m, blockIdx.y * outputs + n, z.x, z.y);
        }
}

#endif

/* bytes: the weights once for every pass, x once for every block. */
template <int dtype, int TALL>
__global__ void __launch_bounds__(32 * BLOCK_WARPS, 1)
    gemv_rows_kernel(const __grid_constant__ struct decode a)
{
#if __CUDA_ARCH__ >= 800
    extern __shared__ __align__(LINE_BYTES) uint4 memory[];
    rows_worker<dtype, TALL> me;
    const unsigned stride = blockDim.x * HEIGHT * TILE_N / 32 + PAD;
    unsigned slot = 0;

    me.open(a, memory);
    for (unsigned s = 0; s + 1 < a.depth; s++)
        me.fetch_weights(s * a.stage, a, s);
    let_next_start();
    wait_for_inputs();
    for (unsigned s = 0; s + 1 < a.depth; s++) {
        if (s < a.n_tiles)
            me.x_ahead.fetch(s * a.stage, a, s);
        copies_end();
    }
    for (unsigned tile = 0; tile < a.n_tiles; tile++) {
        const unsigned free = (slot ? slot : a.depth * a.stage) - a.stage;

        stage_wait(a.depth);
        if (!a.x.is_split)
            me.x_ahead.split(slot);
        __syncthreads();
        if (tile + a.depth - 1 < a.n_tiles) {
            me.x_ahead.fetch(free, a, tile + a.depth - 1);
            me.fetch_weights(free, a, tile + a.depth - 1);
        }
        copies_end();
        me.add(slot, tile, a);
        slot += a.stage;
        slot = slot < a.depth * a.stage ? slot : 0;
    }
    copies_wait<0>();
    __syncthreads();
    me.leave((float *)memory, stride);
    __syncthreads();
    finish_rows((const float *)memory, stride, a);
#endif
}

/* The fewest rows of warps and units that have room for all rows, or the most
 * there are. */
static void choose_rows(struct layout *l, size_t n_rows, size_t most_high)
{
    static const struct {
        unsigned tall, high;
    } kinds[] = {{2, 1}, {3, 1}, {2, 2}, {5, 1}, {3, 2}, {5, 2}};
    size_t of_pass = 0;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        if (kinds[i].high > most_high)
            continue;
        l->tall = kinds[i].tall;
        l->high = kinds[i].high;
        of_pass = (size_t)l->tall * l->high * UNIT_ROWS;
        if (of_pass >= n_rows)
            break;
    }
    l->n_passes = (unsigned)((n_rows + of_pass - 1) / of_pass);
}

/* As many columns as leave the busiest multiprocessor the least. */
static void choose_columns(struct layout *l, size_t N, size_t n_sm)
{
    size_t least = SIZE_MAX;

    for (unsigned columns = MOST_COLUMNS; columns > 0; columns--) {
        const size_t outputs = (size_t)columns * HEIGHT * TILE_N;
        const size_t n_blocks = (N + outputs - 1) / outputs;
        const size_t cost = (l->n_passes * n_blocks + n_sm - 1) / n_sm *
                            (columns + X_COLUMNS);

        if (cost >= least)
            continue;
        least = cost;
        l->columns = columns;
        l->n_blocks = (unsigned)n_blocks;
    }
}

static struct layout layout_of(const struct vibe_cuda *cuda,
                               const struct vibe_cuda_product *p, size_t limit)
{
    const size_t n_rows = p->x->B * p->x->T;
    struct layout l = {};

    for (unsigned high = 2; high > 0; high--) {
        choose_rows(&l, n_rows, high);
        choose_columns(&l, p->w->N, (size_t)cuda->n_sm);
        if (shared_of(&l, p->w->part[0].dtype, 2) <= limit)
            break;
    }
    return l;
}

template <int dtype> static const void *kernel_for(unsigned tall)
{
    return tall == 2   ? (const void *)gemv_rows_kernel<dtype, 2>
           : tall == 3 ? (const void *)gemv_rows_kernel<dtype, 3>
                       : (const void *)gemv_rows_kernel<dtype, 5>;
}

cudaError_t vibe_cuda_gemv_rows(const struct vibe_cuda *cuda,
                                const struct vibe_cuda_product *p)
{
    const enum vibe_dtype dtype = p->w->part[0].dtype;
    const size_t limit = shared_limit(cuda);
    const struct layout l = layout_of(cuda, p, limit);
    const void *kernel = dtype == VIBE_BF16
                             ? kernel_for<VIBE_BF16>(l.tall)
                             : kernel_for<VIBE_BF16_PACKED>(l.tall);
    /* leave room for a block beside this one, of few rows */
    const size_t room = l.high == 1 ? limit / 2 : limit;
    struct decode a = decode_of(p, 0, p->x->B * p->x->T);

    a.stage = (unsigned)stage_of(&l, dtype);
    a.depth = MOST_DEPTH;
    while (a.depth > 2 &&
           shared_of(&l, dtype, a.depth) > (a.depth > 3 ? room : limit))
        a.depth--;
    a.of_pass = l.high * l.tall * UNIT_ROWS;
    a.x_step = (unsigned)vibe_cuda_row_step(p->x);
    a.x_pass = a.of_pass * a.x_step;
    return launch_large(cuda, kernel, dim3(l.n_passes, l.n_blocks),
                        dim3(32 * l.columns, l.high),
                        shared_of(&l, dtype, a.depth), &a);
}
