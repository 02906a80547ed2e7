#!/usr/bin/env bash
# Everything that must hold, from nothing: virtual environment, installation, linters, types, test suite.
#
#   bash tests/run.sh [--full] [--gpu] [--host] [pytest arguments]
#
#   --full   every kill, fuzz and mutation too
#   --gpu    the tests that need a CUDA device too
#   --host   the engine and pipeline tests on the real MGDS too, and the tests inside OneTrainer.
#            WAN_FIXES_MGDS and WAN_FIXES_ONETRAINER name checkouts of the two, WAN_FIXES_ONETRAINER_OLDER one of an older
#            OneTrainer, in which the tests run again; WAN_FIXES_HOST_PYTHON the interpreter that has their requirements
#            (default: .venv-host, which is made). For the tests inside the WAN fork, WAN_FIXES_ONETRAINER_FORK names its
#            checkout, WAN_FIXES_HOST_FORK_PYTHON the interpreter that has its requirements, WAN_FIXES_MGDS_FORK the MGDS
#            of its time (default: WAN_FIXES_MGDS). Unset ones are read from lines NAME=VALUE of
#            ~/.config/wan-fixes/hosts, and what is in neither is skipped.
#
#   PYTHON   the interpreter to make the virtual environment with (default: python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

full=no gpu=no host=no
while [ $# -gt 0 ]; do
    case "$1" in
        --full) full=yes ;;
        --gpu) gpu=yes ;;
        --host) host=yes ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' tests/run.sh; exit 0 ;;
        *) break ;;
    esac
    shift
done

. .ci/venv.sh
prepare_venv standalone,s3,serve,security,ui,dev

echo "== ruff"
"$VENV_PYTHON" -m ruff check .
"$VENV_PYTHON" -m ruff format --check .

echo "== mypy"
VENV_PYTHON="$VENV_PYTHON" bash .ci/typecheck.sh

if [ "$host" = yes ]; then
    hosts_file="${XDG_CONFIG_HOME:-$HOME/.config}/wan-fixes/hosts"
    if [ -f "$hosts_file" ]; then
        while IFS='=' read -r name value; do
            case "$name" in
                WAN_FIXES_MGDS | WAN_FIXES_ONETRAINER | WAN_FIXES_ONETRAINER_OLDER | WAN_FIXES_HOST_PYTHON | \
                    WAN_FIXES_ONETRAINER_FORK | WAN_FIXES_HOST_FORK_PYTHON | WAN_FIXES_MGDS_FORK)
                    [ -n "${!name:-}" ] || export "$name=$value"
                    ;;
            esac
        done < "$hosts_file"
    fi
    for name in WAN_FIXES_MGDS WAN_FIXES_ONETRAINER WAN_FIXES_ONETRAINER_OLDER WAN_FIXES_ONETRAINER_FORK; do
        [ -n "${!name:-}" ] || echo "== $name is not set: the tests that need it are skipped"
    done
fi

echo "== pytest"
# No test may reach the network, and two workers share the cores.
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
workers=(-n 2 --dist worksteal)
markers=""
[ "$full" = no ] || export WAN_FIXES_FULL=1  # what is slow is done more often too: tests/effort.py
[ "$full" = yes ] || markers="$markers and not full"
[ "$gpu" = yes ] || markers="$markers and not gpu"
# On our own engine: the real MGDS has requirements that this environment lacks, and a run of its own below.
env -u WAN_FIXES_MGDS -u WAN_FIXES_ONETRAINER "$VENV_PYTHON" -m pytest -q "${workers[@]}" -m "not host$markers" "$@"

if [ "$host" = yes ] && [ -n "${WAN_FIXES_MGDS:-}" ]; then
    . .ci/host_venv.sh
    prepare_host_venv
    echo "== pytest on the real MGDS"
    export PYTHONPATH="$WAN_FIXES_MGDS/src:$PWD${PYTHONPATH:+:$PYTHONPATH}"
    host_pytest=("$WAN_FIXES_HOST_PYTHON" -m pytest -q "${workers[@]}" -m "${markers# and }")
    # Not in one run with the host's: these tests import mgds anew, which the modules of a host do not survive.
    "${host_pytest[@]}" tests/engine tests/pipeline "$@"
    "${host_pytest[@]}" tests/host "$@"
    if [ -n "${WAN_FIXES_ONETRAINER_OLDER:-}" ]; then
        echo "== pytest inside the older OneTrainer"
        env -u WAN_FIXES_ONETRAINER_FORK WAN_FIXES_ONETRAINER="$WAN_FIXES_ONETRAINER_OLDER" "${host_pytest[@]}" tests/host "$@"
    fi
fi
