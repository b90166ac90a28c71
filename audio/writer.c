#include "audio/writer.h"

#include <assert.h>
#include <math.h>
#include <sndfile.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "audio/sink.h"
#include "engine/base/error.h"

enum {
    CHUNK = 4096, /* samples converted at a time: a frame is 3200 */
    STREAM_HEADER = 44,
    MAX_TEXT =
        4096, /* bytes of a title or comment; libsndfile has its limits */
};

struct format {
    const char *name;
    int major;
    int subtype[3]; /* by enum vibe_sample_format; 0: not possible */
};

static const struct format formats[] = {
    [VIBE_AUDIO_AUTO] = {"auto", 0, {0, 0, 0}},
    [VIBE_AUDIO_WAV] = {"wav",
                        SF_FORMAT_WAV,
                        {SF_FORMAT_PCM_16, SF_FORMAT_PCM_24, SF_FORMAT_FLOAT}},
    [VIBE_AUDIO_FLAC] = {"flac",
                         SF_FORMAT_FLAC,
                         {SF_FORMAT_PCM_16, SF_FORMAT_PCM_24, 0}},
    [VIBE_AUDIO_OGG] = {"ogg", SF_FORMAT_OGG, {SF_FORMAT_VORBIS, 0, 0}},
    [VIBE_AUDIO_OPUS] = {"opus", SF_FORMAT_OGG, {SF_FORMAT_OPUS, 0, 0}},
    [VIBE_AUDIO_MP3] = {"mp3",
                        SF_FORMAT_MPEG,
                        {SF_FORMAT_MPEG_LAYER_III, 0, 0}},
    [VIBE_AUDIO_RAW] = {"raw",
                        SF_FORMAT_RAW | SF_ENDIAN_LITTLE,
                        {SF_FORMAT_PCM_16, SF_FORMAT_PCM_24, SF_FORMAT_FLOAT}},
};

static const char *const sample_names[] = {
    [VIBE_SAMPLE_S16] = "s16",
    [VIBE_SAMPLE_S24] = "s24",
    [VIBE_SAMPLE_F32] = "f32",
};

static const int sample_bytes[] = {
    [VIBE_SAMPLE_S16] = 2,
    [VIBE_SAMPLE_S24] = 3,
    [VIBE_SAMPLE_F32] = 4,
};

enum {
    N_FORMATS = sizeof(formats) / sizeof(formats[0]),
    N_SAMPLES = sizeof(sample_names) / sizeof(sample_names[0]),
};

struct vibe_writer {
    struct vibe_sink *sink;
    SNDFILE *file; /* NULL once closed */
    enum vibe_audio_format format;
    enum vibe_sample_format sample;
    int subtype;
    int rate;
    size_t n;       /* samples written */
    bool is_broken; /* the encoder failed where the sink did not */
};

bool vibe_audio_format_parse(enum vibe_audio_format *out, const char *name)
{
    for (int i = VIBE_AUDIO_WAV; i < N_FORMATS; i++) {
        if (strcasecmp(name, formats[i].name) == 0) {
            *out = (enum vibe_audio_format)i;
            return true;
        }
    }
    return false;
}

bool vibe_sample_format_parse(enum vibe_sample_format *out, const char *name)
{
    for (int i = 0; i < N_SAMPLES; i++) {
        if (strcasecmp(name, sample_names[i]) == 0) {
            *out = (enum vibe_sample_format)i;
            return true;
        }
    }
    return false;
}

const char *vibe_audio_format_name(enum vibe_audio_format format)
{
    return formats[format].name;
}

const char *vibe_sample_format_name(enum vibe_sample_format sample)
{
    return sample_names[sample];
}

/* Replace VIBE_AUDIO_AUTO by what the name of the file says. */
static int choose_format(enum vibe_audio_format *format, const char *path,
                         struct vibe_error *err)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    const char *dot = strrchr(base, '.');

    if (*format != VIBE_AUDIO_AUTO)
        return VIBE_OK;
    if (!dot || dot == base) { /* no extension, or a hidden file */
        *format = VIBE_AUDIO_WAV;
        return VIBE_OK;
    }
    if (!vibe_audio_format_parse(format, dot + 1))
        return vibe_fail(err, VIBE_E_UNSUPPORTED,
                         "%s: unknown extension '%s' (have wav, flac, ogg, "
                         "opus, mp3, raw)",
                         path, dot);
    return VIBE_OK;
}

