#!/usr/bin/env bash
# Batches: manifests, names, what fails alone, resuming, shards.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

if [ -z "$model" ]; then
    skip batch "no tiny model"
    exit 0
fi
cd "$tmp" || exit 1
mkdir in solo
printf 'Speaker 1: Good morning.\nSpeaker 2: Good day.\n' >in/two.txt
printf 'A single voice.\n' >in/one.txt
printf '[{"speaker": 1, "text": "Some JSON."}]' >in/three.json
printf 'no script\n' >in/notes.md
wav a.wav 24000 0.4
wav b.wav 44100 0.4 9000 2
speak=(-m "$model" --steps 2 --max-frames 5)

# Each alone, to compare with.
for script in in/two.txt in/one.txt in/three.json; do
    name=$(basename "$script")
    run "${speak[@]}" "$script" -o "solo/${name%.*}.wav"
done
run "${speak[@]}" in/two.txt -r a.wav b.wav --seed 7 --cfg-scale 2 -o solo/voiced.wav

# A folder, a pattern, a manifest, standard input.
run "${speak[@]}" --batch in -d folder
ok folder test "$rc" = 0 -a "$(sort out | tr '\n' ' ')" = "folder/one.wav folder/three.wav folder/two.wav "
ok neighbours_change_nothing sh -c 'cmp solo/one.wav folder/one.wav && cmp solo/two.wav folder/two.wav && cmp solo/three.wav folder/three.wav'
run "${speak[@]}" --batch 'in/*.txt' -o 'pattern/x-{stem}-{seed}.wav'
ok pattern test "$rc" = 0 -a "$(echo pattern/*.wav)" = "pattern/x-one-42.wav pattern/x-two-42.wav"
cat >jobs.jsonl <<'END'
# a comment, and a blank line

{"id": "first", "txt_path": "in/two.txt", "voice_files": ["a.wav", "b.wav"], "seed": 7, "cfg_scale": 2}
{"txt_path": "in/one.txt", "steps": 2, "output": "man/other.wav"}
{"id": "third", "text": "A single voice."}
END
run "${speak[@]}" --batch jobs.jsonl --output 'man/{id}.wav' --batch-size 2
ok manifest test "$rc" = 0 -a "$(wc -l <out)" = 3
ok manifest_has_its_options cmp solo/voiced.wav man/first.wav
ok manifest_names_a_file cmp solo/one.wav man/other.wav
ok manifest_has_texts cmp solo/one.wav man/third.wav
rc=0
"$vibe" "${speak[@]}" --batch - -d stdin <jobs.jsonl >out 2>err || rc=$?
ok manifest_from_stdin cmp solo/voiced.wav stdin/first.wav
printf '\xEF\xBB\xBF{"txt_path": "in/one.txt"}\r\n\r\n' >windows.jsonl
run "${speak[@]}" --batch windows.jsonl -d windows
ok manifest_from_windows cmp solo/one.wav windows/one.wav
run "${speak[@]}" --batch in -d one --batch-size 1
ok one_at_a_time cmp folder/two.wav one/two.wav
run "${speak[@]}" in/one.txt --takes 3 -o t.wav
ok takes_have_seeds test "$(echo t.*.wav)" = "t.s42.wav t.s43.wav t.s44.wav"
ok first_take_is_the_usual cmp t.s42.wav solo/one.wav
ok takes_differ sh -c '! cmp -s t.s42.wav t.s43.wav'
run "${speak[@]}" in/one.txt --seed 43 -o t43.wav
ok second_take_is_the_next_seed cmp t.s43.wav t43.wav
run "${speak[@]}" in/one.txt in/two.txt --takes 2 -o 'k/{id}.{take}.wav'
ok template_needs_its_folder test "$rc" = 4
run "${speak[@]}" --batch in -d folder --report in/report.json --trace in/trace.json
run "${speak[@]}" --batch in -d folder --report in/report.json --trace in/trace.json
ok what_a_run_leaves_is_no_script test "$rc" = 0 -a "$(wc -l <out)" = 3
rm in/report.json in/trace.json
run "${speak[@]}" --batch in -d dry --report dry/report.json --dry-run
ok dry_run test "$rc" = 0 -a "$(wc -l <out)" = 3 -a ! -e dry

