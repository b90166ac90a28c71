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
#include "engine/backend/cuda/wide.cuh"
#include "engine/backend/cuda/wide_sums.cuh"

#if __CUDA_ARCH__ >= 800

/* The tiles of a team: those of its slices, one slice after the other in the
 * order in which each can be added to what is there. */
struct walk {
    unsigned first, stride, n_visits; /* slices */
    unsigned visit, tile;

    __device__ inline void open(const decode &a, unsigned team)
    {
        first = team * a.parts + blockIdx.y % a.parts;
        stride = a.teams * a.parts;
        n_visits = a.slices / stride;
        tile = first;
        visit = tile < a.n_tiles ? 0 : n_visits;
    }

    __device__ inline bool is_in(void) const
    {
        return visit < n_visits;
    }

    /* Returns whether a slice has ended. */
    __device__ inline bool next(const decode &a)
    {
        tile += a.slices;
        if (tile < a.n_tiles)
            return false;
        visit++;
        tile = first + stride * (__brev(visit) >> 1 >> __clz(n_visits));
        return true;
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
                                      const pass &p, const post &at,
                                      unsigned tile)
{
    const unsigned quad = threadIdx.x % 16;
    const unsigned k = tile * TILE_K + 4 * quad;

    for (unsigned m = at.first_row(); m < p.n; m += 2 * at.n_warps)
        copy_async<16>(to + x_at(quad, m), a.x.data + p.row[m].x + k, k < a.K);
}

/* Bring what this thread has copied of a tile of floats to the form that
 * products take. */
__device__ static inline void split_x(unsigned char *tile, const pass &p,
                                      const post &at)
{
    for (unsigned m = at.first_row(); m < p.n; m += 2 * at.n_warps) {
        float4 *x = (float4 *)(tile + x_at(threadIdx.x % 16, m));

        *x = kept(*x, true);
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

/* A warp's share of the stages.  A lane has sums of row lane / 4 of each group
 * for outputs n, n + 1, n + 8 and n + 9, n = 2 (lane % 4), of each tile. */
template <int dtype, int GROUPS> struct worker {
    enum {
        TILE_BYTES = format<dtype>::TILE_BYTES,
        SUMS = HEIGHT * GROUPS, /* of a lane, in fours */
    };

    unsigned char *weights, *x; /* of the first stage */
    unsigned stage_bytes;
    unsigned x_lane, lane_at;      /* where this lane reads x, leaves weights */
    unsigned of_go;                /* bytes from go to go of the warp */
    bool is_full;                  /* all outputs are there */
    unsigned group;                /* of outputs, the first of HEIGHT */
    feed<dtype> from;              /* of that */
    float c[HEIGHT][2][GROUPS][4]; /* of a fold: two of high, two of low parts
                                      for every other eight outputs */

    /* memory: of the block's stages, a team's beside each other */
    __device__ inline void open(const decode &a, unsigned char *memory,
                                const post &at, unsigned first_group)
    {
        const unsigned lane = threadIdx.x % 32;
        const unsigned of_team = at.n_warps * HEIGHT * TILE_BYTES;

        stage_bytes = of_team + GROUPS * ROWS * X_BYTES;
        memory += at.team * a.depth * stage_bytes;
        weights = memory + at.warp * HEIGHT * TILE_BYTES;
        x = memory + of_team;
        x_lane = x_at(lane % 4 * 4, lane / 4);
        if constexpr (!is_whole<dtype>) {
            lane_at = feed<dtype>::place_of_lane();
            of_go = feed<dtype>::ROWS * a.row_bytes;
        }
        group = first_group;
        from.turn(a, group);
        is_full = (group + HEIGHT) * TILE_N <= a.e.N;
#pragma unroll
        for (unsigned i = 0; i < HEIGHT * 2 * GROUPS * 4; i++)
            (&c[0][0][0][0])[i] = 0.0f;
    }

    /* Start copying the weights of a tile to the stage at slot. */
    __device__ inline void fetch(const decode &a, unsigned slot, unsigned tile)
    {
        unsigned char *to = weights + slot;

        if constexpr (!is_whole<dtype>) {
            enum { GOES = HEIGHT * TILE_N / feed<dtype>::ROWS };
            const unsigned at = tile * format<dtype>::ROW_BYTES;

            if (is_full && at + format<dtype>::ROW_BYTES <= a.row_bytes) {
                const unsigned char *p = from.from + at;

                to += lane_at;
#pragma unroll
                for (unsigned i = 0; i < GOES; i++, p += of_go)
                    copy_async<16>(to + i * 512, p, true);
                return;
            }
        }
#pragma unroll
        for (unsigned h = 0; h < HEIGHT; h++) {
            feed<dtype> here = from;

            if (h > 0)
                here.turn(a, group + h);
            here.fetch(to + h * TILE_BYTES, a, tile);
        }
    }

    /* Quarter i of a stage: c += its weights times its x. */
    __device__ inline void add_quarter(const tile_pairs w[HEIGHT],
                                       unsigned slot, unsigned i)
    {
        const unsigned char *rows = x + slot + (x_lane ^ (i * 16));

#pragma unroll
        for (unsigned g = 0; g < GROUPS; g++) {
            unsigned parts[4];

            read_x(parts, rows + g * ROWS * X_BYTES);
#pragma unroll
            for (unsigned h = 0; h < HEIGHT; h++) {
                multiply(c[h][0][g], parts, w[h].low + 2 * i);
                multiply(c[h][1][g], parts, w[h].high + 2 * i);
            }
        }
    }

    /* The whole of it; the widest weights by halves, for want of registers. */
    __device__ inline void add(const decode &a, unsigned slot)
    {
        tile_pairs w[HEIGHT];

#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            unsigned char *from = weights + slot;

#pragma unroll
            for (unsigned h = 0; h < HEIGHT; h++, from += TILE_BYTES)
                if (dtype == VIBE_BF16 && i % 2 == 0)
                    read_half(w[h], from, i / 2);
                else if (dtype != VIBE_BF16 && i == 0)
                    read_tile<dtype>(w[h], from, a);
            add_quarter(w, slot, i);
        }
    }

    /* The sums of a fold that has ended. */
    __device__ inline void take(float4 sums[SUMS])
    {
#pragma unroll
        for (unsigned i = 0; i < SUMS; i++) {
            float(&low)[4] = c[i / GROUPS][0][i % GROUPS];
            float(&high)[4] = c[i / GROUPS][1][i % GROUPS];

            sums[i] = make_float4(low[0] + low[2], low[1] + low[3],
                                  high[0] + high[2], high[1] + high[3]);
#pragma unroll
            for (unsigned j = 0; j < 4; j++)
                low[j] = high[j] = 0.0f;
        }
    }
};

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

/* Fill all stages but one, weights before the kernel ahead has ended; returns
 * the tile that comes next. */
template <int dtype, int GROUPS>
__device__ static inline walk fill(worker<dtype, GROUPS> &me, const walk &here,
                                   pass &rows, const post &at, const decode &a)
{
    walk ahead = here;

    for (unsigned s = 0; s + 1 < a.depth && ahead.is_in(); s++) {
        me.fetch(a, s * me.stage_bytes, ahead.tile);
        ahead.next(a);
    }
    find_rows(rows, ROWS * GROUPS, a);
    let_next_start();
    wait_for_inputs();
    ahead = here;
    for (unsigned s = 0; s + 1 < a.depth; s++) {
        if (ahead.is_in())
            fetch_x(me.x + s * me.stage_bytes, a, rows, at, ahead.tile);
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
    unsigned slot = 0, ring_bytes;

    here.open(a, at.team);
    me.open(a, memory, at, warp * HEIGHT);
    ring_bytes = a.depth * me.stage_bytes;
    shelf.open(a, (float4 *)(memory + a.teams * ring_bytes));
    ahead = fill(me, here, rows, at, a);
    while (here.is_in()) {
        const unsigned free = (slot ? slot : ring_bytes) - me.stage_bytes;
        const unsigned visit = here.visit;
        bool ends_slice;

        stage_wait(a.depth);
        if (!a.x.is_split)
            split_x(me.x + slot, rows, at);
        at.meet();
        if (ahead.is_in()) {
            me.fetch(a, free, ahead.tile);
            fetch_x(me.x + free, a, rows, at, ahead.tile);
            ahead.next(a);
        }
        copies_end();
        me.add(a, slot);
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
            break; /* or sums would be alive in all of the loop */
    }
}
#endif

/* bytes: the weights once, little sums, and x for each block. */
template <int dtype, int GROUPS>
__global__ void __launch_bounds__(32 * most_warps(GROUPS), 1)
    gemv_wide_kernel(const __grid_constant__ struct decode a)
{
#if __CUDA_ARCH__ >= 800
    enum { SUMS = HEIGHT * GROUPS, OF_WARP = 32 * SUMS };

    extern __shared__ uint4 memory[];
    __shared__ pass rows;
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
    a.parts = s.parts;
    a.teams = s.teams;
    a.levels = levels_of(&s, p->w->K);
    a.partial = partial;
    a.done = cuda->done;
    return launch_large(cuda, kernel, dim3(s.n_passes, s.n_blocks * s.parts),
                        32 * s.warps * s.teams,
                        shared_bytes(&s, p->w->K, s.depth), &a);
}
