#include "cli/cast.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audio/resample.h"
#include "cli/cli.h"
#include "engine/vibevoice.h"

enum {
    MAX_DIGITS = 6, /* of a speaker's number */
    SHORTEST_S = 1, /* seconds of a recording that nobody wonders about */
    LONGEST_S = 60,
};

/* Split "N=FILE"; a word of any other form is a path. */
static void read_word(struct vibe_clip *clip, const char *word)
{
    size_t digits = strspn(word, "0123456789");

    clip->path = word;
    clip->speaker = -1;
    if (digits == 0 || digits > MAX_DIGITS || word[digits] != '=')
        return;
    clip->path = word + digits + 1;
    clip->speaker = 0;
    for (size_t i = 0; i < digits; i++)
        clip->speaker = clip->speaker * 10 + (word[i] - '0');
}

/* "x=a.wav" is meant as a binding unless there is such a file. */
static int is_misread(const char *word)
{
    const char *equals = strchr(word, '=');
    const char *slash = strchr(word, '/');

    return equals && (!slash || equals < slash) && access(word, F_OK) != 0;
}

enum vibe_exit vibe_cast_open(struct vibe_cast *out,
                              const struct vibe_words *words,
                              const char *option, struct vibe_failure *why)
{
    *out = (struct vibe_cast){.option = option};
    if (words->n == 0)
        return VIBE_EXIT_OK;
    out->clips = calloc(words->n, sizeof(*out->clips));
    if (!out->clips)
        return vibe_cli_fail_memory(why, "voices");
    for (; out->n < words->n; out->n++) {
        struct vibe_clip *clip = &out->clips[out->n];

        read_word(clip, words->items[out->n]);
        if (!*clip->path)
            return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                                 "%s: '%s' names no file", option,
                                 words->items[out->n]);
        if (clip->speaker < 0 && is_misread(clip->path))
            return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                                 "%s: '%s' is not N=FILE with the number of a "
                                 "speaker, nor a file",
                                 option, clip->path);
        for (size_t i = 0; i < out->n && clip->speaker >= 0; i++)
            if (out->clips[i].speaker == clip->speaker)
                return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                                     "%s: speaker %d has two voices, %s and %s",
                                     option, clip->speaker, out->clips[i].path,
                                     clip->path);
    }
    return VIBE_EXIT_OK;
}

/* The clip of a speaker; *next is the first unnamed one not yet taken. */
static struct vibe_clip *find_clip(struct vibe_cast *cast, int speaker,
                                   size_t *next)
{
    for (size_t i = 0; i < cast->n; i++)
        if (cast->clips[i].speaker == speaker)
            return &cast->clips[i];
    while (*next < cast->n && cast->clips[*next].speaker >= 0)
        (*next)++;
    return *next < cast->n ? &cast->clips[(*next)++] : NULL;
}

static size_t count_unnamed(const struct vibe_cast *cast, size_t first)
{
    size_t n = 0;

    for (size_t i = first; i < cast->n; i++)
        n += cast->clips[i].speaker < 0;
    return n;
}

/* "talk.txt: script has 3 speakers but 2 voice files were given". */
static enum vibe_exit fail_count(const struct vibe_cast *cast, size_t n_ids,
                                 int lacking, const char *name,
                                 struct vibe_failure *why)
{
    char tail[64] = "";

    if (lacking >= 0 && cast->n >= n_ids)
        return vibe_cli_fail(why, VIBE_EXIT_INPUT, name,
                             "%s: speaker %d has no voice; those given are of "
                             "other speakers",
                             name, lacking);
    if (lacking >= 0)
        snprintf(tail, sizeof(tail), "; speaker %d has no voice", lacking);
    return vibe_cli_fail(why, VIBE_EXIT_INPUT, name,
                         "%s: script has %zu speaker%s but %zu voice file%s "
                         "given%s",
                         name, n_ids, n_ids == 1 ? "" : "s", cast->n,
                         cast->n == 1 ? " was" : "s were", tail);
}

/*
 * The model is told "Speaker i" for the i-th voice, so speakers who have
 * voices must be numbered without gaps.
 */
static enum vibe_exit check_gaps(const struct vibe_script *script,
                                 const int *ids, size_t n_ids, const char *name,
                                 struct vibe_failure *why)
{
    int first = ids[0] - vibe_script_number(script, ids[0]);

    for (size_t i = 0; i < n_ids; i++) {
        int expected = first + (int)i;

        if (ids[i] != expected)
            return vibe_cli_fail(why, VIBE_EXIT_INPUT, name,
                                 "%s: speaker %d says nothing and has no "
                                 "voice; with voices, speakers count from %d "
                                 "without gaps",
                                 name, expected, first);
    }
    return VIBE_EXIT_OK;
}

/* Bind n_ids speakers; voices has room for them. */
static enum vibe_exit bind_ids(struct vibe_cast *cast,
                               struct vibe_voice *voices, const int *ids,
                               size_t n_ids, const char *name,
                               struct vibe_failure *why)
{
    size_t next = 0;

    for (size_t i = 0; i < n_ids; i++) {
        struct vibe_clip *clip = find_clip(cast, ids[i], &next);

        if (!clip)
            return fail_count(cast, n_ids, ids[i], name, why);
        clip->is_used = 1;
        voices[i] = (struct vibe_voice){
            .speaker = ids[i],
            .name = clip->path,
        };
    }
    if (count_unnamed(cast, next) > 0)
        return fail_count(cast, n_ids, -1, name, why);
    return VIBE_EXIT_OK;
}

