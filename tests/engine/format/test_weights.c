#include "engine/format/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/format/names.h"
#include "engine/format/safetensors_write.h"
#include "tests/support/st_writer.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct st_dir dir;
    struct vibe_weights *w;
    struct vibe_weight got;
    float *f32;
    struct vibe_error err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    st_dir_make(&f->dir);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_weights_free(f->w);
    free(f->f32);
    st_dir_remove(&f->dir);
    free(f);
    return 0;
}

static const uint16_t bf16_ones[64] = {
    0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0, 0x40C0, /* 1 .. 6 */
};

/* A BF16 tensor of rows x cols, 1 .. 6 and then zeros. */
static struct vibe_safetensors_item matrix(const char *name, size_t rows,
                                           size_t cols)
{
    return (struct vibe_safetensors_item){
        .name = name,
        .dtype = VIBE_BF16,
        .n_dims = 2,
        .shape = {rows, cols},
        .data = bf16_ones,
    };
}

static void write_file(struct fixture *f, const char *name,
                       const struct vibe_safetensors_item *items, size_t n)
{
    assert_int_equal(
        vibe_safetensors_write(st_path(&f->dir, name), items, n, NULL),
        VIBE_OK);
}

/* model.safetensors with a 2x3 "lin.weight" and one more tensor. */
static void write_pair(struct fixture *f, struct vibe_safetensors_item second)
{
    const struct vibe_safetensors_item items[] = {matrix("lin.weight", 2, 3),
                                                  second};

    write_file(f, "model.safetensors", items, 2);
}

static void open_dir(struct fixture *f)
{
    if (vibe_weights_open(&f->w, f->dir.path, &f->err) != VIBE_OK)
        fail_msg("%s", f->err.msg);
}

static void assert_says(const struct fixture *f, const char *part)
{
    if (!strstr(f->err.msg, part))
        fail_msg("\"%s\" lacks \"%s\"", f->err.msg, part);
}

static void assert_refused(struct fixture *f, int code, const char *part)
{
    f->w = (struct vibe_weights *)f; /* must not stay */
    assert_int_equal(vibe_weights_open(&f->w, f->dir.path, &f->err), code);
    assert_null(f->w);
    assert_says(f, f->dir.path);
    assert_says(f, part);
}

/* Two shards, a.weight and b.weight, and an index with this weight_map. */
static void write_shards(struct fixture *f, const char *weight_map)
{
    const struct vibe_safetensors_item a = matrix("a.weight", 2, 3);
    const struct vibe_safetensors_item b = matrix("b.weight", 1, 4);
    char index[512];

    write_file(f, "s1.safetensors", &a, 1);
    write_file(f, "s2.safetensors", &b, 1);
    snprintf(index, sizeof(index),
             "{\"metadata\":{\"total_size\":1},\"weight_map\":%s}", weight_map);
    st_write_text(st_path(&f->dir, "model.safetensors.index.json"), index);
}

static void open_names_a_missing_path(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_weights_open(&f->w, "/nonexistent/7b", &f->err),
                     VIBE_E_IO);
    assert_string_equal(f->err.msg,
                        "/nonexistent/7b: No such file or directory");
}

static void open_says_what_a_folder_lacks(void **state)
{
    assert_refused(*state, VIBE_E_IO,
                   ": no model.safetensors and no "
                   "model.safetensors.index.json");
}

static void open_refuses_a_file_without_weights(void **state)
{
    struct fixture *f = *state;

    write_file(f, "model.safetensors", NULL, 0);
    assert_refused(f, VIBE_E_FORMAT, "holds no weights");
}

static void open_takes_one_file_by_its_path(void **state)
{
    struct fixture *f = *state;
    const struct vibe_safetensors_item a = matrix("a.weight", 2, 3);

    write_file(f, "any.safetensors", &a, 1);
    assert_int_equal(
        vibe_weights_open(&f->w, st_path(&f->dir, "any.safetensors"), &f->err),
        VIBE_OK);
    assert_true(vibe_weights_has(f->w, "a.weight"));
}

