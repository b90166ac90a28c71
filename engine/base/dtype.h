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
    VIBE_F8_E4M3,     /* OCP "fn": bias 7, no infinities, NaN = 0x7F and 0xFF */
    VIBE_I8,          /* whole numbers, to be scaled by row */
    VIBE_I4,          /* two a byte, the even one low: nibble - 8; scaled by row
                     and group of columns */
    VIBE_BF16_PACKED, /* bf16 in fewer bits, see format/pack.h: a row has no
                         place of its own */
    VIBE_I64,         /* only in recorded results */
    VIBE_U8,          /* only in files: bytes of I4 and BF16_PACKED */
};

/* How weights are asked to be kept; of keys and values, BF16 and F8_E4M3. */
enum vibe_weight_dtype {
    VIBE_WEIGHTS_AUTO, /* as the file holds them, see also planning.h */
    VIBE_WEIGHTS_F32,  /* likewise, and float32 arithmetic throughout */
    VIBE_WEIGHTS_BF16,
    VIBE_WEIGHTS_F8_E4M3,
    VIBE_WEIGHTS_I8,
    VIBE_WEIGHTS_I4,
    VIBE_WEIGHTS_BF16_PACKED,
};

/* The same, for each part of a model. */
struct vibe_precision {
    enum vibe_weight_dtype lm, head, codec, kv;
};

/* Bytes of one element; 0 for I4 and BF16_PACKED, which have no whole ones. */
size_t vibe_dtype_size(enum vibe_dtype dtype);

/* Bytes of a row of n elements; not of BF16_PACKED. */
size_t vibe_dtype_bytes(enum vibe_dtype dtype, size_t n);

/* The safetensors spelling: "F32", "BF16", "F16", "F8_E4M3", "I8", "I64",
 * "U8"; "I4" and "BF16_PACKED" are ours. */
const char *vibe_dtype_name(enum vibe_dtype dtype);

/* Widen in[n] of a floating dtype, I8 or I4 to out[n], exactly. */
void vibe_dtype_to_f32(float *out, const void *in, enum vibe_dtype dtype,
                       size_t n);

#endif /* VIBE_BASE_DTYPE_H */
