#!/usr/bin/env bash
# What needs no model: usage errors, help, where options come from.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

hint="Try 'vibevoice --help' for more information."

fails unknown_option 2 \
    "unknown option '--setps'; did you mean '--steps'?" --setps 3
ok a_usage_error_hints_at_help grep -qxF "$hint" "$tmp/err"
ok a_usage_error_prints_nothing_on_stdout test ! -s "$tmp/out"
fails bad_choice 2 "--dtype: 'half' is not one of bfloat16, float8_e4m3fn, int8, int4, bf16-packed, float32, auto" --dtype half
fails not_a_number 2 "--cfg-scale: 'nan' is not a number from 0 to 10" --cfg_scale nan
fails out_of_range 2 "--steps: 0 is out of range (1 to 1000)" --steps 0
fails alias_is_named_as_typed 2 "--ddpm-steps: 0 is out of range (1 to 1000)" --ddpm_steps=0
fails conflict 2 "--text cannot be combined with --txt-path" --text x --txt-path y
fails quiet_and_verbose 2 "--verbose cannot be combined with --quiet" -q -v
fails list_without_words 2 "--voice-files needs WAV..." --voice-files
fails no_script 2 "nothing to speak: use --txt-path FILE or --text STR"
fails no_model 2 "no model: use --model PATH or VIBEVOICE_MODEL" --text hello
fails output_for_many 2 "--output takes one script; use --output-dir for 2" \
    -m x -o y.wav demo/text_examples/one_speaker.txt demo/text_examples/two_speakers.txt
fails temperature_alone 2 "--temperature does nothing without --sample" \
    --text x --temperature 0.5
fails dump_tensors_of_many 2 "--dump-tensors takes one script, not 2" \
    a.txt b.txt --dump-tensors "$tmp/d"
fails two_voices_for_one 2 \
    "--voice: speaker 1 has two voices, a.wav and b.wav" \
    --text x --voice 1=a.wav --voice 1=b.wav
fails voice_of_no_number 2 \
    "--voice: 'x=tone.wav' is not N=FILE with the number of a speaker, nor a file" \
    --text x --voice x=tone.wav
presets="high_end, mid_range, consumer, budget, minimal, light, moderate, balanced, aggressive, extreme"
fails config_is_a_file_or_a_preset 2 \
    "--config: 'medium' is not a preset; have $presets" --text x -m x --config medium
fails config_knows_what_was_meant 2 \
    "--config: 'mid-rnage' is not a preset; have $presets; did you mean 'mid_range'?" \
    --text x -m x --config mid-rnage
fails config_file_is_missing 3 "x.json: No such file or directory" \
    --text x -m x --config x.json
fails preset_is_unknown 2 "--preset: 'big' is not a preset; have $presets" \
    --text x -m x --preset big
fails config_excludes_layers 2 \
    "--config Mid-Range cannot be combined with --num-gpu-layers" \
    --text x -m x --config Mid-Range -ngl 3
fails auto_excludes_layers 2 "--num-gpu-layers cannot be combined with --auto" --auto -ngl 3
fails auto_excludes_no_offload 2 "--no-offload cannot be combined with --auto" --auto --no-offload
fails preset_excludes_no_offload 2 "--preset cannot be combined with --no-offload" \
    --no-offload --preset budget
fails layers_are_whole 2 "--num-gpu-layers: '8x' is not a whole number" --num-gpu-layers 8x
fails layers_are_not_negative 2 \
    '--num-gpu-layers: -1 is out of range (0 or more; or "all", "auto")' --num-gpu-layers=-1
fails max_vram_is_a_size 2 "--max-vram: '8 cards' is not a size like 8, 7.5G, 7500M or -1" \
    --max-vram "8 cards"
fails max_vram_is_not_zero 2 "--max-vram: '0' is not a size like 8, 7.5G, 7500M or -1" --max-vram 0
fails reserve_is_not_negative 2 "--vram-reserve: -5 is out of range (0 to 16777216)" --vram-reserve -5
fails utilization_is_a_share 2 "--target-utilization: '2' is not a number above 0, up to 1" \
    --target_utilization 2
fails memory_mode 2 "--memory-mode: 'big' is not one of lightweight, beefy" --memory_mode big
fails pin_memory 2 "--pin-memory: 'maybe' is not one of auto, on, off" --pin-memory maybe
fails plan_and_table 2 "--print-table cannot be combined with --plan" --plan --print-table
fails stdin_twice 2 "--txt-path: standard input can be read only once" - -
fails vectors_without_tokenizer 2 "--verify: v.json needs --tokenizer DIR" --verify v.json