/* Fill in the fields that say what is written. */
static int choose(struct vibe_writer *writer, const char *path,
                  const struct vibe_writer_options *opt, struct vibe_error *err)
{
    int rc;

    assert(opt->rate > 0);
    writer->format = opt->format;
    writer->sample = opt->sample;
    writer->rate = opt->rate;
    rc = choose_format(&writer->format, path, err);
    if (rc)
        return rc;
    writer->subtype = formats[writer->format].subtype[opt->sample];
    if (!writer->subtype)
        return vibe_fail(
            err, VIBE_E_UNSUPPORTED, "%s: %s is not possible in %s", path,
            sample_names[opt->sample], formats[writer->format].name);
    return VIBE_OK;
}

static int check_stream(const struct vibe_writer *writer, const char *path,
                        struct vibe_error *err)
{
    if (writer->format != VIBE_AUDIO_WAV && writer->format != VIBE_AUDIO_RAW)
        return vibe_fail(err, VIBE_E_UNSUPPORTED,
                         "%s: %s cannot be streamed (have wav, raw)", path,
                         formats[writer->format].name);
    return VIBE_OK;
}

int vibe_writer_check(const char *path, const struct vibe_writer_options *opt,
                      struct vibe_error *err)
{
    struct vibe_writer what = {0};
    bool is_stream;
    int rc;

    rc = choose(&what, path, opt, err);
    if (!rc)
        rc = vibe_sink_check(&is_stream, path, err);
    if (!rc && is_stream)
        rc = check_stream(&what, path, err);
    return rc;
}

/* libsndfile writes through these; the sink keeps the first errno. */
static sf_count_t io_length(void *sink)
{
    return vibe_sink_length(sink);
}

static sf_count_t io_seek(sf_count_t offset, int whence, void *sink)
{
    if (whence == SEEK_CUR)
        offset += vibe_sink_position(sink);
    else if (whence == SEEK_END)
        offset += vibe_sink_length(sink);
    vibe_sink_seek(sink, offset);
    return offset;
}

static sf_count_t io_read(void *data, sf_count_t n, void *sink)
{
    (void)data;
    (void)n;
    (void)sink;
    return 0; /* never asked for: the file is opened for writing */
}

static sf_count_t io_write(const void *data, sf_count_t n, void *sink)
{
    return (sf_count_t)vibe_sink_write(sink, data, (size_t)n);
}

static sf_count_t io_tell(void *sink)
{
    return vibe_sink_position(sink);
}

static SF_VIRTUAL_IO sink_io = {
    .get_filelen = io_length,
    .seek = io_seek,
    .read = io_read,
    .write = io_write,
    .tell = io_tell,
};

static void put_le(unsigned char *out, uint32_t value, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++)
        out[i] = (unsigned char)(value >> (8 * i));
}

/* Canonical WAV header for n_data bytes, or UINT32_MAX for "until the end". */
static void make_header(unsigned char out[STREAM_HEADER],
                        const struct vibe_writer *writer, uint32_t n_data)
{
    static const char blank[] = "RIFF----WAVEfmt --------------------data----";
    uint32_t n_riff = n_data == UINT32_MAX ? n_data
                                           : n_data + STREAM_HEADER - 8;
    uint32_t width = (uint32_t)sample_bytes[writer->sample];
    uint32_t rate = (uint32_t)writer->rate;

    memcpy(out, blank, STREAM_HEADER);
    put_le(out + 4, n_riff, 4);
    put_le(out + 16, 16, 4); /* bytes of the fmt chunk */
    put_le(out + 20, writer->sample == VIBE_SAMPLE_F32 ? 3 : 1, 2);
    put_le(out + 22, 1, 2); /* channel */
    put_le(out + 24, rate, 4);
    put_le(out + 28, rate * width, 4);
    put_le(out + 32, width, 2);
    put_le(out + 34, 8 * width, 2);
    put_le(out + 40, n_data, 4);
}

/* Store a title or comment in a file that has room for one. */
static int set_text(struct vibe_writer *writer, int which, const char *text,
                    struct vibe_error *err)
{
    const char *name = vibe_sink_name(writer->sink);

