/*
 * cuda.h - the way into the CUDA backend, which a build may lack.
 */
#ifndef VIBE_BACKEND_CUDA_H
#define VIBE_BACKEND_CUDA_H

#include <stddef.h>

struct vibe_backend;
struct vibe_backend_options;
struct vibe_device_info;
struct vibe_error;

/*
 * Open one GPU; vibe_backend_open calls it.
 *
 *   out   set to the backend, or to NULL on error; free with vibe_backend_free
 *
 * Errors: VIBE_E_UNSUPPORTED  this build has no CUDA
 *         VIBE_E_DEVICE       no driver, no such GPU, or the driver is too old
 *         VIBE_E_NOMEM
 */
int vibe_cuda_open(struct vibe_backend **out,
                   const struct vibe_backend_options *options,
                   struct vibe_error *err);

/*
 * Visit every GPU, usable or not.
 *
 * Errors: VIBE_E_UNSUPPORTED, VIBE_E_DEVICE as above; then none is visited
 */
int vibe_cuda_list(void (*visit)(void *user,
                                 const struct vibe_device_info *info),
                   void *user, struct vibe_error *err);

/* "cuda 13.0: sm_80 sm_90 + ptx" or "no cuda", in buf of size. */
const char *vibe_cuda_build(char *buf, size_t size);

#endif /* VIBE_BACKEND_CUDA_H */
