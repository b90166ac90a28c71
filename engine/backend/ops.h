/*
 * ops.h - the table of ops that a backend fills, and the calls on it.
 *
 * An op takes a stream first and its output second, returns nothing and
 * latches its error in the stream (backend.h).  Tensors are [B][T][C];
 * M = B * T counts rows.  Activations are f32; sums are f32 or wider.
 *
 * A tensor in a form for products (backend.h) is written by a norm, vibe_mixer
 * (normed), vibe_add_silu, vibe_copy, vibe_attention or a product that does not
 * add to it, and read by vibe_linear, vibe_gemm and vibe_copy alone, with the
 * bits of one that is plain (but for 2^-17 of a product in float arithmetic).
 *
 * The result of a row depends on that row alone: whatever else is in the
 * batch, and however many threads run, the bits are the same.
 *
 * Every op exists on the CPU first and is compared with it by a parity case
 * (parity.h) on every other backend.
 */
#ifndef VIBE_BACKEND_OPS_H
#define VIBE_BACKEND_OPS_H

#include "engine/backend/backend.h"

/* What happens to z = W x + bias before it is stored. */
enum vibe_epilogue {
    VIBE_STORE,    /* y = z */
    VIBE_ADD,      /* y += gamma * z; gamma 1 where the matrix has none */
    VIBE_GATE_ADD, /* y += gate * z, gate [B][T][N] */
    VIBE_GELU,     /* y = z/2 * (1 + erf(z / sqrt 2)) */
    VIBE_SWIGLU,   /* pair: y = silu(z_gate) * z_up, y has N / 2 channels */
};

/* Hands out rows of matrices that vibe_matrix_load_small took; ops call it. */
struct vibe_supply {
    /*
     * Take the piece of a matrix that begins with row first.
     *
     *   device   set to its rows, for the ops enqueued until done
     *   n        set to how many there are
     *
     * Errors: VIBE_E_DEVICE
     */
    int (*take)(struct vibe_supply *supply, size_t number, size_t first,
                const void **device, size_t *n, struct vibe_error *err);
    int (*done)(struct vibe_supply *supply, struct vibe_error *err);

    /* Whether all of a matrix is one piece, none of it lent; NULL: of none. */
    int (*is_whole)(struct vibe_supply *supply, size_t number);

    /*
     * The last rows of a matrix may be lent: a step then takes those before
     * them only, and has the others computed elsewhere meanwhile.
     *
     *   lent_from   the first of them, or N; NULL: none of any matrix is lent
     *   begin       to compute y, the channels of those rows, behind what is on
     *               the stream; x stays as it is until finish
     *   finish      have the stream wait for y
     */
    size_t (*lent_from)(struct vibe_supply *supply, size_t number);
    void (*begin)(struct vibe_supply *supply, struct vibe_stream *s,
                  size_t number, const struct vibe_tensor *y,
                  const struct vibe_tensor *x, enum vibe_epilogue epilogue);
    void (*finish)(struct vibe_supply *supply, struct vibe_stream *s,
                   size_t number, const struct vibe_tensor *y);
};

/*
 * Where the rows of a decoder step stand: row group b of [B][T] holds the
 * positions pos[b] .. pos[b] + T - 1 of sequence seq[b].  Device arrays [B].
 */
struct vibe_rows {
    const int32_t *seq;
    const int32_t *pos;
};

/*
 * Keys and values of several sequences, in blocks of block_tokens positions.
 * Block i of sequence q is table[q * max_blocks + i], device memory laid out
 * [n_layers][2 (k, v)][n_kv_heads][block_tokens][head_dim]; of F8_E4M3
 * [block_tokens] bytes follow for each head, the exponents of base/float8.h
 * that the rows are to be scaled by.
 */
struct vibe_kv {
    void *const *table; /* device array [n_seqs][max_blocks] */
    size_t n_seqs, max_blocks, block_tokens;
    size_t n_layers, n_kv_heads, head_dim;
    enum vibe_dtype dtype; /* f32, bf16 or f8_e4m3 */
};

/* Bytes that a block keeps of the keys, or of the values, of one KV head. */
static inline size_t vibe_kv_head_bytes(const struct vibe_kv *kv)
{
    const size_t n = kv->block_tokens * kv->head_dim;

    if (kv->dtype == VIBE_F8_E4M3)
        return n + kv->block_tokens;
    return kv->dtype == VIBE_BF16 ? 2 * n : 4 * n;
}

