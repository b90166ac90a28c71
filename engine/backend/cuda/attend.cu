/*
 * attend.cu - attention for any head size and dtype, in floats.
 *
 * A past is taken in chunks that do not depend on who asks.  A step of many
 * short rows (T = 1) is split: one block takes a chunk of one sequence and one
 * KV head for all query heads that share it, and the block that finishes last
 * puts the parts together.  In a prompt one block walks through the past of a
 * few consecutive rows.  Both do the same arithmetic, so a row has the same
 * bits either way.  Where a sequence ends is read on the device.
 */
#include "engine/backend/cuda/attend.cuh"
#include "engine/backend/cuda/device.h"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/reduce.cuh"

/* Floats of a part, a multiple of 4 for vector loads. */
__host__ __device__ static inline unsigned part_floats(unsigned group,
                                                       unsigned hd)
{
    return (group * (hd + 2) + 3) / 4 * 4;
}

/*
 * The factors of n parts for up to TILE heads, (before, after, weight) each;
 * warp j does head j, 32 parts at a time: a lane's top so far is the maximum
 * over the lanes up to it.  Returns the top after all of them.
 */
__device__ static float prepare(float4 *factor, float top, const float *tops,
                                const float *weights, unsigned stride,
                                unsigned n)
{
    const unsigned lane = threadIdx.x % 32;

    for (unsigned k0 = 0; k0 < n; k0 += 32) {
        const unsigned k = k0 + lane;
        const float next = k < n ? __ldcg(tops + (size_t)k * stride)
                                 : -INFINITY;
        float so_far = next;
        float before, after, left;

        for (unsigned d = 1; d < 32; d *= 2) {
            const float other = __shfl_up_sync(0xFFFFFFFFu, so_far, d);

            if (lane >= d)
                so_far = fmaxf(so_far, other);
        }
        left = __shfl_up_sync(0xFFFFFFFFu, so_far, 1);
        left = lane ? fmaxf(top, left) : top;
        if (k < n) {
            factors(&before, &after, left, next);
            factor[k] = make_float4(before, after,
                                    __ldcg(weights + (size_t)k * stride), 0.0f);
        }
        top = fmaxf(top, __shfl_sync(0xFFFFFFFFu, so_far, 31));
    }
    return top;
}

/* Append n parts to a sum of V channels and its weight, in order. */
template <unsigned V>
__device__ static inline void append(float (&sum)[V], float *weight,
                                     const float4 *factor, const float *parts,
                                     unsigned stride, unsigned n)
{
    for (unsigned k0 = 0; k0 < n; k0 += FLIGHT) {
        float next[FLIGHT][V];

#pragma unroll
        for (unsigned k = 0; k < FLIGHT; k++) /* the last one stands in */
            read_fresh(next[k], parts + (size_t)min(k0 + k, n - 1) * stride);
#pragma unroll
        for (unsigned k = 0; k < FLIGHT; k++)
            if (k0 + k < n) {
                const float4 f = factor[k0 + k];

                *weight = fmaf(f.z, f.y, *weight * f.x);
                for (unsigned e = 0; e < V; e++)
                    sum[e] = fmaf(next[k][e], f.y, sum[e] * f.x);
            }
    }
}

/*
 * Put the parts of one row together for heads g0 .. g0 + TILE - 1, as far as
 * there are any; a thread does vector i of their channels.  Parts come in
 * pieces whose factors fit the region.
 */
template <unsigned V>
__device__ static void combine_heads(const struct queries &qs,
                                     const float *parts, unsigned n_parts,
                                     unsigned hd, unsigned g0, unsigned i,
                                     float4 *factor)
{
    const unsigned group = qs.group;
    const unsigned stride = part_floats(group, hd);
    const unsigned warp = threadIdx.x / 32;
    const unsigned g = i / (hd / V);
    const unsigned at = (g0 + g) * hd + i % (hd / V) * V;
    const bool is_busy = g < min((unsigned)TILE, group - g0);
    float sum[V] = {0.0f};
    float weight = 0.0f;
    float top = -INFINITY;

    for (unsigned k = 0; k < n_parts; k += PIECE) {
        const unsigned n = min((unsigned)PIECE, n_parts - k);
        const float *part = parts + (size_t)k * stride;
        const float *tops = part + group * hd + g0 + warp;

        __syncthreads(); /* the region may still be read */
        if (g0 + warp < group)
            top = prepare(factor + warp * PIECE, top, tops, tops + group,
                          stride, n);
        __syncthreads();
        if (is_busy)
            append<V>(sum, &weight, factor + g * PIECE, part + at, stride, n);
    }
    if (is_busy)
        for (unsigned e = 0; e < V; e++)
            qs.y[at + e] = kept(sum[e] / weight, qs.is_split);
}

