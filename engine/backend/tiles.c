#include "engine/backend/tiles.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/backend.h"
#include "engine/backend/heap.h"
#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/format/pack.h"
#include "engine/format/quant.h"

enum {
    I4_ZERO = 8,
    TILE_COLUMNS = VIBE_TILE_COLUMNS,
    ABREAST = VIBE_PACK_COLUMNS / TILE_COLUMNS, /* tiles of one of pack.h */
};

size_t vibe_tile_bytes(enum vibe_dtype dtype)
{
    if (dtype == VIBE_I4)
        return VIBE_TILE_I4_BYTES;
    if (dtype == VIBE_BF16_PACKED)
        return VIBE_TILE_PACKED_BYTES;
    return 0;
}

size_t vibe_tiles_room(size_t N, size_t K)
{
    const size_t most = (size_t)16 << 20;
    const size_t rows = vibe_size_round(N, VIBE_MATRIX_UNIT) *
                        vibe_size_round(K, VIBE_TILE_ROWS) * 2;

    return rows < most ? rows : most;
}

size_t vibe_tiles_list_bytes(enum vibe_dtype dtype, size_t N, size_t K)
{
    const size_t n_groups = (N + VIBE_TILE_ROWS - 1) / VIBE_TILE_ROWS;
    const size_t words = 1 + 2 * n_groups + N * K / 4096;

    if (dtype != VIBE_BF16_PACKED)
        return 0;
    return vibe_size_round(words * sizeof(uint32_t), VIBE_HEAP_ALIGNMENT);
}

static void put_u16(uint8_t *to, unsigned u)
{
    const uint16_t half = (uint16_t)u;

    memcpy(to, &half, sizeof(half));
}

/* Two neighbours share a byte; a lane wants those eight apart to. */
static void lay_i4_lane(uint8_t out[8], const uint8_t in[8])
{
    for (unsigned b = 0; b < 8; b++) {
        const unsigned low = in[b / 2] >> b % 2 * 4 & 15u;
        const unsigned high = in[4 + b / 2] >> b % 2 * 4 & 15u;

        out[b] = (uint8_t)((low ^ I4_ZERO) | (high ^ I4_ZERO) << 4);
    }
}

/* Row r of a tile of int4 that begins at column k. */
static void lay_i4_row(uint8_t *tile, const struct vibe_tile_row *row,
                       unsigned r, size_t K, size_t k)
{
    const struct vibe_matrix_part *part = row->part;
    const unsigned g = r % 8, half = r / 8;
    uint8_t in[VIBE_TILE_COLUMNS / 2];
    float scale = 1.0f;
    uint32_t bits;

    memset(in, I4_ZERO | I4_ZERO << 4, sizeof(in));
    if (part) {
        const size_t left = vibe_dtype_bytes(VIBE_I4, K - k);

        memcpy(in,
               (const uint8_t *)part->data +
                   row->n * vibe_dtype_bytes(VIBE_I4, K) + k / 2,
               left < sizeof(in) ? left : sizeof(in));
        if (part->group_scale)
            scale = part->group_scale[row->n * (K / part->group) +
                                      k / part->group];
    }
    for (unsigned q = 0; q < 4; q++)
        lay_i4_lane(tile + (((size_t)g * 4 + q) * 2 + half) * 8,
                    in + (size_t)q * 8);
    scale = vibe_quant_group_scale(scale);
    memcpy(&bits, &scale, sizeof(bits));
    put_u16(tile + VIBE_TILE_SCALES_AT + ((size_t)g * 2 + half) * 2,
            bits >> 16);
}

/* Where row n of a part is in its packed form, and which rows are with it. */
struct source {
    const void *block;
    size_t n_rows; /* of the block */
    size_t r;      /* row of its tile */
    size_t first;  /* tile of that row */
};

static struct source source_of(const struct vibe_tile_row *row, size_t K)
{
    const struct vibe_matrix_part *part = row->part;
    const size_t begin = row->n - row->n % VIBE_PACK_BLOCK;
    const size_t left = part->n - begin;

    return (struct source){
        .block = (const char *)part->data +
                 vibe_matrix_part_bytes(part, K, 0, begin),
        .n_rows = left < VIBE_PACK_BLOCK ? left : VIBE_PACK_BLOCK,
        .r = row->n % VIBE_PACK_ROWS,
        .first = (row->n - begin) / VIBE_PACK_ROWS * vibe_pack_across(K),
    };
}

