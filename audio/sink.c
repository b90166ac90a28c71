#include "audio/sink.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/error.h"

struct vibe_sink {
    char *name;  /* as the user wrote it, for messages */
    char *final; /* where the file ends up; NULL for a stream */
    char *part;  /* where it grows; NULL for a stream */
    int fd;      /* -1 once closed */
    int errnum;  /* first errno, 0 if none */
    int64_t position;
    int64_t length;
    int64_t base; /* of a stream that is a file: its offset at open; else -1 */
};

static bool is_stdout(const char *path)
{
    return strcmp(path, "-") == 0;
}

/* Start of the last component of path. */
static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static int fail_errno(struct vibe_error *err, const char *name, int errnum)
{
    return vibe_fail(err, VIBE_E_IO, "%s: %s", name, strerror(errnum));
}

static int check_stdout(struct vibe_error *err)
{
    struct stat st;

    if (fstat(STDOUT_FILENO, &st))
        return fail_errno(err, "standard output", errno);
    if (isatty(STDOUT_FILENO))
        return vibe_fail(err, VIBE_E_UNSUPPORTED,
                         "refusing to write audio to a terminal; use -o FILE");
    return VIBE_OK;
}

/*
 * Where a file named path really goes: the target, if it is a link to a file,
 * as shells do when they redirect.  NULL without memory.
 */
static char *final_name(const char *path)
{
    struct stat st;
    char *target = NULL;

    if (!lstat(path, &st) && S_ISLNK(st.st_mode))
        target = realpath(path, NULL); /* NULL if it leads nowhere */
    return target ? target : strdup(path);
}

/* Whether files can be made beside path; name is for the message. */
static int check_folder(const char *path, const char *name,
                        struct vibe_error *err)
{
    const char *base = base_name(path);
    char *folder = base == path ? strdup(".")
                                : strndup(path, (size_t)(base - path));
    struct stat st;
    int rc = VIBE_OK;

    if (!folder)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: out of memory", name);
    if (stat(folder, &st))
        rc = errno == ENOENT
                 ? vibe_fail(err, VIBE_E_IO, "%s: No such directory", name)
                 : fail_errno(err, name, errno);
    /* By the effective user: access() would ask for the real one. */
    else if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS))
        rc = fail_errno(err, name, errno);
    free(folder);
    return rc;
}

/* Check a path that is not "-", and whether it is a stream. */
static int check_path(bool *is_stream, const char *path, struct vibe_error *err)
{
    struct stat st;
    char *final;
    int rc;

    if (base_name(path)[0] == '\0')
        return vibe_fail(err, VIBE_E_IO, "'%s': is not a file name", path);
    if (stat(path, &st)) {
        if (errno != ENOENT)
            return fail_errno(err, path, errno);
        st.st_mode = S_IFREG;
    }
    if (S_ISDIR(st.st_mode))
        return vibe_fail(err, VIBE_E_IO, "%s: is a directory", path);
    /* A rename would put a plain file in the place of /dev/null. */
    *is_stream = !S_ISREG(st.st_mode);
    if (*is_stream) {
        if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS))
            return fail_errno(err, path, errno);
        return VIBE_OK;
    }
    final = final_name(path);
    if (!final)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: out of memory", path);
    rc = check_folder(final, path, err);
    free(final);
    return rc;
}

int vibe_sink_check(bool *is_stream, const char *path, struct vibe_error *err)
{
    *is_stream = is_stdout(path);
    return *is_stream ? check_stdout(err) : check_path(is_stream, path, err);
}

/* The final name with ".part" before its extension; NULL without memory. */
static char *part_name(const char *final)
{
    const char *base = base_name(final);
    const char *dot = strrchr(base, '.');
    char *part = NULL;

    if (!dot || dot == base) /* none, or a hidden file */
        dot = final + strlen(final);
    if (asprintf(&part, "%.*s.part%s", (int)(dot - final), final, dot) < 0)
        return NULL;
    return part;
}

