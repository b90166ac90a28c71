#!/usr/bin/env bash
# --plan and --print-table: what would be where, without loading anything.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

if [ -z "$model" ]; then
    skip plan "no tiny model here"
    exit 0
fi

run --plan --model "$model"
ok plan_on_a_cpu_needs_no_gpu test "$rc" = 0
ok plan_says_where_it_all_is grep -q "^CPU.*: everything is in the memory of the host$" "$tmp/out"
run --plan --model "$model" --json
ok plan_is_one_object test "$(wc -l <"$tmp/out")" = 1
ok plan_counts_the_layers grep -q '"layers":4,"gpu_layers":4.0' "$tmp/out"
ok plan_streams_nothing grep -q '"streamed_bytes":0' "$tmp/out"

# Residency is a matter of arithmetic, and that works on a CPU, too.
layers_of() { # ARGS...; prints how many of the four layers stay
    run --plan --model "$model" --json "$@"
    sed -E 's/.*"gpu_layers":([0-9.]*).*/\1/' "$tmp/out"
}
ok layers_all test "$(layers_of -ngl all)" = 4.0
ok layers_more_than_there_are test "$(layers_of -ngl 99)" = 4.0
ok layers_two test "$(layers_of --num_gpu_layers 2)" = 2.0
ok layers_none test "$(layers_of --num-gpu-layers=0)" = 0.0
ok layers_by_environment test "$(VIBEVOICE_NUM_GPU_LAYERS=2 layers_of)" = 2.0
ok preset_is_a_share test "$(layers_of --preset HIGH-END)" = 4.0
ok config_may_be_a_preset test "$(layers_of --config moderate | cut -c1-4)" = 2.28
ok config_may_be_a_file test "$(layers_of --config "$model/config.json")" = 4.0

# Longer dialogues are planned for longer.
kv_of() {
    run --plan --model "$model" --json "$@"
    sed -E 's/.*"kv_bytes":([0-9]*).*/\1/' "$tmp/out"
}
short=$(kv_of --text "Speaker 1: Hello." --max-frames 10)
long=$(kv_of --text "Speaker 1: $(printf 'Hello there. %.0s' {1..100})")
ok a_long_script_needs_more_keys test "$long" -gt "$short"
half=$(kv_of --kv-dtype bf16)
ok float8_keys_take_half test "$(kv_of --kv-dtype fp8)" -lt $((half * 55 / 100))
run --plan --model "$model" --json --kv-dtype fp8
ok the_plan_names_the_dtype_of_keys grep -q '"kv_dtype":"F8_E4M3"' "$tmp/out"
run --plan --model "$model" --json --device cpu --dtype int4
ok keys_on_a_cpu_stay_float32 grep -q '"kv_dtype":"F32"' "$tmp/out"
fails keys_are_not_int4 2 \
    "--kv-dtype: 'int4' is not one of bfloat16, float8_e4m3fn, float32, auto" \
    --plan --model "$model" --kv-dtype int4
fails a_bad_script_is_named 3 "$tmp/none.txt: No such file or directory" \
    --plan --model "$model" "$tmp/none.txt"

run --print-table --model "$model"
ok table test "$rc" = 0
ok table_has_cards grep -q "3060 12G.*3080 10G.*4060Ti 16G" "$tmp/out"
ok table_goes_from_all_layers_to_none test "$(grep -c "as stored" "$tmp/out")" = 8
run --print-table --model "$model" --json
ok table_is_objects grep -q '^{"weights":"as stored","gpu_layers":4.0,' "$tmp/out"

# A GPU keeps keys and values beside int4 in float8, unless asked otherwise.
total_of() { # WEIGHTS ARGS...; prints the bytes of all layers' row
    local weights=$1
    shift
    run --print-table --model "$model" --json "$@"
    grep -F "{\"weights\":\"$weights\"," "$tmp/out" | sed -nE '1s/.*"total_bytes":([0-9]*).*/\1/p'
}
auto=$(total_of int4)
ok keys_beside_int4_are_float8 test "$auto" = "$(total_of int4 --kv-dtype fp8)"
ok keys_beside_int4_are_as_asked test "$auto" -lt "$(total_of int4 --kv-dtype bf16)"
ok keys_beside_int8_are_bf16 test "$(total_of int8)" = "$(total_of int8 --kv-dtype bf16)"
ok keys_beside_what_is_made_int4_are_float8 test \
    "$(total_of "as stored" --dtype int4)" -lt "$(total_of "as stored" --dtype int4 --kv-dtype bf16)"

# What was done is told as it was planned.
run --model "$model" --text Hello --max-frames 3 -o "$tmp/x.wav" -ngl 2 --stats
ok streaming_is_announced grep -q "vibevoice: 2 of 4 layers stay, as asked; the rest is streamed" "$tmp/err"
# rows go in units of 64, of which the tiny model has few
ok stats_count_layers grep -qE "^layers   1.[5-9] of 4 resident, .* chunks \(direct\)$" "$tmp/err"
ok stats_count_transfers grep -qE "^link     [1-9][0-9]* transfers, " "$tmp/err"
run --model "$model" --text Hello --max-frames 3 -o "$tmp/y.wav" --profile --json -q
ok stats_are_an_object grep -q '^{"stats":{"layers":4,"gpu_layers":4.0,"path":"resident",' "$tmp/out"
ok profile_tells_each_layer grep -q '"by_layer":\[{"resident_bytes":' "$tmp/out"
ok residency_is_inaudible cmp "$tmp/x.wav" "$tmp/y.wav"

