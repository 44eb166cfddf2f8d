#!/usr/bin/env bash
# Start a run with Open MPI. Arguments go to `python -m tsmjax.main`:
#
#     launch/mpirun.sh --config=configs/chronos2_base.py:/data/corpus --workdir=/shared/runs/base
#
# Hosts are those of a Slurm, PBS or LSF allocation, of the hostfile that mpirun is set up with, or of
# the first file found among $HOSTFILE, ./hostfile, /job/hostfile and /etc/mpi/hostfile; without any
# of them, this machine alone. Settings, as environment variables:
#
#     HOSTFILE     file of hosts, one a line
#     PER_HOST     processes of each host (1: each takes all GPUs of its host)
#     RESTARTS     how often to start again when the run asks for it with exit code 75 (10)
#     SAVE_SECONDS time that processes get at least to save when the run stops (30)
#     MPIRUN       the mpirun command (mpirun)
#     PYTHON       the Python interpreter (python)
#     DRY_RUN      if not empty, print the command and do nothing
#
# The exit code is that of the first process that failed, and 75 after SIGTERM to this script.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if command -v nvidia-smi >/dev/null; then
    # shellcheck source=launch/gpu.sh
    source "$here/gpu.sh"
fi

per_host=${PER_HOST:-1}
restarts=${RESTARTS:-10}
# When a process stops, Open MPI sends the others SIGTERM and kills them after this time.
options=(--map-by "ppr:$per_host:node" --bind-to none)
options+=(--mca odls_base_sigkill_timeout "${SAVE_SECONDS:-30}")

hostfile=${HOSTFILE:-}
allocated=${SLURM_JOB_ID:-}${PBS_NODEFILE:-}${LSB_DJOB_HOSTFILE:-}${OMPI_MCA_orte_default_hostfile:-}
if [[ -z $hostfile && -z $allocated ]]; then
    for candidate in hostfile /job/hostfile /etc/mpi/hostfile; do
        if [[ -s $candidate ]]; then
            hostfile=$candidate
            break
        fi
    done
fi
if [[ -n $hostfile ]]; then
    if [[ ! -s $hostfile ]]; then
        echo "error: the hostfile $hostfile is empty or missing; write one host a line." >&2
        exit 2
    fi
    options+=(--hostfile "$hostfile")
    echo "hosts of $hostfile" >&2
fi
if [[ $(id -u) == 0 ]]; then
    options+=(--allow-run-as-root) # containers; elsewhere, do not run this as root
fi
# Other hosts see only what is passed on.
for name in $(compgen -e); do
    case $name in
    PATH | LD_LIBRARY_PATH | PYTHONPATH | VIRTUAL_ENV | NPROC | TSMJAX_* | JAX_* | XLA_* | NCCL_* | HF_*)
        options+=(-x "$name")
        ;;
    esac
done

command=("${MPIRUN:-mpirun}" "${options[@]}" "${PYTHON:-python}" -m tsmjax.main "$@")
if [[ -n ${DRY_RUN:-} ]]; then
    echo "${command[@]}"
    exit
fi

stopped=
child=
trap 'stopped=1; kill -TERM "$child" 2>/dev/null || true' TERM
for ((attempt = 0; ; attempt++)); do
    "${command[@]}" &
    child=$!
    code=0
    wait "$child" || code=$?
    if [[ -n $stopped ]]; then
        # The signal interrupted `wait`. Open MPI calls its own end by signal a failure.
        wait "$child" && exit 0
        exit 75
    fi
    if ((code != 75 || attempt >= restarts)); then
        exit "$code"
    fi
    echo "stopped in order to be restarted; start $((attempt + 2))" >&2
done
