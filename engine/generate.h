/*
 * generate.h - the loop that speaks: language model, choice of token, frame.
 *
 * n of up to D dialogues advance together, one token each per step; every
 * dialogue has a positive row (the whole prompt) and a negative row
 * (speech_start, then the frames since).  Both rows consume the same embedding,
 * so one pass over the weights serves both.
 *
 * Dialogues are numbered 0 .. n - 1.  One more may read its prompt between the
 * steps, block by block, and is then number n.  When one ends, the last takes
 * its number, so that a step computes nothing that nobody wants.  What a
 * dialogue says depends neither on its number nor on the others.
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
#include "engine/timeline.h"

struct vibe_kvcache;

/* A dialogue that is to begin. */
struct vibe_opening {
    const float *embeds; /* [T][H] host: the prompt, speech_start last;
                            borrowed until it is read */
    size_t T;
    size_t first_frame; /* number of its first frame, for the noise */
    uint64_t seed;
    float cfg_scale;
};

/* Where a dialogue stands. */
struct vibe_dialogue {
    size_t slot;       /* its sequences in the cache are slot and D + slot */
    size_t n_positive; /* positions in the cache of its positive row */
    size_t n_negative;
    size_t frame; /* number of the one now being made */
    uint64_t seed;
    float cfg_scale;
};

/* The step of so many dialogues.  The first one runs as it is, which also
 * allocates what is allocated on first use; two are captured, one for each turn
 * of the codec's states, the rest replayed. */
struct vibe_generator_step {
    struct vibe_graph *whole[2], *rest[2]; /* captured, see run_again */
    int is_warm;
};

struct vibe_generator {
    struct vibe_models *models; /* borrowed */
    struct vibe_stream *s;      /* borrowed */
    struct vibe_kvcache *cache;
    struct vibe_frame frame;
    struct vibe_tensor x, hidden; /* [2 * n][1][H], positive rows first */
    struct vibe_tensor logits;    /* [n][1][VIBE_N_CONTROL] */
    struct vibe_tensor seq, pos;  /* [2 * n] int32 */
    int32_t control_ids[VIBE_N_CONTROL];
    float *control_embeds; /* [VIBE_N_CONTROL][H] host */
    size_t n;              /* dialogues that speak */
    struct vibe_dialogue
        *dialogues; /* [D]; number n is the one that reads, if any */
    struct vibe_opening opening;       /* what it reads; T 0: there is none */
    struct vibe_generator_step *steps; /* [D + 1] by n */
    size_t solver_steps;               /* as prepared */
    struct vibe_noise_key *keys;       /* [D], scratch */
    int32_t *host_rows;                /* [2 * D], scratch */
    struct vibe_timeline timeline;     /* on a timed stream: of the steps */
    int lends_prompt;                  /* see vibe_generator_lend */
    /* pinned, of the last step: */
    float *host_logits; /* [n][VIBE_N_CONTROL] */
    float *host_pcm;    /* [n][hop] */
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
 * Make ready for frames of so many solver steps, while nobody speaks.
 *
 * Errors: those of vibe_diffusion_prepare
 */
int vibe_generator_prepare(struct vibe_generator *g, size_t solver_steps,
                           struct vibe_error *err);

/* What was captured does not hold any more: capture it anew when it is needed
 * next. */
void vibe_generator_forget(struct vibe_generator *g);

/* All dialogues end where they are. */
void vibe_generator_clear(struct vibe_generator *g);

/* Give the memory of keys and values back, where nobody speaks or reads. */
void vibe_generator_rest(struct vibe_generator *g);

/*
 * Keys and values grow where a prompt was computed, once it is read: for one
 * dialogue after another, whose keys and values are given back in between.
 */
void vibe_generator_lend(struct vibe_generator *g);

/*
 * Make room for a dialogue behind those that speak; there must be less than D
 * of them, and none that reads.
 *
 * Errors: VIBE_E_NOMEM; all is as before
 */
int vibe_generator_begin(struct vibe_generator *g,
                         const struct vibe_opening *opening,
                         struct vibe_error *err);

/*
 * Read VIBE_PROMPT_ROWS of its prompt, or what is left; after the last of it
 * opening.T is 0 and the dialogue speaks.  Blocks.
 *
 * Errors: VIBE_E_DEVICE
 */
int vibe_generator_read(struct vibe_generator *g, struct vibe_error *err);

/* Between two frames prompts are read for so long, in seconds, and to the end
 * of a block: those who speak wait no longer, and those who come next do not
 * wait for many frames. */
#define VIBE_READING_S 0.1

/* Begin and read all of it. */
int vibe_generator_start(struct vibe_generator *g,
                         const struct vibe_opening *opening,
                         struct vibe_error *err);

/* Dialogue d ends; the last one is now called d. */
void vibe_generator_end(struct vibe_generator *g, size_t d);

/*
 * Make room for the next step of dialogue d.
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_ARG (beyond the model's positions)
 */
int vibe_generator_make_room(struct vibe_generator *g, size_t d,
                             struct vibe_error *err);

/*
 * The language model's part of a step: hidden and, on the host, logits of
 * every row.  Asynchronous after it returns.
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_generator_lm(struct vibe_generator *g, struct vibe_error *err);

/*
 * Make one step of every dialogue and wait for it: host_logits and host_pcm
 * hold what came out.  Each dialogue must then be told its token.
 *
 *   noise   [n][latent] host: standard normals to use; NULL: those named by
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
