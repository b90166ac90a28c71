/*
 * tokenizer_verify.h - compare a tokenizer with recorded results.
 */
#ifndef VIBE_TEXT_TOKENIZER_VERIFY_H
#define VIBE_TEXT_TOKENIZER_VERIFY_H

#include <stddef.h>
#include <stdint.h>

struct vibe_error;
struct vibe_tokenizer;

/* How one vector failed; pointers are borrowed until the callback returns. */
struct vibe_tokenizer_mismatch {
    size_t index;     /* of the vector in the file, from 0 */
    const char *text; /* [n_text] UTF-8, the beginning of the vector's text */
    size_t n_text;
    size_t position; /* of the first id that differs or is missing */
    int32_t got;     /* the id there, -1 when ours end before it */
    int32_t want;    /* the same for the recorded ones */
    size_t n_got;    /* ids in all */
    size_t n_want;
};

struct vibe_tokenizer_report {
    size_t n_vectors;
    size_t n_equal;
};

/*
 * Encode every text of a file with added tokens recognised, and compare.
 *
 *   out      counts; untouched on error
 *   path     [{"text": "...", "ids": [...]}, ...]
 *   mismatch called for each vector that differs; may be NULL
 *   ctx      handed to mismatch
 *
 * Errors: VIBE_E_IO      the file cannot be read
 *         VIBE_E_FORMAT  it is not such a list, or an empty one
 *         VIBE_E_NOMEM
 *         A vector that differs is no error.
 */
int vibe_tokenizer_verify(
    struct vibe_tokenizer_report *out, const struct vibe_tokenizer *tokenizer,
    const char *path,
    void (*mismatch)(void *ctx, const struct vibe_tokenizer_mismatch *how),
    void *ctx, struct vibe_error *err);

#endif /* VIBE_TEXT_TOKENIZER_VERIFY_H */
