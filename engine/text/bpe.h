/*
 * bpe.h - byte-pair merging: the bytes of one piece to token ids.
 *
 * Merges are ranked by the order in which they are added.  In a piece the
 * lowest rank merges first, the leftmost of equals, until no two neighbours
 * have a merge; n bytes take O(n log n).
 */
#ifndef VIBE_TEXT_BPE_H
#define VIBE_TEXT_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/text/ids.h"

struct vibe_bpe_slot;

/* An all-zero struct is empty. */
struct vibe_bpe {
    int32_t byte_id[256];        /* id of every single byte; set by the owner */
    int32_t *made;               /* [n_merges] owned; by rank */
    size_t n_merges;             /* so far */
    struct vibe_bpe_slot *slots; /* owned; hash table of pairs */
    unsigned shift;              /* 64 - log2 of its size */
};

/* Memory that encoding needs; an all-zero struct is fine to begin with. */
struct vibe_bpe_scratch {
    struct vibe_bpe_symbol *symbols; /* [cap] owned */
    uint64_t *heap;                  /* [2 * cap] owned */
    size_t cap;
};

/*
 * Make a table without merges.
 *
 *   n_merges the most that will be added
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_bpe_init(struct vibe_bpe *bpe, size_t n_merges,
                  struct vibe_error *err);

/*
 * Add a merge of two ids into a third, with the next rank.
 *
 * Return the rank, or that of the earlier merge of the same two ids, which
 * then stays as it is.
 */
size_t vibe_bpe_add(struct vibe_bpe *bpe, int32_t left, int32_t right,
                    int32_t made);

/*
 * Append the ids of bytes[n] to out.
 *
 *   scratch  grows as needed, to 32 bytes per byte; keep it between calls
 *   n        <= INT32_MAX
 *
 * Errors: VIBE_E_NOMEM; out is as before.
 */
int vibe_bpe_encode(const struct vibe_bpe *bpe,
                    struct vibe_bpe_scratch *scratch, struct vibe_ids *out,
                    const char *bytes, size_t n, struct vibe_error *err);

/* Free everything; the struct is then empty. */
void vibe_bpe_release(struct vibe_bpe *bpe);
void vibe_bpe_scratch_release(struct vibe_bpe_scratch *scratch);

#endif /* VIBE_TEXT_BPE_H */
