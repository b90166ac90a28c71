/*
 * columns_sums.cuh - where the sums of gemm_tiles.cu meet, and how they are
 * finished.
 *
 * Those of several teams meet in shared memory, rows of them beside each other,
 * and those of several blocks in global memory; a team on its own finishes them
 * in its registers.  S is the shape of a tile, see there.
 */
#ifndef VIBE_CUDA_COLUMNS_SUMS_CUH
#define VIBE_CUDA_COLUMNS_SUMS_CUH

#include "engine/backend/cuda/columns_feed.cuh"

#if __CUDA_ARCH__ >= 800

/* Whether outputs, and what they need, can be moved by 16 bytes. */
__device__ static inline bool is_even_by_16(const epilogue &e)
{
    return e.N % 4 == 0 && e.y.stride_b % 4 == 0 && e.y.stride_t % 4 == 0 &&
           (size_t)e.y.data % 16 == 0 && e.kind != VIBE_SWIGLU &&
           e.kind != VIBE_GATE_ADD;
}

/* Where four outputs of a row end up, and what they need. */
struct finisher {
    float4 scale, bias, gamma;
    unsigned n;
    bool is_even; /* by 16 bytes */

    __device__ inline void open(const epilogue &e, unsigned first)
    {
        const float4 one = make_float4(1.0f, 1.0f, 1.0f, 1.0f);

        n = first;
        is_even = is_even_by_16(e);
        scale = gamma = one;
        bias = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (!is_even || n >= e.N)
            return;
        if (e.scale)
            scale = *(const float4 *)(e.scale + n);
        if (e.bias)
            bias = *(const float4 *)(e.bias + n);
        if (e.gamma)
            gamma = *(const float4 *)(e.gamma + n);
    }

    __device__ inline float4 read(const epilogue &e, size_t y_at) const
    {
        return e.kind == VIBE_ADD ? *(const float4 *)(e.y.data + y_at + n)
                                  : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }

    __device__ inline void store(const epilogue &e, size_t y_at, float4 sum,
                                 float4 old) const
    {
        const operands o[4] = {{scale.x, bias.x, gamma.x, old.x},
                               {scale.y, bias.y, gamma.y, old.y},
                               {scale.z, bias.z, gamma.z, old.z},
                               {scale.w, bias.w, gamma.w, old.w}};
        const float z[4] = {sum.x * scale.x + bias.x, sum.y * scale.y + bias.y,
                            sum.z * scale.z + bias.z, sum.w * scale.w + bias.w};

        *(float4 *)(e.y.data + y_at + n) = kept(
            make_float4(
                finished(e.kind, o[0], z[0]), finished(e.kind, o[1], z[1]),
                finished(e.kind, o[2], z[2]), finished(e.kind, o[3], z[3])),
            e.y.is_split);
    }
};

