# Sourced by tests/run.sh --host: makes `.venv-host`, an environment in which OneTrainer imports on a CPU, and does nothing
# when that was done before.
#
# prepare_host_venv
#   reads  PYTHON                  the interpreter to make the environment with (default: python3)
#   sets   WAN_FIXES_HOST_PYTHON   the environment's interpreter, unless that is set

prepare_host_venv() {
    [ -z "${WAN_FIXES_HOST_PYTHON:-}" ] || return 0
    local python="${PYTHON:-python3}" wanted stamp=.venv-host/installed folder
    wanted="$(cat tests/host/requirements.txt setup.cfg .ci/declare_torchvision_operators.py .ci/host_venv.sh | "$python" -c \
        'import hashlib, sys; print(sys.version, hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
    WAN_FIXES_HOST_PYTHON="$PWD/.venv-host/bin/python"
    export WAN_FIXES_HOST_PYTHON
    [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
    echo "Installing OneTrainer's requirements into .venv-host; the first time takes some minutes ..."
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    "$python" -m venv --clear .venv-host || return 1
    # The project's own requirements with OneTrainer's pins, but not the project: the tests take it from here, and install
    # it into checkouts of their own as users do.
    "$python" - <<'PY' > .venv-host/own-requirements.txt
import configparser

options = configparser.ConfigParser()
options.read("setup.cfg", encoding="utf-8")
print(options["options"]["install_requires"].strip())
print("peft\nhypothesis >= 6.100\npytest >= 8\npytest-timeout >= 2.3\npytest-xdist >= 3.6")
PY
    "$WAN_FIXES_HOST_PYTHON" -m pip install -qq -r tests/host/requirements.txt -r .venv-host/own-requirements.txt || return 1
    "$WAN_FIXES_HOST_PYTHON" -m pip install -qq --no-deps torchvision==0.28.0 || return 1
    folder="$("$WAN_FIXES_HOST_PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    cp .ci/declare_torchvision_operators.py "$folder/"
    echo "import declare_torchvision_operators" > "$folder/declare_torchvision_operators.pth"
    printf '%s\n' "$wanted" > "$stamp"
}