# What is wrong with a manifest is found before anything runs.
broken() { # NAME SENTENCE LINE
    printf '{"text": "fine", "id": "fine"}\n%s\n' "$3" >bad.jsonl
    fails "$1" 3 "$2" "${speak[@]}" --batch bad.jsonl -d bad
}
broken unknown_key 'bad.jsonl:2: unknown key "voces"; did you mean "voices"?' '{"text": "x", "voces": []}'
broken unlike_any_key 'bad.jsonl:2: unknown key "colour"' '{"text": "x", "colour": 1}'
broken wrong_type 'bad.jsonl:2: "steps": expected a whole number from 1 to 1000, found "ten"' \
    '{"text": "x", "steps": "ten"}'
broken out_of_range 'bad.jsonl:2: "cfg_scale": expected a number from 0 to 10, found 11' \
    '{"text": "x", "cfg_scale": 11}'
broken no_script 'bad.jsonl:2: expected one of "txt_path" and "text", found neither' '{"id": "x"}'
broken two_scripts 'bad.jsonl:2: expected one of "txt_path" and "text", found both' \
    '{"txt_path": "x", "text": "x"}'
broken two_casts 'bad.jsonl:2: expected one of "voice_files" and "voices", found both' \
    '{"text": "x", "voices": [], "voice_files": []}'
broken no_object 'bad.jsonl:2: expected a JSON object on one line' '[1]'
fails no_lines 3 '/dev/zero:1: a line of more than 16 MiB, expected a JSON object' \
    "${speak[@]}" --batch /dev/zero -d bad
broken id_with_a_slash "bad.jsonl:2: \"id\": expected a name without '/' or a leading '.', found \"../x\"" \
    '{"id": "../x", "text": "x"}'
broken same_id 'bad.jsonl:1 and bad.jsonl:2 have the same id "fine"' '{"id": "fine", "text": "x"}'
broken too_large_a_number "bad.jsonl:2: \"seed\": expected a smaller number: too big integer near '99999999999999999999'" \
    '{"text": "x", "seed": 99999999999999999999}'
broken unknown_word "bad.jsonl:2: \"output\": '{sede}' is not one of {id}, {stem}, {seed}, {take}, {index}" \
    '{"text": "x", "output": "{sede}.wav"}'
printf '{"text": "x", "output": "other.wav"}\n{"text": "y", "output": "same.wav"}\n{"text": "z", "output": "./same.wav"}\n' >bad.jsonl
fails same_output 2 "bad.jsonl:2 and bad.jsonl:3 would both be written to ./same.wav" \
    "${speak[@]}" --batch bad.jsonl
mkdir -p there && ln -sfn there link
for path in there/../same.wav nowhere/../same.wav "$PWD/same.wav" link/../same.wav; do
    printf '{"text": "y", "output": "same.wav"}\n{"text": "z", "output": "%s"}\n' "$path" >bad.jsonl
    fails "same_output_as_${path/#$PWD/}" 2 "bad.jsonl:1 and bad.jsonl:2 would both be written to $path" \
        "${speak[@]}" --batch bad.jsonl
done
printf '{"text": "y", "output": "same.part.wav"}\n{"text": "z", "output": "link/../same.wav"}\n' >bad.jsonl
fails grows_under_the_name_of_another 2 "bad.jsonl:1 and bad.jsonl:2 would both be written to link/../same.part.wav" \
    "${speak[@]}" --batch bad.jsonl
ok nothing_was_made test ! -e bad -a ! -e same.wav
broken output_of_no_kind 'bad.jsonl:2: "output": x.xyz: unknown extension '"'.xyz' (have wav, flac, ogg, opus, mp3, raw)" \
    '{"text": "x", "output": "x.xyz"}'
