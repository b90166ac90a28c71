#include "engine/format/weights_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/format/index.h"
#include "engine/format/names.h"

int vibe_weights_no_memory(const struct vibe_weights *w, struct vibe_error *err)
{
    return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for its tables",
                     w->path);
}

/* Open one file and append it. */
static int add_file(struct vibe_weights *w, const char *path,
                    struct vibe_error *err)
{
    int rc = vibe_safetensors_open(&w->files[w->n_files], path, err);

    if (rc == VIBE_OK)
        w->n += vibe_safetensors_count(w->files[w->n_files++]);
    return rc;
}

/* Every tensor that the index lists must be in the shard it names. */
static int check_index(const struct vibe_weights *w,
                       const struct vibe_index *index, struct vibe_error *err)
{
    for (size_t i = 0; i < index->n_entries; i++) {
        const struct vibe_index_entry *e = &index->entries[i];

        if (!vibe_safetensors_find(w->files[e->shard], e->name))
            return vibe_fail(err, VIBE_E_FORMAT,
                             "%s: has no tensor %.80s, which the index says "
                             "is there",
                             vibe_safetensors_path(w->files[e->shard]),
                             e->name);
    }
    return VIBE_OK;
}

/* Open the shards of an index; dir is the folder they are in. */
static int open_shards(struct vibe_weights *w, const char *dir,
                       const char *index_path, struct vibe_error *err)
{
    struct vibe_index index = {0};
    char *path = NULL;
    int rc = vibe_index_read(&index, index_path, err);

    if (rc != VIBE_OK)
        return rc;
    w->files = calloc(index.n_shards, sizeof(struct vibe_safetensors *));
    if (!w->files) {
        rc = vibe_weights_no_memory(w, err);
        goto out;
    }
    for (size_t i = 0; i < index.n_shards && rc == VIBE_OK; i++) {
        if (asprintf(&path, "%s/%s", dir, index.shards[i]) < 0) {
            rc = vibe_weights_no_memory(w, err);
            goto out;
        }
        if (access(path, F_OK) != 0 && errno == ENOENT)
            rc = vibe_fail(err, VIBE_E_IO, "%s: missing shard", path);
        else
            rc = add_file(w, path, err);
        free(path);
    }
    if (rc == VIBE_OK)
        rc = check_index(w, &index, err);

out:
    vibe_index_release(&index);
    return rc;
}

static int open_single(struct vibe_weights *w, const char *path,
                       struct vibe_error *err)
{
    w->files = calloc(1, sizeof(struct vibe_safetensors *));
    return w->files ? add_file(w, path, err) : vibe_weights_no_memory(w, err);
}

/* Open the files of a folder. */
static int open_folder(struct vibe_weights *w, const char *dir,
                       struct vibe_error *err)
{
    char *single = NULL;
    char *index = NULL;
    int rc;

    if (asprintf(&single, "%s/model.safetensors", dir) < 0 ||
        asprintf(&index, "%s/model.safetensors.index.json", dir) < 0)
        rc = vibe_weights_no_memory(w, err);
    else if (access(index, F_OK) == 0)
        rc = open_shards(w, dir, index, err);
    else if (access(single, F_OK) == 0)
        rc = open_single(w, single, err);
    else
        rc = vibe_fail(err, VIBE_E_IO,
                       "%s: no model.safetensors and no "
                       "model.safetensors.index.json",
                       dir);
    free(single);
    free(index);
    return rc;
}

int vibe_weights_open_files(struct vibe_weights *w, const char *path,
                            struct vibe_error *err)
{
    struct stat st;

    if (stat(path, &st))
        return vibe_fail(err, VIBE_E_IO, "%s: %s", path, strerror(errno));
    return S_ISDIR(st.st_mode) ? open_folder(w, path, err)
                               : open_single(w, path, err);
}

/* Point e at a tensor, under its original name. */
static int name_entry(struct vibe_weights_entry *e,
                      const struct vibe_st_tensor *t)
{
    char name[VIBE_WEIGHTS_NAME_BYTES];

    e->tensor = t;
    e->name = t->name;
    e->dtype = t->dtype;
    e->n_dims = t->n_dims;
    memcpy(e->shape, t->shape, sizeof(e->shape));
    e->n = t->n;
    e->data = t->data;
    /* What is too long to rename is nothing that we would ask for. */
    if (vibe_names_original(name, sizeof(name), t->name) == 0 &&
        strcmp(name, t->name) != 0)
        e->name = strdup(name);
    return e->name ? VIBE_OK : VIBE_E_NOMEM;
}

static int by_name(const void *a, const void *b)
{
    const struct vibe_weights_entry *x = a;
    const struct vibe_weights_entry *y = b;

    return strcmp(x->name, y->name);
}

int vibe_weights_list(struct vibe_weights *w, struct vibe_error *err)
{
    struct vibe_weights_entry *e;

    w->entries = calloc(w->n + 1, sizeof(*w->entries)); /* never calloc(0) */
    if (!w->entries)
        return vibe_weights_no_memory(w, err);
    e = w->entries;
    for (size_t i = 0; i < w->n_files; i++)
        for (size_t k = 0; k < vibe_safetensors_count(w->files[i]); k++, e++) {
            e->file = w->files[i];
            e->place = (size_t)(e - w->entries);
            if (name_entry(e, vibe_safetensors_get(w->files[i], k)))
                return vibe_weights_no_memory(w, err);
        }
    qsort(w->entries, w->n, sizeof(*w->entries), by_name);
    for (size_t i = 1; i < w->n; i++) {
        const struct vibe_weights_entry *a = &w->entries[i - 1];

        e = &w->entries[i];
        if (strcmp(a->name, e->name) == 0)
            return vibe_fail(err, VIBE_E_FORMAT,
                             "%s: tensor %.60s is there twice, also as %.60s "
                             "in %s",
                             vibe_safetensors_path(e->file), e->tensor->name,
                             a->tensor->name, vibe_safetensors_path(a->file));
    }
    return VIBE_OK;
}

struct vibe_weights_entry *vibe_weights_find(const struct vibe_weights *w,
                                             const char *name)
{
    const struct vibe_weights_entry key = {.name = name};

    return bsearch(&key, w->entries, w->n, sizeof(key), by_name);
}
