#include "engine/model/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/ops.h"
#include "engine/model/connector.h"
#include "tests/support/golden.h"
#include "tests/support/vibe_test.h"

enum { MAX_DIALOGUES = 2 };

struct fixture {
    struct golden g;
    struct vibe_codec *codec;
    struct vibe_tensor state;
    size_t C, hop;
    struct vibe_error err;
};

VIBE_TEST_FIXTURE(struct fixture)

static void open_codec(struct fixture *f, size_t model, size_t n_dialogues,
                       size_t max_frames)
{
    golden_open(&f->g, model);
    f->C = f->g.config.acoustic_decoder.vae_dim;
    f->hop = f->g.config.hop;
    assert_int_equal(vibe_codec_open(&f->codec, f->g.be, f->g.w,
                                     &f->g.config.acoustic_decoder, n_dialogues,
                                     max_frames, &f->err),
                     VIBE_OK);
    f->state = golden_put(&f->g, NULL, n_dialogues, 1,
                          vibe_codec_state_size(f->codec));
}

static void close_codec(struct fixture *f)
{
    vibe_tensor_release(&f->state, f->g.be);
    vibe_codec_free(f->codec);
    golden_release(&f->g);
}

/*
 * Decode T frames of D dialogues.
 *
 *   pcm      [D][T * hop]
 *   latent   [D][T][C]
 */
static void decode(struct fixture *f, float *pcm, const float *latent, size_t D,
                   size_t T)
{
    struct vibe_tensor in = golden_put(&f->g, latent, D, T, f->C);
    struct vibe_tensor out = golden_put(&f->g, NULL, D, T * f->hop, 1);

    vibe_codec_decode(f->codec, &f->g.stream, &out, &in, &f->state, NULL);
    golden_take(&f->g, pcm, &out);
    vibe_tensor_release(&out, f->g.be);
    vibe_tensor_release(&in, f->g.be);
}

static float *new_floats(size_t n)
{
    float *p = calloc(n, sizeof(*p));

    assert_non_null(p);
    return p;
}

static void open_names_the_misshapen_tensor(void **state)
{
    struct fixture *f = *state;
    struct vibe_stack_config config;

    golden_open(&f->g, 0);
    config = f->g.config.acoustic_decoder;
    config.ratios[1]++;

    assert_int_equal(
        vibe_codec_open(&f->codec, f->g.be, f->g.w, &config, 1, 1, &f->err),
        VIBE_E_FORMAT);
    assert_null(f->codec);
    assert_non_null(strstr(f->err.msg, "upsample_layers.2.0.convtr.convtr"));
    assert_int_equal(vibe_codec_check(f->g.w, &config, NULL), VIBE_E_FORMAT);
    golden_release(&f->g);
}

static void open_names_the_missing_tensor(void **state)
{
    struct fixture *f = *state;
    struct vibe_stack_config config;

    golden_open(&f->g, 1);
    config = f->g.config.acoustic_decoder;
    config.depths[6]++;

    assert_int_equal(
        vibe_codec_open(&f->codec, f->g.be, f->g.w, &config, 1, 1, &f->err),
        VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "stages.6.1."));
    golden_release(&f->g);
}

static void decoding_at_once_equals_the_record(void **state)
{
    struct fixture *f = *state;

    for (size_t model = 0; model < GOLDEN_MODELS; model++) {
        struct golden_tensor in, want;
        float *pcm;

        open_codec(f, model, 1, 64);
        in = golden_get(&f->g, "codec.decode_input");
        want = golden_get(&f->g, "codec.decode_oneshot");
        pcm = new_floats(want.n);
        decode(f, pcm, in.data, 1, in.n / f->C);
        golden_assert(f->g.name, pcm, want.data, want.n);
        free(pcm);
        close_codec(f);
    }
}

/* Frame by frame; at speech_end the past is forgotten. */
static void streaming_equals_the_record(void **state)
{
    struct fixture *f = *state;

    for (size_t model = 0; model < GOLDEN_MODELS; model++) {
        struct vibe_latent_scale scale;
        const int64_t *ids;
        float latent[256];
        float *pcm;
        size_t n_ids;
        size_t frame = 0;

        open_codec(f, model, 1, 1);
        pcm = new_floats(f->hop);
        ids = golden_ids(&f->g, "generated.ids", &n_ids);
        assert_int_equal(vibe_latent_scale_read(&scale, f->g.w, NULL), VIBE_OK);
        for (size_t i = 0; i < n_ids; i++) {
            struct golden_tensor want, in;
            char what[64];

            if (ids[i] == f->g.control[1])
                vibe_zero(&f->g.stream, &f->state);
            if (ids[i] != f->g.control[2])
                continue;
            in = golden_get(&f->g, "frame%03zu.latent", frame);
            want = golden_get(&f->g, "frame%03zu.audio", frame);
            for (size_t c = 0; c < f->C; c++)
                latent[c] = in.data[c] / scale.scale - scale.bias;
            decode(f, pcm, latent, 1, 1);
            snprintf(what, sizeof(what), "%s frame %zu", f->g.name, frame++);
            golden_assert(what, pcm, want.data, want.n);
        }
        assert_true(frame > 0);
        free(pcm);
        close_codec(f);
    }
}