__device__ static inline float4 plus(const float4 &a, const float4 &b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* What n teams have left of four outputs, one after the other. */
__device__ static inline float4 add_teams(const float *sums, unsigned n,
                                          unsigned distance)
{
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

#pragma unroll 1
    for (unsigned i = 0; i < n; i++, sums += distance)
        sum = plus(sum, *(const float4 *)sums);
    return sum;
}

/*
 * Leave the sums of this part of K in memory.  Returns true in the block that
 * comes last, with those of all parts where one team's were.
 */
template <class S>
__device__ static inline bool meet(const columns &a, float *sums)
{
    __shared__ unsigned arrived;
    const unsigned tile = blockIdx.y * gridDim.x + blockIdx.x;
    float4 *partial = (float4 *)a.partial +
                      (size_t)tile * a.parts * S::EACH * S::ALL + threadIdx.x;

    sums += threadIdx.x / S::FOURS * S::SUMS_ROW + threadIdx.x % S::FOURS * 4;
#pragma unroll
    for (int i = 0; i < S::EACH; i++)
        partial[(blockIdx.z * S::EACH + i) * S::ALL] = add_teams(
            sums + i * S::STEP * S::SUMS_ROW, S::TEAMS, S::SUMS);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        arrived = atomicAdd(&a.done[tile], 1) + 1;
    __syncthreads();
    if (arrived != a.parts)
        return false;
    __threadfence();
    if (threadIdx.x == 0)
        a.done[tile] = 0;
#pragma unroll
    for (int i = 0; i < S::EACH; i++) {
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

        for (unsigned part = 0; part < a.parts; part++)
            sum = plus(sum, __ldcg(&partial[(part * S::EACH + i) * S::ALL]));
        *(float4 *)(sums + i * S::STEP * S::SUMS_ROW) = sum;
    }
    return true;
}

/* Finish the sums that so many teams have of a tile.  Loops stay short: a block
 * runs through them once, and would wait for instructions. */
template <class S>
__device__ static inline void finish_tile(const columns &a, const float *sums,
                                          unsigned n_teams, const finisher &f,
                                          unsigned m0)
{
    enum { BATCH = S::EACH < 4 ? S::EACH : 4 };
    const float *from = sums + threadIdx.x / S::FOURS * S::SUMS_ROW +
                        threadIdx.x % S::FOURS * 4;
    unsigned m = m0 + threadIdx.x / S::FOURS;
    unsigned t = m % a.e.T;
    size_t dialogue = m / a.e.T * a.e.y.stride_b;

    if (f.n >= a.e.N)
        return;
#pragma unroll 1
    for (int i = 0; i < S::EACH; i += BATCH) {
        float4 old[BATCH];
        unsigned y_at[BATCH];

#pragma unroll
        for (int j = 0; j < BATCH; j++) {
            y_at[j] = (unsigned)(dialogue + t * a.e.y.stride_t);
            if (f.is_even && m + j * S::STEP < a.n_rows)
                old[j] = f.read(a.e, y_at[j]);
            for (t += S::STEP; t >= a.e.T; t -= a.e.T)
                dialogue += a.e.y.stride_b;
        }
#pragma unroll 1
        for (int j = 0; j < BATCH;
             j++, m += S::STEP, from += S::STEP * S::SUMS_ROW) {
            const float4 sum = add_teams(from, n_teams, S::SUMS);

            if (m >= a.n_rows)
                return;
            if (f.is_even) {
                f.store(a.e, y_at[0], sum, old[0]);
            } else {
                store_two(a.e, m, f.n, sum.x, sum.y);
                store_two(a.e, m, f.n + 2, sum.z, sum.w);
            }
#pragma unroll
            for (int k = 0; k + 1 < BATCH; k++) {
                y_at[k] = y_at[k + 1];
                old[k] = old[k + 1];
            }
        }
    }
}

/* What a tile's outputs need, in shared memory. */
template <class S> struct ends {
    float scale[S::OUTPUTS], bias[S::OUTPUTS], gamma[S::OUTPUTS];

    __device__ inline void fetch(const epilogue &e, unsigned n0)
    {
        for (unsigned i = threadIdx.x; i < 3 * S::FOURS; i += S::ALL) {
            const float *from = i < S::FOURS         ? e.scale
                                : i < 2 * S::FOURS   ? e.bias
                                : e.kind == VIBE_ADD ? e.gamma
                                                     : NULL;
            const float none = i / S::FOURS == 1 ? 0.0f : 1.0f;
            const unsigned n = n0 + i % S::FOURS * 4;

            if (from)
                copy_async<16>(scale + 4 * i, from + min(n, e.N - 4), true);
            else
                *(float4 *)(scale + 4 * i) = make_float4(none, none, none,
                                                         none);
        }
    }
};

/* A lane's sums of a tile on their way out: of rows eight from each other, two
 * of every eight outputs. */
template <class S> struct outlet {
    float2 old[S::SPAN], next[S::SPAN];
    unsigned m, t, n;
    size_t dialogue;

    __device__ inline void open(const epilogue &e, unsigned row,
                                unsigned output)
    {
        m = row;
        n = output;
        t = m % e.T;
        dialogue = m / e.T * e.y.stride_b;
    }

    __device__ inline float *row(const epilogue &e) const
    {
        return e.y.data + dialogue + t * e.y.stride_t + n;
    }

    __device__ inline void step(const epilogue &e)
    {
        m += 8;
        for (t += 8; t >= e.T; t -= e.T)
            dialogue += e.y.stride_b;
    }

    /* Read what is added to this row, while the one before is finished. */
    __device__ inline void load(const columns &a)
    {
        if (a.e.kind != VIBE_ADD || m >= a.n_rows)
            return;
#pragma unroll
        for (int j = 0; j < S::SPAN; j++)
            if (n + 8 * j < a.e.N)
                next[j] = *(const float2 *)(row(a.e) + 8 * j);
    }

    template <bool IS_GELU>
    __device__ inline void store(const columns &a, float sums[S::SPAN][4],
                                 float *y, unsigned row, const ends<S> &end,
                                 unsigned at) const
    {
        if (row >= a.n_rows)
            return;
#pragma unroll
        for (int j = 0; j < S::SPAN; j++) {
            const float2 scale = *(const float2 *)(end.scale + at + 8 * j);
            const float2 bias = *(const float2 *)(end.bias + at + 8 * j);
            const float2 mul = *(const float2 *)(end.gamma + at + 8 * j);
            float2 z = make_float2(sums[j][0] * scale.x + bias.x,
                                   sums[j][1] * scale.y + bias.y);

            if (IS_GELU)
                z = make_float2(gelu(z.x), gelu(z.y));
            else
                z = make_float2(old[j].x + mul.x * z.x, old[j].y + mul.y * z.y);
            z = make_float2(kept(z.x, a.e.y.is_split),
                            kept(z.y, a.e.y.is_split));
            if (n + 8 * j < a.e.N)
                *(float2 *)(y + 8 * j) = z;
        }
    }

    /* Row after row, which all pass through the first; at: of this lane's first
     * output in the tile. */
    template <bool IS_GELU>
    __device__ inline void run(const columns &a,
                               float (&sums)[HEIGHT][S::SPAN][4],
                               const ends<S> &end, unsigned at)
    {
#pragma unroll
        for (int j = 0; j < S::SPAN; j++)
            next[j] = make_float2(0.0f, 0.0f);
        load(a);
#pragma unroll 1
        for (int i = 0; i < 2 * HEIGHT; i++) {
            float *y = row(a.e);
            const unsigned here = m;

#pragma unroll
            for (int j = 0; j < S::SPAN; j++)
                old[j] = next[j];
            step(a.e);
            if (i + 1 < 2 * HEIGHT)
                load(a);
            store<IS_GELU>(a, sums[0], y, here, end, at);
#pragma unroll
            for (int j = 0; j < S::SPAN; j++)
#pragma unroll
                for (int k = 0; k < 2; k++) {
                    sums[0][j][k] = sums[0][j][k + 2];
                    sums[0][j][k + 2] = sums[1][j][k];
                    sums[1][j][k] = sums[1][j][k + 2];
                }
        }
    }
};

/* m, n: where a warp's sums are in the tile */
template <class S>
__device__ static inline void store_sums(const columns &a,
                                         float (&sums)[HEIGHT][S::SPAN][4],
                                         const ends<S> &end, unsigned m,
                                         unsigned n)
{
    const unsigned at = n + threadIdx.x % 4 * 2;
    outlet<S> out;

    out.open(a.e, blockIdx.y * S::ROWS + m + threadIdx.x % 32 / 4,
             blockIdx.x * S::OUTPUTS + at);
    if (a.e.kind == VIBE_GELU)
        out.template run<true>(a, sums, end, at);
    else
        out.template run<false>(a, sums, end, at);
}

#endif

#endif /* VIBE_CUDA_COLUMNS_SUMS_CUH */
