/* Every weight is where tiles.h says. */
#include "engine/backend/tiles.h"

#include <stdlib.h>
#include <string.h>

#include "engine/backend/backend.h"
#include "engine/base/error.h"
#include "engine/format/pack.h"
#include "engine/format/quant.h"
#include "tests/support/vibe_test.h"

enum { MOST_N = 80, MOST_K = 600 };

struct fixture {
    uint64_t random;
    size_t n, K;
    struct vibe_matrix_part part;
    uint16_t weights[MOST_N][MOST_K]; /* bf16 */
    float scales[MOST_N * MOST_K / 64];
    uint64_t blocks[MOST_N / VIBE_PACK_BLOCK + 2];
    uint8_t *packed;
    uint8_t tiles[(MOST_K / 64 + 1) * VIBE_TILE_PACKED_BYTES];
    struct vibe_tiles_far far;
    uint32_t *list;
};

static struct fixture fixture;

static int setup(void **state)
{
    fixture = (struct fixture){.random = 11};
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    free(f->packed);
    free(f->list);
    vibe_tiles_far_release(&f->far);
    return 0;
}

static uint32_t next_random(struct fixture *f)
{
    f->random = f->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(f->random >> 33);
}

/* Exponents about one, some far away, and zeros. */
static uint16_t usual(struct fixture *f)
{
    const uint32_t r = next_random(f);
    const uint32_t exponent = r % 97 == 0 ? 0
                              : r % 89 == 0
                                  ? 90 + r % 40
                                  : 127 - (uint32_t)__builtin_ctz(r >> 8 | 64);

    return (uint16_t)(next_random(f) % 2 << 15 | exponent << 7 |
                      next_random(f) % 128);
}

static uint16_t any(struct fixture *f)
{
    return (uint16_t)next_random(f);
}

static void pack(struct fixture *f, size_t n, size_t K,
                 uint16_t (*draw)(struct fixture *f))
{
    const void *row[VIBE_PACK_BLOCK];
    size_t block = 0;

    f->n = n;
    f->K = K;
    for (size_t r = 0; r < n; r++)
        for (size_t k = 0; k < K; k++)
            f->weights[r][k] = draw(f);
    f->packed = malloc(8 * n * K + 65536);
    assert_non_null(f->packed);
    for (size_t first = 0; first < n; first += VIBE_PACK_BLOCK, block++) {
        const size_t left = n - first;
        const size_t rows = left < VIBE_PACK_BLOCK ? left : VIBE_PACK_BLOCK;

        for (size_t r = 0; r < rows; r++)
            row[r] = f->weights[first + r];
        vibe_pack_block(f->packed + f->blocks[block], row, rows, K);
        f->blocks[block + 1] = f->blocks[block] +
                               vibe_pack_block_bytes(row, rows, K);
    }
    f->part = (struct vibe_matrix_part){
        .data = f->packed,
        .blocks = f->blocks,
        .dtype = VIBE_BF16_PACKED,
        .n = n,
    };
}

/* The rows of a group, of a pair or as they come. */
static void find_group(const struct fixture *f,
                       struct vibe_tile_row row[VIBE_TILE_ROWS], size_t group,
                       int is_pair)
{
    for (size_t r = 0; r < VIBE_TILE_ROWS; r++) {
        const size_t n = group * VIBE_TILE_ROWS + r;

        row[r] = (struct vibe_tile_row){
            .part = n < f->n ? &f->part : NULL,
            .n = is_pair ? n / 2 + n % 2 * (f->n / 2) : n,
        };
    }
}

static unsigned u16_at(const uint8_t *at)
{
    return at[0] | (unsigned)at[1] << 8;
}

