/*
 * names.h - the names of files, and voices by them: "alice" for
 * voices/en-Alice_woman.wav.
 */
#ifndef VIBE_CLI_NAMES_H
#define VIBE_CLI_NAMES_H

#include "cli/exit.h"

struct vibe_failure;
struct vibe_words;

/*
 * Find for each name the recording of dir whose name without its ending is
 * that, or else the first by the alphabet that contains it; case does not
 * matter.
 *
 *   out   appended paths, each to be freed, also after a failure, by
 *         vibe_names_release
 */
enum vibe_exit vibe_names_find(struct vibe_words *out, const char *dir,
                               const struct vibe_words *names,
                               struct vibe_failure *why);
void vibe_names_release(struct vibe_words *paths);

/* The name of a file without folder and extension; owned, NULL without
 * memory. */
char *vibe_names_stem(const char *path);

#endif /* VIBE_CLI_NAMES_H */
