/* Queues: waiting, bytes to and from the device, captured work. */
#include <stdlib.h>
#include <string.h>

#include "engine/backend/cuda/device.h"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/heap.h"
#include "engine/base/clock.h"

/* Memory of a device that kernels of a frame write to. */
struct place {
    const void *scratch, *mail, *expanded;
};

struct vibe_graph {
    cudaGraphExec_t exec;
    struct place places[1 + VIBE_CUDA_FRIENDS]; /* its device's, its friends' */
    size_t n;
};

static int stream_init(struct vibe_stream *s, struct vibe_error *err)
{
    cudaError_t rc = cudaSetDevice(vibe_cuda_of(s->be)->device);

    return rc == cudaSuccess ? VIBE_OK : vibe_cuda_fail(err, rc, "stream");
}

static void stream_release(struct vibe_stream *s)
{
    cudaStreamSynchronize(vibe_cuda_of(s->be)->compute);
}

static void stream_sync(struct vibe_stream *s)
{
    vibe_cuda_latch(s, cudaStreamSynchronize(vibe_cuda_of(s->be)->compute),
                    "computing");
}

/* From pageable memory CUDA has taken the bytes when the call returns. */
static void stream_write(struct vibe_stream *s, void *device, const void *host,
                         size_t bytes)
{
    cudaStream_t compute = vibe_cuda_of(s->be)->compute;

    vibe_cuda_latch(
        s,
        vibe_cuda_can_store(device, bytes)
            ? vibe_cuda_store(compute, device, host, bytes)
            : cudaMemcpyAsync(device, host, bytes, cudaMemcpyDefault, compute),
        "copy to the device");
}

static void stream_read(struct vibe_stream *s, void *host, const void *device,
                        size_t bytes)
{
    vibe_cuda_latch(s,
                    cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost,
                                    vibe_cuda_of(s->be)->compute),
                    "copy from the device");
}

/*
 * An event inside a captured frame is recorded at every replay.  CUDA tells
 * only how far events are apart: the host's clock is read at mark 0, when the
 * queue is all but empty, and the others are counted from there.
 */
static void mark(struct vibe_stream *s, size_t i)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    cudaError_t rc = cudaSuccess;

    if (!cuda->marks[i])
        rc = cudaEventCreate(&cuda->marks[i]);
    if (rc == cudaSuccess)
        rc = cudaStreamIsCapturing(cuda->compute, &status);
    if (rc == cudaSuccess)
        rc = cudaEventRecordWithFlags(cuda->marks[i], cuda->compute,
                                      status == cudaStreamCaptureStatusActive
                                          ? cudaEventRecordExternal
                                          : cudaEventRecordDefault);
    if (i == 0)
        cuda->mark0_s = vibe_clock_s();
    vibe_cuda_latch(s, rc, "marking a moment");
}

static double mark_s(struct vibe_stream *s, size_t i)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    float ms = 0.0f;

    if (i > 0)
        vibe_cuda_latch(
            s, cudaEventElapsedTime(&ms, cuda->marks[0], cuda->marks[i]),
            "looking at a moment");
    return cuda->mark0_s + 1e-3 * (double)ms;
}

/* Have memory of another device, of its pool too, seen from this one: without
 * that, copies go through the host and cannot be captured. */
static int can_see(const struct vibe_cuda *cuda, const struct vibe_cuda *other)
{
    const struct cudaMemAccessDesc access = {
        .location = {.type = cudaMemLocationTypeDevice, .id = cuda->device},
        .flags = cudaMemAccessFlagsProtReadWrite,
    };
    cudaError_t rc;

    if (cuda->device == other->device)
        return 1;
    rc = cudaDeviceEnablePeerAccess(other->device, 0);
    if (rc == cudaSuccess || rc == cudaErrorPeerAccessAlreadyEnabled)
        rc = other->pool ? cudaMemPoolSetAccess(other->pool, &access, 1)
                         : cudaSuccess;
    cudaGetLastError(); /* it is an answer */
    return rc == cudaSuccess;
}

/* Count who hands rows over or takes them among a device's friends. */
static cudaError_t befriend(struct vibe_cuda *cuda, struct vibe_cuda *other)
{
    cudaError_t rc;

    for (size_t i = 0; i < cuda->n_friends; i++)
        if (cuda->friends[i] == other)
            return cudaSuccess;
    if (cuda->n_friends == VIBE_CUDA_FRIENDS)
        return cudaErrorInvalidValue;
    rc = cudaSetDevice(cuda->device);
    if (rc != cudaSuccess)
        return rc;
    cuda->friends[cuda->n_friends++] = other;
    if (!can_see(cuda, other))
        cuda->has_strangers = 1;
    return cudaSuccess;
}

