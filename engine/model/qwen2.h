/*
 * qwen2.h - the language model: embeddings in, hidden states and the choice
 * among four control tokens out.
 *
 * It never writes text, so of the output head only the four rows of
 * VIBE_CONTROL_ are kept.  The embedding table stays in the mapping; rows are
 * widened on the host.
 *
 * Hidden states are those after the final norm: what the diffusion head takes
 * and what logits are computed from.
 */
#ifndef VIBE_MODEL_QWEN2_H
#define VIBE_MODEL_QWEN2_H

#include <stddef.h>
#include <stdint.h>

struct vibe_backend;
struct vibe_error;
struct vibe_kv;
struct vibe_lm_config;
struct vibe_params_store;
struct vibe_qwen2; /* weights on one backend, and scratch */
struct vibe_rows;
struct vibe_stream;
struct vibe_tensor;
struct vibe_weights;

enum { VIBE_PROMPT_ROWS = 1024 }; /* of a prompt that are read at a time */

/* Columns of the logits. */
enum vibe_control {
    VIBE_CONTROL_START,     /* speech_start */
    VIBE_CONTROL_END,       /* speech_end */
    VIBE_CONTROL_DIFFUSION, /* speech_diffusion: one frame */
    VIBE_CONTROL_EOS,       /* end of text */
    VIBE_N_CONTROL,
};

/* The matrices of a layer, in the order of their use. */
enum vibe_lm_matrix {
    VIBE_LM_QKV,
    VIBE_LM_O,
    VIBE_LM_GATE_UP,
    VIBE_LM_DOWN,
    VIBE_LM_MATRICES,
};

/*
 * Check the model's tensors without loading them.
 * Errors: VIBE_E_FORMAT, VIBE_E_NOMEM
 */
int vibe_qwen2_check(const struct vibe_weights *w,
                     const struct vibe_lm_config *config,
                     struct vibe_error *err);

/* The same, and offer the matrices of every layer: number l * VIBE_LM_MATRICES
 * + m is matrix m of layer l. */
int vibe_qwen2_offer(const struct vibe_weights *w,
                     const struct vibe_lm_config *config,
                     const struct vibe_params_store *store,
                     struct vibe_error *err);

/*
 * Load the model.
 *
 *   out           set to the model, or to NULL on error; vibe_qwen2_free
 *   be, w         borrowed until then
 *   control_ids   [VIBE_N_CONTROL], token ids as the tokenizer has them
 *   max_rows      B of a later vibe_qwen2_step at most
 *   store         loads the layers' matrices, borrowed for the call; NULL:
 *                 all go to the backend
 *
 * Errors: VIBE_E_FORMAT  a tensor is absent or misshapen (msg names it), or a
 *                        control id is not in the vocabulary
 *         VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_qwen2_open(struct vibe_qwen2 **out, struct vibe_backend *be,
                    const struct vibe_weights *w,
                    const struct vibe_lm_config *config,
                    const int32_t *control_ids, size_t max_rows,
                    const struct vibe_params_store *store,
                    struct vibe_error *err);

/* Release everything; NULL is allowed. */
void vibe_qwen2_free(struct vibe_qwen2 *lm);

/*
 * Look up the embeddings of n tokens.
 *
 *   out   [n][hidden_size] f32, host
 *
 * Errors: VIBE_E_FORMAT  an id is not in the vocabulary
 */
int vibe_qwen2_embed(const struct vibe_qwen2 *lm, float *out,
                     const int32_t *ids, size_t n, struct vibe_error *err);

/*
 * What prompts are computed in, a hundred MB of a large model, is there once a
 * model is opened.  It may rest while none is read, and has to be there again
 * for vibe_qwen2_prefill, and for vibe_qwen2_run of a prompt.
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_qwen2_make_room(struct vibe_qwen2 *lm, struct vibe_error *err);
void vibe_qwen2_rest(struct vibe_qwen2 *lm);

/*
 * Read a prompt of T positions into one sequence, in blocks of
 * VIBE_PROMPT_ROWS so that scratch does not grow with T; block by block gives
 * the same bits as all at once.  Latches in s; the tokens' rows have been
 * taken when it returns.
 *
 *   hidden   [1][1][hidden_size] device, of the last position; NULL: not
 *            wanted
 *   embeds   [T][hidden_size] f32, host
 *   kv       with blocks up to position pos + T - 1 of seq
 *   pos      of the first row
 */
void vibe_qwen2_prefill(struct vibe_qwen2 *lm, struct vibe_stream *s,
                        const struct vibe_tensor *hidden, const float *embeds,
                        size_t T, const struct vibe_kv *kv, int32_t seq,
                        int32_t pos);

/*
 * Advance B sequences by one position each.  Asynchronous; latches in s.
 *
 *   hidden   [B][1][hidden_size] device
 *   x        [B][1][hidden_size] device, the embeddings; overwritten
 *   kv       with blocks up to each row's position
 *   rows     where each of the B rows stands
 */
void vibe_qwen2_step(struct vibe_qwen2 *lm, struct vibe_stream *s,
                     const struct vibe_tensor *hidden,
                     const struct vibe_tensor *x, const struct vibe_kv *kv,
                     const struct vibe_rows *rows);

/*
 * Run the layers alone, over x [B][T][hidden_size], dense, which becomes what
 * they make of it.  Latches in s.
 */
void vibe_qwen2_run(struct vibe_qwen2 *lm, struct vibe_stream *s,
                    const struct vibe_tensor *x, const struct vibe_kv *kv,
                    const struct vibe_rows *rows, int is_prompt);

/* Layers that are somewhere else: run is vibe_qwen2_run there. */
struct vibe_lm_front {
    void (*run)(struct vibe_lm_front *front, struct vibe_stream *s,
                const struct vibe_tensor *x, const struct vibe_rows *rows,
                int is_prompt);
    struct vibe_lm_front *next; /* set by vibe_qwen2_put_before */
};

/* Run a front before lm's own layers and after the fronts put so far; borrowed
 * until lm is freed. */
void vibe_qwen2_put_before(struct vibe_qwen2 *lm, struct vibe_lm_front *front);

/* logits [B][1][VIBE_N_CONTROL] of hidden [B][1][hidden_size], both device. */
void vibe_qwen2_logits(struct vibe_qwen2 *lm, struct vibe_stream *s,
                       const struct vibe_tensor *logits,
                       const struct vibe_tensor *hidden);

/* Bytes of weights that one step reads. */
size_t vibe_qwen2_step_bytes(const struct vibe_qwen2 *lm);

#endif /* VIBE_MODEL_QWEN2_H */
