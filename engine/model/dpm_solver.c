/*
 * dpm_solver.c - noise schedule and step coefficients, see dpm_solver.h.
 */
#include "engine/model/dpm_solver.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PI 3.14159265358979323846

/* Cumulative signal of the cosine schedule at u in [0, 1]. */
static double alpha_bar(double u)
{
    double c = cos((u + 0.008) / 1.008 * PI / 2);

    return c * c;
}

/* sigma[t] = sqrt((1 - A_t) / A_t), A_t = prod (1 - beta), beta clipped. */
static void train_sigmas(float sigma[VIBE_SOLVER_TRAIN_STEPS])
{
    const double n = VIBE_SOLVER_TRAIN_STEPS;
    double product = 1.0;

    for (int i = 0; i < VIBE_SOLVER_TRAIN_STEPS; i++) {
        double ratio = alpha_bar((i + 1) / n) / alpha_bar(i / n);
        float beta = (float)fmin(1.0 - ratio, 0.999);
        float a;

        product *= (double)(1.0f - beta);
        a = (float)product;
        sigma[i] = sqrtf((1.0f - a) / a);
    }
}

/* A point of the path: x = alpha * x0 + sigma * noise. */
struct point {
    float alpha, sigma, lambda;
};

static struct point point_at(float sigma)
{
    struct point p;

    p.alpha = 1.0f / sqrtf(sigma * sigma + 1.0f);
    p.sigma = sigma * p.alpha;
    p.lambda = (float)log((double)p.alpha) - (float)log((double)p.sigma);
    return p;
}

/*
 * The step from `now` to `next`; before is the point before now, or NULL for
 * a step of first order.  At sigma 0 the step lands on m0: h is infinite.
 */
static struct vibe_solver_coef step_coef(const struct point *before,
                                         const struct point *now,
                                         const struct point *next)
{
    float h = next->lambda - now->lambda;
    float b = -next->alpha * ((float)exp((double)-h) - 1.0f);
    struct vibe_solver_coef coef = {
        .alpha = now->alpha,
        .sigma = now->sigma,
        .a = next->sigma / now->sigma,
        .c0 = b,
    };

    if (before) {
        /* b * m0 + b / 2 * (m0 - m1) / r0 */
        double r0 = (double)((now->lambda - before->lambda) / h);

        coef.c0 = (float)((double)b * (1.0 + 0.5 / r0));
        coef.c1 = (float)((double)b * (-0.5 / r0));
    }
    return coef;
}

static void fill_coef(struct vibe_dpm_solver *solver)
{
    size_t n = solver->n_steps;

    for (size_t i = 0; i < n; i++) {
        struct point now = point_at(solver->sigmas[i]);
        struct point next = point_at(solver->sigmas[i + 1]);
        struct point before = {0};
        /* 1000 steps visit one timestep twice: the step that stands still
         * leaves nothing to extrapolate from. */
        int is_second = i > 0 && i + 1 < n &&
                        solver->sigmas[i] != solver->sigmas[i - 1];

        if (is_second)
            before = point_at(solver->sigmas[i - 1]);
        solver->coef[i] = step_coef(is_second ? &before : NULL, &now, &next);
    }
}

int vibe_dpm_solver_init(struct vibe_dpm_solver *solver, size_t n_steps,
                         struct vibe_error *err)
{
    float table[VIBE_SOLVER_TRAIN_STEPS];

    *solver = (struct vibe_dpm_solver){0};
    if (n_steps < 1 || n_steps > VIBE_SOLVER_MAX_STEPS)
        return vibe_fail(err, VIBE_E_ARG,
                         "%zu diffusion steps, expected 1 to %d", n_steps,
                         VIBE_SOLVER_MAX_STEPS);
    solver->n_steps = n_steps;
    solver->timesteps = calloc(n_steps, sizeof(*solver->timesteps));
    solver->sigmas = calloc(n_steps + 1, sizeof(*solver->sigmas));
    solver->coef = calloc(n_steps, sizeof(*solver->coef));
    if (!solver->timesteps || !solver->sigmas || !solver->coef) {
        vibe_dpm_solver_release(solver);
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu solver steps",
                         n_steps);
    }

    train_sigmas(table);
    for (size_t i = 0; i < n_steps; i++) {
        double last = VIBE_SOLVER_TRAIN_STEPS - 1;
        double t = (double)(n_steps - i) * (last / (double)n_steps);

        /* rint: halves go to the even neighbour, as in the reference */
        solver->timesteps[i] = (int)rint(i == 0 ? last : t);
        solver->sigmas[i] = table[solver->timesteps[i]];
    }
    fill_coef(solver);
    return VIBE_OK;
}

void vibe_dpm_solver_release(struct vibe_dpm_solver *solver)
{
    free(solver->timesteps);
    free(solver->sigmas);
    free(solver->coef);
    *solver = (struct vibe_dpm_solver){0};
}

float vibe_dpm_timestep(int t)
{
    float value = (float)t;
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    bits += 0x7FFF + (bits >> 16 & 1);
    bits &= 0xFFFF0000;
    memcpy(&value, &bits, sizeof(value));
    return value;
}
