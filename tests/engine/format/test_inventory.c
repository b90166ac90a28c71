/*
 * Every tensor of the released checkpoints is found, under either naming, in
 * files of full size whose data are a hole.  The lists are made by
 * "scripts/make_synthetic --inventory": original name, name of transformers 5,
 * shape; {0-27} stands for every number from 0 to 27.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/format/weights.h"
#include "tests/support/st_writer.h"
#include "tests/support/vibe_test.h"

enum { MAX_LINES = 400, NAME = 160 };

struct line {
    char names[2][NAME]; /* patterns: original, transformers 5 */
    char shape_text[32];
    size_t shape[3], n_dims;
    size_t n_elements, n_copies;
};

struct fixture {
    struct st_dir dir;
    struct line lines[MAX_LINES];
    size_t n_lines;
    struct vibe_weights *w;
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
    st_dir_remove(&f->dir);
    free(f);
    return 0;
}

static void parse_shape(struct line *line)
{
    const char *at = line->shape_text + 1;

    line->n_elements = 1;
    while (*at && *at != ']') {
        char *end;

        assert_true(line->n_dims < 3);
        line->shape[line->n_dims] = strtoul(at, &end, 10);
        assert_ptr_not_equal(at, end);
        line->n_elements *= line->shape[line->n_dims++];
        at = *end == ',' ? end + 1 : end;
    }
}

static void read_list(struct fixture *f, const char *path)
{
    FILE *file = fopen(path, "r");
    struct line *line = f->lines;

    assert_non_null(file);
    while (fscanf(file, "%159s %159s %31s", line->names[0], line->names[1],
                  line->shape_text) == 3) {
        const char *brace = strchr(line->names[0], '{');

        parse_shape(line);
        line->n_copies = brace ? strtoul(brace + 3, NULL, 10) + 1 : 1;
        line++;
        assert_true(line < f->lines + MAX_LINES);
    }
    assert_true(feof(file));
    fclose(file);
    f->n_lines = (size_t)(line - f->lines);
}

/* A pattern's i-th name. */
static void expand(char out[NAME], const char *pattern, size_t i)
{
    const char *brace = strchr(pattern, '{');

    if (brace)
        snprintf(out, NAME, "%.*s%zu%s", (int)(brace - pattern), pattern, i,
                 strchr(brace, '}') + 1);
    else
        snprintf(out, NAME, "%s", pattern);
}

/* Write a file with the names of one column, as a hole. */
static void write_model(struct fixture *f, int column)
{
    struct st_header h = {0};
    char name[NAME];

    for (size_t i = 0; i < f->n_lines; i++)
        for (size_t k = 0; k < f->lines[i].n_copies; k++) {
            expand(name, f->lines[i].names[column], k);
            st_header_add(&h, name, "BF16", f->lines[i].shape_text,
                          2 * f->lines[i].n_elements);
        }
    st_header_write(&h, st_path(&f->dir, "model.safetensors"));
}

/* Ask for every tensor by its original name. */
static void need_all(struct fixture *f, size_t n_tensors, size_t n_bytes)
{
    struct vibe_weight got;
    char name[NAME];
    size_t n = 0;

    if (vibe_weights_open(&f->w, f->dir.path, &f->err) != VIBE_OK)
        fail_msg("%s", f->err.msg);
    for (size_t i = 0; i < f->n_lines; i++)
        for (size_t k = 0; k < f->lines[i].n_copies; k++, n++) {
            const struct line *line = &f->lines[i];

            expand(name, line->names[0], k);
            if (vibe_weights_need(f->w, &got, name, line->shape, line->n_dims,
                                  &f->err) != VIBE_OK)
                fail_msg("%s", f->err.msg);
        }
    assert_int_equal(n, n_tensors);
    assert_int_equal(vibe_weights_count(f->w), n_tensors);
    assert_int_equal(vibe_weights_bytes(f->w), n_bytes);
}

static void finds_every_tensor_of_the_1_5b(void **state)
{
    struct fixture *f = *state;

    read_list(f, "tests/fixtures/format/tensors_1.5b.txt");
    write_model(f, 0);
    need_all(f, 1204, 5408043974);
}

static void finds_every_tensor_of_the_7b(void **state)
{
    struct fixture *f = *state;

    read_list(f, "tests/fixtures/format/tensors_7b.txt");
    write_model(f, 0);
    need_all(f, 1205, 18686710726);
}

static void finds_every_tensor_under_its_new_name(void **state)
{
    struct fixture *f = *state;

    read_list(f, "tests/fixtures/format/tensors_7b.txt");
    write_model(f, 1);
    need_all(f, 1205, 18686710726);
    assert_true(vibe_weights_has(f->w, "model.speech_scaling_factor"));
    assert_false(vibe_weights_has(f->w, "model.latent_scaling_factor"));
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(finds_every_tensor_of_the_1_5b),
    VIBE_TEST(finds_every_tensor_of_the_7b),
    VIBE_TEST(finds_every_tensor_under_its_new_name),
};

VIBE_TEST_MAIN(tests)
