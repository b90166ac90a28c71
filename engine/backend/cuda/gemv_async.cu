/*
 * gemv_async.cu - products of 8-bit weights with many rows on the tensor cores
 * of sm_90a, which work beside the warps that widen the weights.
 *
 * Four warps make 64 outputs of 32 rows: weights are the 64-row operand of
 * wgmma.m64n64k16, from registers, in the layout that mma.m16n8k16 has in
 * gemv.cu; x is its columns, from shared memory, eight rows' high parts, the
 * same rows' low ones, and so on.  A sum has the terms and the order, so the
 * bits, that it has in gemv.cu and gemv_wide.cu: wgmma adds up as mma does.
 *
 * A step of a team is a tile of K (async_feed.cuh).  Teams of a block make the
 * same outputs over different slices and meet in its shared memory, blocks of a
 * cluster in that of all of them.
 */
#include "engine/backend/cuda/async_feed.cuh"
#include "engine/backend/cuda/wide_feed.cuh" /* stage_wait */
#include "engine/backend/cuda/wide_sums.cuh" /* shelf */

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

enum { SUMS = ASYNC_ROWS / 8 }; /* of a lane, in fours */

/* c [64][64] = a [64][16] times the columns of desc, or += where is_sum. */
__device__ static inline void multiply_64(float c[32], const unsigned a[4],
                                          unsigned long long desc,
                                          unsigned is_sum)
{
    asm volatile(
        "{.reg .pred is_sum; setp.ne.u32 is_sum, %37, 0; "
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, "
        "%15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "
        "%28, %29, %30, %31}, {%32, %33, %34, %35}, %36, is_sum, 1, 1, 0;}"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]),
          "+f"(c[5]), "+f"(c[6]), "+f"(c[7]), "+f"(c[8]), "+f"(c[9]),
          "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]),
          "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]),
          "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]),
          "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]),
          "+f"(c[30]), "+f"(c[31])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(desc), "r"(is_sum));
}

/* c = or += pairs times a stage of what is woven; returns before it has been
 * worked out. */
