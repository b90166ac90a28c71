#include "cli/folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/error.h"

int vibe_folder_make(const char *path, struct vibe_error *err)
{
    char *copy = strdup(path);
    char *slash = copy;
    struct stat st;

    if (!copy)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: out of memory", path);
    /* Those above may be there already, and be all that we may see of them. */
    while (slash && (slash = strchr(slash + 1, '/'))) {
        *slash = '\0';
        mkdir(copy, 0777);
        *slash = '/';
    }
    free(copy);
    if (mkdir(path, 0777) == 0)
        return VIBE_OK;
    if (errno != EEXIST)
        return vibe_fail(err, VIBE_E_IO, "%s: %s", path, strerror(errno));
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return vibe_fail(err, VIBE_E_IO, "%s: is not a directory", path);
    return VIBE_OK;
}

char *vibe_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path))
                 : strdup(".");
}

/* The longest folder of path[*n] that is there, without links; *n becomes its
 * length in path. */
static char *find_folder(const char *path, size_t *n)
{
    char *copy = strdup(path);
    char *real = NULL;

    while (copy && !real && *n > 0) {
        while (*n > 0 && copy[*n - 1] != '/')
            --*n;
        copy[*n] = '\0'; /* keeps the slash */
        real = realpath(*n ? copy : ".", NULL);
        while (!real && *n > 0 && copy[*n - 1] == '/')
            --*n;
    }
    free(copy);
    return real ? real : strdup("."); /* somebody has removed this one */
}

/* Go on from a folder by what a path says: place has room for both. */
static void walk(char *place, const char *path)
{
    char *end = place + strlen(place);

    for (; *path; path += strspn(path, "/")) {
        const size_t n = strcspn(path, "/");

        if (n == 2 && strncmp(path, "..", 2) == 0)
            while (end > place && *--end != '/')
                ;
        else if (n > 0 && (n != 1 || *path != '.'))
            end = stpncpy(stpcpy(end, "/"), path, n);
        path += n;
    }
    *end = '\0';
}

char *vibe_folder_place(const char *path)
{
    size_t n = strlen(path);
    char *place = realpath(path, NULL);
    char *folder;

    if (place)
        return place;
    folder = find_folder(path, &n);
    place = folder ? malloc(strlen(folder) + strlen(path) + 2) : NULL;
    if (place) {
        stpcpy(place, strcmp(folder, "/") ? folder : "");
        walk(place, path + n);
    }
    free(folder);
    return place;
}

char *vibe_folder_pattern(const char *path)
{
    char *pattern = malloc(2 * strlen(path) + 1);
    char *out = pattern;

    if (!pattern)
        return NULL;
    for (; *path; path++) {
        if (strchr("*?[\\", *path))
            *out++ = '\\';
        *out++ = *path;
    }
    *out = '\0';
    return pattern;
}
