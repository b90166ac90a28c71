/*
 * device.h - one GPU as a backend; shared by the files of this folder.
 *
 * One stream computes and one copies.  Kernels are behind the launchers of
 * kernels.h, so only .cu files hold device code.
 */
#ifndef VIBE_CUDA_DEVICE_H
#define VIBE_CUDA_DEVICE_H

#include <cuda_runtime_api.h>

#include "engine/backend/backend.h"
#include "engine/backend/ops.h"

enum {
    VIBE_CUDA_COUNTERS = 65536,
    VIBE_CUDA_MIN_CC = 75,
    VIBE_CUDA_FRIENDS = 16,
};

struct vibe_cuda {
    struct vibe_backend base; /* first: a backend is cast to this */
    struct vibe_ops ops;
    int device;
    int n_sm; /* multiprocessors */
    int cc;   /* compute capability, 86 for 8.6 */
    cudaStream_t compute, copy, aside, beside;
    cudaMemPool_t pool;          /* of what comes and goes; or NULL */
    struct vibe_heap *heap;      /* of the device's memory */
    struct vibe_heap *host_heap; /* of the host's, for what is kept there */
    size_t context_bytes;        /* taken when the device was opened */
    /* partial sums of split kernels; grows outside of captures only */
    void *scratch;
    size_t scratch_bytes;
    int is_prompt_apart; /* see vibe_ops.rest */
    void *prompt_scratch;
    size_t prompt_scratch_bytes;
    void *mail; /* between blocks of a kernel; grows likewise */
    size_t mail_bytes;
    void *expanded; /* rows of tiles made bf16; grows likewise */
    size_t expanded_bytes;
    unsigned *done; /* [VIBE_CUDA_COUNTERS] zeros: blocks that have arrived */
    cudaEvent_t marks[VIBE_MARKS]; /* made when first recorded */
    double mark0_s;                /* host time of marks[0] */
    cudaEvent_t ordered;           /* made when first recorded */
    cudaEvent_t handed; /* what was copied to another device has left */
    struct vibe_cuda *friends[VIBE_CUDA_FRIENDS]; /* that rows pass through */
    size_t n_friends;
    int has_strangers; /* among them, whose memory it cannot see */
    struct vibe_cuda_staging *staging; /* memory.c; NULL until a load */
    struct vibe_nvml *nvml; /* info.c; NULL also where it is absent */
    int has_looked_for_nvml;
    struct vibe_cuda_spans *copies, *waits; /* copies.c; NULL until timed */
    struct vibe_notice notice;
    struct vibe_cuda_lt *lt; /* lt.c; NULL until it was looked for */
};

static inline struct vibe_cuda *vibe_cuda_of(const struct vibe_backend *be)
{
    return (struct vibe_cuda *)be;
}

/* Latch what CUDA said in the stream, naming the op; nothing on success. */
void vibe_cuda_latch(struct vibe_stream *s, cudaError_t rc, const char *op);

/* Fill err from what CUDA said: VIBE_E_NOMEM for memory, else _DEVICE. */
int vibe_cuda_fail(struct vibe_error *err, cudaError_t rc, const char *what);

/* Append a copy to the copy queue. */
cudaError_t vibe_cuda_send(struct vibe_cuda *cuda, void *device,
                           const void *host, size_t bytes);

/* Have the compute queue wait; how long it has since that was first asked. */
cudaError_t vibe_cuda_wait(struct vibe_cuda *cuda, cudaEvent_t event);
void vibe_cuda_waited(struct vibe_cuda *cuda, double *seconds, size_t n,
                      size_t waiter);
void vibe_cuda_spans_free(struct vibe_cuda_spans *spans);

/* Is there a driver that knows this runtime, and a GPU?  VIBE_E_DEVICE. */
int vibe_cuda_check_driver(struct vibe_error *err);

/*
 * Memory for the backend's purpose, contents undefined; NULL when there is
 * none.  What is kept, matrices and keys and values, is on the host where the
 * backend's on_host says so.  Giving it back waits for everything that the
 * device was asked to do.
 */
void *vibe_cuda_take(struct vibe_cuda *cuda, size_t bytes);
void *vibe_cuda_take_kept(struct vibe_cuda *cuda, size_t bytes);
void vibe_cuda_give(struct vibe_cuda *cuda, void *memory);
int vibe_cuda_heaps_open(struct vibe_cuda *cuda, struct vibe_error *err);
void vibe_cuda_pool_open(struct vibe_cuda *cuda); /* for what comes and goes */
void vibe_cuda_heaps_free(struct vibe_cuda *cuda);

/* Bytes in use by all processes and by this one, asked without a context; 0:
 * unknown. */
struct vibe_cuda_usage {
    size_t all, own;
};

struct vibe_cuda_usage vibe_cuda_usage(struct vibe_cuda *cuda);

/* What the driver has left, and what of ours is not in use. */
size_t vibe_cuda_free_bytes(const struct vibe_cuda *cuda);

/* Scratch of at least this size; NULL after latching an error. */
void *vibe_cuda_scratch(struct vibe_stream *s, size_t bytes);

/* Bytes of ones of at least this size, which whoever changes them restores;
 * NULL after latching an error. */
void *vibe_cuda_mail(struct vibe_stream *s, size_t bytes);

/* Fill the parts of the op table. */
void vibe_cuda_memory_init(struct vibe_ops *ops);
void vibe_cuda_heaps_init(struct vibe_ops *ops);
void vibe_cuda_stream_init(struct vibe_ops *ops);
void vibe_cuda_compute_init(struct vibe_ops *ops);
void vibe_cuda_info_init(struct vibe_ops *ops);
void vibe_cuda_copies_init(struct vibe_ops *ops);

/* offload/transfer.h on this device. */
extern const struct vibe_transfer vibe_cuda_transfer;

#endif /* VIBE_CUDA_DEVICE_H */
