#include "engine/backend/tiles.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/backend.h"
#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/format/pack.h"
#include "engine/format/quant.h"

enum {
    LANES = 32,
    LANE_PAIRS = 16, /* of both its rows */
    FIELDS = 5,      /* pairs whose codes fill a word but for two bits */
    I4_ZERO = 8,
    ABREAST = VIBE_PACK_COLUMNS /
              VIBE_TILE_COLUMNS, /* tiles of one of pack.h */
    WEIGHTS = VIBE_TILE_ROWS * VIBE_TILE_COLUMNS,
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

static void put_u16(uint8_t *to, unsigned u)
{
    const uint16_t half = (uint16_t)u;

    memcpy(to, &half, sizeof(half));
}

static void put_u32(uint8_t *to, uint32_t u)
{
    memcpy(to, &u, sizeof(u));
}

/* Eight neighbours of int4, two a byte, as a lane wants them: the even ones
 * first. */
static uint32_t i4_word(const uint8_t in[4])
{
    uint32_t word = 0;

    for (unsigned i = 0; i < 4; i++)
        word |= (in[i] & 15u) << 4 * i | (uint32_t)(in[i] >> 4) << (16 + 4 * i);
    return word;
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
        for (unsigned w = 0; w < 2; w++)
            put_u32(tile + (((size_t)g * 4 + q) * 4 + (size_t)half * 2 + w) * 4,
                    i4_word(in + (size_t)q * 8 + (size_t)w * 4));
    scale = ldexpf(vibe_quant_group_scale(scale), VIBE_TILE_I4_UP);
    memcpy(&bits, &scale, sizeof(bits));
    put_u16(tile + VIBE_TILE_SCALES_AT + (size_t)r * 2, bits >> 16);
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

/* How an escape says an exponent, or VIBE_TILE_NO_ESCAPE if it cannot. */
static uint32_t said(uint32_t exponent, uint32_t base)
{
    const uint32_t e = exponent + VIBE_TILE_ESCAPE_BIAS - base;

    if (exponent == 0)
        return 0;
    return e > 0 && e < VIBE_TILE_NO_ESCAPE ? e : VIBE_TILE_NO_ESCAPE;
}

/* A tile of packed bf16 on its way. */
struct packing {
    uint8_t *tile;
    uint32_t words[LANES][3]; /* of codes */
    unsigned n_escapes;
    int is_far;
};

static void put_code(uint32_t words[3], unsigned pair, unsigned is_odd,
                     uint32_t code)
{
    const unsigned up = is_odd * 16;

    if (pair < LANE_PAIRS - 1) {
        words[pair / FIELDS] |= code << (3 * (pair % FIELDS) + 1 + up);
        return;
    }
    for (unsigned b = 0; b < 3; b++)
        words[b] |= (code >> b & 1) << up;
}

/* Returns the code. */
static uint32_t put_escape(struct packing *p, unsigned position,
                           uint32_t exponent)
{
    const uint32_t e = said(exponent, p->tile[VIBE_TILE_BASES_AT]);

    if (e == VIBE_TILE_NO_ESCAPE || p->n_escapes == VIBE_TILE_ESCAPES)
        p->is_far = 1;
    else
        put_u16(p->tile + VIBE_TILE_ESCAPES_AT + (size_t)p->n_escapes++ * 2,
                position << 6 | e);
    return 0;
}

/* Row r of a tile, its columns of in; what is not there is coded 0. */
static void pack_row(struct packing *p, const uint16_t *in, unsigned r,
                     size_t n_columns)
{
    const uint32_t base = p->tile[VIBE_TILE_BASES_AT + r];

    for (unsigned c = 0; c < VIBE_TILE_COLUMNS && c < n_columns; c++) {
        const unsigned position = vibe_tile_position(r, c);
        const unsigned pair = position >> 8 << 2 | (position >> 1 & 3);
        const uint32_t exponent = in[c] >> 7 & 255;
        uint32_t code = exponent - base;

        p->tile[position] = (uint8_t)((in[c] >> 8 & 0x80) | (in[c] & 0x7F));
        if (code >= VIBE_PACK_WINDOW)
            code = put_escape(p, position, exponent);
        put_code(p->words[position >> 3 & 31], pair, position & 1, code);
    }
}

/* What is past the matrix is coded as zeros: its base is 0. */
static void pack_tile(uint8_t *tile, const uint16_t *in, size_t ld,
                      const uint32_t base[VIBE_TILE_ROWS],
                      const size_t n_columns[VIBE_TILE_ROWS])
{
    struct packing p = {.tile = tile};

    memset(tile, 0, VIBE_TILE_ESCAPES_AT);
    memset(tile + VIBE_TILE_ESCAPES_AT, 0xFF, (size_t)VIBE_TILE_ESCAPES * 2);
    for (unsigned r = 0; r < VIBE_TILE_ROWS; r++)
        tile[VIBE_TILE_BASES_AT + r] = (uint8_t)base[r];
    for (unsigned r = 0; r < VIBE_TILE_ROWS; r++)
        pack_row(&p, in + r * ld, r, n_columns[r]);
    for (unsigned lane = 0; lane < LANES; lane++)
        for (unsigned w = 0; w < 3; w++)
            put_u32(tile + VIBE_TILE_CODES_AT + ((size_t)w * LANES + lane) * 4,
                    p.words[lane][w]);
    if (p.is_far)
        put_u16(tile + VIBE_TILE_ESCAPES_AT + (size_t)VIBE_TILE_FEW * 2,
                VIBE_TILE_FAR);
}

/* The tiles of a group that pack.h has in its tile i of each row. */
static void lay_packed(uint8_t *out, const struct vibe_tile_row *row, size_t K,
                       size_t i)
{
    uint16_t wide[VIBE_TILE_ROWS][VIBE_PACK_COLUMNS];
    uint32_t base[VIBE_TILE_ROWS] = {0};
    size_t left[VIBE_TILE_ROWS] = {0};

    for (unsigned r = 0; r < VIBE_TILE_ROWS && row[r].part; r++) {
        const struct source from = source_of(&row[r], K);

        vibe_unpack_row(wide[r], from.block, from.n_rows, K, from.r,
                        from.first + i);
        base[r] = base_of(&from, i);
        left[r] = K - i * VIBE_PACK_COLUMNS;
    }
    for (size_t t = 0; t < ABREAST; t++) {
        if (i * ABREAST + t >= vibe_tiles_across(K))
            return;
        pack_tile(out + t * VIBE_TILE_PACKED_BYTES,
                  wide[0] + t * VIBE_TILE_COLUMNS, VIBE_PACK_COLUMNS, base,
                  left);
        for (unsigned r = 0; r < VIBE_TILE_ROWS && row[r].part; r++)
            left[r] -= left[r] < VIBE_TILE_COLUMNS ? left[r]
                                                   : VIBE_TILE_COLUMNS;
    }
}

void vibe_tiles_lay(void *out, enum vibe_dtype dtype,
                    const struct vibe_tile_row row[VIBE_TILE_ROWS], size_t K)
{
    uint8_t *tile = out;

    if (dtype == VIBE_BF16_PACKED) {
        for (size_t i = 0; i < vibe_pack_across(K); i++)
            lay_packed(tile + i * ABREAST * VIBE_TILE_PACKED_BYTES, row, K, i);
        return;
    }
    assert(dtype == VIBE_I4);
    for (size_t k = 0; k < K; k += VIBE_TILE_COLUMNS) {
        for (unsigned r = 0; r < VIBE_TILE_ROWS; r++)
            lay_i4_row(tile, &row[r], r, K, k);
        tile += VIBE_TILE_I4_BYTES;
    }
}

/* The escapes of row r of a group among pack.h's tiles i. */
struct escapes {
    const uint8_t *at;
    size_t n;
    uint32_t base;
    size_t r; /* in pack.h's tile */
};

static struct escapes escapes_of(const struct vibe_tile_row *row, size_t K,
                                 size_t i)
{
    const struct source from = source_of(row, K);
    const size_t n_tiles = vibe_pack_n_tiles(from.n_rows, K);
    const uint8_t *block = from.block;
    struct vibe_pack_tile tile[2];

    memcpy(tile, block + (from.first + i) * sizeof(*tile), sizeof(tile));
    return (struct escapes){
        .at = block + vibe_pack_escapes_at(n_tiles) +
              tile[0].first * sizeof(uint32_t),
        .n = tile[1].first - tile[0].first,
        .base = tile[0].base,
        .r = from.r,
    };
}

/* Escape j, if it is of the row: its column in pack.h's tile, else -1. */
static int read_escape(const struct escapes *from, size_t j, uint16_t *weight)
{
    uint32_t escape;

    memcpy(&escape, from->at + j * sizeof(escape), sizeof(escape));
    *weight = (uint16_t)escape;
    if (vibe_pack_escape_row(escape) != from->r)
        return -1;
    return (int)vibe_pack_escape_column(escape);
}

/* What a group's tiles have of escapes, among pack.h's tiles i. */
struct census {
    size_t n[ABREAST];
    int is_far[ABREAST];
};

static void count_escapes(struct census *out, const struct vibe_tile_row *row,
                          size_t K, size_t i)
{
    const uint32_t base = escapes_of(&row[0], K, i).base;

    *out = (struct census){0};
    for (unsigned r = 0; r < VIBE_TILE_ROWS && row[r].part; r++) {
        const struct escapes from = escapes_of(&row[r], K, i);

        for (size_t j = 0; j < from.n; j++) {
            uint16_t weight;
            const int column = read_escape(&from, j, &weight);
            const size_t t = (size_t)column / VIBE_TILE_COLUMNS;

            if (column < 0)
                continue;
            if (++out->n[t] > VIBE_TILE_ESCAPES ||
                said(weight >> 7 & 255, base) == VIBE_TILE_NO_ESCAPE)
                out->is_far[t] = 1;
        }
    }
}

int vibe_tiles_is_far(const struct vibe_tile_row row[VIBE_TILE_ROWS], size_t K)
{
    int is_far = 0;

    for (size_t i = 0; i < vibe_pack_across(K) && !is_far; i++) {
        struct census count;

        count_escapes(&count, row, K, i);
        for (size_t t = 0; t < ABREAST; t++)
            is_far |= count.is_far[t];
    }
    return is_far;
}

/* Room for another tile of so many escapes; non-zero without memory. */
static int make_room(struct vibe_tiles_far *far, size_t n_escapes)
{
    while (far->n + 2 > far->room) {
        const size_t room = 2 * far->room + 16;
        size_t *group = realloc(far->group, room * sizeof(*group));
        uint32_t *tile, *first;

        if (!group)
            return 1;
        far->group = group;
        tile = realloc(far->tile, room * sizeof(*tile));
        if (!tile)
            return 1;
        far->tile = tile;
        first = realloc(far->first, room * sizeof(*first));
        if (!first)
            return 1;
        far->first = first;
        far->room = room;
    }
    while (far->n_escapes + n_escapes > far->escape_room) {
        const size_t room = 2 * far->escape_room + WEIGHTS;
        uint32_t *escape = realloc(far->escape, room * sizeof(*escape));

        if (!escape)
            return 1;
        far->escape = escape;
        far->escape_room = room;
    }
    return 0;
}

/* Append the escapes of tile t of those beside each other. */
static void add_escapes(struct vibe_tiles_far *far,
                        const struct vibe_tile_row *row, size_t K, size_t i,
                        size_t t)
{
    for (unsigned r = 0; r < VIBE_TILE_ROWS && row[r].part; r++) {
        const struct escapes from = escapes_of(&row[r], K, i);

        for (size_t j = 0; j < from.n; j++) {
            uint16_t weight;
            const int column = read_escape(&from, j, &weight);

            if (column < 0 || (size_t)column / VIBE_TILE_COLUMNS != t)
                continue;
            far->escape[far->n_escapes++] = vibe_tile_position(
                                                r, (unsigned)column %
                                                       VIBE_TILE_COLUMNS)
                                                << 16 |
                                            weight;
        }
    }
}

int vibe_tiles_far_add(struct vibe_tiles_far *far, size_t group,
                       const struct vibe_tile_row row[VIBE_TILE_ROWS], size_t K,
                       struct vibe_error *err)
{
    for (size_t i = 0; i < vibe_pack_across(K); i++) {
        struct census count;

        count_escapes(&count, row, K, i);
        for (size_t t = 0; t < ABREAST; t++) {
            if (!count.is_far[t])
                continue;
            if (make_room(far, count.n[t]))
                return vibe_fail(err, VIBE_E_NOMEM,
                                 "no memory for %zu escapes of packed weights",
                                 far->n_escapes + count.n[t]);
            far->group[far->n] = group;
            far->tile[far->n] = (uint32_t)(i * ABREAST + t);
            far->first[far->n++] = (uint32_t)far->n_escapes;
            add_escapes(far, row, K, i, t);
            far->first[far->n] = (uint32_t)far->n_escapes;
        }
    }
    return VIBE_OK;
}

void vibe_tiles_far_release(struct vibe_tiles_far *far)
{
    free(far->group);
    free(far->tile);
    free(far->first);
    free(far->escape);
    *far = (struct vibe_tiles_far){0};
}

size_t vibe_tiles_far_words(const struct vibe_tiles_far *far, size_t n_groups)
{
    return far->n ? n_groups + 1 + far->n + far->n + 1 + far->n_escapes : 0;
}

void vibe_tiles_far_write(const struct vibe_tiles_far *far, size_t n_groups,
                          uint32_t *out)
{
    size_t i = 0;

    for (size_t g = 0; g <= n_groups; g++) {
        while (i < far->n && far->group[i] < g)
            i++;
        *out++ = (uint32_t)i;
    }
    memcpy(out, far->tile, far->n * sizeof(*out));
    out += far->n;
    memcpy(out, far->first, (far->n + 1) * sizeof(*out));
    out += far->n + 1;
    memcpy(out, far->escape, far->n_escapes * sizeof(*out));
}
