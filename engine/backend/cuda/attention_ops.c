/* Attention: which kernels, by what the cache holds and whether rows are a step
 * or a prompt. */
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/matrix.h"

/* Whether rows can be moved by 16 bytes. */
static int is_even(const struct vibe_tensor *t)
{
    return (size_t)t->data % 16 == 0 && t->stride_b % 4 == 0 &&
           t->stride_t % 4 == 0;
}

static int suits_tensor_cores(const struct vibe_cuda *cuda,
                              const struct vibe_tensor *y,
                              const struct vibe_tensor *qkv,
                              const struct vibe_kv *kv)
{
    const size_t group = y->C / kv->head_dim / kv->n_kv_heads;

    return cuda->cc >= 80 && vibe_cuda_compiled_for() >= 80 &&
           (kv->dtype == VIBE_BF16 || kv->dtype == VIBE_F8_E4M3) &&
           (kv->head_dim == 64 || kv->head_dim == 128) &&
           kv->block_tokens % VIBE_CUDA_PROMPT_TILE == 0 &&
           (kv->block_tokens & (kv->block_tokens - 1)) == 0 &&
           (qkv->T > 1 || group <= VIBE_CUDA_STEP_HEADS) && is_even(y) &&
           is_even(qkv);
}

/* As steps are. */
unsigned vibe_cuda_attention_forms(const struct vibe_backend *be,
                                   const struct vibe_tensor *y,
                                   const struct vibe_tensor *qkv,
                                   const struct vibe_kv *kv)
{
    const int is_step = qkv->T == 1 &&
                        suits_tensor_cores(vibe_cuda_of(be), y, qkv, kv);

    return is_step ? VIBE_ALL_FORMS : 0;
}

void vibe_cuda_attention(struct vibe_stream *s, const struct vibe_tensor *y,
                         const struct vibe_tensor *qkv,
                         const struct vibe_kv *kv, size_t layer,
                         const struct vibe_rows *rows,
                         const struct vibe_rope *rope)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    const int is_tensor = suits_tensor_cores(cuda, y, qkv, kv);
    const int is_step = is_tensor && qkv->T == 1;
    size_t bytes = 0;
    void *room = NULL;
    cudaError_t rc = cudaSuccess;

    /* for steps that come after a prompt too, lest it grows in a capture */
    if (is_tensor)
        bytes = vibe_cuda_attend_step_mail(cuda, qkv, kv);
    else
        bytes = vibe_cuda_attend_scratch(qkv, kv);
    if (bytes)
        room = is_tensor ? vibe_cuda_mail(s, bytes)
                         : vibe_cuda_scratch(s, bytes);
    if (bytes && !room)
        return;

    if (!is_step)
        rc = vibe_cuda_rope(cuda->compute, qkv, kv, layer, rows, rope);
    if (rc == cudaSuccess && is_step)
        rc = vibe_cuda_attend_step(cuda, y, qkv, kv, layer, rows, rope, room);
    else if (rc == cudaSuccess && is_tensor)
        rc = vibe_cuda_attend_prompt(cuda->compute, y, qkv, kv, layer, rows);
    else if (rc == cudaSuccess)
        rc = vibe_cuda_attend(cuda, y, qkv, kv, layer, rows, room);
    vibe_cuda_latch(s, rc, "attention");
}