static uint32_t base_of(const struct source *from, size_t i)
{
    struct vibe_pack_tile tile;

    memcpy(&tile, (const char *)from->block + (from->first + i) * sizeof(tile),
           sizeof(tile));
    return tile.base;
}

/* The base of a group: the lowest one that leaves most of pack.h's tiles their
 * codes and an exponent above. */
static uint32_t group_base(const struct vibe_tile_row *row, size_t K)
{
    uint32_t count[VIBE_PACK_BASE_MAX + VIBE_PACK_WINDOW] = {0};
    uint32_t most = 0, best = 0;

    for (unsigned r = 0; r < VIBE_TILE_ROWS && row[r].part; r++) {
        const struct source from = source_of(&row[r], K);

        for (size_t i = 0; i < vibe_pack_across(K); i++)
            count[base_of(&from, i)]++;
    }
    for (uint32_t base = 0; base < VIBE_PACK_BASE_MAX; base += 2) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < VIBE_PACK_WINDOW; i++)
            n += count[base + i];
        if (n > most) {
            most = n;
            best = base;
        }
    }
    return best;
}

/* Row r of a tile, its columns of in; what is not in the window is coded as
 * anything. */
static void pack_row(uint8_t *tile, const uint16_t *in, unsigned r,
                     size_t n_columns, uint32_t base)
{
    uint8_t *tops = tile + VIBE_TILE_TOPS_AT + (size_t)r % 8 * TILE_COLUMNS;

    for (unsigned c = 0; c < TILE_COLUMNS && c < n_columns; c++) {
        const unsigned top = in[c] >> 8;
        const unsigned code = (top - base / 2) & 7;
        const unsigned next = c / 4 * 4 + (c + 1) % 4;

        tile[(size_t)r * TILE_COLUMNS + c] = (uint8_t)in[c];
        if (r < 8) {
            tops[c] |= (uint8_t)((top & 0x80) | code);
        } else {
            tops[c] |= (uint8_t)(code << 4);
            tops[next] |= (uint8_t)(top >> 7 << 3);
        }
    }
}

/* The tiles of a group that pack.h has in its tile i of each row. */
static void lay_packed(uint8_t *out, const struct vibe_tile_row *row, size_t K,
                       size_t i, uint32_t base)
{
    const size_t left = vibe_tiles_across(K) - i * ABREAST;
    uint16_t wide[VIBE_PACK_COLUMNS];

    memset(out, 0, (left < ABREAST ? left : ABREAST) * VIBE_TILE_PACKED_BYTES);
    for (unsigned r = 0; r < VIBE_TILE_ROWS && row[r].part; r++) {
        const struct source from = source_of(&row[r], K);

        vibe_unpack_row(wide, from.block, from.n_rows, K, from.r,
                        from.first + i);
        for (size_t t = 0; t < ABREAST; t++) {
            const size_t k = i * VIBE_PACK_COLUMNS + t * TILE_COLUMNS;

            if (k < K)
                pack_row(out + t * VIBE_TILE_PACKED_BYTES,
                         wide + t * TILE_COLUMNS, r, K - k, base);
        }
    }
}

void vibe_tiles_lay(void *out, enum vibe_dtype dtype,
                    const struct vibe_tile_row row[VIBE_TILE_ROWS], size_t K)
{
    uint8_t *tile = out;

    if (dtype == VIBE_BF16_PACKED) {
        const uint32_t base = group_base(row, K);

        for (size_t i = 0; i < vibe_pack_across(K); i++)
            lay_packed(tile + i * ABREAST * VIBE_TILE_PACKED_BYTES, row, K, i,
                       base);
        return;
    }
    assert(dtype == VIBE_I4);
    for (size_t k = 0; k < K; k += VIBE_TILE_COLUMNS) {
        for (unsigned r = 0; r < VIBE_TILE_ROWS; r++)
            lay_i4_row(tile, &row[r], r, K, k);
        tile += VIBE_TILE_I4_BYTES;
    }
}

/* Room for another group and so many escapes; non-zero without memory. */
static int make_room(struct vibe_tiles_far *far, size_t n, size_t n_escapes)
{
    while (far->n + n > far->room) {
        const size_t room = 2 * far->room + 16;
        uint32_t *base = realloc(far->base, room * sizeof(*base));
        uint32_t *end;

        if (!base)
            return 1;
        far->base = base;
        end = realloc(far->end, room * sizeof(*end));
        if (!end)
            return 1;
        far->end = end;
        far->room = room;
    }
    while (far->n_escapes + n_escapes > far->escape_room) {
        const size_t room = 2 * far->escape_room + VIBE_PACK_COLUMNS;
        uint32_t *escape = realloc(far->escape, room * sizeof(*escape));

        if (!escape)
            return 1;
        far->escape = escape;
        far->escape_room = room;
    }
    return 0;
}

