#!/usr/bin/env bash
# --verify: exit 0 only if everything recorded is met.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

if [ -z "$model" ] || [ ! -e "$model/golden.safetensors" ]; then
    skip verify "no tiny model"
    exit 0
fi
cd "$tmp" || exit 1

run --model "$model" --verify "$model/golden.safetensors"
ok recorded_results_are_met test "$rc" = 0
ok every_tensor_has_its_bound grep -qE '^frame000.latent +[0-9.e+-]+ +[0-9.e+-]+ +[0-9.e+-]+  ok$' out
ok tokens_are_equal grep -qE '^tokens: ([0-9]+) of \1 equal' out
ok verdict_is_last test "$(tail -1 out | sed 's/.*: //')" = "all holds"

run --model "$model" --verify "$model/golden.safetensors" --json
ok json_verdict test "$(tail -1 out | grep -c '"failed":0,.*"ok":true}')" = 1

# Change one recorded number: its tensor, and only that, must fail.
cp "$model"/golden.* .
perl -e '
    open my $f, "+<", "golden.safetensors" or die;
    binmode $f;
    read $f, my $head, 8;
    my $n = unpack "Q<", $head;
    read $f, my $json, $n;
    $json =~ /"codec\.decode_oneshot":\{[^}]*"data_offsets":\[(\d+),/ or die;
    seek $f, 8 + $n + $1, 0;
    print $f pack("f<", 9);
'
run --model "$model" --verify golden.safetensors
ok a_difference_is_found test "$rc" = 1
ok a_difference_is_named grep -qE '^codec.decode_oneshot .*  FAILED$' out
ok a_difference_is_no_other test "$(grep -c '  FAILED$' out)" = 1

fails record_missing 3 "none.safetensors: No such file or directory" --model "$model" --verify none.safetensors
ok record_missing_has_no_table test ! -s out

# Token ids.
vectors=$root/tests/fixtures/qwen2.5/vectors.json
if [ -e "$vectors" ]; then
    run --tokenizer "${vectors%/*}" --verify "$vectors"
    ok recorded_ids_are_met test "$rc" = 0
    ok recorded_ids_are_counted grep -qE '^([0-9]+) of \1 vectors equal: all holds$' out
else
    skip recorded_ids_are_met "no recorded vectors"
fi
printf '[{"text": "a", "ids": [1]}]' >vectors.json
run --tokenizer "$model" --verify vectors.json
ok other_ids_are_found test "$rc" = 1
ok other_ids_are_shown grep -qF "vector 0 differs from id 0: a" out
