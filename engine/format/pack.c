#include "engine/format/pack.h"

#include <assert.h>
#include <string.h>

#include "engine/base/error.h"

enum { LANES = 32, STEPS = 8, LANE_WORDS = 12, EXPONENTS = 256 };

static size_t round16(size_t n)
{
    return (n + 15) & ~(size_t)15;
}

static uint32_t read_u32(const void *from)
{
    uint32_t u;

    memcpy(&u, from, sizeof(u));
    return u;
}

static uint64_t read_u64(const void *from)
{
    uint64_t u;

    memcpy(&u, from, sizeof(u));
    return u;
}

static struct vibe_pack_tile tile_at(const void *block, size_t i)
{
    struct vibe_pack_tile tile;

    memcpy(&tile, (const char *)block + i * sizeof(tile), sizeof(tile));
    return tile;
}

static void put_tile(void *block, size_t i, struct vibe_pack_tile tile)
{
    memcpy((char *)block + i * sizeof(tile), &tile, sizeof(tile));
}

/* The part of a block's rows that a tile covers. */
struct window {
    const void *const *row; /* of the block */
    size_t first_row, n_rows;
    size_t first_column, n_columns;
};

static struct window window_of(const void *const *row, size_t n, size_t K,
                               size_t i)
{
    size_t across = vibe_pack_across(K);
    struct window w = {
        .row = row,
        .first_row = i / across * VIBE_PACK_ROWS,
        .first_column = i % across * VIBE_PACK_COLUMNS,
    };

    w.n_rows = n - w.first_row;
    if (w.n_rows > VIBE_PACK_ROWS)
        w.n_rows = VIBE_PACK_ROWS;
    w.n_columns = K - w.first_column;
    if (w.n_columns > VIBE_PACK_COLUMNS)
        w.n_columns = VIBE_PACK_COLUMNS;
    return w;
}

static inline uint16_t weight_at(const char *row, size_t i)
{
    uint16_t u;

    memcpy(&u, row + 2 * i, sizeof(u));
    return u;
}

static const char *row_at(const struct window *w, size_t r)
{
    return (const char *)w->row[w->first_row + r] + 2 * w->first_column;
}

/* The base that leaves the fewest escapes, and how many. */
static uint32_t choose_base(const struct window *w, size_t *n_escapes)
{
    uint32_t count[2][EXPONENTS] = {{0}}; /* neighbours apart: no waiting */
    uint32_t inside = 0;
    uint32_t most = 0;
    uint32_t base = 0;

    for (size_t r = 0; r < w->n_rows; r++) {
        const char *row = row_at(w, r);

        for (size_t c = 0; c < w->n_columns; c++)
            count[c & 1][weight_at(row, c) >> 7 & 255]++;
    }
    for (uint32_t e = 0; e < VIBE_PACK_BASE_MAX + VIBE_PACK_WINDOW; e++) {
        inside += count[0][e] + count[1][e];
        if (e >= VIBE_PACK_WINDOW)
            inside -= count[0][e - VIBE_PACK_WINDOW] +
                      count[1][e - VIBE_PACK_WINDOW];
        if (inside > most && e + 1 >= VIBE_PACK_WINDOW) {
            most = inside;
            base = e + 1 - VIBE_PACK_WINDOW;
        }
    }
    *n_escapes = w->n_rows * w->n_columns - most;
    return base;
}

/* Where pair 0 .. 15 of a lane's two steps has its codes. */
static void put_codes(uint32_t words[3], unsigned pair, uint32_t even,
                      uint32_t odd)
{
    const uint32_t both = even | odd << 16;

    if (pair < 15) {
        words[pair / 5] |= both << (3 * (pair % 5) + 1);
        return;
    }
    for (unsigned b = 0; b < 3; b++)
        words[b] |= both >> b & 0x00010001;
}

static uint32_t get_codes(const uint32_t words[3], unsigned pair)
{
    uint32_t both = 0;

    if (pair < 15)
        return words[pair / 5] >> (3 * (pair % 5) + 1) & 0x00070007;
    for (unsigned b = 0; b < 3; b++)
        both |= (words[b] & 0x00010001) << b;
    return both;
}

/* One tile on its way into a block. */
struct packing {
    const struct window *w;
    uint8_t *planes;
    uint32_t base;
    uint8_t *escapes; /* where the next one goes */
};

