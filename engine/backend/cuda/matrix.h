/*
 * matrix.h - how a matrix lies on the GPU, and the products with it.
 *
 * A matrix is one allocation.  part[0] is all of it: N rows in the order of
 * the file, but gate and up of a pair take turns (row 2 j is gate j, 2 j + 1
 * up j), so that one warp has both halves of an output.  A row has
 * vibe_cuda_stride(K) elements of which those past K are zero.  Convolutions
 * are [N][taps][in] as on the CPU.  Four neighbours of float8 or int8 are a
 * word that is cheap to expand (lay_bytes in layout.c, byte_weights in
 * weights.cuh).  Bytes that can be cut into tiles of 16 rows and 64 columns
 * are in bands: tile by tile, row by row, so that few rows of x find them in
 * long pieces.  int4 and packed bf16 are in the tiles of backend/tiles.h, the
 * rows of pairs taking turns in them likewise.  bias, gamma and part[0].scale
 * are [N] in the order of rows; int8 and int4 always have
 * scales, 64 and 2^19 times those of the file: kernels multiply by as little.
 */
#ifndef VIBE_CUDA_MATRIX_H
#define VIBE_CUDA_MATRIX_H

#include <cuda_runtime_api.h>

#include "engine/backend/cuda/device.h"
#include "engine/backend/ops.h"
#include "engine/backend/tiles.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Elements from row to row: whole 16-byte loads in every dtype. */
static inline size_t vibe_cuda_stride(size_t K)
{
    return (K + 15) & ~(size_t)15;
}

/* Whether a matrix of that shape is in bands; whether one is. */
static inline int vibe_cuda_makes_bands(enum vibe_dtype dtype, size_t N,
                                        size_t K)
{
    return (dtype == VIBE_F8_E4M3 || dtype == VIBE_I8) &&
           N % VIBE_TILE_ROWS == 0 && K % VIBE_TILE_COLUMNS == 0;
}

static inline int vibe_cuda_is_banded(const struct vibe_matrix *w)
{
    return vibe_cuda_makes_bands(w->part[0].dtype, w->whole_N, w->K);
}

/* Rows first .. first + n - 1 of a matrix or piece; of tiles and bands, first
 * begins a group. */
struct vibe_matrix vibe_cuda_rows(const struct vibe_matrix *m, size_t first,
                                  size_t n);

int vibe_cuda_matrix_load(struct vibe_matrix *m, struct vibe_backend *be,
                          const struct vibe_matrix_source *src,
                          struct vibe_error *err);
void vibe_cuda_matrix_release(struct vibe_matrix *m, struct vibe_backend *be);

/* Release the buffers that loading works through. */
void vibe_cuda_staging_free(struct vibe_cuda *cuda);

/* vibe_linear, vibe_gemm and vibe_conv. */
enum vibe_form vibe_cuda_form(const struct vibe_backend *be,
                              const struct vibe_tensor *x,
                              const struct vibe_matrix *w);
unsigned vibe_cuda_linear_forms(const struct vibe_backend *be,
                                const struct vibe_tensor *x,
                                const struct vibe_matrix *w);
void vibe_cuda_linear(struct vibe_stream *s, const struct vibe_tensor *y,
                      const struct vibe_tensor *x, const struct vibe_matrix *w,
                      enum vibe_epilogue epilogue,
                      const struct vibe_tensor *gate);
void vibe_cuda_gemm(struct vibe_stream *s, const struct vibe_tensor *y,
                    const struct vibe_tensor *x, const struct vibe_matrix *w,
                    enum vibe_epilogue epilogue,
                    const struct vibe_tensor *gate);
void vibe_cuda_conv(struct vibe_stream *s, const struct vibe_tensor *y,
                    const struct vibe_tensor *rows, const struct vibe_matrix *w,
                    const struct vibe_window *window);

/* One product, for the launchers below. */
struct vibe_cuda_product {
    const struct vibe_tensor *y, *x;
    const struct vibe_tensor *gate; /* or NULL */
    const struct vibe_matrix *w;
    enum vibe_epilogue epilogue;
    const struct vibe_window *window; /* whose rows x are, but for its past,
                                         which is not in there; or NULL */
};

/* Whether rows lie evenly, those of one dialogue after those of another; how
 * far from each other those of one are, or all of them. */
