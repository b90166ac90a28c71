#include "engine/base/float8.h"

#include <math.h>

static float within(float f, float top)
{
    f = f < top ? f : top; /* NaN becomes top */
    return f > -top ? f : -top;
}

void vibe_f8_row(uint8_t *codes, uint8_t *exponent, const float *in, size_t n)
{
    float top = 0.0f;
    float inverse;

    for (size_t i = 0; i < n; i++)
        top = fmaxf(top, fabsf(in[i]));
    *exponent = vibe_f8_exponent(top);
    inverse = 1.0f / vibe_f8_scale(*exponent);
    for (size_t i = 0; i < n; i++)
        codes[i] = vibe_f8_nearest(within(in[i] * inverse, VIBE_F8_TOP));
}