static void open_reads_the_shards_of_an_index(void **state)
{
    struct fixture *f = *state;
    const size_t shape[] = {1, 4};

    write_shards(f, "{\"b.weight\":\"s2.safetensors\","
                    "\"a.weight\":\"s1.safetensors\"}");
    open_dir(f);

    assert_int_equal(vibe_weights_count(f->w), 2);
    assert_int_equal(vibe_weights_bytes(f->w), 20);
    assert_int_equal(
        vibe_weights_need(f->w, &f->got, "b.weight", shape, 2, &f->err),
        VIBE_OK);
    assert_string_equal(f->got.file, st_path(&f->dir, "s2.safetensors"));
}

static void open_takes_tensors_that_the_index_omits(void **state)
{
    struct fixture *f = *state;
    const struct vibe_safetensors_item more[] = {matrix("a.weight", 2, 3),
                                                 matrix("c.weight", 2, 3)};

    write_shards(f, "{\"a.weight\":\"s1.safetensors\"}");
    write_file(f, "s1.safetensors", more, 2);
    open_dir(f);

    assert_true(vibe_weights_has(f->w, "c.weight"));
}

static void open_names_a_missing_shard(void **state)
{
    struct fixture *f = *state;

    write_shards(f, "{\"a.weight\":\"s1.safetensors\","
                    "\"c.weight\":\"model-00002-of-00010.safetensors\"}");
    assert_refused(f, VIBE_E_IO,
                   "/model-00002-of-00010.safetensors: missing shard");
}

/* The published layout is an index: a broken one is not passed over. */
static void open_prefers_the_index_to_a_single_file(void **state)
{
    struct fixture *f = *state;
    const struct vibe_safetensors_item one[] = {matrix("a.weight", 2, 3)};

    write_shards(f, "{\"a.weight\":\"gone.safetensors\"}");
    write_file(f, "model.safetensors", one, 1);
    assert_refused(f, VIBE_E_IO, "/gone.safetensors: missing shard");
}

static void open_names_a_damaged_shard(void **state)
{
    struct fixture *f = *state;

    write_shards(f, "{\"a.weight\":\"s1.safetensors\","
                    "\"b.weight\":\"s2.safetensors\"}");
    st_write_text(st_path(&f->dir, "s2.safetensors"), "<html>not here</html>");
    assert_refused(f, VIBE_E_FORMAT, "/s2.safetensors: header of ");
}

static void open_refuses_shards_outside_the_folder(void **state)
{
    static const char *const shards[] = {
        "\"../x.safetensors\"",
        "\"/etc/passwd\"",
        "\"sub/x.safetensors\"",
        "\"..\"",
        "\"\"",
        "7",
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(shards) / sizeof(*shards); i++) {
        char map[128];

        snprintf(map, sizeof(map), "{\"a.weight\":%s}", shards[i]);
        write_shards(f, map);
        snprintf(map, sizeof(map),
                 "weight_map puts a.weight into %s, expected the name",
                 shards[i]);
        assert_refused(f, VIBE_E_FORMAT, map);
    }
}

static void open_refuses_an_index_without_tensors(void **state)
{
    struct fixture *f = *state;

    write_shards(f, "{}");
    assert_refused(f, VIBE_E_FORMAT, "has no weight_map");
    write_shards(f, "[]");
    assert_refused(f, VIBE_E_FORMAT, "has no weight_map");
    write_shards(f, "{\"a.weight\":");
    assert_refused(f, VIBE_E_FORMAT, "index.json: not valid JSON at line 1");
}

static void open_refuses_too_many_shards(void **state)
{
    struct fixture *f = *state;
    char *index = malloc(65536);
    int n = sprintf(index, "{\"weight_map\":{");

    for (int i = 0; i <= 1000; i++)
        n += sprintf(index + n, "%s\"t%d\":\"s%d\"", i ? "," : "", i, i);
    sprintf(index + n, "}}");
    st_write_text(st_path(&f->dir, "model.safetensors.index.json"), index);
    free(index);
    assert_refused(f, VIBE_E_FORMAT, "names more than 1000 shards");
}

