/*
 * tiles_async.cu - products with the columns of a codec (columns.cuh) that are
 * many, by the products of sm_90a that work beside a warp.
 *
 * What a multiprocessor gets of x and of the weights is what they are bound by,
 * so a block makes as large a tile as leaves none without one: 128 outputs, 64
 * a group of four warps, of up to 104 rows.  Weights are the 64-row operand of
 * wgmma, from registers; rows are its columns, in chunks of K that all threads
 * take apart for it.
 */
#include "engine/backend/cuda/columns.cuh"
#include "engine/backend/cuda/products.cuh"

enum {
    GROUP = 128,         /* threads that multiply together */
    THREADS = 2 * GROUP, /* of a block */
    OF_GROUP = 64,       /* outputs */
    OUTPUTS = 2 * OF_GROUP,
    CHUNK = 128,       /* of K */
    FOURS = CHUNK / 4, /* lanes that take a row apart */
    CHUNK_UNITS = CHUNK / UNIT,
    STEPS = CHUNK / 16,
    PIECE = 32 * 16, /* bytes of a unit's weights that a warp reads at once */
    SLOT = 2 * PIECE,
    DEPTH = 8, /* units whose weights are on their way */
    RINGS = THREADS / 32 * DEPTH * SLOT,
};

/* A tile of N rows. */
template <unsigned N> struct shape {
    enum {
        EACH = N * FOURS / THREADS, /* rows of which a thread has four of K */
        SUMS = N / 2,               /* of a lane */
        HALF_STEP = N * 16 +
                    16, /* bytes of 8 of K; lanes write to other banks */
        STAGE = 4 * STEPS * HALF_STEP,
        SHARED = 2 * STAGE + RINGS,
    };
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* A warp's way through its weights, in a ring; a lane reads what it has copied
 * itself.  Rows i and 8 + i of an operand are neighbours. */
struct feeder {
    const unsigned short *from; /* this lane's piece of the next unit */
    unsigned stride, left;      /* units */
    unsigned ring, here, there; /* this lane's, to take and to fill */

    __device__ inline void open(const columns &a, unsigned memory)
    {
        const unsigned lane = threadIdx.x % 32;
        const unsigned n = blockIdx.x * OUTPUTS + threadIdx.x / 32 * 16 +
                           lane / 4 * 2;

        from = a.w + (size_t)n * a.stride + lane % 4 * 8;
        stride = a.stride;
        left = a.K / UNIT;
        ring = memory + threadIdx.x / 32 * DEPTH * SLOT + lane * 16;
        here = there = ring;
        for (unsigned i = 0; i < DEPTH; i++)
            fetch();
    }

    __device__ inline void turn(unsigned &at) const
    {
        at += SLOT;
        at = at == ring + DEPTH * SLOT ? ring : at;
    }

    /* Start filling the slot that is free; behind the last unit it is left. */
    __device__ inline void fetch(void)
    {
        if (left > 0) {
            copy_to_shared(there, from, true);
            copy_to_shared(there + PIECE, from + stride, true);
            from += UNIT;
            left--;
        }
        copies_end();
        turn(there);
    }

    /* Take the operands of a unit's steps. */
    __device__ inline void take(unsigned (&a)[2][4])
    {
        unsigned u[4], v[4];

        copies_wait<DEPTH - 1>();
        read_shared(u, here);
        read_shared(v, here + PIECE);
#pragma unroll
        for (unsigned j = 0; j < 8; j++)
            a[j / 4][j % 4] = (j % 2 ? v : u)[j / 2];
        turn(here);
        fetch();
    }
};

/* Four neighbours of K of every eighth row of a tile, on their way to shared
 * memory.  HAS_PAST: the first row of a dialogue may begin in the past of its
 * window. */
template <unsigned N, bool HAS_PAST> struct weaver {
    enum { EACH = shape<N>::EACH };

    const float *from[EACH]; /* past the last row it is that again */
    unsigned firsts;         /* of rows, by bits: they are in the past */
    unsigned to;
    float4 v[EACH];

    __device__ static inline unsigned row_of(const columns &a, unsigned i)
    {
        return min(blockIdx.y * N + threadIdx.x / FOURS + 8 * i, a.n_rows - 1);
    }

    __device__ static inline const float *place_of(const columns &a, unsigned m)
    {
        return a.x.data + row_at(a.x, a.e.T, m) + threadIdx.x % FOURS * 4;
    }

    __device__ inline void open(const columns &a, unsigned memory)
    {
        const unsigned four = threadIdx.x % FOURS;
        const unsigned step = four / 8 * 2 + four % 2;

        firsts = 0;
#pragma unroll
        for (unsigned i = 0; i < EACH; i++) {
            const unsigned m = row_of(a, i);

            from[i] = place_of(a, m);
            if (HAS_PAST && a.from.edge > 0 && m % a.e.T == 0) {
                from[i] = a.from.past + m / a.e.T * a.from.past_stride +
                          four * 4;
                firsts |= 1u << i;
            }
        }
        to = memory + step * shape<N>::HALF_STEP + threadIdx.x / FOURS * 16 +
             four % 8 / 2 * 4;
    }

    /* Turn from the past to the chunk, before k is loaded. */
    __device__ inline void pass_edge(const columns &a, unsigned k)
    {
        if (k != a.from.edge)
            return;
#pragma unroll
        for (unsigned i = 0; i < EACH; i++)
            if (HAS_PAST && firsts >> i & 1)
                from[i] = place_of(a, row_of(a, i));
    }

    __device__ inline void load(unsigned k)
    {
#pragma unroll
        for (unsigned i = 0; i < EACH; i++)
            v[i] = *(const float4 *)(from[i] + k);
    }

    template <bool IS_SPLIT> __device__ inline void leave(unsigned stage) const
    {
        enum { HALVES = STEPS * shape<N>::HALF_STEP };

#pragma unroll
        for (unsigned i = 0; i < EACH; i++)
#pragma unroll
            for (unsigned half = 0; half < 2; half++) {
                const unsigned at = to + stage + i * 8 * 16 + half * HALVES;
                unsigned high, low;

                read_split(high, low,
                           half ? make_float2(v[i].z, v[i].w)
                                : make_float2(v[i].x, v[i].y),
                           IS_SPLIT);
                store_shared(at, high);
                store_shared(at + 2 * HALVES, low);
            }
    }
};

/* Start the products of a unit. */
template <unsigned N>
__device__ static inline void start_unit(float (&c)[N / 2],
                                         const unsigned (&a)[2][4], unsigned at,
                                         bool is_first)
{
    enum {
        HALF_STEP = shape<N>::HALF_STEP,
        SECOND = STEPS * HALF_STEP,
    };

    products_begin();
#pragma unroll
    for (unsigned i = 0; i < 4; i++)
        multiply_64<0>(
            c, a[i / 2],
            columns_at(at + i / 2 * HALF_STEP + i % 2 * 2 * SECOND, SECOND),
            i > 0 || !is_first);
    products_end();
}

/* Sums of a lane over the slices of K, see columns.cuh. */
template <unsigned N, bool IS_GROUPED> struct adder {
    float total[N / 2], group[IS_GROUPED ? N / 2 : 1];
    unsigned units, slices; /* so far of a slice, of a group */

    __device__ inline void open(void)
    {
        units = slices = 0;
#pragma unroll
        for (unsigned i = 0; i < N / 2; i++)
            total[i] = 0.0f;
#pragma unroll
        for (unsigned i = 0; i < (IS_GROUPED ? N / 2 : 1); i++)
            group[i] = 0.0f;
    }

    __device__ inline void add_slice(const float (&c)[N / 2], const columns &a)
    {
#pragma unroll
        for (unsigned i = 0; i < N / 2; i++)
            (IS_GROUPED ? group : total)[i] += c[i];
        if (!IS_GROUPED || ++slices < a.of_group)
            return;
        slices = 0;
#pragma unroll
        for (unsigned i = 0; i < N / 2; i++) {
            total[i] += group[IS_GROUPED ? i : 0];
            group[IS_GROUPED ? i : 0] = 0.0f;
        }
    }
};

/* All products of a tile. */
template <unsigned N, bool IS_SPLIT, bool IS_GROUPED>
__device__ static inline void multiply(adder<N, IS_GROUPED> &sums, feeder &from,
                                       weaver<N, !IS_SPLIT> &x,
                                       const columns &a, unsigned memory)
{
    typedef shape<N> S;
    const unsigned of_slice = a.slice / UNIT;
    float c[N / 2];

    sums.open();
#pragma unroll
    for (unsigned i = 0; i < N / 2; i++)
        c[i] = 0.0f;
    x.load(0);
    if (!IS_SPLIT)
        leave_state_by_all(a.from);
    x.template leave<IS_SPLIT>(0);
    show_stores();
    __syncthreads();
#pragma unroll 1
    for (unsigned k = 0, stage = 0; k < a.K; k += CHUNK) {
        const unsigned next = S::STAGE - stage;

#pragma unroll
        for (unsigned u = 0; u < CHUNK_UNITS; u++) {
            unsigned w[2][4];

            from.take(w);
            start_unit<N>(c, w, memory + stage + 2 * u * S::HALF_STEP,
                          sums.units == 0);
            if (u == 0 && k + CHUNK < a.K) {
                x.pass_edge(a, k + CHUNK);
                x.load(k + CHUNK);
            }
            if (u + 1 == CHUNK_UNITS && k + CHUNK < a.K)
                x.template leave<IS_SPLIT>(next);
            if (++sums.units == of_slice) {
                products_wait<0>();
                settle(c);
                sums.add_slice(c, a);
                sums.units = 0;
            } else {
                products_wait<1>();
            }
        }
        products_wait<0>();
        settle(c);
        show_stores();
        __syncthreads();
        stage = next;
    }
}

/* Finish the sums of two neighbouring outputs of rows 2 (lane % 4) and one more
 * of every eight. */
template <unsigned N>
__device__ static inline void finish(const columns &a,
                                     const float (&sums)[N / 2])
{
    const struct epilogue &e = a.e;
    const unsigned n = blockIdx.x * OUTPUTS + threadIdx.x / 32 * 16 +
                       threadIdx.x % 32 / 4 * 2;
    const unsigned m0 = blockIdx.y * N + threadIdx.x % 4 * 2;
    const float2 one = make_float2(1.0f, 1.0f);
    const float2 scale = e.scale ? *(const float2 *)(e.scale + n) : one;
    const float2 mul = e.gamma ? *(const float2 *)(e.gamma + n) : one;
    const float2 bias = e.bias ? *(const float2 *)(e.bias + n)
                               : make_float2(0.0f, 0.0f);

#pragma unroll
    for (unsigned i = 0; i < N / 4; i++) {
        const unsigned m = m0 + i / 2 * 8 + i % 2, j = i / 2 * 4 + i % 2;
        float2 *y = (float2 *)(e.y.data + row_at(e.y, e.T, m) + n);
        float2 z = make_float2(sums[j] * scale.x + bias.x,
                               sums[j + 2] * scale.y + bias.y);

        if (m >= a.n_rows)
            continue;
        if (e.kind == VIBE_GELU) {
            z = make_float2(gelu(z.x), gelu(z.y));
        } else if (e.kind == VIBE_ADD) {
            const float2 old = *y;

            z = make_float2(old.x + mul.x * z.x, old.y + mul.y * z.y);
        }
        *y = make_float2(kept(z.x, e.y.is_split), kept(z.y, e.y.is_split));
    }
}

#endif

template <unsigned N, bool IS_SPLIT, bool IS_GROUPED>
__global__ __launch_bounds__(THREADS, 1) void tiles_async_kernel(
    const __grid_constant__ struct columns a)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(128) unsigned char memory[];
    const unsigned at = shared_address(memory);
    adder<N, IS_GROUPED> sums;
    weaver<N, !IS_SPLIT> x;
    feeder from;

    let_next_start();
    if (!IS_SPLIT)
        prefetch_pasts(a.from, a.e.T, blockIdx.y * N,
                       min(blockIdx.y * N + N, a.n_rows));
    from.open(a, at + 2 * shape<N>::STAGE);
    x.open(a, at);
    wait_for_inputs();
    multiply<N, IS_SPLIT, IS_GROUPED>(sums, from, x, a, at);
    finish<N>(a, sums.total);
#endif
}

