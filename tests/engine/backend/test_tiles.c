/* Every weight is where tiles.h says. */
#include "engine/backend/tiles.h"

#include <math.h>
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

static uint32_t u32_at(const uint8_t *at)
{
    return u16_at(at) | u16_at(at + 2) << 16;
}

static uint32_t bits_of(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

/* Weight r, c of a packed tile, by the words of the header. */
static uint16_t packed_at(const uint8_t *tile, unsigned r, unsigned c)
{
    const unsigned q = c / 16, i = c / 4 % 4, pair_of = c / 2 % 2, e = c % 2;
    const unsigned half = r / 8, g = r % 8, lane = 4 * g + q;
    const unsigned at = ((((i * 8 + g) * 4 + q) * 2 + pair_of) * 2 + half) * 2 +
                        e;
    const unsigned pair = (i * 2 + pair_of) * 2 + half;
    const unsigned byte = tile[at];
    unsigned code = 0;

    for (unsigned b = 0; b < 3; b++) {
        const unsigned w = pair < 15 ? pair / 5 : b;
        const unsigned bit = pair < 15 ? 3 * (pair % 5) + 1 + b : 0;

        code |= (u32_at(tile + 1024 + (w * 32 + lane) * 4) >> (bit + 16 * e) &
                 1)
                << b;
    }
    code += tile[1408 + r];
    for (unsigned j = 0; j < 40; j++) {
        const unsigned escape = u16_at(tile + 1424 + 2 * j);

        if ((escape & 63) < 62 && escape >> 6 == at)
            code = escape & 63 ? tile[1408] + (escape & 63) - 47 : 0;
    }
    return (uint16_t)((byte & 0x80) << 8 | code << 7 | (byte & 0x7F));
}

static size_t n_groups(const struct fixture *f)
{
    return (f->n + VIBE_TILE_ROWS - 1) / VIBE_TILE_ROWS;
}

/* The same where the list has something to say about tile t of group g. */
static uint16_t weight_at(const struct fixture *f, const uint8_t *tile,
                          size_t g, size_t t, unsigned r, unsigned c)
{
    const uint32_t *list = f->list;
    const size_t G = n_groups(f);
    const uint32_t n = list ? list[G] : 0;
    uint16_t weight = packed_at(tile, r, c);
    int is_listed = 0;

    for (uint32_t i = list ? list[g] : 0; i < (list ? list[g + 1] : 0); i++) {
        const uint32_t *first = list + G + 1 + n + i;

        if (list[G + 1 + i] != t)
            continue;
        is_listed = 1;
        for (uint32_t j = first[0]; j < first[1]; j++)
            if (list[G + 2 + 2 * n + j] >> 16 == vibe_tile_position(r, c))
                weight = (uint16_t)list[G + 2 + 2 * n + j];
    }
    assert_int_equal(is_listed, u16_at(tile + 1424 + 64) == 0xFFFE);
    return weight;
}

static void make_list(struct fixture *f, int is_pair)
{
    struct vibe_tile_row row[VIBE_TILE_ROWS];
    size_t words;

    for (size_t g = 0; g * VIBE_TILE_ROWS < f->n; g++) {
        find_group(f, row, g, is_pair);
        if (vibe_tiles_is_far(row, f->K))
            assert_int_equal(vibe_tiles_far_add(&f->far, g, row, f->K, NULL),
                             VIBE_OK);
    }
    words = vibe_tiles_far_words(&f->far, n_groups(f));
    if (!words)
        return;
    f->list = calloc(words, sizeof(*f->list));
    assert_non_null(f->list);
    vibe_tiles_far_write(&f->far, n_groups(f), f->list);
}

static void check_packed(struct fixture *f, int is_pair)
{
    struct vibe_tile_row row[VIBE_TILE_ROWS];
    const size_t across = vibe_tiles_across(f->K);

    make_list(f, is_pair);
    for (size_t g = 0; g * VIBE_TILE_ROWS < f->n; g++) {
        find_group(f, row, g, is_pair);
        vibe_tiles_lay(f->tiles, VIBE_BF16_PACKED, row, f->K);
        for (unsigned r = 0; r < VIBE_TILE_ROWS; r++)
            for (size_t k = 0; k < across * 64; k++) {
                const int is_there = row[r].part && k < f->K;
                const uint16_t want = is_there ? f->weights[row[r].n][k] : 0;
                const uint8_t *tile = f->tiles +
                                      k / 64 * VIBE_TILE_PACKED_BYTES;

                /* past K the base may be that of a row: a tiny number times
                 * the zero that x has there */
                if (!is_there && row[r].part)
                    continue;
                assert_int_equal(weight_at(f, tile, g, k / 64, r, k % 64),
                                 want);
            }
    }
}

static void every_packed_weight_is_found(void **state)
{
    struct fixture *f = *state;

    pack(f, 64, 512, usual);
    check_packed(f, 0);
    assert_int_equal(f->far.n, 0);
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

static void what_a_tile_cannot_say_is_listed(void **state)
{
    struct fixture *f = *state;

    pack(f, 48, 300, any);
    check_packed(f, 0);
    assert_int_equal(f->far.n, 3 * 5); /* all of them */
}

static void one_strange_exponent_is_enough(void **state)
{
    struct fixture *f = *state;

    pack(f, 16, 128, usual);
    f->weights[3][70] = 0x7F80; /* infinity: not within 14 of the base */
    vibe_pack_block(f->packed,
                    (const void *[]){
                        f->weights[0],
                        f->weights[1],
                        f->weights[2],
                        f->weights[3],
                        f->weights[4],
                        f->weights[5],
                        f->weights[6],
                        f->weights[7],
                        f->weights[8],
                        f->weights[9],
                        f->weights[10],
                        f->weights[11],
                        f->weights[12],
                        f->weights[13],
                        f->weights[14],
                        f->weights[15],
                    },
                    16, 128);
    check_packed(f, 0);
    assert_int_equal(f->far.n, 1);
    assert_int_equal(f->far.group[0], 0);
    assert_int_equal(f->far.tile[0], 1);
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
                const unsigned pair = k % 16 / 2;
                const uint32_t word = u32_at(tile + lane * 16 + r / 8 * 8 +
                                             pair / 4 * 4);
                const unsigned want = n < 20
                                          ? bytes[n * 96 + k / 2] >> k % 2 * 4 &
                                                15
                                          : 8;

                assert_int_equal(word >> (pair % 4 * 4 + k % 2 * 16) & 15,
                                 want);
                if (n < 20)
                    assert_int_equal(
                        u16_at(tile + 512 + 2 * r) << 16,
                        bits_of(ldexpf(f->scales[n * 3 + k / 64], 111)));
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
                         t < 2 ? 0x3F00 + 111 * 128 : 0x3E80 + 111 * 128);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(every_packed_weight_is_found),
    VIBE_TEST(packed_pairs_take_turns),
    VIBE_TEST(ragged_packed_matrices_end_in_zeros),
    VIBE_TEST(what_a_tile_cannot_say_is_listed),
    VIBE_TEST(one_strange_exponent_is_enough),
    VIBE_TEST(every_int4_is_found),
    VIBE_TEST(wide_groups_of_int4_have_their_scale_twice),
};

VIBE_TEST_MAIN(tests)
