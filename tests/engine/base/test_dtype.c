#include <math.h>
#include <stdint.h>
#include <string.h>

#include "engine/base/dtype.h"
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

static float widen_u16(uint16_t h, enum vibe_dtype dtype)
{
    float f;

    vibe_dtype_to_f32(&f, &h, dtype, 1);
    return f;
}

static float widen_u8(uint8_t b)
{
    float f;

    vibe_dtype_to_f32(&f, &b, VIBE_F8_E4M3, 1);
    return f;
}

static void assert_same_bits(float got, float want)
{
    assert_memory_equal(&got, &want, sizeof(got));
}

static void f8_equals_its_definition_for_every_code(void **state)
{
    (void)state;
    for (int b = 0; b < 256; b++) {
        int sign = b & 0x80 ? -1 : 1;
        int exponent = b >> 3 & 15;
        double fraction = (b & 7) / 8.0;
        double want = exponent ? ldexp(1.0 + fraction, exponent - 7)
                               : ldexp(fraction, -6);

        if ((b & 0x7F) == 0x7F)
            assert_true(isnan(widen_u8((uint8_t)b)));
        else
            assert_same_bits(widen_u8((uint8_t)b), (float)(sign * want));
    }
}

static void f16_equals_its_definition_for_every_code(void **state)
{
    (void)state;
    for (int h = 0; h < 65536; h++) {
        int sign = h & 0x8000 ? -1 : 1;
        int exponent = h >> 10 & 31;
        double fraction = (h & 1023) / 1024.0;
        double want = exponent ? ldexp(1.0 + fraction, exponent - 15)
                               : ldexp(fraction, -14);
        float got = widen_u16((uint16_t)h, VIBE_F16);

        if (exponent < 31)
            assert_same_bits(got, (float)(sign * want));
        else if (h & 1023)
            assert_true(isnan(got));
        else
            assert_same_bits(got, sign < 0 ? -INFINITY : INFINITY);
    }
}

static void bf16_is_the_upper_half_of_a_float(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        uint32_t bits = h << 16;
        float got = widen_u16((uint16_t)h, VIBE_BF16);

        assert_memory_equal(&got, &bits, sizeof(got));
    }
}

static void numbers_need_not_be_aligned(void **state)
{
    const uint8_t bytes[] = {0xFF, 0x80, 0x3F, 0x00, 0xC0}; /* 1, -2 at 1 */
    float got[2];

    (void)state;
    vibe_dtype_to_f32(got, bytes + 1, VIBE_BF16, 2);
    assert_same_bits(got[0], 1.0f);
    assert_same_bits(got[1], -2.0f);
}

static void whole_numbers_are_widened_unscaled(void **state)
{
    const uint8_t i8[] = {0x81, 0x00, 0x7F};
    const uint8_t i4[] = {0x70, 0x8F}; /* even columns in the low nibbles */
    float got[3];

    (void)state;
    vibe_dtype_to_f32(got, i8, VIBE_I8, 3);
    assert_same_bits(got[0], -127.0f);
    assert_same_bits(got[1], 0.0f);
    assert_same_bits(got[2], 127.0f);
    vibe_dtype_to_f32(got, i4, VIBE_I4, 3);
    assert_same_bits(got[0], -8.0f);
    assert_same_bits(got[1], -1.0f);
    assert_same_bits(got[2], 7.0f);
}

static void a_row_has_its_bytes(void **state)
{
    (void)state;
    assert_int_equal(vibe_dtype_bytes(VIBE_BF16, 3), 6);
    assert_int_equal(vibe_dtype_bytes(VIBE_I8, 3), 3);
    assert_int_equal(vibe_dtype_bytes(VIBE_I4, 3), 2);
}

static void names_are_those_of_safetensors(void **state)
{
    (void)state;
    assert_string_equal(vibe_dtype_name(VIBE_F8_E4M3), "F8_E4M3");
    assert_string_equal(vibe_dtype_name(VIBE_BF16), "BF16");
    assert_int_equal(vibe_dtype_size(VIBE_F8_E4M3), 1);
    assert_int_equal(vibe_dtype_size(VIBE_BF16), 2);
    assert_int_equal(vibe_dtype_size(VIBE_F32), 4);
    assert_int_equal(vibe_dtype_size(VIBE_I64), 8);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(f8_equals_its_definition_for_every_code),
    VIBE_TEST(f16_equals_its_definition_for_every_code),
    VIBE_TEST(bf16_is_the_upper_half_of_a_float),
    VIBE_TEST(numbers_need_not_be_aligned),
    VIBE_TEST(whole_numbers_are_widened_unscaled),
    VIBE_TEST(a_row_has_its_bytes),
    VIBE_TEST(names_are_those_of_safetensors),
};

VIBE_TEST_MAIN(tests)
