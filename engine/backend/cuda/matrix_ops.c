/* Products: which kernel, by what the matrix and the rows of one dialogue
 * are, so that a dialogue gets the same bits whatever runs beside it. */
#include <assert.h>

#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/matrix.h"
#include "engine/base/size.h"

enum {
    GEMV_T = 16, /* up to here a gemm is bound by reading its weights */
    PLAIN_T = 5, /* from here to there float arithmetic is: the matrices are
                    the codec's, small ones */
    LT_T = 64, /* above, and for so many weights, cuBLASLt is worth rounding x:
                  matrices of the language model */
    LT_WEIGHTS = 1 << 20,
    EXPAND_T = 128,   /* the same for weights that it does not take */
    COLUMNS_T = 4096, /* up to here the codec's matrices are read again for */
    COLUMNS_WEIGHTS = 8 << 20, /* every few rows */
    MAX_GRID_Y = 65535,
};

static const size_t partial_bytes = (size_t)64 << 20;

static int is_float(const struct vibe_tensor *t)
{
    return !t || t->dtype == VIBE_F32;
}

/* Whether rows can be moved by 16 bytes. */
static int is_even(const struct vibe_tensor *x)
{
    return x->C % 4 == 0 && (size_t)x->data % 16 == 0 && x->stride_b % 4 == 0 &&
           x->stride_t % 4 == 0;
}

/* Whether x is in a form that few kernels read. */
static int is_for_tensor_cores(const struct vibe_tensor *x)
{
    return x->form == VIBE_FORM_WOVEN || x->form == VIBE_FORM_DIGITS;
}

static int has_tensor_cores(const struct vibe_cuda *cuda, enum vibe_dtype dtype)
{
    return dtype != VIBE_F32 && dtype != VIBE_F16 && cuda->cc >= 80 &&
           vibe_cuda_compiled_for() >= 80;
}

/* The same for a few rows: bytes must be in bands. */
static int has_few_rows(const struct vibe_cuda *cuda,
                        const struct vibe_matrix *w)
{
    const enum vibe_dtype dtype = w->part[0].dtype;

    return has_tensor_cores(cuda, dtype) &&
           (vibe_cuda_is_banded(w) ||
            (dtype != VIBE_F8_E4M3 && dtype != VIBE_I8));
}

/* By a kernel for so many rows at most; each of its calls reads all weights. */
static void multiply_in_groups(
    struct vibe_stream *s, const struct vibe_cuda_product *p, size_t most,
    cudaError_t (*multiply)(const struct vibe_cuda *cuda,
                            const struct vibe_cuda_product *p, size_t first,
                            size_t n_rows))
{
    const size_t M = p->x->B * p->x->T;
    cudaError_t rc = cudaSuccess;

    for (size_t m = 0; m < M && rc == cudaSuccess; m += most)
        rc = multiply(vibe_cuda_of(s->be), p, m, M - m < most ? M - m : most);
    vibe_cuda_latch(s, rc, "linear");
}

/* In float arithmetic. */
static void multiply_plainly(struct vibe_stream *s,
                             const struct vibe_cuda_product *p)
{
    multiply_in_groups(s, p, VIBE_CUDA_PLAIN_ROWS, vibe_cuda_gemv_plain);
}

static void multiply_few_rows(struct vibe_stream *s,
                              const struct vibe_cuda_product *p);

void vibe_cuda_dialogue_open(struct vibe_cuda_dialogue *out,
                             const struct vibe_cuda_product *p, size_t b)
{
    *out = (struct vibe_cuda_dialogue){
        .y = vibe_tensor_batch(p->y, b, 1),
        .x = vibe_tensor_batch(p->x, b, 1),
        .product = *p,
    };
    out->product.y = &out->y;
    out->product.x = &out->x;
    if (p->gate) {
        out->gate = vibe_tensor_batch(p->gate, b, 1);
        out->product.gate = &out->gate;
    }
}

static void multiply_each(struct vibe_stream *s,
                          const struct vibe_cuda_product *p)
{
    for (size_t b = 0; b < p->x->B; b++) {
        struct vibe_cuda_dialogue one;

        vibe_cuda_dialogue_open(&one, p, b);
        multiply_few_rows(s, &one.product);
    }
}

