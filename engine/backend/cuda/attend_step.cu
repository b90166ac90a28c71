/*
 * attend_step.cu - one new row of each sequence, on tensor cores: its rotary
 * position, its place in the cache, and attention to its past.
 *
 * A block takes a part of a past of one KV head for all query heads that share
 * it, and each of its warps tiles of 16 positions from end to end: no warp
 * waits for another before all have their sums.
 *
 * Nothing but the row itself is new: tiles are on their way before the kernel
 * ahead has ended.  Bound by reading keys and values; a short past by the
 * latency of what follows one another.
 */
#include "engine/backend/cuda/attend_warp.cuh"
#include "engine/backend/cuda/device.h"
#include "engine/backend/cuda/digits.cuh"
#include "engine/backend/cuda/launch.cuh"

enum {
    /* tiles that a warp holds, where they fit */
    MAX_DEPTH = 2,
    F8_DEPTH = 3,  /* of e4m3, with room beside for a block of a product */
    FEW_WARPS = 8, /* of a block of e4m3, or where shared memory is small */
};

static_assert(int(FEW_WARPS) >= int(HEADS), "a warp turns a head");

#if __CUDA_ARCH__ >= 800

/* Warps that have tiles of a part. */
template <unsigned WARPS>
__device__ static inline unsigned busy_warps(const struct part &p)
{
    return min(WARPS, p.end - p.first);
}

/* What a head's channels turn by in what a warp leaves of its sums, so that
 * lanes of four heads meet in no bank. */
__device__ static inline unsigned turn_of(unsigned head)
{
    return head / 2 % 4 * 8;
}

/* Leave nothing. */
template <typename T, unsigned HD>
__device__ static inline void leave_none(desk<T, HD> *d)
{
    if (this_thread() % 32 < HEADS)
        d->scores[this_thread() / 32][this_thread() % 32] = make_float2(
            -INFINITY, 0.0f);
}

/* Leave sums, tops and weights where its tiles were. */
template <typename T, unsigned HD>
__device__ static inline void leave(desk<T, HD> *d, unsigned depth,
                                    const work<HD> &w)
{
    const unsigned lane = this_thread() % 32;
    const unsigned warp = this_thread() / 32;
    const unsigned head = lane % 4 * 2;
    const unsigned turn = turn_of(head);
    const unsigned of_pair[2] = {turn & 16, ~turn & 16}; /* k even, odd */
    float *sums = (float *)ring_of(d, depth, warp) + head * HD;
    float weight = w.weight;

    static_assert(sizeof(tile<T, HD, TILE>) >= HEADS * HD * 4, "room for sums");
    weight += __shfl_xor_sync(0xFFFFFFFFu, weight, 1);
    weight += __shfl_xor_sync(0xFFFFFFFFu, weight, 2);
    if (lane % 4 == 0)
        d->scores[warp][lane / 4] = make_float2(w.top, weight);
#pragma unroll
    for (unsigned k = 0; k < HD / 16; k++)
#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            const unsigned c = channel_of_row<T>(lane / 4) ^ (turn & 8);
            float *to = sums + i * HD + k / 2 * 32 + of_pair[k % 2] + c;

            if constexpr (is_f8<T>) {
                *(float2 *)to = make_float2(w.sum[k][i], w.sum[k][i + 2]);
            } else {
                to[0] = w.sum[k][i];
                to[8 - (int)(turn & 8) * 2] = w.sum[k][i + 2];
            }
        }
}

/* Quad i of a block, of what n warps have left.  What sums are multiplied by is
 * worked out while they are on their way. */
template <typename T, unsigned HD, unsigned WARPS>
__device__ static inline quad gather(desk<T, HD> *d, unsigned depth, unsigned n,
                                     unsigned i)
{
    enum { SOME = 4 }; /* warps whose sums are read together */
    const unsigned head = i / (HD / 4);
    const unsigned at = head * HD + (i % (HD / 4) * 4 ^ turn_of(head));
    const float4 *sums = (const float4 *)((const float *)(d + 1) + at);
    const unsigned step = depth * sizeof(tile<T, HD, TILE>) / sizeof(*sums);
    quad q = {make_float4(0.0f, 0.0f, 0.0f, 0.0f), -INFINITY, 0.0f};
    float2 scores[WARPS];

#pragma unroll
    for (unsigned warp = 0; warp < WARPS; warp++) {
        scores[warp] = d->scores[warp][head];
        q.top = fmaxf(q.top, scores[warp].x);
    }
#pragma unroll
    for (unsigned first = 0; first < WARPS; first += SOME)
        if (first == 0 || first < n) {
            float4 v[SOME];

#pragma unroll
            for (unsigned j = 0; j < SOME; j++, sums += step)
                v[j] = first + j < n ? *sums
                                     : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
            for (unsigned j = 0; j < SOME; j++)
                append(q, v[j], scores[first + j].x, scores[first + j].y);
        }
    return q;
}

