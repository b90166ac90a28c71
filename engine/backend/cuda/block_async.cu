/*
 * block_async.cu - a narrow block of a codec (block.cuh) with many rows, by the
 * products of sm_90a that work beside a warp.
 *
 * Weights are the 64-row operand of wgmma, from registers; rows are its
 * columns, a strip of them in shared memory.  Four warps make 64 hidden
 * channels of a strip at a time, which then are columns in turn, and 64
 * channels of y, whose sums stay in registers; while they bend hidden channels,
 * the products of the ones before and of the ones behind are under way.  Of 128
 * channels two groups of four warps have a strip, of 64 each its own.
 *
 * A sum has the terms of block.cu's in the order of its steps, 16 at once in
 * any order, and so its bits.
 */
#include "engine/backend/cuda/block_rows.cuh"
#include "engine/backend/cuda/products.cuh"

enum {
    GROUP = 128,         /* threads that multiply together */
    THREADS = 2 * GROUP, /* of a block */
    STRIP = 104,         /* rows, at most */
    RUN = STRIP / 8,     /* rows that some lanes mix */
    COLUMNS = RUN + PAST,
    ROUNDS = 4,      /* of hidden channels */
    EIGHT_ROWS = 16, /* bytes of 8 channels of a row, or of 8 rows */
};

template <unsigned C> struct shape {
    enum {
        WIDTH = C / 4,                  /* lanes that mix a row */
        STEPS = C / 16,                 /* of K, in a round */
        OF_STRIP = C / 64,              /* groups */
        STRIPS = 2 / OF_STRIP,          /* of a block */
        OF_ROUND = C,                   /* hidden channels of a strip */
        HALF_STEP = STRIP * EIGHT_ROWS, /* bytes of 8 channels */
        /* the same of normed rows: those that lanes write meet in no bank */
        NORMED = HALF_STEP + 16,
        NORMED_BYTES = 4 * STEPS * NORMED,
        HIDDEN_BYTES = 4 * STEPS * HALF_STEP,
        MIXED_ROW = 4 * C + 16, /* likewise, for lanes that read */
        MIXED_BYTES = STRIP * MIXED_ROW,
        BUFFERS = OF_STRIP, /* of hidden channels */
        STRIP_BYTES = NORMED_BYTES + BUFFERS * HIDDEN_BYTES + MIXED_BYTES,
    };
};