printf '{"text": "x", "output": "/proc/none/x.wav"}\n' >bad.jsonl
fails output_without_folder 4 'bad.jsonl:1: "output": /proc/none: No such file or directory' \
    "${speak[@]}" --batch bad.jsonl
printf '{"text": "x", "output": "a.wav", "voices": ["a.wav"]}\n' >bad.jsonl
fails output_is_a_voice 2 'bad.jsonl:1: "output": a.wav is a voice of this run' \
    "${speak[@]}" --batch bad.jsonl
printf '{"text": \n' >bad.jsonl
run "${speak[@]}" --batch bad.jsonl
ok torn_line_is_named grep -q '^vibevoice: bad.jsonl:1: expected a JSON object on one line: ' err
mkdir empty
fails folder_without_scripts 3 "--batch: 'empty' has no scripts" "${speak[@]}" --batch empty
fails batch_missing 3 "none.jsonl: No such file or directory" "${speak[@]}" --batch none.jsonl
fails batch_and_script 2 "--batch cannot be combined with --txt-path" "${speak[@]}" --batch in in/one.txt
fails batch_into_one_file 2 "--output takes one script; use --output-dir for 3" "${speak[@]}" --batch in -o x.wav
fails shard_of_none 2 "--shard: '3/2' is not auto or I/N, as in 1/4" "${speak[@]}" --batch in --shard 3/2
fails shard_without_slurm 2 "--shard auto: SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT are not set" \
    "${speak[@]}" --batch in --shard auto

# A script that is no good fails alone.
cat >some.jsonl <<'END'
{"id": "good", "txt_path": "in/one.txt"}
{"id": "absent", "txt_path": "absent.txt"}
{"id": "voiceless", "txt_path": "in/two.txt", "voices": ["a.wav"]}
{"id": "noise", "txt_path": "in/one.txt", "voices": ["in/one.txt"]}
{"id": "twice", "txt_path": "in/one.txt", "voice_files": ["1=a.wav", "1=b.wav"]}
{"id": "also good", "txt_path": "in/three.json"}
END
run "${speak[@]}" --batch some.jsonl -d some --report some.json
ok others_go_on test "$rc" = 1 -a "$(sort out)" = $'some/also good.wav\nsome/good.wav'
ok each_failure_has_its_sentence test "$(grep -cE '^vibevoice: some.jsonl:[2-5]: (absent.txt: No such|in/two.txt: script has 2 speakers|in/one.txt: Format|"voice_files": speaker 1 has two voices, a.wav and b.wav$)' err)" = 4
ok the_sum_is_said test "$(tail -1 err)" = "vibevoice: 2 done, 4 failed, 0 skipped"
ok report_has_all test "$(grep -c '"status": "failed"' some.json)$(grep -c '"status": "done"' some.json)" = 42
for i in 1 2 3 4 5 6; do
    echo "{\"text\": \"Number $i.\", \"id\": \"n$i\"}"
done >six.jsonl
run "${speak[@]}" --batch six.jsonl -d six --report six.json --device auto
if grep -q '"device": "CPU' six.json; then
    ok four_at_once_on_a_cpu_that_was_found grep -q '"batch_size": 4' six.json
else
    skip four_at_once_on_a_cpu_that_was_found "there is a GPU"
fi
ok the_rate_of_all_is_said grep -qE "^vibevoice: in all [0-9.]+ s of speech in [0-9.]+ s, [0-9.]+ x real time, [0-9.]+ frames/s$" err
ok report_has_totals grep -q '"frames_per_s": [0-9.]*,' some.json
run "${speak[@]}" --batch some.jsonl -d fast --fail-fast
ok fail_fast_stops test "$rc" = 1 -a ! -s out

