/* Options whose words have a form of their own. */
#include "cli/options_parse.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli/options.h"
#include "engine/vibevoice.h"

/* "8", "7.5G", "7500MiB", "-1": bytes; a bare number counts GiB. */
int vibe_parse_max_vram(struct vibe_options *out, const char *word,
                        const char **want)
{
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {
        {"", 1073741824.0}, {"G", 1073741824.0},   {"GB", 1e9},
        {"M", 1048576.0},   {"GIB", 1073741824.0}, {"MB", 1e6},
        {"MIB", 1048576.0},
    };
    char *end = NULL;
    const double value = strtod(word, &end);

    *want = "is not a size like 8, 7.5G, 7500M or -1";
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (end == word || strcasecmp(end, units[i].unit) != 0)
            continue;
        if (!(fabs(value) * units[i].bytes < 1e18) || value == 0)
            return -1;
        out->max_vram = (int64_t)(value * units[i].bytes);
        return 0;
    }
    return -1;
}

/* auto, cpu, cuda or cuda:N. */
int vibe_parse_device(struct vibe_options *out, const char *word,
                      const char **want)
{
    int index = 0;

    *want = "is not one of auto, cuda, cuda:N, cpu";
    if (strncasecmp(word, "cuda:", 5) == 0) {
        const char *digit = word + 5;

        if (!*digit || strlen(digit) > 3)
            return -1;
        for (; *digit; digit++) {
            if (*digit < '0' || *digit > '9')
                return -1;
            index = index * 10 + (*digit - '0');
        }
        out->device = VIBE_DEVICE_CUDA;
    } else if (strcasecmp(word, "cuda") == 0) {
        out->device = VIBE_DEVICE_CUDA;
    } else if (strcasecmp(word, "cpu") == 0) {
        out->device = VIBE_DEVICE_CPU;
    } else if (strcasecmp(word, "auto") == 0) {
        out->device = VIBE_DEVICE_AUTO;
    } else {
        return -1;
    }
    out->device_index = index;
    return 0;
}

/* A whole number from 1 to max at the start of word; what follows it in end.
 * Returns 0 if there is none. */
static int64_t read_number(const char *word, int64_t max, const char **end)
{
    int64_t value = 0;

    for (*end = word; **end >= '0' && **end <= '9'; (*end)++) {
        value = 10 * value + (**end - '0');
        if (value > max)
            return 0;
    }
    return value;
}

/* auto, or how many. */
int vibe_parse_batch_size(struct vibe_options *out, const char *word,
                          const char **want)
{
    const char *end = word;
    int64_t n = read_number(word, 256, &end);

    *want = "is not auto or a whole number from 1 to 256";
    if (strcasecmp(word, "auto") != 0 && (n < 1 || *end))
        return -1;
    out->batch_size = n;
    return 0;
}

/* auto, or I/N. */
int vibe_parse_shard(struct vibe_options *out, const char *word,
                     const char **want)
{
    const int64_t max = 1000000;
    const char *end = word;
    int64_t i = read_number(word, max, &end);
    int64_t n = *end == '/' ? read_number(end + 1, max, &end) : -1;
    const int is_auto = strcasecmp(word, "auto") == 0;

    *want = "is not auto or I/N, as in 1/4";
    if (!is_auto && (i < 1 || n < i || *end))
        return -1;
    out->shard = is_auto ? 0 : i;
    out->n_shards = is_auto ? -1 : n;
    return 0;
}
