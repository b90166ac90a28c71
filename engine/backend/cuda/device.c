/* Opening a GPU, and what CUDA's errors are called here. */
#include "engine/backend/cuda/device.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/backend/cuda.h"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/matrix.h"
#include "engine/backend/cuda/nvml.h"

int vibe_cuda_fail(struct vibe_error *err, cudaError_t rc, const char *what)
{
    return vibe_fail(
        err, rc == cudaErrorMemoryAllocation ? VIBE_E_NOMEM : VIBE_E_DEVICE,
        "CUDA: %s: %s", what, cudaGetErrorString(rc));
}

void vibe_cuda_latch(struct vibe_stream *s, cudaError_t rc, const char *op)
{
    if (rc != cudaSuccess && s->err.code == VIBE_OK)
        vibe_cuda_fail(&s->err, rc, op);
}

/* Have at least this much memory of a kind that is needed again and again;
 * returns whether it was taken now. */
static int grow(struct vibe_stream *s, void **memory, size_t *has, size_t bytes,
                enum vibe_purpose as, const char *what)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    const enum vibe_purpose purpose = cuda->base.purpose;

    if (bytes <= *has)
        return 0;
    vibe_cuda_give(cuda, *memory);
    cuda->base.purpose = as;
    *memory = vibe_cuda_take(cuda, bytes);
    cuda->base.purpose = purpose;
    *has = *memory ? bytes : 0;
    if (!*memory)
        vibe_cuda_latch(s, cudaErrorMemoryAllocation, what);
    return *memory != NULL;
}

void *vibe_cuda_scratch(struct vibe_stream *s, size_t bytes)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    const int is_apart = cuda->is_prompt_apart && cuda->base.is_reading;
    void **scratch = is_apart ? &cuda->prompt_scratch : &cuda->scratch;
    size_t *has = is_apart ? &cuda->prompt_scratch_bytes : &cuda->scratch_bytes;

    grow(s, scratch, has, bytes, is_apart ? VIBE_FOR_PROMPT : VIBE_FOR_SCRATCH,
         "scratch memory");
    return *scratch;
}

void *vibe_cuda_mail(struct vibe_stream *s, size_t bytes)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);

    if (grow(s, &cuda->mail, &cuda->mail_bytes, bytes, VIBE_FOR_SCRATCH,
             "mail between blocks")) {
        vibe_cuda_latch(s, cudaMemset(cuda->mail, 0xFF, bytes), "blank mail");
        vibe_cuda_latch(s, cudaStreamSynchronize(cudaStreamLegacy),
                        "blank mail");
    }
    return cuda->mail;
}