/* However frames are cut into chunks, the samples are those of one call.
 * 1e-4: AMX multiplies many columns by two bf16 parts of x, 2^-17 of each, and
 * few in float; 3e-5 was seen. */
static void any_chunks_equal_one_call(void **state)
{
    static const size_t cuts[][8] = {
        {1, 1, 1, 1, 1, 1, 1, 1}, {3, 1, 4, 0}, {2, 5, 1, 0}, {7, 1, 0}};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct golden_tensor in, want;
        float *pcm;
        size_t at = 0;

        open_codec(f, 0, 1, 8);
        in = golden_get(&f->g, "codec.decode_input");
        want = golden_get(&f->g, "codec.decode_oneshot");
        pcm = new_floats(8 * f->hop);
        for (size_t j = 0; j < 8 && cuts[i][j]; j++) {
            decode(f, pcm + at * f->hop, in.data + at * f->C, 1, cuts[i][j]);
            at += cuts[i][j];
        }
        assert_int_equal(at, 8);
        golden_assert("chunks", pcm, want.data, 8 * f->hop);
        free(pcm);

        /* and among ourselves, more strictly */
        pcm = new_floats(16 * f->hop);
        vibe_zero(&f->g.stream, &f->state);
        decode(f, pcm, in.data, 1, 8);
        vibe_zero(&f->g.stream, &f->state);
        for (size_t j = at = 0; j < 8 && cuts[i][j]; j++) {
            decode(f, pcm + (8 + at) * f->hop, in.data + at * f->C, 1,
                   cuts[i][j]);
            at += cuts[i][j];
        }
        assert_true(golden_error(pcm, pcm + 8 * f->hop, 8 * f->hop) < 1e-4);
        free(pcm);
        close_codec(f);
    }
}

static void a_dialogue_is_decoded_alike_in_any_batch(void **state)
{
    struct fixture *f = *state;
    struct golden_tensor in;
    float *alone, *together, *latent;

    open_codec(f, 0, 1, 2);
    in = golden_get(&f->g, "codec.decode_input");
    alone = new_floats(4 * f->hop);
    together = new_floats(4 * f->hop);
    latent = new_floats(4 * f->C);
    /* dialogue 0 says frames 0 and 1, dialogue 1 frames 5 and 6 */
    memcpy(latent, in.data, 2 * f->C * sizeof(float));
    memcpy(latent + 2 * f->C, in.data + 5 * f->C, 2 * f->C * sizeof(float));
    decode(f, alone, latent, 1, 2);
    vibe_zero(&f->g.stream, &f->state);
    decode(f, alone + 2 * f->hop, latent + 2 * f->C, 1, 2);
    close_codec(f);

    open_codec(f, 0, 2, 2);
    decode(f, together, latent, 2, 2);

    assert_memory_equal(alone, together, 4 * f->hop * sizeof(float));
    close_codec(f);
    free(latent);
    free(together);
    free(alone);
}

/* What a wrong guess did to one dialogue is undone by copying its row. */
static void a_state_row_can_be_kept_and_brought_back(void **state)
{
    struct fixture *f = *state;
    struct golden_tensor in;
    struct vibe_tensor row, kept;
    float *pcm;
    size_t two;

    open_codec(f, 1, MAX_DIALOGUES, 1);
    in = golden_get(&f->g, "codec.decode_input");
    two = MAX_DIALOGUES * f->hop;
    pcm = new_floats(3 * two);
    kept = golden_put(&f->g, NULL, 1, 1, f->state.C);
    row = vibe_tensor_batch(&f->state, 1, 1);
    decode(f, pcm, in.data, MAX_DIALOGUES, 1);

    vibe_copy(&f->g.stream, &kept, &row);
    decode(f, pcm + two, in.data + 2 * f->C, MAX_DIALOGUES, 1);
    vibe_copy(&f->g.stream, &row, &kept);
    decode(f, pcm + 2 * two, in.data + 2 * f->C, MAX_DIALOGUES, 1);

    assert_memory_equal(pcm + two + f->hop, pcm + 2 * two + f->hop,
                        f->hop * sizeof(float));
    /* the other dialogue went on */
    assert_memory_not_equal(pcm + two, pcm + 2 * two, f->hop * sizeof(float));
    vibe_tensor_release(&kept, f->g.be);
    free(pcm);
    close_codec(f);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(open_names_the_misshapen_tensor),
    VIBE_TEST(open_names_the_missing_tensor),
    VIBE_TEST(decoding_at_once_equals_the_record),
    VIBE_TEST(streaming_equals_the_record),
    VIBE_TEST(any_chunks_equal_one_call),
    VIBE_TEST(a_dialogue_is_decoded_alike_in_any_batch),
    VIBE_TEST(a_state_row_can_be_kept_and_brought_back),
};

VIBE_TEST_MAIN(tests)
