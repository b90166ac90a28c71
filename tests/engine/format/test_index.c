/* Checkpoints in shards, by their index. */
#include "engine/format/index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Two shards, a.weight and b.weight, and an index with this weight_map. */
static void write_shards(struct weights_fixture *f, const char *weight_map)
{
    const struct vibe_safetensors_item a = weights_matrix("a.weight", 2, 3);
    const struct vibe_safetensors_item b = weights_matrix("b.weight", 1, 4);
    char index[512];

    weights_write(f, "s1.safetensors", &a, 1);
    weights_write(f, "s2.safetensors", &b, 1);
    snprintf(index, sizeof(index),
             "{\"metadata\":{\"total_size\":1},\"weight_map\":%s}", weight_map);
    st_write_text(st_path(&f->dir, "model.safetensors.index.json"), index);
}

static void open_reads_the_shards_of_an_index(void **state)
{
    struct weights_fixture *f = *state;
    const size_t shape[] = {1, 4};

    write_shards(f, "{\"b.weight\":\"s2.safetensors\","
                    "\"a.weight\":\"s1.safetensors\"}");
    weights_open(f);

    assert_int_equal(vibe_weights_count(f->w), 2);
    assert_int_equal(vibe_weights_bytes(f->w), 20);
    assert_int_equal(
        vibe_weights_need(f->w, &f->got, "b.weight", shape, 2, &f->err),
        VIBE_OK);
    assert_string_equal(f->got.file, st_path(&f->dir, "s2.safetensors"));
}

static void open_takes_tensors_that_the_index_omits(void **state)
{
    struct weights_fixture *f = *state;
    const struct vibe_safetensors_item more[] = {
        weights_matrix("a.weight", 2, 3), weights_matrix("c.weight", 2, 3)};

    write_shards(f, "{\"a.weight\":\"s1.safetensors\"}");
    weights_write(f, "s1.safetensors", more, 2);
    weights_open(f);

    assert_true(vibe_weights_has(f->w, "c.weight"));
}

static void open_names_a_missing_shard(void **state)
{
    struct weights_fixture *f = *state;

    write_shards(f, "{\"a.weight\":\"s1.safetensors\","
                    "\"c.weight\":\"model-00002-of-00010.safetensors\"}");
    weights_assert_refused(f, VIBE_E_IO,
                           "/model-00002-of-00010.safetensors: missing shard");
}

/* The published layout is an index: a broken one is not passed over. */
static void open_prefers_the_index_to_a_single_file(void **state)
{
    struct weights_fixture *f = *state;
    const struct vibe_safetensors_item one[] = {
        weights_matrix("a.weight", 2, 3)};

    write_shards(f, "{\"a.weight\":\"gone.safetensors\"}");
    weights_write(f, "model.safetensors", one, 1);
    weights_assert_refused(f, VIBE_E_IO, "/gone.safetensors: missing shard");
}

static void open_names_a_damaged_shard(void **state)
{
    struct weights_fixture *f = *state;

    write_shards(f, "{\"a.weight\":\"s1.safetensors\","
                    "\"b.weight\":\"s2.safetensors\"}");
    st_write_text(st_path(&f->dir, "s2.safetensors"), "<html>not here</html>");
    weights_assert_refused(f, VIBE_E_FORMAT, "/s2.safetensors: header of ");
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
    struct weights_fixture *f = *state;

    for (size_t i = 0; i < sizeof(shards) / sizeof(*shards); i++) {
        char map[128];

        snprintf(map, sizeof(map), "{\"a.weight\":%s}", shards[i]);
        write_shards(f, map);
        snprintf(map, sizeof(map),
                 "weight_map puts a.weight into %s, expected the name",
                 shards[i]);
        weights_assert_refused(f, VIBE_E_FORMAT, map);
    }
}

static void open_refuses_an_index_without_tensors(void **state)
{
    struct weights_fixture *f = *state;

    write_shards(f, "{}");
    weights_assert_refused(f, VIBE_E_FORMAT, "has no weight_map");
    write_shards(f, "[]");
    weights_assert_refused(f, VIBE_E_FORMAT, "has no weight_map");
    write_shards(f, "{\"a.weight\":");
    weights_assert_refused(f, VIBE_E_FORMAT,
                           "index.json: not valid JSON at line 1");
}

static void open_refuses_too_many_shards(void **state)
{
    struct weights_fixture *f = *state;
    char *index = malloc(65536);
    int n = sprintf(index, "{\"weight_map\":{");

    for (int i = 0; i <= 1000; i++)
        n += sprintf(index + n, "%s\"t%d\":\"s%d\"", i ? "," : "", i, i);
    sprintf(index + n, "}}");
    st_write_text(st_path(&f->dir, "model.safetensors.index.json"), index);
    free(index);
    weights_assert_refused(f, VIBE_E_FORMAT, "names more than 1000 shards");
}

static void open_refuses_an_index_that_promises_too_much(void **state)
{
    struct weights_fixture *f = *state;

    write_shards(f, "{\"a.weight\":\"s1.safetensors\","
                    "\"b.weight\":\"s1.safetensors\"}");
    weights_assert_refused(
        f, VIBE_E_FORMAT,
        "/s1.safetensors: has no tensor b.weight, which the index");
}

static void open_refuses_a_tensor_in_two_shards(void **state)
{
    struct weights_fixture *f = *state;

    write_shards(f, "{\"a.weight\":\"s1.safetensors\","
                    "\"b.weight\":\"s2.safetensors\"}");
    weights_write(
        f, "s2.safetensors",
        (const struct vibe_safetensors_item[]){
            weights_matrix("a.weight", 2, 3), weights_matrix("b.weight", 1, 4)},
        2);
    weights_assert_refused(f, VIBE_E_FORMAT, "tensor a.weight is there twice");
    weights_assert_says(f, "/s1.safetensors");
    weights_assert_says(f, "/s2.safetensors");
}

static const struct CMUnitTest tests[] = {
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
};

VIBE_TEST_MAIN(tests)
