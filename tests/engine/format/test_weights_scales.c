/* What is beside a weight: the scales that make numbers of its codes. */
#include <stdlib.h>

#include "engine/format/weights.h"
#include "tests/support/vibe_test.h"
#include "tests/support/weights_dir.h"

static int setup(void **state)
{
    return weights_setup(state);
}

static int teardown(void **state)
{
    return weights_teardown(state);
}

static void scale_of_one_value_is_honoured(void **state)
{
    struct weights_fixture *f = *state;
    const size_t shape[] = {2, 3};
    const float scale = 0.5f;
    const float want[] = {0.5f, 1, 1.5f, 2, 2.5f, 3};

    weights_write_pair(
        f, (struct vibe_safetensors_item){
               .name = "lin.scale_weight", .dtype = VIBE_F32, .data = &scale});
    weights_open(f);

    assert_int_equal(
        vibe_weights_need(f->w, &f->got, "lin.weight", shape, 2, &f->err),
        VIBE_OK);
    assert_int_equal(f->got.n_scales, 1);
    assert_true(f->got.scale[0] == 0.5f);
    assert_int_equal(
        vibe_weights_f32(f->w, &f->f32, "lin.weight", shape, 2, &f->err),
        VIBE_OK);
    assert_memory_equal(f->f32, want, sizeof(want));
    /* It is not a weight of its own. */
    assert_int_equal(vibe_weights_count(f->w), 1);
    vibe_weights_get(f->w, 0, &f->got);
    assert_int_equal(f->got.n_scales, 1);
}

static void scale_per_row_is_honoured(void **state)
{
    struct weights_fixture *f = *state;
    const size_t shape[] = {2, 3};
    const uint16_t scales[] = {0x4000, 0x3F80}; /* bf16: 2, 1 */
    const float want[] = {2, 4, 6, 4, 5, 6};

    for (size_t n_dims = 1; n_dims <= 2; n_dims++) { /* [N] and [N,1] */
        weights_write_pair(
            f, (struct vibe_safetensors_item){.name = "lin.scale_weight",
                                              .dtype = VIBE_BF16,
                                              .n_dims = n_dims,
                                              .shape = {2, 1},
                                              .data = scales});
        weights_open(f);
        assert_int_equal(
            vibe_weights_f32(f->w, &f->f32, "lin.weight", shape, 2, &f->err),
            VIBE_OK);
        assert_memory_equal(f->f32, want, sizeof(want));
        free(f->f32);
        f->f32 = NULL;
        vibe_weights_free(f->w);
        f->w = NULL;
    }
}

static void scales_of_other_programs_are_honoured(void **state)
{
    static const char *const names[] = {"lin.weight_scale",
                                        "lin.weight_scale_inv"};
    struct weights_fixture *f = *state;
    const size_t shape[] = {2, 3};
    const float scales[] = {2.0f, 0.5f};
    const float want[] = {2, 4, 6, 2, 2.5f, 3};

    for (size_t i = 0; i < 2; i++) {
        weights_write_pair(f, (struct vibe_safetensors_item){.name = names[i],
                                                             .dtype = VIBE_F32,
                                                             .n_dims = 2,
                                                             .shape = {2, 1},
                                                             .data = scales});
        weights_open(f);
        assert_int_equal(
            vibe_weights_f32(f->w, &f->f32, "lin.weight", shape, 2, &f->err),
            VIBE_OK);
        assert_memory_equal(f->f32, want, sizeof(want));
        assert_int_equal(vibe_weights_count(f->w), 1);
        free(f->f32);
        f->f32 = NULL;
        vibe_weights_free(f->w);
        f->w = NULL;
    }
}

static void a_second_scale_is_refused(void **state)
{
    struct weights_fixture *f = *state;
    const struct vibe_safetensors_item items[] = {
        weights_matrix("lin.weight", 2, 3),
        weights_matrix("lin.scale_weight", 2, 1),
        weights_matrix("lin.weight_scale", 2, 1),
    };

    weights_write(f, "model.safetensors", items, 3);
    weights_assert_refused(f, VIBE_E_FORMAT,
                           "lin.weight_scale is a second scale of one weight");
}

static void scale_of_another_shape_is_refused(void **state)
{
    struct weights_fixture *f = *state;

    weights_write_pair(
        f, weights_matrix("lin.scale_weight", 1, 2)); /* [1,2] is no [2,1] */
    weights_assert_refused(f, VIBE_E_FORMAT,
                           "lin.scale_weight has shape [1,2], expected one "
                           "value or [2]");
    weights_write_pair(f, weights_matrix("lin.scale_weight", 3, 1));
    weights_assert_refused(f, VIBE_E_FORMAT,
                           "lin.scale_weight has shape [3,1], expected one "
                           "value or [2]");
}

static void scale_must_be_finite(void **state)
{
    struct weights_fixture *f = *state;
    const uint16_t scales[] = {0x3F80, 0x7FC0};

    weights_write_pair(
        f, (struct vibe_safetensors_item){.name = "lin.scale_weight",
                                          .dtype = VIBE_BF16,
                                          .n_dims = 1,
                                          .shape = {2},
                                          .data = scales});
    weights_assert_refused(f, VIBE_E_FORMAT, "expected finite scales");
}

static void scale_must_be_a_float(void **state)
{
    struct weights_fixture *f = *state;
    const int64_t one = 1;

    weights_write_pair(
        f, (struct vibe_safetensors_item){
               .name = "lin.scale_weight", .dtype = VIBE_I64, .data = &one});
    weights_assert_refused(f, VIBE_E_UNSUPPORTED,
                           "lin.scale_weight is I64, expected F32, BF16, F16 "
                           "or F8_E4M3");
}

static void scale_without_a_weight_is_ignored(void **state)
{
    struct weights_fixture *f = *state;

    weights_write_pair(f, weights_matrix("other.scale_weight", 3, 3));
    weights_open(f);
    assert_int_equal(vibe_weights_count(f->w), 1);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(scale_of_one_value_is_honoured),
    VIBE_TEST(scale_per_row_is_honoured),
    VIBE_TEST(scales_of_other_programs_are_honoured),
    VIBE_TEST(a_second_scale_is_refused),
    VIBE_TEST(scale_of_another_shape_is_refused),
    VIBE_TEST(scale_must_be_finite),
    VIBE_TEST(scale_must_be_a_float),
    VIBE_TEST(scale_without_a_weight_is_ignored),
};

VIBE_TEST_MAIN(tests)
