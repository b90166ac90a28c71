/* Products: which kernel, by what the matrix and the rows of one dialogue
 * are, so that a dialogue gets the same bits whatever runs beside it. */
#include <assert.h>

#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/matrix.h"
#include "engine/base/size.h"

enum {
    GEMV_T = 16, /* up to here a gemm is bound by reading its weights */
    LT_T = 64,   /* from here, and for so many weights, cuBLASLt is worth
                    rounding x: matrices of the language model */
    LT_WEIGHTS = 1 << 20,
    MAX_GRID_Y = 65535,
};

static const size_t partial_bytes = (size_t)64 << 20;

static int is_float(const struct vibe_tensor *t)
{
    return !t || t->dtype == VIBE_F32;
}

static void multiply_few_rows(struct vibe_stream *s,
                              const struct vibe_cuda_product *p)
{
    size_t M = p->x->B * p->x->T;
    cudaError_t rc = cudaSuccess;

    for (size_t m = 0; m < M && rc == cudaSuccess; m += VIBE_CUDA_GEMV_ROWS)
        rc = vibe_cuda_gemv(vibe_cuda_of(s->be), p, m,
                            M - m < VIBE_CUDA_GEMV_ROWS ? M - m
                                                        : VIBE_CUDA_GEMV_ROWS);
    vibe_cuda_latch(s, rc, "linear");
}

void vibe_cuda_linear(struct vibe_stream *s, const struct vibe_tensor *y,
                      const struct vibe_tensor *x, const struct vibe_matrix *w,
                      enum vibe_epilogue epilogue,
                      const struct vibe_tensor *gate)
{
    const struct vibe_cuda_product p = {
        .y = y,
        .x = x,
        .gate = gate,
        .w = w,
        .epilogue = epilogue,
    };

    assert(is_float(y) && is_float(x) && is_float(gate));
    multiply_few_rows(s, &p);
}

void vibe_cuda_linear_norm(struct vibe_stream *s, const struct vibe_tensor *y,
                           const struct vibe_tensor *x,
                           const struct vibe_norm *norm,
                           const struct vibe_matrix *w,
                           enum vibe_epilogue epilogue,
                           const struct vibe_tensor *gate)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    struct vibe_cuda_product p = {
        .y = y,
        .x = x,
        .gate = gate,
        .w = w,
        .norm = norm,
        .epilogue = epilogue,
    };

    assert(is_float(y) && is_float(x) && is_float(gate));
    assert(!norm->shift == !norm->scale);
    if (vibe_cuda_gemv_norms(x->B * x->T, w->K)) {
        multiply_few_rows(s, &p);
        return;
    }
    vibe_cuda_latch(s,
                    vibe_cuda_norm(cuda->compute, norm->room, x, norm->w,
                                   norm->eps, norm->shift, norm->scale),
                    "linear_norm");
    p.x = norm->room;
    p.norm = NULL;
    if (s->err.code == VIBE_OK)
        multiply_few_rows(s, &p);
}

/* In groups of rows whose partial sums fit the scratch memory and whose tiles
 * have counters enough. */
static void multiply_on_tensor_cores(struct vibe_stream *s,
                                     const struct vibe_cuda_product *p)
{
    size_t M = p->x->B * p->x->T;
    size_t split = vibe_cuda_mma_split(p->w);
    size_t row = vibe_size_round(p->w->N, 64) * split * sizeof(float);
    size_t most = split > 1 ? partial_bytes / row / 64 * 64 : M;
    size_t group = M;
    float *partial = NULL;
    cudaError_t rc = cudaSuccess;

    if (group > most)
        group = most;
    if (group > (size_t)MAX_GRID_Y * 32)
        group = (size_t)MAX_GRID_Y * 32;
    if (split > 1) {
        partial = vibe_cuda_scratch(s, vibe_size_round(group, 64) * row);
        if (!partial)
            return;
    }
    for (size_t m = 0; m < M && rc == cudaSuccess; m += group)
        rc = vibe_cuda_mma(vibe_cuda_of(s->be), p, m,
                           M - m < group ? M - m : group, partial);
    vibe_cuda_latch(s, rc, "gemm");
}

/* Round x, multiply by cuBLASLt, finish: for one dialogue, because the library
 * chooses by the number of rows.  Returns 1 where it cannot, with y as it was.
 */
static int multiply_dialogue(struct vibe_stream *s,
                             const struct vibe_cuda_product *p)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    size_t T = p->x->T;
    size_t x_bytes = vibe_size_round(
        T * vibe_cuda_stride(p->w->K) * vibe_dtype_size(VIBE_BF16), 256);
    size_t sum_bytes = vibe_size_round(T * p->w->N * sizeof(float), 256);
    char *scratch = vibe_cuda_scratch(s, x_bytes + sum_bytes +
                                             VIBE_CUDA_LT_WORKSPACE);
    float *sums;
    cudaError_t rc;

    if (!scratch)
        return 0;
    sums = (float *)(void *)(scratch + x_bytes);
    rc = vibe_cuda_round(cuda, scratch, p->x);
    if (rc == cudaSuccess &&
        vibe_cuda_lt_multiply(cuda, sums, scratch, T, p->w,
                              scratch + x_bytes + sum_bytes))
        return 1;
    if (rc == cudaSuccess)
        rc = vibe_cuda_finish(cuda, p, sums);
    vibe_cuda_latch(s, rc, "gemm");
    return 0;
}

/* Returns 1 where cuBLASLt cannot, with y as it was. */
static int multiply_by_library(struct vibe_stream *s,
                               const struct vibe_cuda_product *p)
{
    if (!vibe_cuda_lt_is_there(vibe_cuda_of(s->be)))
        return 1;
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

static int has_tensor_cores(const struct vibe_cuda *cuda, enum vibe_dtype dtype)
{
    return (dtype == VIBE_BF16 || dtype == VIBE_F8_E4M3) && cuda->cc >= 80 &&
           vibe_cuda_compiled_for() >= 80;
}

void vibe_cuda_gemm(struct vibe_stream *s, const struct vibe_tensor *y,
                    const struct vibe_tensor *x, const struct vibe_matrix *w,
                    enum vibe_epilogue epilogue, const struct vibe_tensor *gate)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    enum vibe_dtype dtype = w->part[0].dtype;
    const struct vibe_cuda_product p = {
        .y = y,
        .x = x,
        .gate = gate,
        .w = w,
        .epilogue = epilogue,
    };

    assert(is_float(y) && is_float(x) && is_float(gate));
    if (x->T <= GEMV_T) {
        multiply_few_rows(s, &p);
        return;
    }
    if (w->whole_N <= VIBE_CUDA_FEW) {
        vibe_cuda_latch(s, vibe_cuda_few(cuda, &p), "gemm");
        return;
    }
    if (!cuda->base.is_exact && dtype == VIBE_BF16 && x->T >= LT_T &&
        x->T <= MAX_GRID_Y && w->whole_N * w->K >= LT_WEIGHTS &&
        multiply_by_library(s, &p) == 0)
        return;
    if (has_tensor_cores(cuda, dtype))
        multiply_on_tensor_cores(s, &p);
    else
        vibe_cuda_latch(s, vibe_cuda_ffma(cuda, &p), "gemm");
}