/* What becomes of keys before they are stored. */
struct vibe_rope {
    const float *inv_freq; /* [head_dim / 2] device: what they are turned by */
    /* [n_kv_heads][head_dim] device, or NULL for 0: what is then taken off
     * those kept as F8_E4M3.  All scores of a query lose the same by it, which
     * softmax does not see. */
    const float *centre;
};

/* Coefficients of one solver step, see model/dpm_solver.h. */
struct vibe_solver_coef {
    float alpha, sigma; /* m0 = alpha * x - sigma * v */
    float a, c0, c1;    /* x' = a * x + c0 * m0 + c1 * m1; m1 unread if c1 0 */
};

/* Where a solver stands, for D dialogues. */
struct vibe_solver {
    const struct vibe_tensor *x, *m1; /* [D][1][C], updated */
    const struct vibe_tensor *v;      /* [2][D][C] that may be overwritten */
    const float *cfg_scale;           /* [D] device */
};

/* Names one draw of noise: the same key gives the same normals everywhere. */
struct vibe_noise_key {
    uint64_t seed;
    uint32_t dialogue;
    uint32_t frame;
};

/* What a row goes through before a product: rmsnorm(x; w, eps), and with
 * shift and scale * (1 + scale) + shift. */
struct vibe_norm {
    const float *w; /* [K] device, or NULL for 1 */
    float eps;
    const struct vibe_tensor *shift, *scale; /* [B][T][K], or both NULL */
    const struct vibe_tensor *room; /* [B][T][K] that may be overwritten */
};

enum { VIBE_MIXER_TAPS = 7 };

/* A chunk behind its past, as vibe_window takes them. */
struct vibe_window {
    const struct vibe_tensor *win, *state, *past, *x;
};

/* Weights of vibe_mixer, device memory. */
struct vibe_mixer {
    const float *norm;         /* [C] */
    const float *taps;         /* [VIBE_MIXER_TAPS][C] */
    const float *bias, *gamma; /* [C] */
    const float *next_norm;    /* [C] */
    float eps;                 /* of both norms */
};

/* Weights of a block, see vibe_blocks. */
struct vibe_block {
    struct vibe_mixer mixer;
    struct vibe_matrix up, down; /* [H][C] with bias; [C][H], gamma too */
};

/* A block and what it works on; tensors as for vibe_mixer. */
struct vibe_block_call {
    const struct vibe_block *w;
    struct vibe_tensor y, state, past, x;
};

/* What blocks may overwrite. */
struct vibe_block_room {
    const struct vibe_tensor *normed, *hidden; /* [B][T][C], [B][T][H] */
};

struct vibe_device_reading;
struct vibe_span;
struct vibe_graph; /* captured work, see vibe_graph_run */

struct vibe_ops {
    /* take memory from which all that follows is allocated, and some of it
     * for the ops' own use, or fail with VIBE_E_NOMEM; say what is in use */
    int (*reserve)(struct vibe_backend *be, size_t bytes, size_t scratch,
                   struct vibe_error *err);
    /* from now on the ops' memory for a prompt is apart from that for frames,
     * and there only while one is read: give it back */
    void (*rest)(struct vibe_backend *be);
    void (*memory)(const struct vibe_backend *be, struct vibe_memory *out);
    /* return to the system what was freed and is kept for the next to ask */
    void (*trim)(struct vibe_backend *be);

    /* sizes in bytes; alloc returns zeroed memory or NULL */
    void *(*alloc)(struct vibe_backend *be, size_t bytes);
    void (*free)(struct vibe_backend *be, void *data);
    int (*matrix_load)(struct vibe_matrix *m, struct vibe_backend *be,
                       const struct vibe_matrix_source *src,
                       struct vibe_error *err);
    void (*matrix_release)(struct vibe_matrix *m, struct vibe_backend *be);

