/*
 * decode.cuh - how a warp multiplies 16 rows of weights by a few rows of x.
 *
 * The weights are the 16-row operand of mma.m16n8k16, read as they lie: of a
 * tile of TILE_K neighbours, lane q of a quad has 16, four for each of four
 * products, and x is read in the same order.  Columns are rows of x in bf16
 * parts, high and low beside each other, four rows to a product; a column's
 * sum depends on that column alone.
 *
 * Sums have one order, whatever rows there are: K goes to slices tile by tile
 * in turns; a slice adds up the products of fold tiles, high and low parts
 * apart, then both, then those in order; then slices are added as a tree, the
 * second half of them to the first until one is left.  How many slices, and
 * tiles in a fold, is said by K alone.  Of int4 a fold adds up its tiles in
 * order, x being in digits (digits.cuh).
 */
#ifndef VIBE_CUDA_DECODE_CUH
#define VIBE_CUDA_DECODE_CUH

#include "engine/backend/cuda/digits.cuh"
#include "engine/backend/cuda/epilogue.cuh"
#include "engine/backend/cuda/tiles.cuh"
#include "engine/backend/cuda/weights.cuh"

enum {
    SLICES = 8,       /* of K */
    MANY_SLICES = 16, /* of a K above LONG_K */
    LONG_K = 4096,
    MAX_FOLD = 8,
};

/* When a block of gemv.cu lets the next kernel start. */
enum next_start {
    BEFORE_X, /* and if it has but one round before all else */
    WITH_X,   /* when its inputs are there */
    AFTER_X,  /* when it has digits of x */
};

/* A product of rows first, ..., first + n_rows - 1 of B * T. */
struct decode {
    const void *w;
    struct view x;
    struct epilogue e;
    unsigned first, n_rows;
    unsigned K, row_bytes, n_tiles, n_groups; /* tiles of a row, of N */
    unsigned slices, fold;
    unsigned depth, stage;         /* of a ring, bytes of each */
    unsigned outputs, n_rounds;    /* of a block at a time, see gemv.cu */
    bool first_stays;              /* of its slots, see there */
    unsigned parts, teams, levels; /* see gemv_wide.cu */
    unsigned of_pass;              /* rows, there */
    enum next_start next_start;
    unsigned x_step, x_pass; /* from row to row of x, from pass to pass */
    packed_list list; /* of the matrix, of which first_group comes first */
    unsigned first_group;
    /* where sums of several blocks meet, see gemv_wide.cu */
    float *partial;
    unsigned *done;
};

/* Bytes in shared memory of a tile of a dtype that tensor cores take; 0 of
 * another. */
static inline size_t tile_bytes(enum vibe_dtype dtype)
{
    if (dtype == VIBE_BF16)
        return format<VIBE_BF16>::TILE_BYTES;
    if (dtype == VIBE_F8_E4M3)
        return format<VIBE_F8_E4M3>::TILE_BYTES;
    if (dtype == VIBE_I8)
        return format<VIBE_I8>::TILE_BYTES;
    if (dtype == VIBE_I4)
        return format<VIBE_I4>::TILE_BYTES;
    if (dtype == VIBE_BF16_PACKED)
        return format<VIBE_BF16_PACKED>::TILE_BYTES;
    return 0;
}

static inline unsigned slices_of(size_t K)
{
    return K > LONG_K ? MANY_SLICES : SLICES;
}

static inline unsigned fold_of(size_t K)
{
    const unsigned of_slice = ((unsigned)K + TILE_K * slices_of(K) - 1) /
                              (TILE_K * slices_of(K));
    const unsigned n_folds = (of_slice + MAX_FOLD - 1) / MAX_FOLD;

    return (of_slice + n_folds - 1) / n_folds;
}

static inline struct decode decode_of(const struct vibe_cuda_product *p,
                                      size_t first, size_t n_rows)
{
    const struct vibe_tensor *x = p->x;
    const size_t stride = vibe_cuda_stride(p->w->K);
    struct decode a = {};

    a.w = p->w->part[0].data;
    a.x = view_of(x);
    a.e = epilogue_of(p);
    a.first = (unsigned)first;
    a.n_rows = (unsigned)n_rows;
    a.K = (unsigned)p->w->K;
    a.row_bytes = (unsigned)(stride * tile_bytes(p->w->part[0].dtype) /
                             (TILE_N * TILE_K));
    a.n_tiles = (a.K + TILE_K - 1) / TILE_K;
    a.n_groups = (a.e.N + TILE_N - 1) / TILE_N;
    a.list.words = p->w->part[0].far;
    a.list.n = (unsigned)((p->w->whole_N + TILE_N - 1) / TILE_N);
    a.first_group = (unsigned)(p->w->first / TILE_N);
    a.slices = slices_of(a.K);
    a.fold = fold_of(a.K);
    return a;
}

/* Blocks of so much shared memory that a multiprocessor holds, up to most; at
 * least 1. */
