#include "engine/format/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static void open_names_a_missing_path(void **state)
{
    struct weights_fixture *f = *state;

    assert_int_equal(vibe_weights_open(&f->w, "/nonexistent/7b", &f->err),
                     VIBE_E_IO);
    assert_string_equal(f->err.msg,
                        "/nonexistent/7b: No such file or directory");
}

static void open_says_what_a_folder_lacks(void **state)
{
    weights_assert_refused(*state, VIBE_E_IO,
                           ": no model.safetensors and no "
                           "model.safetensors.index.json");
}

static void open_refuses_a_file_without_weights(void **state)
{
    struct weights_fixture *f = *state;

    weights_write(f, "model.safetensors", NULL, 0);
    weights_assert_refused(f, VIBE_E_FORMAT, "holds no weights");
}

static void open_takes_one_file_by_its_path(void **state)
{
    struct weights_fixture *f = *state;
    const struct vibe_safetensors_item a = weights_matrix("a.weight", 2, 3);

    weights_write(f, "any.safetensors", &a, 1);
    assert_int_equal(
        vibe_weights_open(&f->w, st_path(&f->dir, "any.safetensors"), &f->err),
        VIBE_OK);
    assert_true(vibe_weights_has(f->w, "a.weight"));
}

static void open_refuses_a_tensor_under_both_names(void **state)
{
    struct weights_fixture *f = *state;
    const struct vibe_safetensors_item items[] = {
        weights_matrix("model.prediction_head.cond_proj.weight", 2, 3),
        weights_matrix("model.diffusion_head.cond_proj.weight", 2, 3),
    };

    weights_write(f, "model.safetensors", items, 2);
    weights_assert_refused(f, VIBE_E_FORMAT, "is there twice");
}

static void need_describes_the_tensor(void **state)
{
    struct weights_fixture *f = *state;
    const size_t shape[] = {2, 3};

    weights_write_pair(f, weights_matrix("b", 1, 1));
    weights_open(f);

    assert_int_equal(
        vibe_weights_need(f->w, &f->got, "lin.weight", shape, 2, &f->err),
        VIBE_OK);
    assert_int_equal(f->got.dtype, VIBE_BF16);
    assert_int_equal(f->got.n_dims, 2);
    assert_int_equal(f->got.shape[0], 2);
    assert_int_equal(f->got.shape[1], 3);
    assert_int_equal(f->got.n, 6);
    assert_null(f->got.scale);
    assert_memory_equal(f->got.data, weights_ones, 12);
    assert_string_equal(f->got.name, "lin.weight");
}

static void need_names_a_missing_tensor(void **state)
{
    struct weights_fixture *f = *state;
    const size_t shape[] = {2, 3};

    weights_write_pair(f, weights_matrix("b", 1, 1));
    weights_open(f);
    f->got.n = 77;

    assert_int_equal(
        vibe_weights_need(f->w, &f->got, "model.norm", shape, 2, &f->err),
        VIBE_E_FORMAT);
    weights_assert_says(f, f->dir.path);
    weights_assert_says(f,
                        ": no tensor model.norm, expected one of shape [2,3]");
    assert_int_equal(f->got.n, 77); /* untouched on error */
    assert_false(vibe_weights_has(f->w, "model.norm"));
}

static void need_refuses_another_shape(void **state)
{
    struct weights_fixture *f = *state;
    const size_t transposed[] = {3, 2};
    const size_t longer[] = {2, 3, 1};

    weights_write_pair(f, weights_matrix("b", 1, 1));
    weights_open(f);

    assert_int_equal(
        vibe_weights_need(f->w, &f->got, "lin.weight", transposed, 2, &f->err),
        VIBE_E_FORMAT);
    weights_assert_says(f,
                        "model.safetensors: tensor lin.weight has shape [2,3], "
                        "expected [3,2]");
    assert_int_equal(
        vibe_weights_need(f->w, &f->got, "lin.weight", longer, 3, &f->err),
        VIBE_E_FORMAT);
    assert_int_equal(
        vibe_weights_need(f->w, &f->got, "lin.weight", NULL, 0, &f->err),
        VIBE_E_FORMAT);
    weights_assert_says(f, "expected []");
}

