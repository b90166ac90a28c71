/*
 * block.cu - narrow blocks of a codec (block.cuh), up to three of them in one
 * kernel.
 *
 * A block of threads makes some rows of the last one, and so that nobody waits
 * for another the rows before them of the others, which neighbours make too:
 * each row reads the PAST ones before it.  Of the same rows a thread mixes and
 * norms a few channels, then each warp makes some hidden channels of 16 rows,
 * then some of y from those of all warps.
 *
 * Weights go from the cache to the registers of one warp, ahead of their use.
 */
#include "engine/backend/cuda/block.cuh"

enum {
    TILE = 16, /* rows of a warp */
    MOST = 3,  /* blocks */
};

/* One or two warps make a unit of hidden channels, and one eight channels of
 * y; a thread has four channels of a row. */
template <unsigned C> struct shape {
    enum : unsigned {
        TEAMS = C == 32 ? 2 : 1,  /* of warps, each with a tile */
        SHARES = C < 128 ? 2 : 1, /* of a unit */
        PARTS = 4 / SHARES,       /* eight hidden channels each, of a warp */
        N_UNITS = C / 8,
        WARPS = N_UNITS * SHARES, /* of a team */
        ROWS = TILE * TEAMS,
        THREADS = 32 * WARPS * TEAMS,
        WIDTH = C / 4,      /* threads that mix a row: all rows at once */
        IS_EARLY = C < 128, /* whether there are registers for all weights */
        LAYERS = C == 32 ? MOST : 1,
        BLOCKS = C == 32 ? 2 : 1, /* of a multiprocessor */
    };
};

struct stage {
    struct block blocks[MOST];
    unsigned n;
    unsigned lead; /* rows of all tiles that the last block does not make */
};

/* Vectors of a block. */
template <unsigned C> struct vectors {
    float norm[C], taps[TAPS][C], bias[C], gamma[C], next_norm[C];
    float up_bias[4 * C], down_bias[C], down_gamma[C];
};

/* Shared memory.  Rows of channels meet different banks; operands lie as lanes
 * take them, of 16 channels high and low parts beside each other. */
template <unsigned C> struct memory {
    typedef shape<C> S;

    float column[S::ROWS + PAST][C + 4]; /* of the past, then normed */
    float mixed[S::ROWS][C + 4];
    uint4 normed[S::TEAMS][C / 16][2][32];
    uint4 hidden[S::TEAMS][S::N_UNITS][4][32];
    vectors<C> vectors[S::LAYERS];
};

/* The same with all of W2, where there is room for it, as lanes take it. */
template <unsigned C> struct memory_and_down : memory<C> {
    uint4 down[shape<C>::N_UNITS][shape<C>::WARPS][32];
};

#if __CUDA_ARCH__ >= 800

/* Which tile is this warp's, which unit of it, and which share of that; those
 * with the first one make y, too. */
template <unsigned C> __device__ static inline unsigned team(void)
{
    return threadIdx.x / 32 / shape<C>::WARPS;
}

template <unsigned C> __device__ static inline unsigned unit(void)
{
    return threadIdx.x / 32 % shape<C>::N_UNITS;
}

template <unsigned C> __device__ static inline unsigned share(void)
{
    return threadIdx.x / 32 % shape<C>::WARPS / shape<C>::N_UNITS;
}

/* Eights of channels of y that a warp makes. */
template <bool HAS_ROOM> constexpr unsigned eights = HAS_ROOM ? 2 : 1;

template <unsigned C, bool HAS_ROOM> __device__ static inline bool makes_y(void)
{
    return share<C>() == 0 && unit<C>() < C / 8 / eights<HAS_ROOM>;
}

/* Leave four neighbours of a normed row where mma's a wants them. */
template <unsigned C>
__device__ static inline void leave_normed(memory<C> &shared, unsigned row,
                                           unsigned c, const vec<4> &v)
{
    const unsigned k = c / 32 * 2 + c % 8 / 4;
    const unsigned lane = row % 8 * 4 + c % 32 / 8;
    uint4(&to)[2][32] = shared.normed[row / TILE][k];
    uint2 high, low;

    split(high.x, low.x, make_float2(v.e[0], v.e[1]));
    split(high.y, low.y, make_float2(v.e[2], v.e[3]));
    ((uint2 *)&to[0][lane])[row % TILE / 8] = high;
    ((uint2 *)&to[1][lane])[row % TILE / 8] = low;
}

