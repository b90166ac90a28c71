#!/usr/bin/env bash
# Speaking with a tiny random model: files, their sameness, what is printed.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

if [ -z "$model" ]; then
    skip speak "no tiny model"
    exit 0
fi
cd "$tmp" || exit 1
printf 'Speaker 1: Good morning.\nSpeaker 2: Good day.\n' >two.txt
cp two.txt again.txt
printf 'Another text.\n' >other.txt
wav a.wav 24000 0.4
wav b.wav 44100 0.4 9000 2
speak=(-m "$model" --steps 2 --max-frames 3)
voices=(--voice-files a.wav b.wav)

# A dialogue with its voices.
run "${speak[@]}" two.txt "${voices[@]}" -o one.wav
ok dialogue test "$rc" = 0 -a "$(cat out)" = one.wav
ok dialogue_has_its_frames test "$(frames_of one.wav)" = 3
ok length_cap_warns grep -q "^vibevoice: warning: one.wav: the length cap ended it after 0.4 s" err

# The same seed gives the same bytes, in this process and in the next.
run "${speak[@]}" two.txt again.txt "${voices[@]}" -d d
ok same_seed_same_file cmp one.wav d/two_generated.wav
ok second_dialogue_equals_the_first cmp d/two_generated.wav d/again_generated.wav
run "${speak[@]}" other.txt two.txt --voice "1=a.wav" --voice "2=b.wav" -d e
ok dialogue_after_another_equals_it_alone cmp one.wav e/two_generated.wav
run "${speak[@]}" two.txt "${voices[@]}" --seed 43 -o seed.wav
ok other_seed_other_file sh -c '! cmp -s one.wav seed.wav'
run "${speak[@]}" two.txt --voice 2=b.wav --voice 1=a.wav -o named.wav
ok voices_by_name_equal_voices_by_order cmp one.wav named.wav
run "${speak[@]}" two.txt --voice-files b.wav a.wav -o swapped.wav
ok voices_matter sh -c '! cmp -s one.wav swapped.wav'
run "${speak[@]}" two.txt "${voices[@]}" --cfg_scale 3 -o cfg.wav
ok guidance_matters sh -c '! cmp -s one.wav cfg.wav'
run -m "$model" --steps 3 --max-frames 3 two.txt "${voices[@]}" -o steps.wav
ok steps_matter sh -c '! cmp -s one.wav steps.wav'
run "${speak[@]}" two.txt -o none.wav
ok voiceless test "$rc" = 0
ok voiceless_is_another_voice sh -c '! cmp -s one.wav none.wav'
run -m "$model" --steps 2 --max-seconds 0.3 two.txt "${voices[@]}" -o short.wav
ok max_seconds_are_whole_frames test "$(frames_of short.wav)" = 3

# The seed -1 is drawn, and can be given again.
run "${speak[@]}" two.txt "${voices[@]}" -s -1 -o random.wav
seed=$(sed -n 's/^vibevoice: seed \([0-9]*\)$/\1/p' err)
ok random_seed_is_printed test -n "$seed"
run "${speak[@]}" two.txt "${voices[@]}" -s "$seed" -o random2.wav
ok random_seed_can_be_given_again cmp random.wav random2.wav

# Where scripts come from.
rc=0
"$vibe" "${speak[@]}" - "${voices[@]}" -o stdin.wav <two.txt >out 2>err || rc=$?
ok script_from_stdin cmp one.wav stdin.wav
printf '[{"speaker": "1", "text": "Good morning."}, {"speaker": 2, "text": "Good day."}]' >two.json
run "${speak[@]}" two.json "${voices[@]}" -o json.wav
ok json_script_equals_text cmp one.wav json.wav
run "${speak[@]}" --text "$(cat two.txt)" "${voices[@]}" -o text.wav
ok text_option_equals_file cmp one.wav text.wav
VIBEVOICE_TXT_PATH=two.txt VIBEVOICE_VOICE_FILES=$'a.wav\nb.wav' run "${speak[@]}" -o env.wav
ok environment_equals_command_line cmp one.wav env.wav
printf '%s\n' --txt_path two.txt --voice_files a.wav b.wav --output opts.wav >opts
run "${speak[@]}" --options opts
ok options_file_equals_command_line cmp one.wav opts.wav
run --model_file "$model/model.safetensors" --config "$model/config.json" --ddpm_steps=2 \
    --max_frames 3 --txt_path two.txt --voice_files a.wav b.wav --attn_implementation sdpa \
    --device cpu --dtype bf16 --out old.wav
