#include "offload/preset.h"
#include "tests/support/vibe_test.h"

static void every_preset_is_found_by_its_name(void **state)
{
    (void)state;
    assert_int_equal(vibe_n_presets, 10);
    for (size_t i = 0; i < vibe_n_presets; i++)
        assert_ptr_equal(vibe_preset_find(vibe_presets[i].name),
                         &vibe_presets[i]);
}

static void case_and_hyphens_do_not_matter(void **state)
{
    (void)state;
    assert_int_equal(vibe_preset_find("Mid-Range")->layers, 20);
    assert_int_equal(vibe_preset_find("MID_RANGE")->layers, 20);
}

static void a_name_must_be_whole(void **state)
{
    (void)state;
    assert_null(vibe_preset_find(""));
    assert_null(vibe_preset_find("mid"));
    assert_null(vibe_preset_find("mid_ranges"));
}

static void another_depth_keeps_the_share(void **state)
{
    (void)state;
    assert_float_equal(
        (float)vibe_preset_layers(vibe_preset_find("budget"), 28), 8, 1e-6f);
    assert_float_equal((float)vibe_preset_layers(vibe_preset_find("budget"), 7),
                       2, 1e-6f);
    assert_float_equal(
        (float)vibe_preset_layers(vibe_preset_find("minimal"), 2), 2.0f / 7,
        1e-6f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_preset_is_found_by_its_name),
    cmocka_unit_test(case_and_hyphens_do_not_matter),
    cmocka_unit_test(a_name_must_be_whole),
    cmocka_unit_test(another_depth_keeps_the_share),
};

VIBE_TEST_MAIN(tests)
