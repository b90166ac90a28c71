/*
 * writer.h - speech on its way to a file, frame by frame.
 *
 * The file grows under a temporary name (out.part.wav) and gets its own when
 * it is finished; see sink.h.  After every call the operating system has all
 * samples of a WAV and its header is correct, so that a killed run leaves what
 * it had spoken.  The other formats then lack what their encoder held back:
 * FLAC up to 0.2 s, Ogg about 1 s.  A WAV ends at 4 GiB, a day of 16 bits.
 *
 * The same samples and options give the same bytes, with one exception: Ogg
 * streams (ogg, opus) carry a serial number that libsndfile draws from the
 * clock.  What they decode to is the same.
 *
 * Mono; samples are f32 with full scale 1.  Integer files hold
 * round(x * 2^(bits - 1)), saturated; so a 16-bit file read and written again
 * is unchanged.  Float files hold the samples as they are.
 */
#ifndef VIBE_AUDIO_WRITER_H
#define VIBE_AUDIO_WRITER_H

#include <stdbool.h>
#include <stddef.h>

struct vibe_error;
struct vibe_writer;

enum vibe_audio_format {
    VIBE_AUDIO_AUTO = 0, /* by the extension; WAV without one and for "-" */
    VIBE_AUDIO_WAV,
    VIBE_AUDIO_FLAC,
    VIBE_AUDIO_OGG, /* Vorbis */
    VIBE_AUDIO_OPUS,
    VIBE_AUDIO_MP3,
    VIBE_AUDIO_RAW, /* little-endian samples and nothing else */
};

enum vibe_sample_format {
    VIBE_SAMPLE_S16 = 0, /* also stands for "whatever it takes" in ogg..mp3 */
    VIBE_SAMPLE_S24,     /* wav, flac, raw */
    VIBE_SAMPLE_F32,     /* wav, raw */
};

struct vibe_writer_options {
    int rate; /* Hz; 24000 for this model, opus also takes 8, 12, 16, 48 k */
    enum vibe_audio_format format;
    enum vibe_sample_format sample;
    /* Kept in files that have room for them, not in raw or in streams; may be
     * NULL; borrowed for the call. */
    const char *title;
    const char *comment;
};

/*
 * Names as a user writes them: "wav", "flac", "ogg", "opus", "mp3", "raw";
 * "s16", "s24", "f32".  Parsing ignores case and returns false, leaving *out
 * untouched, for any other.  A format's name is its file extension too.
 */
bool vibe_audio_format_parse(enum vibe_audio_format *out, const char *name);
bool vibe_sample_format_parse(enum vibe_sample_format *out, const char *name);
const char *vibe_audio_format_name(enum vibe_audio_format format);
const char *vibe_sample_format_name(enum vibe_sample_format sample);

/*
 * Find out, without creating anything, whether vibe_writer_open would work.
 *
 * Errors: VIBE_E_UNSUPPORTED  unknown extension; format and sample format do
 *                             not go together; format cannot be streamed; "-"
 *                             is a terminal
 *         VIBE_E_IO           folder missing or not writable, path is a folder
 */
int vibe_writer_check(const char *path, const struct vibe_writer_options *opt,
                      struct vibe_error *err);

/*
 * Start a file.  A WAV on standard output, a pipe or a device begins with a
 * 44-byte header whose sizes are 0xFFFFFFFF, "until the end"; if it is
 * standard output sent to a file they are put right at the end.
 *
 *   out   set to the writer, or to NULL on error; free with vibe_writer_free
 *   path  "-" for standard output; see sink.h
 *
 * Errors: those of vibe_writer_check; VIBE_E_NOMEM
 */
int vibe_writer_open(struct vibe_writer **out, const char *path,
                     const struct vibe_writer_options *opt,
                     struct vibe_error *err);

/*
 * Append n samples.  Allocates nothing itself.
 *
 * Errors: VIBE_E_IO      disk full, reader gone (vibe_writer_errno: EPIPE), ...
 *         VIBE_E_FORMAT  a sample is NaN or infinite; none of the n is written
 * After VIBE_E_IO all writing fails; close by keep, abort or free.
 */
int vibe_writer_write(struct vibe_writer *writer, const float *samples,
                      size_t n, struct vibe_error *err);

/* The errno behind the first VIBE_E_IO, 0 if there was none. */
int vibe_writer_errno(const struct vibe_writer *writer);

/*
 * Complete the file and give it its final name.  Blocks until it is on disk.
 * Without any samples a WAV or raw file is empty; FLAC, Ogg and MP3 cannot be,
 * and hold one of silence.
 *
 * Errors: VIBE_E_IO, now or from an earlier write.  Nothing is then left of
 * it, and what was under the final name is as before.
 */
int vibe_writer_finish(struct vibe_writer *writer, struct vibe_error *err);

/*
 * Complete an interrupted file and leave it under its temporary name.
 *
 *   part   set to that name, borrowed until vibe_writer_free; to NULL where
 *          there is no such file: a stream, or no samples were written, in
 *          which case it is removed
 *
 * Errors: VIBE_E_IO; the part file stays, readable as far as it got.
 */
int vibe_writer_keep(struct vibe_writer *writer, const char **part,
                     struct vibe_error *err);

/* Drop the file: nothing is left of it.  Nothing to do once it is closed. */
void vibe_writer_abort(struct vibe_writer *writer);

/* Abort if still open and release everything; NULL is allowed. */
void vibe_writer_free(struct vibe_writer *writer);

#endif /* VIBE_AUDIO_WRITER_H */