static inline int vibe_cuda_is_regular(const struct vibe_tensor *x)
{
    return x->T == 1 || x->B == 1 || x->stride_b == x->T * x->stride_t;
}

static inline size_t vibe_cuda_row_step(const struct vibe_tensor *x)
{
    return x->T == 1 ? x->stride_b : x->stride_t;
}

/* One dialogue of a product.  product points to what is beside it, so that it
 * is not moved once it is open; it borrows all else. */
struct vibe_cuda_dialogue {
    struct vibe_tensor y, x, gate;
    struct vibe_cuda_product product;
};
void vibe_cuda_dialogue_open(struct vibe_cuda_dialogue *out,
                             const struct vibe_cuda_product *p, size_t b);

/* The product piece by piece of rows that are made bf16 in cuda->expanded, by
 * one of the above. */
typedef void vibe_cuda_multiply(struct vibe_stream *s,
                                const struct vibe_tensor *y,
                                const struct vibe_tensor *x,
                                const struct vibe_matrix *w,
                                enum vibe_epilogue epilogue,
                                const struct vibe_tensor *gate);
void vibe_cuda_multiply_expanded(struct vibe_stream *s,
                                 const struct vibe_cuda_product *p,
                                 vibe_cuda_multiply *multiply);

/*
 * y = epilogue(W x + bias) for rows first .. first + n_rows - 1 of B * T, in
 * one reading of the weights; gemv_wide for all rows, in one reading for each
 * VIBE_CUDA_WIDE_ROWS.
 *
 * gemv and gemv_wide need tensor cores (vibe_cuda_has_tensor_cores) and give
 * a row the same bits.  gemv takes x in digits where _takes_digits says so, for
 * so many rows; gemv_wide has the sums of slices of K meet in partial,
 * vibe_cuda_gemv_wide_bytes large.  gemv_async does the same for 17 rows or
 * more of 8-bit weights on sm_90a, where vibe_cuda_can_async says so, and
 * gemv_tile for all rows where K is one tile or two, as vibe_cuda_is_tile says.
 * gemv_plain is for every dtype and GPU.  gemv_rows, for all rows of bf16
 * weights, packed or not, has an order of sums of its own.
 */
enum {
    VIBE_CUDA_GEMV_ROWS = 4,
    VIBE_CUDA_WIDE_ROWS = 32,
    VIBE_CUDA_PLAIN_ROWS = 16,
};
cudaError_t vibe_cuda_gemv(const struct vibe_cuda *cuda,
                           const struct vibe_cuda_product *p, size_t first,
                           size_t n_rows);
int vibe_cuda_gemv_takes_digits(const struct vibe_cuda *cuda,
                                const struct vibe_matrix *w, size_t n_rows);
cudaError_t vibe_cuda_gemv_wide(const struct vibe_cuda *cuda,
                                const struct vibe_cuda_product *p,
                                float *partial);
size_t vibe_cuda_gemv_wide_bytes(const struct vibe_cuda *cuda,
                                 const struct vibe_cuda_product *p);
cudaError_t vibe_cuda_gemv_async(const struct vibe_cuda *cuda,
                                 const struct vibe_cuda_product *p);
int vibe_cuda_can_async(const struct vibe_cuda_product *p);
cudaError_t vibe_cuda_gemv_tile(const struct vibe_cuda *cuda,
                                const struct vibe_cuda_product *p);
int vibe_cuda_is_tile(const struct vibe_cuda_product *p);
cudaError_t vibe_cuda_gemv_rows(const struct vibe_cuda *cuda,
                                const struct vibe_cuda_product *p);
cudaError_t vibe_cuda_gemv_plain(const struct vibe_cuda *cuda,
                                 const struct vibe_cuda_product *p,
                                 size_t first, size_t n_rows);

/* For many rows.  split says in how many slices K is cut, by the matrix alone;
 * partial has room for split sums of every output of n_rows rounded up to 64
 * by N rounded up to 64, and may be NULL where split is 1. */
size_t vibe_cuda_mma_split(const struct vibe_matrix *w);
cudaError_t vibe_cuda_mma(const struct vibe_cuda *cuda,
                          const struct vibe_cuda_product *p, size_t first,
                          size_t n_rows, float *partial);

