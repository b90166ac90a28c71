#!/bin/sh
# Speak a batch with GNU parallel, from the root of the repository:
#
#   demo/cluster/parallel.sh BATCH OUTPUT_DIR [OPTION...]
#
# Two processes at a time take the four parts of the batch; with one GPU each,
# say so by {%} (the slot, from 1): --device cuda:{%}.  With several machines
# that share the folder, add --sshlogin.
batch=${1:?which batch: a folder, a manifest or a pattern}
output=${2:?which folder for the speech}
shift 2
exec parallel -j "${JOBS:-2}" --halt now,fail=1 \
    "${VIBEVOICE:-./vibevoice}" --batch "$batch" --output-dir "$output" \
    --shard '{}/4' --resume --progress plain "$@" ::: 1 2 3 4
