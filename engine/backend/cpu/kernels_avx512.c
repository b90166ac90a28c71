/* Kernels for AVX-512; packing stays with AVX2, whose 8 x 8 transpositions
 * are no slower. */
#include "engine/backend/cpu/kernels.h"

#if defined(__x86_64__)
#include "engine/backend/cpu/vec_avx512.h"

#include "engine/backend/cpu/kernels.inc"

void vibe_cpu_avx512_init(struct vibe_cpu_kernels *k)
{
    take_kernels(k);
}
#else
/* Never called: vibe_cpu_has(VIBE_CPU_AVX512) is false here. */
void vibe_cpu_avx512_init(struct vibe_cpu_kernels *k)
{
    (void)k;
}
#endif
