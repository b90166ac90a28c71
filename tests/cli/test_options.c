#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audio/writer.h"
#include "cli/options.h"
#include "engine/vibevoice.h"
#include "tests/support/vibe_test.h"

enum { MAX_WORDS = 32 };

struct fixture {
    struct vibe_options got;
    struct vibe_error err;
    char line[512];
    char warnings[512];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    *state = f;
    return f ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_options_release(&f->got);
    free(f);
    return 0;
}

static void on_warning(void *user, const char *msg)
{
    struct fixture *f = user;

    strncat(f->warnings, msg, sizeof(f->warnings) - strlen(f->warnings) - 1);
}

/* Parse words separated by single spaces. */
static int parse_with(struct fixture *f, const char *line,
                      const char *const *environment)
{
    const struct vibe_option_listener listener = {on_warning, f};
    const char *words[MAX_WORDS];
    char *rest = NULL;
    size_t n = 0;

    vibe_options_release(&f->got);
    f->err = (struct vibe_error){0};
    /* The options borrow the words. */
    snprintf(f->line, sizeof(f->line), "%s", line);
    for (char *word = strtok_r(f->line, " ", &rest); word && n < MAX_WORDS;
         word = strtok_r(NULL, " ", &rest))
        words[n++] = word;
    return vibe_options_parse(&f->got, n, words, environment, &listener,
                              &f->err);
}

static const char *const no_environment[] = {NULL};

static void assert_parses(struct fixture *f, const char *line)
{
    int rc = parse_with(f, line, no_environment);

    assert_string_equal(f->err.msg, "");
    assert_int_equal(rc, VIBE_OK);
}

static void assert_refuses(struct fixture *f, const char *line,
                           const char *sentence)
{
    int rc = parse_with(f, line, no_environment);

    assert_string_equal(f->err.msg, sentence);
    assert_int_equal(rc, VIBE_E_ARG);
}

static void nothing_gives_the_documented_defaults(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "");
    assert_true(f->got.cfg_scale == 1.3);
    assert_int_equal(f->got.steps, 10);
    assert_int_equal(f->got.seed, 42);
    assert_true(f->got.max_length_times == 2);
    assert_int_equal(f->got.max_frames, 0);
    assert_int_equal(f->got.ring_slots, 0); /* what suits the machine */
    assert_int_equal(f->got.device, VIBE_DEVICE_AUTO);
    assert_int_equal(f->got.dtype, VIBE_WEIGHTS_AUTO);
    assert_int_equal(f->got.format, VIBE_AUDIO_AUTO);
    assert_string_equal(f->got.output_dir, ".");
    assert_null(f->got.output);
    assert_null(f->got.model);
    assert_int_equal(f->got.scripts.n, 0);
    assert_int_equal(vibe_options_source(&f->got, "--steps"),
                     VIBE_FROM_DEFAULT);
}

static void underscore_and_dash_are_equal_in_names(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "--cfg_scale 2.5 --max_frames=7 --ddpm-inference_steps=3");
    assert_true(f->got.cfg_scale == 2.5);
    assert_int_equal(f->got.max_frames, 7);
    assert_int_equal(f->got.steps, 3);
}

static void values_keep_their_underscores(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "--output_dir=my_out --model a_b");
    assert_string_equal(f->got.output_dir, "my_out");
    assert_string_equal(f->got.model, "a_b");
}

static void every_alias_of_the_python_program_is_known(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "--model_file m --txt_path a.txt --voice_files v.wav "
                     "--output_dir o --cfg 2 --ddpm_steps 4 "
                     "--attn_implementation sdpa");
    assert_string_equal(f->got.model, "m");
    assert_string_equal(f->got.scripts.items[0], "a.txt");
    assert_string_equal(f->got.voices.items[0], "v.wav");
    assert_string_equal(f->got.attn_implementation, "sdpa");
    assert_parses(f, "-m m -f a.txt -r v.wav -o x.wav -s 7 -t 2 -y");
    assert_int_equal(f->got.seed, 7);
    assert_int_equal(f->got.threads, 2);
    assert_int_equal(f->got.on_existing, VIBE_EXISTING_OVERWRITE);
}

