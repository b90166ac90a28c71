/*
 * golden.h - small models with recorded results of the reference, for tests.
 *
 * A recorded result is met when no element is off by more than
 * 1e-4 * max(1, max |recorded|): an independent float64 implementation meets
 * the same records to 3e-5, so what is left is room for float32 rounding and
 * little else.
 */
#ifndef VIBE_TEST_GOLDEN_H
#define VIBE_TEST_GOLDEN_H

#include <stddef.h>
#include <stdint.h>

#include "engine/backend/backend.h"
#include "engine/format/config.h"

struct vibe_safetensors;
struct vibe_weights;

enum { GOLDEN_MODELS = 2 };

struct golden {
    const char *name; /* of its folder in tests/golden */
    struct vibe_config config;
    struct vibe_weights *w;
    struct vibe_safetensors *recorded;
    struct vibe_backend *be; /* CPU, one thread: the models are tiny */
    struct vibe_stream stream;
    int32_t control[4]; /* speech_start, speech_end, speech_diffusion, eos */
};

struct golden_tensor {
    const float *data; /* borrowed from the mapping */
    size_t n;
    size_t shape[4];
    size_t n_dims;
};

/* Open model i < GOLDEN_MODELS; a failure fails the test. */
void golden_open(struct golden *g, size_t i);
void golden_release(struct golden *g);

/* A recorded F32 tensor by its name; a failure fails the test. */
struct golden_tensor golden_get(const struct golden *g, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* A recorded I64 tensor. */
const int64_t *golden_ids(const struct golden *g, const char *name, size_t *n);

/* Largest |got - want|. */
double golden_error(const float *got, const float *want, size_t n);

/* Fail unless got[n] meets want[n] as said above; what names it. */
void golden_assert(const char *what, const float *got, const float *want,
                   size_t n);

/* Device tensors of a test: filled from host, and read back. */
struct vibe_tensor golden_put(struct golden *g, const float *host, size_t B,
                              size_t T, size_t C);
void golden_take(struct golden *g, float *host, const struct vibe_tensor *t);

#endif /* VIBE_TEST_GOLDEN_H */
