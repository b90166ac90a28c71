/*
 * backend.h - a place where tensors live and ops run: the CPU, or one GPU.
 *
 * Three things are handed out: memory (tensors), weight matrices in whatever
 * layout the backend's kernels read, and streams on which ops (ops.h) run in
 * order.  On the CPU "device memory" is host memory and an op has finished
 * when its call returns; on a GPU it is asynchronous until vibe_sync.
 *
 * Ops latch: the first error on a stream is kept in it, and every later op on
 * that stream does nothing until the error is taken with vibe_stream_check.
 */
#ifndef VIBE_BACKEND_H
#define VIBE_BACKEND_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/dtype.h"
#include "engine/base/error.h"

struct vibe_ops;
struct vibe_supply;
struct vibe_transfer; /* offload/transfer.h */

/* What device memory is taken for; plans and reports go by it. */
enum vibe_purpose {
    VIBE_FOR_OTHER,
    VIBE_FOR_LM,      /* what of the language model never streams */
    VIBE_FOR_LM_ROWS, /* and what could */
    VIBE_FOR_RING,
    VIBE_FOR_HEAD,
    VIBE_FOR_CODEC,
    VIBE_FOR_CONNECTORS,
    VIBE_FOR_ENCODER, /* of voices */
    VIBE_FOR_STATES,  /* of dialogues */
    VIBE_FOR_KV,
    VIBE_FOR_SCRATCH,
    VIBE_FOR_PROMPT, /* while one is read */
    VIBE_N_PURPOSES,
};

/* Device memory of this process; bytes. */
struct vibe_memory {
    size_t bytes[VIBE_N_PURPOSES]; /* in use now */
    size_t peak[VIBE_N_PURPOSES];
    size_t used, used_peak;   /* sum over the purposes */
    size_t taken, taken_peak; /* from the driver */
    size_t context;           /* taken besides, by opening the device */
    size_t later;             /* that will be taken besides, at most */
};

struct vibe_backend {
    const struct vibe_ops *ops;
    const struct vibe_transfer *transfer;
    char name[96];            /* for people: "CPU, 2 threads, avx2" */
    enum vibe_dtype kv_dtype; /* what keys and values are kept in */
    int is_cuda;
    int is_exact; /* as opened, see struct vibe_backend_options */
    int is_tally; /* it only counts: what weights hold does not matter */
    enum vibe_purpose purpose; /* of what is allocated from now on */
    unsigned on_host; /* bit 1 << purpose: its matrices, or keys and values,
                         are kept on the host, where the device reads them at
                         the speed of the link */
    int is_sealed;    /* see vibe_backend_seal */
    int is_reading;   /* a prompt: see vibe_ops.rest */
};

struct vibe_stream {
    struct vibe_backend *be;
    int is_timed;          /* whether vibe_mark (ops.h) does anything */
    struct vibe_error err; /* latched; code VIBE_OK while all is well */
    int is_eager;          /* the language model is not captured: its matrices
                              come in pieces that lie elsewhere each time */
};

/* How a tensor keeps its numbers.  All forms are of the same size; all but the
 * first are for products (ops.h) alone, and may be floats on some devices. */
enum vibe_form {
    VIBE_FORM_PLAIN,  /* floats */
    VIBE_FORM_PARTS,  /* each as two bf16 */
    VIBE_FORM_WOVEN,  /* the same in the order of weights of a byte */
    VIBE_FORM_DIGITS, /* whole numbers of units of their own, for int4 */
};

/*
 * A view of activations: [B][T][C], batch, time (or rows), channels.
 *
 * Strides count elements; channels are adjacent.  Rows may overlap
 * (stride_t < C: the windows of a convolution) and an axis may be broadcast
 * (stride 0) where an op only reads.
 */
struct vibe_tensor {
    void *data; /* device memory */
    enum vibe_dtype dtype;
    size_t B, T, C;
    size_t stride_b, stride_t;
    enum vibe_form form;
};

/* How the file stores a matrix, and so how its [N][K] is found in it. */
enum vibe_layout {
    VIBE_LAYOUT_LINEAR,         /* [N][K] */
    VIBE_LAYOUT_CONV,           /* [N][in][taps]: K = tap * in + i */
    VIBE_LAYOUT_CONV_TRANSPOSE, /* [in][out][2 * stride]: N = phase * out + o,
                                   K = 2 * in: previous column, then current */
};

