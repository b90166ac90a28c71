#include "engine/format/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/format/safetensors_write.h"
#include "tests/support/st_writer.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct st_dir dir;
    const char *path;
    struct vibe_safetensors *st;
    struct vibe_error err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    st_dir_make(&f->dir);
    f->path = st_path(&f->dir, "x.safetensors");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_safetensors_free(f->st);
    st_dir_remove(&f->dir);
    free(f);
    return 0;
}

/* Opening f->path fails with this code, and the sentence holds both parts. */
static void assert_refused(struct fixture *f, int code, const char *part)
{
    f->st = (struct vibe_safetensors *)f; /* must not stay */
    assert_int_equal(vibe_safetensors_open(&f->st, f->path, &f->err), code);
    assert_null(f->st);
    if (!strstr(f->err.msg, f->path) || !strstr(f->err.msg, part))
        fail_msg("\"%s\" lacks \"%s\"", f->err.msg, part);
}

/* The file of this header and so many bytes of data is no sound file. */
static void refuse(struct fixture *f, const char *header, size_t n_data,
                   const char *part)
{
    st_write_raw(f->path, SIZE_MAX, header, n_data);
    assert_refused(f, VIBE_E_FORMAT, part);
}

static void accept(struct fixture *f, const char *header, size_t n_data)
{
    st_write_raw(f->path, SIZE_MAX, header, n_data);
    if (vibe_safetensors_open(&f->st, f->path, &f->err) != VIBE_OK)
        fail_msg("%s", f->err.msg);
}

static void open_names_a_missing_file(void **state)
{
    assert_refused(*state, VIBE_E_IO, "No such file");
}

static void open_refuses_a_folder(void **state)
{
    struct fixture *f = *state;

    f->path = f->dir.path;
    assert_refused(f, VIBE_E_IO, "not a regular file");
}

static void open_refuses_an_empty_file(void **state)
{
    struct fixture *f = *state;

    st_write_text(f->path, "");
    assert_refused(f, VIBE_E_FORMAT, "is empty");
}

static void open_refuses_a_file_shorter_than_its_length_field(void **state)
{
    struct fixture *f = *state;

    st_write_text(f->path, "1234567");
    assert_refused(f, VIBE_E_FORMAT, "7 bytes, too short");
}

static void open_refuses_a_header_larger_than_the_file(void **state)
{
    struct fixture *f = *state;

    st_write_raw(f->path, 5000, "{}", 0);
    assert_refused(f, VIBE_E_FORMAT,
                   "header of 5000 bytes, file has 10 (incomplete download?)");
    st_write_raw(f->path, 3, "{}", 0); /* by one byte */
    assert_refused(f, VIBE_E_FORMAT, "header of 3 bytes, file has 10");
}

static void open_refuses_a_header_beyond_the_limit(void **state)
{
    struct fixture *f = *state;

    st_write_raw(f->path, 100000001, "{}", 0);
    assert_refused(f, VIBE_E_FORMAT, "at most 100000000");
    st_write_raw(f->path, SIZE_MAX - 1, "{}", 0); /* + 8 would wrap */
    assert_refused(f, VIBE_E_FORMAT, "at most 100000000");
}

static void open_refuses_what_is_not_a_header(void **state)
{
    struct fixture *f = *state;

    refuse(f, "", 8, "does not begin with '{'");
    refuse(f, " {}", 0, "does not begin with '{'");
    refuse(f, "{\"a\":", 0, "not valid JSON at line 1");
    refuse(f, "{} x", 0, "not valid JSON");
    refuse(f, "{\"\xff\":1}", 0, "not valid JSON");
}

static void open_accepts_blanks_behind_the_header(void **state)
{
    struct fixture *f = *state;

    accept(f, "{}     ", 0);
    assert_int_equal(vibe_safetensors_count(f->st), 0);
}

static void open_refuses_a_duplicate_name(void **state)
{
    refuse(*state,
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
           "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
           8, "duplicate object key");
}

static void open_refuses_a_truncated_file(void **state)
{
    struct fixture *f = *state;
    const char *header =
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";

    refuse(f, header, 7,
           "header says 70 bytes, file has 69 bytes (incomplete download?)");
}

static void open_says_large_sizes_in_their_unit(void **state)
{
    struct fixture *f = *state;
    const char *header = "{\"a\":{\"dtype\":\"F32\",\"shape\":[322122547],"
                         "\"data_offsets\":[0,1288490188]}}";

    refuse(f, header, 966367641,
           "header says 1.2 GiB, file has 0.9 GiB (incomplete download?)");
    /* Equal once rounded: the bytes are said instead. */
    refuse(f, header, 1288490187,
           "header says 1288490267 bytes, file has 1288490266 bytes");
}

