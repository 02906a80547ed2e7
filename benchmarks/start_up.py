"""What the plugin adds to a start of OneTrainer's Python: without it, switched off, and switched on.

Each figure comes from fresh processes, which take turns. Measured inside them, around the line in the environment and
around `import modules`, in processor time: whole starts on a busy machine vary more than what is looked for.
OneTrainer's scripts import torch and much else anyway, so what both need is imported before in the second table.

    python benchmarks/start_up.py PATH   # of an enabled OneTrainer
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from wan_fixes.hosts.onetrainer.bootstrap import PTH_LINE
from wan_fixes.hosts.onetrainer.state import find_enabled
from wan_fixes.settings import SETTINGS_VARIABLE

# What every script of OneTrainer's imports sooner or later: `python -X importtime scripts/train.py --help` lists it.
ANYWAY = "dataclasses, inspect, json, logging, pathlib, tempfile, tqdm, typing, importlib.util"

MEASURE = """
import sys, time
for name in [name for name in sys.modules if name.partition('.')[0] == 'wan_fixes']: del sys.modules[name]
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != 'Tripwire']
began = time.process_time()
{line}
line = time.process_time() - began
{before}
sys.path.insert(0, '.')
began = time.process_time()
import modules
print(line * 1000, (time.process_time() - began) * 1000)
"""


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", type=Path, help="the folder of OneTrainer")
    parser.add_argument("--starts", type=int, default=30, help="of each kind")
    options = parser.parse_args()
    entry = find_enabled(options.path)
    if entry is None:
        raise SystemExit(f'the plugin is not enabled there: wan enable "{options.path}"')
    with tempfile.TemporaryDirectory() as folder:
        measure_all(entry.python, Path(entry.path), Path(folder), options.starts)


def measure_all(python: str, checkout: Path, folder: Path, starts: int) -> None:
    """Print a row for each state of the plugin."""
    states: dict[str, tuple[str, dict[str, str]]] = {"without the plugin": ("pass", {})}
    for name, content in {"switched off": {"enabled": False}, "switched on": {}}.items():
        settings = folder / f"{name}.json"
        settings.write_text(json.dumps(content), encoding="utf-8")
        states[name] = (f"exec({PTH_LINE!r})", {SETTINGS_VARIABLE: str(settings)})
    for kind, before in {"alone": "", "what OneTrainer imports anyway taken out": f"import {ANYWAY}"}.items():
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in states}
        for _ in range(starts + 1):
            for name, (line, variables) in states.items():
                code = MEASURE.format(line=line, before=before)
                times[name].append(measure(python, code, checkout, variables))
        print(f"{kind}, medians of {starts} starts, milliseconds:")
        for name, rows in times.items():
            line, modules = (statistics.median(column) for column in zip(*rows[1:], strict=True))  # the first compiles
            print(f"  {name:20} the line {line:6.2f}   import modules {modules:6.2f}")


def measure(python: str, code: str, checkout: Path, variables: dict[str, str]) -> tuple[float, float]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run(
        [python, "-c", code], cwd=checkout, env=environment, capture_output=True, text=True, check=True
    )
    line, modules = done.stdout.split()
    return float(line), float(modules)


if __name__ == "__main__":
    main()
