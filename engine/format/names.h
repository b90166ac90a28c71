/*
 * names.h - one name for a tensor that two conventions spell differently.
 *
 * The original checkpoints and those converted to transformers 5 hold the
 * same tensors, of the same shapes, under other names.  Ours is the original.
 */
#ifndef VIBE_FORMAT_NAMES_H
#define VIBE_FORMAT_NAMES_H

#include <stddef.h>

/*
 * Write the original name of a tensor that a file calls name; a name of
 * neither convention stays as it is.
 *
 *   out   [size]
 *
 * Returns 0, or 1 if it does not fit; out is then undefined.
 */
int vibe_names_original(char *out, size_t size, const char *name);

#endif /* VIBE_FORMAT_NAMES_H */
