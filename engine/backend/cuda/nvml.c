#include "engine/backend/cuda/nvml.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/device.h"

/*
 * The few calls that are used, as NVIDIA documents them: nvml.h comes with
 * the driver's own package, which a build machine need not have.  Each returns
 * 0 on success.
 */
typedef void *nvml_device;

struct nvml_memory {
    unsigned long long total, free, used;
};

struct nvml_process {
    unsigned pid;
    unsigned long long used; /* all ones: unknown */
    unsigned gpu_instance, compute_instance;
};

struct vibe_nvml {
    void *library;
    int is_running; /* init has succeeded */
    nvml_device device;

    int (*init)(void);
    int (*shutdown)(void);
    int (*by_bus_id)(const char *bus_id, nvml_device *out);
    int (*memory)(nvml_device device, struct nvml_memory *out);
    int (*power)(nvml_device device, unsigned *milliwatts);
    int (*energy)(nvml_device device, unsigned long long *millijoules);
    /* NULL in old drivers */
    int (*processes)(nvml_device device, unsigned *n, struct nvml_process *out);
};

/* Set the function pointer at function; returns 1 where there is none. */
static int find(void *library, void *function, const char *name)
{
    void *symbol = dlsym(library, name);

    memcpy(function, &symbol, sizeof(symbol));
    return !symbol;
}

static int find_functions(struct vibe_nvml *nvml)
{
    void *so = nvml->library;

    find(so, &nvml->processes, "nvmlDeviceGetComputeRunningProcesses_v3");
    return find(so, &nvml->init, "nvmlInit_v2") ||
           find(so, &nvml->shutdown, "nvmlShutdown") ||
           find(so, &nvml->by_bus_id, "nvmlDeviceGetHandleByPciBusId_v2") ||
           find(so, &nvml->memory, "nvmlDeviceGetMemoryInfo") ||
           find(so, &nvml->power, "nvmlDeviceGetPowerUsage") ||
           find(so, &nvml->energy, "nvmlDeviceGetTotalEnergyConsumption");
}

struct vibe_nvml *vibe_nvml_open(const char *bus_id)
{
    struct vibe_nvml *nvml = calloc(1, sizeof(*nvml));

    if (!nvml)
        return NULL;
    nvml->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (nvml->library && !find_functions(nvml)) {
        nvml->is_running = nvml->init() == 0;
        if (nvml->is_running && nvml->by_bus_id(bus_id, &nvml->device) == 0)
            return nvml;
    }
    vibe_nvml_free(nvml);
    return NULL;
}

void vibe_nvml_free(struct vibe_nvml *nvml)
{
    if (!nvml)
        return;
    if (nvml->is_running)
        nvml->shutdown();
    if (nvml->library)
        dlclose(nvml->library);
    free(nvml);
}

void vibe_nvml_read(const struct vibe_nvml *nvml,
                    struct vibe_device_reading *out)
{
    unsigned milliwatts = 0;
    unsigned long long millijoules = 0;

    out->power_w = -1.0;
    out->energy_j = -1.0;
    if (nvml && nvml->power(nvml->device, &milliwatts) == 0)
        out->power_w = 1e-3 * (double)milliwatts;
    if (nvml && nvml->energy(nvml->device, &millijoules) == 0)
        out->energy_j = 1e-3 * (double)millijoules;
}

size_t vibe_nvml_used(const struct vibe_nvml *nvml)
{
    struct nvml_memory memory = {0};

    if (!nvml || nvml->memory(nvml->device, &memory) != 0)
        return 0;
    return (size_t)memory.used;
}

size_t vibe_nvml_used_by_us(const struct vibe_nvml *nvml)
{
    struct nvml_process processes[64];
    unsigned n = sizeof(processes) / sizeof(processes[0]);
    const unsigned pid = (unsigned)getpid();

    if (!nvml || !nvml->processes ||
        nvml->processes(nvml->device, &n, processes) != 0)
        return 0;
    for (unsigned i = 0; i < n; i++)
        if (processes[i].pid == pid && ~processes[i].used)
            return (size_t)processes[i].used;
    return 0;
}
