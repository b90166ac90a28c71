/*
 * chunks.h - a long script in parts that are spoken one after another.
 *
 * A part ends with a turn.  How long a turn takes is estimated from its text,
 * at the pace of a calm speaker, so that the parts of a script are known
 * before it is spoken, and are the same when it is spoken again.
 */
#ifndef VIBE_CLI_CHUNKS_H
#define VIBE_CLI_CHUNKS_H

#include <stddef.h>

struct vibe_error;
struct vibe_script;

struct vibe_chunks {
    size_t *first; /* [n + 1] turn of each part; the last is the end; owned */
    size_t n;
};

/* Seconds that a text takes to be said. */
double vibe_chunks_seconds(const char *text);

/*
 * Divide a script.
 *
 *   out       release with vibe_chunks_release
 *   minutes   of a part at most, unless a single turn is longer; 0: one part
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_chunks_plan(struct vibe_chunks *out, const struct vibe_script *script,
                     double minutes, struct vibe_error *err);
void vibe_chunks_release(struct vibe_chunks *chunks);

/* Part i as a script that borrows from the whole; not to be released. */
struct vibe_script vibe_chunks_part(const struct vibe_chunks *chunks,
                                    const struct vibe_script *script, size_t i);

#endif /* VIBE_CLI_CHUNKS_H */