# Resuming: what is done stays, what is not or has changed is spoken.
run "${speak[@]}" --batch some.jsonl -d some --resume
ok resume_skips_what_is_done test "$rc" = 1 -a ! -s out
ok resume_says_so test "$(tail -1 err)" = "vibevoice: 0 done, 4 failed, 2 skipped"
rm some/good.wav
run "${speak[@]}" --batch some.jsonl -d some --resume
ok resume_does_the_rest test "$(cat out)" = some/good.wav
cp in/two.txt absent.txt
sed -i 's/three.json/two.txt/' some.jsonl
run "${speak[@]}" --batch some.jsonl -d some --resume
ok resume_sees_changes test "$(sort out)" = $'some/absent.wav\nsome/also good.wav'
ok resume_warns_of_changes grep -qxF "vibevoice: warning: some/also good.wav: was spoken otherwise before; it is spoken again" err
ok resumed_is_the_same cmp some/absent.wav solo/two.wav
mkdir bytes in_bytes
for byte in 344 366; do # two letters of Latin-1, alike where '?' stands for them
    printf 'A single voice.\n' >"in_bytes/h$(printf '%b' "\\0$byte").txt"
done
run "${speak[@]}" --batch in_bytes -d bytes
rm "$(printf 'bytes/h\344.wav')"
run "${speak[@]}" --batch in_bytes -d bytes --resume
ok resume_knows_names_of_any_bytes test "$rc$(cat out)" = "0$(printf 'bytes/h\344.wav')"
printf '{"file":"some/good.wav","sta' >>some/some.state.jsonl
run "${speak[@]}" --batch some.jsonl -d some --resume
ok torn_state_is_mended test "$(tail -1 err)" = "vibevoice: 0 done, 3 failed, 3 skipped"
rm some/good.wav
run "${speak[@]}" --batch some.jsonl -d some --resume
run "${speak[@]}" --batch some.jsonl -d some --resume
ok lines_after_a_torn_one_count test ! -s out
mv absent.txt away.txt
run "${speak[@]}" --batch some.jsonl -d some --resume --report some.json
ok what_fails_now_has_no_seconds_of_before test "$(grep -c '"seconds": 0.0' some.json)" = 1
mv away.txt absent.txt
ln -s /dev/zero some/some.zero.state.jsonl
fails state_without_lines 4 "some/some.zero.state.jsonl: a line of more than 1 MiB, expected the state of a batch" \
    "${speak[@]}" --batch some.jsonl -d some --resume
fails resume_needs_a_seed 2 "--resume needs the --seed of the earlier run, not one drawn now" \
    "${speak[@]}" --batch in -d x --seed -1 --resume

# Shards: each script in one of them, and again the same.
for i in 1 2; do
    run "${speak[@]}" --batch in -d "shards[1]" --shard $i/2
    ok "shard_$i" test "$rc" = 0
