/*
 * sink.h - where output bytes go: a file that appears whole or not at all, or
 * a stream.
 *
 * A file named out.wav grows as out.part.wav in the same folder (out as
 * out.part) and takes its final name by one rename, so whoever sees out.wav
 * sees all of it.  A lock on the part file keeps two runs from one name.  "-"
 * is standard output; it, pipes and devices are streams: written in order,
 * without a second name.
 *
 * Write errors latch, as with ferror: the first errno is kept and later writes
 * do nothing, until one of the closing calls reports it.
 */
#ifndef VIBE_AUDIO_SINK_H
#define VIBE_AUDIO_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vibe_error;
struct vibe_sink;

/*
 * Find out, without creating anything, whether path can be written to.
 *
 *   is_stream  set to whether it is standard output, a pipe or a device
 *
 * Errors: VIBE_E_IO           folder missing or not writable, path is a folder
 *         VIBE_E_UNSUPPORTED  "-" is a terminal
 */
int vibe_sink_check(bool *is_stream, const char *path, struct vibe_error *err);

/*
 * Check path as above and start writing.  A part file left there by an earlier
 * run is replaced, one that is being written is not; a file under the final
 * name stays until the end.
 *
 *   out   set to the sink, or to NULL on error; free with vibe_sink_free
 *   path  a symbolic link to a file is followed: its target is replaced
 *
 * Errors: those of vibe_sink_check; VIBE_E_IO  another sink is writing there;
 *         VIBE_E_NOMEM
 */
int vibe_sink_open(struct vibe_sink **out, const char *path,
                   struct vibe_error *err);

/* Write n bytes at the position and advance it; returns n, or fewer and
 * latches. */
size_t vibe_sink_write(struct vibe_sink *sink, const void *data, size_t n);

/* Move the position; a stream can only stay where it is. */
void vibe_sink_seek(struct vibe_sink *sink, int64_t position);
int64_t vibe_sink_position(const struct vibe_sink *sink);
int64_t vibe_sink_length(const struct vibe_sink *sink);

bool vibe_sink_is_stream(const struct vibe_sink *sink);

/*
 * Overwrite bytes that a stream has passed, if it is standard output sent to a
 * file ("-o - > x.wav"); does nothing to a pipe or a device.
 */
void vibe_sink_patch(struct vibe_sink *sink, int64_t position, const void *data,
                     size_t n);

/* The first errno of this sink, 0 while all is well; EPIPE: the reader left. */
int vibe_sink_errno(const struct vibe_sink *sink);

/* Report the latched errno: VIBE_OK, or VIBE_E_IO with the file's name. */
int vibe_sink_status(const struct vibe_sink *sink, struct vibe_error *err);

/* What messages call it: the path, or "standard output".  Borrowed. */
const char *vibe_sink_name(const struct vibe_sink *sink);

/* The name under which a file of this path grows: what is there goes when it is
 * opened.  Owned by the caller; NULL without memory. */
char *vibe_sink_part_of(const char *path);

/* The name of the file while it grows; NULL for a stream.  Borrowed. */
const char *vibe_sink_part(const struct vibe_sink *sink);

/*
 * Close with all bytes on disk and give the file its final name.
 *
 * Errors: VIBE_E_IO, now or latched.  The part file is then removed, and what
 * was under the final name is as before.
 */
int vibe_sink_commit(struct vibe_sink *sink, struct vibe_error *err);

/*
 * Close and leave the part file under its own name.
 *
 * Errors: VIBE_E_IO, now or latched; the part file stays even so.
 */
int vibe_sink_keep(struct vibe_sink *sink, struct vibe_error *err);

/* Close and remove the part file; nothing to do after commit or keep. */
void vibe_sink_abort(struct vibe_sink *sink);

/* Abort if still open and release everything; NULL is allowed. */
void vibe_sink_free(struct vibe_sink *sink);

#endif /* VIBE_AUDIO_SINK_H */
