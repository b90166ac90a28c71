#include "audio/level.h"
#include "tests/support/vibe_test.h"

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

static void meter_counts_over_all_frames(void **state)
{
    static const float first[] = {0.5f, -0.5f, 1.0f};
    static const float second[] = {-1.25f};
    struct vibe_meter meter = {0};

    (void)state;
    vibe_meter_add(&meter, first, 3);
    vibe_meter_add(&meter, second, 1);

    assert_int_equal(meter.n, 4);
    assert_int_equal(meter.n_clipped, 1); /* 1.0 itself is not beyond */
    assert_true(meter.peak == 1.25f);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(meter_counts_over_all_frames),
};

VIBE_TEST_MAIN(tests)
