#!/usr/bin/env bash
# A disk that takes long to say that it has a file keeps nobody from speaking.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

[ -n "$model" ] || { skip slow_disk "no tiny model"; exit 0; }
command -v python3 >/dev/null || { skip slow_disk "needs python3"; exit 0; }
cd "$tmp" || exit 1
cat >slow.c <<'END'
#include <unistd.h>
int fsync(int fd) { (void)fd; return usleep(900000); }
int fdatasync(int fd) { return fsync(fd); }
END
"${CC:-cc}" -shared -fPIC -o slow.so slow.c 2>/dev/null ||
    { skip slow_disk "no compiler, or none for preloading"; exit 0; }
mkdir in
printf 'Hi.\n' >in/short.txt
printf 'Speaker 1: This one is a good deal longer than the other.\n' >in/long.txt
printf 'Speaker 1: %s\n' "So." "And so." "And on." >in/parts.txt
speak=(-m "$model" --steps 2 --max-length-times 1)
export ASAN_OPTIONS=verify_asan_link_order=0

slowly() { LD_PRELOAD=$PWD/slow.so run "$@"; }
# How much longer the longest gap is than the median one, in ms.
longest_wait() {
    python3 "$root/scripts/frame_gaps" "$1" | awk 'NR == 1 { median = $NF } NR == 2 { print int($1 - median) }'
}

run "${speak[@]}" --batch in -b 3 -d quick --chunk-minutes 0.001
slowly "${speak[@]}" --batch in -b 3 -d slow --chunk-minutes 0.001 --trace t.json
ok slow_disk_changes_nothing test "$rc" = 0 -a "$(wc -l <out)" = 3
for name in short long parts; do
    ok "${name}_is_the_same" cmp "quick/$name.wav" "slow/$name.wav"
done
ok nothing_is_left_of_parts test "$(find slow -name '*.part*' | wc -l)" = 0
# Synced are each part, each file and each line, 0.9 s each; frames that take
# some ms do not differ by as much, however busy the machine.
ok others_go_on_meanwhile test "$(longest_wait t.json)" -lt 800
slowly "${speak[@]}" --batch in -b 3 -d slow --chunk-minutes 0.001 --resume
ok all_was_written_down test "$rc" = 0 -a "$(tail -1 err)" = "vibevoice: 0 done, 0 failed, 3 skipped"
