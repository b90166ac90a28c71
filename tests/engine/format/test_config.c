#include "engine/format/config.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "tests/support/st_writer.h"
#include "tests/support/vibe_test.h"

#define FIXTURES "tests/fixtures/format/"

struct fixture {
    json_t *json; /* the 1.5B's configuration, to be spoilt */
    struct vibe_config got;
    struct vibe_error err;
};

static void load(struct fixture *f, const char *name)
{
    json_decref(f->json);
    f->json = json_load_file(name, 0, NULL);
    assert_non_null(f->json);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    load(f, FIXTURES "config_1.5b.json");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    json_decref(f->json);
    free(f);
    return 0;
}

/* Set a dotted path to a JSON value; NULL removes it. */
static void set(struct fixture *f, const char *dotted, const char *value)
{
    json_t *object = f->json;
    const char *dot;
    char key[64];

    while ((dot = strchr(dotted, '.'))) {
        snprintf(key, sizeof(key), "%.*s", (int)(dot - dotted), dotted);
        object = json_object_get(object, key);
        assert_non_null(object);
        dotted = dot + 1;
    }
    if (!value) {
        assert_int_equal(json_object_del(object, dotted), 0);
        return;
    }
    assert_int_equal(
        json_object_set_new(object, dotted,
                            json_loads(value, JSON_DECODE_ANY, NULL)),
        0);
}

static int parse(struct fixture *f)
{
    char *text = json_dumps(f->json, 0);
    int rc;

    assert_non_null(text);
    rc = vibe_config_parse(&f->got, text, strlen(text), "dir/config.json",
                           &f->err);
    free(text);
    return rc;
}

static void accept(struct fixture *f)
{
    if (parse(f) != VIBE_OK)
        fail_msg("%s", f->err.msg);
}

struct refusal {
    const char *path, *value; /* value NULL: the key is removed */
    const char *found, *expected;
};

/* Each of these alone is refused with a sentence that says it all. */
static void refuse_each(struct fixture *f, int code, const struct refusal *r,
                        size_t n)
{
    const struct vibe_config untouched = f->got;

    for (size_t i = 0; i < n; i++) {
        json_t *sound = json_deep_copy(f->json);
        char part[160];

        set(f, r[i].path, r[i].value);
        f->err = (struct vibe_error){0};
        if (parse(f) != code)
            fail_msg("%s = %s: \"%s\"", r[i].path,
                     r[i].value ? r[i].value : "(removed)", f->err.msg);
        snprintf(part, sizeof(part), "dir/config.json: %s: found %s, expected ",
                 r[i].path, r[i].found);
        if (!strstr(f->err.msg, part) || !strstr(f->err.msg, r[i].expected))
            fail_msg("\"%s\" lacks \"%s\" or \"%s\"", f->err.msg, part,
                     r[i].expected);
        assert_memory_equal(&f->got, &untouched, sizeof(untouched));
        json_decref(f->json);
        f->json = sound;
    }
}

#define REFUSE_EACH(f, code, table) \
    refuse_each(f, code, table, sizeof(table) / sizeof(*(table)))

static void assert_stack(const struct vibe_stack_config *s, size_t vae_dim,
                         const size_t depths[7], const size_t ratios[6])
{
    assert_int_equal(s->n_filters, 32);
    assert_int_equal(s->n_stages, 7);
    assert_int_equal(s->vae_dim, vae_dim);
    assert_true(s->layernorm_eps == 1e-5f);
    assert_memory_equal(s->depths, depths, 7 * sizeof(*depths));
    assert_memory_equal(s->ratios, ratios, 6 * sizeof(*ratios));
}

