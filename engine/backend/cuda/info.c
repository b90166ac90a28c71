/* What GPUs there are, and what they say of themselves. */
#include <stdio.h>

#include "engine/backend/cuda.h"
#include "engine/backend/cuda/device.h"
#include "engine/backend/cuda/nvml.h"
#include "engine/base/device.h"

enum { BUS_ID_LENGTH = 32 };

const char *vibe_cuda_build(char *buf, size_t size)
{
    snprintf(buf, size, "cuda %d.%d: %s", CUDART_VERSION / 1000,
             CUDART_VERSION % 1000 / 10, VIBE_CUDA_ARCHS);
    return buf;
}

static cudaError_t look(struct vibe_device_info *out, int device)
{
    struct cudaDeviceProp prop;
    cudaError_t rc = cudaGetDeviceProperties(&prop, device);

    if (rc == cudaSuccess)
        rc = cudaSetDevice(device);
    *out = (struct vibe_device_info){.gpu = device};
    if (rc == cudaSuccess)
        rc = cudaMemGetInfo(&out->memory_free, &out->memory_total);
    if (rc != cudaSuccess)
        return rc;
    snprintf(out->name, sizeof(out->name), "%.90s", prop.name);
    out->cc = 10 * prop.major + prop.minor;
    out->is_usable = out->cc >= VIBE_CUDA_MIN_CC;
    out->n_units = (size_t)prop.multiProcessorCount;
    return cudaSuccess;
}

int vibe_cuda_list(void (*visit)(void *user,
                                 const struct vibe_device_info *info),
                   void *user, struct vibe_error *err)
{
    int n = 0;
    int rc = vibe_cuda_check_driver(err);

    if (rc == VIBE_OK && cudaGetDeviceCount(&n) != cudaSuccess)
        n = 0;
    for (int i = 0; i < n && rc == VIBE_OK; i++) {
        struct vibe_device_info info;
        cudaError_t found = look(&info, i);

        if (found == cudaSuccess)
            visit(user, &info);
        else
            rc = vibe_cuda_fail(err, found, "looking at the GPU");
    }
    return rc;
}

/* NULL where there is none. */
static struct vibe_nvml *nvml_of(struct vibe_cuda *cuda)
{
    char bus_id[BUS_ID_LENGTH];

    if (!cuda->has_looked_for_nvml &&
        cudaDeviceGetPCIBusId(bus_id, sizeof(bus_id), cuda->device) ==
            cudaSuccess)
        cuda->nvml = vibe_nvml_open(bus_id);
    cuda->has_looked_for_nvml = 1;
    return cuda->nvml;
}

struct vibe_cuda_usage vibe_cuda_usage(struct vibe_cuda *cuda)
{
    const struct vibe_nvml *nvml = nvml_of(cuda);

    return (struct vibe_cuda_usage){
        .all = vibe_nvml_used(nvml),
        .own = vibe_nvml_used_by_us(nvml),
    };
}

static void meter(struct vibe_backend *be, struct vibe_device_reading *out)
{
    struct vibe_cuda *cuda = vibe_cuda_of(be);
    size_t n_free = 0;

    *out = (struct vibe_device_reading){0};
    if (cudaMemGetInfo(&n_free, &out->memory_total) == cudaSuccess)
        out->memory_used = out->memory_total - n_free;
    out->memory_own = vibe_nvml_used_by_us(nvml_of(cuda));
    vibe_nvml_read(nvml_of(cuda), out);
}

void vibe_cuda_info_init(struct vibe_ops *ops)
{
    ops->meter = meter;
}