/* The same in float arithmetic, for every dtype and architecture. */
cudaError_t vibe_cuda_ffma(const struct vibe_cuda *cuda,
                           const struct vibe_cuda_product *p);

/* Likewise for bf16 weights and rows that are neither few nor many, such as the
 * columns of a codec, on tensor cores; the rows are all of x's.  Sums of parts
 * of K meet in partial, vibe_cuda_columns_bytes large.  A window is taken, and
 * its state left, where _read_window says so, there are no zeros behind x and
 * all of it is aligned to 16 bytes. */
size_t vibe_cuda_columns_bytes(const struct vibe_cuda *cuda,
                               const struct vibe_cuda_product *p);
cudaError_t vibe_cuda_columns(const struct vibe_cuda *cuda,
                              const struct vibe_cuda_product *p,
                              float *partial);
int vibe_cuda_columns_read_window(const struct vibe_cuda *cuda,
                                  const struct vibe_cuda_product *p);

/* For a matrix of a few rows, and for one of a few columns, that does not lie
 * in tiles. */
enum { VIBE_CUDA_FEW = 4, VIBE_CUDA_THIN = 8 };
cudaError_t vibe_cuda_few(const struct vibe_cuda *cuda,
                          const struct vibe_cuda_product *p);
cudaError_t vibe_cuda_thin(const struct vibe_cuda *cuda,
                           const struct vibe_cuda_product *p);

/* out[B * T][stride of K] = x rounded to bf16, zeros past K. */
cudaError_t vibe_cuda_round(const struct vibe_cuda *cuda, void *out,
                            const struct vibe_tensor *x);

/* out[N][stride of K] = w as bf16, without its scale; expand_tiles is what it
 * does with tiles. */
cudaError_t vibe_cuda_expand(const struct vibe_cuda *cuda, void *out,
                             const struct vibe_matrix *w);

cudaError_t vibe_cuda_expand_tiles(const struct vibe_cuda *cuda, void *out,
                                   const struct vibe_matrix *w);

/* y = epilogue of sums [B * T][N], which lack scale and bias. */
cudaError_t vibe_cuda_finish(const struct vibe_cuda *cuda,
                             const struct vibe_cuda_product *p,
                             const float *sums);

/* The same of VIBE_SWIGLU for bf16 sums [B * T][stride of N]. */
cudaError_t vibe_cuda_finish_pairs(const struct vibe_cuda *cuda,
                                   const struct vibe_cuda_product *p,
                                   const void *sums);

/* The architecture these kernels were compiled for, 90 for compute_90: it may
 * be older than the GPU, and then lacks its instructions.  0 on error. */
int vibe_cuda_compiled_for(void);

/* Where the library's sums go: [M][stride] f32 or bf16, aligned to
 * VIBE_CUDA_LT_ALIGNMENT bytes like its rows. */
struct vibe_cuda_lt_output {
    void *data;
    size_t stride;
    enum vibe_dtype dtype;
    const float *bias; /* [N] or NULL; to f32 only */
    int is_added;      /* to what is there */
};

/*
 * y [M][N] = x [M][stride of K] bf16 times the transpose of w, by cuBLASLt.
 *
 *   workspace   VIBE_CUDA_LT_WORKSPACE bytes
 *
 * Returns 1, with nothing done, where the library refuses; it must be there.
 */
enum { VIBE_CUDA_LT_WORKSPACE = 32 << 20, VIBE_CUDA_LT_ALIGNMENT = 16 };

int vibe_cuda_lt_is_there(struct vibe_cuda *cuda);
int vibe_cuda_lt_multiply(struct vibe_cuda *cuda,
                          const struct vibe_cuda_lt_output *y, const void *x,
                          size_t M, const struct vibe_matrix *w,
                          void *workspace);
void vibe_cuda_lt_free(struct vibe_cuda *cuda);

/* vibe_gemm of each dialogue by cuBLASLt.  Returns 1, with y as it was, where
 * there is no library or it refuses. */
int vibe_cuda_multiply_by_library(struct vibe_stream *s,
                                  const struct vibe_cuda_product *p);

#ifdef __cplusplus
}
#endif

#endif /* VIBE_CUDA_MATRIX_H */
