/*
 * gemv.cu - products with one to four rows on the tensor cores, bound by
 * reading the weights once.
 *
 * A block makes 16 outputs at a time; each of its warps does a slice of K
 * (decode.cuh).  A warp keeps a ring of tiles of its own filled, also from
 * one group of outputs to the next, and from before the kernel ahead has
 * ended: weights never change.  x comes through the ring beside them.
 */
#include "engine/backend/cuda/decode.cuh"

enum {
    ROWS = VIBE_CUDA_GEMV_ROWS, /* of x: two columns each */
    X_BYTES = TILE_K * 4,       /* of a row of x in a tile */
    RING_BYTES = 8 << 10,    /* of weights, for a warp, where there is room */
    STATIC_BYTES = 17 << 10, /* of shared memory, and a little more */
    BUSY_WARPS = 16,         /* that keep a multiprocessor's memory busy */
};

/* Rows come in twos: the second may be there twice. */
__host__ __device__ static inline size_t even(size_t n_rows)
{
    return (n_rows + 1) / 2 * 2;
}

#if __CUDA_ARCH__ >= 800

/* Row m of those of this launch, the last one for those past it. */
__device__ static inline size_t row_of(const decode &a, const struct view &v,
                                       unsigned m)
{
    return row_at(v, a.e.T, a.first + min(m, a.n_rows - 1));
}

/*
 * x on its way through the ring: 16 neighbours of up to four rows.  Quads of
 * channels are pieces of 16 bytes; those of the upper half of a row swap
 * places so that lanes meet in no bank.
 */
struct x_feed {
    const float *from[ROWS / 2]; /* this lane's quad of every other row */

    __device__ inline void open(const decode &a)
    {
#pragma unroll
        for (unsigned i = 0; i < ROWS / 2; i++)
            from[i] = a.x.data + row_of(a, a.x, 2 * i + threadIdx.x % 32 / 16);
    }

    __device__ static inline unsigned place(unsigned quad)
    {
        return quad ^ (quad / 8 * 2);
    }

    __device__ inline void fetch(unsigned char *to, const decode &a,
                                 unsigned tile) const
    {
        const unsigned quad = threadIdx.x % 16;
        const unsigned k = tile * TILE_K + quad * 4;

        to += threadIdx.x % 32 / 16 * X_BYTES + place(quad) * 16;
#pragma unroll
        for (unsigned i = 0; i < ROWS / 2; i++) {
            if (2 * i >= a.n_rows)
                break;
            if (a.is_aligned && k + 4 <= a.K) {
                copy_async<16>(to + 2 * i * X_BYTES, from[i] + k, true);
                continue;
            }
#pragma unroll
            for (unsigned j = 0; j < 4; j++)
                copy_async<4>(to + 2 * i * X_BYTES + 4 * j,
                              k + j < a.K ? from[i] + k + j : a.x.data,
                              k + j < a.K);
        }
    }

    /* The part that lane's column has of its 16 neighbours. */
    __device__ static inline void read(unsigned pairs[8],
                                       const unsigned char *tile, bool is_split)
    {
        const unsigned m = threadIdx.x % 32 / 8;
        const unsigned q = threadIdx.x % 4;
        float4 x[4];

#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            x[i] = *(const float4 *)(tile + m * X_BYTES +
                                     place(4 * q + i) * 16);
        part_of_x(pairs, x, threadIdx.x / 4 % 2, is_split);
    }
};

/* What becomes of output r of those of a block, for row m. */
struct target {
    size_t y_at, gate_at;
    unsigned r, m;
    bool is_there;
};

__device__ static inline target target_of(const decode &a, unsigned n_outputs)
{
    target t;

    t.r = threadIdx.x % n_outputs;
    t.m = threadIdx.x / n_outputs;
    t.is_there = t.m < a.n_rows;
    t.y_at = row_of(a, a.e.y, t.m);
    t.gate_at = row_of(a, a.e.gate, t.m);
    return t;
}

/* Add up the slices of a block's outputs, finish and store. */
template <int WARPS, int OUTPUTS>
__device__ static inline void finish_outputs(
    const float parts[WARPS][ROWS][OUTPUTS], const decode &a, const target &t,
    const struct operands &o, unsigned n)
{
    float z = parts[0][t.m][t.r];
    float up;

#pragma unroll
    for (unsigned s = 1; s < WARPS; s++)
        z += parts[s][t.m][t.r];
    z = z * o.scale + o.bias;
    up = __shfl_xor_sync(0xFFFFFFFFu, z, 1);
    if (!t.is_there || n >= a.e.N)
        return;
    if (a.e.kind != VIBE_SWIGLU)
        put(a.e.y, t.y_at + n, finished(a.e.kind, o, z));
    else if (n % 2 == 0)
        put(a.e.y, t.y_at + n / 2, silu(z) * up);
}