/* Put the parts of one row and KV head together. */
template <unsigned V>
__device__ static void combine(const struct queries &qs, const float *parts,
                               unsigned n_parts, unsigned hd, float4 *factor)
{
    for (unsigned g0 = 0; g0 < qs.group; g0 += TILE)
        for (unsigned i = 0; i < TILE * (hd / V); i += THREADS)
            combine_heads<V>(qs, parts, n_parts, hd, g0, i + threadIdx.x,
                             factor);
}

/* What a launch passes on; strides in floats. */
struct job {
    struct cache cache;
    const float *qkv;
    float *y;
    size_t q_stride_b, q_stride_t, y_stride_b, y_stride_t;
    bool is_split; /* of y */
    unsigned T, group;
    unsigned n_rows; /* of a block of a prompt */
    const int32_t *seq, *pos;
    float scale;
    float *parts;        /* [B][n_kv_heads][max_chunks][part] */
    unsigned max_chunks; /* of a sequence */
    unsigned *done;      /* [B][n_kv_heads] */
};

/* Queries of n_rows rows of b from t on. */
__device__ static struct queries queries_of(const struct job &job, unsigned b,
                                            unsigned t, unsigned n_rows,
                                            unsigned head)
{
    const size_t column = (size_t)head * job.group * job.cache.head_dim;
    struct queries qs;

    qs.q = job.qkv + b * job.q_stride_b + t * job.q_stride_t + column;
    qs.y = job.y + b * job.y_stride_b + t * job.y_stride_t + column;
    qs.is_split = job.is_split;
    qs.q_stride = job.q_stride_t;
    qs.y_stride = job.y_stride_t;
    qs.n = n_rows * job.group;
    qs.group = job.group;
    qs.length = (unsigned)job.pos[b] + t + 1;
    qs.scale = job.scale;
    qs.seq = job.seq[b];
    qs.head = head;
    return qs;
}

/* Blocks that a multiprocessor must have registers for: bytes take more of
 * them to expand, floats to hold, than half a multiprocessor has. */
template <typename T> constexpr unsigned blocks_of(void)
{
    return sizeof(T) == 2 ? 2 : 1;
}

/*
 * Split attention: grid (chunk slots, KV heads, rows); bound by reading keys
 * and values.  A past of one chunk needs no parts.
 */
template <typename T, unsigned V>
__global__ __launch_bounds__(THREADS, blocks_of<T>()) void split_kernel(
    const __grid_constant__ struct job job)
{
    extern __shared__ float4 region[];
    __shared__ struct tiles tiles;
    const struct cache &cache = job.cache;
    const unsigned hd = cache.head_dim;
    const unsigned b = blockIdx.z;
    const struct queries qs = queries_of(job, b, 0, 1, blockIdx.y);
    const unsigned n_chunks = (qs.length + cache.chunk - 1) / cache.chunk;
    const unsigned batch = batch_of(hd);
    const size_t at = (size_t)b * cache.n_kv_heads + blockIdx.y;
    const unsigned stride = part_floats(job.group, hd);
    float *parts = job.parts + at * job.max_chunks * stride;

    let_next_start();
    if (blockIdx.x >= n_chunks)
        return;
    wait_for_inputs();
    if (n_chunks == 1) {
        walk<T, V>(&tiles, (float *)region, cache, qs);
        return;
    }
    for (unsigned k = blockIdx.x; k < n_chunks; k += gridDim.x) {
        const unsigned first = k * cache.chunk;

        for (unsigned i0 = 0; i0 < qs.n; i0 += batch)
            attend<T, V>(&tiles, (float *)region, cache, qs, i0,
                         min(batch, qs.n - i0), first,
                         min(cache.chunk, qs.length - first),
                         parts + (size_t)k * stride);
    }
    if (vibe_is_last_block(job.done + at, min(n_chunks, gridDim.x)))
        combine<V>(qs, parts, n_chunks, hd, region);
}