struct strips {
    struct block block;
    unsigned of_dialogue, rows; /* rows of a strip */
    unsigned n;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* A warp's weights: of a round 16 rows of W1 over all channels, and 16 of W2
 * over its hidden ones, as operands of steps. */
template <unsigned C> struct feeder {
    typedef shape<C> S;

    const unsigned short *up, *down; /* this lane's piece of the first row */
    unsigned up_stride, down_stride;

    /* Rows i and 8 + i of an operand are hidden channels that are two apart,
     * each eight of them those of half a step, or neighbours of y. */
    __device__ inline void open(const struct block &a, unsigned group)
    {
        const unsigned lane = threadIdx.x % 32, i = lane / 4;
        const unsigned warp = threadIdx.x % GROUP / 32;
        const unsigned first = S::STRIPS == 1 ? group * 64 : 0;

        up_stride = a.up_stride;
        down_stride = a.down_stride;
        up = a.up + lane % 4 * 8 +
             (first + hidden_of_step(warp) + i / 2 * 8 + i % 2) * up_stride;
        down = a.down + lane % 4 * 8 +
               (first + warp * 16 + 2 * i) * down_stride;
    }

    __device__ static inline void load(unsigned (&w)[S::STEPS][4],
                                       const unsigned short *upper,
                                       const unsigned short *lower)
    {
#pragma unroll
        for (unsigned k = 0; k < S::STEPS; k += 2) {
            const uint4 u = __ldg((const uint4 *)(upper + k * 16));
            const uint4 v = __ldg((const uint4 *)(lower + k * 16));
            const unsigned to[2][4] = {{u.x, v.x, u.y, v.y},
                                       {u.z, v.z, u.w, v.w}};

#pragma unroll
            for (unsigned j = 0; j < 8; j++)
                w[k + j / 4][j % 4] = to[j / 4][j % 4];
        }
    }

    __device__ inline void load_up(unsigned (&w)[S::STEPS][4],
                                   unsigned round) const
    {
        const unsigned short *from = up + round * S::OF_ROUND * up_stride;

        load(w, from, from + 2 * up_stride);
    }

    __device__ inline void load_down(unsigned (&w)[S::STEPS][4],
                                     unsigned round) const
    {
        const unsigned short *from = down + round * S::OF_ROUND;

        load(w, from, from + down_stride);
    }
};

/* Where the first eight channels of a step are among those of normed rows, or
 * hidden ones, in bytes; the second eight are half_step further. */
template <unsigned C>
__device__ static inline unsigned normed_at(unsigned step, unsigned is_low)
{
    typedef shape<C> S;

    return (is_low * 2 * S::STEPS + step) * S::NORMED;
}

template <unsigned C>
__device__ static inline unsigned hidden_at(unsigned step, unsigned is_low)
{
    return (step * 2 + is_low) * 2 * shape<C>::HALF_STEP;
}

/* Leave four channels of a row, normed, as columns of products have them; to:
 * where the first of the row's are. */
template <unsigned C>
__device__ static inline void leave_normed(unsigned to, const vec<4> &v)
{
    enum { SECOND = shape<C>::STEPS * shape<C>::NORMED };

#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        unsigned high, low;

        split(high, low, make_float2(v.e[2 * half], v.e[2 * half + 1]));
        store_shared(to + half * SECOND, high);
        store_shared(to + normed_at<C>(0, 1) + half * SECOND, low);
    }
}

/* Norm COUNT rows from the first on, of which this lane has four channels: what
 * they are to be multiplied by. */
template <unsigned C, unsigned N, unsigned FIRST, unsigned COUNT>
__device__ static inline void find_factors(float (&factor)[N],
                                           const vec<4> (&rows)[N],
                                           const struct mixer &a)
{
    enum : unsigned { WIDTH = shape<C>::WIDTH, OF_ROW = COUNT > 4 ? 16 : 4 };
    float v[OF_ROW] = {}, sum;

#pragma unroll
    for (unsigned i = 0; i < COUNT; i++)
        v[i] = add_squares<4>(0.0f, rows[FIRST + i]);
    sum = factor_for<C>(sum_lanes<WIDTH / 2>(v), a);
#pragma unroll
    for (unsigned i = 0; i < COUNT; i++)
        factor[FIRST + i] = __shfl_sync(0xFFFFFFFFu, sum, i * (WIDTH / OF_ROW),
                                        WIDTH);
}

/* Mix a run of a strip, whose rows are t0 on of dialogue b: as they are, and
 * normed. */
template <unsigned C>
__device__ static inline void mix_run(const struct mixer &a, unsigned b,
                                      unsigned t0, unsigned char *mixed,
                                      unsigned normed, const weights<4> &w)
{
    const unsigned four = threadIdx.x % shape<C>::WIDTH;
    const unsigned run = threadIdx.x / shape<C>::WIDTH % 8;
    const unsigned first = t0 + run * RUN;
    vec<4> column[COLUMNS], y[RUN];
    float of_column[COLUMNS], of_row[RUN];

    read_columns(column, a, b, first, four * 4);
    find_factors<C, COLUMNS, 0, 16>(of_column, column, a);
    find_factors<C, COLUMNS, 16, COLUMNS - 16>(of_column, column, a);
#pragma unroll
    for (unsigned j = 0; j < COLUMNS; j++) {
        mix_next(y, column, j, of_column[j], first, w);
        if (j >= PAST) {
            const unsigned i = j - PAST;

            write<4>((float *)(mixed + (run * RUN + i) * shape<C>::MIXED_ROW) +
                         four * 4,
                     y[i]);
        }
    }
    find_factors<C, RUN, 0, RUN>(of_row, y, a);
    normed += normed_at<C>(four / 8 * 2 + four % 2, 0) +
              run * RUN * EIGHT_ROWS + four % 8 / 2 * 4;
#pragma unroll
    for (unsigned i = 0; i < RUN; i++)
        leave_normed<C>(normed + i * EIGHT_ROWS,
                        scale<4>(y[i], of_row[i], w.next_norm));
}

