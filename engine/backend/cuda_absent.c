/* Stands in for engine/backend/cuda/ where the build has no CUDA toolkit. */
#include "engine/backend/cuda.h"

#include <stdio.h>

#include "engine/base/error.h"

int vibe_cuda_open(struct vibe_backend **out,
                   const struct vibe_backend_options *options,
                   struct vibe_error *err)
{
    (void)options;
    *out = NULL;
    return vibe_fail(err, VIBE_E_UNSUPPORTED, "this build has no CUDA");
}

int vibe_cuda_list(void (*visit)(void *user,
                                 const struct vibe_device_info *info),
                   void *user, struct vibe_error *err)
{
    (void)visit, (void)user;
    return vibe_fail(err, VIBE_E_UNSUPPORTED, "this build has no CUDA");
}

const char *vibe_cuda_build(char *buf, size_t size)
{
    snprintf(buf, size, "no cuda");
    return buf;
}
