#include "cli/errands.h"

#include <pthread.h>
#include <stdlib.h>

#include "cli/cli.h"

enum { MOST = 64 }; /* that wait; each may hold a file open */

struct errand {
    void (*run)(void *user, void *object);
    void *user, *object;
};

struct vibe_errands {
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    struct errand waiting[MOST]; /* a ring */
    size_t first, n;
    int is_closing; /* none come any more */
};

/* The next one, once there is one; 0 when there will be none. */
static int take_next(struct vibe_errands *all, struct errand *out)
{
    int has_one;

    pthread_mutex_lock(&all->lock);
    while (all->n == 0 && !all->is_closing)
        pthread_cond_wait(&all->changed, &all->lock);
    has_one = all->n > 0;
    if (has_one) {
        *out = all->waiting[all->first];
        all->first = (all->first + 1) % MOST;
        all->n--;
        pthread_cond_broadcast(&all->changed);
    }
    pthread_mutex_unlock(&all->lock);
    return has_one;
}

static void *run_all(void *user)
{
    struct vibe_errands *all = user;
    struct errand next;

    while (take_next(all, &next))
        next.run(next.user, next.object);
    return NULL;
}

enum vibe_exit vibe_errands_open(struct vibe_errands **out,
                                 struct vibe_failure *why)
{
    struct vibe_errands *all = calloc(1, sizeof(*all));

    *out = NULL;
    if (!all)
        return vibe_cli_fail_memory(why, "errands");
    pthread_mutex_init(&all->lock, NULL);
    pthread_cond_init(&all->changed, NULL);
    if (pthread_create(&all->thread, NULL, run_all, all) != 0) {
        pthread_cond_destroy(&all->changed);
        pthread_mutex_destroy(&all->lock);
        free(all);
        return vibe_cli_fail_memory(why, "a thread that closes files");
    }
    *out = all;
    return VIBE_EXIT_OK;
}

void vibe_errands_add(struct vibe_errands *all,
                      void (*errand)(void *user, void *object), void *user,
                      void *object)
{
    pthread_mutex_lock(&all->lock);
    while (all->n == MOST)
        pthread_cond_wait(&all->changed, &all->lock);
    all->waiting[(all->first + all->n) % MOST] = (struct errand){
        .run = errand,
        .user = user,
        .object = object,
    };
    all->n++;
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->lock);
}

void vibe_errands_free(struct vibe_errands *all)
{
    if (!all)
        return;
    pthread_mutex_lock(&all->lock);
    all->is_closing = 1;
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->lock);
    pthread_join(all->thread, NULL);
    pthread_cond_destroy(&all->changed);
    pthread_mutex_destroy(&all->lock);
    free(all);
}