/* Start making 64 hidden channels, or adding what those of a round give. */
template <unsigned C>
__device__ static inline void start_up(float (&c)[STRIP / 2],
                                       const unsigned (&w)[shape<C>::STEPS][4],
                                       unsigned normed)
{
    typedef shape<C> S;

#pragma unroll
    for (unsigned k = 0; k < S::STEPS; k++)
#pragma unroll
        for (unsigned is_low = 0; is_low < 2; is_low++)
            multiply_64<0>(c, w[k],
                           columns_at(normed + normed_at<C>(k, is_low),
                                      S::STEPS * S::NORMED),
                           k + is_low > 0);
}

template <unsigned C>
__device__ static inline void start_down(
    float (&c)[STRIP / 2], const unsigned (&w)[shape<C>::STEPS][4],
    unsigned hidden)
{
    typedef shape<C> S;

#pragma unroll
    for (unsigned k = 0; k < S::STEPS; k++)
#pragma unroll
        for (unsigned is_low = 0; is_low < 2; is_low++)
            multiply_64<1>(
                c, w[k],
                columns_at(hidden + hidden_at<C>(k, is_low), S::HALF_STEP), 1);
}

/* Bend hidden channels, and split them: two rows of channel i in the place of
 * theirs, high and low. */
__device__ static inline void bend(float (&c)[STRIP / 2], float upper,
                                   float lower)
{
#pragma unroll
    for (unsigned i = 0; i < STRIP / 2; i += 2) {
        const float bias = i % 4 ? lower : upper;
        unsigned high, low;

        split(high, low, make_float2(gelu(c[i] + bias), gelu(c[i + 1] + bias)));
        c[i] = __uint_as_float(high);
        c[i + 1] = __uint_as_float(low);
    }
}

/* Leave them as columns of the next products; to: where this lane's first
 * are. */
template <unsigned C>
__device__ static inline void leave_hidden(unsigned to,
                                           const float (&c)[STRIP / 2])
{
    typedef shape<C> S;

#pragma unroll
    for (unsigned i = 0; i < STRIP / 2; i += 2)
#pragma unroll
        for (unsigned is_low = 0; is_low < 2; is_low++)
            store_shared(to + i / 4 * 8 * EIGHT_ROWS +
                             i / 2 % 2 * S::HALF_STEP +
                             is_low * 2 * S::HALF_STEP,
                         __float_as_uint(c[i + is_low]));
}

/* Finish the sums of a strip: of two neighbouring channels c, rows 2 q and one
 * more of every eight. */
template <unsigned C>
__device__ static inline void finish(const struct block &a,
                                     const unsigned char *mixed,
                                     const float (&sums)[STRIP / 2], unsigned b,
                                     unsigned t0, unsigned end, unsigned c)
{
    const unsigned row = threadIdx.x % 4 * 2;
    float *y = row_at(a.mixer.y, b, t0 + row) + c;
    ending w;

    w.load(a, c);
    mixed += row * shape<C>::MIXED_ROW + c * 4;
#pragma unroll
    for (unsigned i = 0; i < STRIP / 4; i++) {
        const unsigned m = i / 2 * 8 + i % 2, j = i / 2 * 4 + i % 2;
        const float2 v = *(const float2 *)(mixed + m * shape<C>::MIXED_ROW);

        if (t0 + row + m < end)
            *(float2 *)(y + m * a.mixer.y.stride_t) = w.finish(v, sums[j],
                                                               sums[j + 2]);
    }
}

