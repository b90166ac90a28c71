#include "engine/format/pack.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "tests/support/vibe_test.h"

struct fixture {
    uint64_t random;
    uint16_t *in, *out;
    uint8_t *packed;
    size_t N, K, bytes;
    struct vibe_error err;
};

static int setup(void **state)
{
    static struct fixture f;

    f = (struct fixture){.random = 7};
    *state = &f;
    return 0;
}

static void clear(struct fixture *f)
{
    free(f->in);
    free(f->out);
    free(f->packed);
    f->in = f->out = NULL;
    f->packed = NULL;
}

static int teardown(void **state)
{
    clear(*state);
    return 0;
}

static uint64_t next_random(struct fixture *f)
{
    uint64_t z = f->random += 0x9E3779B97F4A7C15u;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Box-Muller, sd 0.02, cut to bf16. */
static uint16_t gaussian(struct fixture *f)
{
    double u = ((double)(next_random(f) >> 11) + 0.5) * 0x1p-53;
    double v = ((double)(next_random(f) >> 11) + 0.5) * 0x1p-53;
    float w = (float)(0.02 * sqrt(-2.0 * log(u)) *
                      cos(2.0 * 3.14159265358979 * v));
    uint32_t bits;

    memcpy(&bits, &w, sizeof(bits));
    return (uint16_t)(bits >> 16);
}

static uint16_t any(struct fixture *f)
{
    return (uint16_t)next_random(f);
}

/* Among zeros: infinities, NaN with payloads, subnormals. */
static uint16_t odd_one(struct fixture *f)
{
    static const uint16_t odd[] = {0x0000, 0x8000, 0x7F80, 0xFF80, 0x7FC1,
                                   0xFFFF, 0x0001, 0x807F, 0x7F7F, 0x3F80};
    uint64_t r = next_random(f);

    return r % 4 ? 0 : odd[r / 4 % (sizeof(odd) / sizeof(*odd))];
}

static void fill(struct fixture *f, size_t N, size_t K,
                 uint16_t (*weight)(struct fixture *f))
{
    clear(f);
    f->N = N;
    f->K = K;
    f->in = calloc(N * K, sizeof(*f->in));
    f->out = calloc(N * K, sizeof(*f->out));
    assert_non_null(f->in);
    assert_non_null(f->out);
    for (size_t i = 0; i < N * K; i++)
        f->in[i] = weight(f);
}

/* Rows of block i, and how many. */
static size_t rows_at(const struct fixture *f, size_t i,
                      const void *row[VIBE_PACK_BLOCK])
{
    size_t left = f->N - i * VIBE_PACK_BLOCK;
    size_t n = left < VIBE_PACK_BLOCK ? left : VIBE_PACK_BLOCK;

    for (size_t r = 0; r < n; r++)
        row[r] = f->in + (i * VIBE_PACK_BLOCK + r) * f->K;
    return n;
}

static void pack(struct fixture *f)
{
    const void *row[VIBE_PACK_BLOCK];
    size_t sizes[8];
    size_t n_blocks = vibe_pack_n_blocks(f->N);

    assert_true(n_blocks <= 8);
    f->bytes = vibe_pack_header_bytes(f->N);
    for (size_t i = 0; i < n_blocks; i++) {
        sizes[i] = vibe_pack_block_bytes(row, rows_at(f, i, row), f->K);
        f->bytes += sizes[i];
    }
    f->packed = malloc(f->bytes);
    assert_non_null(f->packed);
    assert_int_equal(vibe_pack_header_write(f->packed, f->N, f->K, sizes),
                     f->bytes);
    for (size_t i = 0, at = vibe_pack_header_bytes(f->N); i < n_blocks; i++) {
        vibe_pack_block(f->packed + at, row, rows_at(f, i, row), f->K);
        at += sizes[i];
    }
}

static void assert_round_trip(struct fixture *f)
{
    const void *row[VIBE_PACK_BLOCK];

    pack(f);
    assert_int_equal(
        vibe_pack_check(f->packed, f->bytes, f->N, f->K, "w", &f->err),
        VIBE_OK);
    for (size_t i = 0; i < vibe_pack_n_blocks(f->N); i++)
        vibe_unpack_block(f->out + i * VIBE_PACK_BLOCK * f->K,
                          vibe_pack_block_at(f->packed, i), rows_at(f, i, row),
                          f->K);
    assert_memory_equal(f->out, f->in, f->N * f->K * sizeof(*f->in));
}

static void check_refuses_what_is_cut_off(void **state)
{
    struct fixture *f = *state;

    fill(f, 70, 300, gaussian);
    pack(f);
    for (size_t n = 0; n < f->bytes; n += 997)
        assert_int_equal(
            vibe_pack_check(f->packed, n, f->N, f->K, "w", &f->err),
            VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "w: "));
}

