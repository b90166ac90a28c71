/* host.c - how much memory this process could still fill. */
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "offload/host.h"

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

/* How one version of control groups calls things. */
struct names {
    const char *line; /* of /proc/self/cgroup, up to the group's path */
    const char *root, *max, *current, *droppable;
};

static const struct names version_2 = {
    .line = "0::",
    .root = "/sys/fs/cgroup",
    .max = "memory.max",
    .current = "memory.current",
    .droppable = "inactive_file ",
};
static const struct names version_1 = {
    .line = ":memory:",
    .root = "/sys/fs/cgroup/memory",
    .max = "memory.limit_in_bytes",
    .current = "memory.usage_in_bytes",
    .droppable = "total_inactive_file ",
};

/* A number of a group's file; -1 where there is none. */
static long long read_of(const char *group, const char *file, const char *key)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/%s", group, file) >= PATH_MAX)
        return -1;
    return read_number(path, key);
}

/* What a group has left, not counting files it could drop. */
static size_t left_in(const char *group, const struct names *n)
{
    const long long limit = read_of(group, n->max, NULL);
    const long long used = read_of(group, n->current, NULL);
    const long long files = read_of(group, "memory.stat", n->droppable);
    long long left;

    if (limit < 0 || used < 0)
        return SIZE_MAX;
    left = limit - used + (files > 0 ? files : 0);
    return left > 0 ? (size_t)left : 0;
}

/* Find the path of this process's group, "" for the topmost. */
static void find_group(char *path, size_t size, const char *root,
                       const struct names *n)
{
    char file[PATH_MAX], line[PATH_MAX];
    FILE *f;

    path[0] = '\0';
    if (snprintf(file, sizeof(file), "%s/proc/self/cgroup", root) >= PATH_MAX)
        return;
    f = fopen(file, "r");
    while (f && fgets(line, sizeof(line), f)) {
        const char *at = strstr(line, n->line);

        line[strcspn(line, "\n")] = '\0';
        if (at)
            snprintf(path, size, "%s", at + strlen(n->line));
    }
    if (f)
        fclose(f);
}

/* The least that the group and those above it have left. */
static size_t left_along(const char *root, const struct names *n)
{
    char group[PATH_MAX], path[PATH_MAX];
    size_t least = SIZE_MAX;
    char *end;

    find_group(path, sizeof(path), root, n);
    do {
        size_t left = SIZE_MAX;

        end = strrchr(path, '/');
        if (snprintf(group, sizeof(group), "%s%s%s", root, n->root, path) <
            PATH_MAX)
            left = left_in(group, n);
        least = left < least ? left : least;
        if (end)
            *end = '\0';
    } while (end);
    return least;
}

/* What ulimit -v leaves, which counts pages that nobody has touched, too. */
static size_t left_of_addresses(const char *root)
{
    const long long kb = read_of(root, "proc/self/status", "VmSize:");
    struct rlimit limit;

    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        kb < 0)
        return SIZE_MAX;
    return limit.rlim_cur > (rlim_t)kb << 10
               ? (size_t)(limit.rlim_cur - ((rlim_t)kb << 10))
               : 0;
}

size_t vibe_host_free_below(const char *root)
{
    const size_t addresses = left_of_addresses(root);
    const size_t v2 = left_along(root, &version_2);
    const size_t v1 = left_along(root, &version_1);
    const long long kb = read_of(root, "proc/meminfo", "MemAvailable:");
    size_t n = kb > 0 ? (size_t)kb << 10 : 0;

    if (v2 < n)
        n = v2;
    if (addresses < n)
        n = addresses;
    return v1 < n ? v1 : n;
}

size_t vibe_host_free(void)
{
    return vibe_host_free_below("");
}

struct vibe_held vibe_host_hold(void)
{
    const size_t most = (size_t)32 << 30;
    const size_t left = left_of_addresses("");
    struct vibe_held held = {.bytes = left / 4 < most ? left / 4 : most};

    if (left == SIZE_MAX || !held.bytes)
        return (struct vibe_held){0};
    held.at = mmap(NULL, held.bytes, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return held.at == MAP_FAILED ? (struct vibe_held){0} : held;
}

void vibe_host_let_go(struct vibe_held held)
{
    if (held.at)
        munmap(held.at, held.bytes);
}
