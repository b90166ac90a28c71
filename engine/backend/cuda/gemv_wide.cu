/*
 * gemv_wide.cu - products with five rows or more on the tensor cores, in one
 * pass over the weights for up to 32 of them.
 *
 * A block makes 32 outputs for each of its warps, of all rows of a pass, over
 * whole slices of K (decode.cuh), one slice after the other.  A stage is a
 * tile of K: the warps' own weights, and x, which they share.  Where outputs
 * are few, slices go to several blocks; their sums meet in global memory, and
 * the warp that comes last adds them up.
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
#include "engine/backend/cuda/wide.cuh"

#if __CUDA_ARCH__ >= 800

/* The tiles of K of a block: slice by slice, each along its stride. */
struct walk {
    unsigned slice, end;
    unsigned i, n;      /* of a slice */
    unsigned all, rest; /* tiles that every slice has, slices with one more */

    __device__ inline void turn(void)
    {
        i = 0;
        n = all + (slice < rest);
    }

    __device__ inline void open(const decode &a)
    {
        slice = blockIdx.y % (a.slices / a.share) * a.share;
        end = min(slice + a.share, a.n_tiles);
        all = a.n_tiles / a.slices;
        rest = a.n_tiles % a.slices;
        turn();
    }

    __device__ inline bool is_in(void) const
    {
        return slice < end;
    }

    __device__ inline unsigned tile(const decode &a) const
    {
        return slice + i * a.slices;
    }

    __device__ inline bool ends_slice(void) const
    {
        return i + 1 == n;
    }

    __device__ inline void next(void)
    {
        if (++i < n)
            return;
        slice++;
        turn();
    }
};

__device__ static inline void find_rows(pass &p, unsigned of_pass,
                                        const decode &a)
{
    const unsigned first = blockIdx.x * of_pass;

    if (threadIdx.x == 0)
        p.n = min(of_pass, a.n_rows - first);
    for (unsigned i = threadIdx.x; i < of_pass; i += blockDim.x) {
        const unsigned m = a.first + min(first + i, a.n_rows - 1);

        p.row[i].x = row_at(a.x, a.e.T, m);
        p.row[i].y = row_at(a.e.y, a.e.T, m);
        p.row[i].gate = row_at(a.e.gate, a.e.T, m);
    }
    __syncthreads();
}

/* Where four neighbours of row m of x lie in its tile: lanes of two rows that
 * read together meet in no bank. */
__device__ static inline unsigned x_at(unsigned quad, unsigned m)
{
    return m * X_BYTES + (quad ^ (quad / 8 * 2) ^ (m & 1)) * 16;
}

/* Start copying a tile of x: a thread takes the same quad of several rows. */
__device__ static inline void fetch_x(unsigned char *to, const decode &a,
                                      const pass &p, unsigned tile)
{
    const unsigned quad = threadIdx.x % 16;
    const unsigned k = tile * TILE_K + 4 * quad;

    for (unsigned m = threadIdx.x / 16; m < p.n; m += blockDim.x / 16)
        copy_async<16>(to + x_at(quad, m), a.x.data + p.row[m].x + k, k < a.K);
}

/* Bring what this thread has copied of a tile of floats to the form that
 * products take. */
__device__ static inline void split_x(unsigned char *tile, const pass &p)
{
    for (unsigned m = threadIdx.x / 16; m < p.n; m += blockDim.x / 16) {
        float4 *at = (float4 *)(tile + x_at(threadIdx.x % 16, m));

        *at = kept(*at, true);
    }
}

/* Four neighbours of a row as rows of a product: high parts in the upper
 * eight, low ones in the lower eight. */
__device__ static inline void read_x(unsigned rows[4], const unsigned char *at)
{
    unsigned x[4];

    read_16_bytes(x, at);
    rows[0] = __byte_perm(x[0], x[1], 0x7632);
    rows[1] = __byte_perm(x[0], x[1], 0x5410);
    rows[2] = __byte_perm(x[2], x[3], 0x7632);
    rows[3] = __byte_perm(x[2], x[3], 0x5410);
}

