#include "engine/base/whole_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/error.h"

static int fail_errno(const struct vibe_whole_file *w, struct vibe_error *err)
{
    return vibe_fail(err, VIBE_E_IO, "%s: %s", w->path,
                     strerror(errno ? errno : EIO));
}

/* Where a link leads, or path itself; NULL without memory. */
static char *final_name(const char *path)
{
    char *target = realpath(path, NULL); /* NULL if it leads nowhere */

    return target ? target : strdup(path);
}

int vibe_whole_file_init(struct vibe_whole_file *w, const char *path,
                         struct vibe_error *err)
{
    struct stat st;
    const int is_plain = stat(path, &st) != 0 || S_ISREG(st.st_mode);

    *w = (struct vibe_whole_file){.path = strdup(path)};
    if (w->path && is_plain)
        w->final = final_name(path);
    if (w->final && asprintf(&w->part, "%s.part", w->final) < 0)
        w->part = NULL;
    if (!w->path || (is_plain && !w->part))
        return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for its name", path);
    w->file = fopen(is_plain ? w->part : path, "wb");
    return w->file ? VIBE_OK : fail_errno(w, err);
}

/* A pipe has nothing to bring to the disk. */
static int sync_file(FILE *file)
{
    return fsync(fileno(file)) == 0 || errno == EINVAL || errno == EROFS;
}

/* Remove what has not got its name. */
static void drop_part(struct vibe_whole_file *w)
{
    if (w->part)
        unlink(w->part);
    free(w->part);
    w->part = NULL;
}

int vibe_whole_file_commit(struct vibe_whole_file *w, struct vibe_error *err)
{
    FILE *file = w->file;
    int rc = VIBE_OK;

    errno = 0;
    if (fflush(file) != 0 || ferror(file) || !sync_file(file))
        rc = fail_errno(w, err);
    if (fclose(file) != 0 && rc == VIBE_OK)
        rc = fail_errno(w, err);
    if (rc == VIBE_OK && w->part && rename(w->part, w->final) != 0)
        rc = fail_errno(w, err);
    w->file = NULL;
    if (rc != VIBE_OK)
        drop_part(w);
    free(w->part);
    w->part = NULL;
    return rc;
}

void vibe_whole_file_release(struct vibe_whole_file *w)
{
    if (w->file)
        fclose(w->file);
    drop_part(w);
    free(w->final);
    free(w->path);
    *w = (struct vibe_whole_file){0};
}
