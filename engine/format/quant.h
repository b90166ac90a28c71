/*
 * quant.h - rows of weights in eight or four bits, with scales beside them.
 *
 * A weight is scale * code.  float8 (e4m3) and int8 (-127 .. 127) have one
 * scale for a row, int4 (-8 .. 7) one for every group of 64 or 128 columns.
 * Scales of groups are f16 with 5 significant bits, so that a weight of int4
 * is a bf16 exactly, on every device; it costs 0.06 dB.  Zero has a code of
 * its own; there are no zero points.
 *
 * Rows are independent, so callers may share them among threads.
 */
#ifndef VIBE_FORMAT_QUANT_H
#define VIBE_FORMAT_QUANT_H

#include <stddef.h>

#include "engine/base/dtype.h"

/* Groups of int4; the smaller one unless a file says otherwise. */
enum { VIBE_QUANT_GROUP = 64, VIBE_QUANT_GROUP_LARGE = 128 };

/* What rows of K columns are kept in where that is asked: as they are stored
 * where nothing is, and int8 for int4 where they are no whole groups. */
enum vibe_dtype vibe_quant_dtype(enum vibe_weight_dtype as,
                                 enum vibe_dtype stored, size_t K);

/* Scales of a row; 1 unless there is a group. */
size_t vibe_quant_row_scales(size_t group, size_t K);

/*
 * Quantise rows.
 *
 *   out     [n][vibe_dtype_bytes(dtype, K)]
 *   scale   [n][vibe_quant_row_scales(group, K)]
 *   dtype   VIBE_F8_E4M3, VIBE_I8 or VIBE_I4
 *   group   0, or 64 or 128 for VIBE_I4
 *   in      [n][K]; what is not finite becomes the largest code
 */
void vibe_quant_rows(void *out, float *scale, enum vibe_dtype dtype,
                     size_t group, const float *in, size_t n, size_t K);

/* Widen rows again: out[n][K] = scale * code; scale NULL: 1. */
void vibe_quant_widen(float *out, const void *in, const float *scale,
                      enum vibe_dtype dtype, size_t group, size_t n, size_t K);

/* The nearest f16 (ties to even), saturating. */
unsigned short vibe_quant_to_f16(float f);

/* The nearest scale that a group may have. */
float vibe_quant_group_scale(float f);

#endif /* VIBE_FORMAT_QUANT_H */
