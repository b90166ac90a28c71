/*
 * gemv_wide.cu - products with five rows or more on the tensor cores, in one
 * pass over the weights for up to 32 of them.
 *
 * A team of warps makes 32 outputs for each of them, of all rows of a pass,
 * over whole slices of K (decode.cuh), one slice after the other.  A stage is
 * a tile of K: the warps' own weights, and x, which they share.  The teams of
 * a block make the same outputs over different slices, none waiting for
 * another before the end, so that one's products hide another's copies; where
 * outputs are few, blocks share slices likewise, their sums meet in global
 * memory, and the warp that comes last adds them up.
 *
 * x is the 16-row operand of mma.m16n8k16 here, eight rows of high parts and
 * the same of low parts, and weights are the columns, because they lie in
 * registers as columns are wanted; a sum has the terms and the order, so the
 * bits, that it has in gemv.cu.
 *
 * What bounds it, for the 4 KB of bf16 that a warp has in a stage, in cycles
 * of a multiprocessor of an H200: its share of the memory's rate 220, with 32
 * rows 64 products 100 and shared memory 130.  x comes from the second cache
 * for each block, so that blocks of few outputs read more of x than of weights.
 */
#include "engine/backend/cuda/walk.cuh"
#include "engine/backend/cuda/wide.cuh"
#include "engine/backend/cuda/wide_feed.cuh"
#include "engine/backend/cuda/wide_sums.cuh"

#if __CUDA_ARCH__ >= 800

__device__ static inline void find_rows(pass &p, const decode &a)
{
    const unsigned first = blockIdx.x * a.of_pass;

    if (threadIdx.x == 0)
        p.n = min(a.of_pass, a.n_rows - first);
    for (unsigned i = threadIdx.x; i < a.of_pass; i += blockDim.x) {
        const unsigned m = min(first + i, a.n_rows - 1);

        p.row[i].y = row_at(a.e.y, a.e.T, m);
        p.row[i].gate = row_at(a.e.gate, a.e.T, m);
    }
    __syncthreads();
}

/* A warp's share of the stages.  A lane has sums of row lane / 4 of each group
 * for outputs n, n + 1, n + 8 and n + 9, n = 2 (lane % 4), of each tile. */
