/*
 * options_table.h - the sections of the table of options, for options_table.c.
 *
 * Part of options.h's implementation.
 */
#ifndef VIBE_CLI_OPTIONS_TABLE_H
#define VIBE_CLI_OPTIONS_TABLE_H

#include "cli/options.h"

extern const struct vibe_option_section vibe_input_options;
extern const struct vibe_option_section vibe_model_options;
extern const struct vibe_option_section vibe_generation_options;
extern const struct vibe_option_section vibe_device_options;
extern const struct vibe_option_section vibe_output_options;
extern const struct vibe_option_section vibe_batch_options;
extern const struct vibe_option_section vibe_inspect_options;
extern const struct vibe_option_section vibe_message_options;

#endif /* VIBE_CLI_OPTIONS_TABLE_H */