static void lists_take_words_until_the_next_option(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "--voice-files a.wav b,c.wav -f x.txt - --voice-files "
                     "d.wav -- --y.txt");
    assert_int_equal(f->got.voices.n, 3);
    assert_string_equal(f->got.voices.items[1], "b,c.wav");
    assert_string_equal(f->got.voices.items[2], "d.wav");
    assert_int_equal(f->got.scripts.n, 3);
    assert_string_equal(f->got.scripts.items[1], "-");
    assert_string_equal(f->got.scripts.items[2], "--y.txt");
}

static void voice_takes_one_word_and_leaves_the_next(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "--voice 1=a.wav x.txt --voice 2=b.wav");
    assert_int_equal(f->got.voices.n, 2);
    assert_string_equal(f->got.voices.items[1], "2=b.wav");
    assert_int_equal(f->got.scripts.n, 1);
}

static void seed_takes_a_negative_word(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "--seed -1");
    assert_int_equal(f->got.seed, -1);
    assert_parses(f, "--seed 9223372036854775807");
    assert_true(f->got.seed == INT64_MAX);
    assert_refuses(f, "--seed 9223372036854775808",
                   "--seed: 9223372036854775808 is out of range (-1 or more; "
                   "-1 = random)");
}

static void a_repeated_value_warns_and_the_last_wins(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "--steps 5 --ddpm-steps 6");
    assert_int_equal(f->got.steps, 6);
    assert_string_equal(f->warnings,
                        "--ddpm-steps is given more than once; '6' is used");
}

static void flags_can_be_taken_back(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "--sample --json --no-json --no_dry_run");
    assert_int_equal(f->got.is_sampling, 1);
    assert_int_equal(f->got.is_json, 0);
    assert_int_equal(f->got.is_dry_run, 0);
}

static void verbose_is_counted(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "-v --verbose");
    assert_int_equal(f->got.verbosity, 2);
    assert_parses(f, "-vv");
    assert_int_equal(f->got.verbosity, 2);
}

static void device_reads_an_index(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "--device CUDA:3");
    assert_int_equal(f->got.device, VIBE_DEVICE_CUDA);
    assert_int_equal(f->got.device_index, 3);
    assert_refuses(f, "--device gpu",
                   "--device: 'gpu' is not one of auto, cuda, cuda:N, cpu");
    assert_refuses(f, "--device cuda:",
                   "--device: 'cuda:' is not one of auto, cuda, cuda:N, cpu");
    assert_refuses(f, "--device cuda:0x1",
                   "--device: 'cuda:0x1' is not one of auto, cuda, cuda:N, "
                   "cpu");
}

static void choices_ignore_case_and_have_aliases(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "--dtype BF16");
    assert_int_equal(f->got.dtype, VIBE_WEIGHTS_BF16);
    assert_parses(f, "--dtype float8-e4m3fn");
    assert_int_equal(f->got.dtype, VIBE_WEIGHTS_F8_E4M3);
    assert_parses(f, "--dtype int4 --head-dtype float8 --codec-dtype int8");
    assert_int_equal(f->got.dtype, VIBE_WEIGHTS_I4);
    assert_int_equal(f->got.head_dtype, VIBE_WEIGHTS_F8_E4M3);
    assert_int_equal(f->got.codec_dtype, VIBE_WEIGHTS_I8);
    assert_refuses(
        f, "--dtype int3",
        "--dtype: 'int3' is not one of bfloat16, float8_e4m3fn, "
        "int8, int4, bf16-packed, float32, auto; did you mean 'int8'?");
    assert_refuses(f, "--progress plian",
                   "--progress: 'plian' is not one of auto, bar, plain, json, "
                   "none; did you mean 'plain'?");
}

static void numbers_are_checked_to_the_last_letter(void **state)
{
    struct fixture *f = *state;

    assert_refuses(f, "--steps 8x", "--steps: '8x' is not a whole number");
    assert_refuses(f, "--steps=", "--steps: '' is not a whole number");
    assert_refuses(f, "--steps 1.5", "--steps: '1.5' is not a whole number");
    assert_refuses(f, "--steps 0", "--steps: 0 is out of range (1 to 1000)");
    assert_refuses(f, "--steps 1001",
                   "--steps: 1001 is out of range (1 to 1000)");
    assert_refuses(f, "--cfg-scale nan",
                   "--cfg-scale: 'nan' is not a number from 0 to 10");
    assert_refuses(f, "--cfg-scale 10.1",
                   "--cfg-scale: '10.1' is not a number from 0 to 10");
    assert_refuses(f, "--cfg-scale -1",
                   "--cfg-scale: '-1' is not a number from 0 to 10");
    assert_refuses(f, "--top-p 0",
                   "--top-p: '0' is not a number above 0, up to 1");
    assert_refuses(f, "--max-seconds inf",
                   "--max-seconds: 'inf' is not a number above 0, up to "
                   "100000");
    assert_refuses(f, "--max-frames -3",
                   "--max-frames: -3 is out of range (1 or more)");
    assert_refuses(f, "--threads 0",
                   "--threads: 0 is out of range (1 to 1024)");
}

