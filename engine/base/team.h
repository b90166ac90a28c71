/*
 * team.h - independent tasks on several threads.
 */
#ifndef VIBE_BASE_TEAM_H
#define VIBE_BASE_TEAM_H

#include <stddef.h>

/* CPUs that this process may run on. */
int vibe_team_size(void);

/*
 * Run task(user, i) once for each i < n, in any order, and wait for all.
 *
 *   threads   at most so many at once, this one among them; where no more can
 *             be made, fewer
 */
void vibe_team_run(int threads, size_t n, void (*task)(void *user, size_t i),
                   void *user);

#endif /* VIBE_BASE_TEAM_H */
