#include "engine/format/names.h"

#include "tests/support/vibe_test.h"

static int setup(void **state)
{
    (void)state;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return 0;
}

static void names_of_transformers_5_become_the_original(void **state)
{
    static const char *const table[][2] = {
        {"model.audio_tower.encoder.stem.conv.conv.weight",
         "model.acoustic_tokenizer.encoder.downsample_layers.0.0.conv.conv."
         "weight"},
        {"model.audio_tower.encoder.stem.stage.2.gamma",
         "model.acoustic_tokenizer.encoder.stages.0.2.gamma"},
        {"model.audio_tower.encoder.conv_layers.0.conv.conv.bias",
         "model.acoustic_tokenizer.encoder.downsample_layers.1.0.conv.conv."
         "bias"},
        {"model.audio_tower.encoder.conv_layers.5.stage.7.mixer.conv.weight",
         "model.acoustic_tokenizer.encoder.stages.6.7.mixer.conv.conv.conv."
         "weight"},
        {"model.audio_tower.encoder.head.conv.weight",
         "model.acoustic_tokenizer.encoder.head.conv.conv.weight"},
        {"model.audio_tower.decoder.stem.conv.conv.weight",
         "model.acoustic_tokenizer.decoder.upsample_layers.0.0.conv.conv."
         "weight"},
        {"model.audio_tower.decoder.conv_layers.3.convtr.convtr.weight",
         "model.acoustic_tokenizer.decoder.upsample_layers.4.0.convtr.convtr."
         "weight"},
        {"model.semantic_tokenizer_encoder.conv_layers.1.stage.0.ffn.linear1."
         "bias",
         "model.semantic_tokenizer.encoder.stages.2.0.ffn.linear1.bias"},
        {"model.diffusion_head.timestep_proj.fc1.weight",
         "model.prediction_head.t_embedder.mlp.0.weight"},
        {"model.diffusion_head.timestep_proj.layer_2.weight",
         "model.prediction_head.t_embedder.mlp.2.weight"},
        {"model.diffusion_head.timestep_embedder.layer_1.weight",
         "model.prediction_head.t_embedder.mlp.0.weight"},
        {"model.diffusion_head.layers.3.linear.weight",
         "model.prediction_head.layers.3.adaLN_modulation.1.weight"},
        {"model.diffusion_head.layers.3.ffn.up_proj.weight",
         "model.prediction_head.layers.3.ffn.up_proj.weight"},
        {"model.diffusion_head.final_layer.linear_1.weight",
         "model.prediction_head.final_layer.adaLN_modulation.1.weight"},
        {"model.diffusion_head.final_layer.linear_2.weight",
         "model.prediction_head.final_layer.linear.weight"},
        {"model.diffusion_head.layers.0.linear.scale_weight",
         "model.prediction_head.layers.0.adaLN_modulation.1.scale_weight"},
        {"model.multi_modal_projector.act.weight",
         "model.acoustic_connector.norm.weight"},
        {"model.semantic_connector.linear_2.bias",
         "model.semantic_connector.fc2.bias"},
        {"model.latent_scaling_factor", "model.speech_scaling_factor"},
        {"model.latent_bias_factor", "model.speech_bias_factor"},
        {"model.language_model.layers.0.mlp.up_proj.weight",
         "model.language_model.layers.0.mlp.up_proj.weight"},
        {"lm_head.weight", "lm_head.weight"},
    };
    char got[256];

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        assert_int_equal(vibe_names_original(got, sizeof(got), table[i][0]), 0);
        assert_string_equal(got, table[i][1]);
        /* What is original already stays. */
        assert_int_equal(vibe_names_original(got, sizeof(got), table[i][1]), 0);
        assert_string_equal(got, table[i][1]);
    }
}

static void names_that_do_not_fit_are_refused(void **state)
{
    const char *name = "model.diffusion_head.layers.3.linear.weight";
    char got[64];

    (void)state;
    /* 56 characters and the end. */
    assert_int_equal(vibe_names_original(got, 57, name), 0);
    for (size_t size = 1; size < 57; size++)
        assert_int_equal(vibe_names_original(got, size, name), 1);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(names_of_transformers_5_become_the_original),
    VIBE_TEST(names_that_do_not_fit_are_refused),
};

VIBE_TEST_MAIN(tests)