static uint32_t bits_of(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

/* Weight r, c of a packed tile but for escapes, by the words of the header. */
static uint16_t packed_at(const uint8_t *tile, uint32_t base, unsigned r,
                          unsigned c)
{
    const uint8_t *tops = tile + 1024 + (size_t)(r % 8) * 64;
    const unsigned sign = r < 8 ? tops[c] >> 7
                                : tops[c / 4 * 4 + (c + 1) % 4] >> 3 & 1;
    const unsigned code = r < 8 ? tops[c] & 7 : tops[c] >> 4 & 7;

    return (uint16_t)(sign << 15 | (base / 2 + code) << 8 | tile[r * 64 + c]);
}

static size_t n_groups(const struct fixture *f)
{
    return (f->n + VIBE_TILE_ROWS - 1) / VIBE_TILE_ROWS;
}

static uint32_t base_at(const struct fixture *f, size_t g)
{
    return f->list[n_groups(f) + 1 + g];
}

/* The same with the escapes of tile t of group g. */
static uint16_t weight_at(const struct fixture *f, const uint8_t *tile,
                          size_t g, size_t t, unsigned r, unsigned c)
{
    const uint32_t *escapes = f->list + 2 * n_groups(f) + 1;
    uint16_t weight = packed_at(tile, base_at(f, g), r, c);

    for (uint32_t i = f->list[g]; i < f->list[g + 1]; i++)
        if (escapes[i] >> 8 == (t << 10 | r << 6 | c))
            weight = (uint16_t)((weight & 255) | (escapes[i] & 255) << 8);
    return weight;
}

/* In two parts, as threads do. */
static void make_list(struct fixture *f, int is_pair)
{
    struct vibe_tile_row row[VIBE_TILE_ROWS];
    struct vibe_tiles_far more = {0};

    for (size_t g = 0; g < n_groups(f); g++) {
        find_group(f, row, g, is_pair);
        assert_int_equal(vibe_tiles_far_add(g ? &more : &f->far, row, f->K), 0);
    }
    assert_int_equal(vibe_tiles_far_append(&f->far, &more), 0);
    vibe_tiles_far_release(&more);
    f->list = calloc(vibe_tiles_far_words(&f->far), sizeof(*f->list));
    assert_non_null(f->list);
    vibe_tiles_far_write(&f->far, f->list);
}

static void check_packed(struct fixture *f, int is_pair)
{
    struct vibe_tile_row row[VIBE_TILE_ROWS];
    const size_t across = vibe_tiles_across(f->K);
    size_t n_escapes = 0;

    make_list(f, is_pair);
    for (size_t g = 0; g < n_groups(f); g++) {
        const uint32_t base = base_at(f, g);

        assert_int_equal(base % 2, 0);
        assert_true(base <= 240);
        find_group(f, row, g, is_pair);
        vibe_tiles_lay(f->tiles, VIBE_BF16_PACKED, row, f->K);
        for (unsigned r = 0; r < VIBE_TILE_ROWS; r++)
            for (size_t k = 0; k < across * 64; k++) {
                const uint8_t *tile = f->tiles +
                                      k / 64 * VIBE_TILE_PACKED_BYTES;
                const uint16_t is = weight_at(f, tile, g, k / 64, r, k % 64);
                uint16_t want;

                /* past the matrix, a number for the zeros that x has there */
                if (!row[r].part || k >= f->K) {
                    assert_int_equal(is, base / 2 << 8);
                    continue;
                }
                want = f->weights[row[r].n][k];
                assert_int_equal(is, want);
                n_escapes += (want >> 7 & 255) - base >= 16;
            }
    }
    assert_int_equal(f->far.n_escapes, n_escapes);
}

static void every_packed_weight_is_found(void **state)
{
    struct fixture *f = *state;

    pack(f, 64, 512, usual);
    check_packed(f, 0);
    assert_true(f->far.n_escapes < 64 * 512 / 40);
}

static void packed_pairs_take_turns(void **state)
{
    struct fixture *f = *state;

    pack(f, 80, 320, usual);
    check_packed(f, 1);
}

static void ragged_packed_matrices_end_in_zeros(void **state)
{
    struct fixture *f = *state;

    pack(f, 37, 77, usual);
    check_packed(f, 0);
}

static void what_codes_cannot_say_is_listed(void **state)
{
    struct fixture *f = *state;

    pack(f, 48, 300, any);
    check_packed(f, 0);
    assert_true(f->far.n_escapes > 48 * 300 / 10 * 9);
}

/* Every eighth or so 2^-20 of the others. */
static uint16_t uneven(struct fixture *f)
{
    const size_t at = f->random >> 40;

    return (uint16_t)(usual(f) - (at % 8 ? 0 : 20 << 7));
}

static void windows_lie_where_most_weights_are(void **state)
{
    struct fixture *f = *state;

    pack(f, 48, 256, uneven);
    check_packed(f, 0);
    for (size_t g = 0; g < 3; g++)
        assert_in_range(base_at(f, g), 112, 120);
}

static void every_int4_is_found(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[20 * 96];
    struct vibe_tile_row row[VIBE_TILE_ROWS];

    f->n = 20;
    f->K = 192;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)next_random(f);
    for (size_t i = 0; i < 20 * 3; i++)
        f->scales[i] = vibe_quant_group_scale(0.001f * (float)(i + 1));
    f->part = (struct vibe_matrix_part){
        .data = bytes,
        .group = 64,
        .group_scale = f->scales,
        .dtype = VIBE_I4,
        .n = 20,
    };

    for (size_t g = 0; g < 2; g++) {
        find_group(f, row, g, 0);
        vibe_tiles_lay(f->tiles, VIBE_I4, row, 192);
        for (unsigned r = 0; r < 16; r++)
            for (unsigned k = 0; k < 192; k++) {
                const size_t n = g * 16 + r;
                const uint8_t *tile = f->tiles + k / 64 * VIBE_TILE_I4_BYTES;
                const unsigned lane = r % 8 * 4 + k % 64 / 16;
                const uint8_t byte = tile[lane * 16 + r / 8 * 8 + k % 8];
                const unsigned want = n < 20
                                          ? bytes[n * 96 + k / 2] >> k % 2 * 4 &
                                                15
                                          : 8;

                assert_int_equal(byte >> k % 16 / 8 * 4 & 15, want ^ 8);
                if (n < 20)
                    assert_int_equal(u16_at(tile + 512 + r % 8 * 4 + r / 8 * 2)
                                         << 16,
                                     bits_of(f->scales[n * 3 + k / 64]));
            }
    }
}

