/*
 * options_value.h - from the words of a user to the fields of vibe_options.
 *
 * Part of options.h's implementation.
 */
#ifndef VIBE_CLI_OPTIONS_VALUE_H
#define VIBE_CLI_OPTIONS_VALUE_H

#include <stddef.h>

struct vibe_error;
struct vibe_option;
struct vibe_options;

/* Does a row take a word of its own? */
int vibe_option_takes_value(const struct vibe_option *row);

/*
 * Store one word in a row's field; lists grow by it.  The word is borrowed
 * until the options are released.
 *
 *   label  how the message names the option: "--steps", "VIBEVOICE_STEPS"
 *
 * Errors: VIBE_E_ARG  not a value of this option; msg says what would be
 *         VIBE_E_NOMEM
 */
int vibe_option_store(struct vibe_options *out, const struct vibe_option *row,
                      const char *label, const char *word,
                      struct vibe_error *err);

/* Write a row's range as a user reads it, "1 to 1000", into buf. */
const char *vibe_option_range(const struct vibe_option *row, char *buf,
                              size_t size);

/*
 * How many letters must be added, dropped, changed or swapped with their
 * neighbour to make b of a; case does not matter, '_' and '-' are equal.
 */
size_t vibe_word_distance(const char *a, const char *b);

/* Is a misspelling so close to a word that it is worth asking? */
int vibe_word_is_near(const char *typed, const char *word);

/* Bytes of an option's name, with its dashes. */
enum { VIBE_OPTION_NAME_MAX = 64 };

/* Write the known option that a misspelt one most resembles to buf [size];
 * returns buf, or NULL where there is none. */
const char *vibe_option_suggest(const char *typed, char *buf, size_t size);

#endif /* VIBE_CLI_OPTIONS_VALUE_H */
