#!/usr/bin/env bash
# Ctrl-C, kill and closed pipes: what is left, and how the program ends.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

if [ -z "$model" ]; then
    skip signals "no tiny model"
    exit 0
fi
cd "$tmp" || exit 1
# A thousand steps make each of the two dozen frames of this text slow enough
# to be interrupted.
speak=(-m "$model" --steps 1000 --text "Good morning to you")

# Start speaking to $1, wait until something is in the file, and send $2.
interrupt() {
    local part=${1%.wav}.part.wav pid tries=0
    # the tests may run under nohup, which bash cannot undo
    perl -e '$SIG{HUP} = "DEFAULT"; exec @ARGV' \
        "$vibe" "${speak[@]}" --json -o "$1" >out 2>err &
    pid=$!
    while [ ! -s "$part" ] && [ $tries -lt 1000 ]; do
        sleep 0.01
        tries=$((tries + 1))
    done
    # The first frame must be in it: more than a header.
    while [ "$(stat -c %s "$part" 2>/dev/null || echo 0)" -lt 6444 ] && [ $tries -lt 1000 ]; do
        sleep 0.01
        tries=$((tries + 1))
    done
    kill "-$2" $pid
    rc=0
    wait $pid 2>/dev/null || rc=$?
}

interrupt int.wav INT
ok sigint_status test "$rc" = 130
ok sigint_leaves_no_final_name test ! -e int.wav
ok sigint_keeps_whole_frames test "$(frames_of int.part.wav)" -ge 1
ok sigint_says_where grep -qE '^vibevoice: warning: interrupted; [0-9.]+ s of speech are kept in int.part.wav$' err
ok sigint_json grep -q '"file":"int.part.wav",.*"finish":"interrupted"' out

interrupt term.wav TERM
ok sigterm_status test "$rc" = 143
ok sigterm_keeps_whole_frames test "$(frames_of term.part.wav)" -ge 1

interrupt hup.wav HUP
ok sighup_status test "$rc" = 129 -a ! -e hup.wav
ok sighup_keeps_whole_frames test "$(frames_of hup.part.wav)" -ge 1

interrupt kill.wav KILL
ok sigkill_status test "$rc" = 137
ok sigkill_leaves_no_final_name test ! -e kill.wav
ok sigkill_leaves_a_readable_part test "$(frames_of kill.part.wav)" -ge 1

# What was interrupted can be done again, and replaces the part.
run -m "$model" --steps 2 --max-frames 2 --text "Good morning to you" -o kill.wav
ok after_sigkill_it_can_be_done_again test "$rc" = 0 -a "$(frames_of kill.wav)" = 2 -a ! -e kill.part.wav

# Before the first frame there is nothing to keep, and the signal kills.  It is
# sent until it arrives: the shell ignores it until the program has started.
mkfifo pipe
"$vibe" -m "$model" --dump-tokens - <pipe >out 2>err &
pid=$!
exec 3>pipe
tries=0
while [ -n "$(jobs -pr)" ] && [ $tries -lt 100 ]; do
    kill -INT $pid 2>/dev/null
    sleep 0.05
    tries=$((tries + 1))
done
exec 3>&-
rc=0
wait $pid 2>/dev/null || rc=$?
ok sigint_before_the_first_frame test "$rc" = 130 -a ! -s err

# A reader that leaves ends it, quietly.
"$vibe" -m "$model" --steps 2 --text "Good morning to you" -o - 2>err | head -c 100 >head.wav
rc=${PIPESTATUS[0]}
ok closed_pipe_status test "$rc" = 141
ok closed_pipe_is_quiet test ! -s err
ok closed_pipe_got_a_header test "$(head -c 4 head.wav)" = RIFF
