/* What a tally counts is what a GPU takes: measuring needs no GPU. */
#include "engine/backend/cuda/device.h"
#include "engine/backend/ops.h"
#include "engine/backend/tally.h"
#include "tests/support/vibe_test.h"

static const float floats[4096];

static struct vibe_matrix_source source_of(enum vibe_dtype dtype, size_t N,
                                           size_t K)
{
    return (struct vibe_matrix_source){
        .part = {{.data = floats, .dtype = dtype, .n = N}},
        .n_parts = 1,
        .layout = VIBE_LAYOUT_LINEAR,
        .N = N,
        .K = K,
        .in = K,
    };
}

static void compare(const struct vibe_matrix_source *src)
{
    const struct vibe_tally_options options = {.kv_dtype = VIBE_BF16};
    struct vibe_backend *tally = NULL;
    struct vibe_ops cuda = {0};
    size_t rows, small, want_rows, want_small;

    vibe_cuda_memory_init(&cuda);
    assert_int_equal(vibe_tally_open(&tally, &options, NULL), VIBE_OK);
    assert_int_equal(
        cuda.matrix_measure(NULL, src, &want_rows, &want_small, NULL), VIBE_OK);
    assert_int_equal(vibe_matrix_measure(tally, src, &rows, &small, NULL),
                     VIBE_OK);
    assert_int_equal(rows, want_rows);
    assert_int_equal(small, want_small);
    vibe_backend_free(tally);
}

static void plain_matrices_are_counted_alike(void **state)
{
    static const enum vibe_dtype dtypes[] = {VIBE_F32, VIBE_BF16, VIBE_F16,
                                             VIBE_F8_E4M3};

    (void)state;
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        struct vibe_matrix_source src = source_of(dtypes[i], 130, 77);

        compare(&src);
        src.bias = floats;
        compare(&src);
        src.gamma = floats;
        src.part[0].scale = floats;
        src.part[0].n_scales = 1;
        compare(&src);
    }
}

static void parts_of_two_kinds_are_counted_alike(void **state)
{
    struct vibe_matrix_source src = source_of(VIBE_BF16, 128, 64);

    (void)state;
    src.n_parts = 2;
    src.part[0].n = 64;
    src.part[1] = src.part[0];
    src.part[1].dtype = VIBE_F8_E4M3;
    compare(&src);
    src.part[1].dtype = VIBE_F16;
    compare(&src);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(plain_matrices_are_counted_alike),
    cmocka_unit_test(parts_of_two_kinds_are_counted_alike),
};

VIBE_TEST_MAIN(tests)