/* What the 1.5B is, in whichever schema. */
static void assert_is_1_5b(const struct vibe_config *c)
{
    static const size_t up[] = {3, 3, 3, 3, 3, 3, 8};
    static const size_t down[] = {8, 3, 3, 3, 3, 3, 3};
    static const size_t encode[] = {2, 2, 4, 5, 5, 8};
    static const size_t decode[] = {8, 5, 5, 4, 2, 2};

    assert_int_equal(c->lm.hidden_size, 1536);
    assert_int_equal(c->lm.intermediate_size, 8960);
    assert_int_equal(c->lm.num_hidden_layers, 28);
    assert_int_equal(c->lm.num_attention_heads, 12);
    assert_int_equal(c->lm.num_key_value_heads, 2);
    assert_int_equal(c->lm.head_dim, 128);
    assert_int_equal(c->lm.vocab_size, 151936);
    assert_int_equal(c->lm.max_position_embeddings, 65536);
    assert_true(c->lm.rms_norm_eps == 1e-6f);
    assert_true(c->lm.rope_theta == 1e6);
    assert_int_equal(c->head.hidden_size, 1536);
    assert_int_equal(c->head.head_layers, 4);
    assert_int_equal(c->head.ffn_size, 4608);
    assert_int_equal(c->head.latent_size, 64);
    assert_true(c->head.rms_norm_eps == 1e-5f);
    assert_int_equal(c->head.ddpm_num_steps, 1000);
    assert_stack(&c->acoustic_encoder, 64, up, encode);
    assert_stack(&c->semantic_encoder, 128, up, encode);
    assert_stack(&c->acoustic_decoder, 64, down, decode);
    assert_int_equal(c->hop, 3200);
    assert_true(c->fix_std == 0.5f);
}

static void read_understands_the_1_5b(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(
        vibe_config_read(&f->got, FIXTURES "config_1.5b.json", &f->err),
        VIBE_OK);

    assert_is_1_5b(&f->got);
    assert_int_equal(f->got.head.ddpm_num_inference_steps, 20);
}

static void read_understands_the_7b_and_its_misspelt_key(void **state)
{
    struct fixture *f = *state;

    load(f, FIXTURES "config_7b.json");
    accept(f);
    assert_int_equal(f->got.lm.hidden_size, 3584);
    assert_int_equal(f->got.lm.head_dim, 128);
    assert_int_equal(f->got.lm.vocab_size, 152064);
    assert_int_equal(f->got.head.ffn_size, 10752);

    /* The misspelt width counts: it is held to the codec's. */
    set(f, "acostic_vae_dim", "32");
    assert_int_equal(parse(f), VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "acoustic_tokenizer_config.vae_dim"));
}

static void read_understands_transformers_5(void **state)
{
    struct fixture *f = *state;

    load(f, FIXTURES "config_native.json");
    accept(f);

    assert_is_1_5b(&f->got);
    assert_int_equal(f->got.head.ddpm_num_inference_steps, 10);
}

static void read_takes_the_reference_defaults_for_missing_keys(void **state)
{
    static const char *const optional[] = {
        "acoustic_vae_dim",
        "semantic_vae_dim",
        "torch_dtype",
        "decoder_config.rms_norm_eps",
        "decoder_config.hidden_act",
        "decoder_config.rope_scaling",
        "decoder_config.use_sliding_window",
        "diffusion_head_config.head_layers",
        "diffusion_head_config.head_ffn_ratio",
        "diffusion_head_config.hidden_size",
        "diffusion_head_config.latent_size",
        "diffusion_head_config.speech_vae_dim",
        "diffusion_head_config.rms_norm_eps",
        "diffusion_head_config.ddpm_num_steps",
        "diffusion_head_config.prediction_type",
        "acoustic_tokenizer_config.vae_dim",
        "acoustic_tokenizer_config.fix_std",
        "acoustic_tokenizer_config.causal",
        "acoustic_tokenizer_config.encoder_ratios",
        "acoustic_tokenizer_config.encoder_depths",
        "acoustic_tokenizer_config.encoder_n_filters",
        "acoustic_tokenizer_config.decoder_ratios",
        "acoustic_tokenizer_config.decoder_depths",
        "acoustic_tokenizer_config.decoder_n_filters",
        "acoustic_tokenizer_config.layernorm_eps",
        "acoustic_tokenizer_config.std_dist_type",
        "semantic_tokenizer_config.vae_dim",
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(optional) / sizeof(*optional); i++)
        set(f, optional[i], NULL);
    accept(f);

    assert_is_1_5b(&f->got);
}

