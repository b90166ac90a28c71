/* Stands in for engine/backend/cuda/ where the build has no CUDA toolkit. */
#include "engine/backend/cuda.h"

#include <stddef.h>

#include "engine/base/error.h"

int vibe_cuda_open(struct vibe_backend **out,
                   const struct vibe_backend_options *options,
                   struct vibe_error *err)
{
    (void)options;
    *out = NULL;
    return vibe_fail(err, VIBE_E_UNSUPPORTED, "this build has no CUDA");
}