/* Of this warp's tile. */
template <unsigned C>
__device__ static inline void take_normed(unsigned (&a)[4],
                                          const memory<C> &shared, unsigned k,
                                          unsigned part)
{
    const uint4 v = shared.normed[team<C>()][k][part][threadIdx.x % 32];

    a[0] = v.x;
    a[1] = v.z;
    a[2] = v.y;
    a[3] = v.w;
}

template <unsigned N>
__device__ static inline void copy_vector(float (&to)[N], const float *from)
{
    if (threadIdx.x < N / 4)
        copy_async<16>(to + threadIdx.x * 4, from + threadIdx.x * 4, true);
}

template <unsigned C>
__device__ static inline void copy_vectors(vectors<C> &to,
                                           const struct block &a)
{
    const struct vibe_mixer &w = a.mixer.w;

    copy_vector(to.norm, w.norm);
    copy_vector((float(&)[TAPS * C]) to.taps, w.taps);
    copy_vector(to.bias, w.bias);
    copy_vector(to.gamma, w.gamma);
    copy_vector(to.next_norm, w.next_norm);
    copy_vector(to.up_bias, a.up_bias);
    copy_vector(to.down_bias, a.down_bias);
    copy_vector(to.down_gamma, a.gamma);
}

/* The sum over the threads of a row. */
template <unsigned C> __device__ static inline float sum_row(float sum)
{
#pragma unroll
    for (int k = shape<C>::WIDTH / 2; k > 0; k /= 2)
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, k);
    return sum;
}

/* A thread's four channels of a row, whose dialogue and place in it these
 * are.  Places before the past and past the end are of nobody, with zeros. */
template <unsigned C> struct mine {
    unsigned row, c, b;
    int t;

    /* Whole warps have none. */
    __device__ inline bool is_there(void) const
    {
        return row < shape<C>::ROWS;
    }

    __device__ inline vec<4> read_column(const struct mixer &a, int at) const
    {
        if (at < -PAST || at >= (int)a.x.T)
            return {};
        return read<4>((at < 0 ? row_at(a.past, b, (unsigned)(at + PAST))
                               : row_at(a.x, b, (unsigned)at)) +
                       c);
    }

    /* Norm a column that is not of the past. */
    __device__ inline vec<4> norm(vec<4> column, const struct mixer &a, int at,
                                  const vectors<C> &w) const
    {
        const float squares = sum_row<C>(add_squares<4>(0.0f, column));

        return at < 0 ? column
                      : scale<4>(column, factor_for<C>(squares, a),
                                 read<4>(w.norm + c));
    }

    __device__ inline vec<4> mix(const vec<4> &x, const memory<C> &shared,
                                 const vectors<C> &w) const
    {
        vec<4> column[TAPS];
        weights<4> of;

#pragma unroll
        for (unsigned j = 0; j < TAPS; j++) {
            column[j] = read<4>(shared.column[row + j] + c);
            of.taps[j] = read<4>(w.taps[j] + c);
        }
        of.bias = read<4>(w.bias + c);
        of.gamma = read<4>(w.gamma + c);
        return ::mix<4>(x, column, of);
    }
};

/* Leave the columns before the first block's rows. */
template <unsigned C>
__device__ static inline void leave_before(memory<C> &shared,
                                           const struct mixer &a,
                                           const mine<C> &my,
                                           const vec<4> &before)
{
    const vec<4> column = my.norm(before, a, my.t - PAST, shared.vectors[0]);

    if (my.row < PAST)
        write<4>(shared.column[my.row] + my.c, column);
}

/* Leave the rows x mixed, and normed for W1; column is x normed, or the past.
 * Rows of this block of threads leave their part of the state. */
template <unsigned C>
__device__ static inline void mix_rows(memory<C> &shared, const struct mixer &a,
                                       const vectors<C> &w, const mine<C> &my,
                                       const vec<4> &x, vec<4> column,
                                       unsigned lead)
{
    const int kept = my.t + PAST - (int)a.x.T; /* row of the state */
    vec<4> y;
    float squares;

    if (my.is_there()) {
        column = my.norm(column, a, my.t, w);
        write<4>(shared.column[PAST + my.row] + my.c, column);
        if (my.row >= lead && kept >= 0 && kept < PAST)
            write_out<4>(row_at(a.state, my.b, (unsigned)kept) + my.c, column);
    }
    __syncthreads();
    if (!my.is_there())
        return;
    y = my.mix(x, shared, w);
    squares = sum_row<C>(add_squares<4>(0.0f, y));
    write<4>(shared.mixed[my.row] + my.c, y);
    leave_normed<C>(
        shared, my.row, my.c,
        scale<4>(y, factor_for<C>(squares, a), read<4>(w.next_norm + my.c)));
}