ok spellings_of_old cmp one.wav old.wav

# Streams.
run "${speak[@]}" two.txt "${voices[@]}" -o - --format raw
tail -c +45 one.wav >one.raw
ok raw_to_stdout cmp one.raw out
rc=0
"$vibe" "${speak[@]}" two.txt "${voices[@]}" -o - 2>err | cat >stream.wav || rc=1
tail -c +45 stream.wav >stream.raw
ok wav_to_a_pipe cmp one.raw stream.raw

# Messages.
run "${speak[@]}" two.txt -o p.wav --progress json
ok progress_json grep -qE '^\{"progress":\{"index":1,"count":1,"frames":3,"seconds":0.400,"wall_s":[0-9.]+\}\}$' err
run -vv "${speak[@]}" two.txt -o p.wav
ok very_verbose_names_each_frame test "$(grep -cE '^vibevoice: two.txt: 0.[0-9]+ s spoken at ' err)" = 3
if script -qec true typescript >/dev/null 2>&1 </dev/null; then
    TERM=xterm script -qec "'$vibe' -m '$model' --steps 200 --max-frames 8 -y two.txt -o p.wav" typescript >/dev/null </dev/null
    ok bar_on_a_terminal grep -q 'two.txt: reading [0-9]* tokens of prompt' typescript
    ok bar_is_erased grep -qP '\r\e\[Kvibevoice: ' typescript
else
    skip bar_on_a_terminal "needs script and a terminal"
fi

# One warning is enough for a file of no speech.
run -m "$model" --text hi --max-length-times 0.001 -o none.wav
ok no_speech_is_said_once test "$rc" = 0 -a "$(grep -c warning err)" = 1
ok no_speech_is_said grep -qxF \
    "vibevoice: warning: none.wav: holds no speech: the length cap ended it" err

# JSON.
run --json "${speak[@]}" two.txt "${voices[@]}" -o j.wav
for want in '"file":"j.wav"' '"script":"two.txt"' '"seconds":0.4' '"frames":3' '"seed":42' \
    '"cfg_scale":1.3' '"steps":2' '"finish":"max_length"' '"warnings":\["the length cap'; do
    ok "json_says_${want//[^a-z0-9]/}" grep -q "$want" out
done
ok json_is_one_line test "$(wc -l <out)" = 1

# Control strings in a script are text.
run -m "$model" --dump-tokens --text '<|vision_start|> hi'
ok dump_tokens test "$rc" = 0
ok dump_tokens_has_id_and_text sh -c '! grep -qvP "^\d+\t(\".*\"|<voice>)$" out'
n_plain=$(grep -cP '^470\t' out)
run -m "$model" --dump-tokens --text 'hi'
ok control_strings_are_no_tokens test "$(grep -cP '^470\t' out)" = "$n_plain"
run -m "$model" --dump-tokens two.txt "${voices[@]}"
# 0.4 s are 9,600 samples, three frames; b.wav is as long.
ok dump_tokens_marks_voices test "$(grep -c '<voice>' out)" = 6

# Looking into it.
run -m "$model" --info
ok info_counts_layers grep -qxE 'language model +4 layers, hidden 64, inner 160' out
run -m "$model" --info --json
ok info_as_json grep -q '"num_hidden_layers":4,' out
run "${speak[@]}" --text hi --dump-tensors t -o t.wav
ok dump_tensors test "$rc" = 0 -a -n "$(ls -A t)"
run -m "$model" --device cuda:63 --info
ok device_absent test "$rc" = 5 -a ! -s out
ok device_absent_is_named grep -q '^vibevoice: --device cuda:63: ' err
