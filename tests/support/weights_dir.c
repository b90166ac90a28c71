#include "tests/support/weights_dir.h"

#include <stdlib.h>
#include <string.h>

#include "tests/support/vibe_test.h"

int weights_setup(void **state)
{
    struct weights_fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    st_dir_make(&f->dir);
    *state = f;
    return 0;
}

int weights_teardown(void **state)
{
    struct weights_fixture *f = *state;

    vibe_weights_free(f->w);
    free(f->f32);
    st_dir_remove(&f->dir);
    free(f);
    return 0;
}

const uint16_t weights_ones[64] = {
    0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0, 0x40C0, /* 1 .. 6 */
};

struct vibe_safetensors_item weights_matrix(const char *name, size_t rows,
                                            size_t cols)
{
    return (struct vibe_safetensors_item){
        .name = name,
        .dtype = VIBE_BF16,
        .n_dims = 2,
        .shape = {rows, cols},
        .data = weights_ones,
    };
}

void weights_write(struct weights_fixture *f, const char *name,
                   const struct vibe_safetensors_item *items, size_t n)
{
    assert_int_equal(
        vibe_safetensors_write(st_path(&f->dir, name), items, n, NULL),
        VIBE_OK);
}

void weights_open(struct weights_fixture *f)
{
    if (vibe_weights_open(&f->w, f->dir.path, &f->err) != VIBE_OK)
        fail_msg("%s", f->err.msg);
}

void weights_assert_says(const struct weights_fixture *f, const char *part)
{
    if (!strstr(f->err.msg, part))
        fail_msg("\"%s\" lacks \"%s\"", f->err.msg, part);
}

void weights_assert_refused(struct weights_fixture *f, int code,
                            const char *part)
{
    f->w = (struct vibe_weights *)f; /* must not stay */
    assert_int_equal(vibe_weights_open(&f->w, f->dir.path, &f->err), code);
    assert_null(f->w);
    weights_assert_says(f, f->dir.path);
    weights_assert_says(f, part);
}

void weights_write_pair(struct weights_fixture *f,
                        struct vibe_safetensors_item second)
{
    const struct vibe_safetensors_item items[] = {
        weights_matrix("lin.weight", 2, 3), second};

    weights_write(f, "model.safetensors", items, 2);
}