/* Matrices of the file that are read as one, stacked by rows. */
struct vibe_matrix_part {
    const void *data;   /* as in the file; borrowed as long as the matrix */
    const float *scale; /* [n_scales], host, or NULL for 1 */
    size_t n_scales;    /* 1: the whole part; else one per row */
    size_t group;       /* of I4: columns that share a scale, 64 or 128 */
    const float *group_scale; /* of I4: [n][K / group], host; each an f16 */
    const uint64_t *blocks;   /* of BF16_PACKED: where each block of format/
                                 pack.h begins and the last one ends; data is
                                 at blocks[0] */
    const uint32_t *far; /* of such tiles of BF16_PACKED: their list, device,
                            or NULL */
    int is_tiled;        /* I4 or BF16_PACKED on a GPU, see tiles.h */
    enum vibe_dtype dtype;
    size_t n; /* rows of this part */
};

enum { VIBE_MATRIX_PARTS = 8 };

/* Bytes of rows first .. first + n - 1 of K columns; of BF16_PACKED in whole
 * blocks, of tiles in whole groups, of which first begins one. */
size_t vibe_matrix_part_bytes(const struct vibe_matrix_part *part, size_t K,
                              size_t first, size_t n);

struct vibe_matrix_source {
    struct vibe_matrix_part part[VIBE_MATRIX_PARTS];
    int n_parts;
    enum vibe_layout layout;
    size_t N, K;        /* of the whole */
    size_t in;          /* channels in, for the convolution layouts */
    size_t out;         /* channels out, for CONV_TRANSPOSE: N = stride * out */
    int is_pair;        /* two equal parts, gate and up, read by SwiGLU only */
    const float *bias;  /* [N], host, or NULL; for a transposed convolution
                           [out], repeated per phase */
    const float *gamma; /* [N] layer scale, host, or NULL */
};

/*
 * y = gamma * (W x + bias), W [N][K], as a backend holds it.  Fields other
 * than N, K and bytes belong to the backend that loaded it.
 *
 * Kernels choose how they add up by whole_N and K, never by N: a product made
 * piece by piece has the bits of one made at once.
 */
struct vibe_matrix {
    size_t N, K;
    size_t whole_N; /* N of the matrix that this is a piece of, or N */
    size_t first;   /* row of that matrix with which it begins */
    size_t bytes;   /* of weights that one pass reads */
    struct vibe_matrix_part part[VIBE_MATRIX_PARTS]; /* device pointers */
    int n_parts;
    int is_pair;
    const float *bias;  /* [N] device, or NULL */
    const float *gamma; /* [N] device, or NULL */
    void *owned;        /* what release frees: packed copies, or NULL */
    /* one of so many like it that are read several times before others are, so
     * that a device may keep a part of them near; 0: it is not */
    size_t n_again;
    /* where its rows are taken from piece by piece, under which number; NULL:
     * they are in part[] */
    struct vibe_supply *supply;
    size_t number;
};

/* Tells the user something in one sentence, once. */
struct vibe_notice {
    void (*tell)(void *user, const char *sentence); /* may be NULL */
    void *user;
};

struct vibe_backend_options {
    int want_cuda; /* else CPU */
    int device;    /* index of the GPU */
    int threads;   /* CPU: 0 for all that this process may use */
    int is_exact;  /* float32 arithmetic throughout; else large products of a
                      prompt may round their rows to bf16 (GPU, AMX), and a
                      GPU keeps keys and values in bf16 */
    enum vibe_weight_dtype kv; /* what they are kept in instead, unless AUTO:
                                  F32, BF16 or F8_E4M3 */
    struct vibe_notice notice; /* of what is missing and not needed */
};

/* What keys and values are kept in where that is asked; usual for AUTO. */
enum vibe_dtype vibe_kv_dtype(enum vibe_weight_dtype as, enum vibe_dtype usual);

/*
 * Open a backend.
 *
 *   out   set to the backend, or to NULL on error; free with
 *         vibe_backend_free, after everything made from it
 *
 * Errors: VIBE_E_DEVICE       no driver, no such GPU, or the driver is too old
 *         VIBE_E_UNSUPPORTED  this build has no CUDA
 *         VIBE_E_NOMEM
 */
int vibe_backend_open(struct vibe_backend **out,
                      const struct vibe_backend_options *options,
                      struct vibe_error *err);

/* Release the backend; NULL is allowed. */
void vibe_backend_free(struct vibe_backend *be);

/*
 * From one to the other the backend allocates and frees nothing and the host
 * does not wait for it, as a frame that is captured demands.  Whatever does
 * one of these asks vibe_backend_unsealed; only DEBUG=1 builds seal.
 */
void vibe_backend_seal(struct vibe_backend *be);
void vibe_backend_unseal(struct vibe_backend *be);

static inline void vibe_backend_unsealed(const struct vibe_backend *be)
{
    assert(!be->is_sealed);
    (void)be;
}

/* Make the calling thread's calls go to this device, where a thread has
 * several; to open a backend and to start a stream do so, too. */