    if (!text || writer->format == VIBE_AUDIO_RAW ||
        vibe_sink_is_stream(writer->sink))
        return VIBE_OK;
    if (strlen(text) > MAX_TEXT)
        return vibe_fail(err, VIBE_E_UNSUPPORTED,
                         "%s: title or comment of %zu bytes, more than %d",
                         name, strlen(text), MAX_TEXT);
    if (sf_set_string(writer->file, which, text))
        return vibe_fail(err, VIBE_E_UNSUPPORTED, "%s: %s", name,
                         sf_strerror(writer->file));
    return VIBE_OK;
}

/* Start libsndfile on the sink, after our own header if it is a stream. */
static int start(struct vibe_writer *writer,
                 const struct vibe_writer_options *opt, struct vibe_error *err)
{
    bool is_stream = vibe_sink_is_stream(writer->sink);
    int major = formats[is_stream ? VIBE_AUDIO_RAW : writer->format].major;
    SF_INFO info = {
        .samplerate = writer->rate,
        .channels = 1,
        .format = major | writer->subtype,
    };
    int rc;

    writer->file = sf_open_virtual(&sink_io, SFM_WRITE, &info, writer->sink);
    if (!writer->file && vibe_sink_errno(writer->sink))
        return vibe_sink_status(writer->sink, err);
    if (!writer->file)
        return vibe_fail(err, VIBE_E_UNSUPPORTED, "%s: %s at %d Hz: %s",
                         vibe_sink_name(writer->sink),
                         formats[writer->format].name, writer->rate,
                         sf_strerror(NULL));
    /* Ogg would get a second set of headers, and a third, and a fourth. */
    if (writer->format == VIBE_AUDIO_WAV)
        sf_command(writer->file, SFC_SET_UPDATE_HEADER_AUTO, NULL, SF_TRUE);
    sf_command(writer->file, SFC_SET_CLIPPING, NULL, SF_TRUE);
    /* The PEAK chunk of float files holds the time of day. */
    sf_command(writer->file, SFC_SET_ADD_PEAK_CHUNK, NULL, SF_FALSE);
    rc = set_text(writer, SF_STR_TITLE, opt->title, err);
    if (!rc)
        rc = set_text(writer, SF_STR_COMMENT, opt->comment, err);
    return rc;
}

/* Write what precedes the first sample, as far as it is known already. */
static int write_header(struct vibe_writer *writer, struct vibe_error *err)
{
    unsigned char header[STREAM_HEADER];

    if (writer->format == VIBE_AUDIO_WAV) {
        if (vibe_sink_is_stream(writer->sink)) {
            make_header(header, writer, UINT32_MAX);
            vibe_sink_write(writer->sink, header, sizeof(header));
        } else {
            sf_command(writer->file, SFC_UPDATE_HEADER_NOW, NULL, 0);
        }
    }
    return vibe_sink_status(writer->sink, err);
}

int vibe_writer_open(struct vibe_writer **out, const char *path,
                     const struct vibe_writer_options *opt,
                     struct vibe_error *err)
{
    struct vibe_writer *writer = NULL;
    int rc;

    *out = NULL;
    rc = vibe_writer_check(path, opt, err);
    if (rc)
        return rc;
    writer = calloc(1, sizeof(*writer));
    if (!writer)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: out of memory", path);
    rc = choose(writer, path, opt, err);
    if (rc)
        goto out;
    rc = vibe_sink_open(&writer->sink, path, err);
    if (rc)
        goto out;
    rc = start(writer, opt, err);
    if (rc)
        goto out;
    rc = write_header(writer, err);
    if (rc)
        goto out;
    *out = writer;
    writer = NULL; /* now the caller's */

out:
    vibe_writer_free(writer);
    return rc;
}

/* Round to an integer with full_scale = 2^(bits - 1), saturating. */
static int quantize(float x, float full_scale)
{
    float scaled = rintf(x * full_scale);

    return (int)fminf(fmaxf(scaled, -full_scale), full_scale - 1.0f);
}

static sf_count_t put_s16(SNDFILE *file, const float *samples, size_t n)
{
    short pcm[CHUNK];

    for (size_t i = 0; i < n; i++)
        pcm[i] = (short)quantize(samples[i], 0x1p15f);
    return sf_write_short(file, pcm, (sf_count_t)n);
}

static sf_count_t put_s24(SNDFILE *file, const float *samples, size_t n)
{
    int pcm[CHUNK];

    /* libsndfile takes 24 bits from the top of an int. */
    for (size_t i = 0; i < n; i++)
        pcm[i] = quantize(samples[i], 0x1p23f) * 256;
    return sf_write_int(file, pcm, (sf_count_t)n);
}