__device__ static inline void start_products(float c[32], unsigned pairs[4][4],
                                             unsigned woven, unsigned is_sum)
{
    const unsigned long long core = 128 >> 4; /* to that of the next rows */
    const unsigned from = (woven & 0x3FFFF) >> 4;

    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (unsigned i = 0; i < 4; i++)
        multiply_64(c, pairs[i],
                    core << 32 | HALF_BYTES >> 4 << 16 |
                        (from + i * (2 * HALF_BYTES >> 4)),
                    i ? 1 : is_sum);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

__device__ static inline void end_products(void)
{
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

/* The sums of a fold, high and low: a lane has outputs lane / 4 and 8 more of
 * its warp's, of rows 2 (lane % 4) and one more of every eight. */
__device__ static inline void take(float4 sums[SUMS], float c[32])
{
#pragma unroll
    for (unsigned i = 0; i < 32; i++)
        asm volatile("" : "+f"(c[i])::"memory"); /* not before the end */
#pragma unroll
    for (unsigned i = 0; i < SUMS; i++) {
        const float *high = c + 8 * i, *low = high + 4;

        sums[i] = make_float4(high[0] + low[0], high[1] + low[1],
                              high[2] + low[2], high[3] + low[3]);
    }
}

/* Start copying a warp's weights of the first steps. */
template <int dtype>
__device__ static inline void fetch_first(const rows_of_w<dtype> &w,
                                          const desk &of, const decode &a,
                                          unsigned team)
{
    way ahead;

    ahead.open(a, team);
    for (unsigned s = 0; s + 1 < a.depth; s++) {
        if (ahead.is_in()) {
            w.fetch(of.weights + s * of.stage_bytes, ahead.tile);
            ahead.next(a);
        }
        copies_end();
    }
}

/* The sums of a warp's outputs over the slices of its team. */
template <int dtype>
__device__ static inline void add_up(float4 sums[SUMS],
                                     const rows_of_w<dtype> &w, const desk &of,
                                     const decode &a)
{
    const unsigned ring_bytes = a.depth * of.stage_bytes;
    unsigned slot = 0, visit = 0, is_sum = 0;
    turn turn = {0, 0};
    shelf<SUMS> shelf;
    float c[32] = {};

    shelf.open(a, of.shelves);
    for (unsigned i = 0;; i++) {
        const unsigned here = __shfl_sync(0xFFFFFFFFu, of.steps[i], 0);
        const unsigned next = __shfl_sync(0xFFFFFFFFu,
                                          of.steps[i + a.depth - 1], 0);
        const unsigned free = (slot ? slot : ring_bytes) - of.stage_bytes;
        unsigned pairs[4][4];

        stage_wait(a.depth);
        w.read(pairs, of.weights + slot);
        if (!(next & NO_TILE))
            w.fetch(of.weights + free, next & TILE);
        copies_end();
        wait_at(of.full + turn.stage * 8, turn.parity);
        __syncwarp();
        start_products(c, pairs, of.woven + turn.stage * WOVEN_BYTES, is_sum);
        slot += of.stage_bytes;
        slot = slot < ring_bytes ? slot : 0;
        is_sum = !(here & ENDS_FOLD);
        end_products();
        if (threadIdx.x % 32 == 0)
            arrive_at(of.empty + turn.stage * 8);
        turn.next(1);
        if (is_sum)
            continue;
        take(sums, c);
        shelf.end_fold(sums, here & ENDS_SLICE);
        if (here & ENDS_SLICE)
            shelf.end_slice(sums, visit++, here & IS_LAST);
        if (here & IS_LAST)
            break;
    }
    copies_wait<0>();
}

/* Where sums of a block meet: of each team [ASYNC_ROWS][row]. */
struct table {
    float *sums;
    unsigned row;

    __device__ inline void put(const float4 v[SUMS], const seat &at) const
    {
        const unsigned lane = threadIdx.x % 32;
        float *to = sums + (at.team * ASYNC_ROWS + lane % 4 * 2) * row +
                    at.thread / 32 * TILE_N + lane / 4;

#pragma unroll
        for (unsigned i = 0; i < SUMS; i++, to += 8 * row) {
            to[0] = v[i].x;
            to[row] = v[i].y;
            to[8] = v[i].z;
            to[row + 8] = v[i].w;
        }
    }

    __device__ inline float4 &at(unsigned team, unsigned m, unsigned n) const
    {
        return *(float4 *)(sums + (team * ASYNC_ROWS + m) * row + n);
    }
};

/* Add up every STEP of n, a power of two, from the first on, as add_halves
 * would. */
template <unsigned STEP, unsigned MOST, class READ>
__device__ static inline float4 add_from(unsigned n, unsigned first,
                                         const READ &read)
{
    if constexpr (STEP < MOST)
        return n > STEP ? added(add_from<2 * STEP, MOST>(n, first, read),
                                add_from<2 * STEP, MOST>(n, first + STEP, read))
                        : read(first);
    else
        return read(first);
}

__device__ static inline void meet_cluster(void)
{
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

/* What another block of the cluster has where this one has p. */
__device__ static inline float4 read_far(const float4 &p, unsigned block)
{
    float4 v;

    asm volatile("{.reg .u32 far; mapa.shared::cluster.u32 far, %4, %5; "
                 "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [far];}"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(shared_address(&p)), "r"(block)
                 : "memory");
    return v;
}

/* Four neighbours of p, or of other where there is none. */
__device__ static inline float4 four(const float *p, float other, size_t n)
{
    return p ? *(const float4 *)(p + n)
             : make_float4(other, other, other, other);
}

/* Finish outputs n .. n + 3 of row m. */
__device__ static inline void finish(const decode &a, unsigned m, unsigned n,
                                     const float4 &sums)
{
    const struct epilogue &e = a.e;
    const float4 scale = four(e.scale, 1.0f, n), bias = four(e.bias, 0.0f, n);
    float *y = e.y.data + row_at(e.y, e.T, m);
    float4 z = make_float4(sums.x * scale.x + bias.x, sums.y * scale.y + bias.y,
                           sums.z * scale.z + bias.z,
                           sums.w * scale.w + bias.w);

    if (e.kind == VIBE_SWIGLU) {
        *(float2 *)(y +
                    n / 2) = make_float2(kept(silu(z.x) * z.y, e.y.is_split),
                                         kept(silu(z.z) * z.w, e.y.is_split));
        return;
    }
    if (e.kind == VIBE_GELU)
        z = make_float4(gelu(z.x), gelu(z.y), gelu(z.z), gelu(z.w));
    if (e.kind == VIBE_ADD || e.kind == VIBE_GATE_ADD) {
        const float *by = e.kind == VIBE_ADD
                              ? e.gamma
                              : e.gate.data + row_at(e.gate, e.T, m);
        const float4 old = four(y, 0.0f, n), mul = four(by, 1.0f, n);

        z = make_float4(old.x + mul.x * z.x, old.y + mul.y * z.y,
                        old.z + mul.z * z.z, old.w + mul.w * z.w);
    }
    *(float4 *)(y + n) = kept(z, e.y.is_split);
}

/* Add up teams, then blocks of the cluster, and finish; each block does its
 * share of the fours of outputs. */
__device__ static inline void finish_all(const table &of, const decode &a)
{
    const unsigned part = blockIdx.y % a.parts;
    const unsigned first_n = blockIdx.y / a.parts * a.outputs;
    const unsigned first_m = blockIdx.x * ASYNC_ROWS;
    const unsigned n_rows = min((unsigned)ASYNC_ROWS, a.n_rows - first_m);
    const unsigned of_row = a.outputs / 4, n = n_rows * of_row;
    const unsigned share = (n + a.parts - 1) / a.parts;
    const unsigned end = min(n, (part + 1) * share);
    const auto of_teams = [&](unsigned i) {
        return add_from<1, MOST_ASYNC_TEAMS>(a.teams, 0, [&](unsigned s) {
            return of.at(s, i / of_row, i % of_row * 4);
        });
    };

    if (a.parts > 1) {
#pragma unroll 1
        for (unsigned i = threadIdx.x; a.teams > 1 && i < n; i += blockDim.x)
            of.at(0, i / of_row, i % of_row * 4) = of_teams(i);
        meet_cluster();
    }
#pragma unroll 1
    for (unsigned i = part * share + threadIdx.x; i < end; i += blockDim.x) {
        const float4 &here = of.at(0, i / of_row, i % of_row * 4);

        if (first_n + i % of_row * 4 < a.e.N)
            finish(a, first_m + i / of_row, first_n + i % of_row * 4,
                   a.parts == 1 ? of_teams(i)
                                : add_from<1, MOST_PARTS>(
                                      a.parts, 0, [&](unsigned block) {
                                          return read_far(here, block);
                                      }));
    }
    if (a.parts > 1)
        meet_cluster(); /* others still read what is here */
}
#endif

/* bytes: the weights once for every 32 rows, and x for each block. */
template <int dtype>
__global__ void __launch_bounds__(MOST_ASYNC_THREADS, 1)
    gemv_async_kernel(const __grid_constant__ struct decode a)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(128) uint4 memory[];
    __shared__ unsigned long long gates[MOST_ASYNC_TEAMS][2 * WOVEN];
    const table meeting = {(float *)memory, a.outputs + TABLE_PAD};
    float4 sums[SUMS] = {};
    rows_of_w<dtype> w;
    seat at;
    desk of;

    at.open(a);
    of.open(memory, a, gates[at.team], at.team);
    if (!at.is_weaver) {
        w.open(a, blockIdx.y / a.parts * (a.outputs / TILE_N) + at.thread / 32,
               at.thread / 32);
        fetch_first(w, of, a, at.team);
    } else if (at.thread == 0 && at.shift == 0) {
        of.prepare(a, at.team);
    }
    let_next_start();
    __syncthreads();
    of.read_list();
    wait_for_inputs();
    if (at.is_weaver)
        weave_all(of, at, a);
    else
        add_up(sums, w, of, a);
    __syncthreads();
    if (!at.is_weaver)
        meeting.put(sums, at);
    __syncthreads();
    finish_all(meeting, a);
#endif
}

static const void *kernel_for(enum vibe_dtype dtype)
{
    return dtype == VIBE_I8 ? (const void *)gemv_async_kernel<VIBE_I8>
                            : (const void *)gemv_async_kernel<VIBE_F8_E4M3>;
}

/* Whether it is compiled for this GPU: then it has shared memory of its own. */
static bool is_there(const void *kernel)
{
    struct cudaFuncAttributes is = {};

    return cudaFuncGetAttributes(&is, kernel) == cudaSuccess &&
           is.sharedSizeBytes > 0;
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

    return (dtype == VIBE_F8_E4M3 || dtype == VIBE_I8) &&
           p->x->B * p->x->T > VIBE_CUDA_WIDE_ROWS / 2 &&
           vibe_cuda_is_regular(p->x) && p->x->is_for_products &&
           w->N % TILE_N == 0 && w->K % TILE_K == 0 &&
           w->K / TILE_K >= slices_of(w->K) && is_even(p->x) && is_even(p->y) &&
           is_even(p->gate) && is_even(w->part[0].scale) && is_even(w->bias) &&
           is_even(w->gamma) && is_there(kernel_for(dtype));
}

/* Launch early, parts of the same sums as clusters. */
static cudaError_t launch_parts(const struct vibe_cuda *cuda,
                                const void *kernel,
                                const struct async_shares *s, struct decode *a)
{
    const cudaError_t rc = make_large(cuda, kernel);
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attributes[2] = {};
    void *list[] = {a};

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

    a.depth = s.depth;
    a.parts = s.parts;
    a.teams = s.teams;
    a.levels = s.levels;
    a.outputs = s.columns * COLUMN_OUTPUTS;
    a.x_step = (unsigned)vibe_cuda_row_step(p->x);
    return launch_parts(cuda, kernel_for(p->w->part[0].dtype), &s, &a);
}
