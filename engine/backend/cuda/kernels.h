/*
 * kernels.h - launchers: shape arithmetic, one launch, its error code.
 *
 * Tensors are the caller's, checked in ops.c; pointers are device memory.
 * Everything is enqueued on stream and returns at once.
 */
#ifndef VIBE_CUDA_KERNELS_H
#define VIBE_CUDA_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#include "engine/backend/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

struct vibe_cuda;

/* y = rmsnorm(x; w, eps) * (1 + scale) + shift; w, scale and shift (both or
 * neither) may be NULL. */
cudaError_t vibe_cuda_norm(cudaStream_t stream, const struct vibe_tensor *y,
                           const struct vibe_tensor *x, const float *w,
                           float eps, const struct vibe_tensor *shift,
                           const struct vibe_tensor *scale);

unsigned vibe_cuda_norm_forms(const struct vibe_backend *be,
                              const struct vibe_tensor *y);

cudaError_t vibe_cuda_add_silu(cudaStream_t stream, const struct vibe_tensor *y,
                               const struct vibe_tensor *a,
                               const struct vibe_tensor *b);
cudaError_t vibe_cuda_affine(cudaStream_t stream, const struct vibe_tensor *y,
                             const struct vibe_tensor *x, float mul, float add);
cudaError_t vibe_cuda_copy(cudaStream_t stream, const struct vibe_tensor *y,
                           const struct vibe_tensor *x);
cudaError_t vibe_cuda_zero(cudaStream_t stream, const struct vibe_tensor *y);

/* A step from v.  solve is the whole op, for what can_solve allows: weights of
 * 8 or 16 bits without bias, rows of up to 4096 channels aligned to 16
 * bytes. */
cudaError_t vibe_cuda_solver_step(cudaStream_t stream,
                                  const struct vibe_solver *solver,
                                  const struct vibe_solver_coef *coef);
int vibe_cuda_can_solve(const struct vibe_tensor *u,
                        const struct vibe_norm *norm,
                        const struct vibe_matrix *w);
cudaError_t vibe_cuda_solve(cudaStream_t stream,
                            const struct vibe_solver *solver,
                            const struct vibe_solver_coef *coef,
                            const struct vibe_tensor *u,
                            const struct vibe_norm *norm,
                            const struct vibe_matrix *w);

cudaError_t vibe_cuda_noise(cudaStream_t stream, const struct vibe_tensor *x,
                            const struct vibe_noise_key *keys);

/* The op (attention_ops.c), by the kernels that follow. */
unsigned vibe_cuda_attention_forms(const struct vibe_backend *be,
                                   const struct vibe_tensor *y,
                                   const struct vibe_tensor *qkv,
                                   const struct vibe_kv *kv);
void vibe_cuda_attention(struct vibe_stream *s, const struct vibe_tensor *y,
                         const struct vibe_tensor *qkv,
                         const struct vibe_kv *kv, size_t layer,
                         const struct vibe_rows *rows,
                         const struct vibe_rope *rope);

/* Rotate q in place, store k and v, as vibe_attention begins. */
cudaError_t vibe_cuda_rope(cudaStream_t stream, const struct vibe_tensor *qkv,
                           const struct vibe_kv *kv, size_t layer,
                           const struct vibe_rows *rows,
                           const struct vibe_rope *rope);

/*
 * Attention of rows that vibe_cuda_rope has rotated and stored.
 *
 *   scratch   as much as the function before says; 0 for a prompt
 */
size_t vibe_cuda_attend_scratch(const struct vibe_tensor *qkv,
                                const struct vibe_kv *kv);
cudaError_t vibe_cuda_attend(const struct vibe_cuda *cuda,
                             const struct vibe_tensor *y,
                             const struct vibe_tensor *qkv,
                             const struct vibe_kv *kv, size_t layer,
                             const struct vibe_rows *rows, float *scratch);

/*
 * The same on tensor cores, for a bf16 or e4m3 cache with heads of 64 or 128
 * channels and blocks of whole tiles of 32 positions; rows are aligned to 16
 * bytes.  A step (T = 1), of up to 8 query heads for a KV head, rotates and
 * stores its rows itself.
 *
 *   mail   as many bytes as the function before says, ones before and after;
 *          enough for a row of each sequence
 */
