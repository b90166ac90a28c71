#include "engine/backend/cuda/nvml.h"
#include "engine/base/device.h"
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

static void open_knows_no_gpu_that_is_not_there(void **state)
{
    (void)state;

    assert_null(vibe_nvml_open("ffff:ff:ff.7"));
}

static void free_takes_null(void **state)
{
    (void)state;

    vibe_nvml_free(NULL);
}

static void without_the_library_power_is_unknown(void **state)
{
    struct vibe_device_reading reading = {.memory_used = 7};

    (void)state;
    vibe_nvml_read(NULL, &reading);

    assert_true(reading.power_w < 0);
    assert_true(reading.energy_j < 0);
    assert_int_equal(reading.memory_used, 7);
    assert_int_equal(vibe_nvml_used(NULL), 0);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(open_knows_no_gpu_that_is_not_there),
    VIBE_TEST(free_takes_null),
    VIBE_TEST(without_the_library_power_is_unknown),
};

VIBE_TEST_MAIN(tests)
