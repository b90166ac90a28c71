#include "cli/options_table.h"

const struct vibe_option_section *const vibe_option_sections[] = {
    &vibe_input_options,   &vibe_model_options,   &vibe_generation_options,
    &vibe_device_options,  &vibe_output_options,  &vibe_batch_options,
    &vibe_inspect_options, &vibe_message_options, NULL,
};

const struct vibe_option *vibe_option_at(size_t i)
{
    const struct vibe_option_section *const *section = vibe_option_sections;

    for (; *section; section++) {
        if (i < (*section)->n)
            return &(*section)->rows[i];
        i -= (*section)->n;
    }
    return NULL;
}