/* Code of a weight; an escape is listed and coded 0. */
static uint32_t encode(struct packing *p, uint16_t weight, uint32_t position)
{
    uint32_t code = (weight >> 7 & 255) - p->base;
    uint32_t escape = position << 16 | weight;

    if (code < VIBE_PACK_WINDOW)
        return code;
    memcpy(p->escapes, &escape, sizeof(escape));
    p->escapes += sizeof(escape);
    return 0;
}

/* The 8 neighbours of a lane in one step and half. */
static void pack_eight(struct packing *p, unsigned step, unsigned half,
                       unsigned lane, uint32_t words[3])
{
    const unsigned row = half * 8 + lane / 4;
    const unsigned column = step * 32 + lane % 4 * 8;
    const uint32_t position = step << 9 | half << 8 | lane << 3;
    uint8_t *bytes = p->planes + ((size_t)step * LANES + lane) * 16 +
                     (size_t)half * 8;
    uint32_t code[8] = {0};
    size_t n = 0;

    if (row < p->w->n_rows && column < p->w->n_columns)
        n = p->w->n_columns - column < 8 ? p->w->n_columns - column : 8;
    for (unsigned e = 0; e < n; e++) {
        uint16_t weight = weight_at(row_at(p->w, row), column + e);

        bytes[e] = (uint8_t)((weight >> 8 & 0x80) | (weight & 0x7F));
        code[e] = encode(p, weight, position | e);
    }
    for (unsigned e = 0; e < 8; e += 2)
        put_codes(words, step % 2 * 8 + half * 4 + e / 2, code[e], code[e + 1]);
}

static uint8_t *word_at(uint8_t *planes, unsigned lane, unsigned i)
{
    return planes + VIBE_PACK_BYTES + ((size_t)i / 4 * LANES + lane) * 16 +
           (size_t)i % 4 * 4;
}

static void pack_tile(struct packing *p)
{
    memset(p->planes, 0, VIBE_PACK_PLANES);
    for (unsigned lane = 0; lane < LANES; lane++)
        for (unsigned unit = 0; unit < STEPS / 2; unit++) {
            uint32_t words[3] = {0};

            for (unsigned i = 0; i < 4; i++)
                pack_eight(p, unit * 2 + i / 2, i % 2, lane, words);
            for (unsigned i = 0; i < 3; i++)
                memcpy(word_at(p->planes, lane, unit * 3 + i), &words[i],
                       sizeof(words[i]));
        }
}

size_t vibe_pack_block_bytes(const void *const *row, size_t n, size_t K)
{
    const size_t n_tiles = vibe_pack_n_tiles(n, K);
    size_t total = 0;

    assert(n <= VIBE_PACK_BLOCK);
    for (size_t i = 0; i < n_tiles; i++) {
        struct window w = window_of(row, n, K, i);
        size_t n_escapes;

        choose_base(&w, &n_escapes);
        total += n_escapes;
    }
    return round16(vibe_pack_escapes_at(n_tiles) + total * sizeof(uint32_t));
}

void vibe_pack_block(void *out, const void *const *row, size_t n, size_t K)
{
    const size_t n_tiles = vibe_pack_n_tiles(n, K);
    uint8_t *bytes = out;
    uint8_t *escapes = bytes + vibe_pack_escapes_at(n_tiles);
    uint8_t *next = escapes;
    struct vibe_pack_tile end = {0};

    memset(bytes, 0, vibe_pack_planes_at(n_tiles));
    for (size_t i = 0; i < n_tiles; i++) {
        struct window w = window_of(row, n, K, i);
        size_t n_escapes;
        struct vibe_pack_tile tile = {
            .base = choose_base(&w, &n_escapes),
            .first = (uint32_t)((size_t)(next - escapes) / sizeof(uint32_t)),
        };
        struct packing p = {
            .w = &w,
            .planes = bytes + vibe_pack_planes_at(n_tiles) +
                      i * VIBE_PACK_PLANES,
            .base = tile.base,
            .escapes = next,
        };

        put_tile(out, i, tile);
        pack_tile(&p);
        next = p.escapes;
    }
    end.first = (uint32_t)((size_t)(next - escapes) / sizeof(uint32_t));
    put_tile(out, n_tiles, end);
    memset(next, 0, round16((size_t)(next - bytes)) - (size_t)(next - bytes));
}

