/*
 * cast.h - recorded voices, and which speaker of a script has which.
 */
#ifndef VIBE_CLI_CAST_H
#define VIBE_CLI_CAST_H

#include <stddef.h>

#include "audio/wav.h"
#include "cli/exit.h"

struct vibe_failure;
struct vibe_log;
struct vibe_script;
struct vibe_voice;
struct vibe_words;

/* Recordings by their paths, each read once. */
struct vibe_recordings {
    struct vibe_recording *items; /* [n] owned */
    size_t n, capacity;
};

struct vibe_clip {
    const char *path;        /* borrowed from the words */
    int speaker;             /* of "N=FILE"; -1: the next without a voice */
    int is_used;             /* bound to a speaker of some script */
    struct vibe_audio audio; /* 24 kHz once vibe_cast_read has read it;
                                borrowed from the recordings */
};

struct vibe_cast {
    struct vibe_clip *clips; /* [n] owned */
    size_t n;
    const char *option; /* that names them, for messages; borrowed */
};

/*
 * List the clips without reading them.
 *
 *   out     release with vibe_cast_release, also after a failure
 *   words   "FILE" or "N=FILE"; borrowed until vibe_cast_release
 *   option  that they are of, for messages; borrowed until vibe_cast_release
 */
enum vibe_exit vibe_cast_open(struct vibe_cast *out,
                              const struct vibe_words *words,
                              const char *option, struct vibe_failure *why);

/*
 * Give each speaker of a script a clip: the one that names it, or else the
 * next that names none, in ascending order of speakers.  An empty cast gives
 * no one a voice.
 *
 *   voices  set to [*n_voices] in order of speakers, without samples yet; free
 *           with free()
 *   name    of the script, for messages
 */
enum vibe_exit vibe_cast_bind(struct vibe_cast *cast,
                              struct vibe_voice **voices, size_t *n_voices,
                              const struct vibe_script *script,
                              const char *name, struct vibe_failure *why);

/* Fail if a clip names a speaker that no script has. */
enum vibe_exit vibe_cast_check(const struct vibe_cast *cast,
                               struct vibe_failure *why);

/*
 * Read every clip, bring it to 24 kHz and see whether it is a voice.
 *
 *   recordings   those read before, and those read now: borrowed until both
 *                are released
 */
enum vibe_exit vibe_cast_read(struct vibe_cast *cast,
                              struct vibe_recordings *recordings,
                              struct vibe_failure *why);

/* Lend voices that were bound the samples of their clips. */
void vibe_cast_lend(const struct vibe_cast *cast, struct vibe_voice *voices,
                    size_t n_voices);

/* Warn of recordings that say too little of a voice, or more than is used to
 * learn one from. */
void vibe_recordings_remark(const struct vibe_recordings *recordings,
                            struct vibe_log *log);

void vibe_cast_release(struct vibe_cast *cast);
void vibe_recordings_release(struct vibe_recordings *recordings);

#endif /* VIBE_CLI_CAST_H */
