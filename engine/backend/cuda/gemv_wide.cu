/*
 * gemv_wide.cu - products with up to 16 rows on the tensor cores, in one pass
 * over the weights: better than passes of four rows from nine rows on.
 *
 * A block stays with FOLD tiles of one slice of K (decode.cuh), whose part of
 * x it holds in shared memory; its warps take groups of 16 outputs in turns.
 * Sums of the parts of K meet in global memory, where the warp that comes last
 * adds them up in the order of gemv.cu.
 */
#include "engine/backend/cuda/decode.cuh"

enum {
    WARPS = 8,
    THREADS = 32 * WARPS,
    TILES = 4,            /* of four rows of x */
    HEIGHT = 2,           /* groups of outputs that a warp makes at once */
    PER_SM = 2,           /* blocks of a multiprocessor */
    RING_BYTES = 8 << 10, /* of a warp */
    X_STRIDE = 2 * MAX_FOLD * TILE_K +
               16, /* bytes from column to column of x */
};

/* How many parts of fold tiles or fewer K is cut into: slice by slice for the
 * first fold tiles of each, then for the next. */
__host__ __device__ static inline unsigned parts_of(unsigned n_tiles,
                                                    unsigned slices,
                                                    unsigned fold)
{
    const unsigned of_round = slices * fold;
    const unsigned rest = n_tiles % of_round;

    return n_tiles / of_round * slices + (rest < slices ? rest : slices);
}

#if __CUDA_ARCH__ >= 800

/* Two neighbours of row m of x as they are kept, zeros where there are none. */
__device__ static inline float2 load_pair(const decode &a, unsigned m,
                                          unsigned k)
{
    float2 v = make_float2(0.0f, 0.0f);

    if (m < a.n_rows) {
        const float *row = a.x.data + row_at(a.x, a.e.T, a.first + m);

        if (k < a.K)
            v.x = row[k];
        if (k + 1 < a.K)
            v.y = row[k + 1];
    }
    return v;
}

/*
 * Split this part of x into shared memory: column 2 m has the high parts of
 * row m, 2 m + 1 the low ones; rows past the last are zeros.  A warp takes a
 * tile of a row; LOADS of them are on their way together.
 */
__device__ static inline void stage_part(unsigned char *staged, const decode &a,
                                         const path &p)
{
    enum { LOADS = 8, ROWS = 4 * TILES };
    const unsigned pair = 2 * (threadIdx.x % 32);

    for (unsigned i = threadIdx.x / 32; i < ROWS * MAX_FOLD;
         i += LOADS * WARPS) {
        float2 v[LOADS];

#pragma unroll
        for (unsigned j = 0; j < LOADS; j++) {
            const unsigned at = i + j * WARPS;

            v[j] = load_pair(a, at / MAX_FOLD,
                             (p.first + at % MAX_FOLD * p.stride) * TILE_K +
                                 pair);
        }
#pragma unroll
        for (unsigned j = 0; j < LOADS; j++) {
            const unsigned at = i + j * WARPS;
            unsigned char *to = staged + 2 * (at / MAX_FOLD) * X_STRIDE +
                                (at % MAX_FOLD * TILE_K + pair) * 2;

            read_split(*(unsigned *)to, *(unsigned *)(to + X_STRIDE), v[j],
                       a.x.is_split);
        }
    }
    __syncthreads();
}

/* Where part i of the sums of a group is: a float2 for each lane, each tile of
 * outputs and four rows of x: outputs lane / 4 and 8 more of row lane % 4. */
template <int COUNT>
__device__ static inline float2 *partial_at(const decode &a, unsigned group,
                                            unsigned n_parts, unsigned i)
{
    return (float2 *)a.partial + ((size_t)group * n_parts + i) * COUNT * 32 +
           threadIdx.x % 32;
}

/*
 * Leave the sums of a part in memory.  Returns true in the warp that comes
 * last, with the sums of all of K.
 */
