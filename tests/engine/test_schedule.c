#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/vibevoice.h"
#include "engine/voice.h"
#include "tests/support/vibe_test.h"

enum { HOP = 3200, CAP = 12, N = 9, N_CLIP = HOP + 100 };

/* What a dialogue said, and how it ended. */
struct spoken {
    float samples[CAP * HOP];
    size_t n, stop_after; /* samples; frames, 0: never */
    int n_ends;
    struct vibe_result result;
    struct vibe_error err;
};

struct fixture {
    struct vibe_script scripts[3];
    float clips[2][N_CLIP];
    struct vibe_voice voices[2];
    struct vibe_request requests[N];
    struct spoken alone[N], together[N];
    size_t order[N], n_asked, n_given; /* requests, in which order */
    size_t stop_at; /* polls until all is stopped; 0: never */
    size_t n_polls;
    struct vibe_error err;
};

static int on_frame(void *user, const float *samples, size_t n)
{
    struct spoken *spoken = user;

    assert_true(spoken->n + n <= CAP * HOP);
    memcpy(spoken->samples + spoken->n, samples, n * sizeof(*samples));
    spoken->n += n;
    return spoken->stop_after && spoken->n >= spoken->stop_after * HOP;
}

static int next(void *user, struct vibe_request *out)
{
    struct fixture *f = user;
    size_t i;

    if (f->n_given == f->n_asked)
        return 0;
    i = f->order[f->n_given++];
    *out = f->requests[i];
    out->user = &f->together[i];
    return 1;
}

static void on_end(void *user, const struct vibe_request *request,
                   const struct vibe_result *result,
                   const struct vibe_error *err)
{
    struct spoken *spoken = request->user;

    (void)user;
    spoken->n_ends++;
    spoken->result = *result;
    spoken->err = *err;
}

static int is_stopped(void *user)
{
    struct fixture *f = user;

    return f->stop_at && ++f->n_polls >= f->stop_at;
}

/* Dialogues that differ in everything that may differ. */
static void fill(struct fixture *f, size_t i)
{
    f->requests[i] = (struct vibe_request){
        .script = &f->scripts[i % 3],
        .voices = i % 2 ? f->voices : NULL,
        .n_voices = i % 2 ? 1 + (i % 3 == 0) : 0,
        .cfg_scale = 1.0f + 0.3f * (float)(i % 4),
        .steps = 2,
        .seed = i * 7919,
        .sampling = {.is_on = i % 4 == 3, .temperature = 1.0f, .top_p = 1.0f},
        .max_length_times = 2.0f,
        .max_frames = 1 + i * 5 % CAP,
        .on_frame = on_frame,
        .user = &f->alone[i],
    };
    f->order[i] = i;
}

static int setup(void **state)
{
    static const char *const texts[] = {
        "Speaker 1: Hello there.\nSpeaker 2: Yes?",
        "Speaker 1: A much longer line than the others, which takes its time "
        "to be read and is therefore still being read when they speak.",
        "Speaker 1: Short.",
    };
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    *state = f;
    for (size_t i = 0; i < 2 * N_CLIP; i++)
        f->clips[i / N_CLIP][i % N_CLIP] = sinf((i < N_CLIP ? 0.05f : 0.03f) *
                                                (float)(i % N_CLIP));
    for (int i = 0; i < 2; i++)
        f->voices[i] = (struct vibe_voice){.speaker = i + 1,
                                           .samples = f->clips[i],
                                           .n = N_CLIP,
                                           .name = "clip"};
    for (size_t i = 0; i < 3; i++)
        if (vibe_script_parse_text(&f->scripts[i], "a script", texts[i],
                                   strlen(texts[i]), &f->err))
            return -1;
    for (size_t i = 0; i < N; i++)
        fill(f, i);
    f->n_asked = N;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < 3; i++)
        vibe_script_release(&f->scripts[i]);
    free(f);
    return 0;
}

static struct vibe_engine *open_engine(struct fixture *f, size_t n_dialogues)
{
    const struct vibe_engine_options options = {
        .model = "tests/golden/tiny_tied",
        .device = VIBE_DEVICE_CPU,
        .threads = 2,
        .n_dialogues = n_dialogues,
    };
    struct vibe_engine *engine = NULL;

    if (vibe_engine_open(&engine, &options, &f->err) != VIBE_OK)
        fail_msg("%s", f->err.msg);
    return engine;
}

static void speak_alone(struct fixture *f)
{
    struct vibe_engine *engine = open_engine(f, 1);
    size_t n = 0;

    for (size_t i = 0; i < N; i++) {
        struct spoken *spoken = &f->alone[i];

        if (vibe_speak(engine, &f->requests[i], &spoken->result, &f->err) !=
            VIBE_OK)
            fail_msg("%s", f->err.msg);
        n += spoken->n;
    }
    assert_true(n > (size_t)N * HOP);
    vibe_engine_free(engine);
}

static void speak_together(struct fixture *f, struct vibe_engine *engine)
{
    const struct vibe_batch batch = {
        .next = next,
        .on_end = on_end,
        .is_stopped = is_stopped,
        .user = f,
    };

    f->n_given = 0;
    memset(f->together, 0, sizeof(f->together));
    if (vibe_speak_batch(engine, &batch, &f->err) != VIBE_OK)
        fail_msg("%s", f->err.msg);
}