/* A prompt: grid (blocks of n_rows rows, KV heads, B); the rows that see most
 * come first, so that the last blocks to start are short. */
template <typename T, unsigned V>
__global__ __launch_bounds__(THREADS, blocks_of<T>()) void walk_kernel(
    const __grid_constant__ struct job job)
{
    extern __shared__ float4 region[];
    __shared__ struct tiles tiles;
    const unsigned t = (gridDim.x - 1 - blockIdx.x) * job.n_rows;

    let_next_start();
    wait_for_inputs();
    walk<T, V>(
        &tiles, (float *)region, job.cache,
        queries_of(job, blockIdx.z, t, min(job.n_rows, job.T - t), blockIdx.y));
}

static unsigned chunks_of(const struct vibe_kv *kv)
{
    return (unsigned)(kv->max_blocks * kv->block_tokens) / chunk_of(kv);
}

size_t vibe_cuda_attend_scratch(const struct vibe_tensor *qkv,
                                const struct vibe_kv *kv)
{
    if (qkv->T > 1)
        return 0;
    return qkv->B * kv->n_kv_heads * chunks_of(kv) *
           part_floats(group_of(qkv, kv), (unsigned)kv->head_dim) *
           sizeof(float);
}

template <typename T, unsigned V>
static cudaError_t enqueue_by(cudaStream_t stream, struct job *job, unsigned B,
                              unsigned n_sm)
{
    const unsigned heads = job->cache.n_kv_heads;
    const unsigned batch = batch_of(job->cache.head_dim);
    const size_t shared = max((unsigned)REGION, batch * job->cache.head_dim) *
                          sizeof(float);
    unsigned slots;

    if (job->T > 1) {
        job->n_rows = max(1u, batch / job->group);
        return launch_waiting(
            (const void *)walk_kernel<T, V>,
            dim3((job->T + job->n_rows - 1) / job->n_rows, heads, B), THREADS,
            shared, stream, job);
    }
    /* two waves of two blocks each; most stay empty */
    slots = min(job->max_chunks, max(1u, 4 * n_sm / (B * heads)));
    return launch_waiting((const void *)split_kernel<T, V>,
                          dim3(slots, heads, B), THREADS, shared, stream, job);
}

/* By four channels where that is even. */
template <typename T>
static cudaError_t enqueue(cudaStream_t stream, struct job *job, unsigned B,
                           unsigned n_sm)
{
    if (job->cache.head_dim % 4 == 0 && job->cache.head_bytes % 4 == 0)
        return enqueue_by<T, 4>(stream, job, B, n_sm);
    return enqueue_by<T, 1>(stream, job, B, n_sm);
}

cudaError_t vibe_cuda_attend(const struct vibe_cuda *cuda,
                             const struct vibe_tensor *y,
                             const struct vibe_tensor *qkv,
                             const struct vibe_kv *kv, size_t layer,
                             const struct vibe_rows *rows, float *scratch)
{
    const unsigned B = (unsigned)qkv->B;
    const unsigned n_sm = (unsigned)cuda->n_sm;
    struct job job = {cache_of(kv, layer),
                      (const float *)qkv->data,
                      (float *)y->data,
                      qkv->stride_b,
                      qkv->stride_t,
                      y->stride_b,
                      y->stride_t,
                      y->form != VIBE_FORM_PLAIN,
                      (unsigned)qkv->T,
                      group_of(qkv, kv),
                      1,
                      rows->seq,
                      rows->pos,
                      1.0f / sqrtf((float)kv->head_dim),
                      scratch,
                      chunks_of(kv),
                      cuda->done};

    if (kv->dtype == VIBE_F32)
        return enqueue<float>(cuda->compute, &job, B, n_sm);
    if (kv->dtype == VIBE_BF16)
        return enqueue<__nv_bfloat16>(cuda->compute, &job, B, n_sm);
    return enqueue<e4m3>(cuda->compute, &job, B, n_sm);
}
