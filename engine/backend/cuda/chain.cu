/*
 * chain.cu - wide blocks of a codec, one after the other in one kernel, for the
 * one column that a frame is there.
 *
 * Each of their products is short and bound by reading its weights.  The blocks
 * of this kernel, one for each multiprocessor, run beside each other and write
 * letters to each other between products; what they read next is on its way
 * meanwhile, since the ring of a warp goes on from one matrix to the next.  All
 * mix the whole column, which saves a step.
 *
 * A word of a letter is BLANK until its only writer has left it, so that who
 * reads one sees for itself whether it has arrived, and nobody else has to be
 * waited for.  Who makes outputs of a product has read all that goes into it;
 * so when all outputs are there, nobody will read those letters again, and
 * their writers leave blanks.
 *
 * Sums have the order of decode.cuh, so that a column gets the bits that it
 * gets from gemv.cu.
 */
#include "engine/backend/cuda/chain_feed.cuh"
#include "engine/backend/cuda/mail.cuh"
#include "engine/backend/cuda/rows.cuh"
#include "engine/backend/cuda/together.cuh"

#if __CUDA_ARCH__ >= 800

/* Where four neighbours of x lie, as gemv.cu has them in a tile. */
__device__ static inline unsigned x_at(unsigned four)
{
    const unsigned quad = four % (TILE_K / 4);

    return four / (TILE_K / 4) * X_TILE + (quad ^ (quad / 8 * 2)) * 16;
}

/* The part that this lane's column has of a tile of x. */
__device__ static inline void read_x(unsigned pairs[8],
                                     const unsigned char *tile)
{
    const unsigned at = threadIdx.x % 4 * 64 + threadIdx.x % 4 / 2 * 32;
    float4 x[4];

#pragma unroll
    for (unsigned i = 0; i < 4; i++)
        x[i] = *(const float4 *)(tile + (at ^ i / 2 * 32) + i % 2 * 16);
    part_of_x(pairs, x, part_of_lane(), true);
}

/* A warp's sums of a group, maybe its last of a product: outputs lane / 4 and 8
 * more, in every fourth lane. */
template <int DEPTH>
__device__ static inline float2 add_slice(ring<DEPTH> &tiles,
                                          const unsigned char *x, const plan &p,
                                          const chain &a, bool is_last)
{
    const unsigned step = X_TILE << p.log_slices;
    const bool is_used = threadIdx.x % 32 < 8; /* columns of both parts */
    unsigned pairs[8] = {};
    float2 sums = make_float2(0.0f, 0.0f);

    x += route::slice(p) * X_TILE;
    for (unsigned left = route::tiles(p); left > 0;) {
        const unsigned end = left > p.fold ? left - p.fold : 0;
        float c[4] = {};

        for (; left > end; left--, x += step) {
            tile_pairs w;

            tiles.take(w);
            if (is_used)
                read_x(pairs, x);
            if (!is_last || left > ring<DEPTH>::HELD)
                tiles.fill(a);
#pragma unroll
            for (int i = 0; i < 4; i++)
                multiply_step(c, w, pairs, i);
        }
        sums.x += c[0] + c[1];
        sums.y += c[2] + c[3];
    }
    return sums;
}

/* What four channels' past gives to their mixing. */
struct past {
    vec<4> columns[PAST], taps[PAST], bias;

    __device__ inline void load(const struct mixer &a, unsigned c)
    {
        bias = read<4>(a.w.bias + c);
#pragma unroll
        for (unsigned j = 0; j < PAST; j++) {
            columns[j] = read<4>(row_at(a.past, 0, j) + c);
            taps[j] = read<4>(a.w.taps + (size_t)j * a.C + c);
        }
    }

    __device__ inline vec<4> sum(void) const
    {
        vec<4> sum = bias;

#pragma unroll
        for (unsigned j = 0; j < PAST; j++)
#pragma unroll
            for (unsigned e = 0; e < 4; e++)
                sum.e[e] = fmaf(taps[j].e[e], columns[j].e[e], sum.e[e]);
        return sum;
    }

    /* All but the first are part of the next frame's. */
    __device__ inline void keep(const struct mixer &a, unsigned c) const
    {
#pragma unroll
        for (unsigned j = 1; j < PAST; j++)
            write_out<4>(row_at(a.state, 0, j - 1) + c, columns[j]);
    }
};

/* Letters of a block. */
struct letters {
    float *hidden; /* in two parts */
    float *x;      /* the column, unless it is the first block's */
    float *sums;   /* likewise, of the past, in its mixing */

    __device__ inline letters(const chain &a, unsigned i)
    {
        const unsigned n = a.plans[1].n_tiles * TILE_K;

        hidden = a.mail + i * (n + 2 * WIDTH);
        x = hidden + n;
        sums = x + WIDTH;
    }
};

