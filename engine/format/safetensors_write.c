#include "engine/format/safetensors_write.h"

#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/base/whole_file.h"

static size_t item_bytes(const struct vibe_safetensors_item *item)
{
    size_t n = vibe_dtype_size(item->dtype);

    for (size_t i = 0; i < item->n_dims; i++)
        n *= item->shape[i];
    return n;
}

/* {"dtype", "shape", "data_offsets"} of one tensor, or NULL. */
static json_t *describe(const struct vibe_safetensors_item *item, size_t begin)
{
    const size_t end = begin + item_bytes(item);
    json_t *shape = json_array();

    for (size_t i = 0; i < item->n_dims; i++)
        json_array_append_new(shape, json_integer((json_int_t)item->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype",
                     vibe_dtype_name(item->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

/* The header's text, padded with blanks to 8 bytes; owned by the caller. */
static char *header_text(const struct vibe_safetensors_item *items, size_t n,
                         size_t *length)
{
    json_t *header = json_object();
    char *text = NULL;
    char *padded = NULL;
    size_t begin = 0;

    for (size_t i = 0; i < n; i++) {
        if (json_object_set_new(header, items[i].name,
                                describe(&items[i], begin)))
            goto out;
        begin += item_bytes(&items[i]);
    }
    text = json_dumps(header, JSON_COMPACT);
    if (!text)
        goto out;
    *length = (strlen(text) + 7) / 8 * 8;
    padded = malloc(*length);
    if (padded) {
        memset(padded, ' ', *length);
        memcpy(padded, text, strlen(text));
    }

out:
    free(text);
    json_decref(header);
    return padded;
}

static int write_all(FILE *file, const struct vibe_safetensors_item *items,
                     size_t n, const char *header, size_t length)
{
    const uint64_t length_le = length; /* little-endian hosts only */
    int ok = fwrite(&length_le, sizeof(length_le), 1, file) == 1 &&
             fwrite(header, length, 1, file) == 1;

    for (size_t i = 0; i < n && ok; i++) {
        const size_t bytes = item_bytes(&items[i]);

        ok = bytes == 0 || fwrite(items[i].data, bytes, 1, file) == 1;
    }
    return ok;
}

int vibe_safetensors_write(const char *path,
                           const struct vibe_safetensors_item *items, size_t n,
                           struct vibe_error *err)
{
    struct vibe_whole_file whole = {0};
    size_t length = 0;
    char *header = header_text(items, n, &length);
    int rc;

    if (!header)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for its header",
                         path);
    rc = vibe_whole_file_init(&whole, path, err);
    if (rc == VIBE_OK && !write_all(whole.file, items, n, header, length))
        rc = vibe_fail(err, VIBE_E_IO, "%s: %s", path, strerror(errno));
    if (rc == VIBE_OK)
        rc = vibe_whole_file_commit(&whole, err);
    vibe_whole_file_release(&whole);
    free(header);
    return rc;
}