done
ok shards_make_the_whole diff <(cd "shards[1]" && cksum ./*.wav) <(cd folder && cksum ./*.wav)
run "${speak[@]}" --batch in -d "shards[1]" --shard 9/9
ok shard_without_scripts grep -qx "vibevoice: part 9 of 9 has none of 3 files" err
run "${speak[@]}" --batch in -d "shards[1]" --resume
ok the_whole_knows_its_shards test ! -s out
rm -r "shards[1]"
for i in 3 5; do
    SLURM_ARRAY_TASK_ID=$i SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_MIN=3 SLURM_ARRAY_TASK_STEP=2 \
        run "${speak[@]}" --batch in -d shards --shard auto
done
ok slurm_shards_make_the_whole diff <(cd shards && cksum ./*.wav) <(cd folder && cksum ./*.wav)
exec 9>>shards/in.state.jsonl
flock 9
fails two_runs_of_one_batch 4 "shards/in.state.jsonl: another run is speaking this batch" \
    "${speak[@]}" --batch in -d shards
exec 9>&-

# Parts of a long script: the same however often it is interrupted.
printf 'Speaker 1: Good morning to all of you.\nSpeaker 2: Good day.\nSpeaker 1: And good night.\n' >long.txt
long=("${speak[@]}" --max-frames 12 long.txt -r a.wav b.wav --chunk-minutes 0.03)
run "${long[@]}" -o long.wav
ok parts_make_one_file test "$rc" = 0 -a "$(cat out)" = long.wav
ok no_part_is_left test -z "$(find . -name '*part*')"
run "${long[@]}" -o - --format raw
ok parts_as_a_stream cmp <(tail -c +45 long.wav) out
run "${speak[@]}" --max-frames 12 long.txt -r a.wav b.wav -o whole.wav
ok parts_start_afresh sh -c '! cmp -s long.wav whole.wav'
# Stopped in the second part: the first one is there, and is not spoken again.
rc=0
"$vibe" "${long[@]}" --steps 120 -o cut.wav >out 2>err &
pid=$!
for ((tries = 0; tries < 1000; tries++)); do
    ls cut.part-*-002.part.wav >/dev/null 2>&1 && break
    sleep 0.01
done
kill -9 $pid
wait $pid 2>/dev/null || rc=$?
ok killed_in_the_second_part test "$rc" = 137 -a ! -e cut.wav -a -e "$(echo cut.part-*-001.wav)"
run "${long[@]}" --steps 120 -o cut.wav --resume
ok resumes_after_the_first_part grep -qxF 'vibevoice: cut.wav: goes on with part 2 of 2' err
run "${long[@]}" --steps 120 -o uncut.wav
ok resumed_parts_are_the_same cmp cut.wav uncut.wav

# Killed at some moments and resumed, a batch has the same files.
for pause in 0.1 0.25 0.4; do
    "$vibe" "${speak[@]}" --batch jobs.jsonl -o 'killed/{id}.wav' --resume >out 2>err &
    sleep $pause
    kill -9 $! 2>/dev/null
    wait $! 2>/dev/null
done
run "${speak[@]}" --batch jobs.jsonl -o 'killed/{id}.wav' --resume
ok killed_and_resumed cmp man/first.wav killed/first.wav
ok killed_and_resumed_too cmp man/third.wav killed/third.wav

# Ctrl-C and a closed terminal keep what is done, and leave the rest.
stop() { # SIGNAL
    perl -e '$SIG{HUP} = "DEFAULT"; exec @ARGV' \
        "$vibe" "${speak[@]}" --steps 120 --batch in -d stopped --report stopped.json >out 2>err &
    local pid=$! tries
    for ((tries = 0; tries < 1000; tries++)); do
        [ -n "$(find stopped -name '*.part.wav' -size +8k 2>/dev/null)" ] && break
        sleep 0.01
    done
    rc=0
    kill "-$1" $pid
    wait $pid 2>/dev/null || rc=$?
}
stop HUP
ok hung_up_batch test "$rc" = 129
ok hung_up_batch_is_reported grep -q '"finish": "interrupted"' stopped.json
rm -r stopped
stop INT
ok interrupted_batch test "$rc" = 130
run "${speak[@]}" --steps 120 --batch in -d stopped --resume
ok interrupted_batch_resumes test "$rc" = 0 -a "$(echo stopped/*.wav)" = "stopped/one.wav stopped/three.wav stopped/two.wav"

# Two engines over one queue.
run "${speak[@]}" --batch in -d replicas --devices cpu,cpu --replicas --batch-size 1
ok replicas test "$rc" = 0 -a "$(tail -1 err)" = "vibevoice: 3 done, 0 failed, 0 skipped"
ok replicas_change_nothing diff <(cd replicas && cksum ./*.wav) <(cd folder && cksum ./*.wav)
fails replica_unknown 2 "--devices: 'gpu' is not a GPU's number, cuda:N or cpu" \
    "${speak[@]}" --batch in -d x --devices cpu,gpu --replicas
run "${speak[@]}" --batch in -d x --devices cpu,63 --replicas
ok replica_absent test "$rc" = 5
ok replica_absent_is_named grep -q '^vibevoice: --device cuda:63: ' err
