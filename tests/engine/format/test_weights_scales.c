/* What is beside a weight: the scales that make numbers of its codes. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/format/pack.h"
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

/* A scale for each of the pair's two rows. */
static struct vibe_safetensors_item row_scales(enum vibe_dtype dtype,
                                               const void *data)
{
    return (struct vibe_safetensors_item){.name = "lin.scale_weight",
                                          .dtype = dtype,
                                          .n_dims = 1,
                                          .shape = {2},
                                          .data = data};
}

static void scale_must_be_finite(void **state)
{
    struct weights_fixture *f = *state;
    const uint16_t scales[] = {0x3F80, 0x7FC0};

    weights_write_pair(f, row_scales(VIBE_BF16, scales));
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

static void scales_in_float8_are_honoured(void **state)
{
    struct weights_fixture *f = *state;
    const size_t shape[] = {2, 3};
    const uint8_t scales[] = {0x40, 0x38}; /* 2, 1 */
    const float want[] = {2, 4, 6, 4, 5, 6};

    weights_write_pair(f, row_scales(VIBE_F8_E4M3, scales));
    weights_open(f);
    assert_int_equal(
        vibe_weights_f32(f->w, &f->f32, "lin.weight", shape, 2, &f->err),
        VIBE_OK);
    assert_memory_equal(f->f32, want, sizeof(want));
}

/* Two rows of 128 columns in int4, and scales of this shape. */
static void write_int4(struct weights_fixture *f, size_t rows, size_t groups)
{
    static const uint8_t codes[2 * 64] = {0x79};
    const struct vibe_safetensors_item items[] = {
        {.name = "lin.weight",
         .dtype = VIBE_U8,
         .n_dims = 2,
         .shape = {2, 64},
         .data = codes},
        weights_matrix("lin.scale_weight", rows, groups),
    };

    weights_write(f, "model.safetensors", items, 2);
}

static void groups_of_64_or_128_make_int4(void **state)
{
    struct weights_fixture *f = *state;
    const size_t shape[] = {2, 128};

    for (size_t groups = 1; groups <= 2; groups++) {
        write_int4(f, 2, groups);
        weights_open(f);
        assert_int_equal(
            vibe_weights_need(f->w, &f->got, "lin.weight", shape, 2, &f->err),
            VIBE_OK);
        assert_int_equal(f->got.dtype, VIBE_I4);
        assert_int_equal(f->got.n, 256);
        assert_int_equal(f->got.group, 128 / groups);
        for (size_t i = 0; i < 2 * groups; i++)
            assert_true(f->got.group_scale[i] == (float)(i + 1));
        vibe_weights_free(f->w);
        f->w = NULL;
    }
}

static void groups_of_another_size_are_refused(void **state)
{
    static const size_t shapes[][2] = {{2, 4}, {1, 2}, {2, 3}, {3, 1}, {2, 0}};
    struct weights_fixture *f = *state;

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        char says[128];

        write_int4(f, shapes[i][0], shapes[i][1]);
        snprintf(says, sizeof(says),
                 "lin.scale_weight has shape [%zu,%zu], expected a scale for "
                 "every 64 or 128 of [2,128] int4",
                 shapes[i][0], shapes[i][1]);
        weights_assert_refused(f, VIBE_E_FORMAT, says);
    }
}

/* A file with bytes of a packed 2x3 "lin.weight", but this one changed. */
static void write_packed(struct weights_fixture *f, size_t at, uint8_t change)
{
    const void *const row[] = {weights_ones, weights_ones + 3};
    const size_t header = vibe_pack_header_bytes(2);
    const size_t block = vibe_pack_block_bytes(row, 2, 3);
    uint8_t *bytes = malloc(header + block);
    const struct vibe_safetensors_item item = {.name = "lin.weight",
                                               .dtype = VIBE_U8,
                                               .n_dims = 1,
                                               .shape = {header + block},
                                               .data = bytes};

    assert_non_null(bytes);
    vibe_pack_header_write(bytes, 2, 3, &block);
    vibe_pack_block(bytes + header, row, 2, 3);
    bytes[at] ^= change;
    weights_write(f, "model.safetensors", &item, 1);
    free(bytes);
}

static void packed_bytes_are_a_matrix(void **state)
{
    struct weights_fixture *f = *state;
    const size_t shape[] = {2, 3};
    uint16_t got[6];

    write_packed(f, 0, 0);
    weights_open(f);

    assert_int_equal(
        vibe_weights_need(f->w, &f->got, "lin.weight", shape, 2, &f->err),
        VIBE_OK);
    assert_int_equal(f->got.dtype, VIBE_BF16_PACKED);
    assert_int_equal(f->got.n, 6);
    assert_int_equal(f->got.blocks[0], vibe_pack_header_bytes(2));
    vibe_unpack_block(got, f->got.data, 2, 3);
    assert_memory_equal(got, weights_ones, sizeof(got));
}

static void damaged_packed_bytes_are_refused(void **state)
{
    struct weights_fixture *f = *state;

    write_packed(f, offsetof(struct vibe_pack_header, n_rows), 64);
    weights_assert_refused(f, VIBE_E_FORMAT,
                           "lin.weight: its table of blocks does not fill it");
}

static void bytes_without_the_magic_are_no_weights(void **state)
{
    struct weights_fixture *f = *state;

    write_packed(f, offsetof(struct vibe_pack_header, magic), 1);
    weights_assert_refused(f, VIBE_E_FORMAT, "holds no weights");
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
    VIBE_TEST(scales_in_float8_are_honoured),
    VIBE_TEST(groups_of_64_or_128_make_int4),
    VIBE_TEST(groups_of_another_size_are_refused),
    VIBE_TEST(packed_bytes_are_a_matrix),
    VIBE_TEST(damaged_packed_bytes_are_refused),
    VIBE_TEST(bytes_without_the_magic_are_no_weights),
};

VIBE_TEST_MAIN(tests)