static void read_takes_depths_as_a_list_or_with_dashes(void **state)
{
    struct fixture *f = *state;

    set(f, "acoustic_tokenizer_config.encoder_depths", "[1,2,3,4,5,6,7]");
    set(f, "acoustic_tokenizer_config.decoder_depths", "\"7-1-1-1-1-1-2\"");
    set(f, "semantic_tokenizer_config.encoder_ratios", "[10,10,32]");
    set(f, "semantic_tokenizer_config.encoder_depths", "\"1-12-1-3\"");
    accept(f);

    assert_int_equal(f->got.acoustic_encoder.depths[6], 7);
    assert_int_equal(f->got.acoustic_decoder.depths[0], 7);
    assert_int_equal(f->got.acoustic_decoder.depths[6], 2);
    assert_int_equal(f->got.semantic_encoder.n_stages, 4);
    assert_int_equal(f->got.semantic_encoder.depths[1], 12);
    assert_int_equal(f->got.semantic_encoder.ratios[0], 32);
}

static void read_reverses_encoder_depths_for_a_silent_decoder(void **state)
{
    struct fixture *f = *state;

    set(f, "acoustic_tokenizer_config.encoder_depths", "\"1-2-3-4-5-6-7\"");
    accept(f);

    for (size_t i = 0; i < 7; i++)
        assert_int_equal(f->got.acoustic_decoder.depths[i], 7 - i);
}

static void read_takes_rope_theta_from_rope_parameters(void **state)
{
    struct fixture *f = *state;

    set(f, "decoder_config.rope_theta", NULL);
    set(f, "decoder_config.rope_parameters",
        "{\"rope_theta\":5000,\"rope_type\":\"default\"}");
    set(f, "decoder_config.rope_scaling", "{\"type\":\"default\"}");
    set(f, "decoder_config.head_dim", "128");
    accept(f);

    assert_true(f->got.lm.rope_theta == 5000);
}

static void read_does_not_sample_voices_where_the_codec_does_not(void **state)
{
    struct fixture *f = *state;

    set(f, "acoustic_tokenizer_config.std_dist_type", "\"none\"");
    accept(f);

    assert_true(f->got.fix_std == 0.0f);
}

static void read_refuses_absurd_sizes(void **state)
{
    static const struct refusal table[] = {
        {"decoder_config.hidden_size", "-5", "-5", "from 1 to 65536"},
        {"decoder_config.hidden_size", "0", "0", "a whole number from 1"},
        {"decoder_config.hidden_size", "1536.5", "1536.5", "a whole number"},
        {"decoder_config.hidden_size", "\"1536\"", "\"1536\"", "a whole"},
        {"decoder_config.hidden_size", "true", "true", "a whole number"},
        {"decoder_config.hidden_size", "4611686018427387904",
         "4611686018427387904", "from 1 to 65536"},
        {"decoder_config.hidden_size", "1537", "1537",
         "an even multiple of num_attention_heads"},
        {"decoder_config.num_attention_heads", "100000", "100000", "1024"},
        {"decoder_config.num_key_value_heads", "5", "5",
         "a divisor of num_attention_heads"},
        {"decoder_config.num_key_value_heads", "0", "0", "from 1"},
        {"decoder_config.intermediate_size", "1e3", "1000", "a whole number"},
        {"decoder_config.num_hidden_layers", "1025", "1025", "1024"},
        {"decoder_config.vocab_size", "16777217", "16777217", "16777216"},
        {"decoder_config.max_position_embeddings", "-1", "-1", "16777216"},
        {"decoder_config.head_dim", "64", "64",
         "128 (hidden_size / num_attention_heads)"},
        {"decoder_config.rms_norm_eps", "-1e-6", "-1e-06", "a number from"},
        {"decoder_config.rms_norm_eps", "1.5", "1.5", "to 0.1"},
        {"decoder_config.rope_theta", "0", "0", "a number from 1 to"},
        {"decoder_config.rope_theta", "[1]", "[1]", "a number from 1 to"},
        {"diffusion_head_config.hidden_size", "1024", "1024",
         "1536 (as the language model's)"},
        {"diffusion_head_config.latent_size", "32", "32",
         "64 (as the acoustic codec's)"},
        {"diffusion_head_config.speech_vae_dim", "32", "32",
         "64 (as the acoustic codec's)"},
        {"diffusion_head_config.head_layers", "65", "65", "1 to 64"},
        {"diffusion_head_config.head_ffn_ratio", "-3.0", "-3", "a number"},
        {"diffusion_head_config.ddpm_num_steps", "65537", "65537", "65536"},
        {"diffusion_head_config.ddpm_num_inference_steps", "1001", "1001",
         "at most ddpm_num_steps"},
        {"acoustic_tokenizer_config.fix_std", "-0.5", "-0.5", "a number"},
        {"acoustic_tokenizer_config.vae_dim", "4097", "4097", "4096"},
        {"semantic_tokenizer_config.vae_dim", "64", "64",
         "128 (as the top level says)"},
        {"semantic_tokenizer_config.layer_scale_init_value", "0", "0",
         "a number from"},
    };

    REFUSE_EACH((struct fixture *)*state, VIBE_E_FORMAT, table);
}

