/*
 * product.h - what vibe_linear and vibe_gemm share.
 */
#ifndef VIBE_BACKEND_CPU_PRODUCT_H
#define VIBE_BACKEND_CPU_PRODUCT_H

#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/state.h"

/* One call of vibe_linear or vibe_gemm. */
struct vibe_cpu_product {
    const struct vibe_cpu_kernels *kernels;
    const struct vibe_tensor *y, *x, *gate;
    const struct vibe_matrix *w;
    enum vibe_epilogue epilogue;
    size_t M;
    int threads;
};

static inline struct vibe_cpu_product vibe_cpu_product(
    const struct vibe_stream *s, const struct vibe_tensor *y,
    const struct vibe_tensor *x, const struct vibe_matrix *w,
    enum vibe_epilogue epilogue, const struct vibe_tensor *gate)
{
    const struct vibe_cpu *cpu = vibe_cpu_of(s);

    return (struct vibe_cpu_product){
        .kernels = cpu->kernels,
        .y = y,
        .x = x,
        .gate = gate,
        .w = w,
        .epilogue = epilogue,
        .M = y->B * y->T,
        .threads = vibe_cpu_team(s, y->B * y->T * w->N * w->K),
    };
}

/*
 * Finish channels n .. n + count - 1 of row m of y.
 *
 *   z      sums for those channels
 *   z_up   for a pair: sums of its second half
 */
static inline void vibe_cpu_finish_row(const struct vibe_cpu_product *p,
                                       size_t m, size_t n, size_t count,
                                       const float *z, const float *z_up)
{
    const struct vibe_matrix *w = p->w;
    const float *scale = w->part[0].scale; /* [N], see matrix.c */
    const float *gain = w->gamma ? w->gamma + n : NULL;
    size_t up = n + w->whole_N / 2; /* arrays are the whole's */
    struct vibe_cpu_finish f = {
        .epilogue = p->epilogue,
        .scale = scale ? scale + n : NULL,
        .scale_up = scale && z_up ? scale + up : NULL,
        .bias = w->bias ? w->bias + n : NULL,
        .bias_up = w->bias && z_up ? w->bias + up : NULL,
        .gain = p->gate ? vibe_cpu_row(p->gate, m) + n : gain,
    };

    p->kernels->finish(vibe_cpu_row(p->y, m) + n, z, z_up, &f, count);
}

/* The op of gemm.c, for weights that gemm_amx.c has no tiles for. */
void vibe_cpu_gemm(struct vibe_stream *s, const struct vibe_tensor *y,
                   const struct vibe_tensor *x, const struct vibe_matrix *w,
                   enum vibe_epilogue epilogue, const struct vibe_tensor *gate);

#endif /* VIBE_BACKEND_CPU_PRODUCT_H */
