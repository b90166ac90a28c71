/*
 * cuda.h - the way into the CUDA backend, which a build may lack.
 */
#ifndef VIBE_BACKEND_CUDA_H
#define VIBE_BACKEND_CUDA_H

struct vibe_backend;
struct vibe_backend_options;
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

#endif /* VIBE_BACKEND_CUDA_H */