__device__ static inline float4 added(const float4 &a, const float4 &b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* A warp's share of the stages.  A lane has sums of row lane / 4 of each group
 * for outputs n, n + 1, n + 8 and n + 9, n = 2 (lane % 4), of each tile. */
template <int dtype, int GROUPS> struct worker {
    enum { TILE_BYTES = format<dtype>::TILE_BYTES };

    unsigned char *weights, *x; /* of the first stage */
    unsigned stage_bytes;
    unsigned x_lane, lane_at; /* where this lane reads x, leaves weights */
    unsigned of_go;           /* bytes from go to go of the warp */
    bool is_full;             /* all outputs are there */
    feed<dtype> from[HEIGHT];
    float c[HEIGHT][2][GROUPS][4]; /* of a fold: two of high, two of low parts
                                      for every other eight outputs */
    float4 sums[HEIGHT][GROUPS];   /* of a slice */

    __device__ inline void open(const decode &a, unsigned char *memory,
                                unsigned group)
    {
        const unsigned lane = threadIdx.x % 32;
        const unsigned of_block = blockDim.x / 32 * HEIGHT * TILE_BYTES;

        weights = memory + threadIdx.x / 32 * HEIGHT * TILE_BYTES;
        x = memory + of_block;
        x_lane = x_at(lane % 4 * 4, lane / 4);
        stage_bytes = of_block + GROUPS * ROWS * X_BYTES;
        if constexpr (!is_whole<dtype>) {
            lane_at = feed<dtype>::place_of_lane();
            of_go = feed<dtype>::ROWS * a.row_bytes;
        }
        is_full = (group + HEIGHT) * TILE_N <= a.e.N;
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
            from[h].turn(a, group + h);
#pragma unroll
        for (unsigned i = 0; i < HEIGHT * 2 * GROUPS * 4; i++)
            (&c[0][0][0][0])[i] = 0.0f;
#pragma unroll
        for (unsigned i = 0; i < HEIGHT * GROUPS; i++)
            sums[i / GROUPS][i % GROUPS] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }

    /* Start copying the weights of a tile to the stage at slot. */
    __device__ inline void fetch(const decode &a, unsigned slot, unsigned tile)
    {
        unsigned char *to = weights + slot;

        if constexpr (!is_whole<dtype>) {
            enum { GOES = HEIGHT * TILE_N / feed<dtype>::ROWS };
            const unsigned at = tile * format<dtype>::ROW_BYTES;

            if (is_full && at + format<dtype>::ROW_BYTES <= a.row_bytes) {
                const unsigned char *p = from[0].from + at;

                to += lane_at;
#pragma unroll
                for (unsigned i = 0; i < GOES; i++, p += of_go)
                    copy_async<16>(to + i * 512, p, true);
                return;
            }
        }
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
            from[h].fetch(to + h * TILE_BYTES, a, tile);
    }

    __device__ inline void read(tile_pairs w[HEIGHT], const decode &a,
                                unsigned slot) const
    {
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
            read_tile<dtype>(w[h], weights + slot + h * TILE_BYTES, a);
    }

    /* c += the weights of a stage times its x. */
    __device__ inline void add(const tile_pairs w[HEIGHT], unsigned slot)
    {
        const unsigned char *rows = x + slot;

#pragma unroll
        for (unsigned i = 0; i < 4; i++)
#pragma unroll
            for (unsigned g = 0; g < GROUPS; g++) {
                unsigned parts[4];

                read_x(parts, rows + (x_lane ^ (i * 16)) + g * ROWS * X_BYTES);
#pragma unroll
                for (unsigned h = 0; h < HEIGHT; h++) {
                    multiply(c[h][0][g], parts, w[h].low + 2 * i);
                    multiply(c[h][1][g], parts, w[h].high + 2 * i);
                }
            }
    }

    __device__ inline void end_fold(void)
    {
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
#pragma unroll
            for (unsigned g = 0; g < GROUPS; g++) {
                float(&low)[4] = c[h][0][g];
                float(&high)[4] = c[h][1][g];

                sums[h][g].x += low[0] + low[2];
                sums[h][g].y += low[1] + low[3];
                sums[h][g].z += high[0] + high[2];
                sums[h][g].w += high[1] + high[3];
#pragma unroll
                for (unsigned j = 0; j < 4; j++)
                    low[j] = high[j] = 0.0f;
            }
    }

    /* Leave the sums of a slice every stride, or add them to what is there. */
    __device__ inline void end_slice(float4 *to, unsigned stride, bool is_first)
    {
#pragma unroll
        for (unsigned i = 0; i < HEIGHT * GROUPS; i++) {
            float4 &s = sums[i / GROUPS][i % GROUPS];

            if (!is_first)
                s = added(to[i * stride], s);
            to[i * stride] = s;
            s = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
    }
};

/* Where sums lie, HEIGHT by groups float4 for each lane, stride apart: those of
 * all of K, or of n_slices, a multiple of AT_ONCE, that are slice_stride
 * apart. */
struct heap {
    enum { AT_ONCE = SLICES };

    float4 *sums;
    unsigned stride, n_slices, slice_stride;

    __device__ inline float4 read(unsigned i) const
    {
        const float4 *from = sums + i * stride;
        float4 z = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

        if (n_slices == 1)
            return *from;
        for (unsigned first = 0; first < n_slices; first += AT_ONCE) {
            float4 v[AT_ONCE];

#pragma unroll
            for (unsigned s = 0; s < AT_ONCE; s++)
                v[s] = from[(first + s) * slice_stride];
#pragma unroll
            for (unsigned s = 0; s < AT_ONCE; s++)
                z = added(z, v[s]);
        }
        return z;
    }
};

/* Whether this warp is the last of those that make slices of these outputs. */
__device__ static inline bool is_last_warp(const decode &a, unsigned chunk)
{
    const unsigned n_parts = a.slices / a.share;
    unsigned arrived = 0;

    __syncwarp();
    if (threadIdx.x % 32 == 0) {
        __threadfence();
        arrived = atomicAdd(&a.done[chunk], 1) + 1;
        if (arrived == n_parts)
            a.done[chunk] = 0;
        __threadfence();
    }
    return __shfl_sync(0xFFFFFFFFu, arrived, 0) == n_parts;
}

/* A lane's four sums of a row. */
struct corner {
    unsigned n, m;

    __device__ inline unsigned output(unsigned j) const
    {
        return n + j / 2 * 8 + j % 2;
    }

    __device__ inline bool has(const decode &a, const pass &p, unsigned j) const
    {
        return m < p.n && output(j) < a.e.N;
    }

    __device__ inline void read(operands o[4], const decode &a,
                                const pass &p) const
    {
#pragma unroll
        for (unsigned j = 0; j < 4; j++)
            if (has(a, p, j))
                o[j] = read_operands(a.e, p.row[m].y, p.row[m].gate, output(j));
    }

    __device__ inline void finish(const float4 &sums, const operands o[4],
                                  const decode &a, const pass &p) const
    {
        const float z[4] = {
            sums.x * o[0].scale + o[0].bias, sums.y * o[1].scale + o[1].bias,
            sums.z * o[2].scale + o[2].bias, sums.w * o[3].scale + o[3].bias};
        const size_t y_at = p.row[m].y;

#pragma unroll
        for (unsigned j = 0; j < 4; j++) {
            if (!has(a, p, j))
                continue;
            if (a.e.kind != VIBE_SWIGLU)
                put(a.e.y, y_at + output(j), finished(a.e.kind, o[j], z[j]));
            else if (j % 2 == 0)
                put(a.e.y, y_at + output(j) / 2, silu(z[j]) * z[j + 1]);
        }
    }
};

/* Finish the outputs of a warp, as many sums at a time as there are tiles. */
template <int GROUPS>
__device__ static inline void finish_warp(const heap &from, const decode &a,
                                          const pass &p, unsigned group)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll 1
    for (unsigned g = 0; g < GROUPS; g++) {
        operands o[HEIGHT][4] = {};
        float4 z[HEIGHT];
        corner at[HEIGHT];

#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++) {
            at[h].n = (group + h) * TILE_N + lane % 4 * 2;
            at[h].m = g * ROWS + lane / 4;
            at[h].read(o[h], a, p);
        }
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
            z[h] = from.read(h * GROUPS + g);
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++)
            at[h].finish(z[h], o[h], a, p);
    }
}

