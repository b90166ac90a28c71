#!/usr/bin/env bash
# cli.sh - what the shell tests of tests/cli share; source it.
#
#   $vibe            the program, as an absolute path
#   $tmp             an empty folder, gone at the end
#   $model           a tiny random model, or empty
#   run ARGS...      run the program: $rc, $tmp/out, $tmp/err
#   ok NAME COMMAND  report whether COMMAND succeeds
#   fails NAME STATUS SENTENCE ARGS...
#                    the program must exit so and say "vibevoice: SENTENCE"
#   skip NAME WHY
#   wav FILE RATE SECONDS [AMPLITUDE [CHANNELS]]
#
# Ends with exit status 1 if anything was not ok.
set -u

root=$PWD
vibe=$(realpath "${VIBEVOICE:-./vibevoice}")
model=$root/tests/golden/tiny_tied
[ -e "$model/model.safetensors" ] || model=
tmp=$(mktemp -d)
n_failed=0

# The options of whoever runs the tests are not those of the tests.  One
# thread: teams of threads that spin are slow on a machine that is busy.
unset VIBEVOICE "${!VIBEVOICE_@}"
export VIBEVOICE_THREADS=1 VIBEVOICE_DEVICE=cpu LC_ALL=C

finish() {
    rm -rf "$tmp"
    [ "$n_failed" = 0 ] || exit 1
}
trap finish EXIT

run() {
    rc=0
    "$vibe" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || rc=$?
}

report() { # STATUS NAME
    if [ "$1" = 0 ]; then
        echo "ok - $2"
        return
    fi
    echo "not ok - $2 (status ${rc-})"
    sed 's/^/  out: /' "$tmp/out" 2>/dev/null | head -5
    sed 's/^/  err: /' "$tmp/err" 2>/dev/null | head -5
    n_failed=$((n_failed + 1))
}

ok() {
    local name=$1 status=0
    shift
    "$@" || status=1
    report $status "$name"
}

skip() {
    echo "skip - $1: $2"
}

# The one sentence, then at most one line of hint.
says() {
    [ "$(head -1 "$tmp/err")" = "vibevoice: $1" ] &&
        [ "$(wc -l <"$tmp/err")" -le 2 ]
}

fails() {
    local name=$1 status=$2 sentence=$3
    shift 3
    run "$@"
    if [ "$rc" = "$status" ] && says "$sentence"; then
        report 0 "$name"
    else
        report 1 "$name"
        echo "  expected status $status: vibevoice: $sentence"
    fi
}

# A sine that swells, as 16-bit PCM.
wav() {
    perl -e '
        my ($rate, $seconds, $amplitude, $channels) = @ARGV;
        my $n = int($rate * $seconds) * $channels;
        print "RIFF", pack("V", 36 + 2 * $n), "WAVEfmt ",
            pack("VvvVVvv", 16, 1, $channels, $rate, 2 * $channels * $rate,
                2 * $channels, 16), "data", pack("V", 2 * $n);
        print pack("s<", $amplitude * sin($_ * 0.05) * sin($_ * 0.001))
            for 0 .. $n - 1;
    ' "$2" "$3" "${4-8000}" "${5-1}" >"$1"
}

# Frames of 3,200 samples in a 16-bit mono WAV; fails if its header is wrong.
frames_of() {
    perl -e '
        binmode STDIN;
        read(STDIN, my $head, 44) == 44 or exit 1;
        my ($riff, $wave) = (substr($head, 0, 4), substr($head, 8, 4));
        exit 1 unless $riff eq "RIFF" && $wave eq "WAVE";
        my $bytes = unpack("V", substr($head, 40, 4));
        exit 1 if 44 + $bytes != -s STDIN;
        print $bytes / 2 / 3200, "\n";
    ' <"$1"
}