/* Hand n <= CHUNK samples over; returns how many were taken. */
static sf_count_t put(const struct vibe_writer *writer, const float *samples,
                      size_t n)
{
    /*
     * Integers are made here: libsndfile rounds them down when it clips,
     * which is an offset of half a step, and streams must match files.
     */
    if (writer->subtype == SF_FORMAT_PCM_16)
        return put_s16(writer->file, samples, n);
    if (writer->subtype == SF_FORMAT_PCM_24)
        return put_s24(writer->file, samples, n);
    return sf_write_float(writer->file, samples, (sf_count_t)n);
}

static int check_finite(const struct vibe_writer *writer, const float *samples,
                        size_t n, struct vibe_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(samples[i]))
            return vibe_fail(err, VIBE_E_FORMAT,
                             "%s: sample %zu to write is not a finite number",
                             vibe_sink_name(writer->sink), writer->n + i);
    }
    return VIBE_OK;
}

static int fail_broken(const struct vibe_writer *writer, struct vibe_error *err)
{
    return vibe_fail(err, VIBE_E_IO, "%s: the %s encoder failed",
                     vibe_sink_name(writer->sink),
                     formats[writer->format].name);
}

int vibe_writer_write(struct vibe_writer *writer, const float *samples,
                      size_t n, struct vibe_error *err)
{
    size_t done = 0;
    int rc;

    assert(writer->file);
    rc = check_finite(writer, samples, n, err);
    while (!rc && done < n) {
        size_t part = n - done < CHUNK ? n - done : CHUNK;
        sf_count_t taken = put(writer, samples + done, part);

        rc = vibe_sink_status(writer->sink, err);
        if (!rc && (writer->is_broken || taken != (sf_count_t)part)) {
            writer->is_broken = true;
            rc = fail_broken(writer, err);
        }
        done += part;
    }
    if (!rc)
        writer->n += n;
    return rc;
}

int vibe_writer_errno(const struct vibe_writer *writer)
{
    return vibe_sink_errno(writer->sink);
}

/* Let libsndfile write its last bytes, and put a stream's header right. */
static void complete(struct vibe_writer *writer)
{
    unsigned char header[STREAM_HEADER];
    size_t n_data = writer->n * (size_t)sample_bytes[writer->sample];

    assert(writer->file);
    if (sf_close(writer->file))
        writer->is_broken = true;
    writer->file = NULL;
    if (vibe_sink_is_stream(writer->sink) && writer->format == VIBE_AUDIO_WAV &&
        n_data < UINT32_MAX - STREAM_HEADER) {
        make_header(header, writer, (uint32_t)n_data);
        vibe_sink_patch(writer->sink, 0, header, sizeof(header));
    }
}

/* What an encoder makes of no samples at all is a file that nobody can read. */
static void add_silence(struct vibe_writer *writer)
{
    static const float silence = 0.0f;

    if (writer->n == 0 && writer->format != VIBE_AUDIO_WAV &&
        writer->format != VIBE_AUDIO_RAW)
        put(writer, &silence, 1);
}

int vibe_writer_finish(struct vibe_writer *writer, struct vibe_error *err)
{
    add_silence(writer);
    complete(writer);
    if (writer->is_broken && !vibe_sink_errno(writer->sink)) {
        vibe_sink_abort(writer->sink);
        return fail_broken(writer, err);
    }
    return vibe_sink_commit(writer->sink, err);
}

int vibe_writer_keep(struct vibe_writer *writer, const char **part,
                     struct vibe_error *err)
{
    *part = NULL;
    if (writer->n == 0 && !vibe_sink_is_stream(writer->sink)) {
        vibe_writer_abort(writer);
        return VIBE_OK;
    }
    complete(writer);
    *part = vibe_sink_part(writer->sink);
    return vibe_sink_keep(writer->sink, err);
}

void vibe_writer_abort(struct vibe_writer *writer)
{
    if (!writer->file)
        return;
    sf_close(writer->file);
    writer->file = NULL;
    vibe_sink_abort(writer->sink);
}

void vibe_writer_free(struct vibe_writer *writer)
{
    if (!writer)
        return;
    if (writer->file)
        sf_close(writer->file);
    vibe_sink_free(writer->sink);
    free(writer);
}
