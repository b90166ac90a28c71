#include "tests/support/st_writer.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/vibe_test.h"

void st_dir_make(struct st_dir *dir)
{
    snprintf(dir->path, sizeof(dir->path), "/tmp/vibe_test_format.XXXXXX");
    assert_non_null(mkdtemp(dir->path));
}

void st_dir_remove(struct st_dir *dir)
{
    DIR *d = opendir(dir->path);
    struct dirent *entry;

    while (d && (entry = readdir(d)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(d), entry->d_name, 0);
    if (d)
        closedir(d);
    rmdir(dir->path);
}

const char *st_path(const struct st_dir *dir, const char *name)
{
    static char paths[4][256];
    static size_t next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof(paths[0]), "%s/%s", dir->path, name);
    return path;
}

void st_write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

void st_write_raw(const char *path, size_t length, const char *header,
                  size_t n_data)
{
    const uint64_t n = length == SIZE_MAX ? strlen(header) : length;
    FILE *file = fopen(path, "wb");
    unsigned char le[8];

    assert_non_null(file);
    for (size_t i = 0; i < sizeof(le); i++)
        le[i] = (unsigned char)(n >> (8 * i));
    assert_int_equal(fwrite(le, 1, sizeof(le), file), sizeof(le));
    assert_int_equal(fwrite(header, 1, strlen(header), file), strlen(header));
    assert_int_equal(fflush(file), 0);
    assert_int_equal(
        ftruncate(fileno(file), (off_t)(sizeof(le) + strlen(header) + n_data)),
        0);
    assert_int_equal(fclose(file), 0);
}

void st_poke(const char *path, size_t offset, const void *bytes, size_t n)
{
    FILE *file = fopen(path, "r+b");
    unsigned char le[8];
    size_t length = 0;

    assert_non_null(file);
    assert_int_equal(fread(le, 1, sizeof(le), file), sizeof(le));
    for (size_t i = sizeof(le); i-- > 0;)
        length = length << 8 | le[i];
    assert_int_equal(
        fseek(file, (long)(sizeof(le) + length + offset), SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

void st_header_add(struct st_header *h, const char *name, const char *dtype,
                   const char *shape, size_t n_bytes)
{
    const size_t room = strlen(name) + strlen(dtype) + strlen(shape) + 128;

    if (h->n + room > h->capacity) {
        h->capacity = 2 * (h->n + room);
        h->text = realloc(h->text, h->capacity);
        assert_non_null(h->text);
    }
    h->n += (size_t)sprintf(
        h->text + h->n,
        "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
        h->n ? "," : "{", name, dtype, shape, h->n_data, h->n_data + n_bytes);
    h->n_data += n_bytes;
}

void st_header_write(struct st_header *h, const char *path)
{
    assert_non_null(h->text);
    memcpy(h->text + h->n, "}", 2); /* there is room: see st_header_add */
    st_write_raw(path, SIZE_MAX, h->text, h->n_data);
    free(h->text);
    *h = (struct st_header){0};
}