enum vibe_exit vibe_cast_bind(struct vibe_cast *cast,
                              struct vibe_voice **voices, size_t *n_voices,
                              const struct vibe_script *script,
                              const char *name, struct vibe_failure *why)
{
    size_t n = cast->n ? vibe_script_speakers(script, NULL, 0) : 0;
    enum vibe_exit status = VIBE_EXIT_OK;
    int *ids = NULL;

    *voices = NULL;
    *n_voices = 0;
    if (n == 0)
        return VIBE_EXIT_OK;
    ids = calloc(n, sizeof(*ids));
    *voices = calloc(n, sizeof(**voices));
    if (ids && *voices) {
        vibe_script_speakers(script, ids, n);
        *n_voices = n;
        status = check_gaps(script, ids, n, name, why);
        if (status == VIBE_EXIT_OK)
            status = bind_ids(cast, *voices, ids, n, name, why);
    } else {
        status = vibe_cli_fail_memory(why, "voices");
    }
    free(ids);
    return status;
}

enum vibe_exit vibe_cast_check(const struct vibe_cast *cast,
                               struct vibe_failure *why)
{
    for (size_t i = 0; i < cast->n; i++) {
        const struct vibe_clip *clip = &cast->clips[i];

        if (!clip->is_used)
            return vibe_cli_fail(why, VIBE_EXIT_INPUT, clip->path,
                                 "%s %d=%s: no script has a speaker %d",
                                 cast->option, clip->speaker, clip->path,
                                 clip->speaker);
    }
    return VIBE_EXIT_OK;
}

struct vibe_recording {
    const char *path; /* borrowed from the words */
    struct vibe_audio audio;
};

/* Read a recording and see whether it is a voice; on error there is none. */
static enum vibe_exit read_audio(struct vibe_audio *out, const char *path,
                                 struct vibe_failure *why)
{
    struct vibe_audio recorded = {0};
    struct vibe_voice voice = {.name = path};
    int rc = vibe_wav_read(&recorded, path, &why->err);

    if (rc == VIBE_OK)
        rc = vibe_resample(out, &recorded, VIBE_SAMPLE_RATE, &why->err);
    vibe_audio_release(&recorded);
    if (rc != VIBE_OK)
        return vibe_cli_fail_by(why, VIBE_EXIT_INPUT, path);
    voice.samples = out->samples;
    voice.n = out->n;
    rc = vibe_voice_check(&voice, &why->err);
    if (rc == VIBE_OK)
        return VIBE_EXIT_OK;
    vibe_audio_release(out);
    return vibe_cli_fail_by(why, VIBE_EXIT_INPUT, path);
}

static enum vibe_exit read_clip(struct vibe_clip *clip,
                                struct vibe_recordings *all,
                                struct vibe_failure *why)
{
    struct vibe_recording *recording;

    for (size_t i = 0; i < all->n; i++) {
        if (strcmp(all->items[i].path, clip->path) == 0) {
            clip->audio = all->items[i].audio;
            return VIBE_EXIT_OK;
        }
    }
    if (all->n == all->capacity) {
        const size_t capacity = all->capacity ? 2 * all->capacity : 16;
        void *grown = realloc(all->items, capacity * sizeof(*all->items));

        if (!grown)
            return vibe_cli_fail_memory(why, "voices");
        all->items = grown;
        all->capacity = capacity;
    }
    recording = &all->items[all->n];
    *recording = (struct vibe_recording){.path = clip->path};
    if (read_audio(&recording->audio, clip->path, why) != VIBE_EXIT_OK)
        return why->status;
    clip->audio = recording->audio;
    all->n++;
    return VIBE_EXIT_OK;
}

enum vibe_exit vibe_cast_read(struct vibe_cast *cast,
                              struct vibe_recordings *recordings,
                              struct vibe_failure *why)
{
    enum vibe_exit status = VIBE_EXIT_OK;

    for (size_t i = 0; i < cast->n && status == VIBE_EXIT_OK; i++)
        status = read_clip(&cast->clips[i], recordings, why);
    return status;
}

void vibe_cast_lend(const struct vibe_cast *cast, struct vibe_voice *voices,
                    size_t n_voices)
{
    for (size_t i = 0; i < n_voices; i++) {
        for (size_t j = 0; j < cast->n; j++) {
            /* The same pointer, not the same text: it was bound from it. */
            if (voices[i].name != cast->clips[j].path)
                continue;
            voices[i].samples = cast->clips[j].audio.samples;
            voices[i].n = cast->clips[j].audio.n;
        }
    }
}

void vibe_recordings_remark(const struct vibe_recordings *recordings,
                            struct vibe_log *log)
{
    for (size_t i = 0; i < recordings->n; i++) {
        const double seconds = (double)recordings->items[i].audio.n /
                               VIBE_SAMPLE_RATE;

        if (seconds < SHORTEST_S || seconds > LONGEST_S)
            vibe_log(log, VIBE_LOG_WARN,
                     "%s: is %.*f s long; ten to thirty seconds make the best "
                     "voice",
                     recordings->items[i].path, seconds < SHORTEST_S ? 2 : 0,
                     seconds);
    }
}

void vibe_cast_release(struct vibe_cast *cast)
{
    free(cast->clips);
    *cast = (struct vibe_cast){0};
}

void vibe_recordings_release(struct vibe_recordings *recordings)
{
    for (size_t i = 0; i < recordings->n; i++)
        vibe_audio_release(&recordings->items[i].audio);
    free(recordings->items);
    *recordings = (struct vibe_recordings){0};
}