#endif

#if __CUDA_ARCH__ >= 800
/* A warp's ring, with x beside the weights. */
template <int dtype, int HEIGHT> struct feeder {
    typedef ring<dtype, HEIGHT> tiles;

    tiles weights;
    x_feed x;
    unsigned char *slots;
    unsigned slot_bytes;
    bool has_column;

    __device__ inline void open(const decode &a, unsigned char *memory,
                                const path &way)
    {
        slot_bytes = tiles::BYTES + even(a.n_rows) * X_BYTES;
        slots = memory + threadIdx.x / 32 * a.depth * slot_bytes;
        has_column = threadIdx.x % 32 / 8 < a.n_rows;
        weights.open(a, way);
    }

    /* Fill the ring: what can be had before the kernel ahead has ended. */
    __device__ inline void fill_weights(const decode &a)
    {
        for (unsigned i = 0; i < a.depth; i++) {
            weights.fetch(slots + i * slot_bytes, a);
            weights.next(a);
        }
    }

    /* The rest of it, along the same way. */
    __device__ inline void fill_x(const decode &a, path way)
    {
        x.open(a);
        for (unsigned i = 0; i < a.depth; i++) {
            if (way.is_in())
                x.fetch(slots + i * slot_bytes + tiles::BYTES, a, way.tile());
            copies_end();
            way.next();
        }
    }

    /* Take the tile at hand and have the slot filled again. */
    __device__ inline void take(tile_pairs w[HEIGHT], unsigned pairs[8],
                                const decode &a)
    {
        unsigned char *here = slots + weights.slot * slot_bytes;

        copies_wait_for(a.depth);
        __syncwarp();
#pragma unroll
        for (int h = 0; h < HEIGHT; h++)
            read_tile<dtype>(w[h], here + h * tiles::TILE_BYTES);
        if (has_column)
            x_feed::read(pairs, here + tiles::BYTES, a.x.is_split);
        __syncwarp();
        weights.fetch(here, a);
        if (weights.ahead.is_in())
            x.fetch(here + tiles::BYTES, a, weights.ahead.tile());
        copies_end();
        weights.next(a);
        weights.advance(a);
    }
};

/* A warp's sums of a group: outputs lane / 4 and 8 more of each tile, of x's
 * row lane % 4. */
template <int dtype, int HEIGHT>
__device__ static inline void add_slice(float2 sums[HEIGHT],
                                        feeder<dtype, HEIGHT> &f,
                                        const decode &a, unsigned n_tiles)
{
    float c[HEIGHT][4] = {};
    unsigned in_fold = 0;

#pragma unroll
    for (int h = 0; h < HEIGHT; h++)
        sums[h] = make_float2(0.0f, 0.0f);
    for (unsigned i = 0; i < n_tiles; i++) {
        const bool is_last = ++in_fold == a.fold || i + 1 == n_tiles;
        tile_pairs w[HEIGHT];
        unsigned x[8] = {};

        f.take(w, x, a);
#pragma unroll
        for (int j = 0; j < 4 * HEIGHT; j++)
            multiply_step(c[j % HEIGHT], w[j % HEIGHT], x, j / HEIGHT);
        if (!is_last)
            continue;
        in_fold = 0;
#pragma unroll
        for (int h = 0; h < HEIGHT; h++) {
            sums[h].x += c[h][0] + c[h][1];
            sums[h].y += c[h][2] + c[h][3];
            c[h][0] = c[h][1] = c[h][2] = c[h][3] = 0.0f;
        }
    }
}

/* The way of a warp: the tiles of its slice for every group of its block. */
__device__ static inline path way_of(const decode &a, unsigned n_rounds)
{
    const unsigned warp = threadIdx.x / 32;
    path way;

    way.first = warp;
    way.stride = a.slices;
    way.n = (a.n_tiles + a.slices - 1 - warp) / a.slices;
    way.group = blockIdx.x;
    way.step = gridDim.x;
    way.end = way.n ? n_rounds : 0;
    way.i = 0;
    return way;
}
#endif

