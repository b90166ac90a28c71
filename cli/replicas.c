#include "cli/replicas.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cli/devices.h"
#include "cli/queue.h"
#include "cli/request.h"
#include "cli/run.h"
#include "engine/vibevoice.h"

enum state { OPENING, OPENED, FAILED };

/* An engine beside the first, and the thread that it speaks in. */
struct helper {
    struct vibe_replicas *all;
    struct vibe_options options; /* those of the run, but for the device */
    struct vibe_cli cli;
    pthread_t thread;
    int is_running;
    enum state state; /* under the lock */
    struct vibe_failure why;
};

struct vibe_replicas {
    struct helper *helpers; /* [n] */
    size_t n;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    struct vibe_queue *q; /* to be emptied; NULL: not yet */
    int is_stopping;
};

/* The first failure stops everybody. */
static void stop(struct vibe_queue *q)
{
    pthread_mutex_lock(&q->run->lock);
    q->is_stopped = 1;
    pthread_mutex_unlock(&q->run->lock);
}

/* Tell what became of opening, and wait for something to speak; NULL where
 * there will be nothing. */
static struct vibe_queue *wait_for_queue(struct helper *helper,
                                         enum vibe_exit status)
{
    struct vibe_replicas *all = helper->all;
    struct vibe_queue *q;

    pthread_mutex_lock(&all->lock);
    helper->state = status == VIBE_EXIT_OK ? OPENED : FAILED;
    pthread_cond_broadcast(&all->changed);
    while (helper->state == OPENED && !all->q && !all->is_stopping)
        pthread_cond_wait(&all->changed, &all->lock);
    q = helper->state == OPENED ? all->q : NULL;
    pthread_mutex_unlock(&all->lock);
    return q;
}

static void *help(void *user)
{
    struct helper *helper = user;
    struct vibe_engine *engine = NULL;
    /* opened here: a thread has one GPU */
    const enum vibe_exit status = vibe_cli_open_engine(
        &engine, &helper->cli, VIBE_USE_SPEAK, &helper->why);
    struct vibe_queue *q = wait_for_queue(helper, status);

    if (q && vibe_queue_speak(q, engine, &helper->why) != VIBE_EXIT_OK)
        stop(q);
    vibe_engine_free(engine);
    return NULL;
}

static enum vibe_exit start(struct helper *helper, const struct vibe_cli *cli,
                            const struct vibe_replica *replica)
{
    helper->options = *cli->options;
    helper->options.device = replica->device;
    helper->options.device_index = replica->index;
    helper->cli = *cli;
    helper->cli.options = &helper->options;
    helper->is_running = pthread_create(&helper->thread, NULL, help, helper) ==
                         0;
    if (helper->is_running)
        return VIBE_EXIT_OK;
    return vibe_cli_fail(&helper->why, VIBE_EXIT_MEMORY, NULL,
                         "no thread for another engine");
}

/* Wait until every helper has opened its engine, or failed to. */
static void wait_for_engines(struct vibe_replicas *all)
{
    pthread_mutex_lock(&all->lock);
    for (size_t i = 0; i < all->n; i++)
        while (all->helpers[i].is_running && all->helpers[i].state == OPENING)
            pthread_cond_wait(&all->changed, &all->lock);
    pthread_mutex_unlock(&all->lock);
}

/* The first failure among the helpers, where there is none yet. */
static enum vibe_exit find_failure(const struct vibe_replicas *all,
                                   enum vibe_exit status,
                                   struct vibe_failure *why)
{
    for (size_t i = 0; i < all->n && status == VIBE_EXIT_OK; i++)
        if (all->helpers[i].why.status != VIBE_EXIT_OK) {
            *why = all->helpers[i].why;
            status = why->status;
        }
    return status;
}

enum vibe_exit vibe_replicas_open(struct vibe_replicas **out,
                                  const struct vibe_cli *cli,
                                  struct vibe_engine *first,
                                  const struct vibe_replica *replicas, size_t n,
                                  struct vibe_failure *why)
{
    struct vibe_replicas *all = calloc(1, sizeof(*all));
    struct vibe_cli like = *cli;
    enum vibe_exit status = VIBE_EXIT_OK;

    *out = NULL;
    if (all)
        all->helpers = calloc(n, sizeof(*all->helpers));
    if (!all || !all->helpers) {
        free(all);
        return vibe_cli_fail_memory(why, "engines");
    }
    pthread_mutex_init(&all->lock, NULL);
    pthread_cond_init(&all->changed, NULL);
    like.like = first;
    for (size_t i = 1; i < n && status == VIBE_EXIT_OK; i++) {
        all->helpers[all->n].all = all;
        status = start(&all->helpers[all->n++], &like, &replicas[i]);
    }
    wait_for_engines(all);
    status = find_failure(all, VIBE_EXIT_OK, why);
    if (status != VIBE_EXIT_OK) {
        vibe_replicas_free(all);
        return status;
    }
    *out = all;
    return VIBE_EXIT_OK;
}

/* Have the helpers go on, and wait for their ends. */
static void finish(struct vibe_replicas *all)
{
    pthread_mutex_lock(&all->lock);
    all->is_stopping = 1;
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->lock);
    for (size_t i = 0; i < all->n; i++) {
        if (all->helpers[i].is_running)
            pthread_join(all->helpers[i].thread, NULL);
        all->helpers[i].is_running = 0;
    }
}

enum vibe_exit vibe_replicas_speak(struct vibe_replicas *all,
                                   struct vibe_queue *q,
                                   struct vibe_engine *first,
                                   struct vibe_failure *why)
{
    enum vibe_exit status;

    pthread_mutex_lock(&all->lock);
    all->q = q;
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->lock);
    status = vibe_queue_speak(q, first, why);
    if (status != VIBE_EXIT_OK)
        stop(q);
    finish(all);
    return find_failure(all, status, why);
}

void vibe_replicas_free(struct vibe_replicas *all)
{
    if (!all)
        return;
    finish(all);
    pthread_cond_destroy(&all->changed);
    pthread_mutex_destroy(&all->lock);
    free(all->helpers);
    free(all);
}
