#include "cli/replicas.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cli/queue.h"
#include "cli/request.h"
#include "cli/run.h"
#include "engine/vibevoice.h"

/* An engine beside the first, and the thread that it speaks in. */
struct helper {
    struct vibe_queue *q;
    struct vibe_options options; /* those of the run, but for the device */
    struct vibe_cli cli;
    pthread_t thread;
    int is_running;
    struct vibe_failure why;
};

/* "3", "cuda:3" or "cpu" of n bytes; 0 if it is none of them. */
static int read_device(struct vibe_replica *out, const char *word, size_t n)
{
    *out = (struct vibe_replica){.device = VIBE_DEVICE_CPU};
    if (n == 3 && memcmp(word, "cpu", 3) == 0)
        return 1;
    out->device = VIBE_DEVICE_CUDA;
    if (n > 5 && memcmp(word, "cuda:", 5) == 0) {
        word += 5;
        n -= 5;
    }
    if (n < 1 || n > 3)
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (word[i] < '0' || word[i] > '9')
            return 0;
        out->index = 10 * out->index + (word[i] - '0');
    }
    return 1;
}

enum vibe_exit vibe_replicas_parse(struct vibe_replica *out, size_t *n,
                                   const char *devices,
                                   struct vibe_failure *why)
{
    *n = 0;
    while (devices && *devices) {
        const size_t length = strcspn(devices, ",");

        if (*n == VIBE_REPLICAS_MAX ||
            !read_device(&out[(*n)++], devices, length))
            return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                                 "--devices: '%.*s' is not a GPU's number, "
                                 "cuda:N or cpu",
                                 (int)length, devices);
        devices += length + (devices[length] == ',');
    }
    return VIBE_EXIT_OK;
}

/* The first failure stops everybody. */
static void stop(struct vibe_queue *q)
{
    pthread_mutex_lock(&q->run->lock);
    q->is_stopped = 1;
    pthread_mutex_unlock(&q->run->lock);
}

static void *help(void *user)
{
    struct helper *helper = user;
    struct vibe_engine *engine = NULL;
    /* opened here: a thread has one GPU */
    enum vibe_exit status = vibe_cli_open_engine(&engine, &helper->cli,
                                                 VIBE_USE_SPEAK, &helper->why);

    if (status == VIBE_EXIT_OK)
        status = vibe_queue_speak(helper->q, engine, &helper->why);
    if (status != VIBE_EXIT_OK)
        stop(helper->q);
    vibe_engine_free(engine);
    return NULL;
}

static enum vibe_exit start(struct helper *helper, struct vibe_queue *q,
                            const struct vibe_replica *replica)
{
    const struct vibe_cli *cli = q->run->cli;

    helper->q = q;
    helper->options = *cli->options;
    helper->options.device = replica->device;
    helper->options.device_index = replica->index;
    helper->cli = *cli;
    helper->cli.options = &helper->options;
    helper->is_running = pthread_create(&helper->thread, NULL, help, helper) ==
                         0;
    if (helper->is_running)
        return VIBE_EXIT_OK;
    stop(q);
    return vibe_cli_fail(&helper->why, VIBE_EXIT_MEMORY, NULL,
                         "no thread for another engine");
}

enum vibe_exit vibe_replicas_speak(struct vibe_queue *q,
                                   struct vibe_engine *first,
                                   const struct vibe_replica *replicas,
                                   size_t n, struct vibe_failure *why)
{
    struct vibe_cli *cli = q->run->cli;
    struct helper *helpers = calloc(n, sizeof(*helpers));
    struct vibe_request *requests = vibe_requests_of(
        cli->options, &q->run->jobs, &cli->n_requests);
    enum vibe_exit status = VIBE_EXIT_OK;

    if (!helpers || !requests) {
        free(helpers);
        free(requests);
        return vibe_cli_fail(why, VIBE_EXIT_MEMORY, NULL,
                             "no memory for %zu engines", n);
    }
    cli->requests = requests; /* by which the others are planned */
    for (size_t i = 1; i < n && status == VIBE_EXIT_OK; i++)
        status = start(&helpers[i], q, &replicas[i]);
    if (status == VIBE_EXIT_OK)
        status = vibe_queue_speak(q, first, why);
    if (status != VIBE_EXIT_OK)
        stop(q);
    for (size_t i = 1; i < n; i++) {
        if (helpers[i].is_running)
            pthread_join(helpers[i].thread, NULL);
        if (helpers[i].why.status != VIBE_EXIT_OK && !why->err.msg[0]) {
            *why = helpers[i].why;
            status = why->status;
        }
    }
    cli->requests = NULL;
    cli->n_requests = 0;
    free(requests);
    free(helpers);
    return status;
}