/* What a quad of the row comes to. */
template <typename T> __device__ static inline float4 finished(const quad &q)
{
    const float f = UNIT<T> / q.weight;

    return make_float4(q.sum.x * f, q.sum.y * f, q.sum.z * f, q.sum.w * f);
}

/* Store quad i of the row; in digits all lanes of a warp come, with quads side
 * by side. */
template <unsigned HD, bool IN_DIGITS>
__device__ static inline void store_quad(const struct step &a,
                                         const struct part &p, unsigned i,
                                         float4 v, bool is_there)
{
    float *row = a.y + p.row * a.y_stride;
    const unsigned c = p.head * a.group * HD + i * 4;

    if (IN_DIGITS)
        write_digits(row, c, v, is_there);
    else if (is_there)
        keep_at(row, c, v, a.how);
}

/* Finish the row, or tell the other parts of its past what this one has found;
 * a thread has a quad. */
template <typename T, unsigned HD, unsigned WARPS, bool IN_DIGITS>
__device__ static inline void post(desk<T, HD> *d, const struct step &a,
                                   const struct part &p)
{
    const unsigned n = a.group * HD / 4;
    const unsigned i = this_thread();
    quad q;

    static_assert(HEADS * HD / 4 <= 32 * WARPS, "a thread for each");
    if ((IN_DIGITS ? i / 32 * 32 : i) >= n)
        return;
    q = gather<T, HD, WARPS>(d, a.depth, busy_warps<WARPS>(p), i);
    if (p.n == 1) {
        store_quad<HD, IN_DIGITS>(a, p, i, finished<T>(q), i < n);
    } else if (i < n) {
        letter<HD> *to = letter_of<HD>(p, a, p.i);

        send(&to->sums[i], q.sum);
        if (i % GROUP == 0)
            send(&to->scores[i / GROUP],
                 make_float4(q.top, q.weight, 0.0f, 0.0f));
    }
}

/* Bring near what this part will read of letters, a line of groups each. */
template <unsigned HD, unsigned WARPS>
__device__ static inline void prefetch_letters(const struct step &a,
                                               const struct part &p)
{
    enum { LINE = 128 / sizeof(float4) };

#pragma unroll 1
    for (unsigned k = this_thread(); k < p.n; k += 32 * WARPS) {
        const letter<HD> *from = letter_of<HD>(p, a, k);

#pragma unroll 1
        for (unsigned i = p.first_group * GROUP; i < p.end_group * GROUP;
             i += LINE)
            prefetch_kept(&from->sums[i]);
        if (p.first_group < p.end_group)
            prefetch_kept(&from->scores[p.first_group]);
    }
}

/* Store in digits, of which a tile's are made together, the quads from the
 * first one on that the block has finished. */
template <unsigned HD, unsigned WARPS>
__device__ static inline void store_finished(const float4 *quads,
                                             const struct step &a,
                                             const struct part &p,
                                             unsigned first)
{
    const unsigned n = min(WARPS * GROUP, p.end_group * GROUP - first);
    const unsigned i = this_thread();

    __syncthreads();
    if (i / 32 * 32 < n)
        store_quad<HD, true>(a, p, first + i, quads[i % (WARPS * GROUP)],
                             i < n);
    __syncthreads();
}

/* Finish the groups of quads that are this part's to finish, a warp each.
 * Those in digits meet where queries were, which nobody reads any more. */
template <typename T, unsigned HD, unsigned WARPS, bool IN_DIGITS>
__device__ static inline void share(desk<T, HD> *d, const struct step &a,
                                    const struct part &p)
{
    const unsigned warp = this_thread() / 32;
    const unsigned lane = this_thread() % 32;
    float4 *quads = (float4 *)d->q;

    static_assert(WARPS % TILE_GROUPS == 0, "a block finishes whole tiles");
    static_assert(sizeof(d->q) >= WARPS * GROUP * sizeof(*quads), "room");
#pragma unroll 1
    for (unsigned i = p.first_group; i < p.end_group; i += WARPS) {
        if (i + warp < p.end_group) {
            const quad q = collect<HD>(letter_of<HD>(p, a, 0), p.n, i + warp);
            const float4 y = finished<T>(q);

            if (!IN_DIGITS)
                store_quad<HD, false>(a, p, (i + warp) * GROUP + lane, y,
                                      lane < GROUP);
            else if (lane < GROUP)
                quads[warp * GROUP + lane] = y;
        }
        if (IN_DIGITS)
            store_finished<HD, WARPS>(quads, a, p, i * GROUP);
    }
}

