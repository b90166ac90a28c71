/*
 * tally.h - a backend that has nothing and counts what a GPU would be asked.
 *
 * Modules are opened on it by the code that opens them on a device, so what is
 * counted is what will be taken, to the byte, and no GPU is needed for it.
 * Memory is imaginary: writes are forgotten, and ops must not run.  Weights
 * are laid out as engine/backend/cuda/matrix.h says; a test holds the two
 * together.
 */
#ifndef VIBE_BACKEND_TALLY_H
#define VIBE_BACKEND_TALLY_H

#include "engine/backend/backend.h"

struct vibe_tally_options {
    enum vibe_dtype kv_dtype;
    /* what the matrices of the language model would be kept in; AUTO: as they
     * are */
    enum vibe_weight_dtype lm;
};

/*
 * Open a tally; ops->memory of it is the result.  Rows of matrices loaded for
 * VIBE_FOR_LM count as VIBE_FOR_LM_ROWS.
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_tally_open(struct vibe_backend **out,
                    const struct vibe_tally_options *options,
                    struct vibe_error *err);

#endif /* VIBE_BACKEND_TALLY_H */
