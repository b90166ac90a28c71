#!/usr/bin/env bash
# --convert, and models that hold quantised or packed matrices.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

model=$root/demo/model
fails convert_into_what 2 "--convert needs --dtype, --head-dtype or --codec-dtype: into what?" --model "$model" --convert x.safetensors
fails convert_into_float32 2 "--convert needs --dtype, --head-dtype or --codec-dtype: into what? (float32 leaves weights as they are)" \
    --model "$model" --convert x.safetensors --dtype float32
fails convert_needs_a_folder 4 "/nowhere/x.safetensors: No such file or directory" --model "$model" --dtype int8 --convert /nowhere/x.safetensors
cd "$tmp" || exit 1
cp "$model"/*.json .
[ ! -e "$model/merges.txt" ] || cp "$model/merges.txt" .

cp "$model/model.safetensors" .
ln -s model.safetensors link.safetensors
for out in "$PWD/model.safetensors" link.safetensors; do
    fails "convert_spares_its_own_model_as_${out##*/}" 4 \
        "$out: is a file of the model that is converted, expected another one" \
        --model . --dtype int8 --convert "$out"
done
ok convert_leaves_its_model cmp model.safetensors "$model/model.safetensors"
rm model.safetensors link.safetensors

speak() {
    run "$@" --text "Speaker 1: Hello." --max-frames 4 --seed 3 -y
}
for dtype in float8_e4m3fn int8 int4 bf16-packed; do
    as="--dtype $dtype --head-dtype $dtype --codec-dtype $dtype"
    # shellcheck disable=SC2086
    run --model "$model" $as --convert $dtype.safetensors
    ok "${dtype}_is_written" test "$(cat out)" = $dtype.safetensors
    ok "${dtype}_leaves_no_part" test ! -e $dtype.safetensors.part
    speak --model $dtype.safetensors -o file.wav
    # shellcheck disable=SC2086
    speak --model "$model" $as -o loaded.wav
    ok "${dtype}_speaks_as_when_recoded" cmp file.wav loaded.wav
done

# What is in its dtype already is copied with its scales.
for dtype in float8_e4m3fn int4 bf16-packed; do
    run --model $dtype.safetensors --dtype int8 --head-dtype $dtype --convert twice.safetensors
    speak --model twice.safetensors -o file.wav
    speak --model $dtype.safetensors --dtype int8 -o loaded.wav
    ok "${dtype}_is_copied_into_another_file" cmp file.wav loaded.wav
done

run --model "$model" --dtype int8 --convert again.safetensors --json
ok json_names_the_file grep -qF '{"file":"again.safetensors","model":"'"$model"'"}' out
speak --model "$model" -o plain.wav
speak --model bf16-packed.safetensors -o packed.wav
ok packed_speaks_as_bf16 cmp plain.wav packed.wav

run --model "$model" --info --dtype int8
ok info_tells_decibels grep -qE '^ *[0-9.]+ dB BF16 +I8 +model\.language_model\.layers\.' out
grep " dB " out >rows
ok worst_is_first sort -n -s -k1,1 -c rows