/* Wait for the oldest of depth - 1 groups of copies. */
__device__ static inline void stage_wait(unsigned depth)
{
    if (depth == 2)
        copies_wait<0>();
    else if (depth == 3)
        copies_wait<1>();
    else if (depth == 4)
        copies_wait<2>();
    else if (depth == 5)
        copies_wait<3>();
    else
        copies_wait<MOST_DEPTH - 2>();
}

#endif

#if __CUDA_ARCH__ >= 800
/* Fill all stages but one, weights before the kernel ahead has ended; returns
 * the tile that comes next. */
template <int dtype, int GROUPS>
__device__ static inline walk fill(worker<dtype, GROUPS> &me, const walk &here,
                                   pass &rows, const decode &a)
{
    walk ahead = here;

    for (unsigned s = 0; s + 1 < a.depth && ahead.is_in(); s++) {
        me.fetch(a, s * me.stage_bytes, ahead.tile(a));
        ahead.next();
    }
    find_rows(rows, ROWS * GROUPS, a);
    let_next_start();
    wait_for_inputs();
    ahead = here;
    for (unsigned s = 0; s + 1 < a.depth; s++) {
        if (ahead.is_in())
            fetch_x(me.x + s * me.stage_bytes, a, rows, ahead.tile(a));
        copies_end();
        ahead.next();
    }
    return ahead;
}
#endif