/* This lane's weights of this warp's share of a unit. */
template <unsigned C>
__device__ static inline void load_up(uint4 (&w)[C / 32][shape<C>::PARTS],
                                      const struct block &a)
{
    enum : unsigned { PARTS = shape<C>::PARTS };
    const unsigned short *up = a.up + threadIdx.x % 4 * 8;

#pragma unroll
    for (unsigned k = 0; k < C / 32; k++)
#pragma unroll
        for (unsigned i = 0; i < PARTS; i++) {
            const unsigned n = unit<C>() * UNITS +
                               row_of_unit(share<C>() * PARTS + i);

            w[k][i] = __ldg((const uint4 *)(up + n * a.up_stride + k * 32));
        }
}

/* The same of this warp's channels of y, of some units. */
template <unsigned C>
__device__ static inline void load_down(uint4 (&w)[shape<C>::N_UNITS],
                                        const struct block &a,
                                        unsigned first = 0,
                                        unsigned end = shape<C>::N_UNITS)
{
    const unsigned row = unit<C>() * 8 + threadIdx.x % 32 / 4;
    const unsigned short *down = a.down + row * a.down_stride +
                                 threadIdx.x % 4 * 8;

#pragma unroll
    for (unsigned u = 0; u < shape<C>::N_UNITS; u++)
        if (u >= first && u < end)
            w[u] = __ldg((const uint4 *)(down + u * UNITS));
}

/* The same to shared memory, all units. */
template <unsigned C>
__device__ static inline void copy_down(memory_and_down<C> &shared,
                                        const struct block &a)
{
    const unsigned lane = threadIdx.x % 32;
    const unsigned row = unit<C>() * 8 + lane / 4;
    const unsigned short *down = a.down + row * a.down_stride + lane % 4 * 8;

#pragma unroll
    for (unsigned u = 0; u < shape<C>::N_UNITS; u++)
        copy_async<16>(&shared.down[u][threadIdx.x / 32][lane],
                       down + u * UNITS, true);
    copies_end();
}

/* Ask for all weights, a line a thread. */
template <unsigned C>
__device__ static inline void prefetch_weights(const struct block &a)
{
    const unsigned i = (blockIdx.y * gridDim.x + blockIdx.x) *
                           shape<C>::THREADS +
                       threadIdx.x;

    if (i < 4 * C * a.up_stride / 64)
        prefetch(a.up + i * 64);
    if (i < C * a.down_stride / 64)
        prefetch(a.down + i * 64);
}

/* Ask for the past of a dialogue's first rows. */
template <unsigned C>
__device__ static inline void prefetch_past(const struct stage &a,
                                            const mine<C> &my)
{
    if (blockIdx.x > 0 || my.row >= PAST)
        return;
    for (unsigned i = 0; i < a.n; i++)
        prefetch(row_at(a.blocks[i].mixer.past, my.b, my.row) + my.c);
}

/* Leave this warp's share of a unit for the others, and take a unit. */
template <unsigned C>
__device__ static inline void leave(memory<C> &shared,
                                    const operand<8 * shape<C>::PARTS> &h)
{
    enum : unsigned { STEPS = shape<C>::PARTS / 2 };
    const unsigned lane = threadIdx.x % 32;
    uint4(*to)[32] = shared.hidden[team<C>()][unit<C>()] +
                     2 * STEPS * share<C>();

#pragma unroll
    for (unsigned k = 0; k < STEPS; k++) {
        to[2 * k][lane] = make_uint4(h.high[k][0], h.high[k][1], h.high[k][2],
                                     h.high[k][3]);
        to[2 * k + 1][lane] = make_uint4(h.low[k][0], h.low[k][1], h.low[k][2],
                                         h.low[k][3]);
    }
}

template <unsigned C>
__device__ static inline operand<UNITS> take(const memory<C> &shared,
                                             unsigned u)
{
    const uint4(&from)[4][32] = shared.hidden[team<C>()][u];
    const unsigned lane = threadIdx.x % 32;
    operand<UNITS> h;

#pragma unroll
    for (unsigned k = 0; k < 2; k++) {
        *(uint4 *)h.high[k] = from[2 * k][lane];
        *(uint4 *)h.low[k] = from[2 * k + 1][lane];
    }
    return h;
}

/* This warp's hidden channels, before they are added to and bent. */
template <unsigned C>
__device__ static inline void multiply_up(
    float (&parts)[shape<C>::PARTS][4], const memory<C> &shared,
    const uint4 (&up)[C / 32][shape<C>::PARTS])
{
#pragma unroll
    for (unsigned k = 0; k < C / 32; k++) {
        operand<32> x;

#pragma unroll
        for (unsigned step = 0; step < 2; step++) {
            take_normed<C>(x.high[step], shared, 2 * k + step, 0);
            take_normed<C>(x.low[step], shared, 2 * k + step, 1);
        }
        multiply32<32>(parts, x, 0, up[k]);
    }
}