static void read_refuses_absurd_stages(void **state)
{
    static const struct refusal table[] = {
        {"acoustic_tokenizer_config.encoder_depths", "\"3-3-x\"", "\"3-3-x\"",
         "1 to 12 whole numbers from 1 to 256"},
        {"acoustic_tokenizer_config.encoder_depths", "\"3--3\"", "\"3--3\"",
         "whole numbers"},
        {"acoustic_tokenizer_config.encoder_depths", "\"\"", "\"\"",
         "whole numbers"},
        {"acoustic_tokenizer_config.encoder_depths", "[3,3,3,3,3,3,-8]",
         "[3,3,3,3,3,3,-8]", "whole numbers"},
        {"acoustic_tokenizer_config.encoder_depths", "\"3x3\"", "\"3x3\"",
         "whole numbers"},
        {"acoustic_tokenizer_config.encoder_depths", "\"3-3\"", "\"3-3\"",
         "one depth more than there are ratios"},
        {"acoustic_tokenizer_config.encoder_depths",
         "\"3-3-3-3-3-3-99999999999999999999\"",
         "\"3-3-3-3-3-3-99999999999999999999\"", "whole numbers"},
        {"acoustic_tokenizer_config.decoder_depths", "[1,1]", "[1,1]",
         "one depth more than there are ratios"},
        {"acoustic_tokenizer_config.encoder_ratios", "[]", "[]",
         "1 to 11 whole numbers"},
        {"acoustic_tokenizer_config.encoder_ratios",
         "[1,1,1,1,1,1,1,1,1,1,1,1]", "[1,1,1,1,1,1,1,1,1,1,1,1]",
         "1 to 11 whole numbers"},
        {"acoustic_tokenizer_config.encoder_ratios",
         "[1024,1024,1024,1024,1024,1024]", "[1024,1024,1024,1024,1024,1024]",
         "a product of at most 1048576"},
        {"acoustic_tokenizer_config.decoder_ratios", "[8,5,5,4,2,3]",
         "[8,5,5,4,2,3]", "3200 (the product of encoder_ratios)"},
        {"semantic_tokenizer_config.encoder_ratios", "[8,5,5,4,2,4]",
         "[8,5,5,4,2,4]", "3200 (the product of the acoustic codec's)"},
        {"acoustic_tokenizer_config.encoder_n_filters", "1025", "1025",
         "at most 65536 channels"},
        {"acoustic_tokenizer_config.decoder_n_filters", "1025", "1025",
         "at most 65536 channels"},
    };

    REFUSE_EACH((struct fixture *)*state, VIBE_E_FORMAT, table);
}

static void read_refuses_ratios_that_default_depths_do_not_fit(void **state)
{
    static const struct refusal table[] = {
        {"semantic_tokenizer_config.encoder_depths", NULL, "nothing",
         "one depth more than there are ratios"},
    };
    struct fixture *f = *state;

    set(f, "semantic_tokenizer_config.encoder_ratios", "[80,40]");
    REFUSE_EACH(f, VIBE_E_FORMAT, table);
}