static void open_refuses_an_index_that_promises_too_much(void **state)
{
    struct fixture *f = *state;

    write_shards(f, "{\"a.weight\":\"s1.safetensors\","
                    "\"b.weight\":\"s1.safetensors\"}");
    assert_refused(f, VIBE_E_FORMAT,
                   "/s1.safetensors: has no tensor b.weight, which the index");
}

static void open_refuses_a_tensor_in_two_shards(void **state)
{
    struct fixture *f = *state;

    write_shards(f, "{\"a.weight\":\"s1.safetensors\","
                    "\"b.weight\":\"s2.safetensors\"}");
    write_file(f, "s2.safetensors",
               (const struct vibe_safetensors_item[]){matrix("a.weight", 2, 3),
                                                      matrix("b.weight", 1, 4)},
               2);
    assert_refused(f, VIBE_E_FORMAT, "tensor a.weight is there twice");
    assert_says(f, "/s1.safetensors");
    assert_says(f, "/s2.safetensors");
}

static void open_refuses_a_tensor_under_both_names(void **state)
{
    struct fixture *f = *state;
    const struct vibe_safetensors_item items[] = {
        matrix("model.prediction_head.cond_proj.weight", 2, 3),
        matrix("model.diffusion_head.cond_proj.weight", 2, 3),
    };

    write_file(f, "model.safetensors", items, 2);
    assert_refused(f, VIBE_E_FORMAT, "is there twice");
}

static void need_describes_the_tensor(void **state)
{
    struct fixture *f = *state;
    const size_t shape[] = {2, 3};

    write_pair(f, matrix("b", 1, 1));
    open_dir(f);

    assert_int_equal(
        vibe_weights_need(f->w, &f->got, "lin.weight", shape, 2, &f->err),
        VIBE_OK);
    assert_int_equal(f->got.dtype, VIBE_BF16);
    assert_int_equal(f->got.n_dims, 2);
    assert_int_equal(f->got.shape[0], 2);
    assert_int_equal(f->got.shape[1], 3);
    assert_int_equal(f->got.n, 6);
    assert_null(f->got.scale);
    assert_memory_equal(f->got.data, bf16_ones, 12);
    assert_string_equal(f->got.name, "lin.weight");
}

static void need_names_a_missing_tensor(void **state)
{
    struct fixture *f = *state;
    const size_t shape[] = {2, 3};

    write_pair(f, matrix("b", 1, 1));
    open_dir(f);
    f->got.n = 77;

    assert_int_equal(
        vibe_weights_need(f->w, &f->got, "model.norm", shape, 2, &f->err),
        VIBE_E_FORMAT);
    assert_says(f, f->dir.path);
    assert_says(f, ": no tensor model.norm, expected one of shape [2,3]");
    assert_int_equal(f->got.n, 77); /* untouched on error */
    assert_false(vibe_weights_has(f->w, "model.norm"));
}

static void need_refuses_another_shape(void **state)
{
    struct fixture *f = *state;
    const size_t transposed[] = {3, 2};
    const size_t longer[] = {2, 3, 1};

    write_pair(f, matrix("b", 1, 1));
    open_dir(f);

    assert_int_equal(
        vibe_weights_need(f->w, &f->got, "lin.weight", transposed, 2, &f->err),
        VIBE_E_FORMAT);
    assert_says(f, "model.safetensors: tensor lin.weight has shape [2,3], "
                   "expected [3,2]");
    assert_int_equal(
        vibe_weights_need(f->w, &f->got, "lin.weight", longer, 3, &f->err),
        VIBE_E_FORMAT);
    assert_int_equal(
        vibe_weights_need(f->w, &f->got, "lin.weight", NULL, 0, &f->err),
        VIBE_E_FORMAT);
    assert_says(f, "expected []");
}

