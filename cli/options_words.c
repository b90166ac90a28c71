#include "cli/options_words.h"

#include "audio/writer.h"
#include "engine/vibevoice.h"

const struct vibe_choice vibe_dtype_words[] = {
    {"bfloat16", VIBE_WEIGHTS_BF16, 0},
    {"bf16", VIBE_WEIGHTS_BF16, 1},
    {"float8_e4m3fn", VIBE_WEIGHTS_F8_E4M3, 0},
    {"float8", VIBE_WEIGHTS_F8_E4M3, 1},
    {"fp8", VIBE_WEIGHTS_F8_E4M3, 1},
    {"int8", VIBE_WEIGHTS_I8, 0},
    {"int4", VIBE_WEIGHTS_I4, 0},
    {"bf16-packed", VIBE_WEIGHTS_BF16_PACKED, 0},
    {"float32", VIBE_WEIGHTS_F32, 0},
    {"f32", VIBE_WEIGHTS_F32, 1},
    {"fp32", VIBE_WEIGHTS_F32, 1},
    {"auto", VIBE_WEIGHTS_AUTO, 0},
    {NULL, 0, 0},
};

const struct vibe_choice vibe_kv_dtype_words[] = {
    {"bfloat16", VIBE_WEIGHTS_BF16, 0},
    {"bf16", VIBE_WEIGHTS_BF16, 1},
    {"float8_e4m3fn", VIBE_WEIGHTS_F8_E4M3, 0},
    {"float8", VIBE_WEIGHTS_F8_E4M3, 1},
    {"fp8", VIBE_WEIGHTS_F8_E4M3, 1},
    {"float32", VIBE_WEIGHTS_F32, 0},
    {"f32", VIBE_WEIGHTS_F32, 1},
    {"fp32", VIBE_WEIGHTS_F32, 1},
    {"auto", VIBE_WEIGHTS_AUTO, 0},
    {NULL, 0, 0},
};

const struct vibe_choice vibe_audio_words[] = {
    {"wav", VIBE_AUDIO_WAV, 0},   {"flac", VIBE_AUDIO_FLAC, 0},
    {"ogg", VIBE_AUDIO_OGG, 0},   {"opus", VIBE_AUDIO_OPUS, 0},
    {"mp3", VIBE_AUDIO_MP3, 0},   {"raw", VIBE_AUDIO_RAW, 0},
    {"auto", VIBE_AUDIO_AUTO, 1}, {NULL, 0, 0},
};

const struct vibe_choice vibe_sample_words[] = {
    {"s16", VIBE_SAMPLE_S16, 0},
    {"s24", VIBE_SAMPLE_S24, 0},
    {"f32", VIBE_SAMPLE_F32, 0},
    {NULL, 0, 0},
};

const struct vibe_choice vibe_progress_words[] = {
    {"auto", VIBE_PROGRESS_AUTO, 0},   {"bar", VIBE_PROGRESS_BAR, 0},
    {"plain", VIBE_PROGRESS_PLAIN, 0}, {"json", VIBE_PROGRESS_JSON, 0},
    {"none", VIBE_PROGRESS_NONE, 0},   {NULL, 0, 0},
};

const struct vibe_choice vibe_color_words[] = {
    {"auto", VIBE_COLOR_AUTO, 0},
    {"always", VIBE_COLOR_ALWAYS, 0},
    {"never", VIBE_COLOR_NEVER, 0},
    {NULL, 0, 0},
};

const struct vibe_choice vibe_sweep_words[] = {
    {"md", VIBE_SWEEP_MD, 0},
    {"csv", VIBE_SWEEP_CSV, 0},
    {"json", VIBE_SWEEP_JSON, 0},
    {"jsonl", VIBE_SWEEP_JSONL, 0},
    {NULL, 0, 0},
};

const struct vibe_choice vibe_shell_words[] = {
    {"bash", VIBE_SHOW_COMPLETION, 0},
    {NULL, 0, 0},
};

const struct vibe_choice vibe_layer_words[] = {
    {"all", VIBE_LAYERS_ALL, 0},
    {"auto", VIBE_LAYERS_AUTO, 0},
    {NULL, 0, 0},
};

const struct vibe_choice vibe_auto_word[] = {
    {"auto", VIBE_LAYERS_AUTO, 0},
    {NULL, 0, 0},
};

const struct vibe_choice vibe_memory_words[] = {
    {"lightweight", VIBE_MEMORY_LIGHTWEIGHT, 0},
    {"beefy", VIBE_MEMORY_BEEFY, 0},
    {"normal", VIBE_MEMORY_NORMAL, 1},
    {NULL, 0, 0},
};

const struct vibe_choice vibe_switch_words[] = {
    {"auto", VIBE_SWITCH_AUTO, 0},
    {"on", VIBE_SWITCH_ON, 0},
    {"off", VIBE_SWITCH_OFF, 0},
    {NULL, 0, 0},
};
