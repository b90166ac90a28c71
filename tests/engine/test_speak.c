#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/vibevoice.h"
#include "tests/support/scratch.h"
#include "tests/support/vibe_test.h"

enum { HOP = 3200, CAP = 64 };

/* What a dialogue said. */
struct spoken {
    float samples[CAP * HOP];
    size_t n;
    size_t stop_after; /* frames; 0: never */
};

struct fixture {
    struct vibe_engine *engine;
    struct vibe_script script;
    struct vibe_request request;
    struct vibe_result result;
    struct vibe_error err;
    struct spoken first, second;
    float clip[HOP + 100];
};

static int on_frame(void *user, const float *samples, size_t n)
{
    struct spoken *spoken = user;

    assert_true(spoken->n + n <= CAP * HOP);
    memcpy(spoken->samples + spoken->n, samples, n * sizeof(*samples));
    spoken->n += n;
    return spoken->stop_after && spoken->n >= spoken->stop_after * HOP;
}

static int setup(void **state)
{
    static const char text[] = "Speaker 1: Hello there.\nSpeaker 2: Yes?";
    const struct vibe_engine_options options = {
        .model = "tests/golden/tiny_tied",
        .device = VIBE_DEVICE_CPU,
        .threads = 2,
    };
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    *state = f;
    for (size_t i = 0; i < sizeof(f->clip) / sizeof(f->clip[0]); i++)
        f->clip[i] = sinf(0.05f * (float)i);
    f->request = (struct vibe_request){
        .script = &f->script,
        .cfg_scale = 1.3f,
        .steps = 3,
        .seed = 7,
        .max_length_times = 2.0f,
        .max_frames = 3,
        .on_frame = on_frame,
        .user = &f->first,
    };
    return vibe_script_parse_text(&f->script, "a script", text, strlen(text),
                                  &f->err) ||
           vibe_engine_open(&f->engine, &options, &f->err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_engine_free(f->engine);
    vibe_script_release(&f->script);
    free(f);
    return 0;
}

static void speak(struct fixture *f, struct spoken *spoken)
{
    f->request.user = spoken;
    if (vibe_speak(f->engine, &f->request, &f->result, &f->err) != VIBE_OK)
        fail_msg("%s", f->err.msg);
}

static void refuse(struct fixture *f, const char *fragment)
{
    assert_int_equal(vibe_speak(f->engine, &f->request, &f->result, &f->err),
                     VIBE_E_ARG);
    if (!strstr(f->err.msg, fragment))
        fail_msg("'%s' does not say '%s'", f->err.msg, fragment);
    assert_int_equal(f->first.n, 0);
}

static struct vibe_voice voice(const struct fixture *f, int speaker)
{
    return (struct vibe_voice){
        .speaker = speaker,
        .samples = f->clip,
        .n = sizeof(f->clip) / sizeof(f->clip[0]),
        .name = "a.wav",
    };
}

static void a_speaker_without_a_voice_is_named(void **state)
{
    struct fixture *f = *state;
    const struct vibe_voice voices[] = {voice(f, 1)};

    f->request.voices = voices;
    f->request.n_voices = 1;

    refuse(f, "speaker 2 has no voice");
}

static void a_voice_that_nobody_speaks_with_is_named(void **state)
{
    struct fixture *f = *state;
    const struct vibe_voice voices[] = {voice(f, 1), voice(f, 2), voice(f, 3)};

    f->request.voices = voices;
    f->request.n_voices = 3;

    refuse(f, "spoken by 3");
}

static void a_gap_between_speakers_is_named(void **state)
{
    struct fixture *f = *state;
    static const char text[] = "Speaker 1: Hello.\nSpeaker 3: Yes?";
    const struct vibe_voice voices[] = {voice(f, 1), voice(f, 3)};

    vibe_script_release(&f->script);
    assert_int_equal(vibe_script_parse_text(&f->script, "a script", text,
                                            strlen(text), &f->err),
                     VIBE_OK);
    f->request.voices = voices;
    f->request.n_voices = 2;

    refuse(f, "speaker 2 has no voice");
}

static void numbers_out_of_range_are_refused(void **state)
{
    struct fixture *f = *state;

    f->request.steps = 0;
    refuse(f, "0 steps");
    f->request.steps = 3;
    f->request.cfg_scale = NAN;
    refuse(f, "cfg scale");
}

static void silence_is_no_voice(void **state)
{
    const float nothing[10] = {0};
    const struct vibe_voice voice = {
        .samples = nothing, .n = 10, .name = "quiet.wav"};
    struct fixture *f = *state;

    assert_int_equal(vibe_voice_check(&voice, &f->err), VIBE_E_FORMAT);
    assert_string_equal(f->err.msg, "quiet.wav: is silent");
}

static void the_second_dialogue_equals_the_first(void **state)
{
    struct fixture *f = *state;
    const struct vibe_voice voices[] = {voice(f, 1), voice(f, 2)};

    f->request.voices = voices;
    f->request.n_voices = 2;
    speak(f, &f->first);
    speak(f, &f->second);

    assert_int_equal(f->result.frames, 3);
    assert_int_equal(f->first.n, 3 * HOP);
    assert_memory_equal(f->first.samples, f->second.samples,
                        3 * HOP * sizeof(float));
}

static void another_seed_says_it_differently(void **state)
{
    struct fixture *f = *state;

    speak(f, &f->first);
    f->request.seed++;
    speak(f, &f->second);

    assert_memory_not_equal(f->first.samples, f->second.samples,
                            3 * HOP * sizeof(float));
}

static void a_caller_can_stop_after_a_frame(void **state)
{
    struct fixture *f = *state;

    f->first.stop_after = 2;
    speak(f, &f->first);

    assert_int_equal(f->result.finish, VIBE_FINISH_INTERRUPTED);
    assert_int_equal(f->result.frames, 2);
    assert_int_equal(f->first.n, 2 * HOP);
}

static void the_length_cap_counts_tokens(void **state)
{
    struct fixture *f = *state;

    f->request.max_frames = 0;
    f->request.max_length_times = 0.05f;
    speak(f, &f->first);

    assert_int_equal(f->result.finish, VIBE_FINISH_LENGTH);
    assert_int_equal(f->result.tokens,
                     (size_t)(0.05f * (float)f->result.prompt_tokens));
}

static void damaged_weights_are_told(void **state)
{
    struct fixture *f = *state;

    /* the first frame is NaN, and what the model hears of it */
    f->engine->models.scale.bias = NAN;

    assert_int_equal(vibe_speak(f->engine, &f->request, &f->result, &f->err),
                     VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "nan for token"));
    assert_int_equal(f->result.frames, 1);
}

