/* speak.c - one request: a batch of one. */
#include "engine/vibevoice.h"

/* What is asked, and what came of it. */
struct speech {
    const struct vibe_request *request; /* NULL once it was taken */
    struct vibe_result *result;
    struct vibe_error err;
};

static int next(void *user, struct vibe_request *out)
{
    struct speech *speech = user;

    if (!speech->request)
        return 0;
    *out = *speech->request;
    speech->request = NULL;
    return 1;
}

static void on_end(void *user, const struct vibe_request *request,
                   const struct vibe_result *result,
                   const struct vibe_error *err)
{
    struct speech *speech = user;

    (void)request;
    *speech->result = *result;
    speech->err = *err;
}

int vibe_speak(struct vibe_engine *engine, const struct vibe_request *request,
               struct vibe_result *result, struct vibe_error *err)
{
    struct speech speech = {.request = request, .result = result};
    const struct vibe_batch batch = {
        .next = next,
        .on_end = on_end,
        .user = &speech,
    };
    int rc;

    *result = (struct vibe_result){0};
    rc = vibe_speak_batch(engine, &batch, err);
    if (rc == VIBE_OK && speech.err.code != VIBE_OK) {
        rc = speech.err.code;
        if (err)
            *err = speech.err;
    }
    return rc;
}