/* Add what this warp has of y's channels of a unit, of which rows from first on
 * in dialogue b are left for the next block, or at last where y is. */
template <unsigned C>
__device__ static inline void finish(memory<C> &shared, const struct stage &a,
                                     unsigned i, unsigned eight,
                                     const float sums[4], unsigned b, int first)
{
    const struct mixer &m = a.blocks[i].mixer;
    const unsigned lane = threadIdx.x % 32;
    const unsigned c = eight * 8 + lane % 4 * 2;
    const vectors<C> &w = shared.vectors[i];
    const struct ending end = {*(const float2 *)(w.down_bias + c),
                               *(const float2 *)(w.down_gamma + c)};

#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const unsigned row = team<C>() * TILE + lane / 4 + half * 8;
        const int t = first + (int)row;
        float2 *at = (float2 *)(shared.mixed[row] + c);
        const float2 y = end.finish(*at, sums[2 * half], sums[2 * half + 1]);

        if (i + 1 < a.n)
            *at = y;
        else if (row >= a.lead && t < (int)m.x.T)
            *(float2 *)(row_at(m.y, b, (unsigned)t) + c) = y;
    }
}

/* Make what this warp has of y. */
template <unsigned C, bool HAS_ROOM>
__device__ static inline void make_y(memory_and_down<C> &shared,
                                     const struct stage &a, unsigned i,
                                     const uint4 (&down)[shape<C>::N_UNITS],
                                     const mine<C> &my)
{
    enum : unsigned { EIGHTS = eights<HAS_ROOM> };
    const unsigned first = unit<C>() * EIGHTS;
    float sums[EIGHTS][4] = {};

#pragma unroll
    for (unsigned u = 0; u < shape<C>::N_UNITS; u++) {
        uint4 w[EIGHTS];

#pragma unroll
        for (unsigned k = 0; k < EIGHTS; k++)
            w[k] = HAS_ROOM ? shared.down[u][first + k][threadIdx.x % 32]
                            : down[u];
        multiply32<UNITS>(sums, take<C>(shared, u), 0, w);
    }
#pragma unroll
    for (unsigned k = 0; k < EIGHTS; k++)
        finish<C>(shared, a, i, first + k, sums[k], my.b, my.t - (int)my.row);
}

/* Ask for all that is known before the inputs. */
template <unsigned C, bool HAS_ROOM>
__device__ static inline void ask_ahead(memory_and_down<C> &shared,
                                        const struct stage &a,
                                        uint4 (&up)[C / 32][shape<C>::PARTS],
                                        uint4 (&down)[shape<C>::N_UNITS],
                                        const mine<C> &my)
{
    for (unsigned i = 0; i < a.n; i++)
        copy_vectors<C>(shared.vectors[i], a.blocks[i]);
    copies_end();
    if (HAS_ROOM)
        copy_down<C>(shared, a.blocks[0]);
    load_up<C>(up, a.blocks[0]);
    if (shape<C>::IS_EARLY && makes_y<C, HAS_ROOM>())
        load_down<C>(down, a.blocks[0]);
    for (unsigned i = shape<C>::IS_EARLY || HAS_ROOM; i < a.n; i++)
        prefetch_weights<C>(a.blocks[i]);
    prefetch_past<C>(a, my);
}

#endif

