/*
 * safetensors.h - one .safetensors file: mapped, checked, never copied.
 *
 * A file that opens is sound: its header is strict JSON, every tensor's shape
 * and dtype give exactly its bytes, and the tensors fill the file without
 * holes, overlaps or a rest.  Tensors keep the order of their data.
 *
 * Data are only as aligned as the writer left them: usually to 8 bytes from
 * the start of the file, but the format promises nothing.
 */
#ifndef VIBE_FORMAT_SAFETENSORS_H
#define VIBE_FORMAT_SAFETENSORS_H

#include <stddef.h>

#include "engine/base/dtype.h"

struct vibe_error;
struct vibe_safetensors;

enum { VIBE_ST_MAX_DIMS = 8 };

/* A tensor of the file; all of it is borrowed until vibe_safetensors_free. */
struct vibe_st_tensor {
    const char *name;       /* printable, but any UTF-8 */
    const char *dtype_name; /* as safetensors spells it */
    int is_known;           /* dtype is set; else only dtype_name is */
    enum vibe_dtype dtype;
    size_t n_dims; /* 0 for a scalar */
    size_t shape[VIBE_ST_MAX_DIMS];
    size_t n; /* elements; 0 if any dimension is */
    size_t n_bytes;
    const void *data;
};

/*
 * Map and check a file.  Reads the header only.
 *
 *   out   set to the file, or to NULL on error
 *
 * Errors: VIBE_E_IO, VIBE_E_NOMEM
 *         VIBE_E_FORMAT       not a sound file
 *         VIBE_E_UNSUPPORTED  a dtype or rank that we know nothing of
 */
int vibe_safetensors_open(struct vibe_safetensors **out, const char *path,
                          struct vibe_error *err);

/* As vibe_safetensors_open; bytes are borrowed until vibe_safetensors_free. */
int vibe_safetensors_parse(struct vibe_safetensors **out, const void *bytes,
                           size_t n, const char *path, struct vibe_error *err);

/* Unmap; NULL is allowed. */
void vibe_safetensors_free(struct vibe_safetensors *st);

const char *vibe_safetensors_path(const struct vibe_safetensors *st);

/* Visit the tensors, i < count, in the order of their data. */
size_t vibe_safetensors_count(const struct vibe_safetensors *st);
const struct vibe_st_tensor *vibe_safetensors_get(
    const struct vibe_safetensors *st, size_t i);

/* The tensor of this name, or NULL. */
const struct vibe_st_tensor *vibe_safetensors_find(
    const struct vibe_safetensors *st, const char *name);

#endif /* VIBE_FORMAT_SAFETENSORS_H */
