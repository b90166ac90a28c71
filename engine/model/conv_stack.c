/*
 * conv_stack.c - building and running a stack, see conv_stack.h.
 */
#include "engine/model/conv_stack.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/size.h"

enum {
    END_TAPS = 7,
    STATE_ALIGN = 4,
    SCRATCH_ALIGN = 16,
    BLOCKS_AT_ONCE = 8,
};

/* Give a layer its part of the state, where vectors of 4 channels begin. */
static size_t take_state(struct vibe_conv_stack *stack, size_t rows, size_t C)
{
    size_t at = stack->n_state;

    stack->n_state += vibe_size_round(rows * C, STATE_ALIGN);
    return at;
}

static struct vibe_conv make_conv(struct vibe_conv_stack *stack, size_t in,
                                  size_t out, size_t taps, size_t stride)
{
    struct vibe_conv conv = {
        .in = in,
        .out = out,
        .taps = taps,
        .stride = stride,
        .past = taps - stride,
    };

    conv.state_at = take_state(stack, conv.past, in);
    return conv;
}

static struct vibe_conv make_transposed(struct vibe_conv_stack *stack,
                                        size_t in, size_t out, size_t stride)
{
    return (struct vibe_conv){
        .in = in,
        .out = out,
        .taps = 2 * stride,
        .stride = stride,
        .is_transposed = 1,
        .past = 1, /* of the taps' two strides only the last column matters */
        .state_at = take_state(stack, 1, in),
    };
}

/* Channels of a stage. */
static size_t width(const struct vibe_conv_stack *stack,
                    const struct vibe_stack_config *config, size_t stage)
{
    if (stack->is_decoder)
        return config->n_filters << (config->n_stages - 1 - stage);
    return config->n_filters << stage;
}

static int make_stage(struct vibe_conv_stack *stack,
                      const struct vibe_stack_config *config, size_t stage)
{
    size_t C = width(stack, config, stage);
    size_t n = config->depths[stage];

    stack->block[stage] = calloc(n + 1, sizeof(*stack->block[stage]));
    if (!stack->block[stage])
        return VIBE_E_NOMEM;
    stack->n_blocks[stage] = n;
    for (size_t j = 0; j < n; j++)
        stack->block[stage][j] = (struct vibe_conv_block){
            .C = C,
            .state_at = take_state(stack, VIBE_MIXER_TAPS - 1, C),
            .w.mixer.eps = config->layernorm_eps,
        };
    return VIBE_OK;
}

/* Lay out the layers of a stack, without weights. */
static int make_layers(struct vibe_conv_stack *stack,
                       const struct vibe_conv_stack_options *options,
                       struct vibe_error *err)
{
    const struct vibe_stack_config *config = options->config;
    size_t last = config->n_stages - 1;
    size_t n_in = options->is_decoder ? config->vae_dim : 1;
    size_t n_out = options->is_decoder ? 1 : config->vae_dim;

    *stack = (struct vibe_conv_stack){
        .is_decoder = options->is_decoder,
        .n_stages = config->n_stages,
        .max_batch = options->max_batch,
        .max_T = options->max_T,
    };
    snprintf(stack->prefix, sizeof(stack->prefix), "%s", options->prefix);

    for (size_t i = 0; i <= last; i++) {
        size_t C = width(stack, config, i);

        if (i == 0)
            stack->conv[i] = make_conv(stack, n_in, C, END_TAPS, 1);
        else if (options->is_decoder)
            stack->conv[i] = make_transposed(stack, width(stack, config, i - 1),
                                             C, config->ratios[i - 1]);
        else
            stack->conv[i] = make_conv(stack, width(stack, config, i - 1), C,
                                       2 * config->ratios[i - 1],
                                       config->ratios[i - 1]);
        if (make_stage(stack, config, i))
            return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for its layers",
                             options->prefix);
    }
    stack->head = make_conv(stack, width(stack, config, last), n_out, END_TAPS,
                            1);
    return VIBE_OK;
}

static void free_layers(struct vibe_conv_stack *stack)
{
    for (size_t i = 0; i < stack->n_stages; i++)
        free(stack->block[i]);
}

static void bind_conv(struct vibe_loader *l, struct vibe_conv_stack *stack,
                      size_t i)
{
    const char *kind = stack->is_decoder ? "up" : "down";
    const char *wrapper = stack->conv[i].is_transposed ? "convtr" : "conv";
    char name[64];

    snprintf(name, sizeof(name), "%ssample_layers.%zu.0.%s.%s", kind, i,
             wrapper, wrapper);
    vibe_loader_scope(l, "%s", stack->prefix);
    vibe_conv_bind(l, &stack->conv[i], name);
}

static void bind(struct vibe_loader *l, void *module)
{
    struct vibe_conv_stack *stack = module;

    for (size_t i = 0; i < stack->n_stages; i++) {
        bind_conv(l, stack, i);
        for (size_t j = 0; j < stack->n_blocks[i]; j++) {
            vibe_loader_scope(l, "%sstages.%zu.%zu.", stack->prefix, i, j);
            vibe_conv_block_bind(l, &stack->block[i][j]);
        }
    }
    vibe_loader_scope(l, "%s", stack->prefix);
    vibe_conv_bind(l, &stack->head, "head.conv.conv");
}