template <int COUNT>
__device__ static inline bool gather(float2 sums[COUNT], const decode &a,
                                     unsigned group, unsigned i)
{
    const unsigned n_parts = parts_of(a.n_tiles, a.slices, a.fold);
    float2 *mine = partial_at<COUNT>(a, group, n_parts, i);
    unsigned arrived = 0;

    if (n_parts == 1)
        return true;
#pragma unroll
    for (int t = 0; t < COUNT; t++)
        mine[t * 32] = sums[t];
    __threadfence();
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        arrived = atomicAdd(&a.done[group], 1);
    if (__shfl_sync(0xFFFFFFFFu, arrived, 0) != n_parts - 1)
        return false;
    __threadfence();
    if (threadIdx.x % 32 == 0)
        a.done[group] = 0;
#pragma unroll
    for (int t = 0; t < COUNT; t++)
        sums[t] = make_float2(0.0f, 0.0f);
    for (unsigned s = 0; s < min(n_parts, a.slices); s++) {
        float2 slice[COUNT] = {};

        for (unsigned j = s; j < n_parts; j += a.slices) {
            const float2 *from = partial_at<COUNT>(a, group, n_parts, j);

#pragma unroll
            for (int t = 0; t < COUNT; t++) {
                const float2 v = __ldcg(from + t * 32);

                slice[t].x += v.x;
                slice[t].y += v.y;
            }
        }
#pragma unroll
        for (int t = 0; t < COUNT; t++) {
            sums[t].x += slice[t].x;
            sums[t].y += slice[t].y;
        }
    }
    return true;
}

/* Finish and store output n of row m, a lane of eight neighbours. */
__device__ static inline void finish_output(const decode &a, unsigned m,
                                            unsigned n, float z)
{
    const bool is_stored = m < a.n_rows && n < a.e.N;
    const size_t y_at = row_at(a.e.y, a.e.T, a.first + m);
    struct operands o = {};
    float up;

    if (is_stored)
        o = read_operands(a.e, y_at, row_at(a.e.gate, a.e.T, a.first + m), n);
    z = z * o.scale + o.bias;
    up = __shfl_xor_sync(0xFFFFFFFFu, z, 4);
    if (!is_stored)
        return;
    if (a.e.kind != VIBE_SWIGLU)
        put(a.e.y, y_at + n, finished(a.e.kind, o, z));
    else if (n % 2 == 0)
        put(a.e.y, y_at + n / 2, silu(z) * up);
}

/* Bring the sums of HEIGHT groups together, and finish them where they are
 * complete. */
__device__ static inline void finish_groups(const float c[HEIGHT][TILES][4],
                                            const decode &a, unsigned group,
                                            unsigned which)
{
    float2 sums[HEIGHT * TILES];

#pragma unroll
    for (int i = 0; i < HEIGHT * TILES; i++) {
        const float *s = c[i / TILES][i % TILES];

        sums[i] = make_float2(s[0] + s[1], s[2] + s[3]);
    }
    if (!gather<HEIGHT * TILES>(sums, a, group, which))
        return;
#pragma unroll
    for (int i = 0; i < HEIGHT * TILES; i++) {
        const unsigned lane = threadIdx.x % 32;
        const unsigned m = i % TILES * 4 + lane % 4;
        const unsigned n = (group * HEIGHT + i / TILES) * TILE_N + lane / 4;

        finish_output(a, m, n, sums[i].x);
        finish_output(a, m, n + 8, sums[i].y);
    }
}

#endif

#if __CUDA_ARCH__ >= 800
/* A part's way through the groups of a warp. */
__device__ static inline path way_of(const decode &a, unsigned n_parts)
{
    const unsigned which = blockIdx.x % n_parts;
    path way;

    way.first = which / a.slices * a.slices * a.fold + which % a.slices;
    way.stride = a.slices;
    way.n = min((a.n_tiles - way.first + a.slices - 1) / a.slices, a.fold);
    way.group = blockIdx.x / n_parts * WARPS + threadIdx.x / 32;
    way.step = gridDim.x / n_parts * WARPS;
    way.end = (a.n_groups + HEIGHT - 1) / HEIGHT;
    way.i = 0;
    return way;
}