/* HAS_ROOM: see memory_and_down. */
template <unsigned C, bool HAS_ROOM>
__global__ __launch_bounds__(
    shape<C>::THREADS,
    shape<C>::BLOCKS) void block_kernel(const __grid_constant__ struct stage a)
{
#if __CUDA_ARCH__ >= 800
    typedef shape<C> S;
    extern __shared__ float4 extra[];
    memory_and_down<C> &shared = *(memory_and_down<C> *)extra;
    mine<C> my = {threadIdx.x / S::WIDTH, threadIdx.x % S::WIDTH * 4,
                  blockIdx.y};
    uint4 up[C / 32][S::PARTS], down[S::N_UNITS];
    vec<4> x = {}, column, before = {};

    let_next_start();
    my.t = (int)(blockIdx.x * (S::ROWS - a.lead) + my.row) - (int)a.lead;
    ask_ahead<C, HAS_ROOM>(shared, a, up, down, my);
    wait_for_inputs();
    if (my.is_there())
        x = my.read_column(a.blocks[0].mixer, my.t);
    column = x;
    if (my.row < PAST)
        before = my.read_column(a.blocks[0].mixer, my.t - PAST);
    copies_wait<HAS_ROOM>();
    __syncthreads();
    leave_before<C>(shared, a.blocks[0].mixer, my, before);
    for (unsigned i = 0;; i++) {
        const struct block &b = a.blocks[i];
        const bool is_last = S::LAYERS == 1 || i + 1 == a.n;
        float parts[S::PARTS][4] = {};

        if (!is_last && my.t < 0)
            before = my.read_column(a.blocks[i + 1].mixer, my.t);
        mix_rows<C>(shared, b.mixer, shared.vectors[i], my, x, column, a.lead);
        __syncthreads();
        multiply_up<C>(parts, shared, up);
        if (!S::IS_EARLY && !HAS_ROOM)
            load_down<C>(down, b, 0, S::N_UNITS / 2);
        else if (!is_last)
            load_up<C>(up, a.blocks[i + 1]);
        leave<C>(shared, hidden_of(parts, shared.vectors[i].up_bias +
                                              unit<C>() * UNITS +
                                              share<C>() * 2 * S::PARTS));
        if (HAS_ROOM)
            copies_wait<0>();
        else if (!S::IS_EARLY)
            load_down<C>(down, b, S::N_UNITS / 2);
        __syncthreads();
        if (makes_y<C, HAS_ROOM>())
            make_y<C, HAS_ROOM>(shared, a, i, down, my);
        if (is_last)
            break;
        if (makes_y<C, HAS_ROOM>())
            load_down<C>(down, a.blocks[i + 1]);
        __syncthreads();
        if (my.is_there())
            x = read<4>(shared.mixed[my.row] + my.c);
        column = my.t < 0 ? before : x;
    }
#endif
}

template <unsigned C, bool HAS_ROOM = false>
static cudaError_t launch_stage(cudaStream_t stream, struct stage *a)
{
    const void *kernel = (const void *)block_kernel<C, HAS_ROOM>;
    const size_t shared = HAS_ROOM ? sizeof(memory_and_down<C>)
                                   : sizeof(memory<C>);
    const struct chunk &x = a->blocks[0].mixer.x;
    const unsigned n_dialogues = a->blocks[0].mixer.n_rows / x.T;
    cudaError_t rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    unsigned rows;

    if (rc != cudaSuccess)
        return rc;
    a->lead = (a->n - 1) * PAST;
    rows = shape<C>::ROWS - a->lead;
    return launch_waiting(kernel, dim3((x.T + rows - 1) / rows, n_dialogues),
                          shape<C>::THREADS, shared, stream, a);
}

/* Whether there is a block of threads with many rows for every
 * multiprocessor. */
static bool is_many(const struct vibe_cuda *cuda, const struct vibe_tensor *x)
{
    const size_t of_dialogue = (x->T + ROWS_OF_MANY - 1) / ROWS_OF_MANY;

    return x->B * of_dialogue >= (size_t)cuda->n_sm;
}

/* Whether y may be stored while others read x still. */
static bool is_apart(const struct vibe_tensor *y, const struct vibe_tensor *x)
{
    const float *y_data = (const float *)y->data;
    const float *x_data = (const float *)x->data;

    return y_data >= x_data + x->B * x->stride_b ||
           x_data >= y_data + y->B * y->stride_b;
}

size_t vibe_cuda_blocks_at_once(const struct vibe_cuda *cuda,
                                const struct vibe_block_call *calls, size_t n)
{
    const bool is_stage = n >= MOST && calls->x.C == 32 &&
                          !is_many(cuda, &calls->x) &&
                          is_apart(&calls[MOST - 1].y, &calls->x);

    return is_stage ? MOST : 1;
}

cudaError_t vibe_cuda_block(const struct vibe_cuda *cuda,
                            const struct vibe_block_call *calls, size_t n,
                            const struct vibe_tensor *normed)
{
    cudaStream_t stream = cuda->compute;
    const size_t C = calls->x.C;
    struct stage a = {};

    a.n = (unsigned)n;
    for (size_t i = 0; i < n; i++)
        a.blocks[i] = block_of(&calls[i], normed);
    if (is_many(cuda, &calls->x))
        return vibe_cuda_block_many(cuda, &a.blocks[0]);
    if (C == 32)
        return launch_stage<32>(stream, &a);
    if (C == 64)
        return launch_stage<64>(stream, &a);
    return sizeof(memory_and_down<128>) <= shared_limit(cuda)
               ? launch_stage<128, true>(stream, &a)
               : launch_stage<128>(stream, &a);
}
