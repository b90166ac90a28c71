/* epilogue.cuh - what happens to a sum before it is stored (ops.h). */
#ifndef VIBE_CUDA_EPILOGUE_CUH
#define VIBE_CUDA_EPILOGUE_CUH

#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/matrix.h"
#include "engine/backend/cuda/split.cuh"

/* Row m = b * T + t of a tensor. */
struct view {
    float *data;
    size_t stride_b, stride_t;
    bool is_split, is_woven, is_in_digits; /* see split.cuh */
};

static inline struct view view_of(const struct vibe_tensor *t)
{
    struct view v = {NULL, 0, 0, false, false, false};

    if (t) {
        v.data = (float *)t->data;
        v.stride_b = t->stride_b;
        v.stride_t = t->stride_t;
        v.is_split = keeping_of(t).is_split;
        v.is_woven = keeping_of(t).is_woven;
        v.is_in_digits = keeping_of(t).is_in_digits;
    }
    return v;
}

__device__ static inline size_t row_at(const struct view &v, unsigned T,
                                       unsigned m)
{
    return m / T * v.stride_b + m % T * v.stride_t;
}

__device__ static inline void put(const struct view &v, size_t at, float value)
{
    v.data[at] = kept(value, v.is_split);
}

/* Everything a kernel needs besides its sums. */
struct epilogue {
    const float *scale, *bias, *gamma; /* [N] or NULL */
    struct view y, gate;
    unsigned N, T;
    enum vibe_epilogue kind;
};

static inline struct epilogue epilogue_of(const struct vibe_cuda_product *p)
{
    struct epilogue e;

    e.scale = p->w->part[0].scale;
    e.bias = p->w->bias;
    e.gamma = p->w->gamma;
    e.y = view_of(p->y);
    e.gate = view_of(p->gate);
    e.N = (unsigned)p->w->N;
    e.T = (unsigned)p->x->T;
    e.kind = p->epilogue;
    return e;
}

/* 1 / x and 2^x to 2^-22, without the care for what is too small. */
__device__ static inline float inverse_of(float x)
{
    float y;

    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ static inline float power_of_2(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* max(z, 0) - |z| / 2 erfc(|z| / sqrt 2), of which erfc / 2 is a power of 2:
 * within 6.4e-7, most of it rounding, no worse than with erff, in a third of
 * the instructions.  The exponent falls for all |z|, whose scale makes the
 * leading coefficient -1.  x is rounded in every kernel alike, never part of a
 * multiply-add: a row must not depend on which kernel made it. */
__device__ static inline float gelu(float z)
{
    const float x = __fmul_rn(fabsf(z), 0.216287008f);
    float p = 3.23738418f - x;

    p = fmaf(x, p, -5.12234784f);
    p = fmaf(x, p, -9.83308286f);
    p = fmaf(x, p, -5.32065205f);
    p = fmaf(x, p, 1.20894347f);
    return fmaf(-x, power_of_2(p), fmaxf(z, 0.0f));
}

__device__ static inline float silu(float z)
{
    return z * inverse_of(1.0f + power_of_2(-1.44269504f * z));
}

/* What an output needs, read ahead of its sum. */
struct operands {
    float scale, bias, mul, old;
};

__device__ static inline struct operands read_operands(const struct epilogue &e,
                                                       size_t y_at,
                                                       size_t gate_at, size_t n)
{
    struct operands o = {1.0f, 0.0f, 1.0f, 0.0f};

    if (e.scale)
        o.scale = e.scale[n];
    if (e.bias)
        o.bias = e.bias[n];
    if (e.kind == VIBE_ADD || e.kind == VIBE_GATE_ADD)
        o.old = e.y.data[y_at + n];
    if (e.kind == VIBE_ADD && e.gamma)
        o.mul = e.gamma[n];
    if (e.kind == VIBE_GATE_ADD)
        o.mul = e.gate.data[gate_at + n];
    return o;
}

/* Finish z of an output that is no half of a pair. */
__device__ static inline float finished(enum vibe_epilogue kind,
                                        const struct operands &o, float z)
{
    if (kind == VIBE_STORE)
        return z;
    if (kind == VIBE_GELU)
        return gelu(z);
    return o.old + o.mul * z;
}

/* Finish and store the sums of outputs n and n + 1 of row m, n even. */
__device__ static inline void store_two(const struct epilogue &e, unsigned m,
                                        unsigned n, float s0, float s1)
{
    const size_t y_at = row_at(e.y, e.T, m);
    const size_t gate_at = row_at(e.gate, e.T, m);
    struct operands o;
    float z[2] = {s0, s1};

#pragma unroll
    for (unsigned i = 0; i < 2; i++) {
        if (n + i >= e.N)
            return;
        o = read_operands(e, y_at, gate_at, n + i);
        z[i] = z[i] * o.scale + o.bias;
        if (e.kind != VIBE_SWIGLU)
            put(e.y, y_at + n + i, finished(e.kind, o, z[i]));
    }
    if (e.kind == VIBE_SWIGLU)
        put(e.y, y_at + n / 2, silu(z[0]) * z[1]);
}

#endif /* VIBE_CUDA_EPILOGUE_CUH */
