/*
 * mixer.cuh - the columns of a codec block, mixed: see vibe_mixer.
 *
 * A thread has V neighbouring channels of the seven columns that a row reads.
 */
#ifndef VIBE_CUDA_MIXER_CUH
#define VIBE_CUDA_MIXER_CUH

#include "engine/backend/cuda/split.cuh"
#include "engine/backend/ops.h"

enum { TAPS = VIBE_MIXER_TAPS, PAST = TAPS - 1 };

/* [B][T][C] with its strides. */
struct chunk {
    float *data;
    unsigned T;
    size_t stride_b, stride_t;
};

static inline struct chunk chunk_of(const struct vibe_tensor *t)
{
    struct chunk chunk = {(float *)t->data, (unsigned)t->T, t->stride_b,
                          t->stride_t};

    return chunk;
}

__device__ static inline float *row_at(const struct chunk &c, unsigned b,
                                       unsigned t)
{
    return c.data + b * c.stride_b + t * c.stride_t;
}

/* V neighbouring channels. */
template <unsigned V> struct vec {
    float e[V];
};

__device__ static inline vec<4> read4(const float *p)
{
    const float4 v = *(const float4 *)p;

    return {v.x, v.y, v.z, v.w};
}

template <unsigned V> __device__ static inline vec<V> read(const float *p)
{
    if constexpr (V == 4)
        return read4(p);
    else
        return {*p};
}

template <unsigned V>
__device__ static inline void write(float *p, const vec<V> &v)
{
    if constexpr (V == 4)
        *(float4 *)p = make_float4(v.e[0], v.e[1], v.e[2], v.e[3]);
    else
        *p = v.e[0];
}

/* The same to global memory, in one piece: a compiler may else take the four
 * apart. */
template <unsigned V>
__device__ static inline void write_out(float *p, const vec<V> &v)
{
    if constexpr (V == 4)
        __stwb((float4 *)p, make_float4(v.e[0], v.e[1], v.e[2], v.e[3]));
    else
        *p = v.e[0];
}

struct mixer {
    struct chunk y, normed, state, past, x;
    struct vibe_mixer w;
    unsigned C, n_rows;
    unsigned width; /* threads of a row, a power of two */
    bool is_split;  /* normed: see split.cuh */
};

/* The same of words that are split where is_split. */
template <unsigned V>
__device__ static inline void write_kept(float *p, vec<V> v, bool is_split)
{
#pragma unroll
    for (unsigned e = 0; e < V; e++)
        v.e[e] = kept(v.e[e], is_split);
    write<V>(p, v);
}

template <unsigned V>
__device__ static inline float add_squares(float sum, const vec<V> &v)
{
#pragma unroll
    for (unsigned e = 0; e < V; e++)
        sum = fmaf(v.e[e], v.e[e], sum);
    return sum;
}

/* Of rsqrtf 2^-22 is lost, less than of the sum. */
__device__ static inline float factor_of(float squares, const struct mixer &a)
{
    return rsqrtf(fmaf(squares, 1.0f / (float)a.C, a.w.eps));
}

/* The weights of V channels. */
template <unsigned V> struct weights {
    vec<V> norm, taps[TAPS], bias, gamma, next_norm;
};

template <unsigned V>
__device__ static inline weights<V> load_weights(const struct mixer &a,
                                                 unsigned c)
{
    weights<V> w;

    w.norm = read<V>(a.w.norm + c);
#pragma unroll
    for (unsigned j = 0; j < TAPS; j++)
        w.taps[j] = read<V>(a.w.taps + (size_t)j * a.C + c);
    w.bias = read<V>(a.w.bias + c);
    w.gamma = read<V>(a.w.gamma + c);
    w.next_norm = read<V>(a.w.next_norm + c);
    return w;
}

template <unsigned V>
__device__ static inline vec<V> scale(vec<V> v, float factor, const vec<V> &by)
{
#pragma unroll
    for (unsigned e = 0; e < V; e++)
        v.e[e] = v.e[e] * factor * by.e[e];
    return v;
}

/* x + gamma * (bias + the taps over the columns before and at it). */
template <unsigned V>
__device__ static inline vec<V> mix(vec<V> x, const vec<V> (&column)[TAPS],
                                    const weights<V> &w)
{
    vec<V> sum = w.bias;

#pragma unroll
    for (unsigned j = 0; j < TAPS; j++)
#pragma unroll
        for (unsigned e = 0; e < V; e++)
            sum.e[e] = fmaf(w.taps[j].e[e], column[j].e[e], sum.e[e]);
#pragma unroll
    for (unsigned e = 0; e < V; e++)
        x.e[e] = fmaf(w.gamma.e[e], sum.e[e], x.e[e]);
    return x;
}

/* Norm column j of those of ROWS rows from t on, unless it is of the past,
 * and mix the row that it belongs to. */
template <unsigned ROWS>
__device__ static inline void mix_next(vec<4> (&y)[ROWS],
                                       vec<4> (&column)[ROWS + PAST],
                                       unsigned j, float factor, unsigned t,
                                       const weights<4> &w)
{
    const vec<4> x = column[j];

    if (t + j >= PAST)
        column[j] = scale<4>(x, factor, w.norm);
    if (j >= PAST)
        y[j - PAST] = mix<4>(x, *(const vec<4>(*)[TAPS])(column + j - PAST), w);
}

/* The columns of row t of b, from channel c on. */
template <unsigned V>
__device__ static inline void load_columns(vec<V> (&column)[TAPS],
                                           const struct mixer &a, unsigned b,
                                           unsigned t, unsigned c)
{
#pragma unroll
    for (unsigned j = 0; j < TAPS; j++)
        column[j] = read<V>((t + j < PAST ? row_at(a.past, b, t + j)
                                          : row_at(a.x, b, t + j - PAST)) +
                            c);
}

/* Norm those of the chunk, whose squares these are over all channels, and keep
 * what is part of the state. */
template <unsigned V>
__device__ static inline void norm_columns(vec<V> (&column)[TAPS],
                                           const float (&squares)[TAPS],
                                           const struct mixer &a, unsigned b,
                                           unsigned t, unsigned c,
                                           const vec<V> &norm)
{
#pragma unroll
    for (unsigned j = 0; j < TAPS; j++) {
        if (t + j >= PAST)
            column[j] = scale<V>(column[j], factor_of(squares[j], a), norm);
        /* of a short chunk, some of the past is still to be kept */
        if (t == 0 && j >= a.x.T && j < PAST)
            write_out<V>(row_at(a.state, b, j - a.x.T) + c, column[j]);
    }
    if (t + PAST >= a.x.T)
        write_out<V>(row_at(a.state, b, t + PAST - a.x.T) + c, column[PAST]);
}

#endif /* VIBE_CUDA_MIXER_CUH */