    /* matrices in pieces, see backend.h */
    int (*matrix_measure)(struct vibe_backend *be,
                          const struct vibe_matrix_source *src, size_t *rows,
                          size_t *small, struct vibe_error *err);
    size_t (*piece_bytes)(struct vibe_backend *be,
                          const struct vibe_matrix_source *src, size_t first,
                          size_t n);
    void (*matrix_lay)(struct vibe_backend *be,
                       const struct vibe_matrix_source *src, size_t first,
                       size_t n, void *out);
    int (*matrix_load_small)(struct vibe_matrix *m, struct vibe_backend *be,
                             const struct vibe_matrix_source *src,
                             struct vibe_error *err);
    int (*matrix_fill)(struct vibe_backend *be,
                       const struct vibe_matrix_source *src, size_t first,
                       size_t n, void *device, struct vibe_error *err);
    void (*enter)(struct vibe_backend *be);
    void (*close)(struct vibe_backend *be);

    /* streams */
    int (*stream_init)(struct vibe_stream *s, struct vibe_error *err);
    void (*stream_release)(struct vibe_stream *s);
    void (*sync)(struct vibe_stream *s);
    void (*write)(struct vibe_stream *s, void *device, const void *host,
                  size_t bytes);
    void (*read)(struct vibe_stream *s, void *host, const void *device,
                 size_t bytes);
    void (*hand_over)(struct vibe_stream *to, void *dst,
                      struct vibe_stream *from, const void *src, size_t bytes);

    void (*mark)(struct vibe_stream *s, size_t i);
    double (*mark_s)(struct vibe_stream *s, size_t i);
    size_t (*copied)(struct vibe_backend *be, struct vibe_span *out,
                     size_t max);

    /* what the device says of itself, see base/device.h */
    void (*meter)(struct vibe_backend *be, struct vibe_device_reading *out);

    /* bytes per second that reading the device's memory reaches; 0: unknown */
    double (*probe_bandwidth)(struct vibe_backend *be);

    void (*graph_run)(struct vibe_stream *s, struct vibe_graph **graph,
                      void (*body)(void *user), void *user);
    void (*graph_free)(struct vibe_graph *graph);
    void (*beside)(struct vibe_stream *s, void (*body)(void *user), void *user);
    void (*meet)(struct vibe_stream *s);

    /* see vibe_form_for, and which forms writers may leave y in besides the
     * usual ones: bits 1 << form; all NULL: usual ones alone */
    enum vibe_form (*form)(const struct vibe_backend *be,
                           const struct vibe_tensor *x,
                           const struct vibe_matrix *w);
    unsigned (*norm_forms)(const struct vibe_backend *be,
                           const struct vibe_tensor *y);
    unsigned (*attention_forms)(const struct vibe_backend *be,
                                const struct vibe_tensor *y,
                                const struct vibe_tensor *qkv,
                                const struct vibe_kv *kv);
    unsigned (*linear_forms)(const struct vibe_backend *be,
                             const struct vibe_tensor *x,
                             const struct vibe_matrix *w);

    /* ops; the calls below say what each one does */
    void (*linear)(struct vibe_stream *s, const struct vibe_tensor *y,
                   const struct vibe_tensor *x, const struct vibe_matrix *w,
                   enum vibe_epilogue epilogue, const struct vibe_tensor *gate);
    void (*gemm)(struct vibe_stream *s, const struct vibe_tensor *y,
                 const struct vibe_tensor *x, const struct vibe_matrix *w,
                 enum vibe_epilogue epilogue, const struct vibe_tensor *gate);
    void (*rmsnorm)(struct vibe_stream *s, const struct vibe_tensor *y,
                    const struct vibe_tensor *x, const float *w, float eps);
    void (*modulate)(struct vibe_stream *s, const struct vibe_tensor *y,
                     const struct vibe_tensor *x, const float *w, float eps,
                     const struct vibe_tensor *shift,
                     const struct vibe_tensor *scale);
    void (*add_silu)(struct vibe_stream *s, const struct vibe_tensor *y,
                     const struct vibe_tensor *a, const struct vibe_tensor *b);
    void (*affine)(struct vibe_stream *s, const struct vibe_tensor *y,
                   const struct vibe_tensor *x, float mul, float add);
    void (*copy)(struct vibe_stream *s, const struct vibe_tensor *y,
                 const struct vibe_tensor *x);
    void (*zero)(struct vibe_stream *s, const struct vibe_tensor *y);
    void (*attention)(struct vibe_stream *s, const struct vibe_tensor *y,
                      const struct vibe_tensor *qkv, const struct vibe_kv *kv,
                      size_t layer, const struct vibe_rows *rows,
                      const struct vibe_rope *rope);
    void (*window)(struct vibe_stream *s, const struct vibe_tensor *win,
                   const struct vibe_tensor *state,
                   const struct vibe_tensor *past, const struct vibe_tensor *x);
    void (*conv)(struct vibe_stream *s, const struct vibe_tensor *y,
                 const struct vibe_tensor *rows, const struct vibe_matrix *w,
                 const struct vibe_window *window);
    void (*mixer)(struct vibe_stream *s, const struct vibe_tensor *y,
                  const struct vibe_tensor *normed,
                  const struct vibe_tensor *state,
                  const struct vibe_tensor *past, const struct vibe_tensor *x,
                  const struct vibe_mixer *w);
    void (*blocks)(struct vibe_stream *s, const struct vibe_block_call *calls,
                   size_t n, const struct vibe_block_room *room);
    void (*solve)(struct vibe_stream *s, const struct vibe_solver *solver,
                  const struct vibe_solver_coef *coef,
                  const struct vibe_tensor *u, const struct vibe_norm *norm,
                  const struct vibe_matrix *w);
    void (*noise)(struct vibe_stream *s, const struct vibe_tensor *x,
                  const struct vibe_noise_key *keys);
};