static void need_refuses_a_dtype_without_arithmetic(void **state)
{
    struct weights_fixture *f = *state;
    struct st_header h = {0};
    const size_t shape[] = {2};

    st_header_add(&h, "w", "BF16", "[2]", 4);
    st_header_add(&h, "i", "I32", "[2]", 8);
    st_header_add(&h, "l", "I64", "[2]", 16);
    st_header_write(&h, st_path(&f->dir, "model.safetensors"));
    weights_open(f);

    assert_int_equal(vibe_weights_need(f->w, &f->got, "i", shape, 1, &f->err),
                     VIBE_E_UNSUPPORTED);
    weights_assert_says(f, "tensor i is I32, expected F32, BF16, F16, F8_E4M3 "
                           "or a kind with scales");
    assert_int_equal(vibe_weights_need(f->w, &f->got, "l", shape, 1, &f->err),
                     VIBE_E_UNSUPPORTED);
    assert_int_equal(vibe_weights_count(f->w), 1); /* neither is a weight */
}

static void f32_widens(void **state)
{
    struct weights_fixture *f = *state;
    const size_t shape[] = {2, 3};
    const float want[] = {1, 2, 3, 4, 5, 6};

    weights_write_pair(f, weights_matrix("b", 1, 1));
    weights_open(f);

    assert_int_equal(
        vibe_weights_f32(f->w, &f->f32, "lin.weight", shape, 2, &f->err),
        VIBE_OK);
    assert_memory_equal(f->f32, want, sizeof(want));
}

static void f32_widens_data_at_odd_addresses(void **state)
{
    struct weights_fixture *f = *state;
    const uint8_t one = 0x38;
    const size_t shape[] = {2, 3};
    const float want[] = {1, 2, 3, 4, 5, 6};
    const struct vibe_safetensors_item items[] = {
        {.name = "a", .dtype = VIBE_F8_E4M3, .data = &one},
        weights_matrix("lin.weight", 2, 3),
    };

    weights_write(f, "model.safetensors", items, 2);
    weights_open(f);

    assert_int_equal(
        vibe_weights_f32(f->w, &f->f32, "lin.weight", shape, 2, &f->err),
        VIBE_OK);
    assert_memory_equal(f->f32, want, sizeof(want));
}

static void f32_widens_more_than_one_chunk(void **state)
{
    enum { N = 10001 }; /* 40 KB, past any buffer of ours, and odd */
    struct weights_fixture *f = *state;
    float *x = malloc(N * sizeof(*x));
    const size_t shape[] = {N};
    struct vibe_safetensors_item item = {
        .name = "x", .dtype = VIBE_F32, .n_dims = 1, .shape = {N}};

    for (size_t i = 0; i < N; i++)
        x[i] = (float)i;
    item.data = x;
    weights_write(f, "model.safetensors", &item, 1);
    weights_open(f);

    assert_int_equal(vibe_weights_f32(f->w, &f->f32, "x", shape, 1, &f->err),
                     VIBE_OK);
    assert_memory_equal(f->f32, x, N * sizeof(*x));
    free(x);
}

static void f32_leaves_null_where_there_is_no_such_tensor(void **state)
{
    struct weights_fixture *f = *state;
    const size_t shape[] = {6};

    weights_write_pair(f, weights_matrix("b", 1, 1));
    weights_open(f);
    f->f32 = (float *)f; /* must not stay */

    assert_int_equal(
        vibe_weights_f32(f->w, &f->f32, "lin.weight", shape, 1, &f->err),
        VIBE_E_FORMAT);
    assert_null(f->f32);
    weights_assert_says(f, "has shape [2,3], expected [6]");
}

/* One rank-0 tensor of this dtype and these bits. */
static void write_scalar(struct weights_fixture *f, enum vibe_dtype dtype,
                         const void *bits)
{
    weights_write_pair(
        f, (struct vibe_safetensors_item){.name = "model.speech_scaling_factor",
                                          .dtype = dtype,
                                          .data = bits});
}

static int read_scalar(struct weights_fixture *f, float *out)
{
    vibe_weights_free(f->w);
    weights_open(f);
    return vibe_weights_scalar(f->w, "model.speech_scaling_factor", out,
                               &f->err);
}

