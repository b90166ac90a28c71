/* rope.cu - rotary positions of a prompt, whose keys and values are stored. */
#include "engine/backend/cuda/cache.cuh"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/launch.cuh"

enum { THREADS = 512 };

struct rope {
    struct cache cache;
    float *qkv;
    size_t stride_b, stride_t;
    unsigned T, n_heads;
    const int32_t *seq, *pos;
    struct vibe_rope by;
};

/* What was rotated in place, for keys less their centre, and values: a warp
 * for each head. */
__device__ static void store_f8(const struct rope &a, const float *keys,
                                unsigned b, unsigned at)
{
    const unsigned n = a.cache.n_kv_heads;

    __syncthreads();
    for (unsigned i = threadIdx.x / 32; i < 2 * n; i += THREADS / 32)
        store_row(kv_at<e4m3>(a.cache, a.seq[b], at, i / n, i % n),
                  exponents_at(a.cache, a.seq[b], at, i / n, i % n),
                  keys + i * a.cache.head_dim, a.cache.head_dim);
}

/* One block per row; a thread rotates pairs (k, k + half) of its heads, and
 * copies values. */
template <typename T>
__global__ __launch_bounds__(THREADS) void rope_kernel(
    const __grid_constant__ struct rope a)
{
    const unsigned b = blockIdx.x / a.T;
    const unsigned t = blockIdx.x % a.T;
    const unsigned hd = a.cache.head_dim;
    const unsigned half = hd / 2;
    const unsigned stride = THREADS / half; /* heads at a time */
    const unsigned k = threadIdx.x % half;
    const unsigned at = (unsigned)a.pos[b] + t;
    const unsigned n_kv_heads = a.cache.n_kv_heads;
    float *row = a.qkv + b * a.stride_b + t * a.stride_t;
    const float *values = row + (a.n_heads + n_kv_heads) * hd;
    T *keys_at = kv_at<T>(a.cache, a.seq[b], at, 0, 0);
    T *values_at = kv_at<T>(a.cache, a.seq[b], at, 1, 0);
    const size_t from_head = (size_t)a.cache.block_tokens * hd;
    float sine, cosine;

    let_next_start();
    turn(&sine, &cosine, (float)at, a.by.inv_freq[k]);
    wait_for_inputs();
    for (unsigned head = threadIdx.x / half;
         head < a.n_heads + n_kv_heads && threadIdx.x < stride * half;
         head += stride) {
        float *x = row + head * hd + k;
        float lo = x[0] * cosine - x[half] * sine;
        float hi = x[half] * cosine + x[0] * sine;

        if (is_f8<T> && head >= a.n_heads && a.by.centre) {
            lo -= a.by.centre[(head - a.n_heads) * hd + k];
            hi -= a.by.centre[(head - a.n_heads) * hd + k + half];
        }
        if constexpr (!is_f8<T>)
            if (head >= a.n_heads) {
                T *key = keys_at + (head - a.n_heads) * from_head + k;

                store(key, lo);
                store(key + half, hi);
                continue;
            }
        x[0] = lo;
        x[half] = hi;
    }
    if constexpr (is_f8<T>)
        store_f8(a, values - n_kv_heads * hd, b, at);
    else
        for (unsigned i = threadIdx.x; i < n_kv_heads * hd; i += THREADS)
            store(values_at + i / hd * from_head + i % hd, values[i]);
}

static const void *kernel_for(enum vibe_dtype dtype)
{
    if (dtype == VIBE_F32)
        return (const void *)rope_kernel<float>;
    if (dtype == VIBE_BF16)
        return (const void *)rope_kernel<__nv_bfloat16>;
    return (const void *)rope_kernel<e4m3>;
}

cudaError_t vibe_cuda_rope(cudaStream_t stream, const struct vibe_tensor *qkv,
                           const struct vibe_kv *kv, size_t layer,
                           const struct vibe_rows *rows,
                           const struct vibe_rope *by)
{
    struct rope a = {cache_of(kv, layer),
                     (float *)qkv->data,
                     qkv->stride_b,
                     qkv->stride_t,
                     (unsigned)qkv->T,
                     (unsigned)(qkv->C / kv->head_dim - 2 * kv->n_kv_heads),
                     rows->seq,
                     rows->pos,
                     *by};

    return launch_waiting(kernel_for(kv->dtype),
                          dim3((unsigned)(qkv->B * qkv->T)), THREADS, 0, stream,
                          &a);
}