/* Copy bytes to or from the device, ordered on the stream; write has taken
 * host when it returns, read has filled it after vibe_stream_check. */
void vibe_write(struct vibe_stream *s, void *device, const void *host,
                size_t bytes);
void vibe_read(struct vibe_stream *s, void *host, const void *device,
               size_t bytes);

enum { VIBE_MARKS = 16 };

/*
 * On a timed stream: mark i is the moment when all that is on the stream by
 * now is done.  Mark 0 comes first and outside of vibe_graph_run; the others
 * are replayed with what was captured.
 */
void vibe_mark(struct vibe_stream *s, size_t i);

/* When a mark of before the last vibe_stream_check was reached, as vibe_clock_s
 * counts; 0 if the stream is not timed. */
double vibe_mark_s(struct vibe_stream *s, size_t i);

/*
 * Let what body enqueues run beside what follows on the stream, until
 * vibe_meet, before which nobody begins anew.  Neither may write what the other
 * reads or writes; body's products are vibe_linear's, which there needs no
 * scratch.
 */
void vibe_beside(struct vibe_stream *s, void (*body)(void *user), void *user);
void vibe_meet(struct vibe_stream *s);

/* From begin_s to end_s, as vibe_clock_s counts. */
struct vibe_span {
    double begin_s, end_s;
};

/*
 * When the copies of transfer.h ran that have ended since the last call, at
 * most max of them.  They are timed from the first call on, against mark 0 of
 * a timed stream; on the CPU there are none.  Returns how many.
 */
size_t vibe_copied(struct vibe_backend *be, struct vibe_span *out, size_t max);

/*
 * Copy bytes from one device to another of the same kind, between what is on
 * the stream they come from and what follows on the one they go to.  An error
 * of from's is to's as well.  Leaves to's device entered.
 */
void vibe_hand_over(struct vibe_stream *to, void *dst, struct vibe_stream *from,
                    const void *src, size_t bytes);

/*
 * Run body, which enqueues the same ops on the same tensors every time.  A GPU
 * calls it once, captures what it enqueues and replays that from then on; the
 * CPU calls it every time.  body may copy to pinned host memory
 * (transfer.h) but not allocate, write, check or free.  What it hands over to
 * streams of other devices comes back to s; all that was on those before has
 * been handed over or waited for.  It is called every time, too, where one of
 * two such devices cannot see the other's memory.
 *
 *   graph   NULL before the first run; vibe_graph_free forgets what was
 *           captured, as when tensors or steps change
 */
void vibe_graph_run(struct vibe_stream *s, struct vibe_graph **graph,
                    void (*body)(void *user), void *user);
void vibe_graph_free(struct vibe_stream *s, struct vibe_graph **graph);

/*
 * y = epilogue(W x + bias), for few rows: bound by reading W once.
 *
 *   y      [B][T][N], or [B][T][N / 2] for VIBE_SWIGLU; must not overlap x
 *   x      [B][T][K]; rows may overlap or be broadcast
 *   gate   [B][T][N] for VIBE_GATE_ADD, else NULL
 *
 * vibe_gemm computes the same for many rows (a prompt, the columns of a
 * convolution): bound by arithmetic, and may choose its method by T, the rows
 * of one dialogue.  The two round differently, so a caller chooses by what the
 * rows are, never by how many dialogues run together.
 */