static cudaError_t copy_over(const struct vibe_cuda *taker, void *dst,
                             const struct vibe_cuda *giver, const void *src,
                             size_t bytes)
{
    if (taker->has_strangers || giver->has_strangers)
        return cudaMemcpyPeerAsync(dst, taker->device, src, giver->device,
                                   bytes, giver->compute);
    return cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, giver->compute);
}

/* The copy is enqueued where its bytes are made; who takes them waits. */
static void stream_hand_over(struct vibe_stream *to, void *dst,
                             struct vibe_stream *from, const void *src,
                             size_t bytes)
{
    struct vibe_cuda *giver = vibe_cuda_of(from->be);
    struct vibe_cuda *taker = vibe_cuda_of(to->be);
    cudaError_t rc = befriend(taker, giver);

    if (rc == cudaSuccess)
        rc = befriend(giver, taker);
    if (rc == cudaSuccess)
        rc = cudaSetDevice(giver->device);
    if (rc == cudaSuccess && !giver->handed)
        rc = cudaEventCreateWithFlags(&giver->handed, cudaEventDisableTiming);
    if (rc == cudaSuccess)
        rc = copy_over(taker, dst, giver, src, bytes);
    if (rc == cudaSuccess)
        rc = cudaEventRecord(giver->handed, giver->compute);
    if (rc == cudaSuccess)
        rc = cudaSetDevice(taker->device);
    if (rc == cudaSuccess)
        rc = cudaStreamWaitEvent(taker->compute, giver->handed, 0);
    vibe_cuda_latch(to, rc, "copy between devices");
}

static void enter(struct vibe_backend *be)
{
    cudaSetDevice(vibe_cuda_of(be)->device);
}

/* What comes on one stream waits for what is on another by now. */
static cudaError_t order(struct vibe_cuda *cuda, cudaStream_t after,
                         cudaStream_t before)
{
    cudaError_t rc = cudaSuccess;

    if (!cuda->ordered)
        rc = cudaEventCreateWithFlags(&cuda->ordered, cudaEventDisableTiming);
    if (rc == cudaSuccess)
        rc = cudaEventRecord(cuda->ordered, before);
    return rc == cudaSuccess ? cudaStreamWaitEvent(after, cuda->ordered, 0)
                             : rc;
}

static void beside(struct vibe_stream *s, void (*body)(void *user), void *user)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    cudaStream_t compute = cuda->compute;

    vibe_cuda_latch(s, order(cuda, cuda->beside, compute), "parting");
    cuda->compute = cuda->beside;
    body(user);
    cuda->compute = compute;
}

static void meet(struct vibe_stream *s)
{
    struct vibe_cuda *cuda = vibe_cuda_of(s->be);

    vibe_cuda_latch(s, order(cuda, cuda->compute, cuda->beside), "meeting");
}

/* Memory to read, 1 GiB or what there is: what is reserved, whatever it holds,
 * because a cap may leave no other; *owned is what was taken for it. */
static const void *find_probed(const struct vibe_cuda *cuda, size_t *n_bytes,
                               void **owned)
{
    enum { LEAST = 256 << 20, MOST = 1 << 30 };
    const void *reserved = vibe_heap_largest(cuda->heap, n_bytes);

    *owned = NULL;
    if (*n_bytes >= MOST) {
        *n_bytes = MOST;
        return reserved;
    }
    for (*n_bytes = MOST; *n_bytes >= LEAST; *n_bytes /= 2)
        if (cudaMalloc(owned, *n_bytes) == cudaSuccess)
            return *owned;
    return NULL;
}

/* Milliseconds of the best of many reads: the first ones are some 5 % slower,
 * until clocks have risen. */
static float time_reads(struct vibe_cuda *cuda, const void *data,
                        size_t n_bytes, const cudaEvent_t ends[2])
{
    enum { RUNS = 24 };
    float best = 0.0f;

    for (int i = 0; i < RUNS; i++) {
        float ms = 0.0f;

        cudaEventRecord(ends[0], cuda->compute);
        vibe_cuda_read_all(cuda->compute, data, n_bytes, cuda->done);
        cudaEventRecord(ends[1], cuda->compute);
        if (cudaEventSynchronize(ends[1]) != cudaSuccess ||
            cudaEventElapsedTime(&ms, ends[0], ends[1]) != cudaSuccess)
            return 0.0f;
        if (i == 0 || ms < best)
            best = ms;
    }
    return best;
}

