/*
 * params.h - the weights of one module, checked first and then loaded.
 *
 * A module lists its tensors once, in a bind function.  That function runs
 * twice: the first pass finds every tensor and holds it to its shape, the
 * second one loads.  So nothing is read before all of it is known to be right.
 *
 * Matrices keep the dtype of the file unless vibe_weights_keep asked for
 * another, in which they are made here; everything else (norms, convolutions
 * by channel, layer scales) is small, is widened to f32 and shares one
 * allocation.
 *
 * The vibe_load_ calls latch: after a failure they do nothing, and the
 * function that started the pass returns the error.
 */
#ifndef VIBE_MODEL_PARAMS_H
#define VIBE_MODEL_PARAMS_H

#include <stddef.h>

#include "engine/backend/backend.h"

struct vibe_weights;
struct vibe_loader; /* one pass over the tensors of a module */

struct vibe_params {
    struct vibe_backend *be;
    struct vibe_tensor vectors;  /* [1][1][floats] */
    struct vibe_matrix **matrix; /* [n_matrices], fields of the module */
    size_t n_matrices;
};

typedef void vibe_bind_fn(struct vibe_loader *l, void *module);

/*
 * Check every tensor of a module without loading any.
 *
 *   module   passed to bind, which must only read its dimensions
 *
 * Errors: VIBE_E_FORMAT  a tensor is absent or misshapen; msg names it
 */
int vibe_params_check(const struct vibe_weights *w, vibe_bind_fn *bind,
                      void *module, struct vibe_error *err);

/*
 * Check, then load every tensor of a module.
 *
 *   p        release with vibe_params_release, also after an error
 *   be       borrowed until then
 *   w        borrowed as long: a backend may read matrices where they are
 *            mapped
 *   module   its matrices must not move until then
 *
 * Errors: VIBE_E_FORMAT, VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_params_init(struct vibe_params *p, struct vibe_backend *be,
                     const struct vibe_weights *w, vibe_bind_fn *bind,
                     void *module, struct vibe_error *err);
void vibe_params_release(struct vibe_params *p);

/*
 * The matrices of a module one by one, in the order of the bind function, as
 * they will be loaded.
 */
struct vibe_params_store {
    /* Called while checking; src without bias and gamma, borrowed for the call,
     * what its parts point to until the weights are freed. */
    int (*offer)(void *user, size_t number,
                 const struct vibe_matrix_source *src, struct vibe_error *err);
    /* Called while loading: take the rows and the small arrays; m is as for
     * vibe_matrix_load. */
    int (*load)(void *user, struct vibe_matrix *m, size_t number,
                const struct vibe_matrix_source *src, struct vibe_error *err);
    void *user;
};

/* Check a module, and offer its matrices. */
int vibe_params_offer(const struct vibe_weights *w, vibe_bind_fn *bind,
                      void *module, const struct vibe_params_store *store,
                      struct vibe_error *err);

/* vibe_params_init, whose matrices the store loads; NULL: the backend. */
int vibe_params_init_in(struct vibe_params *p, struct vibe_backend *be,
                        const struct vibe_weights *w, vibe_bind_fn *bind,
                        void *module, const struct vibe_params_store *store,
                        struct vibe_error *err);

/* Bytes that one pass over all matrices reads. */
size_t vibe_params_bytes(const struct vibe_params *p);

/* What follows is for bind functions. */

/* Prefix the names in the calls that follow. */
void vibe_loader_scope(struct vibe_loader *l, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* *out = the tensor name, [n]. */
void vibe_load_vector(struct vibe_loader *l, const float **out,
                      const char *name, size_t n);

/* *values = malloc'd values[n] of the tensor name, to be changed and given to
 * vibe_load_values; untouched while tensors are only checked. */
void vibe_fetch_vector(struct vibe_loader *l, float **values, const char *name,
                       size_t n);

/* *out = the taps of a convolution by channel, [channels][1][taps] in the
 * file and [taps][channels] here. */
void vibe_load_taps(struct vibe_loader *l, const float **out, const char *name,
                    size_t channels, size_t taps);

/* *out = a copy of values[n], which the file does not hold; NULL is taken
 * for a lack of memory. */
void vibe_load_values(struct vibe_loader *l, const float **out,
                      const float *values, size_t n);

/* A matrix by the names of its modules: ".weight" and ".bias" are added. */
struct vibe_matrix_names {
    const char *part[VIBE_MATRIX_PARTS]; /* up to the first NULL */
    size_t rows[VIBE_MATRIX_PARTS];      /* of each part; channels out */
    size_t in;                           /* channels in */
    size_t taps;                         /* of a convolution, else unused */
    enum vibe_layout layout;
    const char *gamma; /* full name of the layer scale, or NULL */
    int has_bias;
    int is_pair; /* gate and up */
};

void vibe_load_matrix(struct vibe_loader *l, struct vibe_matrix *out,
                      const struct vibe_matrix_names *names);

/* Shorthand for a single linear layer. */
void vibe_load_linear(struct vibe_loader *l, struct vibe_matrix *out,
                      const char *name, size_t n_out, size_t n_in);

#endif /* VIBE_MODEL_PARAMS_H */