void vibe_linear(struct vibe_stream *s, const struct vibe_tensor *y,
                 const struct vibe_tensor *x, const struct vibe_matrix *w,
                 enum vibe_epilogue epilogue, const struct vibe_tensor *gate);
void vibe_gemm(struct vibe_stream *s, const struct vibe_tensor *y,
               const struct vibe_tensor *x, const struct vibe_matrix *w,
               enum vibe_epilogue epilogue, const struct vibe_tensor *gate);

/*
 * The form in which x, that only products of w will read, should be kept: the
 * best for them that is among forms, those that what writes x can leave it in
 * (bits 1 << form), or else the usual one.  x->form is not looked at.  The bits
 * of products are the same in all of them.
 */
enum vibe_form vibe_form_for(const struct vibe_backend *be,
                             const struct vibe_tensor *x,
                             const struct vibe_matrix *w, unsigned forms);

/* That which every writer can leave it in: parts, but int4 counts x in units of
 * its own, for which floats are the less work. */
enum vibe_form vibe_usual_form(const struct vibe_matrix *w);

/* Forms that are not usual, as bits 1 << form.  vibe_copy can leave y in all of
 * them, vibe_add_silu in VIBE_FORM_WOVEN. */
enum { VIBE_ALL_FORMS = 1 << VIBE_FORM_WOVEN | 1 << VIBE_FORM_DIGITS };

/* Those of them in which norms, vibe_attention and products can leave such a y:
 * 0 where the device has none. */
unsigned vibe_norm_forms(const struct vibe_backend *be,
                         const struct vibe_tensor *y);
unsigned vibe_attention_forms(const struct vibe_backend *be,
                              const struct vibe_tensor *y,
                              const struct vibe_tensor *qkv,
                              const struct vibe_kv *kv);
/* with x in the form that it will have */
unsigned vibe_linear_forms(const struct vibe_backend *be,
                           const struct vibe_tensor *x,
                           const struct vibe_matrix *w);

/* The room of a norm in the form that vibe_linear_norm leaves it in. */
struct vibe_tensor vibe_norm_room(const struct vibe_backend *be,
                                  const struct vibe_norm *norm,
                                  const struct vibe_matrix *w);

/* vibe_linear of the normed (and modulated) rows of x, which are left in the
 * room of the norm in the form that w wants. */
void vibe_linear_norm(struct vibe_stream *s, const struct vibe_tensor *y,
                      const struct vibe_tensor *x, const struct vibe_norm *norm,
                      const struct vibe_matrix *w, enum vibe_epilogue epilogue,
                      const struct vibe_tensor *gate);

/* y = w * x / sqrt(mean(x^2) + eps) per row; w [C] device or NULL for 1;
 * y may be x. */
void vibe_rmsnorm(struct vibe_stream *s, const struct vibe_tensor *y,
                  const struct vibe_tensor *x, const float *w, float eps);

/* y = rmsnorm(x; w, eps) * (1 + scale) + shift, all [B][T][C]. */
void vibe_modulate(struct vibe_stream *s, const struct vibe_tensor *y,
                   const struct vibe_tensor *x, const float *w, float eps,
                   const struct vibe_tensor *shift,
                   const struct vibe_tensor *scale);

/* y = silu(a + b); a and b may be broadcast; b NULL is 0; y may be a. */
void vibe_add_silu(struct vibe_stream *s, const struct vibe_tensor *y,
                   const struct vibe_tensor *a, const struct vibe_tensor *b);

/* y = x * mul + add; y may be x. */
void vibe_affine(struct vibe_stream *s, const struct vibe_tensor *y,
                 const struct vibe_tensor *x, float mul, float add);

/* y = x, or but for 2^-17 of it, or of the largest of neighbours, where one is
 * for products; x may be broadcast. */
void vibe_copy(struct vibe_stream *s, const struct vibe_tensor *y,
               const struct vibe_tensor *x);

/* y = 0. */
void vibe_zero(struct vibe_stream *s, const struct vibe_tensor *y);

