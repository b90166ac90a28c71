/*
 * golden.h - recorded results: golden.safetensors and golden.json beside it.
 */
#ifndef VIBE_GOLDEN_H
#define VIBE_GOLDEN_H

#include <stddef.h>
#include <stdint.h>

#include "engine/text/script.h"

struct vibe_error;
struct vibe_safetensors;

struct vibe_golden {
    struct vibe_safetensors *st; /* owned */
    struct vibe_script script;   /* owned; speakers as the model numbers them */
    float cfg_scale;
    size_t steps;
    size_t max_new_tokens;
};

/*
 * Open a record.
 *
 *   out    all zero; release with vibe_golden_release, also after an error
 *   path   golden.safetensors
 *
 * Errors: VIBE_E_IO, VIBE_E_FORMAT, VIBE_E_NOMEM
 */
int vibe_golden_init(struct vibe_golden *out, const char *path,
                     struct vibe_error *err);
void vibe_golden_release(struct vibe_golden *g);

/* Elements of a tensor; 0 when it is absent. */
size_t vibe_golden_size(const struct vibe_golden *g, const char *name);

/*
 * Copy a tensor of n elements.
 *
 *   out   [n] malloc'd, owned by the caller; NULL on error
 *
 * Errors: VIBE_E_FORMAT  absent, or another number of elements; msg names it
 *         VIBE_E_NOMEM
 */
int vibe_golden_f32(const struct vibe_golden *g, float **out, const char *name,
                    size_t n, struct vibe_error *err);
int vibe_golden_i64(const struct vibe_golden *g, int64_t **out,
                    const char *name, size_t n, struct vibe_error *err);

#endif /* VIBE_GOLDEN_H */
