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