/* Wait for four words; the whole warp does. */
__device__ static inline vec<4> receive(const float *from)
{
    float4 v;

    do {
        v = look(from);
    } while (__any_sync(0xFFFFFFFFu, largest_word(0, v) == BLANK));
    return {v.x, v.y, v.z, v.w};
}

/* Add up the pasts of all blocks but the first, and keep them: the last blocks
 * of threads do, of which some have less to multiply. */
__device__ static inline void mix_pasts(const chain &a)
{
    const unsigned n = (a.n - 1) * THREADS;

    for (unsigned i = (gridDim.x - 1 - blockIdx.x) * THREADS + threadIdx.x;
         i < n; i += gridDim.x * THREADS) {
        const unsigned c = i % THREADS * 4;
        const unsigned block = 1 + i / THREADS;
        const struct mixer &m = a.blocks[block].mixer;
        struct past past;
        vec<4> sum;

        past.load(m, c);
        sum = past.sum();
#pragma unroll
        for (unsigned e = 0; e < 4; e++)
            send(letters(a, block).sums + c + e, sum.e[e]);
        past.keep(m, c);
    }
}

/* What four channels need besides the column, of a block. */
struct early {
    vec<4> sum, tap, norm, gamma, next_norm;

    __device__ inline void load(const struct mixer &m, unsigned c)
    {
        tap = read<4>(m.w.taps + (size_t)PAST * m.C + c);
        norm = read<4>(m.w.norm + c);
        gamma = read<4>(m.w.gamma + c);
        next_norm = read<4>(m.w.next_norm + c);
    }
};

/* Mix and norm the column, this thread's four channels. */
__device__ static inline void mix_column(memory &shared, const struct mixer &a,
                                         const early &w, const vec<4> &x,
                                         const plan &down)
{
    const unsigned c = threadIdx.x * 4;
    float squares[1];
    vec<4> y = x, n;

    squares[0] = add_squares<4>(0.0f, x);
    sum_rows<1, 0>(squares, THREADS);
    n = scale<4>(x, factor_of(squares[0], a), w.norm);
    if (blockIdx.x == 0)
        write_out<4>(row_at(a.state, 0, PAST - 1) + c, n);
#pragma unroll
    for (unsigned e = 0; e < 4; e++)
        y.e[e] = fmaf(w.gamma.e[e], fmaf(w.tap.e[e], n.e[e], w.sum.e[e]),
                      y.e[e]);
    squares[0] = add_squares<4>(0.0f, y);
    sum_rows<1, 1>(squares, THREADS);
    /* for the block that adds to it */
    if (c / TILE_N / route::teams(down) % gridDim.x == blockIdx.x)
        write_out<4>(row_at(a.y, 0, 0) + c, y);
    write_kept<4>((float *)((unsigned char *)shared.x + x_at(threadIdx.x)),
                  scale<4>(y, factor_of(squares[0], a), w.next_norm), true);
    __syncthreads();
}

/* Ask for what the first mixing needs, and for tiles behind it: what is read
 * comes in the order of asking. */
template <int DEPTH>
__device__ static inline void begin(const chain &a, early &w, vec<4> &x,
                                    ring<DEPTH> &tiles)
{
    const struct mixer &m = a.blocks[0].mixer;
    const unsigned c = threadIdx.x * 4;
    struct past past;

    mix_pasts(a);
    x = read<4>(row_at(m.x, 0, 0) + c);
    past.load(m, c);
    w.load(m, c);
    tiles.fill(a);
    w.sum = past.sum();
    if (blockIdx.x == 0)
        past.keep(m, c);
}

/* Where hidden channels of block i that a warp will multiply lie. */
struct hidden_part {
    const float *from;
    unsigned n, slice, log_slices; /* its tiles */

    __device__ inline void open(const chain &a, unsigned i)
    {
        const plan &p = a.plans[1];
        const unsigned group = blockIdx.x * route::teams(p) + route::team(p);

        from = letters(a, i).hidden;
        n = group < p.n_groups ? route::tiles(p) : 0;
        slice = route::slice(p);
        log_slices = p.log_slices;
    }

    /* The first of four words of tile k, or of the last one. */
    __device__ inline unsigned at(unsigned k) const
    {
        return (slice + (min(k, n - 1) << log_slices)) * TILE_K +
               threadIdx.x % 16 * 4;
    }
};