static void scalar_reads_any_float(void **state)
{
    struct weights_fixture *f = *state;
    const uint16_t bf16 = 0x3E49; /* 0.1962890625 */
    const uint8_t f8 = 0x25;      /* 0.203125 */
    const float one = 1.0f;
    float x = 0;

    write_scalar(f, VIBE_BF16, &bf16);
    assert_int_equal(read_scalar(f, &x), VIBE_OK);
    assert_true(x == 0.1962890625f);
    write_scalar(f, VIBE_F8_E4M3, &f8);
    assert_int_equal(read_scalar(f, &x), VIBE_OK);
    assert_true(x == 0.203125f);
    /* [1] will do for []. */
    weights_write_pair(
        f, (struct vibe_safetensors_item){.name = "model.latent_scaling_factor",
                                          .dtype = VIBE_F32,
                                          .n_dims = 1,
                                          .shape = {1},
                                          .data = &one});
    assert_int_equal(read_scalar(f, &x), VIBE_OK);
    assert_true(x == 1.0f);
}

static void scalar_refuses_nan_and_infinity(void **state)
{
    struct weights_fixture *f = *state;
    const uint16_t nan = 0x7FC0;
    const uint16_t infinity = 0xFF80;
    const uint8_t f8_nan = 0xFF;
    float x = 7.0f;

    write_scalar(f, VIBE_BF16, &nan);
    assert_int_equal(read_scalar(f, &x), VIBE_E_FORMAT);
    weights_assert_says(
        f, "model.safetensors: tensor model.speech_scaling_factor is "
           "NaN, expected a finite number");
    write_scalar(f, VIBE_BF16, &infinity);
    assert_int_equal(read_scalar(f, &x), VIBE_E_FORMAT);
    weights_assert_says(f, "is infinite");
    write_scalar(f, VIBE_F8_E4M3, &f8_nan);
    assert_int_equal(read_scalar(f, &x), VIBE_E_FORMAT);
    assert_true(x == 7.0f); /* untouched on error */
}

static void scalar_refuses_a_vector(void **state)
{
    struct weights_fixture *f = *state;
    float x = 7.0f;

    weights_write_pair(f, weights_matrix("model.speech_scaling_factor", 2, 2));
    assert_int_equal(read_scalar(f, &x), VIBE_E_FORMAT);
    weights_assert_says(f, "has shape [2,2], expected []");
    assert_true(x == 7.0f);
}

static void get_visits_in_the_order_of_the_file(void **state)
{
    struct weights_fixture *f = *state;
    const struct vibe_safetensors_item items[] = {weights_matrix("z", 1, 2),
                                                  weights_matrix("m", 1, 3),
                                                  weights_matrix("a", 1, 4)};

    weights_write(f, "model.safetensors", items, 3);
    weights_open(f);

    assert_int_equal(vibe_weights_count(f->w), 3);
    for (size_t i = 0; i < 3; i++) {
        vibe_weights_get(f->w, i, &f->got);
        assert_string_equal(f->got.name, items[i].name);
    }
}

static void dtype_is_what_most_bytes_have(void **state)
{
    struct weights_fixture *f = *state;
    struct st_header h = {0};

    st_header_add(&h, "norm1", "F32", "[4]", 16);
    st_header_add(&h, "norm2", "F32", "[4]", 16);
    st_header_add(&h, "lin", "F8_E4M3", "[64]", 64);
    st_header_write(&h, st_path(&f->dir, "model.safetensors"));
    weights_open(f);

    assert_int_equal(vibe_weights_dtype(f->w), VIBE_F8_E4M3);
    assert_int_equal(vibe_weights_bytes(f->w), 96);
}

static void forget_leaves_the_data_readable(void **state)
{
    struct weights_fixture *f = *state;

    weights_write_pair(f, weights_matrix("b", 1, 1));
    weights_open(f);
    vibe_weights_get(f->w, 0, &f->got);
    vibe_weights_forget(f->w, "lin.");

    assert_memory_equal(f->got.data, weights_ones, 12);
}