static void unknown_options_are_named_with_what_they_resemble(void **state)
{
    struct fixture *f = *state;

    assert_refuses(f, "--setps 3",
                   "unknown option '--setps'; did you mean '--steps'?");
    assert_refuses(f, "--voice_file a.wav",
                   "unknown option '--voice_file'; did you mean "
                   "'--voice-files'?");
    assert_refuses(f, "--attn-imp=x",
                   "unknown option '--attn-imp'; did you mean "
                   "'--attn-implementation'?");
    assert_refuses(f, "--zebra", "unknown option '--zebra'");
    assert_refuses(f, "-z", "unknown option '-z'");
    assert_refuses(f, "--no-steps",
                   "unknown option '--no-steps'; did you mean '--steps'?");
}

static void abbreviations_are_refused(void **state)
{
    struct fixture *f = *state;

    assert_refuses(f, "--outpu x.wav",
                   "unknown option '--outpu'; did you mean '--output'?");
}

static void what_will_not_come_is_refused_with_its_reason(void **state)
{
    struct fixture *f = *state;

    assert_refuses(f, "--checkpoint_path x",
                   "--checkpoint-path: LoRA checkpoints are not supported");
}

static void a_missing_value_is_not_taken_from_the_next_option(void **state)
{
    struct fixture *f = *state;

    assert_refuses(f, "--voice-files", "--voice-files needs WAV...");
    assert_refuses(f, "--output --quiet", "--output needs FILE");
    assert_refuses(f, "--model -f", "--model needs PATH");
    assert_refuses(f, "-o", "-o needs FILE");
    assert_refuses(f, "--quiet=yes", "--quiet takes no value");
    assert_refuses(f, "--model=", "--model: is empty");
}

static void rivals_cannot_be_combined(void **state)
{
    struct fixture *f = *state;

    assert_refuses(f, "--text x --txt-path y",
                   "--text cannot be combined with --txt-path");
    assert_refuses(f, "y.txt --text x",
                   "--text cannot be combined with --txt-path");
    assert_refuses(f, "--overwrite --skip-existing",
                   "--skip-existing cannot be combined with --overwrite");
    assert_refuses(f, "-v -q", "--verbose cannot be combined with --quiet");
    assert_refuses(f, "--info --verify x",
                   "--verify cannot be combined with --info");
    assert_refuses(f, "-o a -d b",
                   "--output-dir cannot be combined with --output");
    assert_parses(f, "--no-info --verify x");
    assert_string_equal(f->got.verify, "x");
}

static void help_ends_the_reading(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "--help --zebra");
    assert_int_equal(f->got.show, VIBE_SHOW_HELP);
    assert_parses(f, "-h");
    assert_int_equal(f->got.show, VIBE_SHOW_HELP_SHORT);
    assert_refuses(f, "--zebra --help", "unknown option '--zebra'");
    assert_refuses(f, "--completion zsh",
                   "--completion: 'zsh' is not one of bash");
}

