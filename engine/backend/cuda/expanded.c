/* Products with tiles that no kernel reads: their rows are made bf16, as many
 * at a time as there is room for. */
#include "engine/backend/cuda/matrix.h"
#include "engine/backend/tiles.h"

/* Room for rows of bf16; NULL after latching an error. */
static char *take_room(struct vibe_stream *s, size_t bytes)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    const enum vibe_purpose purpose = cuda->base.purpose;

    if (bytes <= cuda->expanded_bytes)
        return cuda->expanded;
    vibe_cuda_give(cuda, cuda->expanded);
    cuda->base.purpose = VIBE_FOR_SCRATCH;
    cuda->expanded = vibe_cuda_take(cuda, bytes);
    cuda->base.purpose = purpose;
    cuda->expanded_bytes = cuda->expanded ? bytes : 0;
    if (!cuda->expanded)
        vibe_cuda_latch(s, cudaErrorMemoryAllocation, "memory for weights");
    return cuda->expanded;
}

/* Rows that fit: pieces of a matrix are as good as it. */
static size_t rows_at_once(size_t bytes, size_t K)
{
    const size_t row = vibe_cuda_stride(K) * vibe_dtype_size(VIBE_BF16);

    return bytes / row / VIBE_MATRIX_UNIT * VIBE_MATRIX_UNIT;
}

/* Expand rows; kernels that read weights before the one ahead of them has ended
 * (launch.cuh) do not pass what is no kernel. */
static cudaError_t expand(const struct vibe_cuda *cuda, char *room,
                          struct vibe_matrix *rows)
{
    cudaError_t rc = vibe_cuda_expand_tiles(cuda, room, rows);

    if (rc == cudaSuccess) /* zeros that are there already */
        rc = cudaMemsetAsync(cuda->done, 0, sizeof(*cuda->done), cuda->compute);
    rows->part[0].data = room;
    rows->part[0].dtype = VIBE_BF16;
    rows->part[0].is_tiled = 0;
    return rc;
}

void vibe_cuda_multiply_expanded(struct vibe_stream *s,
                                 const struct vibe_cuda_product *p,
                                 vibe_cuda_multiply *multiply)
{
    const size_t by = p->epilogue == VIBE_SWIGLU ? 2 : 1;
    const size_t bytes = vibe_tiles_room(p->w->whole_N, p->w->K);
    const size_t most = rows_at_once(bytes, p->w->K);
    char *room = take_room(s, bytes);

    if (room && !most)
        vibe_cuda_latch(s, cudaErrorInvalidValue, "long rows of tiles");
    for (size_t first = 0; first < p->w->N && !s->err.code; first += most) {
        const size_t left = p->w->N - first;
        const size_t n = left < most ? left : most;
        struct vibe_matrix rows = vibe_cuda_rows(p->w, first, n);
        const struct vibe_tensor y = vibe_tensor_channels(p->y, first / by,
                                                          n / by);
        struct vibe_tensor gate = {0};

        if (p->gate)
            gate = vibe_tensor_channels(p->gate, first, n);
        vibe_cuda_latch(s, expand(vibe_cuda_of(s->be), room, &rows), "linear");
        if (!s->err.code)
            multiply(s, &y, p->x, &rows, p->epilogue, p->gate ? &gate : NULL);
    }
}
