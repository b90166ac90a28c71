/*
 * safetensors_write.h - a .safetensors file from tensors in memory.
 */
#ifndef VIBE_FORMAT_SAFETENSORS_WRITE_H
#define VIBE_FORMAT_SAFETENSORS_WRITE_H

#include <stddef.h>

#include "engine/base/dtype.h"

struct vibe_error;

struct vibe_safetensors_item {
    const char *name; /* unique in the file */
    enum vibe_dtype dtype;
    size_t n_dims; /* 0 .. 4 */
    size_t shape[4];
    const void *data; /* dense, row-major, borrowed for the call */
};

/*
 * Write a file under a temporary name beside path, then rename it, so that a
 * file of this name is never partial.  Data follow each other in the order
 * given, aligned to 8 bytes from the start of the file.
 *
 * Errors: VIBE_E_IO, VIBE_E_NOMEM; nothing is left behind
 */
int vibe_safetensors_write(const char *path,
                           const struct vibe_safetensors_item *items, size_t n,
                           struct vibe_error *err);

#endif /* VIBE_FORMAT_SAFETENSORS_WRITE_H */
