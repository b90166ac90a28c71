/*
 * pair.cuh - two outputs of a row, whose operands are read ahead of their sums.
 */
#ifndef VIBE_CUDA_PAIR_CUH
#define VIBE_CUDA_PAIR_CUH

#include "engine/backend/cuda/epilogue.cuh"

/* Output n of row m and the next one: where they go and what they need, ahead
 * of the sums; what is read late comes of kernels ahead. */
struct pair {
    struct operands o[2];
    size_t at;
    bool is_there[2];

    __device__ inline void turn_to(const struct epilogue &e, unsigned n_rows,
                                   unsigned m, unsigned n)
    {
        at = row_at(e.y, e.T, m) + n;
#pragma unroll
        for (unsigned i = 0; i < 2; i++)
            is_there[i] = m < n_rows && n + i < e.N;
    }

    /* The same outputs of other rows need no more than turn_to. */
    __device__ inline void read_early(const struct epilogue &e, unsigned n_rows,
                                      unsigned m, unsigned n)
    {
        turn_to(e, n_rows, m, n);
#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            o[i] = {1.0f, 0.0f, 1.0f, 0.0f};
            if (is_there[i] && e.scale)
                o[i].scale = e.scale[n + i];
            if (is_there[i] && e.bias)
                o[i].bias = e.bias[n + i];
            if (is_there[i] && e.kind == VIBE_ADD && e.gamma)
                o[i].mul = e.gamma[n + i];
        }
    }

    __device__ inline void read_late(const struct epilogue &e, unsigned m,
                                     unsigned n)
    {
#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            if (is_there[i] && (e.kind == VIBE_ADD || e.kind == VIBE_GATE_ADD))
                o[i].old = e.y.data[at + i];
            if (is_there[i] && e.kind == VIBE_GATE_ADD)
                o[i].mul = e.gate.data[row_at(e.gate, e.T, m) + n + i];
        }
    }

    __device__ inline void store(const struct epilogue &e, unsigned n,
                                 float2 sum) const
    {
        const float z0 = sum.x * o[0].scale + o[0].bias;
        const float z1 = sum.y * o[1].scale + o[1].bias;
        float *y = e.y.data + at;

        if (e.kind == VIBE_SWIGLU) {
            put(e.y, at - n + n / 2, silu(z0) * z1);
            return;
        }
        if (is_there[1] && (size_t)y % sizeof(float2) == 0) {
            *(float2 *)y = make_float2(
                kept(finished(e.kind, o[0], z0), e.y.is_split),
                kept(finished(e.kind, o[1], z1), e.y.is_split));
            return;
        }
        put(e.y, at, finished(e.kind, o[0], z0));
        if (is_there[1])
            put(e.y, at + 1, finished(e.kind, o[1], z1));
    }
};

#endif /* VIBE_CUDA_PAIR_CUH */
