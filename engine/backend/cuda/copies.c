/* copies.c - when copies ran, for a timeline, and how long they were waited
 * for. */
#include <pthread.h>
#include <stdlib.h>

#include "engine/backend/cuda/device.h"

enum { N_PAIRS = 1024 }; /* on their way; those beyond are not timed */

struct pair {
    cudaEvent_t begin, end; /* made when first used */
    size_t waiter;          /* of a wait */
};

struct vibe_cuda_spans {
    pthread_mutex_t lock; /* whoever fills buffers copies */
    struct pair pairs[N_PAIRS];
    size_t n, n_told; /* ever; span i is pairs[i % N_PAIRS] */
    size_t waiter;    /* of waits to come */
};

static struct vibe_cuda_spans *open_spans(void)
{
    struct vibe_cuda_spans *spans = calloc(1, sizeof(*spans));

    if (spans)
        pthread_mutex_init(&spans->lock, NULL);
    return spans;
}

void vibe_cuda_spans_free(struct vibe_cuda_spans *spans)
{
    if (!spans)
        return;
    for (size_t i = 0; i < N_PAIRS; i++) {
        if (spans->pairs[i].begin)
            cudaEventDestroy(spans->pairs[i].begin);
        if (spans->pairs[i].end)
            cudaEventDestroy(spans->pairs[i].end);
    }
    pthread_mutex_destroy(&spans->lock);
    free(spans);
}

static cudaError_t record(cudaEvent_t *event, cudaStream_t stream)
{
    const cudaError_t rc = *event ? cudaSuccess : cudaEventCreate(event);

    return rc == cudaSuccess ? cudaEventRecord(*event, stream) : rc;
}

/* Where spans are timed, from here to end() under their lock. */
static struct pair *begin(struct vibe_cuda_spans *spans, cudaStream_t stream,
                          cudaError_t *rc)
{
    struct pair *pair = NULL;

    if (spans)
        pthread_mutex_lock(&spans->lock);
    if (spans && spans->n - spans->n_told < N_PAIRS)
        pair = &spans->pairs[spans->n++ % N_PAIRS];
    *rc = pair ? record(&pair->begin, stream) : cudaSuccess;
    return pair;
}

static void end(struct vibe_cuda_spans *spans, struct pair *pair,
                cudaStream_t stream, cudaError_t *rc)
{
    if (*rc == cudaSuccess && pair)
        *rc = record(&pair->end, stream);
    if (spans)
        pthread_mutex_unlock(&spans->lock);
}

cudaError_t vibe_cuda_send(struct vibe_cuda *cuda, void *device,
                           const void *host, size_t bytes)
{
    struct vibe_cuda_spans *copies = cuda->copies;
    cudaError_t rc;
    struct pair *pair = begin(copies, cuda->copy, &rc);

    if (rc == cudaSuccess)
        rc = cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice,
                             cuda->copy);
    end(copies, pair, cuda->copy, &rc);
    return rc;
}

cudaError_t vibe_cuda_wait(struct vibe_cuda *cuda, cudaEvent_t event)
{
    struct vibe_cuda_spans *waits = cuda->waits;
    cudaError_t rc;
    struct pair *pair = begin(waits, cuda->compute, &rc);

    if (pair)
        pair->waiter = waits->waiter;
    if (rc == cudaSuccess)
        rc = cudaStreamWaitEvent(cuda->compute, event, 0);
    end(waits, pair, cuda->compute, &rc);
    return rc;
}

void vibe_cuda_waited(struct vibe_cuda *cuda, double *seconds, size_t n,
                      size_t waiter)
{
    struct vibe_cuda_spans *waits;
    float ms = 0.0f;

    if (!cuda->waits)
        cuda->waits = open_spans();
    waits = cuda->waits;
    if (!waits)
        return; /* without memory nothing is told */
    waits->waiter = waiter;
    while (waits->n_told < waits->n) {
        const struct pair *pair = &waits->pairs[waits->n_told % N_PAIRS];

        if (cudaEventElapsedTime(&ms, pair->begin, pair->end)) {
            cudaGetLastError(); /* not yet is no error */
            break;
        }
        if (pair->waiter < n)
            seconds[pair->waiter] += 1e-3 * (double)ms;
        waits->n_told++;
    }
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
    struct vibe_cuda_spans *copies = cuda->copies;
    size_t n = 0;

    if (!copies) {
        cuda->copies = open_spans(); /* without memory nothing is told */
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
