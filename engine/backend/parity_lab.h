/*
 * parity_lab.h - a backend and the reference side by side, for parity cases.
 *
 * Everything made in a lab is made on both sides and released by
 * vibe_lab_clear after the case; a failure is kept in the lab and ends it.
 * Arrays of VIBE_SIDES hold the same thing on each side.
 */
#ifndef VIBE_BACKEND_PARITY_LAB_H
#define VIBE_BACKEND_PARITY_LAB_H

#include "engine/backend/ops.h"
#include "engine/backend/parity.h"
#include "engine/base/size.h"

enum vibe_side { VIBE_REFERENCE, VIBE_TESTED, VIBE_SIDES };
enum { VIBE_LAB_TENSORS = 24, VIBE_LAB_BUFFERS = 24, VIBE_LAB_MATRICES = 4 };
enum { VIBE_LAB_HOSTS = 32 };

struct vibe_lab {
    struct vibe_backend *be[VIBE_SIDES];
    struct vibe_stream s[VIBE_SIDES];
    struct vibe_tensor tensors[VIBE_LAB_TENSORS][VIBE_SIDES];
    size_t n_tensors;
    void *buffers[VIBE_LAB_BUFFERS][VIBE_SIDES];
    size_t n_buffers;
    struct vibe_matrix matrices[VIBE_LAB_MATRICES][VIBE_SIDES];
    struct vibe_matrix_source sources[VIBE_LAB_MATRICES];
    size_t n_matrices;
    void *hosts[VIBE_LAB_HOSTS]; /* what the sources point to */
    size_t n_hosts;
    uint64_t random;
    struct vibe_error err;
    vibe_parity_report *report;
    void *user;
    size_t failed;
};

enum vibe_fill {
    VIBE_FILL_POISON, /* NaN: an output */
    VIBE_FILL_RANDOM, /* uniform in [-1, 1) */
    VIBE_FILL_UNEVEN, /* the same times a power of two, another one for every
                         64, as units of digits differ */
};

/* Uniform in [-1, 1), 24 bits. */
float vibe_lab_uniform(struct vibe_lab *lab);

/* Uniform in 0 .. n - 1. */
size_t vibe_lab_below(struct vibe_lab *lab, size_t n);

/* Make a dense tensor. */
void vibe_lab_tensor(struct vibe_lab *lab, struct vibe_tensor t[VIBE_SIDES],
                     enum vibe_fill fill, size_t B, size_t T, size_t C);

/* Make memory with the same bytes. */
void vibe_lab_buffer(struct vibe_lab *lab, void *both[VIBE_SIDES],
                     const void *host, size_t bytes);

/* Make random floats in [-1, 1) on both sides. */
void vibe_lab_floats(struct vibe_lab *lab, float *both[VIBE_SIDES], size_t n);

struct vibe_lab_matrix {
    enum vibe_dtype dtype;
    enum vibe_layout layout;
    size_t N, K;
    size_t in; /* for convolutions; N counts phases of the transposed */
    size_t out;
    int n_parts; /* the last one has the rows that do not divide */
    int is_pair;
    int is_mixed; /* the second part is of another dtype */
    int is_wild;  /* of bf16: any exponents below 1, as packing hates them */
    int n_scales; /* 0, 1: per part, 2: per row */
    int has_bias, has_gamma;
};

/* Round up so that a GPU has bytes in whole tiles, and int4 whole groups. */
static inline void vibe_lab_whole(struct vibe_lab_matrix *w)
{
    w->N = vibe_size_round(w->N, 16);
    w->K = vibe_size_round(w->K, 64);
}

/* Make a matrix of random weights in (-2, 2), zeros and subnormals among them;
 * scales are about 1 / sqrt(K). */
void vibe_lab_matrix(struct vibe_lab *lab, struct vibe_matrix *both[VIBE_SIDES],
                     const struct vibe_lab_matrix *spec);

/* What the last matrix was made from; borrowed until vibe_lab_clear. */
const struct vibe_matrix_source *vibe_lab_source(const struct vibe_lab *lab);

/*
 * Compare a tensor of both sides and report.  bound is absolute; errors that
 * the streams latched fail the case.
 */
void vibe_lab_compare(struct vibe_lab *lab, const char *op,
                      const struct vibe_tensor t[VIBE_SIDES], double bound,
                      const char *shape, ...)
    __attribute__((format(printf, 5, 6)));

/* Compare rows of two tensors of the tested side, bit for bit. */
void vibe_lab_same(struct vibe_lab *lab, const char *op,
                   const struct vibe_tensor *a, const struct vibe_tensor *b,
                   const char *shape, ...)
    __attribute__((format(printf, 5, 6)));

/* Release what the case made. */
void vibe_lab_clear(struct vibe_lab *lab);

/* The cases, one function per op; the last is NULL. */
typedef void vibe_parity_case(struct vibe_lab *lab);
extern vibe_parity_case *const vibe_parity_products[]; /* linear, gemm */
extern vibe_parity_case *const vibe_parity_packed_rounded[];
extern vibe_parity_case *const vibe_parity_pieces[];
extern vibe_parity_case *const vibe_parity_rounded[];
extern vibe_parity_case *const vibe_parity_kept[];
extern vibe_parity_case *const vibe_parity_kept_rounded[];
extern vibe_parity_case *const vibe_parity_attention[];
extern vibe_parity_case *const vibe_parity_conv[];
extern vibe_parity_case *const vibe_parity_rows[]; /* the others */

#endif /* VIBE_BACKEND_PARITY_LAB_H */
