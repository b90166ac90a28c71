#!/usr/bin/env bash
# Which device computes, and what is said when it cannot be had.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

# What this build and this machine have: three cases, each with its tests.
"$vibe" --version >"$tmp/version"
"$vibe" --list-devices >"$tmp/devices" 2>"$tmp/reason"
has_cuda=$(grep -c 'cuda [0-9]' "$tmp/version")
n_gpus=$(grep -c '^cuda:' "$tmp/devices")

# speak DEVICE: two frames with the tiny model
speak() {
    run -m "$model" --device "$1" --text hello --max-frames 2 --steps 1 \
        --max-length-times 100 -o "$tmp/x.wav"
}
notices() {
    grep -c 'computing on the CPU$' "$tmp/err"
}

run --version
ok version_says_what_was_built grep -qE \
    '^vibevoice [0-9.]+ \((no cuda|cuda [0-9]+\.[0-9]+: [^;]+); cpu:( [a-z0-9]+)+; sndfile [0-9.]+\)$' "$tmp/out"
run --list-devices
ok listing_devices_is_no_error test "$rc" = 0
ok the_cpu_is_a_device grep -qE '^cpu +CPU, .* GiB free$' "$tmp/out"
run --list-devices --json
ok devices_as_json grep -qE '^\{"device":"cpu".*"usable":true\}$' "$tmp/out"
fails device_is_unknown 2 \
    "--device: 'gpu' is not one of auto, cuda, cuda:N, cpu" --device gpu

if [ -z "$model" ]; then
    skip device_choice "no tiny model"
elif [ "$has_cuda" = 0 ]; then
    speak auto
    ok auto_without_cuda_is_no_news test "$rc" = 0 -a "$(notices)" = 0
    rm -f "$tmp/x.wav"
    fails cuda_without_cuda 5 "--device cuda: this build has no CUDA" \
        -m "$model" --device cuda --text hello -o "$tmp/x.wav"
elif [ "$n_gpus" = 0 ]; then
    reason=$(sed 's/^vibevoice: //' "$tmp/reason")
    ok no_gpu_has_one_reason test "$(wc -l <"$tmp/reason")" = 1 -a -n "$reason"
    speak auto
    ok auto_without_a_gpu_speaks test "$rc" = 0 -a -s "$tmp/x.wav"
    ok auto_without_a_gpu_says_so_once test "$(notices)" = 1
    ok auto_names_the_reason grep -qxF \
        "vibevoice: warning: $reason: computing on the CPU" "$tmp/err"
    rm -f "$tmp/x.wav"
    fails cuda_without_a_gpu 5 "--device cuda: $reason" \
        -m "$model" --device cuda --text hello -o "$tmp/x.wav"
    fails self_test_without_a_gpu 5 "--device cuda: $reason" --self-test --device auto
else
    speak auto
    ok auto_takes_the_gpu test "$rc" = 0 -a "$(notices)" = 0
    plural=s
    [ "$n_gpus" != 1 ] || plural=
    rm -f "$tmp/x.wav"
    fails gpu_that_is_not_there 5 "--device cuda:99: only $n_gpus GPU$plural" \
        -m "$model" --device cuda:99 --text hello -o "$tmp/x.wav"
fi