size_t vibe_pack_header_bytes(size_t n_rows)
{
    return round16(sizeof(struct vibe_pack_header) +
                   (vibe_pack_n_blocks(n_rows) + 1) * sizeof(uint64_t));
}

size_t vibe_pack_header_write(void *out, size_t n_rows, size_t n_columns,
                              const size_t *block_bytes)
{
    const struct vibe_pack_header header = {
        .magic = VIBE_PACK_MAGIC,
        .n_rows = n_rows,
        .n_columns = n_columns,
    };
    const size_t n_blocks = vibe_pack_n_blocks(n_rows);
    char *table = (char *)out + sizeof(header);
    uint64_t at = vibe_pack_header_bytes(n_rows);

    memset(out, 0, at);
    memcpy(out, &header, sizeof(header));
    for (size_t i = 0; i <= n_blocks; i++) {
        memcpy(table + i * sizeof(at), &at, sizeof(at));
        if (i < n_blocks)
            at += block_bytes[i];
    }
    return at;
}

static uint64_t begins_at(const void *packed, size_t i)
{
    return read_u64((const char *)packed + sizeof(struct vibe_pack_header) +
                    i * sizeof(uint64_t));
}

const void *vibe_pack_block_at(const void *packed, size_t i)
{
    return (const char *)packed + begins_at(packed, i);
}

size_t vibe_pack_blocks_bytes(const void *packed, size_t first, size_t n)
{
    return begins_at(packed, first + n) - begins_at(packed, first);
}

/* A block of n rows in bytes: its list of tiles and every escape. */
static int is_sound_block(const void *block, size_t bytes, size_t n, size_t K)
{
    const size_t n_tiles = vibe_pack_n_tiles(n, K);
    const size_t escapes_at = vibe_pack_escapes_at(n_tiles);
    const char *escapes = (const char *)block + escapes_at;
    size_t n_escapes;

    if (bytes % 16 || bytes < escapes_at)
        return 0;
    n_escapes = (bytes - escapes_at) / sizeof(uint32_t);
    if (tile_at(block, 0).first != 0 ||
        tile_at(block, n_tiles).first > n_escapes)
        return 0;
    n_escapes = tile_at(block, n_tiles).first;
    for (size_t i = 0; i < n_tiles; i++)
        if (tile_at(block, i).base > VIBE_PACK_BASE_MAX ||
            tile_at(block, i).first > tile_at(block, i + 1).first)
            return 0;
    for (size_t i = 0; i < n_escapes; i++)
        if (read_u32(escapes + i * sizeof(uint32_t)) >> 28)
            return 0;
    return 1;
}

int vibe_pack_check(const void *packed, size_t bytes, size_t n_rows,
                    size_t n_columns, const char *name, struct vibe_error *err)
{
    const size_t n_blocks = vibe_pack_n_blocks(n_rows);
    struct vibe_pack_header header = {0};

    if (bytes < vibe_pack_header_bytes(n_rows))
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%.120s: %zu bytes are too few for packed bf16", name,
                         bytes);
    memcpy(&header, packed, sizeof(header));
    if (header.magic != VIBE_PACK_MAGIC || header.n_rows != n_rows ||
        header.n_columns != n_columns)
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%.120s: no packed bf16 matrix of %zu x %zu", name,
                         n_rows, n_columns);
    if (begins_at(packed, 0) != vibe_pack_header_bytes(n_rows) ||
        begins_at(packed, n_blocks) != bytes)
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%.120s: its table of blocks does not fill it", name);
    for (size_t i = 0; i < n_blocks; i++) {
        const size_t left = n_rows - i * VIBE_PACK_BLOCK;
        const size_t n = left < VIBE_PACK_BLOCK ? left : VIBE_PACK_BLOCK;
        const uint64_t begin = begins_at(packed, i);
        const uint64_t end = begins_at(packed, i + 1);

        if (end < begin || end > bytes)
            return vibe_fail(err, VIBE_E_FORMAT,
                             "%.120s: block %zu is out of place", name, i);
        if (!is_sound_block((const char *)packed + begin, end - begin, n,
                            n_columns))
            return vibe_fail(err, VIBE_E_FORMAT, "%.120s: block %zu is damaged",
                             name, i);
    }
    return VIBE_OK;
}

