/*
 * tiles.h - int4 and packed bf16 as a GPU keeps them.
 *
 * Rows are cut into groups of 16, a group into tiles of 64 columns, one after
 * the other: a tile is all that a warp needs of 1,024 weights, and every tile
 * of a dtype has the same size, whatever it holds.  What lies beyond the
 * matrix is zero.  Lane 4 g + q of a warp has rows g and g + 8 of a tile, half
 * 0 and 1, and of each columns 16 q .. 16 q + 15: eight pairs of neighbours.
 *
 *   I4           nibbles  u32 [lane][half][2]: bits 4 i of word w are the even
 *                         column of pair 4 w + i, 16 bits higher its odd one
 *                scales   bf16 [row]: 2^VIBE_TILE_I4_UP of them, those of
 *                         quant.h exactly
 *
 *   BF16_PACKED  bytes    u8 [position]: sign << 7 | mantissa
 *                codes    u32 [3][lane] for 16 pairs, as in format/pack.h
 *                bases    u8 [row]: the exponent of code 0
 *                escapes  u16 [40]: see below
 *
 * A position says where tensor cores want a weight: of the columns' bits
 * q:2 i:2 c:1 e:1 and the rows' half:1 g:3 it has i:2 g:3 q:2 c:1 half:1 e:1,
 * and i:2 c:1 half:1 number the pairs of a lane.
 *
 * An escape is position << 6 | e: its exponent is 0 where e is, or that of row
 * 0's base and e - VIBE_TILE_ESCAPE_BIAS.  e from VIBE_TILE_NO_ESCAPE on means
 * nothing; VIBE_TILE_FAR in place 32, which is seldom used, that there are more
 * escapes than can be said so.  All of them are then in a list that the matrix
 * has beside its tiles,
 *
 *   groups[n_groups + 1], tile[n], first[n + 1], escapes    u32
 *
 * of where the tiles of each group begin among those n, which of the group's
 * tiles each is, where its escapes begin, and the escapes: position << 16 |
 * bf16.
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
    VIBE_TILE_I4_UP = 111,  /* a code is tiny where it lies in a bf16 */
    VIBE_TILE_I4_DOWN = 19, /* so products are 2^-19 of what they should be */
    VIBE_TILE_I4_BYTES = VIBE_TILE_SCALES_AT + 32,

    VIBE_TILE_CODES_AT = 1024,
    VIBE_TILE_BASES_AT = VIBE_TILE_CODES_AT + 384,
    VIBE_TILE_ESCAPES_AT = VIBE_TILE_BASES_AT + 16,
    VIBE_TILE_ESCAPES = 40,
    VIBE_TILE_FEW = 32, /* of them, as most tiles have */
    VIBE_TILE_PACKED_BYTES = VIBE_TILE_ESCAPES_AT + 2 * VIBE_TILE_ESCAPES,

    VIBE_TILE_ESCAPE_BIAS = 47,
    VIBE_TILE_NO_ESCAPE = 62,
    VIBE_TILE_EMPTY = 0xFFFF,
    VIBE_TILE_FAR = 0xFFFE,
};

/* Bytes of a tile; 0 of a dtype that is not kept so. */
size_t vibe_tile_bytes(enum vibe_dtype dtype);

/* The position of a weight of a tile. */
static inline unsigned vibe_tile_position(unsigned row, unsigned column)
{
    return (column >> 2 & 3) << 8 | (row & 7) << 5 | (column >> 4) << 3 |
           (column >> 1 & 1) << 2 | (row >> 3) << 1 | (column & 1);
}

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

/* The escapes of the tiles of BF16_PACKED that have too many. */
struct vibe_tiles_far {
    size_t *group; /* of each, owned as the others */
    uint32_t *tile, *first, *escape;
    size_t n, n_escapes;
    size_t room, escape_room;
};

/* Is there such a tile in a group? */
int vibe_tiles_is_far(const struct vibe_tile_row row[VIBE_TILE_ROWS], size_t K);

/*
 * Append those of a group; groups come in order.
 *
 *   far   all zero at first; release with vibe_tiles_far_release
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_tiles_far_add(struct vibe_tiles_far *far, size_t group,
                       const struct vibe_tile_row row[VIBE_TILE_ROWS], size_t K,
                       struct vibe_error *err);
void vibe_tiles_far_release(struct vibe_tiles_far *far);

/* Words of the list of a matrix of n_groups, 0 where there is none, and the
 * list: out[words]. */
size_t vibe_tiles_far_words(const struct vibe_tiles_far *far, size_t n_groups);
void vibe_tiles_far_write(const struct vibe_tiles_far *far, size_t n_groups,
                          uint32_t *out);

#endif /* VIBE_BACKEND_TILES_H */