/* Likewise on tensor cores, where there are some for these weights. */
static void multiply_few_rows(struct vibe_stream *s,
                              const struct vibe_cuda_product *p)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    const size_t M = p->x->B * p->x->T;
    float *partial = NULL;
    size_t bytes;

    if (is_for_tensor_cores(p->x)) {
        vibe_cuda_latch(s,
                        M > VIBE_CUDA_GEMV_ROWS ? vibe_cuda_gemv_async(cuda, p)
                                                : vibe_cuda_gemv(cuda, p, 0, M),
                        "linear");
        return;
    }
    if (!has_few_rows(cuda, p->w) || !is_even(p->x)) {
        if (p->w->part[0].is_tiled)
            vibe_cuda_multiply_expanded(s, p, vibe_cuda_linear);
        else
            multiply_plainly(s, p);
        return;
    }
    if (vibe_cuda_is_tile(p)) {
        vibe_cuda_latch(s, vibe_cuda_gemv_tile(cuda, p), "linear");
        return;
    }
    /* scratch is not for what runs beside others */
    if (M <= VIBE_CUDA_GEMV_ROWS ||
        (cuda->compute == cuda->beside && vibe_cuda_gemv_wide_bytes(cuda, p))) {
        multiply_in_groups(s, p, VIBE_CUDA_GEMV_ROWS, vibe_cuda_gemv);
        return;
    }
    if (!vibe_cuda_is_regular(p->x) && p->x->T > VIBE_CUDA_WIDE_ROWS) {
        multiply_each(s, p);
        return;
    }
    bytes = vibe_cuda_gemv_wide_bytes(cuda, p);
    if (bytes)
        partial = vibe_cuda_scratch(s, bytes);
    if (partial || !bytes)
        vibe_cuda_latch(s, vibe_cuda_gemv_wide(cuda, p, partial), "linear");
}

/* Whether gemv takes x woven, or in digits. */
static int is_woven_for_few(const struct vibe_cuda_product *p)
{
    return p->x->B * p->x->T <= VIBE_CUDA_GEMV_ROWS &&
           vibe_cuda_is_banded(p->w) && is_even(p->x) && !vibe_cuda_is_tile(p);
}

static int is_in_digits_for_few(const struct vibe_cuda *cuda,
                                const struct vibe_cuda_product *p)
{
    const size_t M = p->x->B * p->x->T;

    return p->w->part[0].dtype == VIBE_I4 && M <= VIBE_CUDA_GEMV_ROWS &&
           is_even(p->x) && !vibe_cuda_is_tile(p) &&
           vibe_cuda_gemv_takes_digits(cuda, p->w, M);
}

/* Of what would otherwise be a few rows, too: they have the same bits. */
enum vibe_form vibe_cuda_form(const struct vibe_backend *be,
                              const struct vibe_tensor *x,
                              const struct vibe_matrix *w)
{
    const struct vibe_cuda *cuda = vibe_cuda_of(be);
    const struct vibe_cuda_product p = {.x = x, .w = w};

    if (x->T > LT_T || w->whole_N <= VIBE_CUDA_FEW || w->K <= VIBE_CUDA_THIN ||
        !has_tensor_cores(cuda, w->part[0].dtype))
        return x->form;
    if (is_woven_for_few(&p) || vibe_cuda_can_async(&p))
        return VIBE_FORM_WOVEN;
    return is_in_digits_for_few(cuda, &p) ? VIBE_FORM_DIGITS : x->form;
}

