/*
 * state.h - what the CPU's ops know of their backend and of tensors.
 */
#ifndef VIBE_BACKEND_CPU_STATE_H
#define VIBE_BACKEND_CPU_STATE_H

#include <assert.h>

#include "engine/backend/cpu/cpu.h"
#include "engine/backend/ops.h"
#include "engine/format/pack.h"

struct vibe_cpu_kernels;

struct vibe_cpu {
    struct vibe_backend base; /* first: a vibe_backend * is a vibe_cpu * */
    struct vibe_ops ops;
    enum vibe_cpu_isa isa;
    int threads;
    struct vibe_cpu_kernels *kernels; /* NULL for the reference */
    double marks[VIBE_MARKS];         /* see vibe_mark */
    struct vibe_cpu_scratch {
        void *data;
        size_t bytes;
    } scratch; /* grows to what the largest op needs */
};

static inline struct vibe_cpu *vibe_cpu_of(const struct vibe_stream *s)
{
    return (struct vibe_cpu *)s->be;
}

/* Threads for that much work, in multiplications: waking the others costs as
 * much as some ten thousand of them. */
static inline int vibe_cpu_team(const struct vibe_stream *s, size_t work)
{
    return work >= 1 << 17 ? vibe_cpu_of(s)->threads : 1;
}

/* Row m = b * T + t of t. */
static inline float *vibe_cpu_row(const struct vibe_tensor *t, size_t m)
{
    assert(t->dtype == VIBE_F32 && t->T > 0);
    return (float *)t->data + m / t->T * t->stride_b + m % t->T * t->stride_t;
}

/* Row i of [past | x] of batch b. */
static inline const float *vibe_cpu_row_behind(const struct vibe_tensor *past,
                                               const struct vibe_tensor *x,
                                               size_t b, size_t i)
{
    return i < past->T ? vibe_cpu_row(past, b * past->T + i)
                       : vibe_cpu_row(x, b * x->T + i - past->T);
}

/* One row of a matrix: where it is, and what its sums are multiplied by. */
struct vibe_cpu_weights {
    const void *data; /* of BF16_PACKED: its block */
    enum vibe_dtype dtype;
    float scale;
    const struct vibe_matrix_part *part;
    size_t row; /* of the part */
};

static inline struct vibe_cpu_weights vibe_cpu_weights_row(
    const struct vibe_matrix *w, size_t n)
{
    const struct vibe_matrix_part *p = w->part;

    size_t first;

    for (; n >= p->n; p++)
        n -= p->n;
    first = p->dtype == VIBE_BF16_PACKED ? n - n % VIBE_PACK_BLOCK : n;
    return (struct vibe_cpu_weights){
        .data = (const char *)p->data +
                vibe_matrix_part_bytes(p, w->K, 0, first),
        .dtype = p->dtype,
        .scale = p->scale ? p->scale[n] : 1.0f,
        .part = p,
        .row = n,
    };
}

/* Rows that kernels read where they are, but for scales of their groups; the
 * others are expanded first. */
static inline int vibe_cpu_is_plain(enum vibe_dtype dtype)
{
    return dtype <= VIBE_I8;
}

/* Columns of rows that are expanded are taken from multiples of this. */
enum { VIBE_CPU_EXPAND_K = VIBE_PACK_COLUMNS };

/* Columns k .. k + n_k - 1 of a row as f32, without the row's scale; n_k is
 * at most VIBE_CPU_EXPAND_K. */
void vibe_cpu_expand_row(float *out, const struct vibe_cpu_weights *row,
                         size_t K, size_t k, size_t n_k);

/* The tile of a BF16_PACKED row that begins at column k: 16 rows, of which it
 * is row % 16, of 256 bf16.  ld counts elements. */
void vibe_cpu_expand_tile(const struct vibe_cpu_kernels *kernels, uint16_t *out,
                          size_t ld, const struct vibe_cpu_weights *row,
                          size_t K, size_t k);

/* Where position pos of sequence seq keeps its keys (which 0) or values (1)
 * for one KV head: [head_dim] of kv->dtype. */
static inline void *vibe_cpu_kv_row(const struct vibe_kv *kv, size_t seq,
                                    size_t layer, size_t which, size_t head,
                                    size_t pos)
{
    size_t i = pos / kv->block_tokens;
    char *block = kv->table[seq * kv->max_blocks + i];
    size_t part = (layer * 2 + which) * kv->n_kv_heads + head;

    return block + part * vibe_kv_head_bytes(kv) +
           pos % kv->block_tokens * kv->head_dim * vibe_dtype_size(kv->dtype);
}

/* The exponent of such a row of F8_E4M3; those that follow it in the block lie
 * behind it. */
static inline uint8_t *vibe_cpu_kv_exponent(const struct vibe_kv *kv,
                                            size_t seq, size_t layer,
                                            size_t which, size_t head,
                                            size_t pos)
{
    const size_t at = pos % kv->block_tokens;
    uint8_t *part = vibe_cpu_kv_row(kv, seq, layer, which, head, pos - at);

    return part + kv->block_tokens * kv->head_dim + at;
}

/*
 * Scratch of at least bytes, aligned to 64, contents undefined; the next call
 * may hand out the same.  NULL latches VIBE_E_NOMEM in the stream.
 */
void *vibe_cpu_scratch(struct vibe_stream *s, size_t bytes);

/* What every kernel set shares (matrix.c, transfer.c). */
int vibe_cpu_matrix_load(struct vibe_matrix *m, struct vibe_backend *be,
                         const struct vibe_matrix_source *src,
                         struct vibe_error *err);
void vibe_cpu_matrix_release(struct vibe_matrix *m, struct vibe_backend *be);
int vibe_cpu_matrix_measure(struct vibe_backend *be,
                            const struct vibe_matrix_source *src, size_t *rows,
                            size_t *small, struct vibe_error *err);
size_t vibe_cpu_piece_bytes(struct vibe_backend *be,
                            const struct vibe_matrix_source *src, size_t first,
                            size_t n);
void vibe_cpu_matrix_lay(struct vibe_backend *be,
                         const struct vibe_matrix_source *src, size_t first,
                         size_t n, void *out);
int vibe_cpu_matrix_load_small(struct vibe_matrix *m, struct vibe_backend *be,
                               const struct vibe_matrix_source *src,
                               struct vibe_error *err);
int vibe_cpu_matrix_fill(struct vibe_backend *be,
                         const struct vibe_matrix_source *src, size_t first,
                         size_t n, void *device, struct vibe_error *err);
extern const struct vibe_transfer vibe_cpu_transfer;

/* Rotate q and k and store k and v in the cache, as vibe_attention begins. */
void vibe_cpu_rope(struct vibe_stream *s, const struct vibe_tensor *qkv,
                   const struct vibe_kv *kv, size_t layer,
                   const struct vibe_rows *rows, const struct vibe_rope *rope);

/* state = the last rows of [past | x]. */
void vibe_cpu_keep_last(const struct vibe_tensor *state,
                        const struct vibe_tensor *past,
                        const struct vibe_tensor *x);

/* Fill every op with plain C, which defines what it computes. */
void vibe_cpu_reference_init(struct vibe_ops *ops);

#endif /* VIBE_BACKEND_CPU_STATE_H */
