/* verify_tokens.c - a tokenizer against recorded ids. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_verify.h"
#include "engine/vibevoice.h"

struct listener {
    void (*visit)(void *user, size_t index, const char *text,
                  size_t first_difference);
    void *user;
};

static void on_mismatch(void *ctx, const struct vibe_tokenizer_mismatch *how)
{
    const struct listener *listener = ctx;
    char *text = strndup(how->text, how->n_text);

    listener->visit(listener->user, how->index, text ? text : "",
                    how->position);
    free(text);
}

int vibe_tokenizer_verify_file(const char *tokenizer_dir, const char *vectors,
                               void (*visit)(void *user, size_t index,
                                             const char *text,
                                             size_t first_difference),
                               void *user, size_t *n_vectors, size_t *n_equal,
                               struct vibe_error *err)
{
    struct vibe_tokenizer *tokenizer = NULL;
    struct vibe_tokenizer_report report = {0};
    struct listener listener = {.visit = visit, .user = user};
    int rc = vibe_tokenizer_open(&tokenizer, tokenizer_dir, err);

    if (rc == VIBE_OK)
        rc = vibe_tokenizer_verify(&report, tokenizer, vectors,
                                   visit ? on_mismatch : NULL, &listener, err);
    *n_vectors = report.n_vectors;
    *n_equal = report.n_equal;
    vibe_tokenizer_free(tokenizer);
    return rc;
}