/* A warp's ring and sums of HEIGHT groups. */
template <int dtype> struct maker {
    typedef ring<dtype, HEIGHT> tiles;

    tiles weights;
    unsigned char *slots;
    const unsigned char *column; /* this lane's of staged x */

    __device__ inline void fill(const decode &a)
    {
        for (unsigned i = 0; i < a.depth; i++) {
            weights.fetch(slots + i * tiles::BYTES, a);
            copies_end();
            weights.next(a);
        }
    }

    __device__ inline void add_tile(float c[HEIGHT][TILES][4], const decode &a,
                                    unsigned tile)
    {
        unsigned char *here = slots + weights.slot * tiles::BYTES;
        tile_pairs w[HEIGHT];

        copies_wait_for(a.depth);
        __syncwarp();
#pragma unroll
        for (int h = 0; h < HEIGHT; h++)
            read_tile<dtype>(w[h], here + h * tiles::TILE_BYTES);
        __syncwarp();
        weights.fetch(here, a);
        copies_end();
        weights.next(a);
        weights.advance(a);
        /* two by HEIGHT products at a time that do not wait for each other */
#pragma unroll
        for (int t = 0; t < TILES; t += 2) {
            const unsigned char *from = column + t * 8 * X_STRIDE +
                                        tile * 2 * TILE_K;
            unsigned x[2][8];

#pragma unroll
            for (int j = 0; j < 2; j++) {
                read_16_bytes(x[j], from + j * 8 * X_STRIDE);
                read_16_bytes(x[j] + 4, from + j * 8 * X_STRIDE + 16);
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int h = 0; h < 2 * HEIGHT; h++)
                    multiply_step(c[h / 2][t + h % 2], w[h / 2], x[h % 2], i);
        }
    }
};
#endif

/* bytes: the weights once, and little sums. */
template <int dtype>
__global__ void __launch_bounds__(THREADS, PER_SM)
    gemv_wide_kernel(const __grid_constant__ struct decode a)
{
#if __CUDA_ARCH__ >= 800
    extern __shared__ uint4 memory[];
    const unsigned lane = threadIdx.x % 32;
    const unsigned n_parts = parts_of(a.n_tiles, a.slices, a.fold);
    const path way = way_of(a, n_parts);
    unsigned char *staged = (unsigned char *)memory +
                            WARPS * a.depth * ring<dtype, HEIGHT>::BYTES;
    maker<dtype> m;

    m.slots = (unsigned char *)memory +
              threadIdx.x / 32 * a.depth * ring<dtype, HEIGHT>::BYTES;
    m.column = staged + lane / 4 * X_STRIDE + lane % 4 * 32;
    m.weights.open(a, way);
    m.fill(a);
    let_next_start();
    wait_for_inputs();
    stage_part(staged, a, way);
    for (unsigned group = way.group; group < way.end; group += way.step) {
        float c[HEIGHT][TILES][4] = {};

        for (unsigned i = 0; i < way.n; i++)
            m.add_tile(c, a, i);
        finish_groups(c, a, group, blockIdx.x % n_parts);
    }
    copies_wait<0>();
#endif
}

size_t vibe_cuda_gemv_wide_bytes(const struct vibe_matrix *w)
{
    const size_t n_high = (w->N + TILE_N * HEIGHT - 1) / (TILE_N * HEIGHT);
    const unsigned n_tiles = (unsigned)((w->K + TILE_K - 1) / TILE_K);
    const unsigned n_parts = parts_of(n_tiles, slices_of(w->K), fold_of(w->K));

    return n_high * n_parts * HEIGHT * TILES * 32 * sizeof(float2);
}

cudaError_t vibe_cuda_gemv_wide(const struct vibe_cuda *cuda,
                                const struct vibe_cuda_product *p, size_t first,
                                size_t n_rows, float *partial)
{
    const enum vibe_dtype dtype = p->w->part[0].dtype;
    const size_t shared = WARPS * RING_BYTES + (size_t)8 * TILES * X_STRIDE;
    const void *kernel = dtype == VIBE_BF16
                             ? (const void *)gemv_wide_kernel<VIBE_BF16>
                         : dtype == VIBE_I8
                             ? (const void *)gemv_wide_kernel<VIBE_I8>
                             : (const void *)gemv_wide_kernel<VIBE_F8_E4M3>;
    struct decode a = decode_of(p, first, n_rows);
    const unsigned n_parts = parts_of(a.n_tiles, a.slices, a.fold);
    const unsigned most = (a.n_groups + WARPS * HEIGHT - 1) / (WARPS * HEIGHT);
    const unsigned room = (unsigned)cuda->n_sm *
                          blocks_that_fit(cuda, shared, PER_SM);
    unsigned stripes = room / n_parts;

    a.depth = (unsigned)(RING_BYTES / HEIGHT / tile_bytes(dtype));
    a.partial = partial;
    a.done = cuda->done;
    stripes = stripes < 1 ? 1 : stripes > most ? most : stripes;
    return launch_large(cuda, kernel, stripes * n_parts, THREADS, shared, &a);
}
