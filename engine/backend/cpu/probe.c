/* The yardstick for everything that reads weights once. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/cpu/cpu.h"
#include "engine/base/clock.h"

enum {
    PASSES = 8,
    STREAMS = 4, /* one alone does not keep enough lines on their way */
    LANES = 8,   /* words of a line */
    AHEAD = 128, /* words */
};

static const size_t probe_bytes = (size_t)512 << 20;

/* Sum n words, n a multiple of STREAMS * LANES, as fast as memory brings them:
 * several places at once, lines asked for in time, sums that do not wait. */
static uint64_t sum_words(const uint64_t *words, size_t n)
{
    uint64_t lane[STREAMS][LANES] = {{0}};
    size_t each = n / STREAMS;
    uint64_t sum = 0;

    for (size_t i = 0; i < each; i += LANES)
        for (size_t s = 0; s < STREAMS; s++) {
            const uint64_t *line = words + s * each + i;

            __builtin_prefetch(line + AHEAD);
            for (size_t j = 0; j < LANES; j++)
                lane[s][j] += line[j];
        }
    for (size_t s = 0; s < STREAMS; s++)
        for (size_t j = 0; j < LANES; j++)
            sum += lane[s][j];
    return sum;
}

double vibe_cpu_probe_bandwidth(int threads)
{
    size_t n = probe_bytes / sizeof(uint64_t);
    size_t chunk = (size_t)1 << 17; /* words: 1 MB */
    uint64_t *words = aligned_alloc(4096, probe_bytes);
    uint64_t sink = 0;
    double best = 0.0;

    if (!words)
        return 0.0;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size_t i = 0; i < n; i += chunk)
        memset(words + i, 1, chunk * sizeof(*words));

    for (int pass = 0; pass < PASSES; pass++) {
        double start = vibe_clock_s();
        double rate;

#pragma omp parallel for num_threads(threads) schedule(static) \
    reduction(+ : sink)
        for (size_t i = 0; i < n; i += chunk)
            sink += sum_words(words + i, chunk);
        rate = (double)probe_bytes / (vibe_clock_s() - start);
        if (rate > best)
            best = rate;
    }
    /* Use the sum, or it need not be computed; it is never zero. */
    if (sink == 0)
        best = 0.0;
    free(words);
    return best;
}
