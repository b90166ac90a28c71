#!/usr/bin/env bash
# --test-speed: how long frames take, and what of.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

[ -n "$model" ] || { skip speed "no tiny model"; exit 0; }

fails beyond_the_positions 2 "9000 frames after 0 tokens do not fit in 8192" \
    -m "$model" --test-speed --frames 9000
run -m "$model" --test-speed --frames 3 --steps 2
ok times_frames test "$rc" = 0
for stage in lm head decoder semantic connectors host frame; do
    ok "times_$stage" grep -qE "^$stage +[0-9]+\.[0-9]{3}" "$tmp/out"
done
ok probes_the_bandwidth grep -qE '^read bandwidth [0-9.]+ GB/s \(probed\)' "$tmp/out"
ok says_what_memory_is_used grep -qE '^device memory: [0-9]+ MB of [1-9][0-9]* MB in use by all$' "$tmp/out"

run -m "$model" --test-speed --frames 3 --steps 2 --json
ok json_is_one_line test "$(wc -l <"$tmp/out")" = 1
for key in stages host_ms frame_ms bytes bandwidth link_bytes bound_ms of_bound rtf \
    vram_peak_bytes vram_first_bytes vram_last_bytes memory_used_bytes \
    memory_total_bytes energy_j; do
    ok "json_has_$key" grep -q "\"$key\":" "$tmp/out"
done

# A frame of n steps reads more of the head, and nothing more of the others.
bytes_of() { grep -o "\"$1\":{\"ms\":[^,]*,\"bytes\":[0-9]*" "$tmp/out" | sed 's/.*://'; }
head_2=$(bytes_of head)
lm_2=$(bytes_of lm)
run -m "$model" --test-speed --frames 3 --steps 4 --json
ok more_steps_read_more_of_the_head test "$(bytes_of head)" -gt "$head_2"
ok steps_do_not_concern_the_lm test "$(bytes_of lm)" = "$lm_2"

# --benchmark on the CPU has one point: everything is in the memory of the host.
run -m "$model" --device cpu --benchmark --frames 2 --steps 2 -R 2
ok benchmark test "$rc" = 0
ok benchmark_is_a_table grep -qE '^\| +[0-9.]+ of +[0-9]+ \|.* [0-9.]+ \+- +[0-9.]+ \|' "$tmp/out"
ok benchmark_of_a_cpu_has_one_row test "$(grep -c ' of ' "$tmp/out")" = 1
run -m "$model" --device cpu --benchmark --frames 2 --steps 2 -R 2 --bench-format csv
ok csv_has_a_head_and_a_line test "$(wc -l <"$tmp/out")" = 2
ok csv_has_as_many_fields_as_names test "$(head -n 1 "$tmp/out" | tr -cd , | wc -c)" = \
    "$(tail -n 1 "$tmp/out" | tr -cd , | wc -c)"
ok csv_leaves_an_unknown_bound_empty grep -qE '^[0-9.]+,.*,,[0-9.]+$' "$tmp/out"
run -m "$model" --device cpu --benchmark --frames 2 --steps 2 -R 1 --prompt 20 --batch-size 2 --json
ok benchmark_times_several_dialogues grep -q '"dialogues":2,' "$tmp/out"
ok benchmark_times_a_prompt grep -qE '"prompt_s":[0-9.]+[,}]' "$tmp/out"
run -m "$model" --device cpu --benchmark --frames 2 --steps 2 -R 1 --bench-format json
ok json_is_an_array grep -qE '^\[\{.*"frame_ms":[0-9.]+.*\}\]$' "$tmp/out"
run -m "$model" --device cpu --benchmark --frames 2 --steps 2 -R 1 --json
ok jsonl_is_an_object grep -qE '^\{.*"frame_ms":[0-9.]+.*\}$' "$tmp/out"
fails unknown_bench_format 2 "--bench-format: 'xml' is not one of md, csv, json, jsonl" \
    -m "$model" --benchmark --bench-format xml
