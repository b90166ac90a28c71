/*
 * replay.c - run one fuzz target over a folder of saved inputs.
 *
 * Stands in for libFuzzer's main, so that every compiler replays in `make test`
 * what the fuzzers once found.  An input fails by crashing the process; a
 * corpus without inputs fails too, because it would prove nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Defined by the fuzz target. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Feed one file to the target, in a block of its exact size for ASan. */
static int replay_file(const char *path, size_t size)
{
    uint8_t *data = malloc(size ? size : 1);
    FILE *file = fopen(path, "rb");
    int rc = -1;

    if (!data || !file || fread(data, 1, size, file) != size) {
        fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
        goto out;
    }
    /* Said before the call: the last line of a crashed run is its culprit. */
    printf("replay %s\n", path);
    fflush(stdout);
    LLVMFuzzerTestOneInput(data, size);
    rc = 0;

out:
    if (file)
        fclose(file);
    free(data);
    return rc;
}

static int replay_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    size_t n = 0;
    int rc = 0;

    if (!dir) {
        fprintf(stderr, "replay: %s: %s\n", folder, strerror(errno));
        return -1;
    }
    while (!rc && (entry = readdir(dir))) {
        char path[4096];
        struct stat st;

        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (stat(path, &st) || !S_ISREG(st.st_mode))
            continue;
        rc = replay_file(path, (size_t)st.st_size);
        n++;
    }
    closedir(dir);
    if (!rc && n == 0) {
        fprintf(stderr, "replay: %s: holds no inputs\n", folder);
        rc = -1;
    }
    if (!rc)
        printf("ok - %zu inputs of %s\n", n, folder);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s CORPUS\n", argv[0]);
        return 2;
    }
    return replay_folder(argv[1]) ? 1 : 0;
}
