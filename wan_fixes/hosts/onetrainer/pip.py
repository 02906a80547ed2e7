"""Runs pip in OneTrainer's environment, and tells apart why it fails: each reason has a fix of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer.checkout import Environment, last_line, run_python

__all__ = ["errors_in", "install_trouble", "normal_name", "read_plan", "run_pip", "would_move"]

PIP_TIMEOUT = 1800.0
"""Seconds: what is missing may be fetched over a slow network."""

_CONFLICT = ("ResolutionImpossible", "conflicting dependencies")
_NOT_FOUND = re.compile(r"No matching distribution found for (.+)")
_NETWORK = re.compile(
    r"connection broken by (.+)|(Max retries exceeded .+)|(Failed to connect to .+)|(Read timed out.*)"
    r"|(?:There was a problem confirming the ssl certificate: )(.+)",
)
_OBJECT = re.compile(r"<[^<>]* object at [^<>]*>:? ?")  # of pip's own, in the middle of what it says


def run_pip(environment: Environment, arguments: list[str], trouble: Callable[[str], UserError]) -> None:
    """Run pip. Raises ``UserError``: where pip fails, the one that `trouble` makes of all that it printed."""
    done = run_python(environment.python, ["-m", "pip", *arguments], timeout=PIP_TIMEOUT)
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise UserError(
            "OneTrainer's environment has no pip",
            path=environment.python,
            reason=last_line(done.stderr),
            fix=f'run "{environment.python}" -m ensurepip, and try again',
        )
    raise trouble(f"{done.stdout}\n{done.stderr}".strip() or f"pip ended with {done.returncode}")


def read_plan(report: Path) -> dict[str, str]:
    """What pip would install, as it wrote into `report`: versions by normal name. Raises ``UserError``."""
    try:
        items = json.loads(report.read_text(encoding="utf-8"))["install"]
        return {normal_name(item["metadata"]["name"]): item["metadata"]["version"] for item in items}
    except (OSError, ValueError, KeyError) as error:
        raise _not_installed("pip gave no report: it is older than 22.2") from error


def install_trouble(output: str) -> UserError:
    """What it is that pip cannot install for: versions against each other, the network, a package, anything else."""
    if any(mark in output for mark in _CONFLICT):
        return would_move(errors_in(output))
    network = _NETWORK.search(output)
    broken = next((text for text in network.groups() if text), "") if network else ""
    absent = _NOT_FOUND.search(output)
    if broken:
        needed = f"{absent[1].strip()}: " if absent else ""
        return UserError(
            "a package that the plugin needs cannot be fetched",
            reason=needed + _OBJECT.sub("", broken).strip(),
            fix="nothing was changed; connect to the network (or name a folder of wheels in PIP_FIND_LINKS), "
            "and run `wan enable` again",
        )
    if absent:
        return UserError(
            "a package that the plugin needs is not to be found",
            reason=errors_in(output),
            fix="nothing was changed; let pip see its index (PIP_NO_INDEX, pip's configuration), "
            "or install that package into OneTrainer's environment by hand, and run `wan enable` again",
        )
    return _not_installed(errors_in(output))


def would_move(reason: str) -> UserError:
    """The error for versions that do not go together."""
    return UserError(
        "the plugin does not fit into OneTrainer's environment",
        reason=reason,
        fix="nothing was changed; update OneTrainer, or report this with the lines above",
    )


def _not_installed(reason: str) -> UserError:
    return UserError(
        "the plugin cannot be installed",
        reason=reason,
        fix="look at pip's message, and run `wan enable` again",
    )


def errors_in(output: str) -> str:
    """What pip says went wrong: its error lines, and which requirements stand against each other."""
    lines = [line.strip() for line in output.splitlines()]
    told = [line for line in lines if line.startswith("ERROR: ") or " depends on " in line or "(constraint)" in line]
    return "; ".join(line.removeprefix("ERROR: ") for line in dict.fromkeys(told)) or last_line(output)


def normal_name(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
