/*
 * hash.h - 64-bit FNV-1a: whether two things are the same, by all likelihood.
 *
 * Each function goes on with a hash, the first one with VIBE_HASH_START.
 */
#ifndef VIBE_BASE_HASH_H
#define VIBE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VIBE_HASH_START 0xCBF29CE484222325u

static inline uint64_t vibe_hash_word(uint64_t hash, uint32_t word)
{
    return (hash ^ word) * 0x100000001B3u;
}

static inline uint64_t vibe_hash_bytes(uint64_t hash, const void *data,
                                       size_t n)
{
    const unsigned char *bytes = data;

    for (size_t i = 0; i < n; i++)
        hash = vibe_hash_word(hash, bytes[i]);
    return hash;
}

/* By words: a recording has megabytes, and is looked at for every dialogue. */
static inline uint64_t vibe_hash_f32(uint64_t hash, const float *x, size_t n)
{
    uint32_t word;

    for (size_t i = 0; i < n; i++) {
        memcpy(&word, &x[i], sizeof(word));
        hash = vibe_hash_word(hash, word);
    }
    return hash;
}

#endif /* VIBE_BASE_HASH_H */
