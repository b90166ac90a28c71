/*
 * dpm_solver.h - the tables of DPM-Solver++ (2M) as the model was trained:
 * cosine betas, 1000 training steps, prediction of v, last sigma zero.
 *
 * Tables are computed in double and rounded to float wherever the reference
 * stores a float, so they agree with it to the last bit or two.
 */
#ifndef VIBE_MODEL_DPM_SOLVER_H
#define VIBE_MODEL_DPM_SOLVER_H

#include <stddef.h>

#include "engine/backend/ops.h"

enum { VIBE_SOLVER_TRAIN_STEPS = 1000, VIBE_SOLVER_MAX_STEPS = 1000 };

struct vibe_dpm_solver {
    size_t n_steps;
    int *timesteps;                /* [n_steps], 999 first */
    float *sigmas;                 /* [n_steps + 1], the last one 0 */
    struct vibe_solver_coef *coef; /* [n_steps], for vibe_solver_step */
};

/*
 * Compute the tables.
 *
 *   n_steps   1 .. VIBE_SOLVER_MAX_STEPS
 *
 * Errors: VIBE_E_ARG    n_steps out of range
 *         VIBE_E_NOMEM
 */
int vibe_dpm_solver_init(struct vibe_dpm_solver *solver, size_t n_steps,
                         struct vibe_error *err);
void vibe_dpm_solver_release(struct vibe_dpm_solver *solver);

/*
 * The timestep as the diffusion head was trained to see it: rounded to
 * bfloat16.  This rounding is part of the model, not of its arithmetic.
 */
float vibe_dpm_timestep(int t);

#endif /* VIBE_MODEL_DPM_SOLVER_H */
