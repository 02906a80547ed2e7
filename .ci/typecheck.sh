#!/usr/bin/env bash
# mypy on an installed copy, because wan_fixes.ui lives in ui/ here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${VENV_PYTHON:-python}"
rm -rf build # one left behind would bring back deleted files
"$python" -m pip install -qq --no-deps --no-build-isolation --target build/typecheck .
cd build/typecheck
exec "$python" -m mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p wan_fixes
