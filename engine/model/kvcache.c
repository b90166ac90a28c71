/*
 * kvcache.c - blocks on demand, see kvcache.h.
 */
#include "engine/model/kvcache.h"

#include <assert.h>
#include <stdlib.h>

#include "engine/backend/ops.h"
#include "engine/format/config.h"

struct vibe_kvcache {
    struct vibe_backend *be;
    struct vibe_kv kv;
    void **table;     /* device, what kv.table points to; owned */
    void **blocks;    /* [n_seqs][max_blocks] the same on the host; owned */
    size_t *n_blocks; /* [n_seqs], owned */
    size_t block_bytes;
    size_t max_positions;
    size_t limit; /* bytes */
    int (*make_room)(void *user, size_t bytes, size_t *freed,
                     struct vibe_error *err); /* beyond the limit, or NULL */
    void *user;
    struct vibe_kvcache *follower; /* or NULL */
    struct vibe_stream *follower_s;
};

int vibe_kvcache_open(struct vibe_kvcache **out, struct vibe_backend *be,
                      const struct vibe_lm_config *config, size_t n_seqs,
                      size_t max_positions, enum vibe_dtype dtype,
                      struct vibe_error *err)
{
    struct vibe_kvcache *cache = calloc(1, sizeof(*cache));
    size_t max_blocks = (max_positions + VIBE_KV_BLOCK_TOKENS - 1) /
                        VIBE_KV_BLOCK_TOKENS;

    *out = NULL;
    assert(n_seqs > 0 && max_positions > 0);
    if (!cache)
        goto no_memory;
    cache->be = be;
    cache->max_positions = max_positions;
    cache->n_blocks = calloc(n_seqs, sizeof(*cache->n_blocks));
    cache->blocks = calloc(n_seqs * max_blocks, sizeof(*cache->blocks));
    cache->table = be->ops->alloc(be, n_seqs * max_blocks * sizeof(void *));
    cache->kv = (struct vibe_kv){
        .table = cache->table,
        .n_seqs = n_seqs,
        .max_blocks = max_blocks,
        .block_tokens = VIBE_KV_BLOCK_TOKENS,
        .n_layers = config->num_hidden_layers,
        .n_kv_heads = config->num_key_value_heads,
        .head_dim = config->head_dim,
        .dtype = dtype,
    };
    cache->block_bytes = config->num_hidden_layers * 2 *
                         config->num_key_value_heads *
                         vibe_kv_head_bytes(&cache->kv);
    if (!cache->n_blocks || !cache->blocks || !cache->table)
        goto no_memory;
    *out = cache;
    return VIBE_OK;

no_memory:
    vibe_kvcache_free(cache);
    return vibe_fail(err, VIBE_E_NOMEM,
                     "no memory for the key-value cache of %zu sequences",
                     n_seqs);
}

void vibe_kvcache_follow(struct vibe_kvcache *cache, struct vibe_stream *s,
                         struct vibe_kvcache *leader)
{
    assert(cache->kv.n_seqs == leader->kv.n_seqs);
    leader->follower = cache;
    leader->follower_s = s;
}

/* The same room on the other device. */
static int ensure_follower(struct vibe_kvcache *cache, size_t seq,
                           size_t n_positions, struct vibe_error *err)
{
    struct vibe_kvcache *follower = cache->follower;
    size_t before;
    int rc;

    if (!follower)
        return VIBE_OK;
    before = follower->n_blocks[seq];
    vibe_backend_enter(follower->be);
    rc = vibe_kvcache_ensure(follower, cache->follower_s, seq, n_positions,
                             err);
    /* a frame that is captured is behind what is on its own queue only */
    if (rc == VIBE_OK && follower->n_blocks[seq] > before)
        rc = vibe_stream_check(cache->follower_s, err);
    vibe_backend_enter(cache->be);
    return rc;
}