unsigned vibe_cuda_linear_forms(const struct vibe_backend *be,
                                const struct vibe_tensor *x,
                                const struct vibe_matrix *w)
{
    (void)be;
    (void)w;
    return x->form == VIBE_FORM_WOVEN ? 1 << VIBE_FORM_WOVEN : 0;
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

/* Whether the library is worth rounding x for, and expanding weights. */
static int is_for_library(const struct vibe_cuda *cuda,
                          const struct vibe_cuda_product *p)
{
    const enum vibe_dtype dtype = p->w->part[0].dtype;
    const size_t T = p->x->T;

    if (cuda->base.is_exact || T > MAX_GRID_Y ||
        p->w->whole_N * p->w->K < LT_WEIGHTS)
        return 0;
    return (dtype == VIBE_BF16 && T > LT_T) ||
           (dtype != VIBE_F32 && dtype != VIBE_F16 && T >= EXPAND_T);
}

/* Whether tiles of a few rows each are best: the matrices of a codec. */
static int is_columns(const struct vibe_cuda *cuda,
                      const struct vibe_cuda_product *p)
{
    const struct vibe_tensor *x = p->x;
    const size_t n_weights = p->w->whole_N * p->w->K;

    return x->T >= PLAIN_T && x->T <= COLUMNS_T &&
           p->w->part[0].dtype == VIBE_BF16 && p->w->whole_N > VIBE_CUDA_FEW &&
           n_weights <= COLUMNS_WEIGHTS && p->w->K % 4 == 0 &&
           (size_t)x->data % 16 == 0 && x->stride_b % 4 == 0 &&
           x->stride_t % 4 == 0 && has_tensor_cores(cuda, VIBE_BF16) &&
           !is_for_library(cuda, p);
}

static void multiply_columns(struct vibe_stream *s,
                             const struct vibe_cuda_product *p)
{
    const struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    const size_t bytes = vibe_cuda_columns_bytes(cuda, p);
    float *partial = bytes ? vibe_cuda_scratch(s, bytes) : NULL;

    if (partial || !bytes)
        vibe_cuda_latch(s, vibe_cuda_columns(cuda, p, partial), "gemm");
}

/* Whether many rows are made from little, or little of them. */
static int is_little(const struct vibe_cuda_product *p)
{
    return p->x->T > GEMV_T && !p->w->part[0].is_tiled &&
           (p->w->whole_N <= VIBE_CUDA_FEW || p->w->K <= VIBE_CUDA_THIN);
}

static void multiply_little(struct vibe_stream *s,
                            const struct vibe_cuda_product *p)
{
    const struct vibe_cuda *cuda = vibe_cuda_of(s->be);

    vibe_cuda_latch(s,
                    p->w->whole_N <= VIBE_CUDA_FEW ? vibe_cuda_few(cuda, p)
                                                   : vibe_cuda_thin(cuda, p),
                    "gemm");
}

/* Whether it is bound by reading the weights, once for all rows: a few of each
 * dialogue, as the modulations of its steps or a short prompt.  Packed weights
 * go the way of bf16, whose bits they give. */
static int is_rows(const struct vibe_cuda *cuda,
                   const struct vibe_cuda_product *p)
{
    const struct vibe_matrix *w = p->w;

    if (w->part[0].dtype == VIBE_BF16_PACKED &&
        w->whole_N * w->K <= COLUMNS_WEIGHTS)
        return 0;
    return p->x->T <= LT_T && w->whole_N > VIBE_CUDA_FEW &&
           w->K > VIBE_CUDA_THIN && is_even(p->x) && has_few_rows(cuda, w);
}

/* Weights of fewer bits are quick to read and slow to widen: there more warps
 * at work are worth reading them again for every 32 rows. */
static void multiply_rows(struct vibe_stream *s,
                          const struct vibe_cuda_product *p)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    const enum vibe_dtype dtype = p->w->part[0].dtype;

    if (dtype != VIBE_BF16 && dtype != VIBE_BF16_PACKED) {
        multiply_few_rows(s, p);
        return;
    }
    if (vibe_cuda_is_regular(p->x)) {
        vibe_cuda_latch(s, vibe_cuda_gemv_rows(cuda, p), "gemm");
        return;
    }
    for (size_t b = 0; b < p->x->B; b++) {
        struct vibe_cuda_dialogue one;

        vibe_cuda_dialogue_open(&one, p, b);
        vibe_cuda_latch(s, vibe_cuda_gemv_rows(cuda, &one.product), "gemm");
    }
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
    if (x->T < PLAIN_T || is_for_tensor_cores(x)) {
        vibe_cuda_linear(s, y, x, w, epilogue, gate);
        return;
    }
    if (is_columns(cuda, &p)) {
        multiply_columns(s, &p);
        return;
    }
    if (is_rows(cuda, &p)) {
        multiply_rows(s, &p);
        return;
    }
    if (x->T <= GEMV_T && !w->part[0].is_tiled) {
        multiply_plainly(s, &p);
        return;
    }
    if (is_little(&p)) {
        multiply_little(s, &p);
        return;
    }
    if (is_for_library(cuda, &p) && vibe_cuda_multiply_by_library(s, &p) == 0)
        return;
    if (w->part[0].is_tiled)
        vibe_cuda_multiply_expanded(s, &p, vibe_cuda_gemm);
    else if (has_tensor_cores(cuda, dtype))
        multiply_on_tensor_cores(s, &p);
    else
        vibe_cuda_latch(s, vibe_cuda_ffma(cuda, &p), "gemm");
}

/* Whether columns, or rows of little, are read where a window's past and chunk
 * are. */
static int reads_window(const struct vibe_cuda *cuda,
                        const struct vibe_cuda_product *p)
{
    const struct vibe_window *of = p->window;
    const struct vibe_tensor *x = of->x;

    if (of->win->T != of->past->T + x->T || x->stride_t != x->C ||
        of->past->stride_t != x->C)
        return 0;
    if (p->x->T >= PLAIN_T && is_columns(cuda, p))
        return is_even(x) && is_even(of->past) && is_even(of->state) &&
               vibe_cuda_columns_read_window(cuda, p);
    return is_little(p);
}

/* T of one dialogue says how, so that a dialogue gets the same bits however
 * many others run beside it. */
void vibe_cuda_conv(struct vibe_stream *s, const struct vibe_tensor *y,
                    const struct vibe_tensor *rows, const struct vibe_matrix *w,
                    const struct vibe_window *window)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    const struct vibe_cuda_product p = {
        .y = y,
        .x = rows,
        .w = w,
        .epilogue = VIBE_STORE,
        .window = window,
    };

    if (reads_window(cuda, &p)) {
        if (is_columns(cuda, &p))
            multiply_columns(s, &p);
        else
            multiply_little(s, &p);
        return;
    }
    vibe_cuda_latch(s,
                    vibe_cuda_window(cuda->compute, window->win, window->state,
                                     window->past, window->x),
                    "window");
    if (s->err.code == VIBE_OK)
        vibe_cuda_gemm(s, y, rows, w, VIBE_STORE, NULL);
}