static void a_dump_can_be_verified(void **state)
{
    struct fixture *f = *state;
    struct vibe_verify_summary summary;
    struct vibe_scratch scratch;
    const struct vibe_voice voices[] = {voice(f, 1), voice(f, 2)};

    f->request.voices = voices;
    f->request.n_voices = 2;
    assert_int_equal(vibe_scratch_enter(&scratch), 0);
    f->request.dump_dir = "dump";
    speak(f, &f->first);
    if (vibe_engine_verify(f->engine, "dump/golden.safetensors", NULL, NULL,
                           &summary, &f->err) != VIBE_OK)
        fail_msg("%s", f->err.msg);
    vibe_scratch_leave(&scratch);

    assert_int_equal(summary.n_failed, 0);
    assert_true(summary.n_compared > 3 * 6);
    assert_int_equal(summary.n_tokens_equal, f->result.tokens);
}

static void the_record_of_tokens_is_what_the_model_is_told(void **state)
{
    struct fixture *f = *state;
    size_t n = 0;

    assert_int_equal(vibe_request_check(f->engine, &f->request, &n, &f->err),
                     VIBE_OK);
    speak(f, &f->first);

    assert_int_equal(f->result.prompt_tokens, n);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(a_speaker_without_a_voice_is_named),
    VIBE_TEST(a_voice_that_nobody_speaks_with_is_named),
    VIBE_TEST(a_gap_between_speakers_is_named),
    VIBE_TEST(numbers_out_of_range_are_refused),
    VIBE_TEST(silence_is_no_voice),
    VIBE_TEST(the_second_dialogue_equals_the_first),
    VIBE_TEST(another_seed_says_it_differently),
    VIBE_TEST(a_caller_can_stop_after_a_frame),
    VIBE_TEST(the_length_cap_counts_tokens),
    VIBE_TEST(damaged_weights_are_told),
    VIBE_TEST(a_dump_can_be_verified),
    VIBE_TEST(the_record_of_tokens_is_what_the_model_is_told),
};

VIBE_TEST_MAIN(tests)
