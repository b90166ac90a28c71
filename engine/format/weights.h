/*
 * weights.h - the tensors of a checkpoint by name, mapped, never copied.
 *
 * Whatever the files use (original names or those of transformers 5, one file
 * or shards), tensors are asked for by their original name, for instance
 * "model.language_model.layers.0.mlp.up_proj.weight".
 *
 * Everything that can be known without reading weights is checked when the
 * checkpoint is opened: headers, offsets, sizes, shards.
 *
 * Quantised and packed matrices, as --convert writes them:
 *
 *   int8         NAME.weight I8 [n][K], NAME.scale_weight F32 [n]
 *   int4         NAME.weight U8 [n][K / 2], see VIBE_I4, and
 *                NAME.scale_weight F16 [n][K / 64 or K / 128]
 *   packed bf16  NAME.weight U8 [bytes] as in format/pack.h
 *
 * float8 and int8 may have one scale for all rows, and scales of any float
 * dtype.  Those that other programs call NAME.weight_scale or
 * NAME.weight_scale_inv, of shape [], [1], [n] or [n][1], are the same; scales
 * of blocks are refused.
 *
 * A shard may hold tensors that the index does not list: they count like the
 * others.  The index's total_size is not looked at.
 */
#ifndef VIBE_FORMAT_WEIGHTS_H
#define VIBE_FORMAT_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/dtype.h"

struct vibe_error;
struct vibe_weights;

/*
 * A tensor in the mapping; borrowed until vibe_weights_free.  Writers align
 * data to the element, but the format does not promise it.
 */
struct vibe_weight {
    const void *data; /* of BF16_PACKED: its first block */
    enum vibe_dtype dtype;
    size_t n_dims; /* 0 for a scalar */
    size_t shape[4];
    size_t n;           /* elements */
    const float *scale; /* of a name.weight: its name.scale_weight, widened
                         * and finite; NULL: 1 */
    size_t n_scales;    /* 1, or shape[0] */
    size_t group;       /* of I4, see struct vibe_matrix_part */
    const float *group_scale; /* [shape[0]][shape[1] / group] */
    const uint64_t *blocks;   /* of BF16_PACKED, likewise; data is at
                                 blocks[0] */
    const char *name;         /* as the file spells it */
    const char *file;         /* path, for messages */
};

/*
 * Open a checkpoint.
 *
 *   out    set to the checkpoint, or to NULL on error
 *   path   a directory with model.safetensors.index.json and its shards or,
 *          failing that, model.safetensors, or one file
 *
 * Errors: VIBE_E_IO, VIBE_E_NOMEM
 *         VIBE_E_FORMAT       a header, offset, shape, scale or shard is
 *                             wrong, or a tensor is there twice
 *         VIBE_E_UNSUPPORTED  a dtype or rank that nobody has heard of
 */
int vibe_weights_open(struct vibe_weights **out, const char *path,
                      struct vibe_error *err);
void vibe_weights_free(struct vibe_weights *w);

/* Share what was opened: it is freed with the last. */
struct vibe_weights *vibe_weights_share(struct vibe_weights *w);

/*
 * Ask that matrices whose names begin with prefix be kept in another dtype
 * than the file's; of several prefixes that fit, the one that was asked first
 * last counts, and a prefix as it was asked last.
 * Modules do as they are asked when they load (params.h).
 *
 *   prefix   borrowed until vibe_weights_free
 */
void vibe_weights_keep(struct vibe_weights *w, const char *prefix,
                       enum vibe_weight_dtype as);

/* What was asked for a name; VIBE_WEIGHTS_AUTO: nothing. */
enum vibe_weight_dtype vibe_weights_kept(const struct vibe_weights *w,
                                         const char *name);

/*
 * Have a weight in another dtype: made on all cores, kept beside the tensor
 * and handed out again until vibe_weights_drop or vibe_weights_free.  Several
 * threads may ask at once.
 *
 *   weight   as found; becomes the other, or is untouched on error
 *   name     original name
 *   to       see vibe_recode, also for errors
 */
int vibe_weights_recode(const struct vibe_weights *w,
                        struct vibe_weight *weight, const char *name,
                        enum vibe_dtype to, struct vibe_error *err);

/* Free what a weight was recoded to, unless others share the file. */
void vibe_weights_drop(const struct vibe_weights *w, const char *name);

/* Is there a tensor of this (original) name, of whatever dtype? */
int vibe_weights_has(const struct vibe_weights *w, const char *name);

/*
 * Find a tensor and hold it to a shape.
 *
 *   out     untouched on error
 *   name    original name
 *   shape   [n_dims]
 *
 * Errors: VIBE_E_FORMAT       absent or of another shape; msg names it, what
 *                             was found and what was expected
 *         VIBE_E_UNSUPPORTED  of a dtype that weights may not have
 */
int vibe_weights_need(const struct vibe_weights *w, struct vibe_weight *out,
                      const char *name, const size_t *shape, size_t n_dims,
                      struct vibe_error *err);

/*
 * Widen a whole tensor to f32, scaled.
 *
 *   out   [n] malloc'd, owned by the caller; NULL on error
 *
 * Errors: as vibe_weights_need, VIBE_E_NOMEM
 */
int vibe_weights_f32(const struct vibe_weights *w, float **out,
                     const char *name, const size_t *shape, size_t n_dims,
                     struct vibe_error *err);

/*
 * Read one finite number, of shape [] or [1].
 *
 *   out   untouched on error
 *
 * Errors: as vibe_weights_need; VIBE_E_FORMAT also for NaN and infinity
 */
int vibe_weights_scalar(const struct vibe_weights *w, const char *name,
                        float *out, struct vibe_error *err);

/*
 * Visit every tensor in the order of the files, i < count; all but scales and
 * what vibe_weights_need would refuse for its dtype or rank.
 */
size_t vibe_weights_count(const struct vibe_weights *w);
void vibe_weights_get(const struct vibe_weights *w, size_t i,
                      struct vibe_weight *out);

/* Bytes of the tensors visited, and the dtype that most of them have. */
size_t vibe_weights_bytes(const struct vibe_weights *w);
enum vibe_dtype vibe_weights_dtype(const struct vibe_weights *w);

/*
 * Tell the system that the pages of all tensors whose (original) names begin
 * with prefix will not be read again soon.  Reading them stays allowed.
 */
void vibe_weights_forget(const struct vibe_weights *w, const char *prefix);

#endif /* VIBE_FORMAT_WEIGHTS_H */