static void read_shortens_what_it_found(void **state)
{
    struct fixture *f = *state;

    set(f, "decoder_config.vocab_size",
        "\"a text that is far too long to be shown in full in a sentence\"");
    assert_int_equal(parse(f), VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "found \"a text that is"));
    assert_non_null(strstr(f->err.msg, "..., expected a whole number"));
}

static void read_refuses_missing_numbers(void **state)
{
    static const struct refusal table[] = {
        {"decoder_config.hidden_size", NULL, "nothing", "a whole number"},
        {"decoder_config.hidden_size", "null", "nothing", "a whole number"},
        {"decoder_config.intermediate_size", NULL, "nothing", "a whole"},
        {"decoder_config.num_hidden_layers", NULL, "nothing", "a whole"},
        {"decoder_config.num_attention_heads", NULL, "nothing", "a whole"},
        {"decoder_config.num_key_value_heads", NULL, "nothing", "a whole"},
        {"decoder_config.vocab_size", NULL, "nothing", "a whole number"},
        {"decoder_config.rope_theta", NULL, "nothing", "a number from 1"},
        {"diffusion_head_config", NULL, "nothing", "an object"},
        {"acoustic_tokenizer_config", NULL, "nothing", "an object"},
        {"semantic_tokenizer_config", "[]", "[]", "an object"},
        {"decoder_config", "5", "5", "an object"},
    };

    REFUSE_EACH((struct fixture *)*state, VIBE_E_FORMAT, table);
}

static void read_refuses_what_the_model_code_does_not_compute(void **state)
{
    static const struct refusal table[] = {
        {"model_type", "\"vibevoice_streaming\"", "\"vibevoice_streaming\"",
         "\"vibevoice\""},
        {"decoder_config.model_type", "\"llama\"", "\"llama\"", "\"qwen2\""},
        {"decoder_config.hidden_act", "\"gelu\"", "\"gelu\"", "\"silu\""},
        {"decoder_config.use_sliding_window", "true", "true", "false"},
        {"decoder_config.rope_scaling", "{\"factor\":4}", "{\"factor\":4}",
         "null"},
        {"decoder_config.layer_types", "[\"sliding_attention\"]",
         "[\"sliding_attention\"]", "full_attention"},
        {"diffusion_head_config.prediction_type", "\"epsilon\"", "\"epsilon\"",
         "\"v_prediction\""},
        {"diffusion_head_config.ddpm_beta_schedule", "\"linear\"", "\"linear\"",
         "\"cosine\" or \"squaredcos_cap_v2\""},
        {"diffusion_head_config.diffusion_type", "\"flow\"", "\"flow\"",
         "\"ddpm\""},
        {"acoustic_tokenizer_config.layernorm", "\"LN\"", "\"LN\"",
         "\"RMSNorm\""},
        {"acoustic_tokenizer_config.layernorm_elementwise_affine", "false",
         "false", "true"},
        {"acoustic_tokenizer_config.mixer_layer", "\"conv\"", "\"conv\"",
         "\"depthwise_conv\""},
        {"acoustic_tokenizer_config.pad_mode", "\"reflect\"", "\"reflect\"",
         "\"constant\""},
        {"acoustic_tokenizer_config.conv_norm", "\"weight_norm\"",
         "\"weight_norm\"", "\"none\""},
        {"acoustic_tokenizer_config.conv_bias", "false", "false", "true"},
        {"acoustic_tokenizer_config.causal", "false", "false", "true"},
        {"acoustic_tokenizer_config.channels", "2", "2", "1"},
        {"acoustic_tokenizer_config.corpus_normalize", "0.1", "0.1", "0"},
        {"acoustic_tokenizer_config.std_dist_type", "\"fix\"", "\"fix\"",
         "\"gaussian\" or \"none\""},
        {"semantic_tokenizer_config.disable_last_norm", "false", "false",
         "true"},
    };

    REFUSE_EACH((struct fixture *)*state, VIBE_E_UNSUPPORTED, table);
}

