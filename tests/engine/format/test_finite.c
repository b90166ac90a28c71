#include "engine/format/finite.h"

#include <math.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/format/weights.h"
#include "tests/support/vibe_test.h"

enum { MOST = (1 << 20) + 11 }; /* more than one task, and a ragged end */

static unsigned char codes[MOST];

static int check(size_t n, struct vibe_error *err)
{
    const struct vibe_weight w = {
        .data = codes,
        .dtype = VIBE_F8_E4M3,
        .n = n,
        .name = "w",
        .file = "f",
    };

    return vibe_finite_check_f8(&w, 3, err);
}

static void finds_both_nans_wherever_they_are(void **state)
{
    static const size_t where[] = {0, 7, 8, 1 << 20, MOST - 4, MOST - 1};

    (void)state;
    memset(codes, 0x7E, sizeof(codes));
    for (size_t i = 0; i < sizeof(where) / sizeof(*where); i++) {
        struct vibe_error err = {0};

        codes[where[i]] = i % 2 ? 0xFF : 0x7F;
        assert_int_equal(check(MOST, &err), VIBE_E_FORMAT);
        assert_string_equal(err.msg,
                            "f: tensor w holds NaN, expected finite weights");
        codes[where[i]] = 0xFE;
    }
}

static void takes_every_other_code(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOST; i++)
        codes[i] = (unsigned char)(i % 127 | (i / 127 % 2) << 7);

    assert_int_equal(check(MOST, NULL), VIBE_OK);
    assert_int_equal(check(0, NULL), VIBE_OK);
}

static void floats_are_finite_or_not(void **state)
{
    float in[] = {3e38f, -1e-45f, 0.0f};

    (void)state;
    assert_true(vibe_finite_f32(in, 3));
    in[2] = -INFINITY;
    assert_false(vibe_finite_f32(in, 3));
    in[2] = NAN;
    assert_false(vibe_finite_f32(in, 3));
    assert_true(vibe_finite_f32(in, 2));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(finds_both_nans_wherever_they_are),
    cmocka_unit_test(takes_every_other_code),
    cmocka_unit_test(floats_are_finite_or_not),
};

VIBE_TEST_MAIN(tests)
