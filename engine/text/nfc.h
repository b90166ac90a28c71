/*
 * nfc.h - Unicode normalisation form C, which the tokenizer was trained on.
 */
#ifndef VIBE_TEXT_NFC_H
#define VIBE_TEXT_NFC_H

#include <stddef.h>

struct vibe_error;

/*
 * Normalise s[n].
 *
 *   out      set to the normalised text, owned by the caller, to be freed
 *            with free(); or to NULL when s is seen to be NFC as it stands,
 *            and on error
 *   n_out    set to the bytes of the normalised text, without a terminator;
 *            to n when *out is NULL
 *   s        valid UTF-8, borrowed for this call
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_nfc(char **out, size_t *n_out, const char *s, size_t n,
             struct vibe_error *err);

#endif /* VIBE_TEXT_NFC_H */