template <int dtype, int GROUPS> struct worker {
    enum { SUMS = HEIGHT * GROUPS }; /* of a lane, in fours */

    unsigned stage_bytes, weights, x; /* of the first stage */
    unsigned x_lane;                  /* where this lane reads x in one */
    strip<dtype> w;
    w_feed<dtype> w_ahead;
    x_feed x_ahead;
    float c[HEIGHT][2][GROUPS][4]; /* of a fold: two of high, two of low parts
                                      for every other eight outputs; of int4 the
                                      first four are the sums */

    /* memory: of the block's stages, a team's beside each other */
    __device__ inline void open(const decode &a, const void *memory,
                                const post &at, unsigned group)
    {
        const unsigned of_warp = HEIGHT * format<dtype>::TILE_BYTES;

        stage_bytes = at.n_warps * of_warp + GROUPS * ROWS * X_BYTES;
        weights = shared_address(memory) + at.team * a.depth * stage_bytes;
        x = weights + at.n_warps * of_warp;
        weights += at.warp * of_warp;
        w_ahead.open(a, weights, group);
        x_ahead.open(a, x, at);
        x_lane = x_at(threadIdx.x % 4 * 4, threadIdx.x % 32 / 4);
        w.open(a, group);
        keep(stage_bytes);
        keep(weights);
        keep(x);
        keep(x_lane);
#pragma unroll
        for (unsigned i = 0; i < HEIGHT * 2 * GROUPS * 4; i++)
            (&c[0][0][0][0])[i] = 0.0f;
    }

    /* c += the weights of the stage at slot, of a tile, times its x.  Between
     * products the copies of a tile to another stage are started, lest all
     * warps do that at once. */
    __device__ inline void add_pairs(unsigned slot, unsigned tile,
                                     const decode &a, unsigned free,
                                     const walk &ahead)
    {
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            const unsigned rows = x + slot + (x_lane ^ (i * 16));
            unsigned pairs[HEIGHT][2][2];

            w.read(weights + slot, a, tile, i);
            w_ahead.fetch(free, a, ahead.tile, ahead.is_in(), i);
#pragma unroll
            for (unsigned h = 0; h < HEIGHT; h++) {
                w.expand(pairs[h][0], h, 0, i);
                w.expand(pairs[h][1], h, 1, i);
            }
#pragma unroll
            for (unsigned g = 0; g < GROUPS; g++) {
                unsigned parts[4];

                read_x(parts, rows + g * ROWS * X_BYTES);
#pragma unroll
                for (unsigned h = 0; h < HEIGHT; h++) {
                    multiply(c[h][0][g], parts, pairs[h][0]);
                    multiply(c[h][1][g], parts, pairs[h][1]);
                }
            }
        }
    }

    /* The same of int4. */
    __device__ inline void add_digits(unsigned slot)
    {
        const unsigned lane = threadIdx.x % 32;
        const unsigned char *from = (const unsigned char *)
            __cvta_shared_to_generic(weights + slot);
        const unsigned char *rows = (const unsigned char *)
            __cvta_shared_to_generic(x + slot);
        i4_words u[HEIGHT];

#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
            read_16_bytes(u[h].u, from + h * VIBE_TILE_I4_BYTES + 16 * lane);
#pragma unroll
        for (unsigned g = 0; g < GROUPS; g++, rows += ROWS * X_BYTES) {
            const float unit = *(const float *)(rows + unit_at(lane / 4));
            unsigned d[2][4];

#pragma unroll
            for (unsigned i = 0; i < 2; i++)
                read_16_bytes(d[i], rows + lane / 4 * X_BYTES +
                                        digits_at(lane / 4, i) + lane % 4 * 16);
#pragma unroll
            for (unsigned h = 0; h < HEIGHT; h++) {
                const unsigned char *at = from + h * VIBE_TILE_I4_BYTES +
                                          VIBE_TILE_SCALES_AT;
                const float2 scales[2] = {i4_scales(at, lane % 4 * 2),
                                          i4_scales(at, lane % 4 * 2 + 1)};

                add_tile(c[h][0][g], u[h], d, scales, unit);
            }
        }
    }

    __device__ static inline void add_tile(float sums[4], const i4_words &w,
                                           const unsigned d[2][4],
                                           const float2 scales[2], float unit)
    {
        int z[2][4] = {}; /* of outputs n and n + 1, of those 8 further */

#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            const unsigned parts[4] = {d[0][2 * i], d[1][2 * i],
                                       d[0][2 * i + 1], d[1][2 * i + 1]};

#pragma unroll
            for (unsigned j = 0; j < 2; j++) {
                const unsigned b[2] = {i4_bytes(w.u[2 * j], i),
                                       i4_bytes(w.u[2 * j + 1], i)};

                multiply_bytes(z[j], parts, b);
            }
        }
#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            sums[i] = fmaf(sum_of(z[0][i], z[0][2 + i]), scales[i].x * unit,
                           sums[i]);
            sums[2 + i] = fmaf(sum_of(z[1][i], z[1][2 + i]), scales[i].y * unit,
                               sums[2 + i]);
        }
    }

    __device__ inline void add(unsigned slot, unsigned tile, const decode &a,
                               unsigned free, const walk &ahead)
    {
        if constexpr (dtype == VIBE_I4) {
            w_ahead.fetch(free, a, ahead.tile, ahead.is_in(), 0);
            add_digits(slot);
        } else {
            add_pairs(slot, tile, a, free, ahead);
        }
    }

    /* The sums of a fold that has ended. */
    __device__ inline void take(float4 sums[SUMS])
    {
#pragma unroll
        for (unsigned i = 0; i < SUMS; i++) {
            float(&low)[4] = c[i / GROUPS][0][i % GROUPS];
            float(&high)[4] = c[i / GROUPS][1][i % GROUPS];

            if (dtype == VIBE_I4)
                sums[i] = make_float4(low[0], low[1], low[2], low[3]);
            else
                sums[i] = make_float4(low[0] + low[2], low[1] + low[3],
                                      high[0] + high[2], high[1] + high[3]);
#pragma unroll
            for (unsigned j = 0; j < 4; j++)
                low[j] = high[j] = 0.0f;
        }
    }
};

