/*
 * kernels.h - launchers: shape arithmetic, one launch, its error code.
 *
 * Tensors are the caller's, checked in ops.c; pointers are device memory.
 * Everything is enqueued on stream and returns at once.
 */
#ifndef VIBE_CUDA_KERNELS_H
#define VIBE_CUDA_KERNELS_H

#include <cuda_runtime_api.h>

#include "engine/backend/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y = rmsnorm(x; w, eps) * (1 + scale) + shift; w, scale and shift (both or
 * neither) may be NULL. */
cudaError_t vibe_cuda_norm(cudaStream_t stream, const struct vibe_tensor *y,
                           const struct vibe_tensor *x, const float *w,
                           float eps, const struct vibe_tensor *shift,
                           const struct vibe_tensor *scale);

cudaError_t vibe_cuda_add_silu(cudaStream_t stream, const struct vibe_tensor *y,
                               const struct vibe_tensor *a,
                               const struct vibe_tensor *b);
cudaError_t vibe_cuda_affine(cudaStream_t stream, const struct vibe_tensor *y,
                             const struct vibe_tensor *x, float mul, float add);
cudaError_t vibe_cuda_copy(cudaStream_t stream, const struct vibe_tensor *y,
                           const struct vibe_tensor *x);
cudaError_t vibe_cuda_zero(cudaStream_t stream, const struct vibe_tensor *y);
cudaError_t vibe_cuda_solver_step(cudaStream_t stream,
                                  const struct vibe_tensor *x,
                                  const struct vibe_tensor *m1,
                                  const struct vibe_tensor *v,
                                  const float *cfg_scale,
                                  const struct vibe_solver_coef *coef);
cudaError_t vibe_cuda_noise(cudaStream_t stream, const struct vibe_tensor *x,
                            const struct vibe_noise_key *keys);

cudaError_t vibe_cuda_rope(cudaStream_t stream, const struct vibe_tensor *qkv,
                           const struct vibe_kv *kv, size_t layer,
                           const struct vibe_rows *rows, const float *inv_freq);

/* Bytes of scratch that attention needs for these rows; 0 for a prompt. */
size_t vibe_cuda_attention_scratch(const struct vibe_tensor *qkv,
                                   const struct vibe_kv *kv);

/*
 *   scratch   as much as said above
 *   done      [B * n_kv_heads] counters, zero before and after
 *   n_sm      multiprocessors
 */
cudaError_t vibe_cuda_attention(cudaStream_t stream,
                                const struct vibe_tensor *y,
                                const struct vibe_tensor *qkv,
                                const struct vibe_kv *kv, size_t layer,
                                const struct vibe_rows *rows, float *scratch,
                                unsigned *done, int n_sm);

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

/* Read n_bytes, a multiple of 16, and leave a trace of them in *out. */
cudaError_t vibe_cuda_read_all(cudaStream_t stream, const void *data,
                               size_t n_bytes, unsigned *out, int n_sm);

#ifdef __cplusplus
}
#endif

#endif /* VIBE_CUDA_KERNELS_H */