/* Named barriers of a block: of the groups' turns, and of what they leave for
 * each other. */
enum { TURN_OF = 1, LEFT_BY = 3 };

__device__ static inline void await(unsigned barrier)
{
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"((int)THREADS)
                 : "memory");
}

__device__ static inline void arrive(unsigned barrier)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "n"((int)THREADS)
                 : "memory");
}

/* A group's way through all rounds. */
template <unsigned C> struct worker {
    typedef shape<C> S;

    feeder<C> from;
    unsigned group, strip;          /* of the block */
    unsigned normed, hidden, mixed; /* where the strip's are */
    unsigned place;                 /* of this lane's hidden channels */
    const float *biases;
    float bias[2]; /* of a round */
    unsigned up[S::STEPS][4], down[S::STEPS][4];

    __device__ inline void open(const struct block &a)
    {
        const unsigned lane = threadIdx.x % 32;
        unsigned step = threadIdx.x % GROUP / 32;

        group = __shfl_sync(0xFFFFFFFFu, threadIdx.x / GROUP, 0);
        strip = S::STRIPS == 1 ? 0 : group;
        step += S::STRIPS == 1 ? group * 4 : 0;
        normed = strip * S::STRIP_BYTES;
        hidden = normed + S::NORMED_BYTES;
        mixed = hidden + S::BUFFERS * S::HIDDEN_BYTES;
        place = hidden + hidden_at<C>(step, 0) + lane * 4;
        biases = a.up_bias + hidden_of_step(step) + lane / 8 * 8 + lane / 4 % 2;
        from.open(a, group);
    }

    /* Groups take turns at multiplying: one bends what the other does not. */
    __device__ inline void multiply(float (&sums)[STRIP / 2], unsigned memory)
    {
        float c[STRIP / 2];

#pragma unroll
        for (unsigned i = 0; i < STRIP / 2; i++)
            sums[i] = 0.0f;
        load_up(0);
        if (group == 1)
            arrive(TURN_OF + 0);
        start<true, false>(c, sums, memory, 0);
#pragma unroll 1
        for (unsigned round = 0; round + 1 < ROUNDS; round++) {
            const float upper = bias[0], lower = bias[1];

            load_up(round + 1);
            from.load_down(down, round);
            bend(c, upper, lower);
            leave(c, memory, round);
            start<true, true>(c, sums, memory, round + 1);
        }
        from.load_down(down, ROUNDS - 1);
        bend(c, bias[0], bias[1]);
        leave(c, memory, ROUNDS - 1);
        start<false, true>(c, sums, memory, ROUNDS);
    }

    __device__ inline void load_up(unsigned round)
    {
        from.load_up(up, round);
        bias[0] = __ldg(biases + round * S::OF_ROUND);
        bias[1] = __ldg(biases + round * S::OF_ROUND + 2);
    }

    /* Make a round's hidden channels, and add what those of the last give. */
    template <bool IS_UP, bool IS_DOWN>
    __device__ inline void start(float (&c)[STRIP / 2],
                                 float (&sums)[STRIP / 2], unsigned memory,
                                 unsigned round)
    {
        const unsigned old = (round - 1) % S::BUFFERS;

        await(TURN_OF + group);
        products_begin();
        if (IS_UP)
            start_up<C>(c, up, memory + normed);
        if (IS_DOWN && S::STRIPS == 1)
            await(LEFT_BY + 2 * old + 1 - group);
        if (IS_DOWN)
            start_down<C>(sums, down, memory + hidden + old * S::HIDDEN_BYTES);
        products_end();
        if (IS_UP || group == 0)
            arrive(TURN_OF + 1 - group);
        products_wait<0>();
        settle(c);
        settle(sums);
    }

    /* Leave the hidden channels of a round for the next products. */
    __device__ inline void leave(float (&c)[STRIP / 2], unsigned memory,
                                 unsigned round)
    {
        const unsigned buffer = round % S::BUFFERS;

        if (S::BUFFERS == 1)
            meet_group(); /* the last are of no more use */
        leave_hidden<C>(memory + place + buffer * S::HIDDEN_BYTES, c);
        show_stores();
        if (S::STRIPS == 1)
            arrive(LEFT_BY + 2 * buffer + group);
        meet_group();
    }

    __device__ inline void meet_group(void)
    {
        asm volatile("bar.sync %0, %1;" ::"r"(LEFT_BY + 4 + group),
                     "n"((int)GROUP)
                     : "memory");
    }
};

