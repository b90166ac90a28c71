#include <stdlib.h>

#include "engine/sample.h"
#include "engine/vibevoice.h"
#include "tests/support/vibe_test.h"

enum { DRAWS = 20000 };

static int setup(void **state)
{
    (void)state;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return 0;
}

static void count(size_t *n, const float *logits, struct vibe_sampling how)
{
    for (size_t i = 0; i < DRAWS; i++)
        n[vibe_sample(logits, &how, 42, i)]++;
}

static void tokens_come_as_often_as_they_are_probable(void **state)
{
    /* e^0 : e^-1 : e^-2 : e^-3 at temperature 1; e^1000 is too large */
    const float logits[VIBE_N_CONTROL] = {999.0f, 1000.0f, 997.0f, 998.0f};
    const double p[VIBE_N_CONTROL] = {0.2369, 0.6439, 0.0321, 0.0871};
    size_t n[VIBE_N_CONTROL] = {0};

    (void)state;
    count(n, logits,
          (struct vibe_sampling){.is_on = 1, .temperature = 1, .top_p = 1});

    /* five standard deviations: 5 * sqrt(p (1 - p) DRAWS) < 340 */
    for (int i = 0; i < VIBE_N_CONTROL; i++)
        assert_true(abs((int)n[i] - (int)(p[i] * DRAWS)) < 340);
}

static void a_small_top_p_leaves_the_best(void **state)
{
    const float logits[VIBE_N_CONTROL] = {1.0f, 3.0f, 0.0f, 2.9f};
    size_t n[VIBE_N_CONTROL] = {0};

    (void)state;
    count(n, logits,
          (struct vibe_sampling){.is_on = 1, .temperature = 1, .top_p = 0.4f});

    assert_int_equal(n[1], DRAWS);
}

static void a_low_temperature_is_greedy(void **state)
{
    const float logits[VIBE_N_CONTROL] = {1.0f, 0.5f, 1.5f, 0.0f};
    size_t n[VIBE_N_CONTROL] = {0};

    (void)state;
    count(
        n, logits,
        (struct vibe_sampling){.is_on = 1, .temperature = 0.001f, .top_p = 1});

    assert_int_equal(n[2], DRAWS);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(tokens_come_as_often_as_they_are_probable),
    VIBE_TEST(a_small_top_p_leaves_the_best),
    VIBE_TEST(a_low_temperature_is_greedy),
};

VIBE_TEST_MAIN(tests)
