/* copies.c - when copies ran, for a timeline. */
#include <pthread.h>
#include <stdlib.h>

#include "engine/backend/cuda/device.h"

enum { N_PAIRS = 1024 }; /* copies on their way; those beyond are not timed */

struct pair {
    cudaEvent_t begin, end; /* made when first used */
};

struct vibe_cuda_copies {
    pthread_mutex_t lock; /* whoever fills buffers copies */
    struct pair pairs[N_PAIRS];
    size_t n, n_told; /* ever; copy i is pairs[i % N_PAIRS] */
};

static struct vibe_cuda_copies *open_copies(void)
{
    struct vibe_cuda_copies *copies = calloc(1, sizeof(*copies));

    if (copies)
        pthread_mutex_init(&copies->lock, NULL);
    return copies;
}

void vibe_cuda_copies_free(struct vibe_cuda *cuda)
{
    struct vibe_cuda_copies *copies = cuda->copies;

    cuda->copies = NULL;
    if (!copies)
        return;
    for (size_t i = 0; i < N_PAIRS; i++) {
        if (copies->pairs[i].begin)
            cudaEventDestroy(copies->pairs[i].begin);
        if (copies->pairs[i].end)
            cudaEventDestroy(copies->pairs[i].end);
    }
    pthread_mutex_destroy(&copies->lock);
    free(copies);
}

static cudaError_t record(cudaEvent_t *event, cudaStream_t stream)
{
    const cudaError_t rc = *event ? cudaSuccess : cudaEventCreate(event);

    return rc == cudaSuccess ? cudaEventRecord(*event, stream) : rc;
}

cudaError_t vibe_cuda_send(struct vibe_cuda *cuda, void *device,
                           const void *host, size_t bytes)
{
    struct vibe_cuda_copies *copies = cuda->copies;
    struct pair *pair = NULL;
    cudaError_t rc = cudaSuccess;

    if (copies) {
        pthread_mutex_lock(&copies->lock);
        if (copies->n - copies->n_told < N_PAIRS)
            pair = &copies->pairs[copies->n++ % N_PAIRS];
    }
    if (pair)
        rc = record(&pair->begin, cuda->copy);
    if (rc == cudaSuccess)
        rc = cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice,
                             cuda->copy);
    if (rc == cudaSuccess && pair)
        rc = record(&pair->end, cuda->copy);
    if (copies)
        pthread_mutex_unlock(&copies->lock);
    return rc;
}

/* Both ends from the last mark 0 on; copies before it are at negative times.
 * Returns 0 where the copy has not ended. */
static int look(const struct vibe_cuda *cuda, struct vibe_span *out,
                const struct pair *pair)
{
    float begin_ms = 0.0f;
    float end_ms = 0.0f;

    if (!cuda->marks[0] ||
        cudaEventElapsedTime(&begin_ms, cuda->marks[0], pair->begin) ||
        cudaEventElapsedTime(&end_ms, cuda->marks[0], pair->end)) {
        cudaGetLastError(); /* not yet is no error */
        return 0;
    }
    out->begin_s = cuda->mark0_s + 1e-3 * (double)begin_ms;
    out->end_s = cuda->mark0_s + 1e-3 * (double)end_ms;
    return 1;
}

static size_t copied(struct vibe_backend *be, struct vibe_span *out, size_t max)
{
    struct vibe_cuda *cuda = vibe_cuda_of(be);
    struct vibe_cuda_copies *copies = cuda->copies;
    size_t n = 0;

    if (!copies) {
        cuda->copies = open_copies(); /* without memory nothing is told */
        return 0;
    }
    pthread_mutex_lock(&copies->lock);
    while (n < max && copies->n_told < copies->n &&
           look(cuda, &out[n], &copies->pairs[copies->n_told % N_PAIRS])) {
        copies->n_told++;
        n++;
    }
    pthread_mutex_unlock(&copies->lock);
    return n;
}

void vibe_cuda_copies_init(struct vibe_ops *ops)
{
    ops->copied = copied;
}