/* bytes: the weights once, little sums, and x for each block. */
template <int dtype, int GROUPS>
__global__ void __launch_bounds__(32 * most_warps(GROUPS),
                                  GROUPS <= PAIRED ? 2 : 1)
    gemv_wide_kernel(const __grid_constant__ struct decode a)
{
#if __CUDA_ARCH__ >= 800
    enum { OF_WARP = 32 * HEIGHT * GROUPS }; /* float4 of sums */

    extern __shared__ uint4 memory[];
    __shared__ pass rows;
    const unsigned n_parts = a.slices / a.share;
    const unsigned n_warps = blockDim.x / 32;
    const unsigned warp = blockIdx.y / n_parts * n_warps + threadIdx.x / 32;
    const unsigned chunk = blockIdx.x * (gridDim.y / n_parts * n_warps) + warp;
    worker<dtype, GROUPS> me;
    walk here, ahead;
    heap heap;
    unsigned slot = 0, in_fold = 0;
    unsigned ring_bytes;

    here.open(a);
    me.open(a, (unsigned char *)memory, warp * HEIGHT);
    ring_bytes = a.depth * me.stage_bytes;
    ahead = fill(me, here, rows, a);
    if (n_parts == 1)
        heap = {(float4 *)((unsigned char *)memory + ring_bytes) + threadIdx.x,
                blockDim.x, 1, 0};
    else
        heap = {(float4 *)a.partial + (size_t)chunk * a.slices * OF_WARP +
                    threadIdx.x % 32,
                32, a.slices, OF_WARP};
    while (here.is_in()) {
        const unsigned free = (slot ? slot : ring_bytes) - me.stage_bytes;
        const bool ends_slice = here.ends_slice();
        tile_pairs w[HEIGHT];

        stage_wait(a.depth);
        if (!a.x.is_split)
            split_x(me.x + slot, rows);
        __syncthreads();
        me.read(w, a, slot);
        if (ahead.is_in()) {
            me.fetch(a, free, ahead.tile(a));
            fetch_x(me.x + free, a, rows, ahead.tile(a));
            ahead.next();
        }
        copies_end();
        me.add(w, slot);
        if (++in_fold == a.fold || ends_slice) {
            me.end_fold();
            in_fold = 0;
        }
        if (ends_slice)
            me.end_slice(heap.sums + here.slice * heap.slice_stride,
                         heap.stride, n_parts > 1 || here.slice == 0);
        here.next();
        slot += me.stage_bytes;
        slot = slot < ring_bytes ? slot : 0;
    }
    if (n_parts == 1 || is_last_warp(a, chunk))
        finish_warp<GROUPS>(heap, a, rows, warp * HEIGHT);
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
                                 const struct vibe_matrix *w, size_t n_rows)
{
    const struct shares s = shares_of(cuda, w, n_rows);

    return meeting_bytes(&s);
}

cudaError_t vibe_cuda_gemv_wide(const struct vibe_cuda *cuda,
                                const struct vibe_cuda_product *p,
                                float *partial)
{
    const enum vibe_dtype dtype = p->w->part[0].dtype;
    const size_t n_rows = p->x->B * p->x->T;
    const struct shares s = shares_of(cuda, p->w, n_rows);
    const void *kernel = dtype == VIBE_BF16 ? kernel_for<VIBE_BF16>(s.groups)
                         : dtype == VIBE_I8 ? kernel_for<VIBE_I8>(s.groups)
                         : dtype == VIBE_I4 ? kernel_for<VIBE_I4>(s.groups)
                         : dtype == VIBE_BF16_PACKED
                             ? kernel_for<VIBE_BF16_PACKED>(s.groups)
                             : kernel_for<VIBE_F8_E4M3>(s.groups);
    struct decode a = decode_of(p, 0, n_rows);

    a.depth = s.depth;
    a.share = s.share;
    a.partial = partial;
    a.done = cuda->done;
    return launch_large(cuda, kernel, dim3(s.n_passes, s.n_blocks * s.n_parts),
                        32 * s.warps, shared_bytes(&s, s.depth), &a);
}
