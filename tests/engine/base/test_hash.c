#include "engine/base/hash.h"
#include "tests/support/vibe_test.h"

static int setup(void **state)
{
    (void)state;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return 0;
}

static void bytes_have_the_published_hashes(void **state)
{
    (void)state;
    assert_true(vibe_hash_bytes(VIBE_HASH_START, "", 0) == 0xCBF29CE484222325u);
    assert_true(vibe_hash_bytes(VIBE_HASH_START, "a", 1) ==
                0xAF63DC4C8601EC8Cu);
    assert_true(vibe_hash_bytes(VIBE_HASH_START, "foobar", 6) ==
                0x85944171F73967E8u);
}

static void a_hash_can_be_continued(void **state)
{
    const float x[] = {0.5f, -0.25f, 3.0f};

    (void)state;
    assert_true(vibe_hash_f32(vibe_hash_f32(VIBE_HASH_START, x, 1), x + 1, 2) ==
                vibe_hash_f32(VIBE_HASH_START, x, 3));
}

static void every_bit_of_a_sample_counts(void **state)
{
    float x[] = {0.5f, -0.25f, 0.0f};
    const uint64_t hash = vibe_hash_f32(VIBE_HASH_START, x, 3);

    (void)state;
    x[2] = -0.0f;
    assert_true(vibe_hash_f32(VIBE_HASH_START, x, 3) != hash);
    x[2] = 1e-45f;
    assert_true(vibe_hash_f32(VIBE_HASH_START, x, 3) != hash);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(bytes_have_the_published_hashes),
    VIBE_TEST(a_hash_can_be_continued),
    VIBE_TEST(every_bit_of_a_sample_counts),
};

VIBE_TEST_MAIN(tests)
