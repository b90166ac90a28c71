#!/bin/bash
# Speak a batch with a Slurm array, from the root of the repository:
#
#   sbatch --array=1-4 demo/cluster/slurm_array.sh BATCH OUTPUT_DIR [OPTION...]
#
# Each task takes the part of the batch that its number says (--shard auto);
# nobody coordinates them.  A task may be preempted, requeued or run twice: it
# leaves out what is finished (--resume).  Submit the whole array again to
# repeat what failed, never a part of it: the parts follow from their count.
#
#SBATCH --job-name=vibevoice
#SBATCH --output=%x-%A.%a.log
#SBATCH --requeue
#SBATCH --signal=TERM@60
set -euo pipefail
batch=${1:?which batch: a folder, a manifest or a quoted pattern}
output=${2:?which folder for the speech}
shift 2
# exec: the signal that ends a task is for the program, which finishes its frame
exec "${VIBEVOICE:-./vibevoice}" --batch "$batch" --output-dir "$output" \
    --shard auto --resume --progress plain "$@"
