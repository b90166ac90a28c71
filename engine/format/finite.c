#include "engine/format/finite.h"

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/base/team.h"
#include "engine/format/weights.h"

enum { TASK_BYTES = 1 << 20 };

/* What the threads share. */
struct job {
    const struct vibe_weight *w;
    int has_nan; /* set by any of them */
};

int vibe_finite_f32(const float *in, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(in[i]))
            return 0;
    return 1;
}

/* Are seven bits of any byte all set? */
static int has_nan(const unsigned char *codes, size_t n)
{
    uint64_t found = 0;
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        uint64_t eight;

        memcpy(&eight, codes + i, sizeof(eight));
        found |= (eight & 0x7F7F7F7F7F7F7F7F) + 0x0101010101010101;
    }
    for (; i < n; i++)
        found |= (codes[i] & 0x7Fu) + 1;
    return (found & 0x8080808080808080) != 0;
}

static void look_through(void *user, size_t i)
{
    struct job *job = user;
    const size_t first = i * TASK_BYTES;
    const size_t left = job->w->n - first;

    if (has_nan((const unsigned char *)job->w->data + first,
                left < TASK_BYTES ? left : TASK_BYTES))
        __atomic_store_n(&job->has_nan, 1, __ATOMIC_RELAXED);
}

int vibe_finite_check_f8(const struct vibe_weight *w, int threads,
                         struct vibe_error *err)
{
    struct job job = {.w = w};

    assert(w->dtype == VIBE_F8_E4M3);
    vibe_team_run(threads, (w->n + TASK_BYTES - 1) / TASK_BYTES, look_through,
                  &job);
    if (!job.has_nan)
        return VIBE_OK;
    return vibe_fail(err, VIBE_E_FORMAT,
                     "%s: tensor %s holds NaN, expected finite weights",
                     w->file, w->name);
}
