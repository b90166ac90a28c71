/*
 * vocab.h - the pieces of a tokenizer and their ids.
 *
 * A piece is kept as the tokenizer's files spell it: for the base vocabulary
 * in the byte-level alphabet, in which every byte is one printable character
 * (space is U+0120, newline U+010A); for an added token as it stands in text.
 * Ids run from 0; an id may be without a piece.
 */
#ifndef VIBE_TEXT_VOCAB_H
#define VIBE_TEXT_VOCAB_H

#include <stddef.h>
#include <stdint.h>

struct vibe_error;

/* Fields are for reading; an all-zero struct is an empty vocabulary. */
struct vibe_vocab {
    char *text;      /* owned; pieces end to end, each with its final 0 */
    size_t n_text;   /* bytes of it in use */
    uint32_t *start; /* [n_ids] owned; offset in text + 1, 0 for no piece */
    size_t n_ids;
    uint32_t *slots; /* [mask + 1] owned; hash table of id + 1, 0 for free */
    size_t mask;
};

/*
 * Make an empty vocabulary.
 *
 *   n_ids    ids will be below this
 *   n_bytes  of all pieces to be added, with one more for each; < 4 GiB
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_vocab_init(struct vibe_vocab *vocab, size_t n_ids, size_t n_bytes,
                    struct vibe_error *err);

/*
 * Add a piece that is not there yet, with an id that has none.
 *
 *   piece    [n] copied
 */
void vibe_vocab_add(struct vibe_vocab *vocab, const char *piece, size_t n,
                    int32_t id);

/* Return the piece of an id, borrowed, or NULL when there is none. */
const char *vibe_vocab_piece(const struct vibe_vocab *vocab, int32_t id);

/* Return the id of the piece that is a[n_a] followed by b[n_b], or -1. */
int32_t vibe_vocab_find(const struct vibe_vocab *vocab, const char *a,
                        size_t n_a, const char *b, size_t n_b);

/* Free everything; the struct is then an empty vocabulary. */
void vibe_vocab_release(struct vibe_vocab *vocab);

/*
 * Return the character that stands for a byte in the byte-level alphabet.
 *
 * The 188 printable bytes of Latin-1 stand for themselves, the other 68 take
 * U+0100 and up in increasing order.
 */
uint32_t vibe_vocab_byte_char(unsigned char byte);

/* Return the byte that a character stands for, or -1 when it is no letter. */
int vibe_vocab_char_byte(uint32_t cp);

#endif /* VIBE_TEXT_VOCAB_H */