static void check_refuses_another_shape(void **state)
{
    static const size_t shapes[][2] = {{64, 257}, {63, 256}, {64, 255}};
    struct fixture *f = *state;

    fill(f, 64, 256, gaussian);
    pack(f);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        assert_int_equal(vibe_pack_check(f->packed, f->bytes, shapes[i][0],
                                         shapes[i][1], "w", &f->err),
                         VIBE_E_FORMAT);
        assert_non_null(strstr(f->err.msg, "w: no packed bf16 matrix of"));
    }
    f->packed[0] ^= 1;
    assert_int_equal(vibe_pack_check(f->packed, f->bytes, 64, 256, "w", NULL),
                     VIBE_E_FORMAT);
}

static void check_refuses_blocks_out_of_place(void **state)
{
    struct fixture *f = *state;
    const size_t header = vibe_pack_header_bytes(70);

    fill(f, 70, 256, gaussian);
    pack(f);
    for (size_t i = 0; i < 2; i++) {
        const uint64_t end = i ? header - 16 : f->bytes + 16; /* of block 0 */

        memcpy(f->packed + sizeof(struct vibe_pack_header) + sizeof(end), &end,
               sizeof(end));
        assert_int_equal(
            vibe_pack_check(f->packed, f->bytes, 70, 256, "w", &f->err),
            VIBE_E_FORMAT);
        assert_string_equal(f->err.msg, "w: block 0 is out of place");
    }
}

static void check_refuses_escapes_outside_of_a_tile(void **state)
{
    struct fixture *f = *state;

    fill(f, 32, 256, any);
    for (size_t i = 0; i < 2; i++) {
        const size_t n_tiles = vibe_pack_n_tiles(32, 256);
        struct vibe_pack_tile end;
        uint8_t *block;

        free(f->packed);
        pack(f);
        block = f->packed + vibe_pack_header_bytes(32);
        memcpy(&end, block + n_tiles * sizeof(end), sizeof(end));
        assert_true(end.first > 1);
        block[vibe_pack_escapes_at(n_tiles) + i * (end.first - 1) * 4 +
              3] |= 0x10;
        assert_int_equal(
            vibe_pack_check(f->packed, f->bytes, 32, 256, "w", NULL),
            VIBE_E_FORMAT);
    }
}

/* Change a number of block 1's list of tiles; put it back afterwards. */
static void assert_damaged(struct fixture *f, size_t tile, size_t member,
                           uint32_t value)
{
    uint8_t *at = f->packed +
                  ((const uint8_t *)vibe_pack_block_at(f->packed, 1) -
                   f->packed) +
                  tile * sizeof(struct vibe_pack_tile) + member;
    uint32_t was;

    memcpy(&was, at, sizeof(was));
    memcpy(at, &value, sizeof(value));
    assert_int_equal(
        vibe_pack_check(f->packed, f->bytes, f->N, f->K, "w", &f->err),
        VIBE_E_FORMAT);
    assert_string_equal(f->err.msg, "w: block 1 is damaged");
    memcpy(at, &was, sizeof(was));
}

static void check_refuses_lists_of_tiles_that_lie(void **state)
{
    enum { N = 70, K = 600, TILES = 6 }; /* in block 1 */
    const size_t base = offsetof(struct vibe_pack_tile, base);
    const size_t first = offsetof(struct vibe_pack_tile, first);
    struct fixture *f = *state;
    size_t room;

    fill(f, N, K, gaussian);
    pack(f);
    room = vibe_pack_blocks_bytes(f->packed, 1, 1) -
           vibe_pack_escapes_at(TILES);
    assert_damaged(f, 0, first, 1); /* the first escape is nobody's */
    assert_damaged(f, TILES, first, (uint32_t)(room / sizeof(uint32_t)) + 1);
    for (size_t i = 0; i < TILES; i++) {
        assert_damaged(f, i, base, VIBE_PACK_BASE_MAX + 1);
        assert_damaged(f, i, first, 0x10000); /* more than there are */
    }
    assert_int_equal(vibe_pack_check(f->packed, f->bytes, N, K, "w", &f->err),
                     VIBE_OK);
}

static void check_refuses_blocks_that_are_too_short(void **state)
{
    static const uint64_t sizes[] = {0, 16, 11280, 11296 + 8};
    const size_t header = vibe_pack_header_bytes(64);
    struct fixture *f = *state;

    fill(f, 64, 256, gaussian);
    pack(f);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        const uint64_t end = header + sizes[i]; /* of block 0 */

        memcpy(f->packed + sizeof(struct vibe_pack_header) + sizeof(end), &end,
               sizeof(end));
        assert_int_equal(
            vibe_pack_check(f->packed, f->bytes, 64, 256, "w", &f->err),
            VIBE_E_FORMAT);
        assert_string_equal(f->err.msg, "w: block 0 is damaged");
    }
}

