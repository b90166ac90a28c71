#include "engine/model/kvcache.h"

#include <stdlib.h>
#include <string.h>

#include "engine/backend/ops.h"
#include "engine/format/config.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct vibe_backend *be;
    struct vibe_stream stream;
    struct vibe_kvcache *cache;
    struct vibe_error err;
};

static const struct vibe_lm_config config = {
    .num_hidden_layers = 2,
    .num_key_value_heads = 3,
    .head_dim = 4,
};

static int setup(void **state)
{
    const struct vibe_backend_options options = {.threads = 1};
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f || vibe_backend_open(&f->be, &options, NULL) ||
        vibe_stream_init(&f->stream, f->be, NULL) ||
        vibe_kvcache_open(&f->cache, f->be, &config, 2, 600, VIBE_F32, NULL))
        return -1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_kvcache_free(f->cache);
    vibe_stream_release(&f->stream);
    vibe_backend_free(f->be);
    free(f);
    return 0;
}

static void ensure_refuses_more_positions_than_were_asked_for(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_kvcache_ensure(f->cache, &f->stream, 0, 601, &f->err),
                     VIBE_E_ARG);
    assert_non_null(strstr(f->err.msg, "601"));
    assert_int_equal(vibe_kvcache_bytes(f->cache), 0);
}

static void a_cache_starts_empty(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_kvcache_bytes(f->cache), 0);
    assert_int_equal(vibe_kvcache_position_bytes(f->cache),
                     sizeof(float) * 2 * 2 * 3 * 4);
}

/* A byte a number, and one for the scale of each row. */
static void float8_takes_a_quarter_and_its_scales(void **state)
{
    struct fixture *f = *state;
    struct vibe_kvcache *cache = NULL;

    assert_int_equal(
        vibe_kvcache_open(&cache, f->be, &config, 2, 600, VIBE_F8_E4M3, NULL),
        VIBE_OK);
    assert_int_equal(vibe_kvcache_position_bytes(cache), 2 * 2 * 3 * (4 + 1));
    vibe_kvcache_free(cache);
}

static void blocks_are_made_when_first_needed(void **state)
{
    struct fixture *f = *state;
    const struct vibe_kv *kv = vibe_kvcache_kv(f->cache);
    size_t block = VIBE_KV_BLOCK_TOKENS * vibe_kvcache_position_bytes(f->cache);

    assert_int_equal(vibe_kvcache_ensure(f->cache, &f->stream, 1, 256, NULL),
                     VIBE_OK);
    assert_int_equal(vibe_kvcache_bytes(f->cache), block);
    assert_int_equal(vibe_kvcache_ensure(f->cache, &f->stream, 1, 257, NULL),
                     VIBE_OK);
    assert_int_equal(vibe_kvcache_bytes(f->cache), 2 * block);

    /* the CPU's device memory can be looked at */
    assert_int_equal(kv->max_blocks, 3);
    assert_null(kv->table[0]);
    assert_non_null(kv->table[kv->max_blocks]);
    assert_non_null(kv->table[kv->max_blocks + 1]);
    assert_null(kv->table[kv->max_blocks + 2]);
}

static void blocks_stay_with_their_sequence(void **state)
{
    struct fixture *f = *state;
    const struct vibe_kv *kv = vibe_kvcache_kv(f->cache);
    void *block;

    assert_int_equal(vibe_kvcache_ensure(f->cache, &f->stream, 0, 1, NULL),
                     VIBE_OK);
    block = kv->table[0];
    assert_int_equal(vibe_kvcache_ensure(f->cache, &f->stream, 0, 600, NULL),
                     VIBE_OK);
    assert_int_equal(vibe_kvcache_ensure(f->cache, &f->stream, 0, 3, NULL),
                     VIBE_OK);

    assert_ptr_equal(kv->table[0], block);
    assert_int_equal(vibe_kvcache_bytes(f->cache),
                     (size_t)3 * VIBE_KV_BLOCK_TOKENS *
                         vibe_kvcache_position_bytes(f->cache));
}

