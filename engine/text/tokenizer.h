/*
 * tokenizer.h - text to token ids: the byte-level BPE of Qwen2.5.
 *
 * Text is normalised to NFC, cut by the published pattern (pretokenize.h) and
 * merged piece by piece (bpe.h).  Added tokens such as <|vision_start|> are
 * recognised only where the caller asks for it: what a user wrote is text,
 * whatever it spells.
 *
 * A tokenizer does not change once it is open, so any number of threads may
 * use one at a time.
 */
#ifndef VIBE_TEXT_TOKENIZER_H
#define VIBE_TEXT_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "engine/text/ids.h"

struct vibe_error;
struct vibe_tokenizer;

/* What the spelling of an added token means inside a text. */
enum vibe_special {
    VIBE_SPECIAL_TEXT,  /* characters like any other */
    VIBE_SPECIAL_PARSE, /* that token: leftmost first, the longest of those */
};

/*
 * Read and check a tokenizer's files.
 *
 * From a directory tokenizer.json is read or, where there is none, vocab.json
 * and merges.txt, with the added tokens of tokenizer_config.json.  A Qwen2.5
 * vocabulary (151,643 entries) for which no file lists added tokens gets the
 * published ones.
 *
 *   out      set to the tokenizer, or to NULL on error; free with
 *            vibe_tokenizer_free
 *   path     the directory, or a tokenizer.json by any name
 *
 * Errors: VIBE_E_IO           a file is absent or cannot be read
 *         VIBE_E_FORMAT       a file is damaged, or vocabulary, merges and
 *                             added tokens contradict each other
 *         VIBE_E_UNSUPPORTED  a tokenizer.json of another kind
 *         VIBE_E_NOMEM
 */
int vibe_tokenizer_open(struct vibe_tokenizer **out, const char *path,
                        struct vibe_error *err);

/*
 * Append the ids of text[n] to out.
 *
 *   n        <= 256 MiB
 *
 * Errors: VIBE_E_FORMAT       not UTF-8; msg has the offset of the byte
 *         VIBE_E_UNSUPPORTED  n is too large
 *         VIBE_E_NOMEM
 *         In each case out holds what it held before.
 */
int vibe_tokenizer_encode(const struct vibe_tokenizer *tokenizer,
                          struct vibe_ids *out, const char *text, size_t n,
                          enum vibe_special special, struct vibe_error *err);

/* Return the id of an added token by its spelling, or -1. */
int32_t vibe_tokenizer_id(const struct vibe_tokenizer *tokenizer,
                          const char *spelling);

/* Return one more than the largest id. */
size_t vibe_tokenizer_n_vocab(const struct vibe_tokenizer *tokenizer);

/*
 * Return the piece of an id, borrowed until vibe_tokenizer_free, or NULL when
 * there is none: in the byte-level alphabet (a space is U+0120), but added
 * tokens as they are spelt.
 */
const char *vibe_tokenizer_piece(const struct vibe_tokenizer *tokenizer,
                                 int32_t id);

/*
 * Write the bytes that an id stands for; they may be part of a character.
 *
 *   out      [cap] filled as far as it reaches, without a terminator; NULL
 *            when cap is 0
 *
 * Return their number, which may be more than cap; 0 when there is no piece.
 */
size_t vibe_tokenizer_decode(const struct vibe_tokenizer *tokenizer, char *out,
                             size_t cap, int32_t id);

/* Release everything; NULL is allowed. */
void vibe_tokenizer_free(struct vibe_tokenizer *tokenizer);

#endif /* VIBE_TEXT_TOKENIZER_H */