enum { VIBE_CUDA_STEP_HEADS = 8, VIBE_CUDA_PROMPT_TILE = 32 };
cudaError_t vibe_cuda_attend_prompt(cudaStream_t stream,
                                    const struct vibe_tensor *y,
                                    const struct vibe_tensor *qkv,
                                    const struct vibe_kv *kv, size_t layer,
                                    const struct vibe_rows *rows);
size_t vibe_cuda_attend_step_mail(const struct vibe_cuda *cuda,
                                  const struct vibe_tensor *qkv,
                                  const struct vibe_kv *kv);
cudaError_t vibe_cuda_attend_step(const struct vibe_cuda *cuda,
                                  const struct vibe_tensor *y,
                                  const struct vibe_tensor *qkv,
                                  const struct vibe_kv *kv, size_t layer,
                                  const struct vibe_rows *rows,
                                  const struct vibe_rope *rope, void *mail);

cudaError_t vibe_cuda_window(cudaStream_t stream, const struct vibe_tensor *win,
                             const struct vibe_tensor *state,
                             const struct vibe_tensor *past,
                             const struct vibe_tensor *x);

/* Up to 4096 channels, or 2048 if they are no multiple of 4; weights are
 * aligned to 16 bytes. */
cudaError_t vibe_cuda_mixer(cudaStream_t stream, const struct vibe_tensor *y,
                            const struct vibe_tensor *normed,
                            const struct vibe_tensor *state,
                            const struct vibe_tensor *past,
                            const struct vibe_tensor *x,
                            const struct vibe_mixer *w);

/* Whether this build has code for the current GPU. */
cudaError_t vibe_cuda_find_kernel(void);

/* The op for rows of 32, 64 or 128 channels, all aligned to 16 bytes, H = 4 C
 * and bf16 weights without scales, on tensor cores; for as many calls in one
 * kernel as _at_once says, of those from the first on. */
size_t vibe_cuda_blocks_at_once(const struct vibe_cuda *cuda,
                                const struct vibe_block_call *calls, size_t n);
cudaError_t vibe_cuda_block(const struct vibe_cuda *cuda,
                            const struct vibe_block_call *calls, size_t n,
                            const struct vibe_tensor *normed);

/* The op for many rows of 256 channels, likewise, where _can_ says so. */
int vibe_cuda_can_wide_block(const struct vibe_cuda *cuda,
                             const struct vibe_block_call *call);
cudaError_t vibe_cuda_wide_block(const struct vibe_cuda *cuda,
                                 const struct vibe_block_call *call);

/* The first half of the op, which leaves room->hidden, y mixed and the state,
 * where _is_ says so: for a few columns of 256, 512 or 1024 channels of one
 * dialogue, all aligned to 16 bytes, bf16 weights without scales, and hidden
 * dense and for products.  next is the call behind this one, alike, or
 * NULL. */
bool vibe_cuda_is_mixed_up(const struct vibe_cuda *cuda,
                           const struct vibe_block_call *call);
cudaError_t vibe_cuda_mixed_up(const struct vibe_cuda *cuda,
                               const struct vibe_block_call *call,
                               const struct vibe_block_call *next,
                               const struct vibe_block_room *room);

/* Read n_bytes, a multiple of 32 KiB; *out may be anything afterwards. */
cudaError_t vibe_cuda_read_all(cudaStream_t stream, const void *data,
                               size_t n_bytes, unsigned *out);

/*
 * Store a few bytes of the host's, taken when the call returns, without a copy
 * engine: there they would wait for the weights that are on their way.
 */
enum { VIBE_CUDA_STORE_BYTES = 1024 };
int vibe_cuda_can_store(const void *device, size_t bytes);
cudaError_t vibe_cuda_store(cudaStream_t stream, void *device, const void *host,
                            size_t bytes);

#ifdef __cplusplus
}
#endif

#endif /* VIBE_CUDA_KERNELS_H */
