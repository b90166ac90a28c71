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
for key in stages host_ms frame_ms bytes bandwidth bound_ms of_bound rtf \
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
