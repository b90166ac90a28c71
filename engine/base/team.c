#include "engine/base/team.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { MAX_HELPERS = 255 };

struct team {
    void (*task)(void *user, size_t i);
    void *user;
    size_t n;
    atomic_size_t next;
};

int vibe_team_size(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

static void *work(void *arg)
{
    struct team *team = arg;
    size_t i;

    while ((i = atomic_fetch_add(&team->next, 1)) < team->n)
        team->task(team->user, i);
    return NULL;
}

void vibe_team_run(int threads, size_t n, void (*task)(void *user, size_t i),
                   void *user)
{
    struct team team = {.task = task, .user = user, .n = n};
    pthread_t helper[MAX_HELPERS];
    int n_helpers = 0;

    while (n_helpers < MAX_HELPERS && n_helpers + 1 < threads &&
           (size_t)n_helpers + 1 < n &&
           pthread_create(&helper[n_helpers], NULL, work, &team) == 0)
        n_helpers++;
    work(&team);
    while (n_helpers > 0)
        pthread_join(helper[--n_helpers], NULL);
}
