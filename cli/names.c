#include "cli/names.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli/failure.h"
#include "cli/options.h"

static const char *const endings[] = {".wav",  ".flac", ".ogg",
                                      ".opus", ".mp3",  ".aiff"};

/* Bytes of a file's name before its ending; 0 if it is no recording. */
static size_t stem_length(const char *file)
{
    const char *dot = strrchr(file, '.');

    for (size_t i = 0; dot && i < sizeof(endings) / sizeof(endings[0]); i++)
        if (strcasecmp(dot, endings[i]) == 0)
            return (size_t)(dot - file);
    return 0;
}

static int is_recording(const struct dirent *entry)
{
    return entry->d_name[0] != '.' && stem_length(entry->d_name) > 0;
}

/* 2: the stem is the name, 1: it contains it, 0: neither. */
static int match(const char *file, const char *name)
{
    const size_t n = stem_length(file);
    char stem[256];

    snprintf(stem, sizeof(stem), "%.*s", (int)n, file);
    if (strcasecmp(stem, name) == 0)
        return 2;
    return strcasestr(stem, name) != NULL;
}

/* "Alice, Carter, Frank", as far as there is room. */
static void list_stems(char *out, size_t size, struct dirent *const *files,
                       size_t n_files)
{
    size_t n = 0;

    snprintf(out, size, "none");
    for (size_t i = 0; i < n_files; i++) {
        const char *file = files[i]->d_name;
        const int length = (int)stem_length(file);

        if (n + (size_t)length + 6 > size) {
            snprintf(out + n, size - n, ", ...");
            return;
        }
        n += (size_t)snprintf(out + n, size - n, "%s%.*s", i ? ", " : "",
                              length, file);
    }
}

static enum vibe_exit find_one(struct vibe_words *out, const char *dir,
                               const char *name, struct dirent *const *files,
                               size_t n_files, struct vibe_failure *why)
{
    const char *found = NULL;
    char *path = NULL;
    char have[128];

    for (size_t i = 0; i < n_files; i++) {
        const int how = match(files[i]->d_name, name);

        if (how == 2 || (how == 1 && !found))
            found = files[i]->d_name;
        if (how == 2)
            break;
    }
    if (!found || !*name) {
        list_stems(have, sizeof(have), files, n_files);
        return vibe_cli_fail(why, VIBE_EXIT_INPUT, dir,
                             "no voice matches '%s' in %s/; have: %s", name,
                             dir, have);
    }
    if (asprintf(&path, "%s/%s", dir, found) < 0 ||
        vibe_words_add(out, path, NULL) != VIBE_OK) {
        free(path);
        return vibe_cli_fail_memory(why, "names");
    }
    return VIBE_EXIT_OK;
}

enum vibe_exit vibe_names_find(struct vibe_words *out, const char *dir,
                               const struct vibe_words *names,
                               struct vibe_failure *why)
{
    struct dirent **files = NULL;
    enum vibe_exit status = VIBE_EXIT_OK;
    int n;

    if (names->n == 0)
        return VIBE_EXIT_OK;
    n = scandir(dir, &files, is_recording, alphasort);
    if (n < 0)
        return vibe_cli_fail(why, VIBE_EXIT_INPUT, dir, "--voices-dir: %s: %s",
                             dir, strerror(errno));
    for (size_t i = 0; i < names->n && status == VIBE_EXIT_OK; i++)
        status = find_one(out, dir, names->items[i], files, (size_t)n, why);
    for (int i = 0; i < n; i++)
        free(files[i]);
    free(files);
    return status;
}

void vibe_names_release(struct vibe_words *paths)
{
    for (size_t i = 0; i < paths->n; i++)
        free((char *)paths->items[i]);
    free(paths->items);
    *paths = (struct vibe_words){0};
}

char *vibe_names_stem(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    const char *dot = strrchr(base, '.');

    return strndup(base,
                   dot && dot != base ? (size_t)(dot - base) : strlen(base));
}