/* Take hidden channels as soon as they have arrived, for this warp alone. */
template <int DEPTH>
__device__ static inline void take_hidden(memory &shared, ring<DEPTH> &tiles,
                                          const chain &a, unsigned i)
{
    enum { FOURS = 4 }; /* of a lane, at once */
    const unsigned half = threadIdx.x % 32 / 16;
    hidden_part part;

    part.open(a, i);
#pragma unroll 1
    for (unsigned k = half; k < part.n + half; k += 2 * FOURS) {
        float4 v[FOURS];
        unsigned word;

        do {
            word = 0;
#pragma unroll
            for (unsigned j = 0; j < FOURS; j++)
                v[j] = look(part.from + part.at(k + 2 * j));
#pragma unroll
            for (unsigned j = 0; j < FOURS; j++)
                word = largest_word(word, v[j]);
        } while (__any_sync(0xFFFFFFFFu, word == BLANK));
        tiles.fill(a);
#pragma unroll
        for (unsigned j = 0; j < FOURS; j++)
            *(float4 *)((unsigned char *)shared.x +
                        x_at(part.at(k + 2 * j) / 4)) = v[j];
    }
    tiles.fill(a); /* of a warp that has nothing to take */
    __syncwarp();
}

/* Leave an output where it is read, and blanks for what it was made of. */
__device__ static inline void leave_output(const chain &a, unsigned product,
                                           unsigned n, float v)
{
    const unsigned i = product / 2;

    if (product % 2 == 0) {
        send(letters(a, i).hidden + n, v);
        if (i > 0)
            leave_blank(letters(a, i - 1).hidden + n);
        return;
    }
    if (i + 1 < a.n)
        send(letters(a, i + 1).x + n, v);
    else
        row_at(a.blocks[i].mixer.y, 0, 0)[n] = v;
    if (i > 0) {
        leave_blank(letters(a, i).x + n);
        leave_blank(letters(a, i).sums + n);
    }
}

/* Make this block's outputs of a product. */
template <int DEPTH>
__device__ static inline void multiply_column(memory &shared,
                                              ring<DEPTH> &tiles,
                                              const chain &a, unsigned product,
                                              unsigned &side)
{
    const struct block &b = a.blocks[product / 2];
    const plan &p = a.plans[product % 2];
    const bool is_down = product % 2;
    const unsigned teams = route::teams(p);
    const unsigned team = route::team(p);
    const unsigned lane = threadIdx.x % 32;
    const float *bias = is_down ? b.down_bias : b.up_bias;

    for (unsigned first = blockIdx.x * teams; first < p.n_groups;
         first += gridDim.x * teams, side ^= 1) {
        const unsigned n = first * TILE_N + threadIdx.x;
        const bool is_mine = threadIdx.x < teams * TILE_N &&
                             n < p.n_groups * TILE_N;
        struct operands o = {1.0f, 0.0f, 1.0f, 0.0f};

        if (is_mine) {
            o.bias = __ldg(bias + n);
            o.mul = is_down ? __ldg(b.gamma + n) : 1.0f;
            o.old = is_down ? __ldcg(row_at(b.mixer.y, 0, 0) + n) : 0.0f;
        }
        if (first + team < p.n_groups) {
            const float2 sums = add_slice(
                tiles, (const unsigned char *)shared.x, p, a,
                first + team + gridDim.x * teams >= p.n_groups);
            float *to = shared.parts[side][threadIdx.x / 32] + lane / 4;

            if (lane % 4 == 0) {
                to[0] = sums.x;
                to[8] = sums.y;
            }
        }
        __syncthreads();
        if (is_mine) {
            const float *part = shared.parts[side][threadIdx.x / TILE_N
                                                   << p.log_slices] +
                                threadIdx.x % TILE_N;
            float sums[WARPS] = {};
            float z;

#pragma unroll
            for (unsigned s = 0; s < WARPS; s++)
                if (s < 1u << p.log_slices)
                    sums[s] = part[s * TILE_N];
            if (teams == 1)
                add_halves<WARPS>(sums);
            else
                add_halves<WARPS / 2>(sums);
            z = sums[0] * o.scale + o.bias;
            leave_output(a, product, n,
                         is_down ? finished(VIBE_ADD, o, z)
                                 : kept(finished(VIBE_GELU, o, z), true));
        }
    }
}

/* Whether this block has outputs of W1, and so reads every column; without, it
 * has none of W2, and might come too late to read. */
__device__ static inline bool makes_hidden(const chain &a)
{
    return blockIdx.x * route::teams(a.plans[0]) < a.plans[0].n_groups;
}

#endif