/* Bytes of files that this process has mapped in. */
static size_t mapped_in(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    char line[128];
    char *at = line;

    assert_non_null(file);
    assert_non_null(fgets(line, sizeof(line), file));
    fclose(file);
    strtoul(at, &at, 10); /* all pages */
    strtoul(at, &at, 10); /* those resident */
    return strtoul(at, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

static void forget_unmaps_the_pages_of_a_prefix(void **state)
{
    enum { BYTES = 16 << 20 };
    struct weights_fixture *f = *state;
    struct st_header h = {0};
    size_t before;
    size_t sum = 0;

    st_header_add(&h, "model.audio_tower.encoder.x", "BF16", "[8388608]",
                  BYTES);
    st_header_write(&h, st_path(&f->dir, "model.safetensors"));
    weights_open(f);
    vibe_weights_get(f->w, 0, &f->got);
    for (size_t i = 0; i < BYTES; i += 4096)
        sum += ((const volatile uint8_t *)f->got.data)[i];
    before = mapped_in();
    vibe_weights_forget(f->w, "model.acoustic_tokenizer.encoder.");

    assert_int_equal(sum, 0);
    /* Half of them: the kernel counts pages of a process only roughly. */
    assert_true(before >= BYTES / 2);
    assert_true(mapped_in() <= before - BYTES / 2);
}

static const void *recode(struct weights_fixture *f, const char *name)
{
    struct vibe_weight weight;
    const size_t shape[] = {2, 3};

    assert_int_equal(vibe_weights_need(f->w, &weight, name, shape, 2, &f->err),
                     VIBE_OK);
    assert_int_equal(vibe_weights_recode(f->w, &weight, name, VIBE_I8, &f->err),
                     VIBE_OK);
    return weight.data;
}

static void drop_leaves_what_others_were_recoded_to(void **state)
{
    struct weights_fixture *f = *state;
    const void *kept;

    weights_write_pair(f, weights_matrix("other.weight", 2, 3));
    weights_open(f);
    kept = recode(f, "lin.weight");
    recode(f, "other.weight");
    vibe_weights_drop(f->w, "other.weight");

    assert_ptr_equal(recode(f, "lin.weight"), kept); /* not made anew */
}

static void shared_weights_are_freed_with_the_last(void **state)
{
    struct weights_fixture *f = *state;
    struct vibe_weights *shared;
    const void *kept;

    weights_write_pair(f, weights_matrix("other.weight", 2, 3));
    weights_open(f);
    kept = recode(f, "lin.weight");
    shared = vibe_weights_share(f->w);
    vibe_weights_drop(shared, "lin.weight"); /* the other one reads it */
    assert_ptr_equal(recode(f, "lin.weight"), kept);
    vibe_weights_free(shared);

    assert_ptr_equal(recode(f, "lin.weight"), kept);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(open_names_a_missing_path),
    VIBE_TEST(open_says_what_a_folder_lacks),
    VIBE_TEST(open_refuses_a_file_without_weights),
    VIBE_TEST(open_takes_one_file_by_its_path),
    VIBE_TEST(open_refuses_a_tensor_under_both_names),
    VIBE_TEST(need_describes_the_tensor),
    VIBE_TEST(need_names_a_missing_tensor),
    VIBE_TEST(need_refuses_another_shape),
    VIBE_TEST(need_refuses_a_dtype_without_arithmetic),
    VIBE_TEST(f32_widens),
    VIBE_TEST(f32_widens_data_at_odd_addresses),
    VIBE_TEST(f32_widens_more_than_one_chunk),
    VIBE_TEST(f32_leaves_null_where_there_is_no_such_tensor),
    VIBE_TEST(scalar_reads_any_float),
    VIBE_TEST(scalar_refuses_nan_and_infinity),
    VIBE_TEST(scalar_refuses_a_vector),
    VIBE_TEST(get_visits_in_the_order_of_the_file),
    VIBE_TEST(dtype_is_what_most_bytes_have),
    VIBE_TEST(forget_leaves_the_data_readable),
    VIBE_TEST(forget_unmaps_the_pages_of_a_prefix),
    VIBE_TEST(drop_leaves_what_others_were_recoded_to),
    VIBE_TEST(shared_weights_are_freed_with_the_last),
};

VIBE_TEST_MAIN(tests)
