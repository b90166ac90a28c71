/*
 * options_words.h - the words that an option may be given.
 *
 * Part of options.h's implementation.
 */
#ifndef VIBE_CLI_OPTIONS_WORDS_H
#define VIBE_CLI_OPTIONS_WORDS_H

#include "cli/options.h"

/* Each ends with a NULL word. */
extern const struct vibe_choice vibe_dtype_words[];
extern const struct vibe_choice vibe_kv_dtype_words[];
extern const struct vibe_choice vibe_audio_words[];
extern const struct vibe_choice vibe_sample_words[];
extern const struct vibe_choice vibe_progress_words[];
extern const struct vibe_choice vibe_color_words[];
extern const struct vibe_choice vibe_sweep_words[];
extern const struct vibe_choice vibe_shell_words[];
extern const struct vibe_choice vibe_layer_words[];
extern const struct vibe_choice vibe_auto_word[];
extern const struct vibe_choice vibe_memory_words[];
extern const struct vibe_choice vibe_switch_words[];

#endif /* VIBE_CLI_OPTIONS_WORDS_H */