static void need_refuses_a_dtype_without_arithmetic(void **state)
{
    struct fixture *f = *state;
    struct st_header h = {0};
    const size_t shape[] = {2};

    st_header_add(&h, "w", "BF16", "[2]", 4);
    st_header_add(&h, "i", "I32", "[2]", 8);
    st_header_add(&h, "l", "I64", "[2]", 16);
    st_header_write(&h, st_path(&f->dir, "model.safetensors"));
    open_dir(f);

    assert_int_equal(vibe_weights_need(f->w, &f->got, "i", shape, 1, &f->err),
                     VIBE_E_UNSUPPORTED);
    assert_says(f, "tensor i is I32, expected F32, BF16, F16 or F8_E4M3");
    assert_int_equal(vibe_weights_need(f->w, &f->got, "l", shape, 1, &f->err),
                     VIBE_E_UNSUPPORTED);
    assert_int_equal(vibe_weights_count(f->w), 1); /* neither is a weight */
}

static void f32_widens(void **state)
{
    struct fixture *f = *state;
    const size_t shape[] = {2, 3};
    const float want[] = {1, 2, 3, 4, 5, 6};

    write_pair(f, matrix("b", 1, 1));
    open_dir(f);

    assert_int_equal(
        vibe_weights_f32(f->w, &f->f32, "lin.weight", shape, 2, &f->err),
        VIBE_OK);
    assert_memory_equal(f->f32, want, sizeof(want));
}

static void f32_widens_data_at_odd_addresses(void **state)
{
    struct fixture *f = *state;
    const uint8_t one = 0x38;
    const size_t shape[] = {2, 3};
    const float want[] = {1, 2, 3, 4, 5, 6};
    const struct vibe_safetensors_item items[] = {
        {.name = "a", .dtype = VIBE_F8_E4M3, .data = &one},
        matrix("lin.weight", 2, 3),
    };

    write_file(f, "model.safetensors", items, 2);
    open_dir(f);

    assert_int_equal(
        vibe_weights_f32(f->w, &f->f32, "lin.weight", shape, 2, &f->err),
        VIBE_OK);
    assert_memory_equal(f->f32, want, sizeof(want));
}

static void f32_widens_more_than_one_chunk(void **state)
{
    enum { N = 10001 }; /* 40 KB, past any buffer of ours, and odd */
    struct fixture *f = *state;
    float *x = malloc(N * sizeof(*x));
    const size_t shape[] = {N};
    struct vibe_safetensors_item item = {
        .name = "x", .dtype = VIBE_F32, .n_dims = 1, .shape = {N}};

    for (size_t i = 0; i < N; i++)
        x[i] = (float)i;
    item.data = x;
    write_file(f, "model.safetensors", &item, 1);
    open_dir(f);

    assert_int_equal(vibe_weights_f32(f->w, &f->f32, "x", shape, 1, &f->err),
                     VIBE_OK);
    assert_memory_equal(f->f32, x, N * sizeof(*x));
    free(x);
}

static void f32_leaves_null_where_there_is_no_such_tensor(void **state)
{
    struct fixture *f = *state;
    const size_t shape[] = {6};

    write_pair(f, matrix("b", 1, 1));
    open_dir(f);
    f->f32 = (float *)f; /* must not stay */

    assert_int_equal(
        vibe_weights_f32(f->w, &f->f32, "lin.weight", shape, 1, &f->err),
        VIBE_E_FORMAT);
    assert_null(f->f32);
    assert_says(f, "has shape [2,3], expected [6]");
}

