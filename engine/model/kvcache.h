/*
 * kvcache.h - keys and values of several sequences, in blocks that are
 * allocated when a sequence first needs them.
 *
 * How long a sequence is, its user knows: to forget one is to write it from
 * position 0 again.  Blocks stay with their sequence until the cache is
 * cleared or freed.
 */
#ifndef VIBE_MODEL_KVCACHE_H
#define VIBE_MODEL_KVCACHE_H

#include <stddef.h>

#include "engine/base/dtype.h"

struct vibe_backend;
struct vibe_error;
struct vibe_kv;
struct vibe_kvcache;
struct vibe_lm_config;
struct vibe_stream;

enum { VIBE_KV_BLOCK_TOKENS = 256 };

/*
 * Make an empty cache.
 *
 *   out             set to the cache, or to NULL on error; vibe_kvcache_free
 *   be              borrowed until then
 *   n_seqs          sequences 0 .. n_seqs - 1
 *   max_positions   of each
 *   dtype           VIBE_F32, VIBE_BF16 or VIBE_F8_E4M3
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_kvcache_open(struct vibe_kvcache **out, struct vibe_backend *be,
                      const struct vibe_lm_config *config, size_t n_seqs,
                      size_t max_positions, enum vibe_dtype dtype,
                      struct vibe_error *err);

/* Release everything; NULL is allowed. */
void vibe_kvcache_free(struct vibe_kvcache *cache);

/* Give all blocks back; no sequence has a position then. */
void vibe_kvcache_clear(struct vibe_kvcache *cache);

/*
 * Make room for positions 0 .. n_positions - 1 of a sequence.
 *
 * Errors: VIBE_E_ARG    more than max_positions
 *         VIBE_E_NOMEM  what was there stays
 */
int vibe_kvcache_ensure(struct vibe_kvcache *cache, struct vibe_stream *s,
                        size_t seq, size_t n_positions, struct vibe_error *err);

/*
 * Before the cache grows beyond planned bytes, and each time it does so by
 * more than was freed before, ask for room.
 *
 *   free   called between frames with the bytes that are needed; sets *freed
 *          to what it could free, 0 when there is nothing left to give up
 */
void vibe_kvcache_limit(struct vibe_kvcache *cache, size_t planned,
                        int (*free)(void *user, size_t bytes, size_t *freed,
                                    struct vibe_error *err),
                        void *user);

/*
 * Make room in cache whenever there is room made in leader: they are of the
 * same sequences, on two devices.
 *
 *   s   of cache's device; borrowed, as leader is, until cache is freed, after
 *       leader
 */
void vibe_kvcache_follow(struct vibe_kvcache *cache, struct vibe_stream *s,
                         struct vibe_kvcache *leader);

/* The cache as the ops take it; borrowed until vibe_kvcache_free. */
const struct vibe_kv *vibe_kvcache_kv(const struct vibe_kvcache *cache);

/* Bytes allocated so far. */
size_t vibe_kvcache_bytes(const struct vibe_kvcache *cache);

/* Bytes that all layers keep of one position. */
size_t vibe_kvcache_position_bytes(const struct vibe_kvcache *cache);

#endif /* VIBE_MODEL_KVCACHE_H */
