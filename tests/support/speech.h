/*
 * speech.h - what the tests of audio/writer.h share: a voice, and the steps of
 * writing it.
 */
#ifndef VIBE_TEST_SPEECH_H
#define VIBE_TEST_SPEECH_H

#include "audio/writer.h"
#include "engine/base/error.h"
#include "tests/support/scratch.h"

enum {
    RATE = 24000,
    FRAME = 3200, /* samples that the model makes at a time */
    N_FRAMES = 12,
    N = N_FRAMES * FRAME,
};

/* Every format of a file, in the order of enum vibe_audio_format. */
extern const char *const speech_extensions[];
enum { N_EXTENSIONS = 6 };

/* 16 bits, format by the extension. */
extern const struct vibe_writer_options speech_plain;

struct speech {
    struct vibe_scratch scratch;
    float samples[N];
    struct vibe_writer *writer;
    struct vibe_error err;
};

/* For VIBE_TEST(): each test works inside its own folder. */
int speech_setup(void **state);
int speech_teardown(void **state);

/* Open a writer in place of the one before; "-" becomes fd for that moment. */
void speech_open(struct speech *f, const char *path,
                 const struct vibe_writer_options *opt);
void speech_open_stdout(struct speech *f, int fd,
                        const struct vibe_writer_options *opt);

/* Write the first frames one by one, and finish; each must succeed. */
void speech_write(struct speech *f, int n_frames);
void speech_finish(struct speech *f);

/* All of the above for the whole voice. */
void speech_make(struct speech *f, const char *path,
                 const struct vibe_writer_options *opt);

/* Decode at most N samples; returns how many, -1 if it is no mono file. */
long speech_decode(const char *path, float *out, int *rate);
long speech_length(const char *path);

#endif /* VIBE_TEST_SPEECH_H */