static void scale_of_one_value_is_honoured(void **state)
{
    struct fixture *f = *state;
    const size_t shape[] = {2, 3};
    const float scale = 0.5f;
    const float want[] = {0.5f, 1, 1.5f, 2, 2.5f, 3};

    write_pair(f, (struct vibe_safetensors_item){.name = "lin.scale_weight",
                                                 .dtype = VIBE_F32,
                                                 .data = &scale});
    open_dir(f);

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
    struct fixture *f = *state;
    const size_t shape[] = {2, 3};
    const uint16_t scales[] = {0x4000, 0x3F80}; /* bf16: 2, 1 */
    const float want[] = {2, 4, 6, 4, 5, 6};

    for (size_t n_dims = 1; n_dims <= 2; n_dims++) { /* [N] and [N,1] */
        write_pair(f, (struct vibe_safetensors_item){.name = "lin.scale_weight",
                                                     .dtype = VIBE_BF16,
                                                     .n_dims = n_dims,
                                                     .shape = {2, 1},
                                                     .data = scales});
        open_dir(f);
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

static void scale_of_another_shape_is_refused(void **state)
{
    struct fixture *f = *state;

    write_pair(f, matrix("lin.scale_weight", 1, 2)); /* [1,2] is no [2,1] */
    assert_refused(f, VIBE_E_FORMAT,
                   "lin.scale_weight has 2 values, expected 1 or [2]");
    write_pair(f, matrix("lin.scale_weight", 3, 1));
    assert_refused(f, VIBE_E_FORMAT,
                   "lin.scale_weight has 3 values, expected 1 or [2]");
}

static void scale_must_be_finite(void **state)
{
    struct fixture *f = *state;
    const uint16_t scales[] = {0x3F80, 0x7FC0};

    write_pair(f, (struct vibe_safetensors_item){.name = "lin.scale_weight",
                                                 .dtype = VIBE_BF16,
                                                 .n_dims = 1,
                                                 .shape = {2},
                                                 .data = scales});
    assert_refused(f, VIBE_E_FORMAT, "expected finite scales");
}

static void scale_must_be_a_float(void **state)
{
    struct fixture *f = *state;
    const int64_t one = 1;

    write_pair(f, (struct vibe_safetensors_item){.name = "lin.scale_weight",
                                                 .dtype = VIBE_I64,
                                                 .data = &one});
    assert_refused(f, VIBE_E_UNSUPPORTED,
                   "lin.scale_weight is I64, expected a float");
}

static void scale_without_a_weight_is_ignored(void **state)
{
    struct fixture *f = *state;

    write_pair(f, matrix("other.scale_weight", 3, 3));
    open_dir(f);
    assert_int_equal(vibe_weights_count(f->w), 1);
}

/* One rank-0 tensor of this dtype and these bits. */
static void write_scalar(struct fixture *f, enum vibe_dtype dtype,
                         const void *bits)
{
    write_pair(
        f, (struct vibe_safetensors_item){.name = "model.speech_scaling_factor",
                                          .dtype = dtype,
                                          .data = bits});
}

static int read_scalar(struct fixture *f, float *out)
{
    vibe_weights_free(f->w);
    open_dir(f);
    return vibe_weights_scalar(f->w, "model.speech_scaling_factor", out,
                               &f->err);
}

static void scalar_reads_any_float(void **state)
{
    struct fixture *f = *state;
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
    write_pair(
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
    struct fixture *f = *state;
    const uint16_t nan = 0x7FC0;
    const uint16_t infinity = 0xFF80;
    const uint8_t f8_nan = 0xFF;
    float x = 7.0f;

    write_scalar(f, VIBE_BF16, &nan);
    assert_int_equal(read_scalar(f, &x), VIBE_E_FORMAT);
    assert_says(f, "model.safetensors: tensor model.speech_scaling_factor is "
                   "NaN, expected a finite number");
    write_scalar(f, VIBE_BF16, &infinity);
    assert_int_equal(read_scalar(f, &x), VIBE_E_FORMAT);
    assert_says(f, "is infinite");
    write_scalar(f, VIBE_F8_E4M3, &f8_nan);
    assert_int_equal(read_scalar(f, &x), VIBE_E_FORMAT);
    assert_true(x == 7.0f); /* untouched on error */
}

static void scalar_refuses_a_vector(void **state)
{
    struct fixture *f = *state;
    float x = 7.0f;

    write_pair(f, matrix("model.speech_scaling_factor", 2, 2));
    assert_int_equal(read_scalar(f, &x), VIBE_E_FORMAT);
    assert_says(f, "has shape [2,2], expected []");
    assert_true(x == 7.0f);
}

static void get_visits_in_the_order_of_the_file(void **state)
{
    struct fixture *f = *state;
    const struct vibe_safetensors_item items[] = {
        matrix("z", 1, 2), matrix("m", 1, 3), matrix("a", 1, 4)};

    write_file(f, "model.safetensors", items, 3);
    open_dir(f);

    assert_int_equal(vibe_weights_count(f->w), 3);
    for (size_t i = 0; i < 3; i++) {
        vibe_weights_get(f->w, i, &f->got);
        assert_string_equal(f->got.name, items[i].name);
    }
}

static void dtype_is_what_most_bytes_have(void **state)
{
    struct fixture *f = *state;
    struct st_header h = {0};

    st_header_add(&h, "norm1", "F32", "[4]", 16);
    st_header_add(&h, "norm2", "F32", "[4]", 16);
    st_header_add(&h, "lin", "F8_E4M3", "[64]", 64);
    st_header_write(&h, st_path(&f->dir, "model.safetensors"));
    open_dir(f);

    assert_int_equal(vibe_weights_dtype(f->w), VIBE_F8_E4M3);
    assert_int_equal(vibe_weights_bytes(f->w), 96);
}

static void forget_leaves_the_data_readable(void **state)
{
    struct fixture *f = *state;

    write_pair(f, matrix("b", 1, 1));
    open_dir(f);
    vibe_weights_get(f->w, 0, &f->got);
    vibe_weights_forget(f->w, "lin.");

    assert_memory_equal(f->got.data, bf16_ones, 12);
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
    struct fixture *f = *state;
    struct st_header h = {0};
    size_t before;
    size_t sum = 0;

    st_header_add(&h, "model.audio_tower.encoder.x", "BF16", "[8388608]",
                  BYTES);
    st_header_write(&h, st_path(&f->dir, "model.safetensors"));
    open_dir(f);
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

static void names_of_transformers_5_become_the_original(void **state)
{
    static const char *const table[][2] = {
        {"model.audio_tower.encoder.stem.conv.conv.weight",
         "model.acoustic_tokenizer.encoder.downsample_layers.0.0.conv.conv."
         "weight"},
        {"model.audio_tower.encoder.stem.stage.2.gamma",
         "model.acoustic_tokenizer.encoder.stages.0.2.gamma"},
        {"model.audio_tower.encoder.conv_layers.0.conv.conv.bias",
         "model.acoustic_tokenizer.encoder.downsample_layers.1.0.conv.conv."
         "bias"},
        {"model.audio_tower.encoder.conv_layers.5.stage.7.mixer.conv.weight",
         "model.acoustic_tokenizer.encoder.stages.6.7.mixer.conv.conv.conv."
         "weight"},
        {"model.audio_tower.encoder.head.conv.weight",
         "model.acoustic_tokenizer.encoder.head.conv.conv.weight"},
        {"model.audio_tower.decoder.stem.conv.conv.weight",
         "model.acoustic_tokenizer.decoder.upsample_layers.0.0.conv.conv."
         "weight"},
        {"model.audio_tower.decoder.conv_layers.3.convtr.convtr.weight",
         "model.acoustic_tokenizer.decoder.upsample_layers.4.0.convtr.convtr."
         "weight"},
        {"model.semantic_tokenizer_encoder.conv_layers.1.stage.0.ffn.linear1."
         "bias",
         "model.semantic_tokenizer.encoder.stages.2.0.ffn.linear1.bias"},
        {"model.diffusion_head.timestep_proj.fc1.weight",
         "model.prediction_head.t_embedder.mlp.0.weight"},
        {"model.diffusion_head.timestep_proj.layer_2.weight",
         "model.prediction_head.t_embedder.mlp.2.weight"},
        {"model.diffusion_head.timestep_embedder.layer_1.weight",
         "model.prediction_head.t_embedder.mlp.0.weight"},
        {"model.diffusion_head.layers.3.linear.weight",
         "model.prediction_head.layers.3.adaLN_modulation.1.weight"},
        {"model.diffusion_head.layers.3.ffn.up_proj.weight",
         "model.prediction_head.layers.3.ffn.up_proj.weight"},
        {"model.diffusion_head.final_layer.linear_1.weight",
         "model.prediction_head.final_layer.adaLN_modulation.1.weight"},
        {"model.diffusion_head.final_layer.linear_2.weight",
         "model.prediction_head.final_layer.linear.weight"},
        {"model.diffusion_head.layers.0.linear.scale_weight",
         "model.prediction_head.layers.0.adaLN_modulation.1.scale_weight"},
        {"model.multi_modal_projector.act.weight",
         "model.acoustic_connector.norm.weight"},
        {"model.semantic_connector.linear_2.bias",
         "model.semantic_connector.fc2.bias"},
        {"model.latent_scaling_factor", "model.speech_scaling_factor"},
        {"model.latent_bias_factor", "model.speech_bias_factor"},
        {"model.language_model.layers.0.mlp.up_proj.weight",
         "model.language_model.layers.0.mlp.up_proj.weight"},
        {"lm_head.weight", "lm_head.weight"},
    };
    char got[256];

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        assert_int_equal(vibe_names_original(got, sizeof(got), table[i][0]), 0);
        assert_string_equal(got, table[i][1]);
        /* What is original already stays. */
        assert_int_equal(vibe_names_original(got, sizeof(got), table[i][1]), 0);
        assert_string_equal(got, table[i][1]);
    }
}

static void names_that_do_not_fit_are_refused(void **state)
{
    const char *name = "model.diffusion_head.layers.3.linear.weight";
    char got[64];

    (void)state;
    /* 56 characters and the end. */
    assert_int_equal(vibe_names_original(got, 57, name), 0);
    for (size_t size = 1; size < 57; size++)
        assert_int_equal(vibe_names_original(got, size, name), 1);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(open_names_a_missing_path),
    VIBE_TEST(open_says_what_a_folder_lacks),
    VIBE_TEST(open_refuses_a_file_without_weights),
    VIBE_TEST(open_takes_one_file_by_its_path),
    VIBE_TEST(open_reads_the_shards_of_an_index),
    VIBE_TEST(open_takes_tensors_that_the_index_omits),
    VIBE_TEST(open_names_a_missing_shard),
    VIBE_TEST(open_prefers_the_index_to_a_single_file),
    VIBE_TEST(open_names_a_damaged_shard),
    VIBE_TEST(open_refuses_shards_outside_the_folder),
    VIBE_TEST(open_refuses_an_index_without_tensors),
    VIBE_TEST(open_refuses_too_many_shards),
    VIBE_TEST(open_refuses_an_index_that_promises_too_much),
    VIBE_TEST(open_refuses_a_tensor_in_two_shards),
    VIBE_TEST(open_refuses_a_tensor_under_both_names),
    VIBE_TEST(need_describes_the_tensor),
    VIBE_TEST(need_names_a_missing_tensor),
    VIBE_TEST(need_refuses_another_shape),
    VIBE_TEST(need_refuses_a_dtype_without_arithmetic),
    VIBE_TEST(f32_widens),
    VIBE_TEST(f32_widens_data_at_odd_addresses),
    VIBE_TEST(f32_widens_more_than_one_chunk),
    VIBE_TEST(f32_leaves_null_where_there_is_no_such_tensor),
    VIBE_TEST(scale_of_one_value_is_honoured),
    VIBE_TEST(scale_per_row_is_honoured),
    VIBE_TEST(scale_of_another_shape_is_refused),
    VIBE_TEST(scale_must_be_finite),
    VIBE_TEST(scale_must_be_a_float),
    VIBE_TEST(scale_without_a_weight_is_ignored),
    VIBE_TEST(scalar_reads_any_float),
    VIBE_TEST(scalar_refuses_nan_and_infinity),
    VIBE_TEST(scalar_refuses_a_vector),
    VIBE_TEST(get_visits_in_the_order_of_the_file),
    VIBE_TEST(dtype_is_what_most_bytes_have),
    VIBE_TEST(forget_leaves_the_data_readable),
    VIBE_TEST(forget_unmaps_the_pages_of_a_prefix),
    VIBE_TEST(names_of_transformers_5_become_the_original),
    VIBE_TEST(names_that_do_not_fit_are_refused),
};

VIBE_TEST_MAIN(tests)