int vibe_cuda_check_driver(struct vibe_error *err)
{
    int driver = 0;
    int n = 0;
    cudaError_t rc = cudaDriverGetVersion(&driver);

    if (rc != cudaSuccess || driver == 0)
        return vibe_fail(err, VIBE_E_DEVICE, "no NVIDIA driver found");
    rc = cudaGetDeviceCount(&n);
    if (rc == cudaErrorInsufficientDriver)
        return vibe_fail(err, VIBE_E_DEVICE,
                         "the NVIDIA driver knows CUDA %d.%d, this build "
                         "needs %d.%d",
                         driver / 1000, driver % 1000 / 10,
                         CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (rc == cudaErrorNoDevice || (rc == cudaSuccess && n == 0))
        return vibe_fail(err, VIBE_E_DEVICE, "no NVIDIA GPU found");
    if (rc == cudaErrorMemoryAllocation)
        return vibe_fail(err, VIBE_E_NOMEM,
                         "no memory for the NVIDIA driver: ulimit -v may leave "
                         "it too few addresses");
    if (rc != cudaSuccess)
        return vibe_cuda_fail(err, rc, "counting GPUs");
    return VIBE_OK;
}

static int choose_device(struct vibe_cuda *cuda, int device,
                         struct vibe_error *err)
{
    struct cudaDeviceProp prop;
    cudaError_t rc;
    int n = 0;

    rc = cudaGetDeviceCount(&n);
    if (rc == cudaSuccess && device >= n)
        return vibe_fail(err, VIBE_E_DEVICE, "only %d GPU%s", n,
                         n == 1 ? "" : "s");
    if (rc == cudaSuccess)
        rc = cudaGetDeviceProperties(&prop, device);
    if (rc != cudaSuccess)
        return vibe_cuda_fail(err, rc, "looking at the GPU");
    cuda->device = device;
    cuda->n_sm = prop.multiProcessorCount;
    cuda->cc = 10 * prop.major + prop.minor;
    snprintf(cuda->base.name, sizeof(cuda->base.name), "%.60s, sm_%d",
             prop.name, cuda->cc);
    if (cuda->cc < VIBE_CUDA_MIN_CC)
        return vibe_fail(
            err, VIBE_E_DEVICE, "%s: needs compute capability %d.%d or newer",
            cuda->base.name, VIBE_CUDA_MIN_CC / 10, VIBE_CUDA_MIN_CC % 10);
    return VIBE_OK;
}

/* A build for some cards is none for others. */
static int check_kernels(const struct vibe_cuda *cuda, struct vibe_error *err)
{
    const cudaError_t rc = vibe_cuda_find_kernel();

    if (rc == cudaSuccess)
        return VIBE_OK;
    if (rc != cudaErrorNoKernelImageForDevice &&
        rc != cudaErrorInvalidDeviceFunction &&
        rc != cudaErrorUnsupportedPtxVersion)
        return vibe_cuda_fail(err, rc, cuda->base.name);
    return vibe_fail(err, VIBE_E_DEVICE,
                     "%s: this build has kernels for %s only; build with "
                     "CUDA_ARCH=%d",
                     cuda->base.name, VIBE_CUDA_ARCHS, cuda->cc);
}

/*
 * A context keeps a stack for every thread that a GPU can run: 1 KB each by
 * default, 260 MB of an H200.  Kernels of ours need 32 bytes at most, but for
 * one of large batches, which gets what it needs.
 */
static int limit_stack(struct vibe_cuda *cuda, struct vibe_error *err)
{
    enum { STACK_BYTES = 32 };
    cudaError_t rc = cudaSetDevice(cuda->device);

    if (rc == cudaSuccess)
        rc = cudaDeviceSetLimit(cudaLimitStackSize, STACK_BYTES);
    return rc == cudaSuccess ? VIBE_OK
                             : vibe_cuda_fail(err, rc, cuda->base.name);
}

/* Streams and what lives as long as they do. */
static int make_streams(struct vibe_cuda *cuda, struct vibe_error *err)
{
    cudaError_t rc = cudaSetDevice(cuda->device);

    if (rc == cudaSuccess)
        rc = cudaStreamCreateWithFlags(&cuda->compute, cudaStreamNonBlocking);
    if (rc == cudaSuccess)
        rc = cudaStreamCreateWithFlags(&cuda->copy, cudaStreamNonBlocking);
    if (rc == cudaSuccess)
        rc = cudaStreamCreateWithFlags(&cuda->aside, cudaStreamNonBlocking);
    if (rc == cudaSuccess)
        rc = cudaStreamCreateWithFlags(&cuda->beside, cudaStreamNonBlocking);
    if (rc == cudaSuccess)
        cuda->done = vibe_cuda_take(cuda,
                                    VIBE_CUDA_COUNTERS * sizeof(*cuda->done));
    if (rc == cudaSuccess && !cuda->done)
        rc = cudaErrorMemoryAllocation;
    if (rc == cudaSuccess)
        rc = cudaMemset(cuda->done, 0,
                        VIBE_CUDA_COUNTERS * sizeof(*cuda->done));
    return rc == cudaSuccess ? VIBE_OK
                             : vibe_cuda_fail(err, rc, cuda->base.name);
}

/*
 * How much of the device's memory opening it has taken: no more than is now
 * this process's, because others may have taken some meanwhile.  Without NVML
 * nobody knows what was in use before, and all that is counts as ours: a cap
 * is then kept with room to spare.
 */
static size_t context_bytes(struct vibe_cuda *cuda,
                            const struct vibe_cuda_usage *before)
{
    const struct vibe_cuda_usage now = vibe_cuda_usage(cuda);
    size_t n_free = 0;
    size_t total = 0;

    if (before->all && now.all > before->all) {
        const size_t n = now.all - before->all;

        return now.own > before->own && now.own - before->own < n
                   ? now.own - before->own
                   : n;
    }
    if (cudaMemGetInfo(&n_free, &total) != cudaSuccess)
        cudaGetLastError();
    return total - n_free;
}

static void cuda_close(struct vibe_backend *be)
{
    struct vibe_cuda *cuda = vibe_cuda_of(be);

    vibe_cuda_staging_free(cuda);
    vibe_cuda_lt_free(cuda);
    vibe_nvml_free(cuda->nvml);
    vibe_cuda_spans_free(cuda->copies);
    vibe_cuda_spans_free(cuda->waits);
    vibe_cuda_heaps_free(cuda);
    for (size_t i = 0; i < VIBE_MARKS; i++)
        if (cuda->marks[i])
            cudaEventDestroy(cuda->marks[i]);
    if (cuda->ordered)
        cudaEventDestroy(cuda->ordered);
    if (cuda->handed)
        cudaEventDestroy(cuda->handed);
    if (cuda->compute)
        cudaStreamDestroy(cuda->compute);
    if (cuda->copy)
        cudaStreamDestroy(cuda->copy);
    if (cuda->aside)
        cudaStreamDestroy(cuda->aside);
    if (cuda->beside)
        cudaStreamDestroy(cuda->beside);
    free(cuda);
}

int vibe_cuda_open(struct vibe_backend **out,
                   const struct vibe_backend_options *options,
                   struct vibe_error *err)
{
    struct vibe_cuda *cuda = NULL;
    struct vibe_cuda_usage used = {0};
    int rc = vibe_cuda_check_driver(err);

    *out = NULL;
    if (rc != VIBE_OK)
        return rc;
    cuda = calloc(1, sizeof(*cuda));
    if (!cuda)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for a GPU");
    rc = choose_device(cuda, options->device, err);
    if (rc == VIBE_OK) {
        used = vibe_cuda_usage(cuda);
        rc = limit_stack(cuda, err);
    }
    if (rc == VIBE_OK)
        rc = vibe_cuda_heaps_open(cuda, err);
    if (rc == VIBE_OK)
        rc = make_streams(cuda, err);
    if (rc == VIBE_OK) {
        vibe_cuda_pool_open(cuda);
        rc = check_kernels(cuda, err);
    }
    if (rc != VIBE_OK) {
        cuda_close(&cuda->base);
        return rc;
    }
    cuda->context_bytes = context_bytes(cuda, &used);
    vibe_cuda_memory_init(&cuda->ops);
    vibe_cuda_heaps_init(&cuda->ops);
    vibe_cuda_stream_init(&cuda->ops);
    vibe_cuda_compute_init(&cuda->ops);
    vibe_cuda_info_init(&cuda->ops);
    vibe_cuda_copies_init(&cuda->ops);
    cuda->ops.close = cuda_close;
    cuda->base.ops = &cuda->ops;
    cuda->base.transfer = &vibe_cuda_transfer;
    cuda->base.is_cuda = 1;
    cuda->base.is_exact = options->is_exact;
    cuda->notice = options->notice;
    cuda->base.kv_dtype = cuda->base.is_exact ? VIBE_F32 : VIBE_BF16;
    *out = &cuda->base;
    return VIBE_OK;
}
