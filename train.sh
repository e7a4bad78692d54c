#!/usr/bin/env bash
# Trains, evaluates and reports. Edit these lines, or leave them and pass what differs:
#   bash train.sh                                        the default: a small network on synthetic faces, minutes on a CPU
#   bash train.sh --config my.yaml optimizer.lr=0.05     a configuration and overrides
#   bash train.sh --run runs/mine --resume               go on with a run
CONFIG=${CONFIG:-}                      # a YAML file or a shipped configuration; empty for the default
OVERRIDES=()                            # for example (training.epochs=10 data.size=112)
PROCESSES=${PROCESSES:-1}               # processes on this machine: one for each GPU
NODES=${NODES:-1}                       # machines; start train.sh on each of them
NODE_RANK=${NODE_RANK:-0}               # number of this machine, from 0
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}   # address of machine 0
MASTER_PORT=${MASTER_PORT:-29500}       # a free port there
RESTARTS=${RESTARTS:-0}                 # how often a run that loses a process or a machine goes on; needs --run FOLDER

set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

arguments=()
while (($#)); do
    case $1 in
        -h | --help)
            sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --config)
            (($# > 1)) || { say "--config needs a file or the name of a shipped configuration"; exit 2; }
            CONFIG=$2
            shift
            ;;
        --config=*) CONFIG=${1#--config=} ;;
        *) arguments+=("$1") ;;
    esac
    shift
done

use_environment

command=(-m facelab train ${CONFIG:+"$CONFIG"} ${OVERRIDES[@]+"${OVERRIDES[@]}"} ${arguments[@]+"${arguments[@]}"})
if ((PROCESSES * NODES == 1)); then
    exec "$PYTHON" "${command[@]}"
fi

# Left alone, torchrun gives each process one thread, and each process would take all processors.
if [[ -z ${OMP_NUM_THREADS:-} ]]; then
    threads=$(($(processors) / PROCESSES))
    export OMP_NUM_THREADS=$((threads > 0 ? threads : 1))
fi
meeting=(--standalone)
if ((NODES > 1 && RESTARTS > 0)); then
    # Machines that meet again, however many times; machine 0 is where they ask for each other.
    meeting=(--nnodes "$NODES" --rdzv-backend c10d --rdzv-endpoint "$MASTER_ADDR:$MASTER_PORT" --rdzv-id facelab)
    meeting+=(--rdzv-conf "is_host=$((NODE_RANK == 0))")
elif ((NODES > 1)); then
    meeting=(--nnodes "$NODES" --node-rank "$NODE_RANK" --master-addr "$MASTER_ADDR" --master-port "$MASTER_PORT")
fi
exec "$PYTHON" -m facelab.launch --nproc-per-node "$PROCESSES" --max-restarts "$RESTARTS" "${meeting[@]}" "${command[@]}"
