/*
 * weights_table.h - what the parts of weights.h share.
 *
 *   weights_files.c    the files of a checkpoint, and their tensors by name
 *   weights_scales.c   scales and headers, which make bytes a matrix
 *   weights.c          what others ask for
 */
#ifndef VIBE_FORMAT_WEIGHTS_TABLE_H
#define VIBE_FORMAT_WEIGHTS_TABLE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/dtype.h"
#include "engine/format/recode.h"
#include "engine/format/safetensors.h"

struct vibe_error;

enum {
    VIBE_WEIGHTS_NAME_BYTES = 512,
    VIBE_WEIGHTS_SHAPE_BYTES = 112,
    VIBE_WEIGHTS_RULES = 8,
};

/* A tensor of one of the files. */
struct vibe_weights_entry {
    const char *name; /* original; owned only if it is not the tensor's */
    const struct vibe_st_tensor *tensor;
    const struct vibe_safetensors *file;
    size_t place;          /* in the order of the files */
    enum vibe_dtype dtype; /* what its bytes are */
    size_t n_dims, shape[VIBE_ST_MAX_DIMS], n;
    const void *data;
    float *scale; /* owned */
    size_t n_scales;
    float *group_scale; /* owned */
    size_t group;
    uint64_t *blocks;            /* owned */
    struct vibe_recoded recoded; /* data NULL: not yet */
};

/* What matrices of some names are asked to be kept as. */
struct vibe_weights_rule {
    const char *prefix;
    enum vibe_weight_dtype as;
};

/* Those who share what was opened. */
struct vibe_weights_owners {
    pthread_mutex_t lock; /* also of what is recoded */
    size_t n;
};

struct vibe_weights {
    char *path;
    struct vibe_safetensors **files;
    size_t n_files;
    struct vibe_weights_entry *entries; /* by name */
    size_t n;
    struct vibe_weights_entry **visited; /* in the order of the files */
    size_t n_visited;
    size_t bytes; /* of those visited */
    enum vibe_dtype dtype;
    struct vibe_weights_rule rules[VIBE_WEIGHTS_RULES];
    size_t n_rules;
    struct vibe_weights_owners *owners; /* owned */
};

/* "[480,64]", cut where there is no room. */
void vibe_weights_say_shape(char out[VIBE_WEIGHTS_SHAPE_BYTES],
                            const size_t *shape, size_t n);

/* One sentence, and VIBE_E_NOMEM. */
int vibe_weights_no_memory(const struct vibe_weights *w,
                           struct vibe_error *err);

/*
 * Open the files of a checkpoint, see vibe_weights_open; then list their
 * tensors by their original names.
 *
 *   w   its files and entries are released by vibe_weights_free, as far as
 *       they were made
 */
int vibe_weights_open_files(struct vibe_weights *w, const char *path,
                            struct vibe_error *err);
int vibe_weights_list(struct vibe_weights *w, struct vibe_error *err);

/* The entry of this original name, or NULL. */
struct vibe_weights_entry *vibe_weights_find(const struct vibe_weights *w,
                                             const char *name);

/* Give every weight what is beside it under NAME.scale_weight, and make of
 * bytes the matrix that they hold. */
int vibe_weights_attach_scales(struct vibe_weights *w, struct vibe_error *err);

/* Is it scales for another one? */
int vibe_weights_is_scale(const struct vibe_weights_entry *e);

/*
 * Widen all values to f32.
 *
 *   out   [t->n]
 *   t     of a float dtype
 */
void vibe_weights_widen(float *out, const struct vibe_st_tensor *t);

#endif /* VIBE_FORMAT_WEIGHTS_TABLE_H */