void vibe_unpack_escapes(uint16_t *out, size_t ld, const void *block,
                         size_t n_tiles, size_t i)
{
    const char *escapes = (const char *)block + vibe_pack_escapes_at(n_tiles);
    const size_t end = tile_at(block, i + 1).first;

    for (size_t k = tile_at(block, i).first; k < end; k++) {
        uint32_t escape = read_u32(escapes + k * sizeof(escape));

        out[vibe_pack_escape_row(escape) * ld +
            vibe_pack_escape_column(escape)] = (uint16_t)escape;
    }
}

/* The 8 neighbours of a lane in one step and half. */
static void unpack_eight(uint16_t *out, const uint8_t *bytes, uint32_t base,
                         const uint32_t words[3], unsigned first_pair)
{
    for (unsigned e = 0; e < 8; e++) {
        uint32_t code = get_codes(words, first_pair + e / 2) >> e % 2 * 16;
        uint32_t exponent = base + (code & 7);

        out[e] = (uint16_t)((bytes[e] & 0x80u) << 8 | exponent << 7 |
                            (bytes[e] & 0x7Fu));
    }
}

/* Row r of a tile, without its escapes. */
static void unpack_codes(uint16_t *out, const uint8_t *planes, uint32_t base,
                         unsigned r)
{
    const uint8_t *codes = planes + VIBE_PACK_BYTES;

    for (unsigned t = 0; t < 4; t++) {
        const unsigned lane = r % 8 * 4 + t;
        uint32_t words[LANE_WORDS];

        for (unsigned w = 0; w < LANE_WORDS; w++)
            words[w] = read_u32(codes + ((size_t)w / 4 * LANES + lane) * 16 +
                                (size_t)w % 4 * 4);
        for (unsigned step = 0; step < STEPS; step++)
            unpack_eight(
                out + (size_t)step * 32 + (size_t)t * 8,
                planes + ((size_t)step * LANES + lane) * 16 + (size_t)r / 8 * 8,
                base, words + (size_t)step / 2 * 3, step % 2 * 8 + r / 8 * 4);
    }
}

void vibe_unpack_row(uint16_t *out, const void *block, size_t n, size_t K,
                     size_t r, size_t i)
{
    const size_t n_tiles = vibe_pack_n_tiles(n, K);
    const char *bytes = block;
    const char *escapes = bytes + vibe_pack_escapes_at(n_tiles);
    const struct vibe_pack_tile tile = tile_at(block, i);
    const size_t end = tile_at(block, i + 1).first;

    unpack_codes(out,
                 (const uint8_t *)bytes + vibe_pack_planes_at(n_tiles) +
                     i * VIBE_PACK_PLANES,
                 tile.base, (unsigned)r);
    for (size_t k = tile.first; k < end; k++) {
        uint32_t escape = read_u32(escapes + k * sizeof(escape));

        if (vibe_pack_escape_row(escape) == r)
            out[vibe_pack_escape_column(escape)] = (uint16_t)escape;
    }
}

void vibe_unpack_tile(uint16_t *out, size_t ld, const void *block, size_t n,
                      size_t K, size_t i)
{
    const size_t n_tiles = vibe_pack_n_tiles(n, K);
    const uint8_t *planes = (const uint8_t *)block +
                            vibe_pack_planes_at(n_tiles) + i * VIBE_PACK_PLANES;

    for (unsigned r = 0; r < VIBE_PACK_ROWS; r++)
        unpack_codes(out + r * ld, planes, tile_at(block, i).base, r);
    vibe_unpack_escapes(out, ld, block, n_tiles, i);
}

void vibe_unpack_block(uint16_t *out, const void *block, size_t n, size_t K)
{
    const size_t across = vibe_pack_across(K);
    uint16_t tile[VIBE_PACK_ROWS * VIBE_PACK_COLUMNS];

    for (size_t i = 0; i < vibe_pack_n_tiles(n, K); i++) {
        size_t row = i / across * VIBE_PACK_ROWS;
        size_t column = i % across * VIBE_PACK_COLUMNS;
        size_t width = K - column < VIBE_PACK_COLUMNS ? K - column
                                                      : VIBE_PACK_COLUMNS;

        vibe_unpack_tile(tile, VIBE_PACK_COLUMNS, block, n, K, i);
        for (size_t r = 0; r < VIBE_PACK_ROWS && row + r < n; r++)
            memcpy(out + (row + r) * K + column, tile + r * VIBE_PACK_COLUMNS,
                   width * sizeof(*out));
    }
}
