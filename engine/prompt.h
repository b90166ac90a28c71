/*
 * prompt.h - a script and its voices as the token ids the model was taught.
 *
 * The layout, piece by piece, each piece tokenized on its own:
 *
 *   " Transform the text provided by ... each respective speaker.\n"
 *   " Voice input:\n"            only with voices
 *     " Speaker <i>:" [start] [diffusion] x frames [end] "\n"    per voice
 *   " Text input:\n"
 *     " Speaker <k>: <text>\n"   per turn
 *   " Speech output:\n" [start]
 *
 * The ids in brackets are control tokens; a user's text never becomes one.
 */
#ifndef VIBE_PROMPT_H
#define VIBE_PROMPT_H

#include <stddef.h>
#include <stdint.h>

struct vibe_error;
struct vibe_script;
struct vibe_tokenizer;

/* Where the frames of a voice stand among the ids. */
struct vibe_prompt_voice {
    size_t first;
    size_t n_frames;
};

struct vibe_prompt {
    int32_t *ids; /* [n] owned */
    size_t n;
    struct vibe_prompt_voice *voices; /* [n_voices] owned */
    size_t n_voices;
};

/*
 * Find the control tokens of a tokenizer.
 *
 *   ids    [VIBE_N_CONTROL], enum vibe_control of model/qwen2.h
 *   path   where the tokenizer was read, for messages
 *
 * Errors: VIBE_E_FORMAT  the tokenizer lacks one; msg names it
 */
int vibe_control_ids(int32_t *ids, const struct vibe_tokenizer *tokenizer,
                     const char *path, struct vibe_error *err);

/*
 * Build the prompt of a script.
 *
 *   out        untouched on error; release with vibe_prompt_release
 *   control    [VIBE_N_CONTROL]
 *   n_frames   [n_voices] latent frames of voice i, which the model is told
 *              is "Speaker i"
 *
 * Errors: VIBE_E_FORMAT (text that is not UTF-8), VIBE_E_NOMEM
 */
int vibe_prompt_build(struct vibe_prompt *out,
                      const struct vibe_tokenizer *tokenizer,
                      const int32_t *control, const struct vibe_script *script,
                      const size_t *n_frames, size_t n_voices,
                      struct vibe_error *err);

void vibe_prompt_release(struct vibe_prompt *prompt);

#endif /* VIBE_PROMPT_H */
