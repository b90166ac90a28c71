/*
 * conv_stack.h - one stack of the codec: convolutions that change the rate,
 * each followed by a stage of blocks, and a head convolution.
 *
 * An encoder and the decoder differ only in where the rate goes.
 */
#ifndef VIBE_MODEL_CONV_STACK_H
#define VIBE_MODEL_CONV_STACK_H

#include "engine/format/config.h"
#include "engine/model/conv_block.h"
#include "engine/model/params.h"

struct vibe_conv_stack {
    char prefix[64]; /* of its tensors' names */
    int is_decoder;
    size_t n_stages;
    struct vibe_conv conv[VIBE_MAX_STAGES]; /* before stage i; 0: the stem */
    struct vibe_conv_block *block[VIBE_MAX_STAGES]; /* [n_blocks[i]], owned */
    size_t n_blocks[VIBE_MAX_STAGES];
    struct vibe_conv head;
    size_t n_state;   /* elements of a dialogue's state */
    size_t max_batch; /* dialogues that scratch holds */
    size_t max_T;     /* columns of input that scratch holds */
    struct vibe_params params;
    struct vibe_tensor memory; /* all scratch, owned */
    struct vibe_tensor past;   /* [max_batch][1][n_state] in memory */
    /* The columns between layers are in one of them, as the input of the next
     * convolution in its window; the other is a layer's output. */
    float *columns[2];
    float *normed, *hidden; /* as in struct vibe_conv_scratch */
};

struct vibe_conv_stack_options {
    const char *prefix; /* "model.acoustic_tokenizer.decoder." */
    const struct vibe_stack_config *config;
    int is_decoder;
    size_t max_batch, max_T; /* as in the stack; not used by a check */
};

/*
 * Check a stack's tensors without loading them.
 * Errors: VIBE_E_FORMAT, VIBE_E_NOMEM
 */
int vibe_conv_stack_check(const struct vibe_weights *w,
                          const struct vibe_conv_stack_options *options,
                          struct vibe_error *err);

/*
 * Load a stack.
 *
 *   stack   release with vibe_conv_stack_release, also after an error; must
 *           not move
 *   be, w   borrowed until then
 *
 * Errors: VIBE_E_FORMAT, VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_conv_stack_init(struct vibe_conv_stack *stack, struct vibe_backend *be,
                         const struct vibe_weights *w,
                         const struct vibe_conv_stack_options *options,
                         struct vibe_error *err);
void vibe_conv_stack_release(struct vibe_conv_stack *stack);

/*
 * Run a chunk.  Asynchronous; latches in s.
 *
 *   y       [D][T'][channels out] device
 *   x       [D][T][channels in] device
 *   state   [D][1][n_state] device, advanced
 *   before  a copy of it, left as it is, where the caller has one; or NULL
 */
void vibe_conv_stack_forward(struct vibe_conv_stack *stack,
                             struct vibe_stream *s, const struct vibe_tensor *y,
                             const struct vibe_tensor *x,
                             const struct vibe_tensor *state,
                             const struct vibe_tensor *before);

#endif /* VIBE_MODEL_CONV_STACK_H */