static void assert_equal(const struct spoken *a, const struct spoken *b)
{
    assert_int_equal(b->n_ends, 1);
    assert_int_equal(b->err.code, VIBE_OK);
    assert_int_equal(a->result.finish, b->result.finish);
    assert_int_equal(a->result.tokens, b->result.tokens);
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->samples, b->samples, a->n * sizeof(float));
}

static void neighbours_change_nothing(void **state)
{
    struct fixture *f = *state;

    speak_alone(f);
    for (size_t n_dialogues = 2; n_dialogues <= 5; n_dialogues += 3) {
        struct vibe_engine *engine = open_engine(f, n_dialogues);

        speak_together(f, engine);
        for (size_t i = 0; i < N; i++)
            assert_equal(&f->alone[i], &f->together[i]);
        vibe_engine_free(engine);
    }
}

static void neither_does_their_order(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine *engine = open_engine(f, 3);

    speak_alone(f);
    for (size_t i = 0; i < N; i++)
        f->order[i] = (i * 4 + 7) % N;
    speak_together(f, engine);

    for (size_t i = 0; i < N; i++)
        assert_equal(&f->alone[i], &f->together[i]);
    vibe_engine_free(engine);
}

static void other_solver_steps_wait_their_turn(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine *engine = open_engine(f, 3);

    for (size_t i = 0; i < N; i++)
        f->requests[i].steps = 1 + (int)i % 3;
    speak_alone(f);
    speak_together(f, engine);

    for (size_t i = 0; i < N; i++)
        assert_equal(&f->alone[i], &f->together[i]);
    vibe_engine_free(engine);
}

static void one_bad_request_fails_alone(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine *engine = open_engine(f, 3);

    speak_alone(f);
    f->requests[4].steps = 0;
    speak_together(f, engine);

    assert_int_equal(f->together[4].err.code, VIBE_E_ARG);
    assert_int_equal(f->together[4].n_ends, 1);
    for (size_t i = 0; i < N; i++)
        if (i != 4)
            assert_equal(&f->alone[i], &f->together[i]);
    vibe_engine_free(engine);
}

static void one_that_is_stopped_stops_alone(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine *engine = open_engine(f, 4);

    speak_alone(f);
    memset(f->together, 0, sizeof(f->together));
    f->requests[2].max_frames = 1; /* as if it had been stopped there */
    speak_together(f, engine);

    assert_int_equal(f->together[2].result.frames, 1);
    assert_memory_equal(f->alone[2].samples, f->together[2].samples,
                        HOP * sizeof(float));
    for (size_t i = 3; i < N; i++)
        assert_equal(&f->alone[i], &f->together[i]);
    vibe_engine_free(engine);
}

static void a_stop_ends_them_all(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine *engine = open_engine(f, 3);
    size_t n_interrupted = 0;

    speak_alone(f);
    f->stop_at = 4;
    speak_together(f, engine);

    assert_true(f->n_given < N);
    for (size_t i = 0; i < N; i++) {
        const struct spoken *spoken = &f->together[i];

        assert_int_equal(spoken->n_ends, i < f->n_given);
        assert_memory_equal(f->alone[i].samples, spoken->samples,
                            spoken->n * sizeof(float));
        n_interrupted += spoken->n_ends &&
                         spoken->result.finish == VIBE_FINISH_INTERRUPTED;
    }
    assert_true(n_interrupted > 0);
    vibe_engine_free(engine);
}

static void voices_prepared_are_the_same(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine *engine = open_engine(f, 3);

    speak_alone(f);
    assert_int_equal(vibe_prepare_voices(engine, f->requests, N, &f->err),
                     VIBE_OK);
    speak_together(f, engine);

    for (size_t i = 0; i < N; i++)
        assert_equal(&f->alone[i], &f->together[i]);
    vibe_engine_free(engine);
}

static void prepared_voices_need_no_encoder(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine *engine = open_engine(f, 3);
    struct vibe_stream *const none = NULL; /* an encoder would need it */
    const float *mean[2];

    assert_int_equal(vibe_prepare_voices(engine, f->requests, N, &f->err),
                     VIBE_OK);

    assert_int_equal(vibe_voices_encode(engine->voices, &engine->models, none,
                                        &engine->preprocessor, mean, f->voices,
                                        2, &f->err),
                     VIBE_OK);
    vibe_engine_free(engine);
}

static void a_later_part_draws_other_noise(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine *engine = open_engine(f, 1);
    struct vibe_request *request = &f->requests[0];

    request->max_frames = 1;
    assert_int_equal(vibe_speak(engine, request, &f->alone[0].result, &f->err),
                     VIBE_OK);
    request->first_frame = 1;
    request->user = &f->together[0];
    assert_int_equal(
        vibe_speak(engine, request, &f->together[0].result, &f->err), VIBE_OK);

    assert_memory_not_equal(f->alone[0].samples, f->together[0].samples,
                            HOP * sizeof(float));
    vibe_engine_free(engine);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(one_bad_request_fails_alone),
    VIBE_TEST(one_that_is_stopped_stops_alone),
    VIBE_TEST(a_stop_ends_them_all),
    VIBE_TEST(neighbours_change_nothing),
    VIBE_TEST(neither_does_their_order),
    VIBE_TEST(other_solver_steps_wait_their_turn),
    VIBE_TEST(voices_prepared_are_the_same),
    VIBE_TEST(prepared_voices_need_no_encoder),
    VIBE_TEST(a_later_part_draws_other_noise),
};

VIBE_TEST_MAIN(tests)
