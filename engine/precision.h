/*
 * precision.h - which matrices of a checkpoint each part of a precision means.
 */
#ifndef VIBE_PRECISION_H
#define VIBE_PRECISION_H

#include "engine/base/dtype.h"

struct vibe_lm_config;
struct vibe_weights;

/* Ask that the matrices of the layers, of the head and of the codec be kept
 * so; nothing else is. */
void vibe_precision_keep(struct vibe_weights *w,
                         const struct vibe_precision *precision);

/* What the layers of a checkpoint that vibe_qwen2_check has passed are kept in
 * where they are asked to be kept so. */
enum vibe_dtype vibe_precision_lm(const struct vibe_weights *w,
                                  const struct vibe_lm_config *config,
                                  enum vibe_weight_dtype as);

/*
 * What a device is asked to keep keys and values in: as p says and, where that
 * is left open, on a GPU in F8_E4M3 beside layers of int4, whose error is
 * several times theirs, unless all is to be exact.  AUTO: as it would by
 * itself.
 */
enum vibe_weight_dtype vibe_precision_kv(const struct vibe_weights *w,
                                         const struct vibe_lm_config *config,
                                         const struct vibe_precision *p,
                                         int is_gpu);

/* As users write it: "int4"; "auto" for what the file holds. */
const char *vibe_precision_name(enum vibe_weight_dtype as);

#endif /* VIBE_PRECISION_H */
