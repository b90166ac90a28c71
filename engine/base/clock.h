/*
 * clock.h - elapsed time.
 */
#ifndef VIBE_BASE_CLOCK_H
#define VIBE_BASE_CLOCK_H

/* Seconds since some fixed moment; never goes back. */
double vibe_clock_s(void);

#endif /* VIBE_BASE_CLOCK_H */
