#!/usr/bin/env bash
# Where speech is written, and what stands in the way: exit status 4.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

if [ -z "$model" ]; then
    skip output "no tiny model"
    exit 0
fi
cd "$tmp" || exit 1
printf 'Hello.\n' >a.txt
printf 'Good morning to you.\n' >b.txt
mkdir other
cp b.txt other/a.txt
speak=(-m "$model" --steps 2 --max-frames 2)

# Names.
run "${speak[@]}" a.txt
ok default_name test "$(cat out)" = a_generated.wav -a -e a_generated.wav
ok first_sample_is_timed grep -qE ', the first sample [0-9]+\.[0-9]+ s after the start$' err
ok other_files_have_no_first_sample test "$("$vibe" "${speak[@]}" a.txt b.txt 2>&1 | grep -c "first sample")" = 1
run "${speak[@]}" --text Hello
ok name_of_text test "$(cat out)" = text_generated.wav
run "${speak[@]}" a.txt --format flac --output-dir .
ok name_follows_format test "$(cat out)" = a_generated.flac
run "${speak[@]}" a.txt b.txt --output_dir new/folder
ok output_dir_is_made test "$rc" = 0
ok every_path_is_printed test "$(cat out)" = "$(printf 'new/folder/%s_generated.wav\n' a b)"
ok no_part_file_is_left test -z "$(find . -name "*.part*")"
run "${speak[@]}" -q a.txt -o q.wav
ok quiet_prints_nothing test "$rc" = 0 -a ! -s out -a ! -s err
ok file_is_whole test "$(frames_of q.wav)" = 2

# What cannot be.  No weight is read for these.
fails folder_missing 4 "none/x.wav: No such directory" "${speak[@]}" a.txt -o none/x.wav
fails output_is_a_folder 4 "other: is a directory" "${speak[@]}" a.txt -o other
fails output_dir_is_a_file 4 "a.txt: is not a directory" "${speak[@]}" b.txt -d a.txt
fails extension_unknown 2 \
    "x.xyz: unknown extension '.xyz' (have wav, flac, ogg, opus, mp3, raw)" "${speak[@]}" a.txt -o x.xyz
fails sample_format_impossible 2 "x.mp3: f32 is not possible in mp3" \
    "${speak[@]}" a.txt -o x.mp3 --sample-format f32
fails same_output_twice 2 \
    "a.txt and other/a.txt would both be written to d/a_generated.wav" \
    "${speak[@]}" a.txt other/a.txt -d d
cp a.txt a.wav
fails output_is_a_script 2 "--output: ./a.wav is a script of this run" "${speak[@]}" a.wav -o ./a.wav
cp q.wav voice.wav
fails output_is_a_voice 2 "--output: voice.wav is a voice of this run" \
    "${speak[@]}" a.txt -r ./voice.wav -o voice.wav
cp q.wav new.part.wav
fails voice_is_an_older_part 2 "--output: new.part.wav is a voice of this run" \
    "${speak[@]}" a.txt -r new.part.wav -o new.wav
# what is written at the end is looked at before anything is spoken
fails report_is_a_script 2 "--report: a.txt is a script of this run" "${speak[@]}" a.txt -o y.wav --report a.txt
fails trace_is_a_voice 2 "--trace: voice.wav is a voice of this run" \
    "${speak[@]}" a.txt -r voice.wav -o y.wav --trace voice.wav
fails report_is_the_output 2 "a.txt and --report would both be written to ./y.wav" \
    "${speak[@]}" a.txt -o y.wav --report ./y.wav
fails report_without_a_folder 4 "none/r.json: No such directory" "${speak[@]}" a.txt -o y.wav --report none/r.json
ok nothing_was_spoken test ! -e y.wav
run "${speak[@]}" a.txt -o - --format raw
ok stdout_is_called_by_name grep -q "^vibevoice: warning: standard output: the length cap ended it after 0.3 s" err
fails json_and_stdout 2 "--json cannot be combined with --output -" "${speak[@]}" a.txt -o - --json
if [ "$(id -u)" = 0 ]; then
    skip folder_read_only "root writes everywhere"
else
    mkdir locked && chmod 555 locked
    fails folder_read_only 4 "locked/x.wav: Permission denied" "${speak[@]}" a.txt -o locked/x.wav
fi

# Files that exist.
echo old >x.wav
fails no_clobber 4 "x.wav exists (--skip-existing, --overwrite)" "${speak[@]}" a.txt -o x.wav --no-clobber
ok no_clobber_keeps_the_file test "$(cat x.wav)" = old
run "${speak[@]}" a.txt -o x.wav --skip-existing
ok skip_existing_skips test "$rc" = 0 -a "$(cat x.wav)" = old -a ! -s out
ok skip_existing_says_so grep -qxF "vibevoice: x.wav exists; a.txt is skipped" err
run "${speak[@]}" a.txt b.txt -d new/folder --skip-existing
rm new/folder/b_generated.wav
run "${speak[@]}" a.txt b.txt -d new/folder --skip-existing
ok skip_existing_does_the_rest test "$(cat out)" = new/folder/b_generated.wav
ok skip_existing_sums_up grep -qxF "vibevoice: 1 done, 0 failed, 1 skipped" err
run "${speak[@]}" a.txt -o x.wav
ok replacing_is_said grep -qxF "vibevoice: x.wav exists and will be replaced" err
ok replaced test "$(frames_of x.wav)" = 2
run "${speak[@]}" a.txt -o x.wav --overwrite
ok overwrite_is_silent_about_it sh -c '! grep -q exists err'

# A dry run checks all of it and makes none of it.
run "${speak[@]}" a.txt b.txt -d dry --dry-run
ok dry_run_says_what_would_be test "$rc" = 0 -a "$(wc -l <out)" = 2
ok dry_run_names_files grep -qE '^a.txt -> dry/a_generated.wav: 1 turn, 1 speaker, 0 voices, prompt of [0-9]+ tokens$' out
ok dry_run_makes_nothing test ! -e dry
fails dry_run_finds_errors 4 "none/x.wav: No such directory" "${speak[@]}" a.txt -o none/x.wav --dry-run

# No more than 8 KB a file.
rc=0
(ulimit -f 8 && "$vibe" -m "$model" --steps 2 --max-frames 12 -f b.txt -o small.wav) >out 2>err </dev/null || rc=$?
ok size_limit test "$rc" = 4
ok size_limit_says_so grep -qF "small.wav: File too large" err
ok size_limit_leaves_no_final_name test ! -e small.wav

# A full disk: nothing under the final name, what was spoken is kept.
full=$tmp/full
mkdir "$full"
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=40k tmpfs "$full" 2>err; then
    run -m "$model" --steps 2 --max-frames 12 -f b.txt -o "$full/x.wav"
    ok full_disk test "$rc" = 4
    ok full_disk_says_so grep -qF "x.wav: No space left on device" err
    ok full_disk_leaves_no_final_name test ! -e "$full/x.wav"
    umount "$full"
else
    skip full_disk "needs root to mount a small tmpfs"
fi
