/*
 * Products with the rows of a prompt by cuBLASLt, which takes bf16: x is
 * rounded, weights of other dtypes are expanded.
 *
 * Float sums go to y at once where the library can do all that is left; others
 * are finished, in blocks of outputs that stay in the second cache.  Sums of
 * pairs, the widest products, are rounded to bf16, as x has been: half the
 * bytes, in blocks wide enough to fill a large GPU many times over.
 */
#include <stdint.h>

#include "engine/backend/cuda/matrix.h"
#include "engine/base/size.h"

/* Tiles of the library's kernels for large products. */
enum {
    BLOCK_UNIT = 256, /* outputs */
    TILE_ROWS = 128,
};

/* Of sums, about; of sums of pairs. */
static const size_t block_bytes = (size_t)40 << 20;
static const size_t pairs_bytes = (size_t)80 << 20;

/* Of weights that are expanded at once. */
static const size_t weights_bytes = (size_t)72 << 20;

/* One dialogue's product, and its scratch memory. */
struct job {
    struct vibe_stream *s;
    const struct vibe_cuda_product *p;
    int is_direct; /* sums go to y */
    size_t rows;   /* outputs of a block */
    char *x, *weights, *sums, *workspace;
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static enum vibe_dtype dtype_of_sums(const struct vibe_cuda_product *p)
{
    return p->epilogue == VIBE_SWIGLU ? VIBE_BF16 : VIBE_F32;
}

/* Whether nothing is left to do after sums that go to y, or are added to it. */
static int is_direct(const struct vibe_cuda_product *p)
{
    const size_t floats = VIBE_CUDA_LT_ALIGNMENT / sizeof(float);
    const struct vibe_matrix *w = p->w;

    if (p->y->form != VIBE_FORM_PLAIN || w->part[0].scale ||
        (uintptr_t)p->y->data % VIBE_CUDA_LT_ALIGNMENT ||
        p->y->stride_t % floats || p->y->stride_t < w->N)
        return 0;
    return p->epilogue == VIBE_STORE ||
           (p->epilogue == VIBE_ADD && !w->gamma && !w->bias);
}

/* Units of outputs that there is room for. */
static size_t most_units(const struct job *job)
{
    const struct vibe_cuda_product *p = job->p;
    const enum vibe_dtype dtype = dtype_of_sums(p);
    const size_t bytes = dtype == VIBE_BF16 ? pairs_bytes : block_bytes;
    const size_t unit_bytes = BLOCK_UNIT * vibe_cuda_stride(p->w->K) *
                              vibe_dtype_size(VIBE_BF16);
    size_t most = (p->w->N + BLOCK_UNIT - 1) / BLOCK_UNIT;

    if (!job->is_direct)
        most = smaller(
            most, bytes / vibe_dtype_size(dtype) / p->x->T / BLOCK_UNIT + 1);
    if (p->w->part[0].dtype != VIBE_BF16)
        most = smaller(most, weights_bytes / unit_bytes);
    return most ? most : 1;
}

/* How often all multiprocessors get a tile for n units of outputs. */
static size_t turns_of(const struct job *job, size_t n)
{
    const size_t n_sm = (size_t)vibe_cuda_of(job->s->be)->n_sm;
    const size_t tiles = n * ((job->p->x->T + TILE_ROWS - 1) / TILE_ROWS);

    return (tiles + n_sm - 1) / n_sm;
}

/* Outputs of a block: of sizes that there is room for the one that leaves the
 * fewest multiprocessors idle.  The sums do not depend on it. */
static size_t block_rows(const struct job *job)
{
    const size_t units = (job->p->w->N + BLOCK_UNIT - 1) / BLOCK_UNIT;
    const size_t most = most_units(job);
    size_t best = most;
    size_t least = SIZE_MAX;

    for (size_t n = most; n > most / 2; n--) {
        const size_t turns = units / n * turns_of(job, n) +
                             turns_of(job, units % n);

        if (turns < least) {
            least = turns;
            best = n;
        }
    }
    return best * BLOCK_UNIT;
}

static int make_room(struct job *job)
{
    const struct vibe_cuda_product *p = job->p;
    const size_t row = vibe_cuda_stride(p->w->K) * vibe_dtype_size(VIBE_BF16);
    const int is_expanded = p->w->part[0].dtype != VIBE_BF16;
    const size_t x = vibe_size_round(p->x->T * row, 256);
    const size_t weights = is_expanded ? vibe_size_round(job->rows * row, 256)
                                       : 0;
    const size_t sum = vibe_dtype_size(dtype_of_sums(p));
    const size_t sums = job->is_direct ? 0 : p->x->T * job->rows * sum;

    job->x = vibe_cuda_scratch(job->s, x + weights +
                                           vibe_size_round(sums, 256) +
                                           VIBE_CUDA_LT_WORKSPACE);
    if (!job->x)
        return 1;
    job->weights = job->x + x;
    job->sums = job->weights + weights;
    job->workspace = job->sums + vibe_size_round(sums, 256);
    return 0;
}

/* Where the sums of a block go. */
static struct vibe_cuda_lt_output output_of(
    const struct job *job, const struct vibe_cuda_product *block)
{
    if (!job->is_direct)
        return (struct vibe_cuda_lt_output){
            .data = job->sums,
            .stride = vibe_cuda_stride(block->w->N),
            .dtype = dtype_of_sums(block),
        };
    return (struct vibe_cuda_lt_output){
        .data = block->y->data,
        .stride = block->y->stride_t,
        .dtype = VIBE_F32,
        .bias = block->w->bias,
        .is_added = block->epilogue == VIBE_ADD,
    };
}

/* Returns 1 where the library cannot, with y as it was. */
static int multiply_sums(const struct job *job,
                         const struct vibe_cuda_product *block)
{
    const struct vibe_cuda_lt_output sums = output_of(job, block);

    return vibe_cuda_lt_multiply(vibe_cuda_of(job->s->be), &sums, job->x,
                                 block->x->T, block->w, job->workspace);
}

/* What is left to do with them. */
static cudaError_t finish(const struct job *job,
                          const struct vibe_cuda_product *block)
{
    const struct vibe_cuda *cuda = vibe_cuda_of(job->s->be);

    if (job->is_direct)
        return cudaSuccess;
    if (block->epilogue == VIBE_SWIGLU)
        return vibe_cuda_finish_pairs(cuda, block, job->sums);
    return vibe_cuda_finish(cuda, block, (const float *)(void *)job->sums);
}

/* Outputs first .. first + n - 1.  Returns 1 where the library cannot, with y
 * as it was. */
static int multiply_block(const struct job *job, size_t first, size_t n)
{
    struct vibe_cuda *cuda = vibe_cuda_of(job->s->be);
    const struct vibe_cuda_product *p = job->p;
    const enum vibe_dtype dtype = p->w->part[0].dtype;
    const size_t by = p->epilogue == VIBE_SWIGLU ? 2 : 1;
    struct vibe_matrix w = vibe_cuda_rows(p->w, first, n);
    struct vibe_tensor y = vibe_tensor_channels(p->y, first / by, n / by);
    struct vibe_tensor gate = {0};
    struct vibe_cuda_product block = *p;
    cudaError_t rc = cudaSuccess;

    if (p->gate)
        gate = vibe_tensor_channels(p->gate, first, n);
    block.w = &w;
    block.y = &y;
    block.gate = p->gate ? &gate : NULL;
    if (dtype != VIBE_BF16) {
        rc = vibe_cuda_expand(cuda, job->weights, &w);
        w.part[0].data = job->weights;
    }
    if (rc == cudaSuccess && multiply_sums(job, &block))
        return 1;
    if (rc == cudaSuccess)
        rc = finish(job, &block);
    vibe_cuda_latch(job->s, rc, "gemm");
    return 0;
}

/* Returns 1 where the library cannot, with y as it was. */
static int multiply_dialogue(struct vibe_stream *s,
                             const struct vibe_cuda_product *p)
{
    const size_t N = p->w->N;
    struct job job = {.s = s, .p = p, .is_direct = is_direct(p)};

    job.rows = block_rows(&job);
    if (make_room(&job))
        return 0;
    vibe_cuda_latch(s, vibe_cuda_round(vibe_cuda_of(s->be), job.x, p->x),
                    "gemm");
    for (size_t first = 0; first < N && !s->err.code; first += job.rows) {
        const size_t left = N - first;

        if (!multiply_block(&job, first, left < job.rows ? left : job.rows))
            continue;
        if (first == 0)
            return 1;
        /* what the first block's shape could, this one's can too */
        vibe_cuda_latch(s, cudaErrorUnknown, "cuBLASLt");
    }
    return 0;
}

int vibe_cuda_multiply_by_library(struct vibe_stream *s,
                                  const struct vibe_cuda_product *p)
{
    if (!vibe_cuda_lt_is_there(vibe_cuda_of(s->be)))
        return 1;
    /* one by one, because the library chooses by the number of rows */
    for (size_t b = 0; b < p->x->B && s->err.code == VIBE_OK; b++) {
        struct vibe_cuda_dialogue one;

        vibe_cuda_dialogue_open(&one, p, b);
        if (!multiply_dialogue(s, &one.product))
            continue;
        if (b == 0)
            return 1;
        /* what the first dialogue's shape could, this one's can too */
        vibe_cuda_latch(s, cudaErrorUnknown, "cuBLASLt");
    }
    return 0;
}