/* Bring the scales and biases of a warp's outputs near. */
__device__ static inline void fetch_epilogue(const decode &a, unsigned group)
{
    const unsigned n = group * TILE_N;

    if (threadIdx.x % 32 || n >= a.e.N)
        return;
    if (a.e.scale)
        prefetch(a.e.scale + n);
    if (a.e.bias)
        prefetch(a.e.bias + n);
}

/* Fill all stages but one, weights before the kernel ahead has ended; returns
 * the tile that comes next. */
template <int dtype, int GROUPS>
__device__ static inline walk fill(const worker<dtype, GROUPS> &me,
                                   const walk &here, pass &rows,
                                   const decode &a)
{
    walk ahead = here;

    for (unsigned s = 0; s + 1 < a.depth && ahead.is_in(); s++) {
#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            me.w_ahead.fetch(s * me.stage_bytes, a, ahead.tile, true, i);
        ahead.next(a);
    }
    find_rows(rows, a);
    let_next_start();
    wait_for_inputs();
    ahead = here;
    for (unsigned s = 0; s + 1 < a.depth; s++) {
        if (ahead.is_in())
            me.x_ahead.fetch(s * me.stage_bytes, a, ahead.tile);
        copies_end();
        ahead.next(a);
    }
    return ahead;
}

/* The sums of a warp's outputs over the slices of its team. */
template <int dtype, int GROUPS>
__device__ static inline void add_up(float4 sums[HEIGHT * GROUPS],
                                     unsigned char *memory, pass &rows,
                                     const post &at, unsigned warp,
                                     const decode &a)
{
    worker<dtype, GROUPS> me;
    shelf<HEIGHT * GROUPS> shelf;
    walk here, ahead;
    unsigned slot = 0, depth = a.depth, ring_bytes;
    bool is_in;

    here.open(a, at.team);
    is_in = here.is_in(); /* once: or sums would be alive in all of the loop */
    me.open(a, memory, at, warp * HEIGHT);
    ring_bytes = depth * me.stage_bytes;
    keep(depth);
    keep(ring_bytes);
    shelf.open(a, (float4 *)(memory + a.teams * ring_bytes));
    fetch_epilogue(a, warp * HEIGHT);
    ahead = fill(me, here, rows, a);
    while (is_in) {
        const unsigned free = (slot ? slot : ring_bytes) - me.stage_bytes;
        const unsigned visit = here.visit;
        bool ends_slice;

        stage_wait(depth);
        if (dtype == VIBE_I4)
            me.x_ahead.make_digits(slot, a);
        else if (!a.x.is_split)
            me.x_ahead.split(slot);
        at.meet();
        if (ahead.is_in())
            me.x_ahead.fetch(free, a, ahead.tile);
        me.add(slot, here.tile, a, free, ahead);
        copies_end();
        ahead.next(a);
        slot += me.stage_bytes;
        slot = slot < ring_bytes ? slot : 0;
        ends_slice = here.next(a);
        if (!shelf.ends_fold(a, ends_slice))
            continue;
        me.take(sums);
        shelf.end_fold(sums, ends_slice);
        if (ends_slice)
            shelf.end_slice(sums, visit, !here.is_in());
        if (!here.is_in())
            break;
    }
    copies_wait<0>();
    /* as often as the first team: racecheck takes barriers for one another */
    for (unsigned n = here.lag(a, at.team); n > 0; n--)
        at.meet();
}
#endif

