/*
 * recode.h - a matrix of the file in another dtype, made on all cores.
 *
 * Rows are [shape[0]] and columns all other axes of the tensor.  float8 and
 * int8 get a scale per row, int4 one per group (quant.h); packed bf16 is
 * lossless for bf16 (pack.h), other weights are rounded to bf16 first.
 */
#ifndef VIBE_FORMAT_RECODE_H
#define VIBE_FORMAT_RECODE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/dtype.h"

struct vibe_error;
struct vibe_weight;

/* What became of it; all of it owned. */
struct vibe_recoded {
    enum vibe_dtype dtype;
    void *data; /* of BF16_PACKED: with its header */
    size_t bytes;
    float *scale;       /* [rows], or NULL */
    float *group_scale; /* of I4: [rows][columns / group] */
    size_t group;
    uint64_t *blocks; /* of BF16_PACKED: from data on; see pack.h */
};

/*
 * The dtype that a weight should have where it is asked to be kept as such:
 * its own where nothing was asked or it cannot be; int4 falls back to int8
 * where rows are no whole groups.
 */
enum vibe_dtype vibe_recode_dtype(const struct vibe_weight *w,
                                  enum vibe_weight_dtype as);

/*
 * Recode a weight.
 *
 *   out       release with vibe_recoded_release, also after an error
 *   to        BF16, F8_E4M3, I8, I4 or BF16_PACKED; not what it is
 *   group     of I4: 64 or 128
 *   threads   to work with
 *
 * Errors: VIBE_E_NOMEM
 *         VIBE_E_FORMAT   a weight is not finite, and to has no such code; msg
 *                         names file and tensor
 */
int vibe_recode(struct vibe_recoded *out, const struct vibe_weight *w,
                enum vibe_dtype to, size_t group, int threads,
                struct vibe_error *err);
void vibe_recoded_release(struct vibe_recoded *r);

/* Signal and noise of a recoded weight against what it was made of. */
struct vibe_recode_error {
    double signal, noise; /* sums of squares */
};

/* Measure them; Errors: VIBE_E_NOMEM. */
int vibe_recode_measure(struct vibe_recode_error *out,
                        const struct vibe_weight *w,
                        const struct vibe_recoded *r, int threads,
                        struct vibe_error *err);

#endif /* VIBE_FORMAT_RECODE_H */
