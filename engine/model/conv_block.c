/*
 * conv_block.c - causal convolutions and blocks in ops, see conv_block.h.
 */
#include "engine/model/conv_block.h"

#include <assert.h>

#include "engine/backend/ops.h"
#include "engine/model/params.h"

struct vibe_tensor vibe_dense(void *data, size_t B, size_t T, size_t C)
{
    return (struct vibe_tensor){
        .data = data,
        .dtype = VIBE_F32,
        .B = B,
        .T = T,
        .C = C,
        .stride_b = T * C,
        .stride_t = C,
    };
}

/* A layer's [past][C] in the memory of every dialogue. */
static struct vibe_tensor part_of(const struct vibe_tensor *state, size_t at,
                                  size_t past, size_t C)
{
    struct vibe_tensor t = *state;

    assert(at + past * C <= state->C);
    t.data = (float *)state->data + at;
    t.T = past;
    t.C = C;
    t.stride_t = C;
    return t;
}

/* Columns after zeros have completed the last stride. */
static size_t padded(const struct vibe_conv *conv, size_t T)
{
    if (conv->is_transposed)
        return T;
    return (T + conv->stride - 1) / conv->stride * conv->stride;
}

size_t vibe_conv_length(const struct vibe_conv *conv, size_t T)
{
    if (conv->is_transposed)
        return T * conv->stride;
    return padded(conv, T) / conv->stride;
}

size_t vibe_conv_window(const struct vibe_conv *conv, size_t T)
{
    return conv->past + padded(conv, T);
}

struct vibe_tensor vibe_conv_input(const struct vibe_conv *conv, float *window,
                                   size_t D, size_t T)
{
    struct vibe_tensor t = vibe_dense(window + conv->past * conv->in, D, T,
                                      conv->in);

    t.stride_b = vibe_conv_window(conv, T) * conv->in;
    return t;
}

void vibe_conv_bind(struct vibe_loader *l, struct vibe_conv *conv,
                    const char *module)
{
    const struct vibe_matrix_names names = {
        .part = {module},
        .rows = {conv->out},
        .in = conv->in,
        .taps = conv->taps,
        .layout = conv->is_transposed ? VIBE_LAYOUT_CONV_TRANSPOSE
                                      : VIBE_LAYOUT_CONV,
        .has_bias = 1,
    };

    vibe_load_matrix(l, &conv->w, &names);
}

void vibe_conv_block_bind(struct vibe_loader *l, struct vibe_conv_block *block)
{
    const struct vibe_matrix_names up = {
        .part = {"ffn.linear1"},
        .rows = {4 * block->C},
        .in = block->C,
        .has_bias = 1,
    };
    const struct vibe_matrix_names down = {
        .part = {"ffn.linear2"},
        .rows = {block->C},
        .in = 4 * block->C,
        .has_bias = 1,
        .gamma = "ffn_gamma",
    };
    struct vibe_mixer *mixer = &block->w.mixer;

    vibe_load_vector(l, &mixer->norm, "norm.weight", block->C);
    vibe_load_taps(l, &mixer->taps, "mixer.conv.conv.conv.weight", block->C,
                   VIBE_MIXER_TAPS);
    vibe_load_vector(l, &mixer->bias, "mixer.conv.conv.conv.bias", block->C);
    vibe_load_vector(l, &mixer->gamma, "gamma", block->C);
    vibe_load_vector(l, &mixer->next_norm, "ffn_norm.weight", block->C);
    vibe_load_matrix(l, &block->w.up, &up);
    vibe_load_matrix(l, &block->w.down, &down);
}

void vibe_conv_forward(const struct vibe_conv *conv, struct vibe_stream *s,
                       const struct vibe_tensor *y, const struct vibe_tensor *x,
                       const struct vibe_conv_memory *memory,
                       const struct vibe_conv_scratch *scratch)
{
    struct vibe_tensor now = part_of(&memory->now, conv->state_at, conv->past,
                                     conv->in);
    struct vibe_tensor past = part_of(&memory->past, conv->state_at, conv->past,
                                      conv->in);
    struct vibe_tensor window = vibe_dense(
        scratch->window, x->B, vibe_conv_window(conv, x->T), conv->in);
    const struct vibe_window of = {&window, &now, &past, x};
    struct vibe_tensor rows = window; /* overlapping: [past | x] per output */
    struct vibe_tensor out = *y;

    assert(x->C == conv->in && y->C == conv->out && x->B == y->B);
    assert(y->T == vibe_conv_length(conv, x->T));
    if (conv->is_transposed) {
        /* all phases of a column are adjacent: y must be dense in time */
        assert(y->stride_t == y->C);
        rows.T = x->T;
        rows.C = 2 * conv->in;
        out.T = x->T;
        out.C = conv->stride * conv->out;
        out.stride_t = out.C;
    } else {
        rows.T = y->T;
        rows.C = conv->taps * conv->in;
        rows.stride_t = conv->stride * conv->in;
    }
    vibe_conv(s, &out, &rows, &conv->w, &of);
}

struct vibe_block_call vibe_conv_block_call(
    const struct vibe_conv_block *block, const struct vibe_tensor *y,
    const struct vibe_tensor *x, const struct vibe_conv_memory *memory)
{
    const size_t n_past = VIBE_MIXER_TAPS - 1;

    return (struct vibe_block_call){
        .w = &block->w,
        .y = *y,
        .state = part_of(&memory->now, block->state_at, n_past, block->C),
        .past = part_of(&memory->past, block->state_at, n_past, block->C),
        .x = *x,
    };
}

void vibe_conv_blocks_forward(struct vibe_stream *s,
                              const struct vibe_block_call *calls, size_t n,
                              const struct vibe_conv_scratch *scratch)
{
    const struct vibe_tensor *x = &calls->x;
    struct vibe_tensor normed = vibe_dense(scratch->normed, x->B, x->T, x->C);
    struct vibe_tensor hidden = vibe_dense(scratch->hidden, x->B, x->T,
                                           4 * x->C);
    const struct vibe_block_room room = {.normed = &normed, .hidden = &hidden};

    normed.form = VIBE_FORM_PARTS;
    hidden.form = VIBE_FORM_PARTS;
    vibe_blocks(s, calls, n, &room);
}
