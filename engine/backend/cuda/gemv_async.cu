/*
 * gemv_async.cu - products of 8-bit weights with many rows on the tensor cores
 * of sm_90a, which work beside the warps that widen the weights.
 *
 * Four warps make 64 outputs of 32 rows: weights are the 64-row operand of
 * wgmma.m64n64k16, from registers, in the layout that mma.m16n8k16 has in
 * gemv.cu; x is its columns, from shared memory, the high parts of all rows and
 * then the low ones, which its writers have woven (split.cuh).  A sum has the
 * terms and the order, so the bits, that it has in gemv.cu and gemv_wide.cu:
 * wgmma adds up as mma does.
 *
 * A step of a team is a tile of K (async_feed.cuh).  Teams of a block make the
 * same outputs over different slices, blocks of a cluster likewise, and leave
 * their sums with each other (async_meet.cuh).
 */
#include "engine/backend/cuda/async_feed.cuh"
#include "engine/backend/cuda/async_meet.cuh"
#include "engine/backend/cuda/products.cuh"
#include "engine/backend/cuda/wide_sums.cuh" /* shelf */

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* c = or += pairs times a tile of x; returns before it has been worked out. */
__device__ static inline void start_products(float (&c)[32],
                                             unsigned pairs[4][4], unsigned x,
                                             unsigned is_sum)
{
    const unsigned long long how = 1ull << 62 | /* swizzled by 128 bytes */
                                   (unsigned long long)(ATOM_BYTES >> 4) << 32 |
                                   1 << 16;
    const unsigned from = (x & 0x3FFFF) >> 4;

    products_begin();
#pragma unroll
    for (unsigned i = 0; i < 4; i++)
        multiply_64(c, pairs[i], how | (from + i * (32 >> 4)), i ? 1 : is_sum);
    products_end();
}

/* The sums of a fold, high and low: a lane has outputs lane / 4 and 8 more of
 * its warp's, of rows 2 (lane % 4) and one more of every eight. */
__device__ static inline void take(float4 sums[SUMS], float (&c)[32])
{
    settle(c); /* not before the end */
#pragma unroll
    for (unsigned i = 0; i < SUMS; i++) {
        const float *high = c + 4 * i, *low = high + 4 * SUMS;

        sums[i] = make_float4(high[0] + low[0], high[1] + low[1],
                              high[2] + low[2], high[3] + low[3]);
    }
}

/* How a warp multiplies: a tile is widened once the one before it has been
 * multiplied, while other warps multiply theirs. */
template <int dtype> struct multiplier {
    const desk &of;
    const decode &a;
    float (&c)[32];
    unsigned pairs[4][4];
    unsigned mine; /* this lane's weights in a stage */
    turn at;

    __device__ inline void open(unsigned warp)
    {
        mine = X_STAGE_BYTES + warp * TILE_N * TILE_K + threadIdx.x % 32 * 16;
        at.open(of, 0);
    }

    /* Wait for the products of a stage, and let it be filled again. */
    __device__ static inline void leave(unsigned gate)
    {
        products_wait<0>();
        if (threadIdx.x % 32 == 0)
            arrive_at(gate + GATES_BYTES);
    }

    __device__ inline void add(unsigned n_tiles)
    {
        unsigned had = 0;

        for (unsigned i = 0; i < n_tiles; i++) {
            raw_weights raw;

            wait_at(at.gate, at.parity);
            raw.read(at.at + mine);
            if (i)
                leave(had);
            raw.widen<dtype>(pairs);
            __syncwarp();
            start_products(c, pairs, at.at, i);
            had = at.gate;
            at.next(of, a);
        }
        leave(had);
    }
};

/* The sums of a warp's outputs over the slices of its team. */
template <int dtype>
__device__ static inline void add_up(float4 sums[SUMS], const desk &of,
                                     const seat &at, const decode &a)
{
    float c[32] = {};
    multiplier<dtype> products = {of, a, c};
    shelf<SUMS> shelf;
    walk way;

    products.open(at.thread / 32);
    shelf.open(a, of.shelves);
    way.open(a, at.team);
    while (way.is_in()) {
        const unsigned n = min(way.left(a), a.fold), visit = way.visit;
        bool ends_slice;

        products.add(n);
        take(sums, c);
        way.tile += (n - 1) * a.slices;
        ends_slice = way.next(a);
        shelf.end_fold(sums, ends_slice);
        if (ends_slice)
            shelf.end_slice(sums, visit, !way.is_in());
    }
}

/* Bring what never changes of the block's outputs near, a line a thread. */
__device__ static inline void bring_constants(const decode &a, unsigned i)
{
    const unsigned n = blockIdx.y / a.parts * a.outputs + i * 32;

    if (i * 32 >= a.outputs || n >= a.e.N)
        return;
    if (a.e.scale)
        prefetch(a.e.scale + n);
    if (a.e.bias)
        prefetch(a.e.bias + n);
}

#endif