static void every_weight_comes_back(void **state)
{
    static const size_t shapes[][2] = {{1, 1},    {16, 256}, {17, 257},
                                       {64, 512}, {65, 8},   {130, 1000},
                                       {33, 31},  {200, 40}};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        fill(f, shapes[i][0], shapes[i][1], gaussian);
        assert_round_trip(f);
        fill(f, shapes[i][0], shapes[i][1], any);
        assert_round_trip(f);
        fill(f, shapes[i][0], shapes[i][1], odd_one);
        assert_round_trip(f);
    }
}

static void every_code_of_bf16_comes_back(void **state)
{
    struct fixture *f = *state;

    fill(f, 64, 1024, any);
    for (size_t i = 0; i < (size_t)64 * 1024; i++)
        f->in[i] = (uint16_t)i;
    assert_round_trip(f);
}

/* 11 bits and 1.3 % of escapes, of 4 bytes each, are 71 %. */
static void gaussian_weights_take_three_quarters(void **state)
{
    struct fixture *f = *state;

    fill(f, 128, 3584, gaussian);
    assert_round_trip(f);
    assert_true((double)f->bytes <= 0.72 * 2.0 * 128 * 3584);
}

/* Zero and what is nearly infinite are in the first and the last window. */
static void the_first_and_the_last_window_need_no_escapes(void **state)
{
    static const unsigned bases[] = {0, VIBE_PACK_BASE_MAX};
    struct fixture *f = *state;

    for (size_t i = 0; i < 2; i++) {
        fill(f, 32, 256, any);
        for (size_t k = 0; k < (size_t)32 * 256; k++)
            f->in[k] = (uint16_t)((f->in[k] & 0x807F) |
                                  (bases[i] + k % VIBE_PACK_WINDOW) << 7);
        assert_round_trip(f);
        assert_int_equal(f->bytes,
                         vibe_pack_header_bytes(32) + vibe_pack_escapes_at(2));
    }
}

static void whatever_was_there_packs_to_the_same_bytes(void **state)
{
    struct fixture *f = *state;
    const void *row[VIBE_PACK_BLOCK];
    uint8_t *again;
    size_t n;

    fill(f, 27, 300, gaussian);
    n = vibe_pack_block_bytes(row, rows_at(f, 0, row), f->K);
    f->packed = malloc(n);
    again = malloc(n);
    assert_non_null(f->packed);
    assert_non_null(again);
    memset(f->packed, 0x55, n);
    memset(again, 0xAA, n);
    vibe_pack_block(f->packed, row, 27, f->K);
    vibe_pack_block(again, row, 27, f->K);

    assert_memory_equal(f->packed, again, n);
    free(again);
}

static void rows_of_tiles_come_back_by_themselves(void **state)
{
    enum { N = 27, K = 300, ACROSS = 2 };
    struct fixture *f = *state;
    uint16_t got[VIBE_PACK_COLUMNS];

    fill(f, N, K, any);
    for (size_t i = 0; i < (size_t)N * K; i += 3) /* few of them escape */
        f->in[i] = gaussian(f);
    pack(f);
    for (size_t r = 0; r < N; r++)
        for (size_t i = 0; i < ACROSS; i++) {
            const size_t column = i * VIBE_PACK_COLUMNS;
            const size_t width = i ? K - VIBE_PACK_COLUMNS : VIBE_PACK_COLUMNS;

            vibe_unpack_row(got, vibe_pack_block_at(f->packed, 0), N, K,
                            r % VIBE_PACK_ROWS,
                            r / VIBE_PACK_ROWS * ACROSS + i);
            assert_memory_equal(got, f->in + r * K + column,
                                width * sizeof(*got));
        }
}

static void a_block_stands_by_itself(void **state)
{
    struct fixture *f = *state;

    fill(f, 96, 300, gaussian);
    pack(f);
    vibe_unpack_block(f->out, vibe_pack_block_at(f->packed, 1), 32, 300);
    assert_memory_equal(f->out, f->in + (size_t)32 * 300,
                        (size_t)32 * 300 * sizeof(*f->in));
    assert_int_equal(vibe_pack_blocks_bytes(f->packed, 1, 2) +
                         vibe_pack_blocks_bytes(f->packed, 0, 1) +
                         vibe_pack_header_bytes(96),
                     f->bytes);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(check_refuses_what_is_cut_off),
    VIBE_TEST(check_refuses_another_shape),
    VIBE_TEST(check_refuses_blocks_out_of_place),
    VIBE_TEST(check_refuses_escapes_outside_of_a_tile),
    VIBE_TEST(check_refuses_lists_of_tiles_that_lie),
    VIBE_TEST(check_refuses_blocks_that_are_too_short),
    VIBE_TEST(every_weight_comes_back),
    VIBE_TEST(every_code_of_bf16_comes_back),
    VIBE_TEST(gaussian_weights_take_three_quarters),
    VIBE_TEST(the_first_and_the_last_window_need_no_escapes),
    VIBE_TEST(whatever_was_there_packs_to_the_same_bytes),
    VIBE_TEST(rows_of_tiles_come_back_by_themselves),
    VIBE_TEST(a_block_stands_by_itself),
};

VIBE_TEST_MAIN(tests)
