#include "audio/resample.h"

#include <assert.h>
#include <math.h>
#include <soxr.h>
#include <stdlib.h>
#include <string.h>

#include "audio/wav.h"
#include "engine/base/error.h"

size_t vibe_resample_length(size_t n, int rate_from, int rate_to)
{
    double ratio = (double)rate_to / (double)rate_from;

    return (size_t)ceil((double)n * ratio);
}

/* Fill out[n_out] from in; samples that soxr does not give stay zero. */
static int convert(float *out, size_t n_out, const struct vibe_audio *in,
                   int rate_to, struct vibe_error *err)
{
    soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, 0);
    soxr_runtime_spec_t one_thread = soxr_runtime_spec(1);
    soxr_error_t why;
    size_t n_done = 0;

    /*
     * soxr itself rounds the length to nearest, so it may stop one sample
     * short; librosa pads that sample with zero.
     */
    why = soxr_oneshot(in->rate, rate_to, 1, in->samples, in->n, NULL, out,
                       n_out, &n_done, NULL, &quality, &one_thread);
    if (why)
        return vibe_fail(err, VIBE_E_NOMEM, "resampling %d Hz to %d Hz: %s",
                         in->rate, rate_to, soxr_strerror(why));
    assert(n_done <= n_out);
    return VIBE_OK;
}

int vibe_resample(struct vibe_audio *out, const struct vibe_audio *in,
                  int rate_to, struct vibe_error *err)
{
    struct vibe_audio made = {.rate = rate_to};
    int rc = VIBE_OK;

    assert(in->rate > 0 && rate_to > 0);
    made.n = vibe_resample_length(in->n, in->rate, rate_to);
    made.samples = calloc(made.n ? made.n : 1, sizeof(*made.samples));
    if (!made.samples)
        return vibe_fail(err, VIBE_E_NOMEM,
                         "no memory for %zu samples at %d Hz", made.n, rate_to);

    if (in->rate == rate_to && in->n > 0)
        memcpy(made.samples, in->samples, in->n * sizeof(*made.samples));
    else if (in->n > 0)
        rc = convert(made.samples, made.n, in, rate_to, err);
    if (rc) {
        free(made.samples);
        return rc;
    }
    *out = made;
    return VIBE_OK;
}
