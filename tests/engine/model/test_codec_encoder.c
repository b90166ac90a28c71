#include "engine/model/codec_encoder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/ops.h"
#include "tests/support/golden.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct golden g;
    struct vibe_codec_encoder *enc;
    size_t C, hop;
    struct vibe_error err;
};

VIBE_TEST_FIXTURE(struct fixture)

static void open_encoder(struct fixture *f, size_t model, const char *prefix,
                         size_t n_dialogues, size_t max_frames)
{
    const struct vibe_stack_config *config;

    golden_open(&f->g, model);
    config = strcmp(prefix, VIBE_ACOUSTIC_ENCODER) == 0
                 ? &f->g.config.acoustic_encoder
                 : &f->g.config.semantic_encoder;
    f->C = config->vae_dim;
    f->hop = f->g.config.hop;
    assert_int_equal(vibe_codec_encoder_open(&f->enc, f->g.be, f->g.w, prefix,
                                             config, n_dialogues, max_frames,
                                             &f->err),
                     VIBE_OK);
}

static void close_encoder(struct fixture *f)
{
    vibe_codec_encoder_free(f->enc);
    golden_release(&f->g);
}

static float *new_floats(size_t n)
{
    float *p = calloc(n, sizeof(*p));

    assert_non_null(p);
    return p;
}

/* Encode a clip; the features are the caller's to free. */
static float *encode_clip(struct fixture *f, const float *pcm, size_t n)
{
    float *features = new_floats((n + f->hop - 1) / f->hop * f->C);

    assert_int_equal(vibe_codec_encoder_clip(f->enc, &f->g.stream, features,
                                             pcm, n, &f->err),
                     VIBE_OK);
    return features;
}

static void open_names_the_missing_tensor(void **state)
{
    struct fixture *f = *state;
    struct vibe_stack_config config;

    golden_open(&f->g, 0);
    config = f->g.config.semantic_encoder;
    config.depths[0]++;

    assert_int_equal(vibe_codec_encoder_open(&f->enc, f->g.be, f->g.w,
                                             VIBE_SEMANTIC_ENCODER, &config, 1,
                                             1, &f->err),
                     VIBE_E_FORMAT);
    assert_null(f->enc);
    assert_non_null(
        strstr(f->err.msg, "semantic_tokenizer.encoder.stages.0.1."));
    golden_release(&f->g);
}

static void a_clip_encodes_to_the_record(void **state)
{
    static const struct {
        const char *prefix, *record;
    } encoders[] = {
        {VIBE_ACOUSTIC_ENCODER, "codec.encode_mean_voice0"},
        {VIBE_SEMANTIC_ENCODER, "codec.semantic_voice0"},
    };
    struct fixture *f = *state;

    for (size_t model = 0; model < GOLDEN_MODELS; model++)
        for (size_t i = 0; i < 2; i++) {
            struct golden_tensor pcm, want;
            float *got;

            open_encoder(f, model, encoders[i].prefix, 1, 4);
            pcm = golden_get(&f->g, "prompt.voice0_normalized");
            want = golden_get(&f->g, "%s", encoders[i].record);
            assert_int_equal(want.n, pcm.n / f->hop * f->C);
            got = encode_clip(f, pcm.data, pcm.n);
            golden_assert(encoders[i].record, got, want.data, want.n);
            free(got);
            close_encoder(f);
        }
}

/* Voices of a batch, zero-padded to the longest, with the recorded draws. */
static void voices_sample_to_the_record(void **state)
{
    struct fixture *f = *state;

    for (size_t model = 0; model < GOLDEN_MODELS; model++) {
        struct golden_tensor pcm, g, eps, want;
        size_t n, frames;

        open_encoder(f, model, VIBE_ACOUSTIC_ENCODER, 1, 16);
        pcm = golden_get(&f->g, "prompt.input_values");
        g = golden_get(&f->g, "voice.noise0");
        eps = golden_get(&f->g, "voice.noise1");
        want = golden_get(&f->g, "voice.latents_sampled");
        n = pcm.shape[1];
        frames = n / f->hop;
        for (size_t v = 0; v < g.n; v++) {
            float *z = encode_clip(f, pcm.data + v * n, n);
            size_t at = v * frames * f->C;
            float sigma = f->g.config.fix_std / 0.8f * g.data[v];

            for (size_t i = 0; i < frames * f->C; i++)
                z[i] += sigma * eps.data[at + i];
            golden_assert("voice", z, want.data + at, frames * f->C);
            free(z);
        }
        close_encoder(f);
    }
}