static void environment_is_weaker_than_the_command_line(void **state)
{
    struct fixture *f = *state;
    static const char *const environment[] = {
        "VIBEVOICE_STEPS=7",    "VIBEVOICE_CFG_SCALE=2",
        "VIBEVOICE_TEXT=hello", "VIBEVOICE_VOICE_FILES=a b.wav\nc.wav",
        "VIBEVOICE_JSON=yes",   "VIBEVOICE_NO_CLOBBER=1",
        "VIBEVOICE_MODEL=",     "VIBEVOICE_UNKNOWN=1",
        "VIBEVOICE_VERBOSE=2",  NULL};

    assert_int_equal(
        parse_with(f, "--steps 5 -f x.txt --skip-existing", environment),
        VIBE_OK);
    assert_int_equal(f->got.steps, 5);
    assert_true(f->got.cfg_scale == 2);
    /* Its rival --txt-path was given on the command line. */
    assert_null(f->got.text);
    assert_int_equal(f->got.on_existing, VIBE_EXISTING_SKIP);
    assert_int_equal(f->got.voices.n, 2);
    assert_string_equal(f->got.voices.items[0], "a b.wav");
    assert_int_equal(f->got.is_json, 1);
    assert_int_equal(f->got.verbosity, 2);
    assert_null(f->got.model); /* an empty value is none */
    assert_int_equal(vibe_options_source(&f->got, "--cfg-scale"),
                     VIBE_FROM_ENV);
}

static void environment_is_checked_like_the_command_line(void **state)
{
    struct fixture *f = *state;
    static const char *const wrong[] = {"VIBEVOICE_STEPS=0", NULL};
    static const char *const rivals[] = {"VIBEVOICE_QUIET=1",
                                         "VIBEVOICE_VERBOSE=1", NULL};

    assert_int_equal(parse_with(f, "", wrong), VIBE_E_ARG);
    assert_string_equal(f->err.msg,
                        "VIBEVOICE_STEPS: 0 is out of range (1 to 1000)");
    assert_int_equal(parse_with(f, "", rivals), VIBE_E_ARG);
    assert_string_equal(
        f->err.msg, "environment: --verbose cannot be combined with --quiet");
}

/* Apply an options file to what a command line left. */
static int apply(struct fixture *f, const char *line, const char *text)
{
    int rc = parse_with(f, line, no_environment);

    assert_int_equal(rc, VIBE_OK);
    return vibe_options_apply_text(&f->got, "opts", text, strlen(text),
                                   &f->err);
}

static void options_file_has_a_word_per_line(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(apply(f, "--steps 5",
                           "# mine\n\n  --cfg_scale=2\r\n--steps\n9\n"
                           "--voice-files\na b.wav\n c.wav\n--json"),
                     VIBE_OK);
    assert_true(f->got.cfg_scale == 2);
    assert_int_equal(f->got.steps, 5); /* the command line is stronger */
    assert_int_equal(f->got.voices.n, 2);
    assert_string_equal(f->got.voices.items[0], "a b.wav");
    assert_string_equal(f->got.voices.items[1], "c.wav");
    assert_int_equal(f->got.is_json, 1);
}

static void options_file_errors_name_the_line(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(apply(f, "", "#\n\n--foo\n"), VIBE_E_ARG);
    assert_string_equal(f->err.msg, "opts:3: unknown option '--foo'");
    assert_int_equal(apply(f, "", "--steps\n0\n"), VIBE_E_ARG);
    assert_string_equal(f->err.msg,
                        "opts:2: --steps: 0 is out of range (1 to 1000)");
    assert_int_equal(apply(f, "", "--json\n--options=x"), VIBE_E_ARG);
    assert_string_equal(f->err.msg, "opts:2: --options is for the command "
                                    "line");
    assert_int_equal(apply(f, "", "--text=x\n--txt-path=y"), VIBE_E_ARG);
    assert_string_equal(f->err.msg,
                        "opts:2: --text cannot be combined with --txt-path");
    assert_int_equal(
        vibe_options_apply_text(&f->got, "opts", "--json\0", 7, &f->err),
        VIBE_E_ARG);
    assert_string_equal(f->err.msg, "opts: is not a text file");
    assert_int_equal(apply(f, "", "--model\n"), VIBE_E_ARG);
    assert_string_equal(f->err.msg, "opts:1: --model needs PATH");
}

static void a_missing_options_file_is_an_input_error(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(
        parse_with(f, "--options /nonexistent/opts", no_environment),
        VIBE_E_IO);
    assert_string_equal(f->err.msg,
                        "/nonexistent/opts: No such file or directory");
}