static inline unsigned blocks_that_fit(const struct vibe_cuda *cuda,
                                       size_t shared, unsigned most)
{
    const size_t n = attribute_of(cuda,
                                  cudaDevAttrMaxSharedMemoryPerMultiprocessor) /
                     shared;

    return n < 1 ? 1 : n < most ? (unsigned)n : most;
}

/* Let a kernel of this kind have much shared memory, of which the
 * multiprocessors are asked for the most, always, lest they wait to change;
 * and a launch may have it all, lest one take back what a graph still needs. */
static inline cudaError_t make_large(const struct vibe_cuda *cuda,
                                     const void *kernel)
{
    struct cudaFuncAttributes is = {};
    cudaError_t rc = cudaFuncGetAttributes(&is, kernel);

    if (rc == cudaSuccess)
        rc = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
            (int)(shared_limit(cuda) - is.sharedSizeBytes));
    if (rc == cudaSuccess)
        rc = cudaFuncSetAttribute(
            kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
            cudaSharedmemCarveoutMaxShared);
    return rc;
}

static inline cudaError_t launch_large(const struct vibe_cuda *cuda,
                                       const void *kernel, dim3 grid,
                                       dim3 threads, size_t shared,
                                       struct decode *a)
{
    const cudaError_t rc = make_large(cuda, kernel);

    if (rc != cudaSuccess)
        return rc;
    return launch_waiting(kernel, grid, threads, shared, cuda->compute, a);
}

#if __CUDA_ARCH__ >= 800

__device__ static inline float added(float a, float b)
{
    return a + b;
}

