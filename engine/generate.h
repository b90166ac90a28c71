/*
 * generate.h - the loop that speaks: language model, choice of token, frame.
 *
 * D dialogues advance together, one token each per step; every dialogue has a
 * positive row (the whole prompt) and a negative row (speech_start, then the
 * frames since).  Both rows consume the same embedding, so one pass over the
 * weights serves both.
 *
 * Two things make that uniform.  The last token of a prompt is speech_start,
 * which is also the first input of a negative row: so a prompt is read up to
 * that token, and the first step is a step like any other.  And a frame is
 * always made; when the token turns out not to be speech_diffusion, the
 * negative row and the codec take it back.
 */
#ifndef VIBE_GENERATE_H
#define VIBE_GENERATE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/frame.h"
#include "engine/model/qwen2.h"

struct vibe_kvcache;

/* Where a dialogue stands. */
struct vibe_dialogue {
    size_t n_positive; /* positions in the cache of its positive row */
    size_t n_negative;
    size_t n_frames; /* spoken; the number of the frame now being made */
    uint64_t seed;
};

struct vibe_generator {
    struct vibe_models *models; /* borrowed */
    struct vibe_stream *s;      /* borrowed */
    struct vibe_kvcache *cache; /* sequence branch * D + d */
    struct vibe_frame frame;
    struct vibe_tensor x, hidden; /* [2 * D][1][H], positive rows first */
    struct vibe_tensor logits;    /* [D][1][VIBE_N_CONTROL] */
    struct vibe_tensor seq, pos;  /* [2 * D] int32 */
    int32_t control_ids[VIBE_N_CONTROL];
    float *control_embeds;           /* [VIBE_N_CONTROL][H] host */
    struct vibe_dialogue *dialogues; /* [D] */
    struct vibe_noise_key *keys;     /* [D], scratch */
    int32_t *host_rows;              /* [2 * D], scratch */
    /* pinned, of the last step: */
    float *host_logits; /* [D][VIBE_N_CONTROL] */
    float *host_pcm;    /* [D][hop] */
    /* A dialogue's first step runs as it is, which also allocates what is
     * allocated on first use; the second one is captured, the rest replayed. */
    struct vibe_graph *step;
    int is_warm;
};

/*
 * Make a generator for models->n_dialogues dialogues.
 *
 *   out           set to it, or to NULL on error; vibe_generator_free
 *   models, s     borrowed until then
 *   control_ids   [VIBE_N_CONTROL]
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_FORMAT
 */
int vibe_generator_open(struct vibe_generator **out, struct vibe_models *models,
                        struct vibe_stream *s, const int32_t *control_ids,
                        struct vibe_error *err);
void vibe_generator_free(struct vibe_generator *g);

/*
 * Start dialogue d, whatever it did before.
 *
 *   embeds   [T][H] host: the prompt, speech_start last
 *   steps    as prepared by vibe_diffusion_prepare
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_generator_begin(struct vibe_generator *g, size_t d,
                         const float *embeds, size_t T, uint64_t seed,
                         float cfg_scale, struct vibe_error *err);

/*
 * The language model's part of a step: hidden and, on the host, logits of
 * every row.  Asynchronous after it returns.
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_generator_lm(struct vibe_generator *g, struct vibe_error *err);

/* The same over rows that are already placed. */
void vibe_generator_run_lm(struct vibe_generator *g);

/*
 * Make one step of every dialogue and wait for it: host_logits and host_pcm
 * hold what came out.  Each dialogue must then be told its token.
 *
 *   noise   [D][latent] host: standard normals to use; NULL: those named by
 *           the dialogues' seeds and frames
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_generator_step(struct vibe_generator *g, const float *noise,
                        struct vibe_error *err);

/* Dialogue d goes on with this token: keep or undo its frame. */
void vibe_generator_commit(struct vibe_generator *g, size_t d,
                           enum vibe_control token);

/* The most probable token, the first one of equals by id as in the
 * reference. */
enum vibe_control vibe_generator_greedy(const struct vibe_generator *g,
                                        size_t d);

#endif /* VIBE_GENERATE_H */
