/*
 * tiles.h - int4 and packed bf16 as a GPU keeps them.
 *
 * Rows are cut into groups of 16, a group into tiles of 64 columns, one after
 * the other: a tile is all that a warp needs of 1,024 weights, and every tile
 * of a dtype has the same size, whatever it holds.  What lies beyond the
 * matrix is zero.  Lane 4 g + q of a warp has rows g and g + 8 of a tile, half
 * 0 and 1, and of each columns 16 q .. 16 q + 15: eight pairs of neighbours.
 *
 *   I4           nibbles  u8 [lane][half][8]: byte b has column b in its lower
 *                         bits, 8 + b in its upper ones, in two's complement
 *                scales   bf16 [g][half]: those of quant.h exactly
 *
 *   BF16_PACKED  bottoms  u8 [row][column]: the lower byte of each, with the
 *                         lowest bit of its exponent
 *                tops     u8 [g][column]: in bits 7 and 2 .. 0 the sign of half
 *                         0 and what half its exponent is more than half its
 *                         group's base; of half 1 in bits 6 .. 4, and the sign
 *                         in bit 3 of the next of four columns, after the
 *                         last one the first
 *
 * So a group has a window of VIBE_TILE_WINDOW exponents, from its base on, an
 * even one.  What else there is, little, a matrix lists beside its tiles,
 *
 *   first[n_groups + 1], base[n_groups], escapes    u32
 *
 * of where the escapes of each group begin, and those: tile << 18 | row << 14 |
 * column << 8 | the upper byte of the weight.
 */
#ifndef VIBE_BACKEND_TILES_H
#define VIBE_BACKEND_TILES_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/dtype.h"

struct vibe_error;
struct vibe_matrix_part;

enum {
    VIBE_TILE_ROWS = 16,
    VIBE_TILE_COLUMNS = 64,

    VIBE_TILE_SCALES_AT = 512,
    VIBE_TILE_I4_BYTES = VIBE_TILE_SCALES_AT + 32,

    VIBE_TILE_TOPS_AT = 1024,
    VIBE_TILE_PACKED_BYTES = VIBE_TILE_TOPS_AT + 512,
    VIBE_TILE_WINDOW = 16,
    VIBE_TILES_MOST = (1 << 14) - 1, /* beside each other, for escapes */
};

/* Bytes of a tile; 0 of a dtype that is not kept so. */
size_t vibe_tile_bytes(enum vibe_dtype dtype);

/* Tiles beside each other. */
static inline size_t vibe_tiles_across(size_t K)
{
    return (K + VIBE_TILE_COLUMNS - 1) / VIBE_TILE_COLUMNS;
}

/* Bytes of a group, and of the groups of n rows. */
static inline size_t vibe_tiles_group_bytes(enum vibe_dtype dtype, size_t K)
{
    return vibe_tiles_across(K) * vibe_tile_bytes(dtype);
}
static inline size_t vibe_tiles_bytes(enum vibe_dtype dtype, size_t n, size_t K)
{
    return (n + VIBE_TILE_ROWS - 1) / VIBE_TILE_ROWS *
           vibe_tiles_group_bytes(dtype, K);
}

/* Bytes that a GPU wants beside a matrix in tiles: rows of it are made bf16
 * there, as many as fit in 16 MB, for products that no kernel reads tiles
 * for. */
size_t vibe_tiles_room(size_t N, size_t K);

/* Row n of a part, on the host; part NULL: past the matrix. */
struct vibe_tile_row {
    const struct vibe_matrix_part *part;
    size_t n;
};

/*
 * Lay out a group.
 *
 *   out    [vibe_tiles_group_bytes()]
 *   dtype  of all rows: I4 or BF16_PACKED
 */
void vibe_tiles_lay(void *out, enum vibe_dtype dtype,
                    const struct vibe_tile_row row[VIBE_TILE_ROWS], size_t K);

/* The windows and escapes of groups of BF16_PACKED. */
struct vibe_tiles_far {
    uint32_t *base, *end; /* of each group, owned as the escapes */
    uint32_t *escape;
    size_t n, n_escapes;
    size_t room, escape_room;
};

/*
 * Append those of a group.
 *
 *   far   all zero at first; release with vibe_tiles_far_release
 *
 * Errors: non-zero without memory
 */
int vibe_tiles_far_add(struct vibe_tiles_far *far,
                       const struct vibe_tile_row row[VIBE_TILE_ROWS],
                       size_t K);

/* Append all of some. */
int vibe_tiles_far_append(struct vibe_tiles_far *far,
                          const struct vibe_tiles_far *some);
void vibe_tiles_far_release(struct vibe_tiles_far *far);

/* Bytes that a plan has for the list of a matrix: an escape in 4,096 weights is
 * three times those of a normal distribution. */
size_t vibe_tiles_list_bytes(enum vibe_dtype dtype, size_t N, size_t K);

/* Words of the list of a matrix, 0 of one that has none, and the list:
 * out[words]. */
size_t vibe_tiles_far_words(const struct vibe_tiles_far *far);
void vibe_tiles_far_write(const struct vibe_tiles_far *far, uint32_t *out);

#endif /* VIBE_BACKEND_TILES_H */
