#!/usr/bin/env bash
# The scripts of demo/cluster, run by what they are written for: a Slurm of our
# own on this machine, and GNU parallel.
# shellcheck source=tests/support/cli.sh disable=SC1091,SC2154
. tests/support/cli.sh

if [ -z "$model" ]; then
    skip cluster "no tiny model"
    exit 0
fi
export VIBEVOICE=$vibe
cd "$tmp" || exit 1
mkdir in
for i in 1 2 3 4 5 6 7 8 9; do
    printf 'Speaker 1: Number %d.\nSpeaker 2: And on.\n' $i >in/d$i.txt
done
speak=(-m "$model" --steps 2 --max-frames 4)
run "${speak[@]}" --batch in -d whole
ok whole test "$rc" = 0

same() { # FOLDER
    diff <(cd whole && cksum ./*.wav) <(cd "$1" && cksum ./*.wav) >&2
}

if parallel --version </dev/null 2>/dev/null | grep -q GNU; then
    rc=0
    "$root/demo/cluster/parallel.sh" in parallel "${speak[@]}" -t 1 >out 2>err </dev/null || rc=$?
    ok parallel test "$rc" = 0
    ok parallel_makes_the_same_set same parallel
    "$root/demo/cluster/parallel.sh" in parallel "${speak[@]}" -t 1 >out 2>err </dev/null || rc=$?
    ok parallel_can_run_twice test "$rc" = 0 -a ! -s out
else
    skip parallel "no GNU parallel here"
fi

# A controller and a node, as whoever runs this, without accounts or keys.
start_slurm() {
    local port=$((20000 + $$ % 20000)) tries
    mkdir state spool
    cat >slurm.conf <<END
ClusterName=test
SlurmctldHost=localhost
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$tmp/state
SlurmdSpoolDir=$tmp/spool
SlurmctldPidFile=$tmp/slurmctld.pid
SlurmdPidFile=$tmp/slurmd.pid
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName=localhost CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
END
    export SLURM_CONF=$tmp/slurm.conf
    slurmctld -D >slurmctld.log 2>&1 &
    slurm_pids=$!
    slurmd -D -N localhost >slurmd.log 2>&1 &
    slurm_pids+=" $!"
    for ((tries = 0; tries < 150; tries++)); do
        sinfo -h -o %T 2>/dev/null | grep -q idle && return 0
        sleep 0.1
    done
    return 1
}

slurm_pids=
stop_slurm() {
    local pid
    for pid in $slurm_pids; do
        kill "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    finish
}
trap stop_slurm EXIT

array() { # FOLDER
    rc=0
    timeout 100 sbatch --wait --array=1-4 "$root/demo/cluster/slurm_array.sh" \
        in "$1" "${speak[@]}" >out 2>err </dev/null || rc=$?
    cat vibevoice-*.log >>err 2>/dev/null
    rm -f vibevoice-*.log
}

if ! { command -v sbatch && command -v slurmctld && command -v slurmd; } >/dev/null; then
    skip slurm_array "no Slurm here"
elif ! start_slurm; then
    skip slurm_array "Slurm does not start here: $(tail -1 slurmctld.log)"
else
    array slurm
    ok slurm_array test "$rc" = 0
    ok slurm_array_makes_the_same_set same slurm
    rm slurm/d5.wav
    array slurm
    ok slurm_array_can_run_again test "$rc" = 0 -a "$(grep -c '/d5.wav$' err)" = 1
    ok slurm_array_repeats_what_is_missing same slurm
fi
