/*
 * nvml.h - power, energy and memory of a GPU, from the driver's library.
 *
 * The library is opened when it is first wanted and may be absent; nothing
 * depends on it but these numbers.
 */
#ifndef VIBE_CUDA_NVML_H
#define VIBE_CUDA_NVML_H

#include <stddef.h>

struct vibe_device_reading;
struct vibe_nvml;

/*
 * Find a GPU by its address on the bus, "0000:3b:00.0".
 *
 * Returns NULL where there is no such library or GPU; vibe_nvml_free.
 */
struct vibe_nvml *vibe_nvml_open(const char *bus_id);
void vibe_nvml_free(struct vibe_nvml *nvml);

/* Set power_w and energy_j, negative what is unknown; nvml may be NULL. */
void vibe_nvml_read(const struct vibe_nvml *nvml,
                    struct vibe_device_reading *out);

/* Bytes of memory in use by everybody, asked without a context of one's own;
 * 0: unknown. */
size_t vibe_nvml_used(const struct vibe_nvml *nvml);

/* Bytes of them that are this process's; 0: none, or unknown, as where the
 * driver knows it by another number. */
size_t vibe_nvml_used_by_us(const struct vibe_nvml *nvml);

#endif /* VIBE_CUDA_NVML_H */