# Errors as JSON, in addition to the sentence.
run --json --steps 0
ok json_error grep -qxF \
    '{"error":{"code":2,"message":"--steps: 0 is out of range (1 to 1000)"}}' "$tmp/out"
run --steps 0 --json
ok json_error_whatever_the_order test -s "$tmp/out"

# Help.
run --help
ok help_is_no_error test "$rc" = 0
ok help_goes_to_stdout test -s "$tmp/out" -a ! -s "$tmp/err"
ok help_documents_exit_codes grep -q '^  130 ' "$tmp/out"
run -h
ok short_help_is_no_error test "$rc" = 0
run --version
ok version grep -qE '^vibevoice [0-9]+\.[0-9]+\.[0-9]+ \(' "$tmp/out"
ok version_is_one_line test "$(wc -l <"$tmp/out")" = 1

# The manual page and the completion are made of the same table.
run --man
ok manual_page test "$(head -c 3 "$tmp/out")" = .TH
if command -v groff >/dev/null; then
    ok manual_page_has_no_groff_warnings test -z \
        "$(groff -man -ww -z -Tascii "$tmp/out" 2>&1)"
else
    skip manual_page_has_no_groff_warnings "needs groff"
fi
run --completion bash
ok completion_parses bash -n "$tmp/out"
complete_words() { # LINE; prints what completes its last word
    bash --norc -c '
        . "$1"
        read -ra COMP_WORDS <<<"$2"
        [[ $2 != *" " ]] || COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _vibevoice
        printf "%s\n" "${COMPREPLY[@]}"
    ' bash "$tmp/out" "$1" 2>/dev/null | sort
}
ok completes_options test "$(complete_words 'vibevoice --cfg_')" = --cfg-scale
ok completes_choices test "$(complete_words 'vibevoice --dtype flo' | tr '\n' ' ')" = "float32 float8_e4m3fn "
ok completes_lists_by_extension test \
    "$(complete_words 'vibevoice --txt-path a.txt demo/text_examples/two_speakers.t')" = demo/text_examples/two_speakers.txt
ok completes_no_sound_as_script test -z "$(complete_words 'vibevoice demo/voices/slt.f')"
ok completes_voices test "$(complete_words 'vibevoice -r demo/voices/slt.f')" = demo/voices/slt.flac

# Environment and options file.
VIBEVOICE_STEPS=0 fails environment 2 "VIBEVOICE_STEPS: 0 is out of range (1 to 1000)"
VIBEVOICE_STEPS=0 fails command_line_is_stronger 2 \
    "nothing to speak: use --txt-path FILE or --text STR" --steps 5
printf '# mine\n--steps\n5\n--foo\n' >"$tmp/opts"
printf -- '--steps 3\n' >"$tmp/opts1"
fails options_with_blanks 2 \
    "$tmp/opts1:1: '--steps 3' is one word; give the value as the next one, or after '='" \
    --options "$tmp/opts1"
fails options_file 2 "$tmp/opts:4: unknown option '--foo'" --options "$tmp/opts"
VIBEVOICE_CONFIG_PATH=$tmp/opts fails options_file_by_environment 2 \
    "$tmp/opts:4: unknown option '--foo'"
fails options_file_is_missing 3 "$tmp/none: No such file or directory" --options "$tmp/none"
run --steps 5 --steps 6 --text x
ok repeated_option_warns grep -qxF \
    "vibevoice: warning: --steps is given more than once; '6' is used" "$tmp/err"
run -q --steps 5 --steps 6 --text x
ok quiet_warns_of_nothing says "no model: use --model PATH or VIBEVOICE_MODEL"
NO_COLOR='' fails colour_can_be_forced 2 "$(printf '\033[31mnothing to speak: use --txt-path FILE or --text STR\033[0m')" --color always

# Messages in a file.
fails log_file_in_no_folder 4 "$tmp/none/log: No such file or directory" \
    --text x --log-file "$tmp/none/log"
run -q --text x --steps 5 --steps 6 --log-file "$tmp/log"
ok log_file_has_warnings grep -qE \
    "^[0-9]{4}-[0-9-]+ [0-9:]{8} warning: --steps is given more than once" "$tmp/log"
ok log_file_has_errors grep -qE "error: no model: use --model PATH or VIBEVOICE_MODEL$" "$tmp/log"
run -q --text x --log-file "$tmp/log"
ok log_file_is_appended_to test "$(grep -c 'error: no model' "$tmp/log")" = 2

if [ -e /dev/full ]; then
    rc=0
    "$vibe" --help >/dev/full 2>"$tmp/err" || rc=$?
    : >"$tmp/out"
    ok lost_output_is_an_error test "$rc" = 4
fi
