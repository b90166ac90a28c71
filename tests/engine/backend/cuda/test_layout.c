/* What a tally counts is what a GPU takes, and how weights lie on it: neither
 * needs a GPU. */
#include "engine/backend/cuda/device.h"
#include "engine/backend/ops.h"
#include "engine/backend/tally.h"
#include "tests/support/vibe_test.h"

static const float floats[4096];

static struct vibe_matrix_source source_of(enum vibe_dtype dtype, size_t N,
                                           size_t K)
{
    return (struct vibe_matrix_source){
        .part = {{.data = floats, .dtype = dtype, .n = N}},
        .n_parts = 1,
        .layout = VIBE_LAYOUT_LINEAR,
        .N = N,
        .K = K,
        .in = K,
    };
}

static void compare(const struct vibe_matrix_source *src)
{
    const struct vibe_tally_options options = {.kv_dtype = VIBE_BF16};
    struct vibe_backend *tally = NULL;
    struct vibe_ops cuda = {0};
    size_t rows, small, want_rows, want_small;

    vibe_cuda_memory_init(&cuda);
    assert_int_equal(vibe_tally_open(&tally, &options, NULL), VIBE_OK);
    assert_int_equal(
        cuda.matrix_measure(NULL, src, &want_rows, &want_small, NULL), VIBE_OK);
    assert_int_equal(vibe_matrix_measure(tally, src, &rows, &small, NULL),
                     VIBE_OK);
    assert_int_equal(rows, want_rows);
    assert_int_equal(small, want_small);
    vibe_backend_free(tally);
}

static void plain_matrices_are_counted_alike(void **state)
{
    static const enum vibe_dtype dtypes[] = {VIBE_F32, VIBE_BF16, VIBE_F16,
                                             VIBE_F8_E4M3};

    (void)state;
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        struct vibe_matrix_source src = source_of(dtypes[i], 130, 77);

        compare(&src);
        src.bias = floats;
        compare(&src);
        src.gamma = floats;
        src.part[0].scale = floats;
        src.part[0].n_scales = 1;
        compare(&src);
    }
}

static void parts_of_two_kinds_are_counted_alike(void **state)
{
    struct vibe_matrix_source src = source_of(VIBE_BF16, 128, 64);

    (void)state;
    src.n_parts = 2;
    src.part[0].n = 64;
    src.part[1] = src.part[0];
    src.part[1].dtype = VIBE_F8_E4M3;
    compare(&src);
    src.part[1].dtype = VIBE_F16;
    compare(&src);
}

/* Every byte, in each place of a word. */
enum { N_BYTES = 4 * 256 };

static void lay_bytes(uint32_t words[N_BYTES / 4], uint8_t bytes[N_BYTES],
                      enum vibe_dtype dtype)
{
    struct vibe_matrix_source src = source_of(dtype, 1, N_BYTES);
    struct vibe_ops cuda = {0};

    for (size_t i = 0; i < N_BYTES; i++)
        bytes[i] = (uint8_t)(i / 4 + 77 * (i % 4));
    src.part[0].data = bytes;
    vibe_cuda_memory_init(&cuda);
    cuda.matrix_lay(NULL, &src, 0, 1, words);
}

/* Sign and the other bits of a float8 where a bf16 has its own. */
static uint32_t spread(uint8_t byte)
{
    return (byte & 0x80u) << 8 | (byte & 0x7Fu) << 4;
}

static void float8_come_out_of_a_word_in_pairs(void **state)
{
    const uint32_t mask = 0x87F087F0;
    uint32_t words[N_BYTES / 4];
    uint8_t bytes[N_BYTES];

    (void)state;
    lay_bytes(words, bytes, VIBE_F8_E4M3);

    for (size_t i = 0; i < N_BYTES / 4; i++) {
        const uint8_t *b = bytes + 4 * i;
        const uint32_t v = words[i];
        const uint32_t swapped = (v & 0x00FF00FF) << 8 | (v >> 8 & 0x00FF00FF);

        assert_int_equal(v & mask, spread(b[0]) | spread(b[1]) << 16);
        assert_int_equal((swapped ^ v << 4) & mask, spread(b[2]) | spread(b[3])
                                                                       << 16);
    }
}

static void int8_are_stored_128_larger(void **state)
{
    uint32_t words[N_BYTES / 4];
    uint8_t bytes[N_BYTES];

    (void)state;
    lay_bytes(words, bytes, VIBE_I8);

    for (size_t i = 0; i < N_BYTES; i++)
        assert_int_equal(words[i / 4] >> 8 * (i % 4) & 0xFF,
                         (int8_t)bytes[i] + 128);
}

static void bytes_of_tiles_lie_together(void **state)
{
    enum { N = 48, K = 128, TILE = 16 * 64 };
    static uint8_t bytes[N * K], laid[2 * 16 * K];
    struct vibe_matrix_source src = source_of(VIBE_I8, N, K);
    struct vibe_ops cuda = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 37 + i / 256);
    src.part[0].data = bytes;
    vibe_cuda_memory_init(&cuda);
    assert_int_equal(cuda.piece_bytes(NULL, &src, 16, 32), sizeof(laid));
    cuda.matrix_lay(NULL, &src, 16, 32, laid);

    for (size_t n = 0; n < 32; n++)
        for (size_t k = 0; k < K; k++)
            assert_int_equal(
                laid[n / 16 * 16 * K + k / 64 * TILE + n % 16 * 64 + k % 64],
                bytes[(16 + n) * K + k] ^ 0x80);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(plain_matrices_are_counted_alike),
    cmocka_unit_test(parts_of_two_kinds_are_counted_alike),
    cmocka_unit_test(float8_come_out_of_a_word_in_pairs),
    cmocka_unit_test(int8_are_stored_128_larger),
    cmocka_unit_test(bytes_of_tiles_lie_together),
};

VIBE_TEST_MAIN(tests)