/* bytes: the weights once; x comes from the caches. */
template <int dtype, int WARPS, int HEIGHT>
__global__ void __launch_bounds__(32 * WARPS, BUSY_WARPS / WARPS)
    gemv_kernel(const __grid_constant__ struct decode a)
{
#if __CUDA_ARCH__ >= 800
    enum { OUTPUTS = HEIGHT * TILE_N };

    extern __shared__ uint4 memory[];
    __shared__ float parts[2][WARPS][ROWS][OUTPUTS];
    const unsigned warp = threadIdx.x / 32;
    const unsigned lane = threadIdx.x % 32;
    const unsigned n_rounds = (a.n_groups + HEIGHT - 1) / HEIGHT;
    const path way = way_of(a, n_rounds);
    const target t = target_of(a, OUTPUTS);
    feeder<dtype, HEIGHT> f;
    unsigned side = 0;

    f.open(a, (unsigned char *)memory, way);
    f.fill_weights(a);
    let_next_start();
    wait_for_inputs();
    f.fill_x(a, way);
    for (unsigned i = blockIdx.x; i < n_rounds; i += gridDim.x, side ^= 1) {
        const unsigned n = i * OUTPUTS + t.r;
        struct operands o = {};
        float2 sums[HEIGHT];

        if (t.is_there && n < a.e.N)
            o = read_operands(a.e, t.y_at, t.gate_at, n);
        add_slice(sums, f, a, way.n);
        if (lane % 4 < a.n_rows)
#pragma unroll
            for (unsigned h = 0; h < HEIGHT; h++) {
                float *to = &parts[side][warp][lane % 4][h * TILE_N + lane / 4];

                to[0] = sums[h].x;
                to[8] = sums[h].y;
            }
        __syncthreads();
        if (warp * 32 < a.n_rows * OUTPUTS)
            finish_outputs<WARPS, OUTPUTS>(parts[side], a, t, o, n);
    }
    copies_wait<0>();
#endif
}

/* How the work is shared out. */
struct shares {
    size_t slot_bytes; /* of a warp's ring */
    unsigned warps, depth, height;
};

static size_t shared_bytes(const struct shares *s)
{
    return s->warps * s->depth * s->slot_bytes;
}

/* Two tiles at once are less work where weights are smaller than bf16 and so
 * come faster; as long as every multiprocessor has some. */
static struct shares shares_of(const struct vibe_cuda *cuda,
                               const struct vibe_matrix *w, size_t n_rows)
{
    const size_t limit = shared_limit(cuda) - STATIC_BYTES;
    const size_t tile = tile_bytes(w->part[0].dtype);
    struct shares s;

    s.warps = slices_of(w->K);
    s.height = w->part[0].dtype != VIBE_BF16 &&
                       2 * w->N >= (size_t)(3 * TILE_N * cuda->n_sm)
                   ? 2
                   : 1;
    s.slot_bytes = s.height * tile + even(n_rows) * X_BYTES;
    s.depth = (unsigned)(RING_BYTES / (s.height * tile));
    while (s.depth > 2 && shared_bytes(&s) > limit)
        s.depth /= 2;
    return s;
}

template <int dtype> static const void *kernel_for(const struct shares *s)
{
    if (s->warps == SLICES)
        return s->height == 1 ? (const void *)gemv_kernel<dtype, SLICES, 1>
                              : (const void *)gemv_kernel<dtype, SLICES, 2>;
    return s->height == 1 ? (const void *)gemv_kernel<dtype, MANY_SLICES, 1>
                          : (const void *)gemv_kernel<dtype, MANY_SLICES, 2>;
}

cudaError_t vibe_cuda_gemv(const struct vibe_cuda *cuda,
                           const struct vibe_cuda_product *p, size_t first,
                           size_t n_rows)
{
    const struct shares s = shares_of(cuda, p->w, n_rows);
    const size_t shared = shared_bytes(&s);
    const enum vibe_dtype dtype = p->w->part[0].dtype;
    const void *kernel = dtype == VIBE_BF16 ? kernel_for<VIBE_BF16>(&s)
                         : dtype == VIBE_I8 ? kernel_for<VIBE_I8>(&s)
                                            : kernel_for<VIBE_F8_E4M3>(&s);
    const unsigned most = (unsigned)cuda->n_sm *
                          blocks_that_fit(cuda, shared + STATIC_BYTES,
                                          BUSY_WARPS / s.warps);
    struct decode a = decode_of(p, first, n_rows);
    const unsigned n_rounds = (a.n_groups + s.height - 1) / s.height;

    a.depth = s.depth;
    return launch_large(cuda, kernel, n_rounds < most ? n_rounds : most,
                        32 * s.warps, shared, &a);
}