/* Rows of a tile: as few as there are multiprocessors for, or 0: of fewer rows
 * products are too short for a group of warps to start. */
static unsigned rows_of(const struct vibe_cuda *cuda, const struct columns *a)
{
    const unsigned heights[] = {56, 80, 104};
    const unsigned n_sm = (unsigned)cuda->n_sm;
    const unsigned across = a->e.N / OUTPUTS;

    for (unsigned i = 0; i < 3; i++) {
        const unsigned n = (a->n_rows + heights[i] - 1) / heights[i] * across;

        if (n <= n_sm && (heights[i] < 104 || a->groups == 1))
            return n * 4 >= n_sm * 3 ? heights[i] : 0;
    }
    return 0;
}

bool vibe_cuda_can_tiles_async(const struct vibe_cuda *cuda,
                               const struct columns *a)
{
    const struct epilogue *e = &a->e;

    return e->N % OUTPUTS == 0 && e->N > OUTPUTS && a->K % CHUNK == 0 &&
           a->stride == a->K && a->from.edge % CHUNK == 0 &&
           (e->kind == VIBE_STORE || e->kind == VIBE_GELU ||
            e->kind == VIBE_ADD) &&
           (size_t)e->y.data % 8 == 0 && e->y.stride_b % 2 == 0 &&
           e->y.stride_t % 2 == 0 && rows_of(cuda, a) > 0 &&
           has_products((const void *)tiles_async_kernel<80, true, true>);
}

template <unsigned N, bool IS_GROUPED>
static cudaError_t launch_tiles(const struct vibe_cuda *cuda, struct columns *a)
{
    const void
        *kernel = a->x.is_split
                      ? (const void *)tiles_async_kernel<N, true, IS_GROUPED>
                      : (const void *)tiles_async_kernel<N, false, IS_GROUPED>;
    const int shared = shape<N>::SHARED;
    const cudaError_t rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);

    if (rc != cudaSuccess)
        return rc;
    return launch_waiting(kernel,
                          dim3(a->e.N / OUTPUTS, (a->n_rows + N - 1) / N),
                          THREADS, (size_t)shared, cuda->compute, a);
}

cudaError_t vibe_cuda_tiles_async(const struct vibe_cuda *cuda,
                                  struct columns *a)
{
    switch (rows_of(cuda, a)) {
    case 56:
        return launch_tiles<56, true>(cuda, a);
    case 80:
        return launch_tiles<80, true>(cuda, a);
    default:
        return launch_tiles<104, false>(cuda, a);
    }
}
