#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/text/read_file.h"
#include "tests/support/vibe_test.h"

struct fixture {
    char path[64];
    char *data;
    size_t n;
    struct vibe_error err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    snprintf(f->path, sizeof(f->path), "/tmp/vibe_test_read_file.%ld",
             (long)getpid());
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    unlink(f->path);
    free(f->data);
    free(f);
    return 0;
}

static void write_bytes(const char *path, size_t n)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    for (size_t i = 0; i < n; i++)
        fputc('a' + (int)(i % 23), file);
    assert_int_equal(fclose(file), 0);
}

static void read_names_the_missing_file(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_read_file(&f->data, &f->n, f->path, 9, &f->err),
                     VIBE_E_IO);
    assert_non_null(strstr(f->err.msg, f->path));
    assert_non_null(strstr(f->err.msg, "No such file"));
    assert_null(f->data);
}

static void read_says_that_a_directory_is_one(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_read_file(&f->data, &f->n, "/tmp", 9, &f->err),
                     VIBE_E_IO);
    assert_non_null(strstr(f->err.msg, "/tmp: Is a directory"));
}

static void read_refuses_one_byte_too_many(void **state)
{
    struct fixture *f = *state;

    write_bytes(f->path, 1001);

    assert_int_equal(vibe_read_file(&f->data, &f->n, f->path, 1000, &f->err),
                     VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "more than 1000 bytes"));
    assert_null(f->data);
}

static void read_takes_as_many_bytes_as_allowed(void **state)
{
    struct fixture *f = *state;

    write_bytes(f->path, 200000); /* more than its buffer begins with */

    assert_int_equal(vibe_read_file(&f->data, &f->n, f->path, 200000, &f->err),
                     VIBE_OK);
    assert_int_equal(f->n, 200000);
    assert_int_equal(strlen(f->data), 200000);
    for (size_t i = 0; i < f->n; i++)
        assert_int_equal(f->data[i], 'a' + (int)(i % 23));
}

static void read_of_an_empty_file_is_an_empty_string(void **state)
{
    struct fixture *f = *state;

    write_bytes(f->path, 0);

    assert_int_equal(vibe_read_file(&f->data, &f->n, f->path, 9, &f->err),
                     VIBE_OK);
    assert_int_equal(f->n, 0);
    assert_string_equal(f->data, "");
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(read_names_the_missing_file),
    VIBE_TEST(read_says_that_a_directory_is_one),
    VIBE_TEST(read_refuses_one_byte_too_many),
    VIBE_TEST(read_takes_as_many_bytes_as_allowed),
    VIBE_TEST(read_of_an_empty_file_is_an_empty_string),
};

VIBE_TEST_MAIN(tests)
