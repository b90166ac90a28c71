/*
 * attend_prompt.cu - attention of many rows of a sequence on tensor cores.
 *
 * A block takes 64 rows of one query head, a warp 16 of them, and walks
 * through their past in tiles of 32 positions that all of its warps share; the
 * copies of the next tiles run beside the products.  Bound by arithmetic.
 */
#include "engine/backend/cuda/attend_tiles.cuh"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/launch.cuh"

enum {
    THREADS = 128,
    WARP_ROWS = 16,
    ROWS = THREADS / 32 * WARP_ROWS, /* of a block */
    TILE = 32,                       /* positions */
    STAGES = 3,
};

struct prompt {
    struct cache cache;
    const float *qkv;
    float *y;
    size_t q_stride_b, q_stride_t, y_stride_b, y_stride_t;
    bool is_split; /* of y, see split.cuh */
    unsigned T, group;
    const int32_t *seq, *pos;
    float scale; /* log2(e) / sqrt(head_dim) */
};

#if __CUDA_ARCH__ >= 800

/* What a warp keeps of its 16 rows; a thread has rows lane / 4 and 8 more, of
 * values those that load_pair makes columns. */
template <unsigned HD> struct rows16 {
    unsigned high[HD / 16][4], low[HD / 16][4]; /* of q */
    float sum[HD / 8][4];                       /* of weighted values */
    float top[2], weight[2];
};

template <typename T, unsigned HD>
__device__ static inline void load_q(rows16<HD> &r, const struct prompt &a,
                                     const float *q, unsigned t)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = t + lane / 4 + i % 2 * 8;
        const float *from = q + min(row, a.T - 1) * a.q_stride_t;

#pragma unroll
        for (unsigned k = 0; k < HD / 16; k++)
            split(r.high[k][i], r.low[k][i],
                  make_float2(from[k * 16 + channel<T>(i / 2, 0)] * a.scale,
                              from[k * 16 + channel<T>(i / 2, 1)] * a.scale));
    }
#pragma unroll
    for (unsigned n = 0; n < HD / 8; n++)
#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            r.sum[n][i] = 0.0f;
    r.top[0] = r.top[1] = -INFINITY;
    r.weight[0] = r.weight[1] = 0.0f;
}

/* Scores of 16 rows for a tile. */
template <typename T, unsigned HD>
__device__ static inline void score(float (&s)[TILE / 8][4],
                                    const rows16<HD> &r, T *keys)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned n = 0; n < TILE / 8; n++)
#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            s[n][i] = 0.0f;
#pragma unroll
    for (unsigned k = 0; k < HD / 32; k++)
#pragma unroll
        for (unsigned n = 0; n < TILE / 8; n += 2) {
            unsigned m[2][4];

            load_pair<HD, false, false>(
                m, keys, n * 8 + lane / 16 * 8 + lane % 8, k, lane / 8 % 2);
#pragma unroll
            for (unsigned i = 0; i < 2; i++) {
                multiply(s[n], r.high[2 * k + i], m[i]);
                multiply(s[n + 1], r.high[2 * k + i], m[i] + 2);
                multiply(s[n], r.low[2 * k + i], m[i]);
                multiply(s[n + 1], r.low[2 * k + i], m[i] + 2);
            }
        }
}

/* Multiply by the scales of keys (part 0) or values (1). */
template <typename T, unsigned HD>
__device__ static inline void scale_columns(float (&s)[TILE / 8][4],
                                            const tile<T, HD, TILE> *tile,
                                            unsigned part)
{
#pragma unroll
    for (unsigned n = 0; n < TILE / 8; n++)
#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            s[n][i] *= scale_of(tile, part,
                                n * 8 + threadIdx.x % 4 * 2 + i % 2);
}

/* Scores to weights relative to the new tops; `seen` positions of the tile are
 * seen by the thread's first row, 8 more by its second. */
template <unsigned HD>
__device__ static inline void weigh(float (&s)[TILE / 8][4], rows16<HD> &r,
                                    int seen)
{
    const int column = threadIdx.x % 4 * 2;

#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const int end = seen + 8 * (int)half;
        float top = r.top[half];
        float sum = 0.0f;
        float factor;

#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float &v = s[n][2 * half + e];

                if (n * 8 + column + e >= end)
                    v = -INFINITY;
                top = fmaxf(top, v);
            }
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 2));
        factor = exp2f(r.top[half] - top); /* 0 at first */
        r.top[half] = top;
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float &v = s[n][2 * half + e];

                v = exp2f(v - top);
                sum += v;
            }
        r.weight[half] = fmaf(r.weight[half], factor, sum);
#pragma unroll
        for (unsigned n = 0; n < HD / 8; n++) {
            r.sum[n][2 * half] *= factor;
            r.sum[n][2 * half + 1] *= factor;
        }
    }
}

template <typename T, unsigned HD>
__device__ static inline void add_values(rows16<HD> &r,
                                         const float (&s)[TILE / 8][4],
                                         T *values)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned k = 0; k < TILE / 16; k++) {
        unsigned high[4], low[4];

#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            split(high[i], low[i],
                  make_float2(s[2 * k + i / 2][i % 2 * 2],
                              s[2 * k + i / 2][i % 2 * 2 + 1]));
#pragma unroll
        for (unsigned n = 0; n < HD / 8; n += 4) {
            unsigned m[2][4];

            load_pair<HD, true, true>(m, values,
                                      k * 16 + lane / 8 % 2 * 8 + lane % 8,
                                      n / 4, lane / 16);
#pragma unroll
            for (unsigned i = 0; i < 2; i++) {
                multiply(r.sum[n + 2 * i], high, m[i]);
                multiply(r.sum[n + 2 * i + 1], high, m[i] + 2);
                multiply(r.sum[n + 2 * i], low, m[i]);
                multiply(r.sum[n + 2 * i + 1], low, m[i] + 2);
            }
        }
    }
}