#endif

template <unsigned C>
__global__ __launch_bounds__(THREADS, 1) void block_async_kernel(
    const __grid_constant__ struct strips a)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    typedef shape<C> S;
    extern __shared__ __align__(128) unsigned char memory[];
    const unsigned at = shared_address(memory);
    float sums[STRIP / 2];
    worker<C> me;
    unsigned nth, b, t0, end;

    let_next_start();
    prefetch_weights<C, THREADS>(a.block);
    me.open(a.block);
    nth = min(blockIdx.x * S::STRIPS + me.strip, a.n - 1);
    b = nth / a.of_dialogue;
    t0 = nth % a.of_dialogue * a.rows;
    end = nth < blockIdx.x * S::STRIPS + me.strip
              ? t0
              : min(t0 + a.rows, a.block.mixer.x.T);
    {
        const weights<4> w = load_weights<4>(a.block.mixer,
                                             threadIdx.x % S::WIDTH * 4);

        wait_for_inputs();
        mix_run<C>(a.block.mixer, b, t0, memory + me.mixed, at + me.normed, w);
    }
    if (end == a.block.mixer.x.T && threadIdx.x / 32 % 4 == 0)
        keep_state<C>(a.block.mixer, b);
    show_stores();
    __syncthreads();
    me.multiply(sums, at);
    finish<C>(a.block, memory + me.mixed, sums, b, t0, end,
              (S::STRIPS == 1 ? threadIdx.x / GROUP * 64 : 0) +
                  threadIdx.x % GROUP / 32 * 16 + threadIdx.x % 32 / 4 * 2);
#endif
}

template <unsigned C>
static cudaError_t launch_block(const struct vibe_cuda *cuda,
                                const struct block *block)
{
    typedef shape<C> S;
    const void *kernel = (const void *)block_async_kernel<C>;
    const unsigned T = block->mixer.x.T, B = block->mixer.n_rows / T;
    const unsigned most = (unsigned)cuda->n_sm * S::STRIPS;
    const unsigned rounds = (B * ((T + STRIP - 1) / STRIP) + most - 1) / most;
    const int shared = S::STRIPS * S::STRIP_BYTES;
    struct strips a = {*block, most * rounds / B, 0, 0};
    cudaError_t rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);

    if (rc != cudaSuccess)
        return rc;
    a.rows = max((T + a.of_dialogue - 1) / a.of_dialogue, (unsigned)PAST);
    a.of_dialogue = (T + a.rows - 1) / a.rows;
    a.n = B * a.of_dialogue;
    return launch_waiting(kernel, dim3((a.n + S::STRIPS - 1) / S::STRIPS),
                          THREADS, shared, cuda->compute, &a);
}

bool vibe_cuda_can_block_async(const struct block *a)
{
    const unsigned C = a->mixer.C;

    return (C == 64 || C == 128) && a->up_stride == C &&
           a->down_stride == 4 * C &&
           has_products((const void *)block_async_kernel<128>);
}

cudaError_t vibe_cuda_block_async(const struct vibe_cuda *cuda,
                                  const struct block *a)
{
    return a->mixer.C == 64 ? launch_block<64>(cuda, a)
                            : launch_block<128>(cuda, a);
}
