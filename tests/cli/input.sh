#!/usr/bin/env bash
# Bad scripts, voices and models: exit status 3 and one sentence, before any
# model is opened, and nothing is written.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

s=$tmp/s v=$tmp/v
mkdir "$s" "$v" "$tmp/out.d"
printf 'Speaker 1: Hello.\nSpeaker 2: Good day.\n' >"$s/two.txt"
printf 'Speaker 1: Hello.\nSpeaker 3: Good day.\n' >"$s/gap.txt"
printf 'Hello.\n' >"$s/plain.txt"
wav "$v/a.wav" 24000 1
wav "$v/b.wav" 16000 1

# Scripts.  "-m nowhere" shows that they are read before the model.
script() { # NAME SENTENCE FILE
    fails "$1" 3 "$2" -m nowhere -f "$3" -d "$tmp/out.d"
}
script script_missing "$s/none.txt: No such file or directory" "$s/none.txt"
fails one_bad_script_of_three 3 "$s/none.txt: No such file or directory" \
    -m nowhere -f "$s/two.txt" "$s/none.txt" "$s/plain.txt" -d "$tmp/out.d"
: >"$s/empty.txt"
run -m nowhere -f "$s/empty.txt"
ok script_empty test "$rc" = 3
printf ' \n\t\r\n' >"$s/blank.txt"
run -m nowhere -f "$s/blank.txt"
ok script_of_blanks test "$rc" = 3
ok script_of_blanks_is_named grep -qF "$s/blank.txt: " "$tmp/err"
printf 'Speaker 1: caf\xe9\n' >"$s/latin1.txt"
run -m nowhere -f "$s/latin1.txt"
ok script_not_utf8 test "$rc" = 3
ok script_not_utf8_says_where grep -qE 'latin1.txt: .*UTF-8.*14' "$tmp/err"
printf '[{"speaker": 1, "text": "a"},]' >"$s/bad.json"
run -m nowhere -f "$s/bad.json"
ok script_malformed_json test "$rc" = 3
run -m nowhere -f "$s"
ok script_is_a_folder test "$rc" = 3
script script_is_a_recording \
    "$v/a.wav: is a recording, not a script; -o names the output, -r a voice" "$v/a.wav"
fails empty_text 2 "--text: is empty" --text=
run --text ' ' -m nowhere
ok blank_text test "$rc" = 3
if [ "$(id -u)" = 0 ]; then
    skip script_unreadable "root reads everything"
else
    printf 'x\n' >"$s/secret.txt"
    chmod 000 "$s/secret.txt"
    script script_unreadable "$s/secret.txt: Permission denied" "$s/secret.txt"
fi

# A line of 5 MB is a script like any other, until the model counts it.
perl -e 'print "Speaker 1: ", "word " x 1048576, "\n"' >"$s/long.txt"
fails long_line_is_read 2 "no model: use --model PATH or VIBEVOICE_MODEL" \
    -f "$s/long.txt" -d "$tmp/out.d"
if [ -n "$model" ]; then
    run -m "$model" -f "$s/long.txt" -d "$tmp/out.d"
    ok long_line_is_too_long_for_the_model test "$rc" = 3
    ok long_line_says_how_long grep -qE \
        "long.txt: .* [0-9]+ tokens, the model takes [0-9]+" "$tmp/err"
else
    skip long_line_is_too_long_for_the_model "no tiny model"
fi

# Voices.
voice() { # NAME SENTENCE VOICES...
    local name=$1 sentence=$2
    shift 2
    fails "$name" 3 "$sentence" -m nowhere -f "$s/two.txt" -d "$tmp/out.d" --voice-files "$@"
}
voice too_few_voices \
    "$s/two.txt: script has 2 speakers but 1 voice file was given; speaker 2 has no voice" "$v/a.wav"
voice too_many_voices "$s/two.txt: script has 2 speakers but 3 voice files were given" \
    "$v/a.wav" "$v/b.wav" "$v/a.wav"
fails gap_in_speakers 3 \
    "$s/gap.txt: speaker 2 says nothing and has no voice; with voices, speakers count from 1 without gaps" \
    -m nowhere -f "$s/gap.txt" -d "$tmp/out.d" -r "$v/a.wav" "$v/b.wav"
fails unbound_speaker 3 \
    "$s/two.txt: script has 2 speakers but 1 voice file was given; speaker 1 has no voice" \
    -m nowhere -f "$s/two.txt" -d "$tmp/out.d" --voice "2=$v/b.wav"
fails voices_of_others 3 \
    "$s/two.txt: speaker 1 has no voice; those given are of other speakers" \
    -m nowhere -f "$s/two.txt" -d "$tmp/out.d" --voice "2=$v/b.wav" --voice "3=$v/a.wav"
fails voice_of_nobody 3 "--voice 5=$v/a.wav: no script has a speaker 5" \
    -m nowhere -f "$s/two.txt" -d "$tmp/out.d" \
    --voice "1=$v/a.wav" --voice "2=$v/b.wav" --voice "5=$v/a.wav"
