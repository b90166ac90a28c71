/*
 * dtype.h - the element types that weights and activations are stored in.
 */
#ifndef VIBE_BASE_DTYPE_H
#define VIBE_BASE_DTYPE_H

#include <stddef.h>

enum vibe_dtype {
    VIBE_F32,
    VIBE_BF16,
    VIBE_F16,
    VIBE_F8_E4M3, /* OCP "fn": bias 7, no infinities, NaN = 0x7F and 0xFF */
    VIBE_I64,     /* only in recorded results */
};

/* Bytes of one element. */
size_t vibe_dtype_size(enum vibe_dtype dtype);

/* The safetensors spelling: "F32", "BF16", "F16", "F8_E4M3", "I64". */
const char *vibe_dtype_name(enum vibe_dtype dtype);

/* Widen in[n] of a floating dtype to out[n], exactly. */
void vibe_dtype_to_f32(float *out, const void *in, enum vibe_dtype dtype,
                       size_t n);

#endif /* VIBE_BASE_DTYPE_H */
