/*
 * index.h - model.safetensors.index.json: which shard holds which tensor.
 */
#ifndef VIBE_FORMAT_INDEX_H
#define VIBE_FORMAT_INDEX_H

#include <stddef.h>

struct json_t;
struct vibe_error;

enum { VIBE_MAX_SHARDS = 1000 };

struct vibe_index_entry {
    const char *name;
    size_t shard; /* into shards */
};

struct vibe_index {
    const char **shards; /* file names without a folder, each once */
    size_t n_shards;     /* 1 .. VIBE_MAX_SHARDS */
    struct vibe_index_entry *entries;
    size_t n_entries;
    struct json_t *root; /* owns the strings */
};

/*
 * Read an index.  Shards are in the order of their first tensor.
 *
 *   out   to be released; all zero on error
 *
 * Errors: VIBE_E_IO, VIBE_E_NOMEM
 *         VIBE_E_FORMAT  no index, or it names a file outside its folder
 */
int vibe_index_read(struct vibe_index *out, const char *path,
                    struct vibe_error *err);

/* As vibe_index_read, of n bytes; path is for messages. */
int vibe_index_parse(struct vibe_index *out, const char *bytes, size_t n,
                     const char *path, struct vibe_error *err);

/* Free what it holds; an all-zero one is allowed. */
void vibe_index_release(struct vibe_index *index);

#endif /* VIBE_FORMAT_INDEX_H */