/* Give a cache's own blocks back. */
static void clear(struct vibe_kvcache *cache)
{
    const size_t n = cache->kv.n_seqs * cache->kv.max_blocks;

    for (size_t i = 0; i < n; i++) {
        if (cache->blocks[i])
            cache->be->ops->free(cache->be, cache->blocks[i]);
        cache->blocks[i] = NULL;
    }
    for (size_t i = 0; i < cache->kv.n_seqs; i++)
        cache->n_blocks[i] = 0;
}

void vibe_kvcache_clear(struct vibe_kvcache *cache)
{
    clear(cache);
    if (cache->follower) {
        vibe_backend_enter(cache->follower->be);
        vibe_kvcache_clear(cache->follower);
        vibe_backend_enter(cache->be);
    }
}

void vibe_kvcache_free(struct vibe_kvcache *cache)
{
    if (!cache)
        return;
    if (cache->blocks && cache->n_blocks)
        clear(cache);
    if (cache->table)
        cache->be->ops->free(cache->be, cache->table);
    free(cache->blocks);
    free(cache->n_blocks);
    free(cache);
}

/* A block, zeroed; NULL when there is no memory. */
static void *take_block(struct vibe_kvcache *cache)
{
    const enum vibe_purpose purpose = cache->be->purpose;
    void *block;

    cache->be->purpose = VIBE_FOR_KV;
    block = cache->be->ops->alloc(cache->be, cache->block_bytes);
    cache->be->purpose = purpose;
    return block;
}

void vibe_kvcache_limit(struct vibe_kvcache *cache, size_t planned,
                        int (*free)(void *user, size_t bytes, size_t *freed,
                                    struct vibe_error *err),
                        void *user)
{
    cache->limit = planned;
    cache->make_room = free;
    cache->user = user;
}

/* Room for one block more, of memory that others were to keep. */
static int extend_limit(struct vibe_kvcache *cache, struct vibe_error *err)
{
    const size_t needed = vibe_kvcache_bytes(cache) + cache->block_bytes;
    size_t freed = 0;
    int rc;

    if (!cache->make_room || needed <= cache->limit)
        return VIBE_OK;
    rc = cache->make_room(cache->user, needed - cache->limit, &freed, err);
    cache->limit += freed;
    if (rc == VIBE_OK && !freed)
        cache->make_room = NULL; /* from now on the device must have it */
    return rc;
}

int vibe_kvcache_ensure(struct vibe_kvcache *cache, struct vibe_stream *s,
                        size_t seq, size_t n_positions, struct vibe_error *err)
{
    size_t needed = (n_positions + VIBE_KV_BLOCK_TOKENS - 1) /
                    VIBE_KV_BLOCK_TOKENS;

    assert(seq < cache->kv.n_seqs);
    if (n_positions > cache->max_positions)
        return vibe_fail(err, VIBE_E_ARG,
                         "%zu positions asked of a cache for %zu", n_positions,
                         cache->max_positions);
    while (cache->n_blocks[seq] < needed) {
        size_t at = seq * cache->kv.max_blocks + cache->n_blocks[seq];
        int rc = extend_limit(cache, err);
        void *block = rc ? NULL : take_block(cache);

        if (rc)
            return rc;
        if (!block)
            return vibe_fail(err, VIBE_E_NOMEM,
                             "no memory for %zu bytes of key-value cache",
                             cache->block_bytes);
        cache->blocks[at] = block;
        cache->n_blocks[seq]++;
        vibe_write(s, cache->table + at, &block, sizeof(block));
    }
    return ensure_follower(cache, seq, n_positions, err);
}

const struct vibe_kv *vibe_kvcache_kv(const struct vibe_kvcache *cache)
{
    return &cache->kv;
}

size_t vibe_kvcache_bytes(const struct vibe_kvcache *cache)
{
    size_t n = 0;

    for (size_t i = 0; i < cache->kv.n_seqs; i++)
        n += cache->n_blocks[i];
    return n * cache->block_bytes;
}

size_t vibe_kvcache_position_bytes(const struct vibe_kvcache *cache)
{
    return cache->block_bytes / VIBE_KV_BLOCK_TOKENS;
}
