/*
 * pretokenize.h - cut text into the pieces inside which BPE merges.
 *
 * The cuts are those of the published Qwen2.5 pattern, whose alternatives are
 * tried in this order at every position:
 *
 *   (?i:'s|'t|'re|'ve|'m|'ll|'d)      a contraction
 *   [^\r\n\p{L}\p{N}]?\p{L}+          letters, with one mark before them
 *   \p{N}                             one digit
 *    ?[^\s\p{L}\p{N}]+[\r\n]*         marks, with a space before and newlines
 *   \s*[\r\n]+                        blanks up to the last newline
 *   \s+(?!\S)                         blanks, leaving one for the next word
 *   \s+                               blanks
 *
 * Together they match every character, so the pieces cover the text.
 */
#ifndef VIBE_TEXT_PRETOKENIZE_H
#define VIBE_TEXT_PRETOKENIZE_H

#include <stddef.h>

/* The pattern above in the notation of tokenizer.json. */
extern const char *const vibe_pretokenize_pattern;

/*
 * Return the length in bytes of the first piece of s[n].
 *
 *   s        valid UTF-8, beginning where the previous piece ended
 *   n        > 0; the whole rest of the text, as a piece depends on what
 *            follows it
 */
size_t vibe_pretokenize_next(const char *s, size_t n);

#endif /* VIBE_TEXT_PRETOKENIZE_H */