static void read_refuses_stretched_rope_by_its_type(void **state)
{
    struct fixture *f = *state;

    set(f, "decoder_config.rope_scaling", "{\"type\":\"yarn\",\"factor\":4}");
    assert_int_equal(parse(f), VIBE_E_UNSUPPORTED);
    assert_non_null(strstr(f->err.msg, "rope_scaling.type: found \"yarn\""));
}

static void read_refuses_native_values_it_does_not_compute(void **state)
{
    static const struct refusal table[] = {
        {"text_config.rope_parameters.rope_type", "\"llama3\"", "\"llama3\"",
         "\"default\""},
        {"audio_config.kernel_size", "5", "5", "7"},
        {"audio_config.ffn_expansion", "2", "2", "4"},
        {"semantic_model_config.hidden_act", "\"silu\"", "\"silu\"",
         "\"gelu\""},
        {"diffusion_head_config.hidden_act", "\"gelu\"", "\"gelu\"",
         "\"silu\""},
        {"diffusion_head_config.frequency_embedding_size", "128", "128", "256"},
        {"diffusion_head_config.diffusion_max_period", "1000", "1000", "10000"},
        {"diffusion_head_config.mlp_bias", "true", "true", "false"},
    };
    struct fixture *f = *state;

    load(f, FIXTURES "config_native.json");
    REFUSE_EACH(f, VIBE_E_UNSUPPORTED, table);
}

static void read_refuses_a_file_of_another_kind(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *text, *part;
    } table[] = {
        {"", "c.json: not valid JSON at line 1"},
        {"{\n\"a\":}", "c.json: not valid JSON at line 2, column"},
        {"[1]", "c.json: not a JSON object"},
        {"{\"a\":1,\"a\":2}", "duplicate object key"},
        {"{\"decoder_config\":{\"rope_theta\":1e999}}", "not valid JSON"},
        {"{\"decoder_config\":{\"vocab_size\":NaN}}", "not valid JSON"},
        {"{}", "has neither decoder_config nor text_config"},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        assert_int_equal(vibe_config_parse(&f->got, table[i].text,
                                           strlen(table[i].text), "c.json",
                                           &f->err),
                         VIBE_E_FORMAT);
        if (!strstr(f->err.msg, table[i].part))
            fail_msg("\"%s\" lacks \"%s\"", f->err.msg, table[i].part);
    }
}

static void read_names_a_missing_file(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_config_read(&f->got, "/nonexistent/c.json", &f->err),
                     VIBE_E_IO);
    assert_string_equal(f->err.msg,
                        "/nonexistent/c.json: No such file or directory");
    assert_int_equal(vibe_config_read(&f->got, "/tmp", &f->err), VIBE_E_FORMAT);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(read_understands_the_1_5b),
    VIBE_TEST(read_understands_the_7b_and_its_misspelt_key),
    VIBE_TEST(read_understands_transformers_5),
    VIBE_TEST(read_takes_the_reference_defaults_for_missing_keys),
    VIBE_TEST(read_takes_depths_as_a_list_or_with_dashes),
    VIBE_TEST(read_reverses_encoder_depths_for_a_silent_decoder),
    VIBE_TEST(read_takes_rope_theta_from_rope_parameters),
    VIBE_TEST(read_does_not_sample_voices_where_the_codec_does_not),
    VIBE_TEST(read_refuses_absurd_sizes),
    VIBE_TEST(read_refuses_absurd_stages),
    VIBE_TEST(read_refuses_ratios_that_default_depths_do_not_fit),
    VIBE_TEST(read_shortens_what_it_found),
    VIBE_TEST(read_refuses_missing_numbers),
    VIBE_TEST(read_refuses_what_the_model_code_does_not_compute),
    VIBE_TEST(read_refuses_stretched_rope_by_its_type),
    VIBE_TEST(read_refuses_native_values_it_does_not_compute),
    VIBE_TEST(read_refuses_a_file_of_another_kind),
    VIBE_TEST(read_names_a_missing_file),
};

VIBE_TEST_MAIN(tests)