char *vibe_sink_part_of(const char *path)
{
    char *final = final_name(path);
    char *part = final ? part_name(final) : NULL;

    free(final);
    return part;
}

static int open_stream(struct vibe_sink *sink, const char *path,
                       struct vibe_error *err)
{
    struct stat st;
    int flags;

    /* A copy of standard output, so that closing it can report an error. */
    sink->fd = is_stdout(path) ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)
                               : open(path, O_WRONLY | O_CLOEXEC);
    if (sink->fd < 0 || fstat(sink->fd, &st))
        return fail_errno(err, sink->name, errno);
    flags = fcntl(sink->fd, F_GETFL);
    /* With O_APPEND even pwrite appends: such a file cannot be patched. */
    if (S_ISREG(st.st_mode) && flags >= 0 && !(flags & O_APPEND))
        sink->base = lseek(sink->fd, 0, SEEK_CUR);
    return VIBE_OK;
}

/* Whether path is still the name of what fd is. */
static bool is_named(int fd, const char *path)
{
    struct stat here, there;

    return fstat(fd, &here) == 0 && lstat(path, &there) == 0 &&
           here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

/*
 * Lock a part file for as long as it is open, so that no other program takes it
 * away while it grows.  Where files cannot be locked, that is hoped for.
 */
static bool lock_part(int fd, const char *path)
{
    return (flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) &&
           is_named(fd, path);
}

/* Remove what an earlier run has left, unless somebody is writing it. */
static int remove_part(const struct vibe_sink *sink, struct vibe_error *err)
{
    const int fd = open(sink->part, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    int rc = VIBE_OK;

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        rc = vibe_fail(err, VIBE_E_IO, "%s: is being written by another run",
                       sink->part);
    else if (unlink(sink->part) && errno != ENOENT)
        rc = fail_errno(err, sink->part, errno);
    if (fd >= 0)
        close(fd);
    return rc;
}

/*
 * A new file each time: not the target of somebody's link, and not the inode
 * that a player may still have open.
 */
static int open_part(struct vibe_sink *sink, struct vibe_error *err)
{
    int rc = remove_part(sink, err);

    if (rc != VIBE_OK)
        return rc;
    sink->fd = open(sink->part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (sink->fd < 0 && errno != EEXIST)
        return fail_errno(err, sink->part, errno);
    /* another run may be doing the same at the same time: one of them wins */
    if (sink->fd >= 0 && lock_part(sink->fd, sink->part))
        return VIBE_OK;
    if (sink->fd >= 0)
        close(sink->fd);
    sink->fd = -1;
    return vibe_fail(err, VIBE_E_IO, "%s: is being written by another run",
                     sink->part);
}

static int open_file(struct vibe_sink *sink, const char *path,
                     struct vibe_error *err)
{
    sink->final = final_name(path);
    if (sink->final)
        sink->part = part_name(sink->final);
    if (!sink->part)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: out of memory", path);

    return open_part(sink, err);
}

int vibe_sink_open(struct vibe_sink **out, const char *path,
                   struct vibe_error *err)
{
    struct vibe_sink *sink = NULL;
    bool is_stream;
    int rc;

    *out = NULL;
    rc = vibe_sink_check(&is_stream, path, err);
    if (rc)
        return rc;
    sink = calloc(1, sizeof(*sink));
    if (!sink)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: out of memory", path);
    sink->fd = -1;
    sink->base = -1;
    sink->name = strdup(is_stdout(path) ? "standard output" : path);
    if (!sink->name) {
        rc = vibe_fail(err, VIBE_E_NOMEM, "%s: out of memory", path);
        goto out;
    }
    rc = is_stream ? open_stream(sink, path, err) : open_file(sink, path, err);
    if (rc)
        goto out;
    *out = sink;
    sink = NULL; /* now the caller's */

out:
    vibe_sink_free(sink);
    return rc;
}

/* Write once; returns as write(2) does. */
static ssize_t write_some(const struct vibe_sink *sink, const char *data,
                          size_t n, int64_t position)
{
    if (sink->part)
        return pwrite(sink->fd, data, n, (off_t)position);
    return write(sink->fd, data, n);
}

size_t vibe_sink_write(struct vibe_sink *sink, const void *data, size_t n)
{
    size_t done = 0;

    while (done < n && !sink->errnum) {
        ssize_t put = write_some(sink, (const char *)data + done, n - done,
                                 sink->position);

        if (put > 0) {
            done += (size_t)put;
            sink->position += put;
        } else if (put == 0) {
            sink->errnum = EIO;
        } else if (errno == EAGAIN) {
            /* Another program made our pipe non-blocking: wait as if not. */
            poll(&(struct pollfd){.fd = sink->fd, .events = POLLOUT}, 1, -1);
        } else if (errno != EINTR) {
            sink->errnum = errno;
        }
    }
    if (sink->position > sink->length)
        sink->length = sink->position;
    return done;
}

void vibe_sink_seek(struct vibe_sink *sink, int64_t position)
{
    assert(sink->part || position == sink->position);
    sink->position = position;
}

int64_t vibe_sink_position(const struct vibe_sink *sink)
{
    return sink->position;
}

int64_t vibe_sink_length(const struct vibe_sink *sink)
{
    return sink->length;
}

bool vibe_sink_is_stream(const struct vibe_sink *sink)
{
    return !sink->part;
}

void vibe_sink_patch(struct vibe_sink *sink, int64_t position, const void *data,
                     size_t n)
{
    ssize_t put;

    if (sink->base < 0 || sink->errnum)
        return;
    assert(position + (int64_t)n <= sink->length);
    put = pwrite(sink->fd, data, n, (off_t)(sink->base + position));
    if (put != (ssize_t)n) /* overwriting needs no new space */
        sink->errnum = put < 0 ? errno : EIO;
}

int vibe_sink_errno(const struct vibe_sink *sink)
{
    return sink->errnum;
}

int vibe_sink_status(const struct vibe_sink *sink, struct vibe_error *err)
{
    if (!sink->errnum)
        return VIBE_OK;
    return fail_errno(err, sink->name, sink->errnum);
}

const char *vibe_sink_name(const struct vibe_sink *sink)
{
    return sink->name;
}

const char *vibe_sink_part(const struct vibe_sink *sink)
{
    return sink->part;
}

/* Put the bytes on disk; latches. */
static void sync_part(struct vibe_sink *sink)
{
    assert(sink->fd >= 0);
    /* EINVAL: this kind of file cannot be synced, which is no loss. */
    if (sink->part && fsync(sink->fd) && errno != EINVAL && !sink->errnum)
        sink->errnum = errno;
}

/* What is on disk cannot fail any more, and may have its final name. */
static void close_synced(struct vibe_sink *sink)
{
    if (close(sink->fd) && !sink->part && !sink->errnum)
        sink->errnum = errno;
    sink->fd = -1;
}

int vibe_sink_commit(struct vibe_sink *sink, struct vibe_error *err)
{
    sync_part(sink);
    /* the lock is held until the name is gone that others would take */
    if (sink->part && !sink->errnum && rename(sink->part, sink->final))
        sink->errnum = errno;
    if (sink->part && sink->errnum)
        unlink(sink->part);
    close_synced(sink);
    return vibe_sink_status(sink, err);
}

int vibe_sink_keep(struct vibe_sink *sink, struct vibe_error *err)
{
    sync_part(sink);
    close_synced(sink);
    return vibe_sink_status(sink, err);
}

void vibe_sink_abort(struct vibe_sink *sink)
{
    if (sink->fd < 0)
        return;
    if (sink->part)
        unlink(sink->part);
    close(sink->fd);
    sink->fd = -1;
}

void vibe_sink_free(struct vibe_sink *sink)
{
    if (!sink)
        return;
    vibe_sink_abort(sink);
    free(sink->part);
    free(sink->final);
    free(sink->name);
    free(sink);
}
