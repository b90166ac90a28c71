/* schedule.c - many dialogues through one generator: vibe_speak_batch. */
#include <stdlib.h>

#include "engine/base/clock.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "engine/talk.h"
#include "engine/voice.h"

/*
 * Talk d is the generator's dialogue d.  The next one, if there is one, is
 * reading its prompt, or waits until all others have ended because its frames
 * take another number of solver steps.
 */
struct schedule {
    struct vibe_engine *engine;
    const struct vibe_batch *batch;
    struct vibe_talk **talks; /* [n] owned */
    size_t n;
    struct vibe_talk *next; /* owned, or NULL */
    int is_dry; /* there was no request, and no dialogue has ended since */
};

/* Tell of a talk that is over. */
static void tell(struct schedule *q, struct vibe_talk *talk)
{
    vibe_talk_end(talk, q->engine);
    q->batch->on_end(q->batch->user, &talk->request, &talk->result, &talk->err);
    q->is_dry = 0;
}

/* Have a next talk if there is one. */
static int take(struct schedule *q, struct vibe_error *err)
{
    struct vibe_request request = {0};

    if (q->is_dry)
        return VIBE_OK;
    q->is_dry = !q->batch->next(q->batch->user, &request);
    return q->is_dry ? VIBE_OK
                     : vibe_talk_open(&q->next, q->engine, &request, err);
}

/* The next talk goes no further. */
static void drop_next(struct schedule *q)
{
    struct vibe_talk *talk = q->next;

    q->next = NULL;
    tell(q, talk);
    vibe_talk_free(talk);
}

/* Begin the next talk, which is not over.  Whether it may read now. */
static int admit(struct schedule *q)
{
    struct vibe_generator *g = q->engine->generator;
    const size_t steps = (size_t)q->next->request.steps;
    const struct vibe_opening opening = vibe_talk_opening(q->next);
    struct vibe_error why = {0};
    int rc = VIBE_OK;

    if (g->opening.T > 0)
        return 1;
    if (g->n > 0 && g->solver_steps != steps)
        return 0;
    if (g->n == 0)
        rc = vibe_generator_prepare(g, steps, &why);
    if (rc == VIBE_OK)
        rc = vibe_generator_begin(g, &opening, &why);
    if (rc == VIBE_OK)
        return 1;
    vibe_talk_fail(q->next, &why);
    return 0;
}

/* Read a block of the next prompt; after the last one its talk speaks. */
static int read_block(struct schedule *q, struct vibe_error *err)
{
    struct vibe_generator *g = q->engine->generator;
    const int rc = vibe_generator_read(g, err);

    if (rc != VIBE_OK || g->opening.T > 0)
        return rc;
    vibe_talk_begin(q->next);
    q->talks[q->n++] = q->next;
    q->next = NULL;
    return VIBE_OK;
}

/* Read prompts for a while, or as long as nobody speaks. */
static int read_prompts(struct schedule *q, struct vibe_error *err)
{
    const struct vibe_generator *g = q->engine->generator;
    const double end_s = vibe_clock_s() + VIBE_READING_S;
    int rc = VIBE_OK;

    while (rc == VIBE_OK && g->n < q->engine->models.n_dialogues &&
           (g->n == 0 || vibe_clock_s() < end_s)) {
        if (!q->next)
            rc = take(q, err);
        if (!q->next)
            return rc;
        if (q->next->is_over) /* its request was no good */
            drop_next(q);
        else if (admit(q))
            rc = read_block(q, err);
        else if (!q->next->is_over)
            return VIBE_OK; /* it waits for the others */
    }
    return rc;
}

/* Talks that are over leave: told in their order, and from the last on, for it
 * takes their place. */
static void dismiss_those_over(struct schedule *q)
{
    for (size_t d = 0; d < q->n; d++)
        if (q->talks[d]->is_over)
            tell(q, q->talks[d]);
    for (size_t d = q->n; d-- > 0;) {
        if (!q->talks[d]->is_over)
            continue;
        vibe_talk_free(q->talks[d]);
        q->talks[d] = q->talks[--q->n];
        vibe_generator_end(q->engine->generator, d);
    }
}

/* Everyone speaks one token. */
static int step(struct schedule *q, struct vibe_error *err)
{
    struct vibe_generator *g = q->engine->generator;
    int rc = VIBE_OK;

    for (size_t d = 0; d < q->n; d++) {
        struct vibe_error why = {0};

        if (vibe_generator_make_room(g, d, &why) != VIBE_OK)
            vibe_talk_fail(q->talks[d], &why);
    }
    dismiss_those_over(q);
    if (q->n > 0)
        rc = vibe_generator_step(g, NULL, err);
    for (size_t d = 0; d < q->n && rc == VIBE_OK; d++)
        vibe_talk_step(q->talks[d], q->engine, d);
    if (rc == VIBE_OK)
        dismiss_those_over(q);
    return rc;
}

/* Everything ends here: interrupted, or by the error of them all. */
static void end_all(struct schedule *q, const struct vibe_error *why)
{
    for (size_t d = 0; d < q->n; d++) {
        if (why)
            vibe_talk_fail(q->talks[d], why);
        else
            vibe_talk_interrupt(q->talks[d]);
        tell(q, q->talks[d]);
        vibe_talk_free(q->talks[d]);
    }
    if (q->next && why)
        vibe_talk_fail(q->next, why);
    if (q->next && !why)
        vibe_talk_interrupt(q->next);
    if (q->next)
        drop_next(q);
    vibe_generator_clear(q->engine->generator);
}

int vibe_speak_batch(struct vibe_engine *engine, const struct vibe_batch *batch,
                     struct vibe_error *err)
{
    struct schedule q = {.engine = engine, .batch = batch};
    struct vibe_generator *g = engine->generator;
    struct vibe_error why = {0};
    int rc = VIBE_OK;

    q.talks = calloc(engine->models.n_dialogues, sizeof(*q.talks));
    if (!q.talks)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu dialogues",
                         engine->models.n_dialogues);
    vibe_generator_clear(g);
    while (rc == VIBE_OK &&
           !(batch->is_stopped && batch->is_stopped(batch->user))) {
        rc = read_prompts(&q, &why);
        if (rc == VIBE_OK && q.n == 0 && !q.next)
            break;
        if (rc == VIBE_OK)
            rc = step(&q, &why);
    }
    end_all(&q, rc == VIBE_OK ? NULL : &why);
    free(q.talks);
    if (rc != VIBE_OK && err)
        *err = why;
    return rc;
}

int vibe_prepare_voices(struct vibe_engine *engine,
                        const struct vibe_request *requests, size_t n,
                        struct vibe_error *err)
{
    int rc = VIBE_OK;

    if (engine->generator)
        vibe_generator_rest(engine->generator);
    for (size_t i = 0; i < n && rc == VIBE_OK; i++) {
        const float **mean = calloc(requests[i].n_voices + 1, sizeof(*mean));
        struct vibe_ready r = {0};

        if (!mean)
            rc = vibe_fail(err, VIBE_E_NOMEM, "no memory for voices");
        /* what is wrong with a request it is told itself */
        else if (vibe_ready_init(&r, engine, &requests[i], NULL) == VIBE_OK)
            rc = vibe_voices_encode(engine->voices, &engine->models,
                                    &engine->stream, &engine->preprocessor,
                                    mean, r.voices, r.prompt.n_voices, err);
        vibe_ready_release(&r);
        free(mean);
    }
    vibe_voices_rest(engine->voices, &engine->models);
    return rc;
}
