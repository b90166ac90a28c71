/*
 * weights_dir.h - what the tests of engine/format/weights.h share: a folder
 * with a checkpoint in it.
 */
#ifndef WEIGHTS_DIR_H
#define WEIGHTS_DIR_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/error.h"
#include "engine/format/safetensors_write.h"
#include "engine/format/weights.h"
#include "tests/support/st_writer.h"

struct weights_fixture {
    struct st_dir dir;
    struct vibe_weights *w;
    struct vibe_weight got;
    float *f32;
    struct vibe_error err;
};

/* For VIBE_TEST(): an empty folder for each test. */
int weights_setup(void **state);
int weights_teardown(void **state);

/* BF16: 1 .. 6 and then zeros. */
extern const uint16_t weights_ones[64];

/* A BF16 tensor of rows x cols of them. */
struct vibe_safetensors_item weights_matrix(const char *name, size_t rows,
                                            size_t cols);

/* Write a file of the folder. */
void weights_write(struct weights_fixture *f, const char *name,
                   const struct vibe_safetensors_item *items, size_t n);

/* Write model.safetensors with a 2x3 "lin.weight" and one more tensor. */
void weights_write_pair(struct weights_fixture *f,
                        struct vibe_safetensors_item second);

/* Open the folder; a failure fails the test. */
void weights_open(struct weights_fixture *f);

/* The folder cannot be opened, and the sentence names it and says that. */
void weights_assert_refused(struct weights_fixture *f, int code,
                            const char *part);
void weights_assert_says(const struct weights_fixture *f, const char *part);

#endif /* WEIGHTS_DIR_H */