/* Begin reading what a part will need. */
template <typename T, unsigned HD, unsigned WARPS>
__device__ static inline void begin_part(desk<T, HD> *d, const struct step &a,
                                         const struct part &p)
{
    begin_tiles<T, HD, WARPS>(d, a, p);
    if (p.n > 1)
        prefetch_letters<HD, WARPS>(a, p);
}

/* A part from then on until its letter is on its way. */
template <typename T, unsigned HD, unsigned WARPS, bool IN_DIGITS>
__device__ static inline void do_part(desk<T, HD> *d, const struct step &a,
                                      const struct part &p,
                                      const float (&inv_freq)[HD / 64])
{
    row_ahead<T, HD> row;
    work<HD> w;

    look_ahead(row, a, p, inv_freq);
    wait_for_inputs();
    let_next_start(); /* what it reads ahead comes after what we do */
    take_row<T, HD>(d, row);
    __syncthreads();
    if (this_thread() / 32 < busy_warps<WARPS>(p)) {
        begin_work<T, HD>(w, d);
        add_tiles<T, HD, WARPS, WARPS == FEW_WARPS ? 1 : 2>(w, d, a, p);
        leave<T, HD>(d, a.depth, w);
    } else {
        leave_none<T, HD>(d);
    }
    __syncthreads();
    post<T, HD, WARPS, IN_DIGITS>(d, a, p);
}

#endif

/* Grid: as many blocks as may wait for each other, or parts there can be.  The
 * next part's tiles are on their way while this one waits for letters. */
template <typename T, unsigned HD, unsigned WARPS, bool IN_DIGITS>
__global__ __launch_bounds__(32 * WARPS, 1) void step_kernel(
    const __grid_constant__ struct step a)
{
#if __CUDA_ARCH__ >= 800
    extern __shared__ __align__(128) unsigned char memory[];
    desk<T, HD> *d = (desk<T, HD> *)memory;
    unsigned i = blockIdx.x;
    float inv_freq[HD / 64];
    struct part p, next;
    bool is_there;

    /* the next kernel waits for all blocks; those that have nothing to do where
     * pasts are short leave it to the others when it starts */
    if (blockIdx.x >= a.n_rows * a.cache.n_kv_heads)
        let_next_start();
#pragma unroll
    for (unsigned k = 0; k < HD / 64; k++)
        inv_freq[k] = load_kept(&a.by.inv_freq[channel_of_pair<HD>(k)]);
    is_there = find_part<HD, IN_DIGITS>(p, a, i);
    if (is_there)
        begin_part<T, HD, WARPS>(d, a, p);
#pragma unroll 1
    while (is_there) {
        do_part<T, HD, WARPS, IN_DIGITS>(d, a, p, inv_freq);
        is_there = false;
        i += gridDim.x;
        if (i < p.n_all) {
            __syncthreads(); /* its shared memory is the next one's */
            is_there = find_part<HD, IN_DIGITS>(next, a, i);
            if (is_there)
                begin_part<T, HD, WARPS>(d, a, next);
        }
        if (p.n > 1)
            share<T, HD, WARPS, IN_DIGITS>(d, a, p);
        p = next;
    }
#endif
}

/*
 * Parts of one long past, for all its KV heads: as many as can begin at once,
 * ahead of the row.  The product that makes the row has a block for 16 outputs,
 * two on a multiprocessor.  What these leave free, if it is half of the
 * multiprocessors, is enough, but for a few that other rows need; else all but
 * a sixth, for on the others it is in its last turn.
 */
static unsigned parts_of(const struct vibe_cuda *cuda,
                         const struct vibe_tensor *qkv,
                         const struct vibe_kv *kv)
{
    const unsigned n_sm = (unsigned)cuda->n_sm;
    const unsigned busy = ((unsigned)qkv->C + 31) / 32;
    const unsigned begin = busy <= n_sm / 2 ? 15 * (n_sm - busy) / 16
                                            : 5 * n_sm / 6;
    const unsigned n = begin / (unsigned)kv->n_kv_heads;
    const unsigned tiles = (unsigned)(kv->max_blocks * kv->block_tokens) / TILE;

    return max(1u, min(min(n, (unsigned)MAX_PARTS), tiles / LEAST));
}

