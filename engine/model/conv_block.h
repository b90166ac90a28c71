/*
 * conv_block.h - what codec stacks are made of: causal convolutions, their
 * transposed form, and ConvNeXt-like blocks.
 *
 * Both keep the tail of their input in the memory of a dialogue, n_state floats
 * in which each layer owns [past][channels] from its offset.
 *
 * A dense convolution is a matrix over overlapping rows of [past | x], with
 * K = taps * in; a transposed one, with taps = 2 * stride, is a matrix over
 * [previous column | column] whose output [T][stride * out] is, in memory,
 * [T * stride][out].
 */
#ifndef VIBE_MODEL_CONV_BLOCK_H
#define VIBE_MODEL_CONV_BLOCK_H

#include <stddef.h>

#include "engine/backend/ops.h"

struct vibe_loader;

struct vibe_conv {
    size_t in, out, taps, stride;
    int is_transposed;
    size_t past;     /* rows kept: taps - stride, or 1 if transposed */
    size_t state_at; /* offset in a dialogue's state */
    struct vibe_matrix w;
};

struct vibe_conv_block {
    size_t C;
    size_t state_at;
    struct vibe_block w; /* H = 4C */
};

/* Device memory for what lives during one layer. */
struct vibe_conv_scratch {
    float *window; /* D * (past + T rounded up to the stride) * in */
    float *normed; /* D * T * C */
    float *hidden; /* D * T * 4C */
};

/* What the layers of a stack remember, each tensor [D][1][n_state]. */
struct vibe_conv_memory {
    struct vibe_tensor now;  /* written: after the chunk */
    struct vibe_tensor past; /* read: before it; other memory */
};

/* Dense [B][T][C] f32 at data. */
struct vibe_tensor vibe_dense(void *data, size_t B, size_t T, size_t C);

/* Columns that T columns of input become. */
size_t vibe_conv_length(const struct vibe_conv *conv, size_t T);

/* Rows of scratch->window per dialogue for T columns of input. */
size_t vibe_conv_window(const struct vibe_conv *conv, size_t T);

/* Where in its window T columns of input lie, behind room for the past. */
struct vibe_tensor vibe_conv_input(const struct vibe_conv *conv, float *window,
                                   size_t D, size_t T);

/* Name the tensors: module + ".weight", ".bias". */
void vibe_conv_bind(struct vibe_loader *l, struct vibe_conv *conv,
                    const char *module);

/* Name the tensors of a block in the loader's scope. */
void vibe_conv_block_bind(struct vibe_loader *l, struct vibe_conv_block *block);

/*
 * y = convolution of x.
 *
 *   y   [D][vibe_conv_length(T)][out], not overlapping x or the window
 *   x   [D][T][in]; where T is no multiple of the stride, zeros follow; may lie
 *       in the window as vibe_conv_input says
 */
void vibe_conv_forward(const struct vibe_conv *conv, struct vibe_stream *s,
                       const struct vibe_tensor *y, const struct vibe_tensor *x,
                       const struct vibe_conv_memory *memory,
                       const struct vibe_conv_scratch *scratch);

/*
 * y = x + gamma * mixer(norm(x)); y += ffn_gamma * ffn(ffn_norm(y)).
 *
 *   y, x   [D][T][C], rows dense, not overlapping
 *
 * A call borrows the block; vibe_conv_blocks_forward does n of them, see
 * vibe_blocks.
 */
struct vibe_block_call vibe_conv_block_call(
    const struct vibe_conv_block *block, const struct vibe_tensor *y,
    const struct vibe_tensor *x, const struct vibe_conv_memory *memory);
void vibe_conv_blocks_forward(struct vibe_stream *s,
                              const struct vibe_block_call *calls, size_t n,
                              const struct vibe_conv_scratch *scratch);

#endif /* VIBE_MODEL_CONV_BLOCK_H */
