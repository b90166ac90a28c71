/*
 * columns.cuh - products with the columns of a codec.
 *
 * K is shared out in units of 32 neighbours, of which lane q of four takes 8,
 * any order to a sum.  Units that follow each other are a slice, which is added
 * up first; then the slices of a group are added in their order, and then
 * groups.  How long those are, and so the order of a sum, is said by K alone:
 * gemm_columns.cu gives each warp a slice, gemm_tiles.cu a team of warps
 * groups, or the slices of one where K is long.
 *
 * x is two bf16, high and low, as in gemm.cu.
 */
#ifndef VIBE_CUDA_COLUMNS_CUH
#define VIBE_CUDA_COLUMNS_CUH

#include "engine/backend/cuda/epilogue.cuh"
#include "engine/backend/cuda/tensor.cuh"
#include "engine/backend/cuda/window.cuh"

enum {
    UNIT = 32,  /* neighbours along K */
    SLICES = 8, /* of K */
    MANY = 16,  /* the same for a K above LONG_K */
    LONG_K = 2048,
    GROUPS = 4, /* of slices; of a K up to SHORT_K one */
    SHORT_K = 512,
};

struct columns {
    const unsigned short *w; /* bf16 */
    struct view x;
    struct source from; /* its edge lies between slices of every row */
    struct epilogue e;
    unsigned K, stride;        /* elements of a row of weights */
    unsigned slice;            /* elements of K, whole units */
    unsigned groups, of_group; /* slices of one */
    unsigned n_rows;
    /* gemm_tiles.cu: elements of K of a team's turn and those from its end to
     * the team's next one, blocks that share K, where their sums meet, and
     * stages of a ring */
    unsigned of_turn, to_turn, parts, depth;
    float *partial;
    unsigned *done;
};

/* Of 64 rows and outputs. */
static inline size_t tiles_of(const struct columns *a)
{
    return (size_t)((a->n_rows + 63) / 64) * ((a->e.N + 63) / 64);
}

static inline struct columns columns_of(const struct vibe_cuda *cuda,
                                        const struct vibe_cuda_product *p)
{
    const unsigned K = (unsigned)p->w->K;
    const unsigned n = K > LONG_K ? MANY : SLICES;
    struct columns a = {};

    a.w = (const unsigned short *)p->w->part[0].data;
    a.x = view_of(p->x);
    a.from = source_of(p, &a.x, 4);
    a.e = epilogue_of(p);
    a.K = K;
    a.stride = (unsigned)vibe_cuda_stride(K);
    a.slice = (K + n * UNIT - 1) / (n * UNIT) * UNIT;
    a.groups = K > SHORT_K ? GROUPS : 1;
    a.of_group = n / a.groups;
    a.n_rows = (unsigned)(p->x->B * p->x->T);
    a.parts = K > LONG_K && tiles_of(&a) * 8 < (size_t)cuda->n_sm * 3 ? GROUPS
                                                                      : 1;
    a.done = cuda->done;
    return a;
}

/* In tiles of many rows and outputs, if those are enough to keep the
 * multiprocessors busy. */
bool vibe_cuda_is_tiles(const struct vibe_cuda *cuda, const struct columns *a);
cudaError_t vibe_cuda_tiles(const struct vibe_cuda *cuda, struct columns *a);

/* The same by the products of sm_90a, where those are there for it. */
bool vibe_cuda_can_tiles_async(const struct vibe_cuda *cuda,
                               const struct columns *a);
cudaError_t vibe_cuda_tiles_async(const struct vibe_cuda *cuda,
                                  struct columns *a);

#if __CUDA_ARCH__ >= 800

/* A lane's 8 neighbours of one row, as mma's halves. */
struct eight {
    unsigned high[4], low[4];
};

__device__ static inline void split_eight(struct eight &x, float4 v0, float4 v1,
                                          bool is_split)
{
    read_split(x.high[0], x.low[0], make_float2(v0.x, v0.y), is_split);
    read_split(x.high[1], x.low[1], make_float2(v0.z, v0.w), is_split);
    read_split(x.high[2], x.low[2], make_float2(v1.x, v1.y), is_split);
    read_split(x.high[3], x.low[3], make_float2(v1.z, v1.w), is_split);
}

/* The two steps of a unit; products that follow each other are of different
 * sums. */
template <int H, int G>
__device__ static inline void multiply_unit(float c[H][G][4],
                                            const uint4 w[H][2],
                                            const float4 v[G][2], bool is_split)
{
    struct eight x[G];

#pragma unroll
    for (int g = 0; g < G; g++)
        split_eight(x[g], v[g][0], v[g][1], is_split);
#pragma unroll
    for (int step = 0; step < 2; step++)
#pragma unroll
        for (int part = 0; part < 2; part++)
#pragma unroll
            for (int h = 0; h < H; h++) {
                const uint4 lo = w[h][0], hi = w[h][1];
                const unsigned rows[4] = {
                    step ? lo.z : lo.x, step ? hi.z : hi.x, step ? lo.w : lo.y,
                    step ? hi.w : hi.y};

#pragma unroll
                for (int g = 0; g < G; g++)
                    multiply(c[h][g], rows,
                             (part ? x[g].low : x[g].high) + 2 * step);
            }
}

#endif

#endif /* VIBE_CUDA_COLUMNS_CUH */