/* One recorded frame of audio after the other; speech_end forgets. */
static void streaming_semantics_equal_the_record(void **state)
{
    struct fixture *f = *state;

    for (size_t model = 0; model < GOLDEN_MODELS; model++) {
        struct vibe_tensor past, features, pcm;
        const int64_t *ids;
        size_t n_ids;
        size_t frame = 0;

        open_encoder(f, model, VIBE_SEMANTIC_ENCODER, 1, 1);
        ids = golden_ids(&f->g, "generated.ids", &n_ids);
        past = golden_put(&f->g, NULL, 1, 1,
                          vibe_codec_encoder_state_size(f->enc));
        features = golden_put(&f->g, NULL, 1, 1, f->C);
        pcm = golden_put(&f->g, NULL, 1, f->hop, 1);
        for (size_t i = 0; i < n_ids; i++) {
            struct golden_tensor audio, want;
            float got[256];
            char what[64];

            if (ids[i] == f->g.control[1])
                vibe_zero(&f->g.stream, &past);
            if (ids[i] != f->g.control[2])
                continue;
            audio = golden_get(&f->g, "frame%03zu.audio", frame);
            want = golden_get(&f->g, "frame%03zu.semantic", frame);
            vibe_write(&f->g.stream, pcm.data, audio.data,
                       audio.n * sizeof(float));
            vibe_codec_encoder_step(f->enc, &f->g.stream, &features, &pcm,
                                    &past, NULL);
            golden_take(&f->g, got, &features);
            snprintf(what, sizeof(what), "%s frame %zu", f->g.name, frame++);
            golden_assert(what, got, want.data, want.n);
        }
        assert_true(frame > 0);
        vibe_tensor_release(&pcm, f->g.be);
        vibe_tensor_release(&features, f->g.be);
        vibe_tensor_release(&past, f->g.be);
        close_encoder(f);
    }
}

/* A clip that ends within a frame: chunks of any size end it alike, frames
 * before the last are those of the whole clip, and silence after it is not
 * the same as its end.  1e-4: AMX multiplies many columns by two bf16 parts
 * of x, 2^-17 of each, and few in float; 1.1e-5 was seen. */
static void a_clip_may_end_within_a_frame(void **state)
{
    struct fixture *f = *state;
    struct golden_tensor pcm;
    size_t n, frames;
    float *silence, *whole, *chunked, *padded;

    open_encoder(f, 0, VIBE_ACOUSTIC_ENCODER, 1, 16);
    pcm = golden_get(&f->g, "prompt.voice0_normalized");
    n = pcm.n - f->hop - 1234;
    frames = (n + f->hop - 1) / f->hop;
    silence = new_floats(frames * f->hop);
    memcpy(silence, pcm.data, n * sizeof(float));
    whole = encode_clip(f, pcm.data, n);
    padded = encode_clip(f, silence, frames * f->hop);
    close_encoder(f);

    for (size_t chunk = 1; chunk <= 3; chunk++) {
        open_encoder(f, 0, VIBE_ACOUSTIC_ENCODER, 1, chunk);
        chunked = encode_clip(f, pcm.data, n);
        assert_true(golden_error(chunked, whole, frames * f->C) < 1e-4);
        free(chunked);
        close_encoder(f);
    }
    assert_true(golden_error(whole, padded, (frames - 1) * f->C) < 1e-4);
    assert_true(golden_error(whole, padded, frames * f->C) > 1e-3);
    free(padded);
    free(whole);
    free(silence);
}

static void a_clip_may_be_shorter_than_a_frame(void **state)
{
    struct fixture *f = *state;
    const float click = 0.5f;
    float *features;

    open_encoder(f, 1, VIBE_ACOUSTIC_ENCODER, 1, 2);
    features = encode_clip(f, &click, 1);

    for (size_t c = 0; c < f->C; c++)
        assert_true(features[c] > -1e3f && features[c] < 1e3f);
    free(features);
    close_encoder(f);
}

static void a_dialogue_is_encoded_alike_in_any_batch(void **state)
{
    struct fixture *f = *state;
    float alone[2][256];
    float together[512];
    struct golden_tensor audio;

    for (size_t D = 1; D <= 2; D++) {
        struct vibe_tensor past, features, pcm;

        open_encoder(f, 0, VIBE_SEMANTIC_ENCODER, D, 1);
        past = golden_put(&f->g, NULL, D, 1,
                          vibe_codec_encoder_state_size(f->enc));
        features = golden_put(&f->g, NULL, D, 1, f->C);
        audio = golden_get(&f->g, "generated.audio");
        pcm = golden_put(&f->g, audio.data, D, f->hop, 1);
        vibe_codec_encoder_step(f->enc, &f->g.stream, &features, &pcm, &past,
                                NULL);
        golden_take(&f->g, D == 1 ? alone[0] : together, &features);
        if (D == 1) {
            vibe_zero(&f->g.stream, &past);
            vibe_write(&f->g.stream, pcm.data, audio.data + f->hop,
                       f->hop * sizeof(float));
            vibe_codec_encoder_step(f->enc, &f->g.stream, &features, &pcm,
                                    &past, NULL);
            golden_take(&f->g, alone[1], &features);
        }
        vibe_tensor_release(&pcm, f->g.be);
        vibe_tensor_release(&features, f->g.be);
        vibe_tensor_release(&past, f->g.be);
        close_encoder(f);
    }

    assert_memory_equal(together, alone[0], f->C * sizeof(float));
    assert_memory_equal(together + f->C, alone[1], f->C * sizeof(float));
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(open_names_the_missing_tensor),
    VIBE_TEST(a_clip_encodes_to_the_record),
    VIBE_TEST(voices_sample_to_the_record),
    VIBE_TEST(streaming_semantics_equal_the_record),
    VIBE_TEST(a_clip_may_end_within_a_frame),
    VIBE_TEST(a_clip_may_be_shorter_than_a_frame),
    VIBE_TEST(a_dialogue_is_encoded_alike_in_any_batch),
};

VIBE_TEST_MAIN(tests)
