#!/usr/bin/env bash
# Everything that must hold, from nothing: virtual environment, installation, linters, types, test suite.
#
#   bash tests/run.sh [--full] [--gpu] [--host] [pytest arguments]
#
#   --full   every kill, fuzz and mutation too
#   --gpu    the tests that need a CUDA device too
#   --host   the engine and pipeline tests on the real MGDS too, and the tests inside OneTrainer.
#            WAN_FIXES_MGDS and WAN_FIXES_ONETRAINER name checkouts of the two; WAN_FIXES_HOST_PYTHON the interpreter that
#            has their requirements (default: the virtual environment). Unset ones are read from lines NAME=VALUE of
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
prepare_venv standalone,dev

echo "== ruff"
"$VENV_PYTHON" -m ruff check .
"$VENV_PYTHON" -m ruff format --check .

echo "== mypy"
VENV_PYTHON="$VENV_PYTHON" bash .ci/typecheck.sh

echo "== pytest"
# No test may reach the network or the settings of the one who runs it, and two workers share the cores.
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
markers="not host"
[ "$full" = yes ] || markers="$markers and not full"
[ "$gpu" = yes ] || markers="$markers and not gpu"
workers=(-n 2 --dist worksteal)
"$VENV_PYTHON" -m pytest -q "${workers[@]}" -m "$markers" "$@"
[ "$host" = yes ] || exit 0

echo "== pytest, real hosts"
hosts_file="${XDG_CONFIG_HOME:-$HOME/.config}/wan-fixes/hosts"
if [ -f "$hosts_file" ]; then
    while IFS='=' read -r name value; do
        case "$name" in
            WAN_FIXES_MGDS | WAN_FIXES_ONETRAINER | WAN_FIXES_HOST_PYTHON) [ -n "${!name:-}" ] || export "$name=$value" ;;
        esac
    done < "$hosts_file"
fi
markers="${markers#not host and }"
[ "$markers" != "not host" ] || markers=""
paths=()
if [ -n "${WAN_FIXES_MGDS:-}" ]; then
    paths+=(tests/engine tests/pipeline)
    export PYTHONPATH="$WAN_FIXES_MGDS/src:$PWD${PYTHONPATH:+:$PYTHONPATH}"
else
    echo "skipped: the engine and pipeline tests on the real MGDS (WAN_FIXES_MGDS is not set)"
fi
if [ -n "${WAN_FIXES_ONETRAINER:-}" ] && [ -d tests/host ]; then
    paths+=(tests/host)
elif [ -d tests/host ]; then
    echo "skipped: the tests inside OneTrainer (WAN_FIXES_ONETRAINER is not set)"
fi
[ "${#paths[@]}" -gt 0 ] || exit 0
"${WAN_FIXES_HOST_PYTHON:-$VENV_PYTHON}" -m pytest -q "${workers[@]}" -m "$markers" "${paths[@]}" "$@"
