/* host.c - how much memory this process could still fill. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload/arena.h"

/* The number behind key in a file of "key number" lines, in the unit that the
 * file has; key NULL: the first number.  -1 where there is none. */
static long long read_number(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    char line[128];
    long long n = -1;

    if (!f)
        return -1;
    while (n < 0 && fgets(line, sizeof(line), f)) {
        const char *rest = line;
        char *end;

        if (key && strncmp(line, key, strlen(key)) != 0)
            continue;
        if (key)
            rest += strlen(key);
        n = strtoll(rest, &end, 10);
        if (end == rest) /* "max" is no number */
            n = -1;
    }
    fclose(f);
    return n;
}

/* What a control group has left, not counting files it could drop. */
static size_t left_in(const char *max, const char *current, const char *stat,
                      const char *droppable)
{
    const long long limit = read_number(max, NULL);
    const long long used = read_number(current, NULL);
    const long long files = read_number(stat, droppable);
    long long left;

    if (limit < 0 || used < 0)
        return SIZE_MAX;
    left = limit - used + (files > 0 ? files : 0);
    return left > 0 ? (size_t)left : 0;
}

size_t vibe_host_free(void)
{
    const long long kb = read_number("/proc/meminfo", "MemAvailable:");
    const size_t v2 = left_in("/sys/fs/cgroup/memory.max",
                              "/sys/fs/cgroup/memory.current",
                              "/sys/fs/cgroup/memory.stat", "inactive_file ");
    const size_t v1 = left_in("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                              "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                              "/sys/fs/cgroup/memory/memory.stat",
                              "total_inactive_file ");
    size_t n = kb > 0 ? (size_t)kb << 10 : 0;

    if (v2 < n)
        n = v2;
    return v1 < n ? v1 : n;
}
