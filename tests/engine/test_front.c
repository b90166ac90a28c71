/* A model says the same, bit for bit, on however many devices it lies. */
#include "engine/front.h"

#include <stdlib.h>

#include "engine/engine.h"
#include "engine/vibevoice.h"
#include "tests/support/spoken.h"
#include "tests/support/vibe_test.h"

enum { DEVICES = 6 };

static const char model[] = "tests/golden/tiny_tied"; /* of four layers */

struct fixture {
    struct vibe_script script;
    struct vibe_error err;
    struct spoken alone, split;
    size_t n_layers, first_layer; /* of the engine's own device */
};

/* Two dialogues, one after the other: the second meets what the first left. */
static void speak(struct fixture *f, struct spoken *spoken, size_t n_fronts,
                  const struct vibe_plan_request *plan)
{
    static const struct vibe_device_choice fronts[DEVICES] = {
        {VIBE_DEVICE_CPU, 0}, {VIBE_DEVICE_CPU, 0}, {VIBE_DEVICE_CPU, 0},
        {VIBE_DEVICE_CPU, 0}, {VIBE_DEVICE_CPU, 0}, {VIBE_DEVICE_CPU, 0},
    };
    const struct vibe_engine_options options = {
        .model = model,
        .device = VIBE_DEVICE_CPU,
        .threads = 1,
        .fronts = fronts,
        .n_fronts = n_fronts,
        .plan = *plan,
    };
    struct vibe_engine *engine = NULL;

    spoken->n = 0;
    assert_int_equal(vibe_engine_open(&engine, &options, &f->err), VIBE_OK);
    spoken_add(spoken, engine, &f->script, 7);
    spoken_add(spoken, engine, &f->script, 8);
    f->n_layers = engine->config.lm.num_hidden_layers;
    f->first_layer = engine->config.lm.first_layer;
    vibe_engine_free(engine);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    *state = f;
    if (spoken_script(&f->script))
        return -1;
    speak(f, &f->alone, 0, &(const struct vibe_plan_request){0});
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_script_release(&f->script);
    free(f);
    return 0;
}

static void check(const struct fixture *f)
{
    assert_int_equal(f->alone.n, 2 * SPOKEN_FRAMES * SPOKEN_HOP);
    spoken_assert_same(&f->split, &f->alone);
}

static void one_device_has_all_layers(void **state)
{
    const struct fixture *f = *state;

    assert_int_equal(f->n_layers, 4);
    assert_int_equal(f->first_layer, 0);
}

static void two_devices_say_the_same(void **state)
{
    struct fixture *f = *state;

    speak(f, &f->split, 1, &(const struct vibe_plan_request){0});
    check(f);
    assert_int_equal(f->n_layers, 2);
    assert_int_equal(f->first_layer, 2);
}

static void more_devices_than_layers_say_the_same(void **state)
{
    struct fixture *f = *state;

    speak(f, &f->split, 3, &(const struct vibe_plan_request){0});
    check(f);
    assert_int_equal(f->n_layers, 1);
    speak(f, &f->split, DEVICES, &(const struct vibe_plan_request){0});
    check(f);
    assert_int_equal(f->n_layers + f->first_layer, 4);
    assert_true(f->n_layers > 0);
}

static void what_the_last_device_has_can_be_streamed(void **state)
{
    const struct vibe_plan_request none = {.kind = VIBE_PLAN_LAYERS};
    struct fixture *f = *state;

    speak(f, &f->split, 1, &none);
    check(f);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(one_device_has_all_layers),
    VIBE_TEST(two_devices_say_the_same),
    VIBE_TEST(more_devices_than_layers_say_the_same),
    VIBE_TEST(what_the_last_device_has_can_be_streamed),
};

VIBE_TEST_MAIN(tests)
