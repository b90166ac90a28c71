/* Products with the rows of a prompt by cuBLASLt, which takes bf16 and leaves
 * float sums: x is rounded, weights of other dtypes are expanded, and sums are
 * finished, in blocks of outputs small enough to stay in the second cache. */
#include "engine/backend/cuda/matrix.h"
#include "engine/base/size.h"

enum { BLOCK_UNIT = 256 }; /* outputs: whole tiles of the library's kernels */

static const size_t block_bytes = (size_t)40 << 20; /* of sums, about */

/* One dialogue's product, and its scratch memory. */
struct job {
    struct vibe_stream *s;
    const struct vibe_cuda_product *p;
    size_t rows; /* outputs of a block */
    char *x, *weights, *sums, *workspace;
};

/* Outputs of a block, of equal ones; the sums do not depend on it. */
static size_t block_rows(size_t T, size_t N)
{
    const size_t most = block_bytes / sizeof(float) / T / BLOCK_UNIT + 1;
    const size_t units = (N + BLOCK_UNIT - 1) / BLOCK_UNIT;
    const size_t n_blocks = (units + most - 1) / most;

    return (units + n_blocks - 1) / n_blocks * BLOCK_UNIT;
}

static int make_room(struct job *job)
{
    const struct vibe_cuda_product *p = job->p;
    const size_t row = vibe_cuda_stride(p->w->K) * vibe_dtype_size(VIBE_BF16);
    const int is_expanded = p->w->part[0].dtype != VIBE_BF16;
    const size_t x = vibe_size_round(p->x->T * row, 256);
    const size_t weights = is_expanded ? vibe_size_round(job->rows * row, 256)
                                       : 0;
    const size_t sums = vibe_size_round(p->x->T * job->rows * sizeof(float),
                                        256);

    job->x = vibe_cuda_scratch(job->s,
                               x + weights + sums + VIBE_CUDA_LT_WORKSPACE);
    if (!job->x)
        return 1;
    job->weights = job->x + x;
    job->sums = job->weights + weights;
    job->workspace = job->sums + sums;
    return 0;
}

/* Outputs first .. first + n - 1.  Returns 1 where the library cannot, with y
 * as it was. */
static int multiply_block(const struct job *job, size_t first, size_t n)
{
    struct vibe_cuda *cuda = vibe_cuda_of(job->s->be);
    const struct vibe_cuda_product *p = job->p;
    const enum vibe_dtype dtype = p->w->part[0].dtype;
    const size_t by = p->epilogue == VIBE_SWIGLU ? 2 : 1;
    struct vibe_matrix w = *p->w;
    struct vibe_tensor y = vibe_tensor_channels(p->y, first / by, n / by);
    struct vibe_tensor gate = {0};
    struct vibe_cuda_product block = *p;
    cudaError_t rc = cudaSuccess;

    w.N = n;
    w.part[0].data = (const char *)w.part[0].data +
                     first * vibe_cuda_stride(w.K) * vibe_dtype_size(dtype);
    w.part[0].scale = w.part[0].scale ? w.part[0].scale + first : NULL;
    w.bias = w.bias ? w.bias + first : NULL;
    w.gamma = w.gamma ? w.gamma + first : NULL;
    if (p->gate)
        gate = vibe_tensor_channels(p->gate, first, n);
    block.w = &w;
    block.y = &y;
    block.gate = p->gate ? &gate : NULL;
    if (dtype != VIBE_BF16) {
        rc = vibe_cuda_expand(cuda, job->weights, &w);
        w.part[0].data = job->weights;
    }
    if (rc == cudaSuccess &&
        vibe_cuda_lt_multiply(cuda, (float *)(void *)job->sums, job->x, p->x->T,
                              &w, job->workspace))
        return 1;
    if (rc == cudaSuccess)
        rc = vibe_cuda_finish(cuda, &block, (float *)(void *)job->sums);
    vibe_cuda_latch(job->s, rc, "gemm");
    return 0;
}

/* Returns 1 where the library cannot, with y as it was. */
static int multiply_dialogue(struct vibe_stream *s,
                             const struct vibe_cuda_product *p)
{
    const size_t N = p->w->N;
    struct job job = {.s = s, .p = p, .rows = block_rows(p->x->T, N)};

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
        struct vibe_tensor y = vibe_tensor_batch(p->y, b, 1);
        struct vibe_tensor x = vibe_tensor_batch(p->x, b, 1);
        struct vibe_tensor gate = {0};
        struct vibe_cuda_product one = *p;

        if (p->gate)
            gate = vibe_tensor_batch(p->gate, b, 1);
        one.y = &y;
        one.x = &x;
        one.gate = p->gate ? &gate : NULL;
        if (!multiply_dialogue(s, &one))
            continue;
        if (b == 0)
            return 1;
        /* what the first dialogue's shape could, this one's can too */
        vibe_cuda_latch(s, cudaErrorUnknown, "cuBLASLt");
    }
    return 0;
}
