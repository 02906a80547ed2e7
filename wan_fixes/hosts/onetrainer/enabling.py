"""`wan enable` and `wan disable`: installs the plugin into a checkout's environment, and takes all of it back."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer.bootstrap import PTH_LINE, PTH_NAME
from wan_fixes.hosts.onetrainer.checkout import (
    Environment,
    find_python,
    inspect_environment,
    last_line,
    require_checkout,
    run_python,
)
from wan_fixes.hosts.onetrainer.own_package import PACKAGE, VERSION, make_own_package
from wan_fixes.hosts.onetrainer.pip import errors_in, install_trouble, normal_name, read_plan, run_pip, would_move
from wan_fixes.hosts.onetrainer.state import EnabledCheckout, enabled_checkouts, find_enabled, forget, remember
from wan_fixes.hosts.onetrainer.symbols import SourceSymbols, read_from
from wan_fixes.hosts.onetrainer.touch_points import PATCHES, SUBSTITUTION

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Enabled:
    """What `enable` did."""

    checkout: Path
    python: Path
    was_enabled: bool
    """True when all was there already and nothing was done."""
    installed: dict[str, str]
    """Packages that are in the environment for our sake."""
    missing: dict[str, list[str]]
    """By touch point: the symbols that this OneTrainer lacks."""


def enable(path: Path, *, python: Path | None = None, package: str | None = None) -> Enabled:
    """Make a checkout load the plugin at its next start.

    Parameters
    ----------
    python:
        The interpreter of its environment, where that is not found by itself.
    package:
        What pip installs, a wheel or a requirement; by default this very version, packed from what is running.

    Raises
    ------
    UserError
        When it is no checkout, too old, has no environment, or installing would move a package that is there.
    """
    checkout = require_checkout(path)
    missing = _missing_symbols(checkout)
    environment = inspect_environment(find_python(checkout, python))
    pth = environment.site_packages / PTH_NAME
    was_moved = find_enabled(checkout) is None and _take_over_moved(checkout, pth)
    _forget_gone(checkout)
    entry = find_enabled(checkout)
    if entry is not None and Path(entry.pth) != pth:  # enabled in an environment that it no longer runs in
        disable(checkout)
        entry = None
    if entry is not None and package is None and not was_moved and _is_complete(entry, environment):
        return Enabled(checkout, environment.python, True, entry.installed, missing)
    entry = entry or EnabledCheckout(str(checkout), str(environment.python), str(pth))
    if package is not None or _canonical(environment.packages).get(PACKAGE) != VERSION:
        entry = _install(environment, package, entry)
    remember(entry)
    try:
        pth.write_text(PTH_LINE, encoding="ascii", newline="\n")
    except OSError as error:
        raise UserError(
            "the plugin cannot be enabled",
            path=pth,
            reason=error.strerror or str(error),
            fix="make the folder writable, and run `wan enable` again",
        ) from error
    return Enabled(checkout, environment.python, False, entry.installed, missing)


def disable(path: Path) -> EnabledCheckout:
    """Take back everything that `enable` did for a checkout, also for one that is gone or was moved.

    Returns what was undone. Raises ``UserError`` when it is not enabled.
    """
    entry = find_enabled(path)
    if entry is None and _take_over_moved(path.expanduser().resolve()):
        entry = find_enabled(path)
    if entry is None:
        known = ", ".join(other.path for other in enabled_checkouts())
        raise UserError(
            "the plugin is not enabled there",
            path=path,
            reason=f"enabled are: {known}" if known else "it is enabled nowhere",
            fix="name an enabled checkout" if known else "nothing is left to do",
        )
    others = (other for other in enabled_checkouts() if other.path != entry.path)
    sharer = next((other for other in others if other.pth == entry.pth), None)
    if sharer is not None:  # two checkouts with one environment: the other one still needs it all
        forget(entry)
        remember(replace(sharer, installed=entry.installed | sharer.installed))
        return entry
    Path(entry.pth).unlink(missing_ok=True)
    if Path(entry.python).is_file():
        _uninstall(inspect_environment(Path(entry.python)), entry.installed)
    forget(entry)
    return entry


def _missing_symbols(checkout: Path) -> dict[str, list[str]]:
    missing = SourceSymbols(read_from(checkout)).lacking(PATCHES)
    if SUBSTITUTION in missing:
        raise UserError(
            "this OneTrainer is too old",
            path=checkout,
            reason=f"it has no {', '.join(missing[SUBSTITUTION])}",
            fix="update it with its update.sh or update.bat",
        )
    return missing


def _take_over_moved(checkout: Path, pth: Path | None = None) -> bool:
    """Put `checkout` in the place of entries whose folder is gone, if it has their environment.

    That has moved along inside the folder, or is the one that `pth` lies in. So what came into it stays known.
    """
    moves = [(entry, entry.as_moved_to(checkout)) for entry in enabled_checkouts()]
    found = [(entry, moved) for entry, moved in moves if moved is not None and _has_line(moved, checkout, pth)]
    installed: dict[str, str] = {}
    for entry, moved in found:
        logger.warning("%s is gone, and %s has taken its place", entry.path, checkout)
        installed |= moved.installed
        forget(entry)
        remember(replace(moved, installed=installed))
    return bool(found)


def _has_line(moved: EnabledCheckout, checkout: Path, pth: Path | None) -> bool:
    line = Path(moved.pth)
    return line.is_file() and (line == pth or line.is_relative_to(checkout))


def _forget_gone(checkout: Path) -> None:
    """Clear the list of checkouts that were moved or deleted since, and their environments with them."""
    for entry in enabled_checkouts():
        is_gone = not Path(entry.path).exists() and not Path(entry.python).exists()
        if entry.path != str(checkout) and is_gone:
            logger.warning("%s is gone, and no longer on the list of enabled checkouts", entry.path)
            forget(entry)


def _is_complete(entry: EnabledCheckout, environment: Environment) -> bool:
    pth = Path(entry.pth)
    return (
        pth == environment.site_packages / PTH_NAME
        and pth.is_file()
        and pth.read_text(encoding="utf-8", errors="replace") == PTH_LINE
        and _canonical(environment.packages).get(PACKAGE) == VERSION
    )


# Installing


def _install(environment: Environment, package: str | None, entry: EnabledCheckout) -> EnabledCheckout:
    """Install the plugin, and only if nothing that is there would move; returns the entry with what came in."""
    before = _canonical(environment.packages)
    with tempfile.TemporaryDirectory(prefix="wan-fixes-") as temporary:
        requirement = package or str(make_own_package(Path(temporary)))
        constraints = Path(temporary) / "constraints.txt"
        pinned = {name: version for name, version in before.items() if name != PACKAGE}
        constraints.write_text("".join(f"{name}=={v}\n" for name, v in sorted(pinned.items())), encoding="utf-8")
        common = ["--constraint", str(constraints), "--disable-pip-version-check", "--no-input", requirement]
        report = Path(temporary) / "report.json"
        run_pip(environment, ["install", "--dry-run", "--report", str(report), *common], install_trouble)
        planned = read_plan(report)
        moved = [f"{name} {before[name]} → {planned[name]}" for name in planned if name in pinned]
        if moved:
            raise would_move(", ".join(moved))
        # On the list before it is done: what a kill leaves half installed can be taken back.
        entry = replace(entry, installed=entry.installed | planned)
        remember(entry)
        run_pip(environment, ["install", "--quiet", *common], install_trouble)
        if PACKAGE in before and PACKAGE not in planned:  # the same version, but another build of it was asked for
            run_pip(environment, ["install", "--quiet", "--force-reinstall", "--no-deps", *common], install_trouble)
    return entry


def _uninstall(environment: Environment, installed: dict[str, str]) -> None:
    """Remove what enabling brought in, except what was changed since or what others have come to need."""
    there = _canonical(environment.packages)
    ours = [name for name, version in installed.items() if there.get(name) == version or name == PACKAGE]
    needed = _needed_by_others(environment, ours)
    leave = [name for name in ours if name in there and name not in needed]
    if leave:
        arguments = ["uninstall", "--yes", "--quiet", "--disable-pip-version-check", *leave]
        run_pip(environment, arguments, _not_uninstalled)


# Asked of the environment itself: which of the named packages does one need that is not named?
_NEEDERS = (
    "import importlib.metadata, json, re, sys\n"
    "def normal(name): return re.sub(r'[-_.]+', '-', name).lower()\n"
    "ours = set(json.loads(sys.argv[1])); needs = {}\n"
    "for d in importlib.metadata.distributions():\n"
    "    if not d.metadata['Name']: continue\n"
    "    needs[normal(d.metadata['Name'])] = {normal(re.match(r'[\\w.-]+', r).group()) for r in d.requires or ()"
    " if 'extra' not in r.partition(';')[2]}\n"
    "kept = set(); rest = [n for n in needs if n not in ours]\n"
    "while rest:\n"
    "    new = (needs[rest.pop()] & ours) - kept; kept |= new; rest += [n for n in new if n in needs]\n"
    "print(json.dumps(sorted(kept)))"
)


def _needed_by_others(environment: Environment, ours: list[str]) -> set[str]:
    done = run_python(environment.python, ["-I", "-c", _NEEDERS, json.dumps(ours)], timeout=120)
    try:
        return set(json.loads(last_line(done.stdout)))
    except ValueError as error:
        raise _not_uninstalled(last_line(done.stderr)) from error


def _not_uninstalled(output: str) -> UserError:
    return UserError(
        "the plugin cannot be uninstalled",
        reason=errors_in(output),
        fix="it is switched off already; run `wan disable` again to remove its packages",
    )


def _canonical(packages: dict[str, str]) -> dict[str, str]:
    return {normal_name(name): version for name, version in packages.items()}
