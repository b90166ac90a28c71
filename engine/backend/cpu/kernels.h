/*
 * kernels.h - the inner loops that each set of instructions has its own of.
 *
 * A table is filled from the bottom up: vibe_cpu_avx2_init fills everything,
 * vibe_cpu_avx512_init then overrides what it does better.
 * All kernels sum in an order that depends on lengths alone, never on how many
 * rows are computed together.
 */
#ifndef VIBE_BACKEND_CPU_KERNELS_H
#define VIBE_BACKEND_CPU_KERNELS_H

#include <stddef.h>

#include "engine/backend/cpu/cpu.h"
#include "engine/backend/ops.h"
#include "engine/base/dtype.h"

enum {
    VIBE_CPU_DTYPES = VIBE_I8 + 1, /* those that are read in place */
    VIBE_CPU_DOT_W = 4,            /* rows of W that dot takes */
    VIBE_CPU_DOT_X = 6,            /* rows of x, at most */
    VIBE_CPU_PACK = 8,             /* rows of W that pack takes */
    VIBE_CPU_TILE_N = 32,          /* columns of a tile, at most */
};

/* What becomes of sums z, see enum vibe_epilogue; rows of the same channels. */
struct vibe_cpu_finish {
    enum vibe_epilogue epilogue;
    const float *scale, *scale_up; /* NULL for 1 */
    const float *bias, *bias_up;   /* NULL for 0 */
    const float *gain;             /* gamma or gate; NULL for 1 */
};

struct vibe_cpu_kernels {
    /*
     * Dot products of 4 rows of W with n_x <= dot_x rows of x:
     * out[r * VIBE_CPU_DOT_X + i] = sum_k w[r][k] * x[i * stride + k].
     * Memory is asked for ahead of its use, past the end of each row too: it
     * pays when the next call takes the rows that follow these.
     */
    void (*dot[VIBE_CPU_DTYPES])(float *out, const void *const w[4],
                                 const float *x, size_t stride, size_t K,
                                 int n_x);
    int dot_x;

    /* As dot, of I4, which scale[r][k / group] makes what they are; K is a
     * multiple of group, that one of 64. */
    void (*dot_i4)(float *out, const void *const w[4],
                   const float *const scale[4], size_t group, const float *x,
                   size_t stride, size_t K, int n_x);

    /* out[r * ld + c] = the tile of planes, 16 x 256 bf16, without escapes;
     * see format/pack.h. */
    void (*unpack)(uint16_t *out, size_t ld, const void *planes, uint32_t base);

    /* panel[k * ld + j] = rows[j][k] as f32, for 8 rows and K columns. */
    void (*pack[VIBE_CPU_DTYPES])(float *panel, size_t ld,
                                  const void *const rows[8], size_t K);

    /*
     * c[i * ldc + j] (+)= sum_k x[i * stride + k] * panel[k * tile_n + j], for
     * n_x <= tile_m rows and tile_n columns; added to c unless is_first.
     */
    void (*tile)(float *c, size_t ldc, const float *x, size_t stride,
                 const float *panel, size_t K, int n_x, int is_first);
    int tile_m, tile_n;

    /* y = epilogue(z), z_up for pairs only; see struct vibe_cpu_finish. */
    void (*finish)(float *y, const float *z, const float *z_up,
                   const struct vibe_cpu_finish *f, size_t n);

    /* Sum of squares. */
    float (*squares)(const float *x, size_t n);

    /* y = x * factor * w (w NULL: 1), then * (1 + scale) + shift if given. */
    void (*normalise)(float *y, const float *x, float factor, const float *w,
                      const float *shift, const float *scale, size_t n);

    /* y = silu(a + b), b NULL: 0. */
    void (*add_silu)(float *y, const float *a, const float *b, size_t n);

    /* y = x + gamma * (bias + sum_j taps[j * n + c] * win[j][c]). */
    void (*mix_columns)(float *y, const float *x,
                        const float *const win[VIBE_MIXER_TAPS],
                        const struct vibe_mixer *w, size_t n);

    /*
     * Scores to weights in place: s[i] = exp(s[i] * scale - top), where top is
     * the larger of *top and all s[i] * scale.  Returns the sum of s and sets
     * *top; *factor is by how much earlier sums shrink: exp(old - new top).
     */
    float (*soften)(float *s, size_t n, float scale, float *top, float *factor);

    /* o[i * n + c] = o[..] * factor[i] + sum_p s[i * ld + p] * v[p][c], for
     * n_s <= dot_x rows; v is [n_v][n] of f32, bf16 or f8. */
    void (*mix[VIBE_F8_E4M3 + 1])(float *o, const float *factor, const float *s,
                                  size_t ld, const void *v, size_t n_v,
                                  size_t n, int n_s);
};

void vibe_cpu_avx2_init(struct vibe_cpu_kernels *k);
void vibe_cpu_avx512_init(struct vibe_cpu_kernels *k);

/* Replace ops of the reference by those over kernels. */
void vibe_cpu_linear_init(struct vibe_ops *ops);
void vibe_cpu_gemm_init(struct vibe_ops *ops);
void vibe_cpu_rows_init(struct vibe_ops *ops);
void vibe_cpu_attention_init(struct vibe_ops *ops);
void vibe_cpu_amx_init(struct vibe_ops *ops); /* after vibe_cpu_gemm_init */

#endif /* VIBE_BACKEND_CPU_KERNELS_H */