static void wide_groups_of_int4_have_their_scale_twice(void **state)
{
    struct fixture *f = *state;
    static const uint8_t bytes[128];
    struct vibe_tile_row row[VIBE_TILE_ROWS];

    f->n = 1;
    f->scales[0] = 0.5f;
    f->scales[1] = 0.25f;
    f->part = (struct vibe_matrix_part){
        .data = bytes,
        .group = 128,
        .group_scale = f->scales,
        .dtype = VIBE_I4,
        .n = 1,
    };

    find_group(f, row, 0, 0);
    vibe_tiles_lay(f->tiles, VIBE_I4, row, 256);

    for (size_t t = 0; t < 4; t++)
        assert_int_equal(u16_at(f->tiles + t * VIBE_TILE_I4_BYTES + 512),
                         t < 2 ? 0x3F00 : 0x3E80);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(every_packed_weight_is_found),
    VIBE_TEST(packed_pairs_take_turns),
    VIBE_TEST(ragged_packed_matrices_end_in_zeros),
    VIBE_TEST(what_codes_cannot_say_is_listed),
    VIBE_TEST(windows_lie_where_most_weights_are),
    VIBE_TEST(every_int4_is_found),
    VIBE_TEST(wide_groups_of_int4_have_their_scale_twice),
};

VIBE_TEST_MAIN(tests)
