/*
 * worst.h - the largest of many errors.
 */
#ifndef VIBE_BASE_WORST_H
#define VIBE_BASE_WORST_H

#include <math.h>

/* The larger error, and NaN once there was one: fmax would forget it. */
static inline double vibe_worst(double worst, double error)
{
    return isnan(worst) || worst > error ? worst : error;
}

#endif /* VIBE_BASE_WORST_H */
