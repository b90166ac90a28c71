#include "engine/base/float8.h"

#include <math.h>

#include "engine/base/dtype.h"
#include "tests/support/vibe_test.h"

enum { N_CODES = 0x7F }; /* 0 .. 448, in their order */

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

static float value_of(uint8_t code)
{
    float f;

    vibe_dtype_to_f32(&f, &code, VIBE_F8_E4M3, 1);
    return f;
}

static void every_code_is_the_nearest_of_its_value(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N_CODES; i++) {
        assert_int_equal(vibe_f8_nearest(value_of((uint8_t)i)), i);
        assert_int_equal(vibe_f8_nearest(-value_of((uint8_t)i)), 0x80 | i);
    }
}

static void between_two_codes_the_nearer_is_taken_and_the_even_of_both(
    void **state)
{
    (void)state;
    for (unsigned i = 0; i + 1 < N_CODES; i++) {
        const float middle = (value_of((uint8_t)i) +
                              value_of((uint8_t)(i + 1))) /
                             2; /* exact */

        assert_int_equal(vibe_f8_nearest(nextafterf(middle, 0.0f)), i);
        assert_int_equal(vibe_f8_nearest(middle), i + i % 2);
        assert_int_equal(vibe_f8_nearest(nextafterf(middle, 500.0f)), i + 1);
    }
}

static void a_scale_leaves_the_largest_in_the_upper_half(void **state)
{
    float top = 0x1p-50f;

    (void)state;
    while (top < 0x1p60f) {
        const float left = top / vibe_f8_scale(vibe_f8_exponent(top));

        assert_true(left <= VIBE_F8_TOP);
        assert_true(left > VIBE_F8_TOP / 2);
        top *= 1.01f;
    }
}

static void scales_end_where_floats_are_safe(void **state)
{
    (void)state;
    assert_int_equal(vibe_f8_exponent(0.0f), VIBE_F8_LEAST);
    assert_int_equal(vibe_f8_exponent(0x1p-100f), VIBE_F8_LEAST);
    assert_int_equal(vibe_f8_exponent(0x1p100f), VIBE_F8_MOST);
    assert_int_equal(vibe_f8_exponent(INFINITY), VIBE_F8_MOST);
}

static void a_row_keeps_an_eighth_of_a_power_of_two(void **state)
{
    const float in[] = {100.0f, -3.0f, 0.9f, 0.0f, 56.5f};
    uint8_t codes[5], exponent;

    (void)state;
    vibe_f8_row(codes, &exponent, in, 5);
    assert_int_equal(exponent, 127 - 2); /* 100 = 400 / 4 */
    for (int i = 0; i < 5; i++) {
        const float got = value_of(codes[i]) * vibe_f8_scale(exponent);

        assert_true(fabsf(got - in[i]) <= fabsf(in[i]) / 16);
    }
}

static void a_row_that_is_no_number_is_cut_off(void **state)
{
    const float in[] = {NAN, INFINITY, -INFINITY};
    uint8_t codes[3], exponent;

    (void)state;
    vibe_f8_row(codes, &exponent, in, 3);
    assert_int_equal(exponent, VIBE_F8_MOST);
    assert_int_equal(codes[0], 0x7E);
    assert_int_equal(codes[1], 0x7E);
    assert_int_equal(codes[2], 0xFE);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(every_code_is_the_nearest_of_its_value),
    VIBE_TEST(between_two_codes_the_nearer_is_taken_and_the_even_of_both),
    VIBE_TEST(a_scale_leaves_the_largest_in_the_upper_half),
    VIBE_TEST(scales_end_where_floats_are_safe),
    VIBE_TEST(a_row_keeps_an_eighth_of_a_power_of_two),
    VIBE_TEST(a_row_that_is_no_number_is_cut_off),
};

VIBE_TEST_MAIN(tests)