template <typename T, unsigned HD>
__device__ static inline void store_rows(const rows16<HD> &r,
                                         const struct prompt &a, float *y,
                                         unsigned t)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const unsigned row = t + lane / 4 + half * 8;
        float weight = r.weight[half];
        float *to = y + row * a.y_stride_t;

        weight += __shfl_xor_sync(0xFFFFFFFFu, weight, 1);
        weight += __shfl_xor_sync(0xFFFFFFFFu, weight, 2);
        weight /= UNIT<T>;
        if (row >= a.T)
            continue;
#pragma unroll
        for (unsigned n = 0; n < HD / 8; n += 2)
#pragma unroll
            for (unsigned e = 0; e < 2; e++) {
                const unsigned i = lane % 4 * 2 + e;
                const float x = r.sum[n][2 * half + e] / weight;
                const float z = r.sum[n + 1][2 * half + e] / weight;

                to[n * 8 + channel_of_row<T>(i)] = kept(x, a.is_split);
                to[n * 8 + channel_of_row<T>(i + 8)] = kept(z, a.is_split);
            }
    }
}

#endif

/* Grid (blocks of rows, query heads, B); the rows that see most come first. */
template <typename T, unsigned HD>
__global__ __launch_bounds__(THREADS) void prompt_kernel(
    const __grid_constant__ struct prompt a)
{
#if __CUDA_ARCH__ >= 800
    extern __shared__ __align__(128) unsigned char memory[];
    tile<T, HD, TILE> *tiles = (tile<T, HD, TILE> *)memory;
    const unsigned t0 = (gridDim.x - 1 - blockIdx.x) * ROWS;
    const unsigned t = t0 + threadIdx.x / 32 * WARP_ROWS;
    const unsigned head = blockIdx.y / a.group;
    const size_t column = (size_t)blockIdx.y * HD;
    const int seq = a.seq[blockIdx.z];
    const int pos = a.pos[blockIdx.z];
    const int length = pos + (int)min(t0 + ROWS, a.T);
    const int n_tiles = (length + TILE - 1) / TILE;
    rows16<HD> r;

    let_next_start();
    wait_for_inputs();
    load_q<T, HD>(r, a, a.qkv + blockIdx.z * a.q_stride_b + column, t);
    for (int i = 0; i < n_tiles + STAGES - 1; i++) {
        const int now = i - (STAGES - 1); /* the tile that is computed */

        if (now >= 0) {
            copies_wait<STAGES - 2>();
            __syncthreads(); /* all have it, and are done with the one before */
        }
        if (i < n_tiles)
            fetch_tile(&tiles[i % STAGES], a.cache,
                       keys_at(a.cache, seq, i * TILE, head), i * TILE,
                       length - i * TILE, threadIdx.x, THREADS);
        copies_end();
        /* the last row of a warp sees 16 positions more than its first */
        if (now >= 0 && now * TILE < pos + (int)t + WARP_ROWS) {
            tile<T, HD, TILE> *tile = &tiles[now % STAGES];
            float s[TILE / 8][4];

            score<T, HD>(s, r, tile->rows[0]);
            scale_columns(s, tile, 0);
            weigh<HD>(s, r,
                      pos + (int)(t + threadIdx.x % 32 / 4) + 1 - now * TILE);
            scale_columns(s, tile, 1);
            add_values<T, HD>(r, s, tile->rows[1]);
        }
    }
    store_rows<T, HD>(r, a, a.y + blockIdx.z * a.y_stride_b + column, t);
#endif
}

template <typename T, unsigned HD>
static cudaError_t launch_prompt(cudaStream_t stream, struct prompt *a,
                                 dim3 grid)
{
    const size_t shared = STAGES * sizeof(tile<T, HD, TILE>);
    const cudaError_t rc = cudaFuncSetAttribute(
        (const void *)prompt_kernel<T, HD>,
        cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);

    a->scale *= UNIT<T>;
    if (rc != cudaSuccess)
        return rc;
    return launch_waiting((const void *)prompt_kernel<T, HD>, grid, THREADS,
                          shared, stream, a);
}

cudaError_t vibe_cuda_attend_prompt(cudaStream_t stream,
                                    const struct vibe_tensor *y,
                                    const struct vibe_tensor *qkv,
                                    const struct vibe_kv *kv, size_t layer,
                                    const struct vibe_rows *rows)
{
    const unsigned n_heads = (unsigned)(y->C / kv->head_dim);
    const dim3 grid((unsigned)((qkv->T + ROWS - 1) / ROWS), n_heads,
                    (unsigned)qkv->B);
    struct prompt a = {cache_of(kv, layer),
                       (const float *)qkv->data,
                       (float *)y->data,
                       qkv->stride_b,
                       qkv->stride_t,
                       y->stride_b,
                       y->stride_t,
                       y->form != VIBE_FORM_PLAIN,
                       (unsigned)qkv->T,
                       group_of(qkv, kv),
                       rows->seq,
                       rows->pos,
                       1.44269504f / sqrtf((float)kv->head_dim)};

    if (kv->dtype == VIBE_F8_E4M3)
        return kv->head_dim == 64 ? launch_prompt<e4m3, 64>(stream, &a, grid)
                                  : launch_prompt<e4m3, 128>(stream, &a, grid);
    return kv->head_dim == 64
               ? launch_prompt<__nv_bfloat16, 64>(stream, &a, grid)
               : launch_prompt<__nv_bfloat16, 128>(stream, &a, grid);
}
