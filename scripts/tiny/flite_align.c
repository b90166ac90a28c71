/*
 * flite_align.c - speak lines with flite and say when each phone was spoken.
 *
 * Reads lines "voice<TAB>stretch<TAB>text" (voice: slt, rms, awb or kal16;
 * stretch: duration factor) and answers each with one little-endian record:
 *
 *   i32 rate, i32 n_samples, i32 n_phones, i16 samples[n_samples],
 *   then per phone: f32 end (s), i32 token, char name[8]
 *
 * token counts the white-space separated tokens of the text; -1 is a pause.
 * A line that cannot be spoken is answered by n_samples = 0.
 */
#include <flite/flite.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cst_voice *register_cmu_us_slt(const char *dir);
cst_voice *register_cmu_us_rms(const char *dir);
cst_voice *register_cmu_us_awb(const char *dir);
cst_voice *register_cmu_us_kal16(const char *dir);

enum { LINE_BYTES = 4096, NAME_BYTES = 8 };

static cst_voice *find_voice(const char *name)
{
    static cst_voice *slt, *rms, *awb, *kal16;

    if (!slt) {
        slt = register_cmu_us_slt(NULL);
        rms = register_cmu_us_rms(NULL);
        awb = register_cmu_us_awb(NULL);
        kal16 = register_cmu_us_kal16(NULL);
    }
    if (strcmp(name, "slt") == 0)
        return slt;
    if (strcmp(name, "rms") == 0)
        return rms;
    if (strcmp(name, "awb") == 0)
        return awb;
    return strcmp(name, "kal16") == 0 ? kal16 : NULL;
}

/* Count the items before `item` in its relation. */
static int position(const cst_item *item)
{
    int n = 0;

    for (item = item_prev(item); item; item = item_prev(item))
        n++;
    return n;
}

/* Index of the token that a segment belongs to, or -1 for a pause. */
static int token_of(const cst_item *segment)
{
    const cst_item *word =
        path_to_item(segment, "R:SylStructure.parent.parent.R:Token.parent");

    return word ? position(word) : -1;
}

static void put_i32(int32_t v)
{
    fwrite(&v, sizeof(v), 1, stdout);
}

static void write_phone(const cst_item *segment)
{
    float end = item_feat_float(segment, "end");
    char name[NAME_BYTES] = {0};

    strncpy(name, item_feat_string(segment, "name"), NAME_BYTES - 1);
    fwrite(&end, sizeof(end), 1, stdout);
    put_i32(token_of(segment));
    fwrite(name, NAME_BYTES, 1, stdout);
}

static void speak(cst_voice *voice, float stretch, const char *text)
{
    cst_utterance *utt = NULL;
    cst_wave *wave = NULL;
    int n_phones = 0;

    if (voice) {
        feat_set_float(voice->features, "duration_stretch", stretch);
        utt = flite_synth_text(text, voice);
    }
    wave = utt ? utt_wave(utt) : NULL;
    if (!wave) {
        put_i32(0);
        put_i32(0);
        put_i32(0);
        return;
    }
    for (cst_item *s = relation_head(utt_relation(utt, "Segment")); s;
         s = item_next(s))
        n_phones++;
    put_i32(wave->sample_rate);
    put_i32(wave->num_samples);
    put_i32(n_phones);
    fwrite(wave->samples, sizeof(short), (size_t)wave->num_samples, stdout);
    for (cst_item *s = relation_head(utt_relation(utt, "Segment")); s;
         s = item_next(s))
        write_phone(s);
    delete_utterance(utt);
}

int main(void)
{
    char line[LINE_BYTES];

    flite_init();
    while (fgets(line, sizeof(line), stdin)) {
        char *name = strtok(line, "\t");
        char *stretch = strtok(NULL, "\t");
        char *text = strtok(NULL, "\n");

        if (!name || !stretch || !text)
            return 2;
        speak(find_voice(name), strtof(stretch, NULL), text);
        fflush(stdout);
    }
    return 0;
}
