#include "engine/text/bpe.h"

#include <assert.h>
#include <stdlib.h>

#include "engine/base/error.h"
#include "engine/base/size.h"

#define NO_RANK UINT32_MAX
#define NOBODY  UINT32_MAX

struct vibe_bpe_slot {
    int32_t left, right;
    uint32_t rank; /* NO_RANK in a free slot */
};

/* One of the symbols that a piece still consists of: a linked list. */
struct vibe_bpe_symbol {
    int32_t id;
    uint32_t prev, next; /* NOBODY at the ends */
    uint32_t rank;       /* of the merge with next; NO_RANK for none */
};

int vibe_bpe_init(struct vibe_bpe *bpe, size_t n_merges, struct vibe_error *err)
{
    unsigned bits = 6;

    assert(n_merges < INT32_MAX);
    while ((size_t)1 << bits < 2 * n_merges)
        bits++;

    *bpe = (struct vibe_bpe){
        .made = calloc(n_merges + 1, sizeof(*bpe->made)),
        .slots = malloc(((size_t)1 << bits) * sizeof(*bpe->slots)),
        .shift = 64 - bits,
    };
    if (!bpe->made || !bpe->slots) {
        vibe_bpe_release(bpe);
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu merges",
                         n_merges);
    }
    for (size_t i = 0; i < (size_t)1 << bits; i++)
        bpe->slots[i].rank = NO_RANK;
    return VIBE_OK;
}

/* The slot of a pair, or the free one where it would go. */
static struct vibe_bpe_slot *slot_of(const struct vibe_bpe *bpe, int32_t left,
                                     int32_t right)
{
    size_t mask = ((size_t)1 << (64 - bpe->shift)) - 1;
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t at = (size_t)((key * 0x9E3779B97F4A7C15u) >> bpe->shift);
    struct vibe_bpe_slot *slot = &bpe->slots[at];

    while (slot->rank != NO_RANK &&
           (slot->left != left || slot->right != right)) {
        at = (at + 1) & mask;
        slot = &bpe->slots[at];
    }
    return slot;
}

size_t vibe_bpe_add(struct vibe_bpe *bpe, int32_t left, int32_t right,
                    int32_t made)
{
    struct vibe_bpe_slot *slot = slot_of(bpe, left, right);

    if (slot->rank != NO_RANK)
        return slot->rank;
    *slot = (struct vibe_bpe_slot){
        .left = left,
        .right = right,
        .rank = (uint32_t)bpe->n_merges,
    };
    bpe->made[bpe->n_merges] = made;
    return bpe->n_merges++;
}

/*
 * A binary heap of rank << 32 | position: the least is the merge to do next.
 * Entries are not removed when their pair disappears; one is stale when the
 * symbol at its position no longer has its rank.
 */
struct heap {
    uint64_t *keys;
    size_t n;
};

static void heap_push(struct heap *heap, uint64_t key)
{
    size_t at = heap->n++;

    while (at > 0 && heap->keys[(at - 1) / 2] > key) {
        heap->keys[at] = heap->keys[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap->keys[at] = key;
}

static uint64_t heap_pop(struct heap *heap)
{
    uint64_t least = heap->keys[0];
    uint64_t last = heap->keys[--heap->n];
    size_t at = 0;
    size_t child = 1;

    while (child < heap->n) {
        if (child + 1 < heap->n && heap->keys[child + 1] < heap->keys[child])
            child++;
        if (heap->keys[child] >= last)
            break;
        heap->keys[at] = heap->keys[child];
        at = child;
        child = 2 * at + 1;
    }
    heap->keys[at] = last;
    return least;
}

/* Look up the merge of symbol at with its right neighbour, and queue it. */
static void rank_pair(const struct vibe_bpe *bpe, struct heap *heap,
                      struct vibe_bpe_symbol *symbols, uint32_t at)
{
    struct vibe_bpe_symbol *symbol = &symbols[at];

    symbol->rank = NO_RANK;
    if (symbol->next != NOBODY)
        symbol->rank = slot_of(bpe, symbol->id, symbols[symbol->next].id)->rank;
    if (symbol->rank != NO_RANK)
        heap_push(heap, (uint64_t)symbol->rank << 32 | at);
}

static int reserve(struct vibe_bpe_scratch *scratch, size_t n,
                   struct vibe_error *err)
{
    size_t cap = n > 64 ? n : 64;

    if (n <= scratch->cap)
        return VIBE_OK;
    if (cap < 2 * scratch->cap)
        cap = 2 * scratch->cap;
    vibe_bpe_scratch_release(scratch);
    scratch->symbols = calloc(cap, sizeof(*scratch->symbols));
    scratch->heap = calloc(cap, 2 * sizeof(*scratch->heap));
    scratch->cap = cap;
    if (scratch->symbols && scratch->heap)
        return VIBE_OK;
    vibe_bpe_scratch_release(scratch);
    vibe_fail(err, VIBE_E_NOMEM, "no memory to tokenize a word of %zu bytes",
              n);
    return VIBE_E_NOMEM;
}

/* Merge the n symbols, one per byte, until none can; the first one stays. */
static void merge(const struct vibe_bpe *bpe, struct vibe_bpe_scratch *scratch,
                  uint32_t n)
{
    struct vibe_bpe_symbol *symbols = scratch->symbols;
    struct heap heap = {.keys = scratch->heap};

    for (uint32_t i = 0; i < n; i++)
        rank_pair(bpe, &heap, symbols, i);

    /* A merge takes one key and adds two at most, so 2 * n is room enough. */
    while (heap.n > 0) {
        uint64_t key = heap_pop(&heap);
        struct vibe_bpe_symbol *left = &symbols[(uint32_t)key];
        struct vibe_bpe_symbol *right;

        if (left->rank != key >> 32)
            continue;
        right = &symbols[left->next];
        right->rank = NO_RANK;
        left->id = bpe->made[left->rank];
        left->next = right->next;
        if (left->next != NOBODY)
            symbols[left->next].prev = (uint32_t)key;
        rank_pair(bpe, &heap, symbols, (uint32_t)key);
        if (left->prev != NOBODY)
            rank_pair(bpe, &heap, symbols, left->prev);
    }
}

int vibe_bpe_encode(const struct vibe_bpe *bpe,
                    struct vibe_bpe_scratch *scratch, struct vibe_ids *out,
                    const char *bytes, size_t n, struct vibe_error *err)
{
    struct vibe_bpe_symbol *symbols;
    int rc;

    assert(n <= INT32_MAX);
    rc = vibe_ids_reserve(out, n, err);
    if (!rc)
        rc = reserve(scratch, n, err);
    if (rc || n == 0)
        return rc;

    symbols = scratch->symbols;
    for (size_t i = 0; i < n; i++)
        symbols[i] = (struct vibe_bpe_symbol){
            .id = bpe->byte_id[(unsigned char)bytes[i]],
            .prev = i > 0 ? (uint32_t)(i - 1) : NOBODY,
            .next = i + 1 < n ? (uint32_t)(i + 1) : NOBODY,
        };
    merge(bpe, scratch, (uint32_t)n);

    for (uint32_t at = 0; at != NOBODY; at = symbols[at].next)
        out->ids[out->n++] = symbols[at].id;
    return VIBE_OK;
}

void vibe_bpe_release(struct vibe_bpe *bpe)
{
    free(bpe->made);
    free(bpe->slots);
    *bpe = (struct vibe_bpe){0};
}

void vibe_bpe_scratch_release(struct vibe_bpe_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->heap);
    *scratch = (struct vibe_bpe_scratch){0};
}