/* bytes: the weights once for every 32 rows, and x for each block. */
template <int dtype>
__global__ void __launch_bounds__(MOST_ASYNC_THREADS, 1)
    gemv_async_kernel(const __grid_constant__ struct decode a,
                      const __grid_constant__ CUtensorMap map_of_w,
                      const __grid_constant__ CUtensorMap map_of_x)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(ATOM_BYTES) unsigned char memory[];
    const table meeting = {(float *)(memory + ATOM_BYTES),
                           a.outputs + TABLE_PAD};
    float4 sums[SUMS] = {};
    finish_line line;
    seat at;
    desk of;
    const fetcher fetcher = {of,
                             a,
                             &map_of_w,
                             &map_of_x,
                             blockIdx.y / a.parts * a.outputs,
                             blockIdx.x * ASYNC_ROWS};

    at.open(a);
    of.open(memory, a, at.team);
    if (at.fetches && at.thread == 0) {
        of.prepare(a, at.team);
        fetcher.begin(at.team);
        asm volatile("prefetch.tensormap [%0];" ::"l"(&map_of_x) : "memory");
    } else if (at.fetches && at.team == 0) {
        bring_constants(a, at.thread - 1);
    }
    if (threadIdx.x < ASYNC_ROWS)
        of.find(a, threadIdx.x);
    let_next_start();
    __syncthreads();
    if (a.parts > 1)
        reach_cluster();
    wait_for_inputs();
    if (!at.fetches)
        add_up<dtype>(sums, of, at, a);
    else if (at.thread == 0)
        fetcher.run(at.team);
    line.open(of, a, growth<dtype>::OF_WOVEN);
    __syncthreads();
    if (!at.fetches)
        meeting.put(sums, at);
    __syncthreads();
    if (a.parts > 1) {
        join_cluster();
        line.send_all(meeting, a);
        wait_at(of.mail, 0);
    }
    line.run(meeting, a);
#endif
}

static const void *kernel_for(enum vibe_dtype dtype)
{
    return dtype == VIBE_I8 ? (const void *)gemv_async_kernel<VIBE_I8>
                            : (const void *)gemv_async_kernel<VIBE_F8_E4M3>;
}

/* Whether numbers, and rows of them, can be moved by 16 bytes. */
static bool is_even(const float *p)
{
    return (size_t)p % 16 == 0;
}

static bool is_even(const struct vibe_tensor *t)
{
    return !t || (is_even((const float *)t->data) && t->stride_b % 4 == 0 &&
                  t->stride_t % 4 == 0);
}

int vibe_cuda_can_async(const struct vibe_cuda_product *p)
{
    const struct vibe_matrix *w = p->w;
    const enum vibe_dtype dtype = w->part[0].dtype;

    return vibe_cuda_is_banded(w) &&
           p->x->B * p->x->T > VIBE_CUDA_WIDE_ROWS / 2 &&
           vibe_cuda_is_regular(p->x) && p->x->form != VIBE_FORM_PLAIN &&
           w->K / TILE_K >= slices_of(w->K) && is_even(p->x) && is_even(p->y) &&
           is_even(p->gate) && is_even(w->part[0].scale) && is_even(w->bias) &&
           is_even(w->gamma) && has_products(kernel_for(dtype));
}

static cudaError_t map_weights(CUtensorMap *map, const struct decode *a)
{
    const cuuint64_t band = (cuuint64_t)a->n_tiles * BAND_WORDS;
    const cuuint64_t sizes[] = {band, a->n_groups};
    const cuuint64_t stride = band * 4;
    const cuuint32_t box[] = {BAND_WORDS, rows_of_go(a->outputs) / TILE_N};

    return map_boxes(map, CU_TENSOR_MAP_DATA_TYPE_UINT32, a->w, 2, sizes,
                     &stride, box, CU_TENSOR_MAP_SWIZZLE_NONE);
}

/* The high parts of a tile of all rows, then the low ones. */
static cudaError_t map_x(CUtensorMap *map, const struct decode *a)
{
    const cuuint64_t sizes[] = {TILE_K, a->n_rows, 2 * (cuuint64_t)a->n_tiles};
    const cuuint64_t strides[] = {a->x_step * sizeof(float), X_ROW_BYTES};
    const cuuint32_t box[] = {TILE_K, ASYNC_ROWS, 2};

    return map_boxes(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, a->x.data, 3, sizes,
                     strides, box, CU_TENSOR_MAP_SWIZZLE_128B);
}

/* Launch early, parts of the same sums as clusters. */
static cudaError_t launch_parts(const struct vibe_cuda *cuda,
                                const void *kernel,
                                const struct async_shares *s, struct decode *a,
                                CUtensorMap maps[2])
{
    const cudaError_t rc = make_large(cuda, kernel);
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attributes[2] = {};
    void *list[] = {a, &maps[0], &maps[1]};

    if (rc != cudaSuccess)
        return rc;
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = 1;
    attributes[1].val.clusterDim.y = s->parts;
    attributes[1].val.clusterDim.z = 1;
    config.gridDim = dim3(s->n_passes, s->n_blocks * s->parts);
    config.blockDim = dim3(async_threads(s));
    config.dynamicSmemBytes = s->shared;
    config.stream = cuda->compute;
    config.attrs = attributes;
    config.numAttrs = s->parts > 1 ? 2 : 1;
    return cudaLaunchKernelExC(&config, kernel, list);
}

cudaError_t vibe_cuda_gemv_async(const struct vibe_cuda *cuda,
                                 const struct vibe_cuda_product *p)
{
    const struct async_shares s = async_shares_of(cuda, p);
    struct decode a = decode_of(p, 0, p->x->B * p->x->T);
    CUtensorMap maps[2]; /* of weights, of x */
    cudaError_t rc;

    a.depth = s.depth;
    a.parts = s.parts;
    a.teams = s.teams;
    a.levels = s.levels;
    a.outputs = s.columns * COLUMN_OUTPUTS;
    a.x_step = (unsigned)vibe_cuda_row_step(p->x);
    rc = map_weights(&maps[0], &a);
    if (rc == cudaSuccess)
        rc = map_x(&maps[1], &a);
    if (rc != cudaSuccess)
        return rc;
    return launch_parts(cuda, kernel_for(p->w->part[0].dtype), &s, &a, maps);
}