voice voice_missing "$v/none.wav: No such file or directory" "$v/a.wav" "$v/none.wav"
: >"$v/empty.wav"
voice voice_empty "$v/empty.wav: file is empty" "$v/empty.wav" "$v/a.wav"
wav "$v/nothing.wav" 24000 0
voice voice_without_samples "$v/nothing.wav: holds no audio" "$v/nothing.wav" "$v/a.wav"
wav "$v/silent.wav" 24000 0.5 0
voice voice_silent "$v/silent.wav: is silent" "$v/silent.wav" "$v/a.wav"
wav "$v/short.wav" 24000 0.5
run -m nowhere --text Hello. -r "$v/short.wav" -d "$tmp/out.d"
ok voice_short_is_remarked_on grep -qx "vibevoice: warning: $v/short.wav: is 0.[0-9]* s long; ten to thirty seconds make the best voice" "$tmp/err"
wav "$v/minute.wav" 8000 60
run -m nowhere --text Hello. -r "$v/minute.wav" -d "$tmp/out.d"
ok voice_of_a_minute_is_not test "$(grep -c warning "$tmp/err")" = 0
printf 'this is no sound\n' >"$v/text.wav"
rejected() { # NAME FILE PATTERN
    run -m nowhere -f "$s/two.txt" -d "$tmp/out.d" -r "$2" "$v/a.wav"
    if [ "$rc" = 3 ] && grep -qE "^vibevoice: $2: .*$3" "$tmp/err" && [ "$(wc -l <"$tmp/err")" = 1 ]; then
        report 0 "$1"
    else
        report 1 "$1"
    fi
}
rejected voice_not_audio "$v/text.wav" ''
wav "$v/0hz.wav" 24000 0.1
perl -e 'open my $f, "+<", $ARGV[0]; seek $f, 24, 0; print $f pack("VV", 0, 0)' "$v/0hz.wav"
rejected voice_of_0_hz "$v/0hz.wav" 'header says 0 Hz or 0 channels'
# Voices by the names of their files.
mkdir "$tmp/voices"
cp "$v/a.wav" "$tmp/voices/en-Alice_woman.wav"
cp "$v/b.wav" "$tmp/voices/en-Frank_man.wav"
cp "$v/b.wav" "$tmp/voices/frank.wav"
echo no >"$tmp/voices/README"
named=(-m nowhere -f "$s/two.txt" -d "$tmp/out.d" --voices-dir "$tmp/voices")
fails names_nobody 3 \
    "no voice matches 'Bob' in $tmp/voices/; have: en-Alice_woman, en-Frank_man, frank" \
    "${named[@]}" --speaker-names alice Bob
fails names_and_files 2 \
    "--speaker-names cannot be combined with --voice-files or --voice" \
    "${named[@]}" --speaker-names alice --voice "2=$v/b.wav"
fails names_in_no_folder 3 "--voices-dir: $tmp/none: No such file or directory" \
    -m nowhere -f "$s/two.txt" --voices-dir "$tmp/none" --speaker-names a b
fails one_name_for_two 3 \
    "$s/two.txt: script has 2 speakers but 1 voice file was given; speaker 2 has no voice" \
    "${named[@]}" --speaker-names ALICE
# With both found, it is the model that is missing.
fails names_are_found 3 "nowhere: No such file or directory" \
    "${named[@]}" --speaker-names ALICE Frank
# 8 kHz keeps the file small; ten minutes are ten minutes.
wav "$v/long.wav" 8000 600
rejected voice_of_10_minutes "$v/long.wav" '(600|seconds| s)'
rejected voice_is_a_folder "$s" 'directory'

# Models.
fails model_missing 3 "nowhere: No such file or directory" \
    -m nowhere -f "$s/plain.txt" -d "$tmp/out.d"
mkdir "$tmp/m"
run -m "$tmp/m" --info
ok model_without_config test "$rc" = 3
ok model_without_config_is_named grep -qF "$tmp/m/config.json: " "$tmp/err"
printf '{' >"$tmp/m/config.json"
run -m "$tmp/m" --info
ok model_with_malformed_config test "$rc" = 3
fails config_missing 3 "nix.json: No such file or directory" -m "$tmp/m" --config nix.json --info
if [ -n "$model" ]; then
    cp "$model"/* "$tmp/m/"
    perl -e 'truncate $ARGV[0], (-s $ARGV[0]) - 1000' "$tmp/m/model.safetensors"
    run -m "$tmp/m" --info
    ok model_truncated test "$rc" = 3
    ok model_truncated_is_named grep -qF "$tmp/m/model.safetensors: " "$tmp/err"
    cp "$model/model.safetensors" "$tmp/m/"
    rm "$tmp/m/tokenizer.json" "$tmp/m/vocab.json"
    run -m "$tmp/m" --info
    ok model_without_tokenizer test "$rc" = 3
    run -m "$tmp/m" --tokenizer "$model" --info
    ok tokenizer_from_elsewhere test "$rc" = 0
    run -m "$model" --dtype float8 --info
    ok dtype_that_the_file_has_not_is_made test "$rc" = 0
    run -m "$model" --verify "$tmp/none.safetensors"
    ok golden_missing test "$rc" = 3
else
    skip model_truncated "no tiny model"
fi
run --tokenizer "$tmp/m" --verify "$tmp/none.json"
ok vectors_missing test "$rc" = 3

run --json -m nowhere -f "$s/none.txt"
ok json_error_names_the_file grep -qxF \
    "{\"error\":{\"code\":3,\"message\":\"$s/none.txt: No such file or directory\",\"file\":\"$s/none.txt\"}}" \
    "$tmp/out"

ok nothing_was_written test -z "$(ls -A "$tmp/out.d")"