int vibe_conv_stack_check(const struct vibe_weights *w,
                          const struct vibe_conv_stack_options *options,
                          struct vibe_error *err)
{
    struct vibe_conv_stack stack;
    int rc = make_layers(&stack, options, err);

    if (!rc)
        rc = vibe_params_check(w, bind, &stack, err);
    free_layers(&stack);
    return rc;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Size scratch by walking the layers with the longest chunk. */
static int allocate_scratch(struct vibe_conv_stack *stack,
                            struct vibe_backend *be, struct vibe_error *err)
{
    size_t T = stack->max_T, B = stack->max_batch;
    size_t x = 0, columns = 0;
    size_t n_past = vibe_size_round(stack->n_state * B, SCRATCH_ALIGN);
    float *at;
    int rc;

    for (size_t i = 0; i < stack->n_stages; i++) {
        const struct vibe_conv *conv = &stack->conv[i];

        columns = larger(columns, vibe_conv_window(conv, T) * conv->in);
        T = vibe_conv_length(conv, T);
        x = larger(x, T * conv->out);
    }
    columns = larger(columns,
                     vibe_conv_window(&stack->head, T) * stack->head.in);
    columns = vibe_size_round(larger(columns, x) * B, SCRATCH_ALIGN);
    x = vibe_size_round(x * B, SCRATCH_ALIGN);
    rc = vibe_tensor_init(&stack->memory, be, VIBE_F32, 1, 1,
                          n_past + 2 * columns + 5 * x, err);
    if (rc)
        return rc;
    at = stack->memory.data;
    stack->past = vibe_dense(at, B, 1, stack->n_state);
    stack->columns[0] = at + n_past;
    stack->columns[1] = stack->columns[0] + columns;
    stack->normed = stack->columns[1] + columns;
    stack->hidden = stack->normed + x;
    return VIBE_OK;
}

int vibe_conv_stack_init(struct vibe_conv_stack *stack, struct vibe_backend *be,
                         const struct vibe_weights *w,
                         const struct vibe_conv_stack_options *options,
                         struct vibe_error *err)
{
    int rc = make_layers(stack, options, err);

    if (!rc)
        rc = vibe_params_init(&stack->params, be, w, bind, stack, err);
    if (!rc)
        rc = allocate_scratch(stack, be, err);
    return rc;
}

void vibe_conv_stack_release(struct vibe_conv_stack *stack)
{
    vibe_tensor_release(&stack->memory, stack->params.be);
    vibe_params_release(&stack->params);
    free_layers(stack);
    *stack = (struct vibe_conv_stack){0};
}

/* Run a convolution and the blocks behind it; side says in which columns x
 * or its window is, and then y, which becomes x.  The last of them leaves y in
 * the window of the convolution that follows. */
static void run_stage(struct vibe_conv_stack *stack, struct vibe_stream *s,
                      struct vibe_tensor *x, size_t stage, unsigned *side,
                      const struct vibe_conv_memory *memory)
{
    const struct vibe_conv *conv = &stack->conv[stage];
    const struct vibe_conv *next = stage + 1 < stack->n_stages ? conv + 1
                                                               : &stack->head;
    const size_t T = vibe_conv_length(conv, x->T);
    const size_t n = stack->n_blocks[stage];
    const struct vibe_conv_scratch scratch = {
        .window = stack->columns[*side],
        .normed = stack->normed,
        .hidden = stack->hidden,
    };
    struct vibe_block_call calls[BLOCKS_AT_ONCE];

    for (size_t j = 0; j <= n; j++) {
        float *to = stack->columns[!*side];
        const struct vibe_tensor y = j < n ? vibe_dense(to, x->B, T, conv->out)
                                           : vibe_conv_input(next, to, x->B, T);
        const size_t at = (j + BLOCKS_AT_ONCE - 1) % BLOCKS_AT_ONCE;

        if (j == 0)
            vibe_conv_forward(conv, s, &y, x, memory, &scratch);
        else
            calls[at] = vibe_conv_block_call(&stack->block[stage][j - 1], &y, x,
                                             memory);
        *x = y;
        *side = !*side;
        if (j > 0 && (j == n || at + 1 == BLOCKS_AT_ONCE))
            vibe_conv_blocks_forward(s, calls, at + 1, &scratch);
    }
}

void vibe_conv_stack_forward(struct vibe_conv_stack *stack,
                             struct vibe_stream *s, const struct vibe_tensor *y,
                             const struct vibe_tensor *x,
                             const struct vibe_tensor *state,
                             const struct vibe_tensor *before)
{
    const struct vibe_conv_memory memory = {
        .now = *state,
        .past = before ? *before : vibe_tensor_batch(&stack->past, 0, x->B),
    };
    struct vibe_conv_scratch scratch = {0};
    struct vibe_tensor in = *x;
    unsigned side = 0;

    assert(x->B <= stack->max_batch && x->T <= stack->max_T);
    assert(state->B == x->B && state->C == stack->n_state);
    if (!before)
        vibe_copy(s, &memory.past, state);
    for (size_t i = 0; i < stack->n_stages && !s->err.code; i++)
        run_stage(stack, s, &in, i, &side, &memory);
    scratch.window = stack->columns[side];
    if (!s->err.code)
        vibe_conv_forward(&stack->head, s, y, &in, &memory, &scratch);
}
