#include "engine/prompt.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/error.h"
#include "engine/model/qwen2.h"
#include "engine/text/script.h"
#include "engine/text/tokenizer.h"

static const char SYSTEM[] =
    " Transform the text provided by various speakers into speech output,"
    " utilizing the distinct voice of each respective speaker.\n";

/* What a prompt is built with; err latches in rc. */
struct builder {
    const struct vibe_tokenizer *tokenizer;
    struct vibe_ids ids;
    struct vibe_error *err;
    int rc;
};

static void add_text(struct builder *b, const char *text, size_t n)
{
    if (b->rc == VIBE_OK)
        b->rc = vibe_tokenizer_encode(b->tokenizer, &b->ids, text, n,
                                      VIBE_SPECIAL_TEXT, b->err);
}

/* The same id n times. */
static void add_ids(struct builder *b, int32_t id, size_t n)
{
    for (size_t i = 0; i < n && b->rc == VIBE_OK; i++)
        b->rc = vibe_ids_push(&b->ids, id, b->err);
}

static void add_piece(struct builder *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void add_piece(struct builder *b, const char *format, ...)
{
    char *piece = NULL;
    va_list ap;
    int n;

    if (b->rc != VIBE_OK)
        return;
    va_start(ap, format);
    n = vasprintf(&piece, format, ap);
    va_end(ap);
    if (n < 0) {
        b->rc = vibe_fail(b->err, VIBE_E_NOMEM, "no memory for a prompt line");
        return;
    }
    add_text(b, piece, (size_t)n);
    free(piece);
}

static void add_voice(struct builder *b, struct vibe_prompt_voice *voice,
                      const int32_t *control, int i, size_t n_frames)
{
    add_piece(b, " Speaker %d:", i);
    add_ids(b, control[VIBE_CONTROL_START], 1);
    voice->first = b->ids.n;
    voice->n_frames = n_frames;
    add_ids(b, control[VIBE_CONTROL_DIFFUSION], n_frames);
    add_ids(b, control[VIBE_CONTROL_END], 1);
    add_piece(b, "\n");
}

int vibe_control_ids(int32_t *ids, const struct vibe_tokenizer *tokenizer,
                     const char *path, struct vibe_error *err)
{
    static const char *const names[VIBE_N_CONTROL] = {
        [VIBE_CONTROL_START] = "<|vision_start|>",
        [VIBE_CONTROL_END] = "<|vision_end|>",
        [VIBE_CONTROL_DIFFUSION] = "<|vision_pad|>",
        [VIBE_CONTROL_EOS] = "<|endoftext|>",
    };

    for (int i = 0; i < VIBE_N_CONTROL; i++) {
        ids[i] = vibe_tokenizer_id(tokenizer, names[i]);
        if (ids[i] < 0)
            return vibe_fail(err, VIBE_E_FORMAT,
                             "%s: the tokenizer has no control token %s", path,
                             names[i]);
    }
    return VIBE_OK;
}

int vibe_prompt_build(struct vibe_prompt *out,
                      const struct vibe_tokenizer *tokenizer,
                      const int32_t *control, const struct vibe_script *script,
                      const size_t *n_frames, size_t n_voices,
                      struct vibe_error *err)
{
    struct builder b = {.tokenizer = tokenizer, .err = err};
    struct vibe_prompt_voice *voices = NULL;

    voices = calloc(n_voices + 1, sizeof(*voices));
    if (!voices) {
        b.rc = vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu voices",
                         n_voices);
        goto out;
    }
    add_piece(&b, "%s", SYSTEM);
    if (n_voices)
        add_piece(&b, " Voice input:\n");
    for (size_t i = 0; i < n_voices; i++)
        add_voice(&b, &voices[i], control, (int)i, n_frames[i]);
    add_piece(&b, " Text input:\n");
    for (size_t i = 0; i < script->n_turns; i++)
        add_piece(&b, " Speaker %d: %s\n",
                  vibe_script_number(script, script->turns[i].speaker),
                  script->turns[i].text);
    add_piece(&b, " Speech output:\n");
    add_ids(&b, control[VIBE_CONTROL_START], 1);
    if (b.rc != VIBE_OK)
        goto out;

    *out = (struct vibe_prompt){
        .ids = b.ids.ids,
        .n = b.ids.n,
        .voices = voices,
        .n_voices = n_voices,
    };
    b.ids = (struct vibe_ids){0};
    voices = NULL;

out:
    free(voices);
    vibe_ids_release(&b.ids);
    return b.rc;
}

void vibe_prompt_release(struct vibe_prompt *prompt)
{
    free(prompt->ids);
    free(prompt->voices);
    *prompt = (struct vibe_prompt){0};
}