# The CPU may multiply some of what does not stay; here it rounds alike.
run --model "$model" --text Hello --max-frames 3 -o "$tmp/c.wav" -ngl 0 --cpu-layers 3 --stats
ok the_share_is_told grep -qE "the CPU multiplies [1-9][0-9]* % of the [0-9.]+ MiB that do not stay$" "$tmp/err"
ok a_share_of_the_cpu_sounds_the_same cmp "$tmp/x.wav" "$tmp/c.wav"
ok stats_count_the_share grep -qE "^cpu      [0-9.]+ MiB multiplied by the CPU" "$tmp/err"
run --model "$model" --text Hello --max-frames 3 -o "$tmp/c.wav" -ngl 2 --hybrid
ok a_measured_share_is_told grep -qE "do not stay \(measured: [0-9.]+ GB/s beside a link of " "$tmp/err"

# Layers may be split among devices; two times the CPU will do.
run --model "$model" --text Hello --max-frames 3 -o "$tmp/z.wav" -q --devices cpu,cpu
ok a_split_model_sounds_the_same cmp "$tmp/x.wav" "$tmp/z.wav"
run --plan --model "$model" --json -ngl 2
ok the_plan_names_the_way grep -qE '"path":"(direct|pageable)"' "$tmp/out"
run --plan --model "$model" --devices cpu,cpu
ok the_plan_knows_a_split grep -qE "^before +[0-9.]+ MiB +layers 0 to 1, on CPU" "$tmp/out"
run --plan --model "$model" --devices cpu,cpu --json
ok the_plan_counts_both_parts grep -qE '"layers":2,.*"fronts":\[\{"device":"CPU.*","layers":2,' "$tmp/out"
fails replicas_need_devices 2 "--replicas needs --devices" --text x --model "$model" --replicas
fails split_takes_one_kind 2 \
    "--devices: a model is split among devices of one kind; --replicas takes others" \
    --text x --model "$model" --devices 0,cpu

# The bytes of the published models, without their weights.
if ! command -v python3 >/dev/null; then
    skip published_models "needs python3"
    exit 0
fi
for size in 1.5b 7b; do
    python3 scripts/make_synthetic --size $size --empty \
        --tokenizer "$model" "$tmp/$size" >/dev/null
    run --print-table --model "$tmp/$size"
    cp "$tmp/out" "$tmp/$size.table"
done
cells() { # SIZE LAYERS WEIGHTS; prints the rest of that row, blanks squeezed
    grep -E "^. +$2  $3 " "$tmp/$1.table" | sed -E 's/^.{20}//' | tr -s ' '
}
# 13.05 GB of layers, 2.6 of head and codec, 1.2 to 1.5 of everything else; the
# times are what those bytes take on the cards, 3060 and 3080; a card of 16 GB
# leaves programs 15.7 GiB, and one of 10 GB 9.78
ok large_model_takes grep -qE "(15.[789]|16.0) GiB 0 MiB [0-9-]+ - - - [23][0-9]$" <<<"$(cells 7b 28.0 'as stored')"
ok large_model_streams grep -qE "(10.[6789]|11.0) GiB 5.2 GiB [0-9-]+ 2[67][0-9] " <<<"$(cells 7b 16.0 'as stored')"
ok large_model_fits_in_float8 grep -qE "(9.[89]|10.0) GiB 0 MiB [0-9-]+ 5[5-9] - 7[0-9] " <<<"$(cells 7b 28.0 float8)"
ok a_cpu_streams_nothing test "$(awk '/as stored/ {print $7 != "-"}' "$tmp/7b.table" | sort -u)" = 1
ok small_model_fits_everywhere grep -qE "(4.[89]|5.[012]) GiB 0 MiB [0-9-]+ (1[89]|20) [0-9]+ [0-9]+ [0-9]+$" <<<"$(cells 1.5b 28.0 'as stored')"

# However chunks travel, the samples are the same, and clears are counted.
cp "$tmp/x.wav" "$tmp/direct.wav"
for how in "--ring-slots 1 --chunk-size 1" --no-prefetch --disable-async --no-pin-memory; do
    # shellcheck disable=SC2086
    run --model "$model" --text Hello --max-frames 3 -o "$tmp/y.wav" --overwrite -ngl 2 $how
    ok "the_same_with_${how//[- ]/_}" cmp -s "$tmp/y.wav" "$tmp/direct.wav"
done
run --model "$model" --text Hello --max-frames 3 -o "$tmp/y.wav" --overwrite -ngl 2 --stats --cache-clear-interval 2
ok clears_are_counted grep -qE "^clears   [1-9][0-9]* of the memory pool in " "$tmp/err"
run --model "$model" --text Hello --max-frames 3 -o "$tmp/y.wav" --overwrite -ngl 2 --stats --cache-clear-interval 0
ok clears_can_be_turned_off grep -q "^clears   0 of the memory pool in " "$tmp/err"