/* Rules that a new row is likely to break. */
static void every_row_is_well_formed(void **state)
{
    const struct vibe_option *row;

    (void)state;
    for (size_t i = 0; (row = vibe_option_at(i)); i++) {
        const char *at = row->names;
        char name[64];

        assert_non_null(row->help);
        assert_true(row->help[strlen(row->help) - 1] != '.');
        /* numbers may have words for some of them */
        if (row->kind != VIBE_OPT_INT)
            assert_int_equal(row->kind == VIBE_OPT_CHOICE,
                             row->choices != NULL);
        assert_int_equal(row->kind == VIBE_OPT_PARSED, row->parse != NULL);
        if (row->kind == VIBE_OPT_INT)
            assert_true(row->min < row->max);
        if (row->kind == VIBE_OPT_FLOAT)
            assert_true(row->low < row->high);
        while (vibe_option_next_name(&at, name, sizeof(name))) {
            assert_null(strchr(name, '_'));
            assert_true(name[0] == '-' && name[1] != '\0');
        }
    }
}

static void layers_take_a_number_or_a_word(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "--num-gpu-layers 12");
    assert_int_equal(f->got.gpu_layers, 12);
    assert_parses(f, "-ngl ALL");
    assert_int_equal(f->got.gpu_layers, VIBE_LAYERS_ALL);
    assert_parses(f, "--gpu-layers auto");
    assert_int_equal(f->got.gpu_layers, VIBE_LAYERS_AUTO);
}

static void sizes_have_units_and_signs(void **state)
{
    struct fixture *f = *state;

    assert_parses(f, "--max-vram 8");
    assert_true(f->got.max_vram == (int64_t)8 << 30);
    assert_parses(f, "--max-vram 7.5G");
    assert_true(f->got.max_vram == (int64_t)15 << 29);
    assert_parses(f, "--max-vram 7500m");
    assert_true(f->got.max_vram == (int64_t)7500 << 20);
    assert_parses(f, "--max-vram 12GB");
    assert_true(f->got.max_vram == 12000000000);
    assert_parses(f, "--max-vram -1.5");
    assert_true(f->got.max_vram == -((int64_t)3 << 29));
}

static void no_name_is_taken_twice(void **state)
{
    char all[8192] = " ";
    const struct vibe_option *row;
    size_t n = 1;

    (void)state;
    for (size_t i = 0; (row = vibe_option_at(i)); i++) {
        const char *at = row->names;
        char name[64], padded[80];

        while (vibe_option_next_name(&at, name, sizeof(name))) {
            snprintf(padded, sizeof(padded), " %s ", name);
            assert_null(strstr(all, padded));
            n += (size_t)snprintf(all + n, sizeof(all) - n, "%s ", name);
            assert_true(n < sizeof(all));
        }
    }
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(nothing_gives_the_documented_defaults),
    VIBE_TEST(underscore_and_dash_are_equal_in_names),
    VIBE_TEST(values_keep_their_underscores),
    VIBE_TEST(every_alias_of_the_python_program_is_known),
    VIBE_TEST(lists_take_words_until_the_next_option),
    VIBE_TEST(voice_takes_one_word_and_leaves_the_next),
    VIBE_TEST(seed_takes_a_negative_word),
    VIBE_TEST(a_repeated_value_warns_and_the_last_wins),
    VIBE_TEST(flags_can_be_taken_back),
    VIBE_TEST(verbose_is_counted),
    VIBE_TEST(device_reads_an_index),
    VIBE_TEST(choices_ignore_case_and_have_aliases),
    VIBE_TEST(numbers_are_checked_to_the_last_letter),
    VIBE_TEST(unknown_options_are_named_with_what_they_resemble),
    VIBE_TEST(abbreviations_are_refused),
    VIBE_TEST(what_will_not_come_is_refused_with_its_reason),
    VIBE_TEST(a_missing_value_is_not_taken_from_the_next_option),
    VIBE_TEST(rivals_cannot_be_combined),
    VIBE_TEST(help_ends_the_reading),
    VIBE_TEST(environment_is_weaker_than_the_command_line),
    VIBE_TEST(environment_is_checked_like_the_command_line),
    VIBE_TEST(options_file_has_a_word_per_line),
    VIBE_TEST(options_file_errors_name_the_line),
    VIBE_TEST(a_missing_options_file_is_an_input_error),
    VIBE_TEST(every_row_is_well_formed),
    VIBE_TEST(layers_take_a_number_or_a_word),
    VIBE_TEST(sizes_have_units_and_signs),
    VIBE_TEST(no_name_is_taken_twice),
};

VIBE_TEST_MAIN(tests)
