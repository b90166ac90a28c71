#!/usr/bin/env bash
# What goes wrong while speaking: exit status 1, and 6 for want of memory.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

if [ -z "$model" ]; then
    skip failures "no tiny model"
    exit 0
fi
cd "$tmp" || exit 1
for name in a b c; do printf 'Good morning to you.\n' >$name.txt; done
speak=(-m "$model" --steps 2 --max-frames 2)

# A folder where b's temporary file should be: found when b is spoken.
mkdir -p d/b_generated.part.wav
run "${speak[@]}" a.txt b.txt c.txt -d d
ok one_of_several_fails test "$rc" = 1
ok the_others_are_spoken test "$(frames_of d/a_generated.wav)$(frames_of d/c_generated.wav)" = 22
ok the_others_are_printed test "$(cat out)" = "$(printf 'd/%s_generated.wav\n' a c)"
ok the_failure_is_said grep -q '^vibevoice: d/b_generated.part.wav: Is a directory$' err
ok the_sum_is_said test "$(tail -1 err)" = "vibevoice: 2 done, 1 failed, 0 skipped"
run "${speak[@]}" b.txt -d d
ok alone_it_is_an_output_error test "$rc" = 4
run --json "${speak[@]}" a.txt b.txt -d d
ok json_has_a_line_for_each test "$(grep -c '^{"file":"d/a_gen' out)$(grep -c '^{"error":{"code":4,' out)" = 11

# Weights that make no sound: a NaN in the last layer of the decoder.
mkdir nan
cp "$model"/*.json "$model"/merges.txt "$model"/model.safetensors nan/
perl -e '
    open my $f, "+<", "nan/model.safetensors" or die;
    binmode $f;
    read $f, my $head, 8;
    my $n = unpack "Q<", $head;
    read $f, my $json, $n;
    my ($name) = $json =~ /"(model\.acoustic_tokenizer\.decoder\.head\.[^"]*bias)"/ or die;
    $json =~ /"\Q$name\E":\{[^}]*"data_offsets":\s*\[(\d+),/ or die;
    seek $f, 8 + $n + $1, 0;
    print $f pack("v", 0x7fc0);
'
run -m nan --steps 2 a.txt -o nan.wav
ok nan_is_a_failure test "$rc" = 1
ok nan_is_said_in_a_sentence test "$(wc -l <err)" = 1
ok nan_leaves_nothing test ! -e nan.wav -a ! -e nan.part.wav

# Ten minutes less a second of voice are 76 MB at 24 kHz.
if grep -q __asan_init "$vibe" || grep -q __tsan_init "$vibe"; then
    skip out_of_memory "sanitizers need memory of their own"
else
    wav long.wav 8000 599
    rc=0
    (ulimit -v 70000 && "$vibe" "${speak[@]}" a.txt -r long.wav -o long_out.wav) >out 2>err || rc=$?
    ok out_of_memory test "$rc" = 6
    ok out_of_memory_is_said grep -qE '^vibevoice: .*(memory|samples)' err
    ok out_of_memory_leaves_nothing test ! -e long_out.wav
fi
