#include "tests/support/scratch.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/vibe_test.h"

int vibe_scratch_enter(struct vibe_scratch *scratch)
{
    snprintf(scratch->folder, sizeof(scratch->folder), "/tmp/vibe_test.XXXXXX");
    if (!getcwd(scratch->start, sizeof(scratch->start)) ||
        !mkdtemp(scratch->folder))
        return -1;
    return chdir(scratch->folder);
}

int vibe_scratch_leave(struct vibe_scratch *scratch)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf '%s'", scratch->folder);
    return chdir(scratch->start) || system(command) ? -1 : 0;
}

bool vibe_file_exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

int vibe_file_count(void)
{
    DIR *dir = opendir(".");
    const struct dirent *entry;
    int n = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)))
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

size_t vibe_file_read(const char *path, void *out, size_t capacity)
{
    FILE *file = fopen(path, "rb");
    size_t n;

    assert_non_null(file);
    n = fread(out, 1, capacity, file);
    fclose(file);
    assert_true(n < capacity);
    return n;
}

void vibe_file_write(const char *path, const void *data, size_t n)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

int vibe_stdout_redirect(int fd)
{
    int saved;

    fflush(stdout);
    saved = dup(STDOUT_FILENO);
    assert_true(saved >= 0);
    dup2(fd, STDOUT_FILENO);
    return saved;
}

void vibe_stdout_restore(int saved)
{
    dup2(saved, STDOUT_FILENO);
    close(saved);
}