/* bytes: the weights once. */
template <int DEPTH>
__global__ void __launch_bounds__(THREADS, 1)
    chain_kernel(const __grid_constant__ struct chain a)
{
#if __CUDA_ARCH__ >= 800
    extern __shared__ __align__(128) unsigned char bytes[];
    memory &shared = *(memory *)bytes;
    const unsigned longer = max(a.plans[0].n_tiles, a.plans[1].n_tiles);
    const unsigned last = a.n - 1, n_hidden = a.plans[0].n_groups * TILE_N;
    meeting all = {a.arrived, 0};
    unsigned side = 0;
    ring<DEPTH> tiles;
    early w;
    vec<4> x;

    tiles.open(a, bytes + sizeof(memory) + longer * X_TILE);
    let_next_start();
    begin(a, w, x, tiles);
    for (unsigned i = 0; i < a.n && makes_hidden(a); i++) {
        mix_column(shared, a.blocks[i].mixer, w, x, a.plans[1]);
        multiply_column(shared, tiles, a, 2 * i, side);
        take_hidden(shared, tiles, a, i);
        if (i == last)
            break;
        multiply_column(shared, tiles, a, 2 * i + 1, side);
        w.load(a.blocks[i + 1].mixer, threadIdx.x * 4);
        w.sum = receive(letters(a, i + 1).sums + threadIdx.x * 4);
        x = receive(letters(a, i + 1).x + threadIdx.x * 4);
        tiles.fill(a);
    }
    all.arrive();
    if (makes_hidden(a))
        multiply_column(shared, tiles, a, 2 * last + 1, side);
    copies_wait<0>();
    all.wait(); /* nobody reads the last letters any more */
    for (unsigned n = blockIdx.x * THREADS + threadIdx.x; n < n_hidden;
         n += gridDim.x * THREADS)
        leave_blank(letters(a, last).hidden + n);
    all.leave();
#endif
}

static struct plan plan_of(const struct vibe_matrix *w)
{
    struct plan p;

    p.row_bytes = (unsigned)vibe_cuda_stride(w->K) * 2;
    p.n_tiles = (unsigned)(w->K / TILE_K);
    p.n_groups = (unsigned)(w->N / TILE_N);
    p.log_slices = slices_of(w->K) == WARPS ? 4 : 3;
    p.fold = fold_of(w->K);
    return p;
}

static size_t shared_bytes(const struct chain *a, unsigned depth)
{
    return sizeof(memory) +
           max(a->plans[0].n_tiles, a->plans[1].n_tiles) * X_TILE +
           (size_t)WARPS * depth * W_TILE;
}

/* The deeper of the rings that fit. */
static cudaError_t launch_chain(const struct vibe_cuda *cuda, struct chain *a)
{
    const size_t most = shared_limit(cuda) - STATIC_BYTES;
    const bool is_deep = shared_bytes(a, DEEP) <= most;
    const unsigned depth = is_deep ? DEEP : SHALLOW;
    const void *kernel = is_deep ? (const void *)chain_kernel<DEEP>
                                 : (const void *)chain_kernel<SHALLOW>;
    const size_t shared = shared_bytes(a, depth);
    cudaError_t rc = cudaErrorNotSupported;

    if (shared <= most)
        rc = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    return rc == cudaSuccess
               ? launch(kernel, TOGETHER, dim3((unsigned)cuda->n_sm), THREADS,
                        shared, cuda->compute, a)
               : rc;
}

static bool is_taken(const struct vibe_matrix *w, const struct vibe_matrix *as)
{
    return w->part[0].dtype == VIBE_BF16 && !w->part[0].scale && w->bias &&
           w->N == as->N && w->K == as->K && w->N % TILE_N == 0 &&
           w->K % TILE_K == 0;
}

int vibe_cuda_can_chain(const struct vibe_cuda *cuda,
                        const struct vibe_block_call *calls, size_t n)
{
    const struct vibe_block *first = calls[0].w;

    if (n < 2 || n > VIBE_CUDA_CHAIN || cuda->cc < 80 ||
        vibe_cuda_compiled_for() < 80 ||
        !attribute_of(cuda, cudaDevAttrCooperativeLaunch))
        return 0;
    for (size_t i = 0; i < n; i++) {
        const struct vibe_block_call *call = &calls[i];

        if (call->w->up.N < 2 * WIDTH || call->w->up.N != call->w->down.K ||
            call->x.B != 1 || call->x.T != 1 || call->x.C != WIDTH ||
            !is_taken(&call->w->up, &first->up) ||
            !is_taken(&call->w->down, &first->down) || !call->w->down.gamma)
            return 0;
    }
    return 1;
}

size_t vibe_cuda_chain_mail(const struct vibe_block_call *calls, size_t n)
{
    return n * (calls->w->down.K + 2 * WIDTH) * sizeof(float);
}

cudaError_t vibe_cuda_chain(const struct vibe_cuda *cuda,
                            const struct vibe_block_call *calls, size_t n,
                            void *mail)
{
    struct chain a = {};

    a.plans[0] = plan_of(&calls->w->up);
    a.plans[1] = plan_of(&calls->w->down);
    a.mail = (float *)mail;
    a.arrived = cuda->done;
    a.n = (unsigned)n;
    for (size_t i = 0; i < n; i++)
        a.blocks[i] = block_of(&calls[i], &calls[i].y);
    return launch_chain(cuda, &a);
}
