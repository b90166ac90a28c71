/*
 * chain.h - blocks of one wide column, one after the other in one kernel.
 */
#ifndef VIBE_CUDA_CHAIN_H
#define VIBE_CUDA_CHAIN_H

#include <cuda_runtime_api.h>

#include "engine/backend/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { VIBE_CUDA_CHAIN = 8 }; /* blocks, at most */

struct vibe_cuda;

/* Whether they are blocks of one column of 2048 channels, with bf16 weights,
 * and this GPU is one for the kernel. */
int vibe_cuda_can_chain(const struct vibe_cuda *cuda,
                        const struct vibe_block_call *calls, size_t n);

/*
 * vibe_blocks of such; tensors are aligned to 16 bytes.
 *
 *   mail   so many bytes of ones, which are ones again after it
 */
size_t vibe_cuda_chain_mail(const struct vibe_block_call *calls, size_t n);
cudaError_t vibe_cuda_chain(const struct vibe_cuda *cuda,
                            const struct vibe_block_call *calls, size_t n,
                            void *mail);

#ifdef __cplusplus
}
#endif

#endif /* VIBE_CUDA_CHAIN_H */
