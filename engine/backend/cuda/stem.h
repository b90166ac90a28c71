/*
 * stem.h - the widest blocks of a codec for a column each of several dialogues.
 */
#ifndef VIBE_CUDA_STEM_H
#define VIBE_CUDA_STEM_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#include "engine/backend/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

struct vibe_cuda;

/* Whether they are blocks of 5 to 16 columns of 2048 channels, with bf16
 * weights, and this GPU is one for the kernels. */
bool vibe_cuda_can_stem(const struct vibe_block_call *calls, size_t n);

/*
 * vibe_blocks of such; tensors are aligned to 16 bytes.
 *
 *   scratch   vibe_cuda_stem_bytes
 */
size_t vibe_cuda_stem_bytes(void);
cudaError_t vibe_cuda_stem(const struct vibe_cuda *cuda,
                           const struct vibe_block_call *calls, size_t n,
                           void *scratch);

#ifdef __cplusplus
}
#endif

#endif /* VIBE_CUDA_STEM_H */