size_t vibe_cuda_attend_step_mail(const struct vibe_cuda *cuda,
                                  const struct vibe_tensor *qkv,
                                  const struct vibe_kv *kv)
{
    return kv->n_seqs * kv->n_kv_heads * parts_of(cuda, qkv, kv) *
           (kv->head_dim == 64 ? sizeof(letter<64>) : sizeof(letter<128>));
}

/* Blocks of a kernel that run at once; 0 after an error. */
static unsigned slots_of(const struct vibe_cuda *cuda, const void *kernel,
                         unsigned threads, size_t shared)
{
    int n = 0;

    if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&n, kernel, (int)threads,
                                                      shared) != cudaSuccess)
        return 0;
    return (unsigned)(n * cuda->n_sm);
}

/* Launch with blocks that all run at once: those of a past wait for each
 * other. */
static cudaError_t launch_at_once(const struct vibe_cuda *cuda,
                                  const void *kernel, unsigned threads,
                                  size_t shared, struct step *a)
{
    const unsigned n = a->most_parts * a->cache.n_kv_heads * a->n_rows;
    const unsigned slots = slots_of(cuda, kernel, threads, shared);

    if (slots < a->most_parts)
        return cudaErrorCooperativeLaunchTooLarge;
    return launch_waiting(kernel, dim3(min(n, slots)), threads, shared,
                          cuda->compute, a);
}

/* Launch a kernel of so many warps with room for so many tiles of each. */
template <typename T, unsigned HD, unsigned WARPS>
static cudaError_t launch_warps(const struct vibe_cuda *cuda, struct step *a)
{
    const void *kernel = a->how.is_in_digits
                             ? (const void *)step_kernel<T, HD, WARPS, true>
                             : (const void *)step_kernel<T, HD, WARPS, false>;
    const size_t shared = sizeof(desk<T, HD>) +
                          a->depth * WARPS * sizeof(tile<T, HD, TILE>);
    cudaError_t rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);

    if (rc == cudaSuccess)
        rc = cudaFuncSetAttribute(
            kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
            cudaSharedmemCarveoutMaxShared);
    if (rc != cudaSuccess)
        return rc;
    return launch_at_once(cuda, kernel, 32 * WARPS, shared, a);
}

/* Many warps, each with two tiles at once, where there is room; e4m3 has been
 * quicker without, 25 us of 28 layers at short and at long pasts. */
template <typename T, unsigned HD>
static cudaError_t launch_step(const struct vibe_cuda *cuda, struct step *a)
{
    const size_t tiles = (shared_limit(cuda) - sizeof(desk<T, HD>)) /
                         sizeof(tile<T, HD, TILE>);

    a->scale *= UNIT<T>;
    a->depth = (unsigned)min(tiles / FEW_WARPS,
                             (size_t)(is_f8<T> ? F8_DEPTH : MAX_DEPTH));
    if constexpr (!is_f8<T>)
        if (tiles >= MAX_DEPTH * MAX_WARPS)
            return launch_warps<T, HD, MAX_WARPS>(cuda, a);
    return launch_warps<T, HD, FEW_WARPS>(cuda, a);
}

cudaError_t vibe_cuda_attend_step(const struct vibe_cuda *cuda,
                                  const struct vibe_tensor *y,
                                  const struct vibe_tensor *qkv,
                                  const struct vibe_kv *kv, size_t layer,
                                  const struct vibe_rows *rows,
                                  const struct vibe_rope *rope, void *mail)
{
    struct step a = {cache_of(kv, layer),
                     (const float *)qkv->data,
                     (float *)y->data,
                     qkv->stride_b,
                     y->stride_b,
                     keeping_of(y),
                     rows->seq,
                     rows->pos,
                     *rope,
                     1.44269504f / sqrtf((float)kv->head_dim),
                     group_of(qkv, kv),
                     (unsigned)qkv->B,
                     parts_of(cuda, qkv, kv),
                     1,
                     mail};

    if (kv->dtype == VIBE_F8_E4M3)
        return kv->head_dim == 64 ? launch_step<e4m3, 64>(cuda, &a)
                                  : launch_step<e4m3, 128>(cuda, &a);
    return kv->head_dim == 64 ? launch_step<__nv_bfloat16, 64>(cuda, &a)
                              : launch_step<__nv_bfloat16, 128>(cuda, &a);
}
