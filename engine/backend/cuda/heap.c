/* The heaps of a GPU: its own memory, and the host's that it can read. */
#include "engine/backend/heap.h"

#include <stdint.h>

#include "engine/backend/cuda/device.h"

/* Kernels are loaded when they are first launched, cuBLASLt's with them. */
enum { LATER_BYTES = 64 << 20 };

/*
 * What is smaller comes and goes (blocks of keys and values, scratch) and lies
 * in the stream-ordered pool, which keeps what is freed until it is trimmed;
 * what was planned stays, and is taken to the byte.  A pool takes 32 MB with
 * the first byte, so it is opened after what every process has is there.
 */
static const size_t pooled_bytes = (size_t)256 << 20;

void vibe_cuda_pool_open(struct vibe_cuda *cuda)
{
    uint64_t keep = UINT64_MAX;
    int is_there = 0;

    if (cudaDeviceGetAttribute(&is_there, cudaDevAttrMemoryPoolsSupported,
                               cuda->device) == cudaSuccess &&
        is_there &&
        cudaDeviceGetDefaultMemPool(&cuda->pool, cuda->device) == cudaSuccess &&
        cudaMemPoolSetAttribute(cuda->pool, cudaMemPoolAttrReleaseThreshold,
                                &keep) == cudaSuccess)
        return;
    cudaGetLastError(); /* an old driver does without */
    cuda->pool = NULL;
}

static void *take_device(void *user, size_t bytes)
{
    struct vibe_cuda *cuda = user;
    void *memory = NULL;

    if (cuda->pool && bytes < pooled_bytes &&
        cudaMallocAsync(&memory, bytes, cuda->compute) == cudaSuccess &&
        cudaStreamSynchronize(cuda->compute) == cudaSuccess)
        return memory;
    if (cudaMalloc(&memory, bytes) == cudaSuccess)
        return memory;
    cudaGetLastError(); /* the refusal is no error of a later call */
    return NULL;
}

static void give_device(void *user, void *memory)
{
    (void)user;
    cudaFree(memory);
}

static void *take_host(void *user, size_t bytes)
{
    void *memory = NULL;

    (void)user;
    if (cudaHostAlloc(&memory, bytes, cudaHostAllocMapped) == cudaSuccess)
        return memory;
    cudaGetLastError();
    return NULL;
}

static void give_host(void *user, void *memory)
{
    (void)user;
    cudaFreeHost(memory);
}

int vibe_cuda_heaps_open(struct vibe_cuda *cuda, struct vibe_error *err)
{
    const struct vibe_heap_source device = {
        .take = take_device,
        .give = give_device,
        .user = cuda,
    };
    static const struct vibe_heap_source host = {
        .take = take_host,
        .give = give_host,
    };
    const int rc = vibe_heap_open(&cuda->heap, &device, err);

    return rc ? rc : vibe_heap_open(&cuda->host_heap, &host, err);
}

void vibe_cuda_heaps_free(struct vibe_cuda *cuda)
{
    vibe_heap_free(cuda->heap);
    vibe_heap_free(cuda->host_heap);
    cuda->heap = NULL;
    cuda->host_heap = NULL;
}

void *vibe_cuda_take(struct vibe_cuda *cuda, size_t bytes)
{
    vibe_backend_unsealed(&cuda->base);
    return vibe_heap_take(cuda->heap, bytes ? bytes : 1, cuda->base.purpose);
}

void *vibe_cuda_take_kept(struct vibe_cuda *cuda, size_t bytes)
{
    const enum vibe_purpose purpose = cuda->base.purpose;

    if (!(cuda->base.on_host >> purpose & 1))
        return vibe_cuda_take(cuda, bytes);
    return vibe_heap_take(cuda->host_heap, bytes ? bytes : 1, purpose);
}

void vibe_cuda_give(struct vibe_cuda *cuda, void *memory)
{
    vibe_backend_unsealed(&cuda->base);
    if (!memory)
        return;
    /* whoever takes it next must not meet work of the last owner */
    cudaDeviceSynchronize();
    if (vibe_heap_give(cuda->heap, memory))
        vibe_heap_give(cuda->host_heap, memory);
}

size_t vibe_cuda_free_bytes(const struct vibe_cuda *cuda)
{
    struct vibe_memory count = {0};
    size_t n = 0;
    size_t total = 0;

    if (cudaMemGetInfo(&n, &total) != cudaSuccess)
        cudaGetLastError();
    if (cuda->heap)
        vibe_heap_count(cuda->heap, &count);
    return n + count.taken - count.used;
}

static int reserve(struct vibe_backend *be, size_t bytes, size_t scratch,
                   struct vibe_error *err)
{
    struct vibe_cuda *cuda = vibe_cuda_of(be);

    if (vibe_heap_reserve(cuda->heap, bytes))
        return vibe_fail(
            err, VIBE_E_NOMEM, "%s: %zu MiB were planned, %zu MiB are free now",
            be->name, bytes >> 20, vibe_cuda_free_bytes(cuda) >> 20);
    be->purpose = VIBE_FOR_SCRATCH;
    cuda->scratch = vibe_cuda_take(cuda, scratch);
    cuda->scratch_bytes = cuda->scratch ? scratch : 0;
    be->purpose = VIBE_FOR_OTHER;
    return VIBE_OK;
}

static void rest(struct vibe_backend *be)
{
    struct vibe_cuda *cuda = vibe_cuda_of(be);

    vibe_cuda_give(cuda, cuda->prompt_scratch);
    cuda->prompt_scratch = NULL;
    cuda->prompt_scratch_bytes = 0;
    cuda->is_prompt_apart = 1;
}

static void count(const struct vibe_backend *be, struct vibe_memory *out)
{
    const struct vibe_cuda *cuda = vibe_cuda_of(be);

    vibe_heap_count(cuda->heap, out);
    out->context = cuda->context_bytes;
    out->later = LATER_BYTES;
}

static void trim(struct vibe_backend *be)
{
    struct vibe_cuda *cuda = vibe_cuda_of(be);

    if (cuda->pool && cudaMemPoolTrimTo(cuda->pool, 0) != cudaSuccess)
        cudaGetLastError(); /* what it keeps does no harm */
}

void vibe_cuda_heaps_init(struct vibe_ops *ops)
{
    ops->trim = trim;
    ops->reserve = reserve;
    ops->rest = rest;
    ops->memory = count;
}
