/* devices.c - what there is to compute on, and what this build knows. */
#include <stdio.h>
#include <string.h>

#include "engine/backend/cpu/cpu.h"
#include "engine/backend/cuda.h"
#include "engine/backend/ops.h"
#include "engine/base/device.h"
#include "engine/engine.h"

/* A backend of the CPU is opened for what it says of itself. */
static int visit_cpu(void (*visit)(void *user,
                                   const struct vibe_device_info *info),
                     void *user, struct vibe_error *err)
{
    const struct vibe_backend_options options = {0};
    struct vibe_device_reading reading;
    struct vibe_backend *be = NULL;
    struct vibe_device_info info = {.gpu = -1, .is_usable = 1};
    int rc = vibe_backend_open(&be, &options, err);

    if (rc != VIBE_OK)
        return rc;
    be->ops->meter(be, &reading);
    memcpy(info.name, be->name, sizeof(info.name));
    info.n_units = (size_t)vibe_cpu_threads();
    info.memory_total = reading.memory_total;
    info.memory_free = reading.memory_total - reading.memory_used;
    visit(user, &info);
    vibe_backend_free(be);
    return VIBE_OK;
}

int vibe_list_devices(void (*visit)(void *user,
                                    const struct vibe_device_info *info),
                      void *user, struct vibe_error *err)
{
    int rc = visit_cpu(visit, user, err);

    return rc == VIBE_OK ? vibe_cuda_list(visit, user, err) : rc;
}

const char *vibe_describe_build(char *buf, size_t size)
{
    char cuda[128], isas[64] = "";
    size_t n = 0;

    for (enum vibe_cpu_isa isa = VIBE_CPU_AVX2; isa < VIBE_CPU_N_ISA; isa++)
        if (vibe_cpu_has(isa))
            n += (size_t)snprintf(isas + n, sizeof(isas) - n, " %s",
                                  vibe_cpu_isa_name(isa));
    snprintf(buf, size, "%s; cpu:%s", vibe_cuda_build(cuda, sizeof(cuda)),
             n ? isas : " scalar");
    return buf;
}

void vibe_engine_meter(struct vibe_engine *engine,
                       struct vibe_device_reading *out)
{
    engine->backend->ops->meter(engine->backend, out);
}