/* Append the weight of row r and column k if it is outside of the window. */
static void add_weight(struct vibe_tiles_far *far, uint32_t base, unsigned r,
                       size_t k, uint16_t weight)
{
    const uint32_t exponent = weight >> 7 & 255;

    if (exponent - base >= VIBE_TILE_WINDOW)
        far->escape[far->n_escapes++] = (uint32_t)(k / TILE_COLUMNS) << 18 |
                                        r << 14 |
                                        (uint32_t)(k % TILE_COLUMNS) << 8 |
                                        (uint32_t)(weight >> 8);
}

/* Append those of row r among pack.h's tiles i that are listed there: all where
 * the window has what its codes can say. */
static void add_listed(struct vibe_tiles_far *far, uint32_t base, unsigned r,
                       const struct source *from, size_t K, size_t i)
{
    const size_t n_tiles = vibe_pack_n_tiles(from->n_rows, K);
    const uint8_t *block = from->block;
    const uint8_t *at = block + vibe_pack_escapes_at(n_tiles);
    struct vibe_pack_tile tile[2];

    memcpy(tile, block + (from->first + i) * sizeof(*tile), sizeof(tile));
    for (size_t j = tile[0].first; j < tile[1].first; j++) {
        uint32_t escape;

        memcpy(&escape, at + j * sizeof(escape), sizeof(escape));
        if (vibe_pack_escape_row(escape) == from->r)
            add_weight(far, base, r,
                       i * VIBE_PACK_COLUMNS + vibe_pack_escape_column(escape),
                       (uint16_t)escape);
    }
}

static void add_row(struct vibe_tiles_far *far, uint32_t base, unsigned r,
                    const struct source *from, size_t K, size_t i)
{
    const uint32_t code_0 = base_of(from, i);
    const size_t first = i * VIBE_PACK_COLUMNS;
    uint16_t wide[VIBE_PACK_COLUMNS];

    if (code_0 >= base &&
        code_0 + VIBE_PACK_WINDOW <= base + VIBE_TILE_WINDOW) {
        add_listed(far, base, r, from, K, i);
        return;
    }
    vibe_unpack_row(wide, from->block, from->n_rows, K, from->r,
                    from->first + i);
    for (size_t c = 0; c < VIBE_PACK_COLUMNS && first + c < K; c++)
        add_weight(far, base, r, first + c, wide[c]);
}

int vibe_tiles_far_add(struct vibe_tiles_far *far,
                       const struct vibe_tile_row row[VIBE_TILE_ROWS], size_t K)
{
    const uint32_t base = group_base(row, K);

    for (unsigned r = 0; r < VIBE_TILE_ROWS && row[r].part; r++) {
        const struct source from = source_of(&row[r], K);

        for (size_t i = 0; i < vibe_pack_across(K); i++) {
            if (make_room(far, 1, VIBE_PACK_COLUMNS))
                return 1;
            add_row(far, base, r, &from, K, i);
        }
    }
    far->base[far->n] = base;
    far->end[far->n++] = (uint32_t)far->n_escapes;
    return 0;
}

int vibe_tiles_far_append(struct vibe_tiles_far *far,
                          const struct vibe_tiles_far *some)
{
    if (make_room(far, some->n, some->n_escapes))
        return 1;
    for (size_t i = 0; i < some->n; i++) {
        far->base[far->n] = some->base[i];
        far->end[far->n++] = (uint32_t)far->n_escapes + some->end[i];
    }
    for (size_t i = 0; i < some->n_escapes; i++)
        far->escape[far->n_escapes++] = some->escape[i];
    return 0;
}

void vibe_tiles_far_release(struct vibe_tiles_far *far)
{
    free(far->base);
    free(far->end);
    free(far->escape);
    *far = (struct vibe_tiles_far){0};
}

size_t vibe_tiles_far_words(const struct vibe_tiles_far *far)
{
    return far->n ? 1 + 2 * far->n + far->n_escapes : 0;
}

void vibe_tiles_far_write(const struct vibe_tiles_far *far, uint32_t *out)
{
    *out++ = 0;
    memcpy(out, far->end, far->n * sizeof(*out));
    out += far->n;
    memcpy(out, far->base, far->n * sizeof(*out));
    out += far->n;
    if (far->n_escapes)
        memcpy(out, far->escape, far->n_escapes * sizeof(*out));
}
