#include "tests/support/spoken.h"

#include <string.h>

#include "engine/vibevoice.h"
#include "tests/support/vibe_test.h"

static int on_frame(void *user, const float *samples, size_t n)
{
    struct spoken *spoken = user;

    assert_true((spoken->n + n) * sizeof(*samples) <= sizeof(spoken->samples));
    memcpy(spoken->samples + spoken->n, samples, n * sizeof(*samples));
    spoken->n += n;
    return 0;
}

int spoken_script(struct vibe_script *out)
{
    static const char text[] = "Speaker 1: Hello there.\nSpeaker 2: Yes?";

    return vibe_script_parse_text(out, "a script", text, strlen(text), NULL)
               ? -1
               : 0;
}

void spoken_add(struct spoken *spoken, struct vibe_engine *engine,
                const struct vibe_script *script, uint64_t seed)
{
    const struct vibe_request request = {
        .script = script,
        .cfg_scale = 1.3f,
        .steps = 2,
        .seed = seed,
        .max_length_times = 2.0f,
        .max_frames = SPOKEN_FRAMES,
        .on_frame = on_frame,
        .user = spoken,
    };
    struct vibe_result result;
    struct vibe_error err;

    if (vibe_speak(engine, &request, &result, &err))
        fail_msg("%s", err.msg);
}

void spoken_assert_same(const struct spoken *got, const struct spoken *want)
{
    assert_true(want->n > 0);
    assert_int_equal(got->n, want->n);
    assert_memory_equal(got->samples, want->samples,
                        want->n * sizeof(*want->samples));
}
