#include "engine/format/index.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/format/json_util.h"

/* A plain file name: nothing that leads out of the checkpoint's folder. */
static int is_plain(const char *name)
{
    return *name && !strchr(name, '/') && !strstr(name, "..");
}

/* Find or append a shard; VIBE_MAX_SHARDS if there is no room. */
static size_t intern_shard(struct vibe_index *index, const char *name)
{
    /* Tensors of one shard mostly follow each other: look backwards. */
    for (size_t i = index->n_shards; i-- > 0;)
        if (strcmp(index->shards[i], name) == 0)
            return i;
    if (index->n_shards == VIBE_MAX_SHARDS)
        return VIBE_MAX_SHARDS;
    index->shards[index->n_shards] = name;
    return index->n_shards++;
}

static int read_entry(struct vibe_index *index, const char *name,
                      const json_t *value, const char *path,
                      struct vibe_error *err)
{
    const char *shard = json_string_value(value);
    struct vibe_index_entry *entry = &index->entries[index->n_entries];
    char found[96];

    if (!shard || !is_plain(shard)) {
        vibe_json_describe(found, sizeof(found), value);
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: weight_map puts %.60s into %s, expected the name "
                         "of a file beside it",
                         path, name, found);
    }
    entry->name = name;
    entry->shard = intern_shard(index, shard);
    if (entry->shard == VIBE_MAX_SHARDS)
        return vibe_fail(err, VIBE_E_FORMAT, "%s: names more than %d shards",
                         path, VIBE_MAX_SHARDS);
    index->n_entries++;
    return VIBE_OK;
}

/* Fill out from its root. */
static int read_map(struct vibe_index *out, const char *path,
                    struct vibe_error *err)
{
    json_t *map = json_object_get(out->root, "weight_map");
    const char *name;
    json_t *value;
    int rc;

    if (json_object_size(map) == 0)
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: has no weight_map with tensors in it", path);
    out->entries = calloc(json_object_size(map), sizeof(*out->entries));
    out->shards = calloc(VIBE_MAX_SHARDS, sizeof(*out->shards));
    if (!out->entries || !out->shards)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for %zu tensors",
                         path, json_object_size(map));
    json_object_foreach(map, name, value)
    {
        rc = read_entry(out, name, value, path, err);
        if (rc != VIBE_OK)
            return rc;
    }
    return VIBE_OK;
}

int vibe_index_parse(struct vibe_index *out, const char *bytes, size_t n,
                     const char *path, struct vibe_error *err)
{
    int rc;

    *out = (struct vibe_index){0};
    rc = vibe_json_parse(&out->root, bytes, n, path, err);
    if (rc == VIBE_OK)
        rc = read_map(out, path, err);
    if (rc != VIBE_OK)
        vibe_index_release(out);
    return rc;
}

int vibe_index_read(struct vibe_index *out, const char *path,
                    struct vibe_error *err)
{
    int rc;

    *out = (struct vibe_index){0};
    rc = vibe_json_read(&out->root, path, err);
    if (rc == VIBE_OK)
        rc = read_map(out, path, err);
    if (rc != VIBE_OK)
        vibe_index_release(out);
    return rc;
}

void vibe_index_release(struct vibe_index *index)
{
    json_decref(index->root);
    free(index->entries);
    free(index->shards);
    *index = (struct vibe_index){0};
}
