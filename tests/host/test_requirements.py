"""What the plugin requires can be installed beside what OneTrainer pins, from scratch."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def pins(checkout: Path) -> list[str]:
    """OneTrainer's pinned versions, without the packages that it takes from git and those that depend on the GPU."""
    text = (checkout / "requirements-global.txt").read_text(encoding="utf-8")
    return re.findall(r"^[A-Za-z0-9._-]+==[^\s;#]+", text, flags=re.MULTILINE)


@pytest.mark.full
def test_our_requirements_resolve_against_onetrainers_pins(tmp_path: Path) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    ours = [line.replace(" ", "") for line in setup["options"]["install_requires"].splitlines() if line.strip()]
    pinned = pins(Path(os.environ["WAN_FIXES_ONETRAINER"]))
    assert len(pinned) > 20
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("\n".join(pinned), encoding="utf-8")
    report = tmp_path / "report.json"

    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
        "--quiet",
        "--report",
        str(report),
    ]
    done = subprocess.run([*pip, "-c", str(constraints), *ours], capture_output=True, text=True, check=False)

    if done.returncode != 0 and "conflict" not in done.stderr.lower():
        pytest.skip(f"the package registry cannot be reached: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    planned = {
        item["metadata"]["name"].lower(): item["metadata"]["version"]
        for item in json.loads(report.read_text(encoding="utf-8"))["install"]
    }
    shared = {pin.partition("==")[0].lower(): pin.partition("==")[2] for pin in pinned}
    assert {name: planned[name] for name in ("numpy", "pillow", "av", "tqdm", "safetensors", "psutil")} == {
        name: shared[name] for name in ("numpy", "pillow", "av", "tqdm", "safetensors", "psutil")
    }