void vibe_backend_enter(struct vibe_backend *be);

/* Start an ordered queue of ops; release with vibe_stream_release. */
int vibe_stream_init(struct vibe_stream *s, struct vibe_backend *be,
                     struct vibe_error *err);
void vibe_stream_release(struct vibe_stream *s);

/* Wait for the stream; return its latched error, and clear it. */
int vibe_stream_check(struct vibe_stream *s, struct vibe_error *err);

/*
 * Allocate a dense tensor [B][T][C], zeroed.
 *
 *   t    data NULL on error; release with vibe_tensor_release
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_tensor_init(struct vibe_tensor *t, struct vibe_backend *be,
                     enum vibe_dtype dtype, size_t B, size_t T, size_t C,
                     struct vibe_error *err);
void vibe_tensor_release(struct vibe_tensor *t, struct vibe_backend *be);

/* Views share memory with t and own nothing. */
struct vibe_tensor vibe_tensor_rows(const struct vibe_tensor *t, size_t first,
                                    size_t T);
struct vibe_tensor vibe_tensor_batch(const struct vibe_tensor *t, size_t first,
                                     size_t B);
struct vibe_tensor vibe_tensor_channels(const struct vibe_tensor *t,
                                        size_t first, size_t C);
struct vibe_tensor vibe_tensor_broadcast(const struct vibe_tensor *t, size_t B);

/*
 * Take a matrix of the file into the backend.  The CPU reads linear layers
 * where they are mapped and repacks convolutions; a GPU copies everything.
 *
 *   m     release with vibe_matrix_release
 *   src   borrowed for this call, except data of parts: until release
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_matrix_load(struct vibe_matrix *m, struct vibe_backend *be,
                     const struct vibe_matrix_source *src,
                     struct vibe_error *err);
void vibe_matrix_release(struct vibe_matrix *m, struct vibe_backend *be);

/* The dtype in which a GPU keeps all parts of a matrix: the smallest that
 * holds every value of them; int4 and packed bf16 are bf16 beside others. */
enum vibe_dtype vibe_matrix_gpu_dtype(const struct vibe_matrix_source *src);

/*
 * The rows of a linear matrix can also be kept in pieces, in memory of the
 * caller's.  A piece is rows first .. first + n - 1 as the device reads them,
 * contiguous; what it says, backends say differently: in a pair rows take
 * turns, so that 2 j and 2 j + 1 are gate and up of output j, but a backend
 * may keep the gates of a piece before its ups.  first and n are multiples of
 * VIBE_MATRIX_UNIT, save that the last piece ends with the matrix.
 */
enum { VIBE_MATRIX_UNIT = 64 };

/*
 * Count the bytes of a matrix on the device.
 *
 *   rows    of all rows, or NULL
 *   small   of scales, bias and gamma, which are never in a piece, or NULL
 *
 * Errors: VIBE_E_UNSUPPORTED  it is too large
 */
int vibe_matrix_measure(struct vibe_backend *be,
                        const struct vibe_matrix_source *src, size_t *rows,
                        size_t *small, struct vibe_error *err);

/* Bytes of a piece; src has been measured. */
size_t vibe_matrix_piece_bytes(struct vibe_backend *be,
                               const struct vibe_matrix_source *src,
                               size_t first, size_t n);

/* Write a piece to host memory.  Several threads may do so at once. */
void vibe_matrix_lay(struct vibe_backend *be,
                     const struct vibe_matrix_source *src, size_t first,
                     size_t n, void *out);

/* Rows first .. first + n - 1 of a linear matrix, of a pair of both parts, as
 * a matrix of its own; borrows what src does. */
struct vibe_matrix_source vibe_matrix_source_rows(
    const struct vibe_matrix_source *src, size_t first, size_t n);

/*
 * Take a matrix without its rows: what vibe_matrix_piece needs of it.
 * As vibe_matrix_load otherwise; bytes is 0.
 */
int vibe_matrix_load_small(struct vibe_matrix *m, struct vibe_backend *be,
                           const struct vibe_matrix_source *src,
                           struct vibe_error *err);

/*
 * Bring a piece to device memory; what computes from now on sees it.
 *
 *   device   room for it, from transfer.h
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_matrix_fill(struct vibe_backend *be,
                     const struct vibe_matrix_source *src, size_t first,
                     size_t n, void *device, struct vibe_error *err);

/* Rows first .. first + n - 1 of m as a matrix: its y is those channels of the
 * whole's, of a pair first / 2 and n / 2; device borrowed, owns nothing. */
struct vibe_matrix vibe_matrix_piece(const struct vibe_matrix *m,
                                     const void *device, size_t first,
                                     size_t n);

#endif /* VIBE_BACKEND_H */
