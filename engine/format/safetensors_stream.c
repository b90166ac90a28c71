#include "engine/format/safetensors_stream.h"

#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/base/whole_file.h"

enum {
    ITEM_ROOM = 192, /* of the header, beside the name */
    NOTE_ROOM = 512,
};

struct vibe_safetensors_stream {
    struct vibe_whole_file out;
    json_t *header;
    size_t room; /* bytes of the header */
    size_t n;    /* bytes of data */
};

static int io_error(const struct vibe_safetensors_stream *s,
                    struct vibe_error *err)
{
    return vibe_fail(err, VIBE_E_IO, "%s: %s", s->out.path, strerror(errno));
}

static int no_memory(const char *path, struct vibe_error *err)
{
    return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for its header", path);
}

int vibe_safetensors_stream_open(struct vibe_safetensors_stream **out,
                                 const char *path, size_t max_items,
                                 size_t max_names, struct vibe_error *err)
{
    struct vibe_safetensors_stream *s = calloc(1, sizeof(*s));
    int rc;

    *out = NULL;
    if (!s)
        return no_memory(path, err);
    s->header = json_object();
    s->room = (max_items * ITEM_ROOM + 2 * max_names + NOTE_ROOM + 7) / 8 * 8;
    rc = s->header ? vibe_whole_file_init(&s->out, path, err)
                   : no_memory(path, err);
    if (rc == VIBE_OK &&
        fseek(s->out.file, (long)(sizeof(uint64_t) + s->room), SEEK_SET) != 0)
        rc = io_error(s, err);
    if (rc == VIBE_OK)
        *out = s;
    else
        vibe_safetensors_stream_abandon(s);
    return rc;
}

int vibe_safetensors_stream_add(struct vibe_safetensors_stream *s,
                                const struct vibe_safetensors_item *item,
                                struct vibe_error *err)
{
    size_t bytes = vibe_dtype_size(item->dtype);
    size_t end;
    json_t *shape = json_array();

    for (size_t i = 0; i < item->n_dims; i++) {
        bytes *= item->shape[i];
        json_array_append_new(shape, json_integer((json_int_t)item->shape[i]));
    }
    end = s->n + bytes;
    if (json_object_set_new(s->header, item->name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype",
                                      vibe_dtype_name(item->dtype), "shape",
                                      shape, "data_offsets", (json_int_t)s->n,
                                      (json_int_t)end)))
        return no_memory(s->out.path, err);
    if (bytes && fwrite(item->data, bytes, 1, s->out.file) != 1)
        return io_error(s, err);
    s->n = end;
    return VIBE_OK;
}

/* Fill the room that was left; blanks follow the header. */
static int write_header(struct vibe_safetensors_stream *s, const char *note,
                        struct vibe_error *err)
{
    const uint64_t length = s->room; /* little-endian hosts only */
    char *text = NULL;
    int rc = VIBE_OK;

    if (json_object_set_new(
            s->header, "__metadata__",
            json_pack("{s:s, s:s}", "format", "pt", "vibevoice", note)) == 0)
        text = json_dumps(s->header, JSON_COMPACT);
    if (!text || strlen(text) > s->room)
        rc = no_memory(s->out.path, err);
    else if (fseek(s->out.file, 0, SEEK_SET) != 0 ||
             fwrite(&length, sizeof(length), 1, s->out.file) != 1 ||
             fprintf(s->out.file, "%-*s", (int)s->room, text) < 0)
        rc = io_error(s, err);
    free(text);
    return rc;
}

int vibe_safetensors_stream_finish(struct vibe_safetensors_stream *s,
                                   const char *note, struct vibe_error *err)
{
    int rc = write_header(s, note, err);

    if (rc == VIBE_OK)
        rc = vibe_whole_file_commit(&s->out, err);
    vibe_safetensors_stream_abandon(s);
    return rc;
}

void vibe_safetensors_stream_abandon(struct vibe_safetensors_stream *s)
{
    if (!s)
        return;
    vibe_whole_file_release(&s->out);
    json_decref(s->header);
    free(s);
}
