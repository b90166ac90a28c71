/*
 * pack.h - bf16 matrices in about 11.4 bits a weight, without losing one.
 *
 * Exponents of weights hardly differ.  In a tile of 16 rows by 256 columns
 * each is coded in 3 bits, as its distance from the tile's base; sign and
 * mantissa stay a byte.  A weight outside of those 8 exponents is an escape:
 * listed in full, with its position, and coded as anything.  So every bf16
 * comes back bit for bit; a matrix of nothing but escapes is 2.7 times as
 * large as before.
 *
 * A packed matrix is
 *
 *   header   struct vibe_pack_header, then u64 [n_blocks + 1]: where blocks
 *            begin and the last one ends, in bytes from the header
 *   blocks   of 32 rows (the last one of what is left), multiples of 16 bytes
 *
 * and a block, whose tiles go along the columns first,
 *
 *   tiles    struct vibe_pack_tile [n_tiles + 1], padded to 16 bytes; the last
 *            one only ends the list of escapes
 *   planes   [n_tiles][VIBE_PACK_PLANES]
 *   escapes  u32: position << 16 | bf16, padded to 16 bytes
 *
 * Inside a tile, row = 8 half + g and column = 32 step + 8 t + e.  That is how
 * the lanes 4 g + t of a GPU's warp multiply 16 rows, 32 columns a step; the
 * position of an escape has the bits step:3 half:1 g:3 t:2 e:3.  Planes are
 *
 *   bytes    u8 [step][lane][half][e]: sign << 7 | mantissa
 *   codes    u32 [quad][lane][4]: 12 words for each lane, 3 for two steps
 *
 * The 32 weights of a lane in two steps are 16 pairs of neighbours, pair =
 * step % 2 * 8 + half * 4 + e / 2.  Pair 5 w + f is field f of word w: bits
 * 3 f + 1 .. 3 f + 3, of the odd neighbour 16 bits higher; pair 15 has bit 0
 * (16) of each word, the lowest first.  What lies beyond the matrix is coded 0.
 *
 * All numbers are little-endian.
 */
#ifndef VIBE_FORMAT_PACK_H
#define VIBE_FORMAT_PACK_H

#include <stddef.h>
#include <stdint.h>

struct vibe_error;

enum {
    VIBE_PACK_BLOCK = 32, /* rows that can be had by themselves */
    VIBE_PACK_ROWS = 16,  /* of a tile */
    VIBE_PACK_COLUMNS = 256,
    VIBE_PACK_BYTES = 4096, /* plane of bytes */
    VIBE_PACK_PLANES = VIBE_PACK_BYTES + 1536,
    VIBE_PACK_WINDOW = 8, /* exponents that have a code */
    VIBE_PACK_BASE_MAX = 247,
    VIBE_PACK_MAGIC = 0x31504256, /* "VBP1" */
};

struct vibe_pack_header {
    uint32_t magic, reserved;
    uint64_t n_rows, n_columns;
};

struct vibe_pack_tile {
    uint32_t base;  /* the exponent of code 0, 0 .. VIBE_PACK_BASE_MAX */
    uint32_t first; /* escape of the block; the next tile's ends them */
};

static inline size_t vibe_pack_n_blocks(size_t n_rows)
{
    return (n_rows + VIBE_PACK_BLOCK - 1) / VIBE_PACK_BLOCK;
}

/* Tiles beside each other. */
static inline size_t vibe_pack_across(size_t K)
{
    return (K + VIBE_PACK_COLUMNS - 1) / VIBE_PACK_COLUMNS;
}

/* Tiles of a block of n rows. */
static inline size_t vibe_pack_n_tiles(size_t n, size_t K)
{
    return (n + VIBE_PACK_ROWS - 1) / VIBE_PACK_ROWS * vibe_pack_across(K);
}

/* Where the planes of a block begin, and its escapes. */
static inline size_t vibe_pack_planes_at(size_t n_tiles)
{
    return ((n_tiles + 1) * sizeof(struct vibe_pack_tile) + 15) & ~(size_t)15;
}
static inline size_t vibe_pack_escapes_at(size_t n_tiles)
{
    return vibe_pack_planes_at(n_tiles) + n_tiles * VIBE_PACK_PLANES;
}

/* Where in its tile an escape belongs. */
static inline size_t vibe_pack_escape_row(uint32_t escape)
{
    return (escape >> 24 & 1) * 8 + (escape >> 21 & 7);
}
static inline size_t vibe_pack_escape_column(uint32_t escape)
{
    return (escape >> 25) * 32 + (escape >> 16 & 31);
}

/* Bytes of the header with its table. */
size_t vibe_pack_header_bytes(size_t n_rows);

/*
 * Bytes that a block will have.
 *
 *   row   [n <= VIBE_PACK_BLOCK] of K bf16 at any address
 */
size_t vibe_pack_block_bytes(const void *const *row, size_t n, size_t K);

/* Pack a block to out[vibe_pack_block_bytes()]. */
void vibe_pack_block(void *out, const void *const *row, size_t n, size_t K);

/*
 * Write the header and table of a matrix whose blocks are of these sizes.
 *
 *   out          [vibe_pack_header_bytes()]
 *   block_bytes  [n_blocks]
 *
 * Returns the bytes of the whole.
 */
size_t vibe_pack_header_write(void *out, size_t n_rows, size_t n_columns,
                              const size_t *block_bytes);

/* Block i of a matrix that has passed vibe_pack_check. */
const void *vibe_pack_block_at(const void *packed, size_t i);

/* Bytes of blocks first .. first + n - 1. */
size_t vibe_pack_blocks_bytes(const void *packed, size_t first, size_t n);

/*
 * Hold untrusted bytes to the format and to a shape, [n_rows][n_columns].
 *
 *   name   for the message
 *
 * Errors: VIBE_E_FORMAT
 */
int vibe_pack_check(const void *packed, size_t bytes, size_t n_rows,
                    size_t n_columns, const char *name, struct vibe_error *err);

/*
 * Unpack tile i of a block of n rows: out[r * ld + c], r < 16, c < 256, of
 * bf16; also where the matrix has ended, with anything.
 */
void vibe_unpack_tile(uint16_t *out, size_t ld, const void *block, size_t n,
                      size_t K, size_t i);

/* Unpack row r < 16 of tile i, likewise: out[256]. */
void vibe_unpack_row(uint16_t *out, const void *block, size_t n, size_t K,
                     size_t r, size_t i);

/* Unpack a block of n rows to out[n][K]. */
void vibe_unpack_block(uint16_t *out, const void *block, size_t n, size_t K);

/* Put the escapes of a tile where they belong; for other unpackers. */
void vibe_unpack_escapes(uint16_t *out, size_t ld, const void *block,
                         size_t n_tiles, size_t i);

#endif /* VIBE_FORMAT_PACK_H */