static void a_cleared_cache_is_as_new(void **state)
{
    struct fixture *f = *state;
    size_t block = VIBE_KV_BLOCK_TOKENS * vibe_kvcache_position_bytes(f->cache);

    for (size_t seq = 0; seq < 2; seq++)
        assert_int_equal(
            vibe_kvcache_ensure(f->cache, &f->stream, seq, 600, NULL), VIBE_OK);
    vibe_kvcache_clear(f->cache);
    assert_int_equal(vibe_kvcache_bytes(f->cache), 0);

    assert_int_equal(vibe_kvcache_ensure(f->cache, &f->stream, 1, 1, NULL),
                     VIBE_OK);
    assert_int_equal(vibe_kvcache_bytes(f->cache), block);
    assert_non_null(vibe_kvcache_kv(f->cache)->table[3]);
}

/* Layers on another device: the same sequences, as long. */
static void a_follower_grows_and_is_cleared_with_its_leader(void **state)
{
    struct fixture *f = *state;
    struct vibe_kvcache *other = NULL;

    assert_int_equal(
        vibe_kvcache_open(&other, f->be, &config, 2, 600, VIBE_F32, NULL),
        VIBE_OK);
    vibe_kvcache_follow(other, &f->stream, f->cache);
    assert_int_equal(vibe_kvcache_ensure(f->cache, &f->stream, 1, 257, NULL),
                     VIBE_OK);
    assert_int_equal(vibe_kvcache_bytes(other), vibe_kvcache_bytes(f->cache));
    assert_non_null(vibe_kvcache_kv(other)->table[4]);

    vibe_kvcache_clear(f->cache);
    assert_int_equal(vibe_kvcache_bytes(other), 0);
    vibe_kvcache_free(f->cache);
    f->cache = NULL;
    vibe_kvcache_free(other);
}

/* Somebody with bytes to give up. */
struct giver {
    size_t left, calls;
    int rc;
};

static int give(void *user, size_t bytes, size_t *freed, struct vibe_error *err)
{
    struct giver *giver = user;

    giver->calls++;
    *freed = bytes < giver->left ? bytes : giver->left;
    giver->left -= *freed;
    return giver->rc ? vibe_fail(err, giver->rc, "nothing given") : VIBE_OK;
}

static void room_is_asked_for_beyond_the_limit(void **state)
{
    struct fixture *f = *state;
    size_t block = VIBE_KV_BLOCK_TOKENS * vibe_kvcache_position_bytes(f->cache);
    struct giver giver = {.left = block + 1};

    vibe_kvcache_limit(f->cache, block, give, &giver);
    assert_int_equal(vibe_kvcache_ensure(f->cache, &f->stream, 0, 256, NULL),
                     VIBE_OK);
    assert_int_equal(giver.calls, 0);
    assert_int_equal(vibe_kvcache_ensure(f->cache, &f->stream, 0, 512, NULL),
                     VIBE_OK);
    assert_int_equal(giver.calls, 1);
    assert_int_equal(giver.left, 1);

    /* then one byte, then nothing, and it is not asked again */
    assert_int_equal(vibe_kvcache_ensure(f->cache, &f->stream, 1, 600, NULL),
                     VIBE_OK);
    assert_int_equal(giver.calls, 3);
    assert_int_equal(giver.left, 0);
}

static void a_giver_that_fails_fails_the_growth(void **state)
{
    struct fixture *f = *state;
    struct giver giver = {.rc = VIBE_E_DEVICE};
    struct vibe_error err;

    vibe_kvcache_limit(f->cache, 0, give, &giver);
    assert_int_equal(vibe_kvcache_ensure(f->cache, &f->stream, 0, 1, &err),
                     VIBE_E_DEVICE);
    assert_non_null(strstr(err.msg, "nothing given"));
    assert_int_equal(vibe_kvcache_bytes(f->cache), 0);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(room_is_asked_for_beyond_the_limit),
    VIBE_TEST(a_giver_that_fails_fails_the_growth),
    VIBE_TEST(ensure_refuses_more_positions_than_were_asked_for),
    VIBE_TEST(a_cache_starts_empty),
    VIBE_TEST(float8_takes_a_quarter_and_its_scales),
    VIBE_TEST(blocks_are_made_when_first_needed),
    VIBE_TEST(blocks_stay_with_their_sequence),
    VIBE_TEST(a_cleared_cache_is_as_new),
    VIBE_TEST(a_follower_grows_and_is_cleared_with_its_leader),
};

VIBE_TEST_MAIN(tests)
