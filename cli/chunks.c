#include "cli/chunks.h"

#include <stdlib.h>

#include "engine/base/error.h"
#include "engine/vibevoice.h"

/* 150 words a minute, of six letters with their blank; a Chinese character is
 * a syllable, of which four are said in a second. */
static const double letter_s = 60.0 / (150 * 6);
static const double syllable_s = 0.25;

double vibe_chunks_seconds(const char *text)
{
    double seconds = 0;

    for (; *text; text++) {
        const unsigned char byte = (unsigned char)*text;

        /* by the first byte of a code point: E3 starts at U+3000 */
        if (byte >= 0xe3)
            seconds += syllable_s;
        else if ((byte & 0xc0) != 0x80)
            seconds += letter_s;
    }
    return seconds;
}

int vibe_chunks_plan(struct vibe_chunks *out, const struct vibe_script *script,
                     double minutes, struct vibe_error *err)
{
    double seconds = 0;

    *out = (struct vibe_chunks){
        .first = calloc(script->n_turns + 1, sizeof(*out->first)),
        .n = 1,
    };
    if (!out->first)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu turns",
                         script->n_turns);
    for (size_t i = 0; i < script->n_turns && minutes > 0; i++) {
        const double turn_s = vibe_chunks_seconds(script->turns[i].text);

        if (i > 0 && seconds + turn_s > 60 * minutes) {
            out->first[out->n++] = i;
            seconds = 0;
        }
        seconds += turn_s;
    }
    out->first[out->n] = script->n_turns;
    return VIBE_OK;
}

void vibe_chunks_release(struct vibe_chunks *chunks)
{
    free(chunks->first);
    *chunks = (struct vibe_chunks){0};
}

struct vibe_script vibe_chunks_part(const struct vibe_chunks *chunks,
                                    const struct vibe_script *script, size_t i)
{
    struct vibe_script part = *script; /* speakers are numbered as in it */

    part.turns += chunks->first[i];
    part.n_turns = chunks->first[i + 1] - chunks->first[i];
    return part;
}