static void open_refuses_bytes_behind_the_last_tensor(void **state)
{
    struct fixture *f = *state;

    refuse(f,
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
           9, "header says 70 bytes, file has 71 bytes");
    assert_null(strstr(f->err.msg, "incomplete"));
    refuse(f, "{}", 1, "header says 10 bytes, file has 11 bytes");
}

static void open_refuses_overlapping_tensors(void **state)
{
    refuse(*state,
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
           "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
           12, "tensor b overlaps a");
}

static void open_refuses_tensors_at_one_place(void **state)
{
    refuse(*state,
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
           "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
           8, "tensor b overlaps a");
}

static void open_refuses_a_hole(void **state)
{
    struct fixture *f = *state;

    refuse(f,
           "{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]},"
           "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
           12, "4 bytes before tensor b belong to none");
    refuse(f,
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
           6, "2 bytes before tensor a belong to none");
}

static void open_refuses_offsets_that_are_none(void **state)
{
    static const char *const offsets[] = {
        "[-4,0]", "[0,-4]", "[4,0]",   "[0]",       "[0,4,8]",
        "4",      "null",   "[0,4.0]", "[\"0\",4]", "[0,true]"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(offsets) / sizeof(*offsets); i++) {
        char header[128];

        snprintf(
            header, sizeof(header),
            "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":%s}}",
            offsets[i]);
        refuse(f, header, 4, "tensor a: data_offsets must be [begin, end]");
        if (strcmp(offsets[i], "null") != 0)
            assert_non_null(strstr(f->err.msg, "found "));
    }
    refuse(f,
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],"
           "\"data_offsets\":[0,9223372036854775808]}}",
           4, "too big integer");
}

static void open_refuses_a_shape_that_is_none(void **state)
{
    struct fixture *f = *state;

    refuse(f,
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}",
           4, "whole numbers from 0, found [-1]");
    refuse(f,
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}",
           4, "whole numbers from 0, found [1.5]");
    refuse(f, "{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}",
           4, "shape must be a list, found 1");
    refuse(f, "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4,
           "shape must be a list, found nothing");
}

static void open_refuses_a_shape_that_overflows(void **state)
{
    struct fixture *f = *state;

    refuse(f,
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],"
           "\"data_offsets\":[0,0]}}",
           0, "shape is too large");
    /* 2^61 elements fit a size_t, their bits do not. */
    refuse(f,
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[2305843009213693952],"
           "\"data_offsets\":[0,0]}}",
           0, "shape is too large");
}

static void open_refuses_bytes_that_are_not_shape_times_dtype(void **state)
{
    struct fixture *f = *state;

    refuse(f,
           "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2,3],"
           "\"data_offsets\":[0,10]}}",
           10,
           "tensor a: [2,3] of BF16 takes 12 bytes, data_offsets give it 10");
    refuse(f, "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}",
           2, "does not fill whole bytes");
}

static void open_refuses_an_unknown_dtype(void **state)
{
    struct fixture *f = *state;

    st_write_raw(
        f->path, SIZE_MAX,
        "{\"a\":{\"dtype\":\"F12\",\"shape\":[2],\"data_offsets\":[0,3]}}", 3);
    assert_refused(f, VIBE_E_UNSUPPORTED, "tensor a: unknown dtype 'F12'");
    refuse(f, "{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,3]}}", 3,
           "dtype must be a string, found 7");
}

static void open_refuses_too_many_dimensions(void **state)
{
    struct fixture *f = *state;

    st_write_raw(f->path, SIZE_MAX,
                 "{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[1,1,1,1,1,1,1,1,1],"
                 "\"data_offsets\":[0,1]}}",
                 1);
    assert_refused(f, VIBE_E_UNSUPPORTED, "has 9 dimensions");
}

static void open_refuses_an_entry_that_is_no_object(void **state)
{
    refuse(*state, "{\"a\":[]}", 0, "tensor a: expected an object, found []");
}

static void open_refuses_metadata_that_are_no_strings(void **state)
{
    struct fixture *f = *state;

    refuse(f, "{\"__metadata__\":[]}", 0, "__metadata__ is no object");
    refuse(f, "{\"__metadata__\":{\"n\":1}}", 0, "__metadata__.n is no string");
    accept(f, "{\"__metadata__\":{\"format\":\"pt\"}}", 0);
    assert_int_equal(vibe_safetensors_count(f->st), 0);
}

static void open_refuses_names_that_would_drive_a_terminal(void **state)
{
    refuse(*state,
           "{\"a\\u001b[2J\":{\"dtype\":\"F32\",\"shape\":[1],"
           "\"data_offsets\":[0,4]}}",
           4, "control character");
}

