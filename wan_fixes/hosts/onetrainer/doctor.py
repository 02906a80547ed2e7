"""`wan doctor`: what a checkout has and lacks for the plugin, and what to do. Changes nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

import wan_fixes
from wan_fixes.errors import UserError
from wan_fixes.filesystem import network_file_system
from wan_fixes.hosts.onetrainer.bootstrap import PTH_LINE
from wan_fixes.hosts.onetrainer.checkout import (
    Environment,
    find_python,
    inspect_environment,
    require_checkout,
    run_python,
)
from wan_fixes.hosts.onetrainer.gpu import Devices, ask_torch
from wan_fixes.hosts.onetrainer.state import enabled_checkouts, find_enabled
from wan_fixes.hosts.onetrainer.symbols import SourceSymbols, read_from
from wan_fixes.hosts.onetrainer.touch_points import PATCHES
from wan_fixes.settings import Settings, settings_path

_SWITCHES = ("enabled", "validate_pipelines", "ensure_models", "check_models", "check_configuration")
_GIGABYTE = 1000**3
_GIBIBYTE = 1024**3  # what the memory of GPUs is counted in
_LITTLE_DISK = 50 * _GIGABYTE  # a 5B model with its text encoder and a cache of latents
_LITTLE_MEMORY = 16 * _GIGABYTE
_PYTHONS = ((3, 10), (3, 13))
_REQUIREMENTS = ("requirements-global.txt",)
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)")
# What decides whether WAN loads and trains; the other pins are OneTrainer's own affair.
_WATCHED = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface-hub", "av", "numpy", "mgds")
_ASK_SECONDS = 20.0

Status = Literal["good", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    """What group it belongs to: OneTrainer, plugin, environment, touch points, machine."""
    name: str
    status: Status
    found: str
    fix: str = ""


def diagnose(path: Path, *, python: Path | None = None) -> list[Finding]:
    """Look at a checkout, its environment and this machine. Raises ``UserError`` when there is no checkout at all."""
    checkout = require_checkout(path)
    findings = [*_checkout(checkout)]
    environment = None
    try:
        environment = inspect_environment(find_python(checkout, python))
    except UserError as error:
        findings.append(Finding("environment", "Python", "problem", error.reason, error.fix))
    findings += _plugin(checkout, environment)
    if environment is not None:
        findings += _environment(checkout, environment)
    findings += _touch_points(checkout)
    findings += _machine(checkout, environment)
    return findings


def _checkout(checkout: Path) -> Iterator[Finding]:
    commit = _ask(["git", "-C", str(checkout), "log", "-1", "--format=%h of %as"])
    yield Finding("OneTrainer", "checkout", "good", f"{checkout}, commit {commit}" if commit else str(checkout))
    changed = _ask(["git", "-C", str(checkout), "status", "--short", "--untracked-files=no"])
    if changed:
        files = f"changed: {', '.join(line.split()[-1] for line in changed.splitlines()[:5])}"
        yield Finding("OneTrainer", "sources", "warning", files, "if something does not work, look whether that is why")


def _plugin(checkout: Path, environment: Environment | None) -> Iterator[Finding]:
    entry = find_enabled(checkout)
    if entry is None:
        before = _place_before(checkout)
        found = f"no: it was in {before}, and moved since" if before else "no"
        yield Finding("plugin", "enabled", "problem", found, f'wan enable "{checkout}"')
    else:
        pth = Path(entry.pth)
        is_there = pth.is_file() and pth.read_text(encoding="utf-8", errors="replace") == PTH_LINE
        again = "" if is_there else f'wan enable "{checkout}"'
        found = "yes" if is_there else f"yes, but {pth} is missing or changed"
        yield Finding("plugin", "enabled", "good" if is_there else "problem", found, again)
    if environment is not None and entry is not None:
        version = environment.packages.get("wan-fixes")
        if version == wan_fixes.__version__:
            yield Finding("plugin", "version", "good", version)
        else:
            found = f"{version or 'none'} in OneTrainer's environment, {wan_fixes.__version__} here"
            yield Finding("plugin", "version", "problem", found, f'wan enable "{checkout}"')
    try:
        settings = Settings.load()
        off = [name for name in _SWITCHES if not getattr(settings, name)]
        found = f"switched off: {', '.join(off)}" if off else "everything is switched on"
        yield Finding(
            "plugin",
            "settings",
            "warning" if off else "good",
            found,
            f"switch it on again in the plugin's tab of OneTrainer's window, or in {settings_path()}" if off else "",
        )
    except UserError as error:
        yield Finding("plugin", "settings", "problem", str(error), error.fix)


def _place_before(checkout: Path) -> str | None:
    """Where a checkout was when the plugin was enabled for it, if its folder was moved with its environment."""
    for entry in enabled_checkouts():
        moved = entry.as_moved_to(checkout)
        if moved is not None and Path(moved.pth).is_relative_to(checkout) and Path(moved.pth).is_file():
            return entry.path
    return None


def _environment(checkout: Path, environment: Environment) -> Iterator[Finding]:
    version = tuple(int(part) for part in environment.version.split(".")[:2])
    is_known = _PYTHONS[0] <= version <= _PYTHONS[1]
    yield Finding(
        "environment",
        "Python",
        "good" if is_known else "problem",
        f"{environment.version}, {environment.python}",
        "" if is_known else "make its environment anew with one of Python 3.10 to 3.13: OneTrainer's install script",
    )
    pins = _pins(checkout)
    for name in _WATCHED:
        there = _version_of(environment, name)
        wanted = pins.get(name)
        if there is None:
            yield Finding("environment", name, "problem", "not installed", "run OneTrainer's update.sh or update.bat")
        elif wanted is not None and there != wanted:
            fix = "run OneTrainer's update.sh or update.bat, if something does not work"
            yield Finding("environment", name, "warning", f"{there}, and OneTrainer asks for {wanted}", fix)
        else:
            yield Finding("environment", name, "good", there)
    if "wan-fixes" in environment.packages:
        done = run_python(environment.python, ["-m", "pip", "check", "--disable-pip-version-check"], timeout=120)
        for line in done.stdout.splitlines():
            if line.startswith("wan-fixes "):
                fix = f'wan disable "{checkout}", then wan enable "{checkout}"'
                yield Finding("environment", "requirements", "problem", line, fix)


def _touch_points(checkout: Path) -> Iterator[Finding]:
    symbols = SourceSymbols(read_from(checkout))
    lacking = symbols.lacking(PATCHES)
    for patch in PATCHES:
        if patch.name in lacking:
            found = f"no {', '.join(lacking[patch.name])}: without it there is no {patch.why}"
            fix = "update OneTrainer, or the plugin if that is older"
            yield Finding("touch points", patch.name, "warning", found, fix)
        elif not symbols.missing(patch):
            yield Finding("touch points", patch.name, "good", f"found in {patch.module}")


def _machine(checkout: Path, environment: Environment | None) -> Iterator[Finding]:
    free = shutil.disk_usage(checkout).free
    little = "models and cached latents take tens of gigabytes: name folders on another disk in the preset"
    yield _enough("disk", free, _LITTLE_DISK, "free at the checkout", little)
    network = network_file_system(checkout)
    if network is not None:
        fix = "name a cache_dir on a local disk in the preset"
        yield Finding("machine", "file system", "warning", f"the checkout lies on {network}, a network drive", fix)
    memory = psutil.virtual_memory().total
    little = "take a preset for little memory: WAN's text encoder alone takes 11 GB in bf16"
    yield _enough("memory", memory, _LITTLE_MEMORY, "of main memory", little)
    nvidia = _ask(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"])
    yield gpu_finding(ask_torch(environment) if environment is not None else None, "; ".join(nvidia.splitlines()))


def gpu_finding(devices: Devices | None, nvidia: str) -> Finding:
    """What there is to train on: what OneTrainer's torch can use, beside what NVIDIA's driver lists.

    `devices` is None where there is no environment to ask.
    """
    if devices is None or devices.trouble:
        why = "there is no environment" if devices is None else f"torch does not answer: {devices.trouble}"
        found = f"{nvidia}; {why}" if nvidia else f"not known: {why}"
        return Finding("machine", "GPU", "warning", found, "run OneTrainer's install or update script")
    torch = f"torch {devices.version}"
    if devices.gpus:
        names = "; ".join(f"{name}, {memory / _GIBIBYTE:.0f} GiB" for name, memory in devices.gpus)
        return Finding("machine", "GPU", "good", f"{names} ({torch}{', ROCm' if devices.rocm else ''})")
    if devices.has_mps:
        return Finding("machine", "GPU", "good", f"Apple's, through MPS ({torch})")
    if nvidia:
        fix = "update NVIDIA's driver, and run OneTrainer's update.sh or update.bat for a CUDA build of torch"
        return Finding("machine", "GPU", "problem", f"{nvidia}, but {torch} cannot use it", fix)
    fix = "without a GPU only tiny models train; if there is one, install its driver and the build of torch for it"
    return Finding("machine", "GPU", "warning", f"{torch} sees none", fix)


def _enough(name: str, size: int, least: int, what: str, fix: str) -> Finding:
    is_enough = size >= least
    found = f"{size / _GIGABYTE:.0f} GB {what}"
    return Finding("machine", name, "good" if is_enough else "warning", found, "" if is_enough else fix)


def _pins(checkout: Path) -> dict[str, str]:
    """The versions that the checkout asks for, by normal name; not those that depend on the GPU."""
    pins = {}
    for name in _REQUIREMENTS:
        file = checkout / name
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
        for match in filter(None, map(_PIN.match, lines)):
            pins[_normal(match[1])] = match[2]
    return pins


def _version_of(environment: Environment, name: str) -> str | None:
    """The version of a package, or where it lies if that is a folder on the path; None if it cannot be imported."""
    versions = (version for other, version in environment.packages.items() if _normal(other) == name)
    version = next(versions, None)
    if version is None:
        # Not `origin`: a namespace package, as mgds is, has none.
        question = (
            f"import importlib.util as u; s = u.find_spec({name!r})\n"
            "print(next(iter(s.submodule_search_locations or [s.origin or '']))) if s else None"
        )
        done = run_python(environment.python, ["-I", "-c", question], timeout=_ASK_SECONDS)
        if done.returncode == 0 and done.stdout.strip():
            return f"sources in {done.stdout.strip()}"
    return version


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _ask(command: list[str]) -> str:
    """What a program prints; empty when it is not there, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