__device__ static inline float4 added(const float4 &a, const float4 &b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* Add up the sums of N slices, in v[0]. */
template <int N, class T> __device__ static inline void add_halves(T v[N])
{
    if constexpr (N > 1) {
#pragma unroll
        for (unsigned s = 0; s < N / 2; s++)
            v[s] = added(v[s], v[s + N / 2]);
        add_halves<N / 2>(v);
    }
}

/* A warp's way through tiles: this lane's 16-byte piece of a row of each of
 * several goes. */
template <int dtype> struct feed {
    enum {
        BYTES = format<dtype>::ROW_BYTES,
        PIECES = BYTES / 16,
        ROWS = 32 / PIECES, /* in one go of the warp */
    };
    const unsigned char *from; /* the row of the first go */
    unsigned rows_left;        /* from that row on */

    /* Turn to the outputs from first on that come before end. */
    __device__ inline void turn_to(const decode &a, unsigned first,
                                   unsigned end)
    {
        const unsigned n = first + threadIdx.x % 32 / PIECES;

        from = (const unsigned char *)a.w + (size_t)n * a.row_bytes +
               threadIdx.x % PIECES * 16;
        rows_left = n < end ? end - n : 0;
    }

    /* Turn to a group of outputs. */
    __device__ inline void turn(const decode &a, unsigned group)
    {
        turn_to(a, group * TILE_N, a.e.N);
    }

    /* Where in a tile the first go leaves this lane's piece. */
    __device__ static inline unsigned place_of_lane(void)
    {
        const unsigned piece = threadIdx.x % PIECES;
        const unsigned r = threadIdx.x % 32 / PIECES;

        return r * BYTES + format<dtype>::place(piece, r) * 16;
    }

    /* Start copying a tile to shared memory, zeros for what is not there. */
    __device__ inline void fetch(unsigned char *to, const decode &a,
                                 unsigned tile, policy p = passing()) const
    {
        const unsigned piece = threadIdx.x % PIECES;
        const unsigned at = tile * BYTES;
        const bool is_in = at + piece * 16 < a.row_bytes;

        to += place_of_lane();
#pragma unroll
        for (unsigned i = 0; i < TILE_N / ROWS; i++)
            copy_by(p, to + i * ROWS * BYTES,
                    from + at + (size_t)(i * ROWS * a.row_bytes),
                    is_in && i * ROWS < rows_left);
    }
};

/* The same through whole tiles: this lane's pieces of each, which are those
 * that it will read. */
template <int dtype> struct tile_feed {
    enum {
        BYTES = format<dtype>::STORED_BYTES,
        PIECES = BYTES / 16,
    };
    const unsigned char *from; /* this lane's piece of the row's first tile */

    /* Past the matrix it is the last group once more. */
    __device__ inline void turn(const decode &a, unsigned group)
    {
        group = min(group, a.n_groups - 1);
        from = (const unsigned char *)a.w + (size_t)group * a.n_tiles * BYTES +
               threadIdx.x % 32 * 16;
    }

    __device__ inline void turn_to(const decode &a, unsigned first, unsigned)
    {
        turn(a, first / TILE_N);
    }

    __device__ inline void fetch(unsigned char *to, const decode &a,
                                 unsigned tile, policy p = passing()) const
    {
        const unsigned lane = threadIdx.x % 32;
        const unsigned char *w = from + (size_t)tile * BYTES;

#pragma unroll
        for (unsigned i = 0; i < PIECES; i += 32)
            if (i + lane < PIECES)
                copy_by(p, to + (i + lane) * 16, w + i * 16, true);
    }
};

template <> struct feed<VIBE_I4> : tile_feed<VIBE_I4> {
};
template <> struct feed<VIBE_BF16_PACKED> : tile_feed<VIBE_BF16_PACKED> {
};
template <> struct feed<VIBE_F8_E4M3> : tile_feed<VIBE_F8_E4M3> {
};
template <> struct feed<VIBE_I8> : tile_feed<VIBE_I8> {
};

/* What there is to know of a group beside its tiles. */
template <int dtype> struct group_of {
    __device__ inline void open(const decode &, unsigned) {}
    template <class T>
    __device__ inline void put(T &, unsigned, const decode &, unsigned) const
    {
    }
};
template <> struct group_of<VIBE_BF16_PACKED> : packed_group {
    __device__ static inline unsigned of_matrix(const decode &a, unsigned group)
    {
        return a.first_group + min(group, a.n_groups - 1);
    }
    __device__ inline void open(const decode &a, unsigned group)
    {
        packed_group::open(a.list, of_matrix(a, group));
    }
    __device__ inline void put(tile_pairs &t, unsigned tile, const decode &a,
                               unsigned group) const
    {
        packed_group::put(t, tile, a.list, of_matrix(a, group));
    }
};

/* What a lane has of a tile until it is multiplied, and so of HEIGHT. */
template <int dtype, int HEIGHT> struct held_tile : tile_pairs {
    __device__ inline void read(const unsigned char *from,
                                const group_of<dtype> &group)
    {
        const unsigned r = threadIdx.x % 32 / 4;
        const unsigned q = threadIdx.x % 4;

        if constexpr (dtype == VIBE_BF16_PACKED) {
            unpack_tile(*this, from, group.base);
        } else {
            enum { BYTES = format<dtype>::ROW_BYTES };

            format<dtype>::expand(low, from + r * BYTES, r, q);
            format<dtype>::expand(high, from + (r + 8) * BYTES, r + 8, q);
        }
    }

    /* A quarter, as multiply takes it. */
    __device__ inline void expand(unsigned a[4], int i) const
    {
        a[0] = low[2 * i], a[1] = high[2 * i];
        a[2] = low[2 * i + 1], a[3] = high[2 * i + 1];
    }
};

/* Three are bytes that become pairs no earlier, for want of registers. */
template <int dtype> struct held_tile<dtype, 3> {
    unsigned low[4], high[4];

    __device__ inline void read(const unsigned char *from,
                                const group_of<dtype> &)
    {
        from += threadIdx.x % 32 * 16;
        read_16_bytes(low, from);
        read_16_bytes(high, from + format<dtype>::TILE_BYTES / 2);
    }

    __device__ inline void expand(unsigned a[4], int i) const
    {
        unsigned pairs[2][2];

        format<dtype>::expand4_small(pairs[0], low[i]);
        format<dtype>::expand4_small(pairs[1], high[i]);
        a[0] = pairs[0][0], a[1] = pairs[1][0];
        a[2] = pairs[0][1], a[3] = pairs[1][1];
    }
};

/* c += a quarter of a tile times that of the pairs of x of this lane's
 * column. */
__device__ static inline void multiply_step(float c[4], const tile_pairs &t,
                                            const unsigned x[8], int i)
{
    const unsigned a[4] = {t.low[2 * i], t.high[2 * i], t.low[2 * i + 1],
                           t.high[2 * i + 1]};

    multiply(c, a, x + 2 * i);
}

/* The part of x that a column has, high in even columns, low in odd ones: which
 * bytes of two words in parts. */
enum part : unsigned { HIGH_PART = 0x7632, LOW_PART = 0x5410 };

__device__ static inline enum part part_of_lane(void)
{
    return threadIdx.x / 4 % 2 ? LOW_PART : HIGH_PART;
}

/* That part of 16 neighbours of a row of x. */
__device__ static inline void part_of_x(unsigned pairs[8], const float4 x[4],
                                        enum part part, bool is_split)
{
    if (is_split) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            pairs[2 * i] = __byte_perm(__float_as_uint(x[i].x),
                                       __float_as_uint(x[i].y), part);
            pairs[2 * i + 1] = __byte_perm(__float_as_uint(x[i].z),
                                           __float_as_uint(x[i].w), part);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        unsigned high[2], low[2];

        split(high[0], low[0], make_float2(x[i].x, x[i].y));
        split(high[1], low[1], make_float2(x[i].z, x[i].w));
        pairs[2 * i] = part == LOW_PART ? low[0] : high[0];
        pairs[2 * i + 1] = part == LOW_PART ? low[1] : high[1];
    }
}

#endif

#endif /* VIBE_CUDA_DECODE_CUH */