static void open_keeps_the_order_of_the_data(void **state)
{
    struct fixture *f = *state;

    accept(f,
           "{\"z\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]},"
           "\"m\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[4,4]},"
           "\"a\":{\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[0,4]}}",
           8);

    assert_int_equal(vibe_safetensors_count(f->st), 3);
    assert_string_equal(vibe_safetensors_get(f->st, 0)->name, "a");
    assert_string_equal(vibe_safetensors_get(f->st, 1)->name, "m");
    assert_string_equal(vibe_safetensors_get(f->st, 2)->name, "z");
    assert_int_equal(vibe_safetensors_get(f->st, 1)->n, 0);
    assert_ptr_equal(vibe_safetensors_get(f->st, 1)->data,
                     vibe_safetensors_get(f->st, 2)->data);
}

static void open_checks_dtypes_that_are_only_skipped(void **state)
{
    struct fixture *f = *state;
    const struct vibe_st_tensor *t;

    accept(
        f,
        "{\"a\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"b\":{\"dtype\":\"F6_E2M3\",\"shape\":[4],\"data_offsets\":[8,11]},"
        "\"c\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[11,13]}}",
        13);

    t = vibe_safetensors_find(f->st, "a");
    assert_false(t->is_known);
    assert_string_equal(t->dtype_name, "I32");
    t = vibe_safetensors_find(f->st, "c");
    assert_true(t->is_known);
    assert_int_equal(t->dtype, VIBE_F16);
}

static void find_returns_data_as_written(void **state)
{
    struct fixture *f = *state;
    const float x[] = {1.5f, -2.0f, 3.0f};
    const int64_t ids[] = {7, -1};
    const struct vibe_safetensors_item items[] = {
        {.name = "ids",
         .dtype = VIBE_I64,
         .n_dims = 1,
         .shape = {2},
         .data = ids},
        {.name = "x",
         .dtype = VIBE_F32,
         .n_dims = 2,
         .shape = {1, 3},
         .data = x},
    };
    const struct vibe_st_tensor *t;

    assert_int_equal(vibe_safetensors_write(f->path, items, 2, NULL), VIBE_OK);
    assert_int_equal(vibe_safetensors_open(&f->st, f->path, &f->err), VIBE_OK);

    t = vibe_safetensors_find(f->st, "x");
    assert_non_null(t);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->shape[1], 3);
    assert_int_equal(t->n, 3);
    assert_int_equal(t->n_bytes, sizeof(x));
    assert_memory_equal(t->data, x, sizeof(x));
    assert_memory_equal(vibe_safetensors_find(f->st, "ids")->data, ids,
                        sizeof(ids));
    assert_null(vibe_safetensors_find(f->st, "y"));
    assert_string_equal(vibe_safetensors_path(f->st), f->path);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(open_names_a_missing_file),
    VIBE_TEST(open_refuses_a_folder),
    VIBE_TEST(open_refuses_an_empty_file),
    VIBE_TEST(open_refuses_a_file_shorter_than_its_length_field),
    VIBE_TEST(open_refuses_a_header_larger_than_the_file),
    VIBE_TEST(open_refuses_a_header_beyond_the_limit),
    VIBE_TEST(open_refuses_what_is_not_a_header),
    VIBE_TEST(open_accepts_blanks_behind_the_header),
    VIBE_TEST(open_refuses_a_duplicate_name),
    VIBE_TEST(open_refuses_a_truncated_file),
    VIBE_TEST(open_says_large_sizes_in_their_unit),
    VIBE_TEST(open_refuses_bytes_behind_the_last_tensor),
    VIBE_TEST(open_refuses_overlapping_tensors),
    VIBE_TEST(open_refuses_tensors_at_one_place),
    VIBE_TEST(open_refuses_a_hole),
    VIBE_TEST(open_refuses_offsets_that_are_none),
    VIBE_TEST(open_refuses_a_shape_that_is_none),
    VIBE_TEST(open_refuses_a_shape_that_overflows),
    VIBE_TEST(open_refuses_bytes_that_are_not_shape_times_dtype),
    VIBE_TEST(open_refuses_an_unknown_dtype),
    VIBE_TEST(open_refuses_too_many_dimensions),
    VIBE_TEST(open_refuses_an_entry_that_is_no_object),
    VIBE_TEST(open_refuses_metadata_that_are_no_strings),
    VIBE_TEST(open_refuses_names_that_would_drive_a_terminal),
    VIBE_TEST(open_keeps_the_order_of_the_data),
    VIBE_TEST(open_checks_dtypes_that_are_only_skipped),
    VIBE_TEST(find_returns_data_as_written),
};

VIBE_TEST_MAIN(tests)