/* bytes: the weights once, little sums, and x for each block. */
template <int dtype, int GROUPS>
__global__ void __launch_bounds__(32 * most_warps(GROUPS), 1)
    gemv_wide_kernel(const __grid_constant__ struct decode a)
{
#if __CUDA_ARCH__ >= 800
    enum { SUMS = HEIGHT * GROUPS, OF_WARP = 32 * SUMS };

    extern __shared__ __align__(LINE_BYTES) uint4 memory[];
    __shared__ __align__(LINE_BYTES) pass rows;
    const unsigned lane = threadIdx.x % 32;
    post at;
    heap meeting;
    float4 sums[SUMS] = {};
    unsigned warp;

    at.open(a);
    warp = blockIdx.y / a.parts * at.n_warps + at.warp;
    add_up<dtype, GROUPS>(sums, (unsigned char *)memory, rows, at, warp, a);
    meeting = {(float4 *)memory + at.warp * a.teams * OF_WARP + lane, a.teams};
    __syncthreads();
    put_sums<SUMS>(&meeting.at(0, at.team), 32 * a.teams, sums);
    __syncthreads();
    if (a.parts > 1) {
        const unsigned chunk = blockIdx.x * (gridDim.y / a.parts * at.n_warps) +
                               warp;
        const heap of_parts = {(float4 *)a.partial +
                                   (size_t)chunk * a.parts * OF_WARP + lane,
                               a.parts};

        leave_part<GROUPS>(of_parts, meeting, a, at);
        if (!is_last_warp(a, chunk * a.teams + at.team))
            return;
        meeting = of_parts;
    }
    finish_warp<GROUPS>(meeting, a, rows, at, warp * HEIGHT);
#endif
}

template <int dtype> static const void *kernel_for(unsigned groups)
{
    return groups == 1   ? (const void *)gemv_wide_kernel<dtype, 1>
           : groups == 2 ? (const void *)gemv_wide_kernel<dtype, 2>
           : groups == 3 ? (const void *)gemv_wide_kernel<dtype, 3>
                         : (const void *)gemv_wide_kernel<dtype, 4>;
}

size_t vibe_cuda_gemv_wide_bytes(const struct vibe_cuda *cuda,
                                 const struct vibe_cuda_product *p)
{
    const struct shares s = shares_of(cuda, p);

    return meeting_bytes(&s);
}

cudaError_t vibe_cuda_gemv_wide(const struct vibe_cuda *cuda,
                                const struct vibe_cuda_product *p,
                                float *partial)
{
    const enum vibe_dtype dtype = p->w->part[0].dtype;
    const struct shares s = shares_of(cuda, p);
    const void *kernel = dtype == VIBE_BF16 ? kernel_for<VIBE_BF16>(s.groups)
                         : dtype == VIBE_I8 ? kernel_for<VIBE_I8>(s.groups)
                         : dtype == VIBE_I4 ? kernel_for<VIBE_I4>(s.groups)
                         : dtype == VIBE_BF16_PACKED
                             ? kernel_for<VIBE_BF16_PACKED>(s.groups)
                             : kernel_for<VIBE_F8_E4M3>(s.groups);
    struct decode a = decode_of(p, 0, p->x->B * p->x->T);

    a.depth = s.depth;
    a.parts = s.parts;
    a.teams = s.teams;
    a.of_pass = s.rows;
    a.x_step = (unsigned)vibe_cuda_row_step(p->x);
    a.x_pass = (unsigned)(vibe_cuda_is_regular(p->x) ? s.rows * a.x_step
                                                     : p->x->stride_b);
    a.levels = levels_of(&s, p->w->K);
    a.partial = partial;
    a.done = cuda->done;
    return launch_large(cuda, kernel, dim3(s.n_passes, s.n_blocks * s.parts),
                        32 * s.warps * s.teams,
                        shared_bytes(&s, p->w->K, s.depth), &a);
}