/*
 * Rotate q and k of each row by its position (half-split, "NeoX" pairs
 * i, i + head_dim / 2), store k and v in the cache, and
 * y = softmax(q k^T / sqrt(head_dim)) v over positions 0 .. own position of
 * the row's sequence; query head j reads KV head j / (n_heads / n_kv_heads).
 *
 *   y          [B][T][n_heads * head_dim]; must not overlap qkv
 *   qkv        [B][T][(n_heads + 2 * n_kv_heads) * head_dim]; undefined
 *              afterwards
 *   rope       host, read during the call
 *
 * Blocks up to position pos[b] + T - 1 must be in the table.  A row rounds
 * differently as a step (T = 1) and in a prompt, as vibe_linear and vibe_gemm
 * do.  A device may read positions before pos[b] of a step ahead of the kernels
 * in front of it: what wrote them must have been waited for by the host, or
 * have other ops behind it.
 */
void vibe_attention(struct vibe_stream *s, const struct vibe_tensor *y,
                    const struct vibe_tensor *qkv, const struct vibe_kv *kv,
                    size_t layer, const struct vibe_rows *rows,
                    const struct vibe_rope *rope);

/*
 * Put a chunk behind its past: win = [past | x | zeros], and state = the last
 * p rows of [past | x].  This is the streaming form of causal padding: the
 * convolution itself is a vibe_gemm over overlapping rows of win.
 *
 *   win     [B][p + T'][C], T' >= T; rows past p + T are zeroed
 *   state   [B][p][C], p may be 0; must not overlap past
 *   past    [B][p][C]
 *   x       [B][T][C]; may lie where it belongs in win already
 */
void vibe_window(struct vibe_stream *s, const struct vibe_tensor *win,
                 const struct vibe_tensor *state,
                 const struct vibe_tensor *past, const struct vibe_tensor *x);

/*
 * A causal convolution: vibe_window, then y = W x + bias for overlapping rows
 * of win, as vibe_linear (T = 1) or vibe_gemm.  What is in win behind x may
 * stay as it was.
 *
 *   y     [B][T][N], overlaps neither win nor x
 *   rows  [B][T][K], in window->win from its start
 */
void vibe_conv(struct vibe_stream *s, const struct vibe_tensor *y,
               const struct vibe_tensor *rows, const struct vibe_matrix *w,
               const struct vibe_window *window);

/*
 * A causal depthwise convolution of normed columns, added to its input, and
 * the norm that comes next:
 *
 *   n = rmsnorm(x; norm)
 *   y = x + gamma * (bias + sum_j taps[j] * [past | n][t + j])
 *   normed = rmsnorm(y; next_norm)
 *   state = the last p rows of [past | n], p = VIBE_MIXER_TAPS - 1
 *
 *   y, normed, x   [B][T][C], none overlaps another
 *   state, past    [B][p][C], not overlapping
 */
void vibe_mixer(struct vibe_stream *s, const struct vibe_tensor *y,
                const struct vibe_tensor *normed,
                const struct vibe_tensor *state, const struct vibe_tensor *past,
                const struct vibe_tensor *x, const struct vibe_mixer *w);

/*
 * Blocks of a codec, n of them, one after the other.  Each is vibe_mixer to y
 * and room->normed, then y += gamma * (W2 gelu(W1 normed + b1) + b2), as
 * vibe_linear (T = 1) or vibe_gemm would one after the other.
 *
 *   calls   the x of each is the y of the one before, which is overwritten or
 *           not; all of one shape.  Memory may come again as soon as what was
 *           in it is of no more use
 */
void vibe_blocks(struct vibe_stream *s, const struct vibe_block_call *calls,
                 size_t n, const struct vibe_block_room *room);

/*
 * One step of a solver, from the last rows of the network that guides it:
 * v = W n(u), v = v_neg + cfg_scale * (v_pos - v_neg),
 * m0 = alpha * x - sigma * v, x = a * x + c0 * m0 + c1 * m1, m1 = m0.
 *
 *   coef   host, read during the call
 *   u      [2][D][K]: positive, then negative
 *   norm   n
 *   w      [C][K]
 */
void vibe_solve(struct vibe_stream *s, const struct vibe_solver *solver,
                const struct vibe_solver_coef *coef,
                const struct vibe_tensor *u, const struct vibe_norm *norm,
                const struct vibe_matrix *w);

/* x[d] = C normals named by keys[d] (device array [B]); see backend/noise.h. */
void vibe_noise(struct vibe_stream *s, const struct vibe_tensor *x,
                const struct vibe_noise_key *keys);

#endif /* VIBE_BACKEND_OPS_H */
