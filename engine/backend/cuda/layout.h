/*
 * layout.h - a matrix as it will lie on the device: how large, in what dtype,
 * and which bytes.  Needs no GPU.
 */
#ifndef VIBE_CUDA_LAYOUT_H
#define VIBE_CUDA_LAYOUT_H

#include <stddef.h>

#include "engine/backend/backend.h"
#include "engine/backend/tiles.h"

enum { VIBE_CUDA_UNIT_BYTES = 32 << 20 }; /* of a unit, at most */

struct vibe_cuda_layout {
    const struct vibe_matrix_source *src;
    enum vibe_dtype dtype; /* all parts widened to this */
    size_t size;           /* of an element; 0 in tiles */
    size_t unit;           /* rows that lie together: 1, or those of a tile */
    int is_banded;         /* see matrix.h */
    size_t unit_bytes;
    size_t rows_bytes; /* of all rows */
    /* the small arrays: where they begin, in bytes, and whether they exist */
    size_t scale_at, bias_at, gamma_at;
    int has_scale;
    size_t small_bytes; /* but for far escapes */
};

/*
 * Plan a matrix.
 *
 *   src   borrowed as long as the layout
 *
 * Errors: VIBE_E_UNSUPPORTED  it is too large
 */
int vibe_cuda_layout_make(struct vibe_cuda_layout *layout,
                          const struct vibe_matrix_source *src,
                          struct vibe_error *err);

/* Units of n rows. */
size_t vibe_cuda_layout_units(const struct vibe_cuda_layout *layout, size_t n);

/* Lay out unit i. */
void vibe_cuda_layout_lay(void *out, const struct vibe_cuda_layout *layout,
                          size_t i);

/* Of row n on the device: what its sum is multiplied by, and what is added to
 * that; src has a bias or gamma. */
float vibe_cuda_layout_scale(const struct vibe_cuda_layout *layout, size_t n);
float vibe_cuda_layout_bias(const struct vibe_cuda_layout *layout, size_t n);
float vibe_cuda_layout_gamma(const struct vibe_cuda_layout *layout, size_t n);

/* List the escapes that tiles have no room for, on all cores; far as for
 * vibe_tiles_far_add.  Errors: VIBE_E_NOMEM */
int vibe_cuda_layout_far(struct vibe_tiles_far *far,
                         const struct vibe_cuda_layout *layout,
                         struct vibe_error *err);

#endif /* VIBE_CUDA_LAYOUT_H */