/* Of memory that no cache holds. */
static double probe_bandwidth(struct vibe_backend *be)
{
    struct vibe_cuda *cuda = vibe_cuda_of(be);
    cudaEvent_t ends[2] = {NULL, NULL};
    size_t n_bytes;
    void *owned;
    const void *data = find_probed(cuda, &n_bytes, &owned);
    float ms = 0.0f;

    if (data && cudaEventCreate(&ends[0]) == cudaSuccess &&
        cudaEventCreate(&ends[1]) == cudaSuccess)
        ms = time_reads(cuda, data, n_bytes, ends);
    for (int i = 0; i < 2; i++)
        if (ends[i])
            cudaEventDestroy(ends[i]);
    cudaFree(owned);
    cudaMemsetAsync(cuda->done, 0, sizeof(*cuda->done), cuda->compute);
    cudaGetLastError(); /* not to be measured is no error */
    return ms > 0.0f ? (double)n_bytes / (1e-3 * (double)ms) : 0.0;
}

/* Record what body enqueues; runs nothing. */
static cudaError_t capture(struct vibe_stream *s, cudaGraphExec_t *exec,
                           void (*body)(void *user), void *user)
{
    cudaStream_t compute = vibe_cuda_of(s->be)->compute;
    cudaGraph_t graph = NULL;
    cudaError_t rc = cudaStreamBeginCapture(compute,
                                            cudaStreamCaptureModeRelaxed);
    cudaError_t end;

    if (rc != cudaSuccess)
        return rc;
    body(user);
    end = cudaStreamEndCapture(compute, &graph);
    if (end == cudaSuccess)
        end = cudaGraphInstantiate(exec, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    return end;
}

static struct place place_of(const struct vibe_cuda *cuda)
{
    return (struct place){
        .scratch = cuda->scratch,
        .mail = cuda->mail,
        .expanded = cuda->expanded,
    };
}

/* Rows may pass through friends: what is captured enters their queues when
 * something is handed over, and leaves them when that comes back. */
static void note_places(struct vibe_graph *graph, const struct vibe_cuda *cuda)
{
    graph->n = 1 + cuda->n_friends;
    graph->places[0] = place_of(cuda);
    for (size_t i = 0; i < cuda->n_friends; i++)
        graph->places[1 + i] = place_of(cuda->friends[i]);
}

/* Scratch that has grown since is somewhere else. */
static int is_stale(const struct vibe_graph *graph,
                    const struct vibe_cuda *cuda)
{
    struct vibe_graph now;

    note_places(&now, cuda);
    return now.n != graph->n || memcmp(now.places, graph->places,
                                       now.n * sizeof(now.places[0])) != 0;
}

static void graph_run(struct vibe_stream *s, struct vibe_graph **graph,
                      void (*body)(void *user), void *user)
{
    const struct vibe_cuda *cuda = vibe_cuda_of(s->be);
    cudaError_t rc = cudaSuccess;

    if (cuda->has_strangers) {
        body(user);
        return;
    }
    if (*graph && is_stale(*graph, cuda))
        vibe_graph_free(s, graph);
    if (!*graph) {
        struct vibe_graph *made = calloc(1, sizeof(*made));

        if (!made) {
            vibe_fail(&s->err, VIBE_E_NOMEM, "no memory for a graph");
            return;
        }
        rc = capture(s, &made->exec, body, user);
        if (rc != cudaSuccess || s->err.code != VIBE_OK) {
            free(made);
            vibe_cuda_latch(s, rc, "capturing a frame");
            return;
        }
        note_places(made, cuda);
        *graph = made;
    }
    rc = cudaGraphLaunch((*graph)->exec, cuda->compute);
    vibe_cuda_latch(s, rc, "launching a frame");
}

static void graph_free(struct vibe_graph *graph)
{
    cudaGraphExecDestroy(graph->exec);
    free(graph);
}

void vibe_cuda_stream_init(struct vibe_ops *ops)
{
    ops->stream_init = stream_init;
    ops->stream_release = stream_release;
    ops->sync = stream_sync;
    ops->write = stream_write;
    ops->read = stream_read;
    ops->hand_over = stream_hand_over;
    ops->enter = enter;
    ops->mark = mark;
    ops->mark_s = mark_s;
    ops->probe_bandwidth = probe_bandwidth;
    ops->graph_run = graph_run;
    ops->graph_free = graph_free;
    ops->beside = beside;
    ops->meet = meet;
}
