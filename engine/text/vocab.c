#include "engine/text/vocab.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"

/* FNV-1a, which can be continued: hash(ab) = hash(hash(a), b). */
#define HASH_START 2166136261u
#define HASH_PRIME 16777619u

static uint32_t hash(uint32_t h, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)s[i]) * HASH_PRIME;
    return h;
}

int vibe_vocab_init(struct vibe_vocab *vocab, size_t n_ids, size_t n_bytes,
                    struct vibe_error *err)
{
    size_t n_slots = 64;

    assert(n_bytes < UINT32_MAX && n_ids < INT32_MAX);
    while (n_slots < 2 * n_ids)
        n_slots *= 2;

    *vocab = (struct vibe_vocab){
        .text = malloc(n_bytes + 1),
        .start = calloc(n_ids + 1, sizeof(*vocab->start)),
        .n_ids = n_ids,
        .slots = calloc(n_slots, sizeof(*vocab->slots)),
        .mask = n_slots - 1,
    };
    if (vocab->text && vocab->start && vocab->slots)
        return VIBE_OK;
    vibe_vocab_release(vocab);
    return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu vocabulary entries",
                     n_ids);
}

void vibe_vocab_add(struct vibe_vocab *vocab, const char *piece, size_t n,
                    int32_t id)
{
    size_t at = hash(HASH_START, piece, n) & vocab->mask;

    assert(id >= 0 && (size_t)id < vocab->n_ids && !vocab->start[id]);
    memcpy(vocab->text + vocab->n_text, piece, n);
    vocab->text[vocab->n_text + n] = '\0';
    vocab->start[id] = (uint32_t)vocab->n_text + 1;
    vocab->n_text += n + 1;

    while (vocab->slots[at])
        at = (at + 1) & vocab->mask;
    vocab->slots[at] = (uint32_t)id + 1;
}

const char *vibe_vocab_piece(const struct vibe_vocab *vocab, int32_t id)
{
    if (id < 0 || (size_t)id >= vocab->n_ids || !vocab->start[id])
        return NULL;
    return vocab->text + vocab->start[id] - 1;
}

int32_t vibe_vocab_find(const struct vibe_vocab *vocab, const char *a,
                        size_t n_a, const char *b, size_t n_b)
{
    size_t at = hash(hash(HASH_START, a, n_a), b, n_b) & vocab->mask;

    while (vocab->slots && vocab->slots[at]) {
        int32_t id = (int32_t)(vocab->slots[at] - 1);
        const char *piece = vibe_vocab_piece(vocab, id);

        if (strlen(piece) == n_a + n_b && memcmp(piece, a, n_a) == 0 &&
            memcmp(piece + n_a, b, n_b) == 0)
            return id;
        at = (at + 1) & vocab->mask;
    }
    return -1;
}

void vibe_vocab_release(struct vibe_vocab *vocab)
{
    free(vocab->text);
    free(vocab->start);
    free(vocab->slots);
    *vocab = (struct vibe_vocab){0};
}

static int is_printable(uint32_t byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) ||
           (byte >= 174 && byte <= 255);
}

uint32_t vibe_vocab_byte_char(unsigned char byte)
{
    uint32_t cp = 0x100;

    if (is_printable(byte))
        return byte;
    for (uint32_t b = 0; b < byte; b++)
        cp += !is_printable(b);
    return cp;
}

int vibe_vocab_char_byte(uint32_t cp)
{
    uint32_t left = cp - 0x100;

    if (cp < 0x100)
        return is_printable(cp) ? (int)cp : -1;
    for (uint32_t b = 0; b < 256; b++)
        if (!is_printable(b) && left-- == 0)
            return (int)b;
    return -1;
}
