"""A OneTrainer checkout on disk: whether it is one, which Python it runs with, and what that environment holds."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from wan_fixes.errors import UserError

_MARKS = ("scripts/train.py", "modules/util/create.py", "modules/util/config/TrainConfig.py")
_ASK_TIMEOUT = 120.0

# Asked of the environment's own interpreter; -I keeps the user's PYTHON* variables and site-packages out.
_QUESTION = (
    "import importlib.metadata, json, sys, sysconfig\n"
    "found = {}\n"
    "for d in importlib.metadata.distributions():\n"
    "    name = d.metadata['Name']\n"
    "    if name: found.setdefault(name, d.version)\n"
    "print(json.dumps({'version': sys.version.split()[0], 'site_packages': sysconfig.get_path('purelib'),"
    " 'packages': found}))"
)


@dataclass(frozen=True, slots=True)
class Environment:
    """The Python environment that a checkout runs in."""

    python: Path
    version: str
    site_packages: Path
    packages: dict[str, str]
    """Name and version of every installed package."""


def require_checkout(path: Path) -> Path:
    """The checkout at `path`, absolute and resolved. Raises ``UserError`` when there is none."""
    folder = path.expanduser()
    if not folder.is_dir():
        raise UserError(
            "there is no OneTrainer",
            path=folder,
            reason="it is a file" if folder.exists() else "no such folder",
            fix="name the folder that holds OneTrainer's start-ui.sh and scripts/train.py",
        )
    missing = [mark for mark in _MARKS if not (folder / mark).is_file()]
    if missing:
        raise UserError(
            "this is no OneTrainer checkout",
            path=folder,
            reason=f"there is no {missing[0]} in it",
            fix="name the folder that holds OneTrainer's start-ui.sh and scripts/train.py",
        )
    return folder.resolve()


def find_python(checkout: Path, named: Path | None = None) -> Path:
    """The interpreter that the checkout's launchers use, or the one `named`.

    They look for a virtual environment, ``venv`` or what OT_PYTHON_VENV (on Windows VENV_DIR) names, and for one of
    conda. Raises ``UserError`` when there is none.
    """
    if named is not None:
        python = Path(os.path.abspath(named.expanduser()))  # noqa: PTH100 - resolving would leave the virtual environment
        if python.is_file():
            return python
        raise UserError("there is no Python", path=python, reason="no such file", fix="name an interpreter")
    venv = os.environ.get("OT_PYTHON_VENV") or os.environ.get("VENV_DIR") or "venv"
    folders = [checkout / venv, checkout / (os.environ.get("OT_CONDA_ENV") or "conda_env")]
    for folder in folders:
        for place in ("bin/python", "Scripts/python.exe", "python.exe"):
            if (folder / place).is_file():
                return folder / place
    raise UserError(
        "OneTrainer has no Python environment",
        path=checkout,
        reason=f"there is no {' and no '.join(str(folder.name) for folder in folders)} in it",
        fix="run its install.sh or install.bat first; for an environment elsewhere add --python with its interpreter",
    )


def inspect_environment(python: Path) -> Environment:
    """Ask an interpreter what its environment holds. Raises ``UserError`` when it cannot be run."""
    done = run_python(python, ["-I", "-c", _QUESTION], timeout=_ASK_TIMEOUT)
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
        return Environment(python, answer["version"], Path(answer["site_packages"]), answer["packages"])
    except (IndexError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            "OneTrainer's Python does not answer",
            path=python,
            reason=last_line(done.stderr) or f"exit code {done.returncode}",
            fix="repair the environment with OneTrainer's install or update script",
        ) from error


def run_python(
    python: Path, arguments: list[str], *, timeout: float, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run an interpreter and return what it printed. Raises ``UserError`` when it cannot be started or hangs."""
    # No byte code beside its sources: what is written into the environment is what we say we write.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"}
    environment.pop("PYTHONPATH", None)
    environment.pop("PYTHONHOME", None)
    try:
        return subprocess.run(
            [str(python), *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=timeout,
            cwd=cwd,
            env=environment,
        )
    except OSError as error:
        raise UserError(
            "OneTrainer's Python cannot be started",
            path=python,
            reason=error.strerror or str(error),
            fix="repair the environment with OneTrainer's install or update script",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UserError(
            "OneTrainer's Python does not come back",
            path=python,
            reason=f"no answer in {timeout:.0f} seconds",
            fix="look whether the disk or the network hangs, and try again",
        ) from error


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
