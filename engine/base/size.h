/*
 * size.h - arithmetic on sizes that come from files, without overflow.
 *
 * Both functions return 1 and leave *out untouched when the result would not
 * fit a size_t, else 0.
 */
#ifndef VIBE_BASE_SIZE_H
#define VIBE_BASE_SIZE_H

#include <stddef.h>

static inline int vibe_size_mul(size_t *out, size_t a, size_t b)
{
    size_t r;

    if (__builtin_mul_overflow(a, b, &r))
        return 1;
    *out = r;
    return 0;
}

static inline int vibe_size_add(size_t *out, size_t a, size_t b)
{
    size_t r;

    if (__builtin_add_overflow(a, b, &r))
        return 1;
    *out = r;
    return 0;
}

/* Round n up to a multiple of align, a power of two. */
static inline size_t vibe_size_round(size_t n, size_t align)
{
    return (n + align - 1) & ~(align - 1);
}

#endif /* VIBE_BASE_SIZE_H */
