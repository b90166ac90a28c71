#!/usr/bin/env bash
# --trace: a timeline that viewers of Chrome's format open.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

[ -n "$model" ] || { skip trace "no tiny model"; exit 0; }
cd "$tmp" || exit 1
speak=(-m "$model" --text hello --max-frames 3 --steps 2 --max-length-times 100)

fails folder_is_missing 4 "none/t.json: No such file or directory" \
    "${speak[@]}" -o x.wav --trace none/t.json
ok nothing_was_spoken test ! -e x.wav

# times NAME: spans of that name
times() { grep -c "\"ph\":\"X\".*\"name\":\"$1\"" t.json; }

run "${speak[@]}" -o x.wav --trace t.json
ok speaks_the_same test "$rc" = 0

for stage in lm head decoder semantic connectors; do
    ok "has_each_frame_of_$stage" test "$(times $stage)" -ge 3
done
ok has_the_prompt test "$(times prompt)" -ge 1
ok has_the_host test "$(times launch)" -ge 3
ok has_what_is_written test "$(times write)" = 3
ok has_the_model_loaded test "$(times load)" = 1
ok counts_memory grep -q '"ph":"C".*"name":"device memory, bytes"' t.json
ok leaves_no_part test ! -e t.json.part

run -m "$model" --test-speed --frames 4 --steps 2 --trace s.json
ok traces_test_speed test "$rc" = 0 -a "$(grep -c '"name":"decoder"' s.json)" -ge 6

fails failed_run_is_traced_too 3 "none.txt: No such file or directory" \
    -m "$model" none.txt --trace f.json
ok failed_run_has_a_file test -s f.json

# Stages follow each other: none begins before the one before it has ended.
if command -v perl >/dev/null; then
    # shellcheck disable=SC2016
    ok stages_follow_each_other perl -ne '
        next unless /"ph":"X".*"ts":(-?[0-9.]+),"dur":([0-9.]+),"tid":2/;
        exit 1 if defined $end && $1 < $end - 0.01;
        $end = $1 + $2;
    ' t.json
fi

# Gaps between frames, as a script of ours reads them.
if command -v python3 >/dev/null; then
    run_gaps() { python3 "$root/scripts/frame_gaps" "$1" >out 2>err; }
    ok gaps_are_found run_gaps t.json
    ok gaps_are_counted grep -qE '^[0-9]+ frames, median [0-9.]+$' out
else
    skip gaps_are_found "needs python3"
fi
