# Sourced by the scripts that need the project's virtual environment: makes `.venv`, installs the project into it,
# and does nothing when that was done before.
#
# prepare_venv EXTRAS    for example: prepare_venv standalone,dev
#   reads  PYTHON        the interpreter to make the environment with (default: python3)
#   sets   VENV_PYTHON   the environment's interpreter

prepare_venv() {
    local extras="$1" python="${PYTHON:-python3}" version wanted stamp
    if ! command -v "$python" >/dev/null; then
        echo "error: $python is not installed: Python 3.10 to 3.13 is needed (set PYTHON to choose one)" >&2
        return 1
    fi
    if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'; then
        echo "error: $("$python" --version) cannot be used: Python 3.10 to 3.13 is needed (set PYTHON to choose one)" >&2
        return 1
    fi
    version="$("$python" -c 'import sys; print(sys.version, sys.base_prefix)')"

    # What the environment was made from. A stamp is written last, so an interrupted installation is done again.
    wanted="$(cat setup.cfg setup.py pyproject.toml constraints.txt | "$python" -c \
        'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read() + sys.argv[1].encode()).hexdigest())' "$version")"
    stamp=".venv/installed-${extras//,/-}"
    find_venv_python
    if [ -n "$VENV_PYTHON" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    if [ -z "$VENV_PYTHON" ] || [ "$(cat .venv/made-with 2>/dev/null)" != "$version" ]; then
        "$python" -m venv --clear .venv || { echo "error: no virtual environment (on Debian: apt install python3-venv)" >&2; return 1; }
        printf '%s\n' "$version" > .venv/made-with
        find_venv_python
    fi
    echo "Installing wan-fixes[$extras] into .venv; the first time takes some minutes ..."
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    # setuptools first: with it at hand pip need not fetch another copy to build the project with.
    "$VENV_PYTHON" -m pip install -qq -c constraints.txt setuptools || return 1
    "$VENV_PYTHON" -m pip install -qq -c constraints.txt --no-build-isolation -e ".[$extras]" || return 1
    printf '%s\n' "$wanted" > "$stamp"
}

find_venv_python() {
    local candidate
    VENV_PYTHON=""
    for candidate in .venv/bin/python .venv/Scripts/python.exe; do
        if [ -x "$candidate" ] && "$candidate" -c '' 2>/dev/null; then
            VENV_PYTHON="$PWD/$candidate"
        fi
    done
}
