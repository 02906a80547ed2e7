"""Packs this very version of the plugin into a wheel: from its sources where they are at hand, else as it is installed.

The index is never asked for it: it need not be there, and whoever has that name there need not be us.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import shutil
import sys
import zipfile
from pathlib import Path, PurePosixPath

import wan_fixes
from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer.checkout import last_line, run_python

__all__ = ["PACKAGE", "VERSION", "make_own_package"]

PACKAGE = "wan-fixes"
VERSION = wan_fixes.__version__

_BUILD_TIMEOUT = 1800.0
_SOURCES = ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE")
_SOURCE_FOLDERS = ("wan_fixes", "ui")
# What an installer writes beside the files of a wheel.
_INSTALLERS_OWN = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


def make_own_package(folder: Path) -> Path:
    """Write the wheel into `folder`, and return its path. Raises ``UserError``."""
    root = Path(wan_fixes.__file__).resolve().parent.parent
    return _build(root, folder) if (root / "setup.cfg").is_file() else _repack(root, folder)


def _build(root: Path, folder: Path) -> Path:
    # From a copy: building leaves folders beside the sources, and ships deleted files when those are old.
    copy = folder / "source"
    copy.mkdir()
    for name in _SOURCES:
        if (root / name).is_file():
            shutil.copy2(root / name, copy / name)
    for name in _SOURCE_FOLDERS:
        shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
    arguments = ["-m", "pip", "wheel", "--quiet", "--no-deps", *isolation, "--wheel-dir", str(folder), str(copy)]
    done = run_python(Path(sys.executable), arguments, timeout=_BUILD_TIMEOUT)
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode != 0 or wheel is None:
        raise _cannot_be_packed(root, last_line(done.stderr) or "pip made no wheel")
    return wheel


def _repack(root: Path, folder: Path) -> Path:
    """Put the installed files back into a wheel.

    Format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
    """
    distribution = _installed_distribution(root)
    wheel = folder / f"wan_fixes-{VERSION}-py3-none-any.whl"
    record = []
    information = ""
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in distribution.files or ():
            name = PurePosixPath(file.as_posix())
            is_in_information = name.parts[0].endswith(".dist-info")
            if is_in_information:
                information = name.parts[0]
            if (
                name.parts[0] == ".."  # the `wan` command, which an installer makes of the entry points
                or name.suffix == ".pyc"
                or (is_in_information and len(name.parts) == 2 and name.name in _INSTALLERS_OWN)
            ):
                continue
            try:
                content = Path(str(distribution.locate_file(file))).read_bytes()
            except OSError as error:
                raise _cannot_be_packed(root, f"{name}: {error.strerror or error}") from error
            archive.writestr(str(name), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode("ascii")
            record.append(f"{name},sha256={digest},{len(content)}\n")
        archive.writestr(f"{information}/RECORD", "".join(record) + f"{information}/RECORD,,\n")
    return wheel


def _installed_distribution(root: Path) -> importlib.metadata.Distribution:
    """What is known of the running package's installation; another one elsewhere on the path is not it."""
    for distribution in importlib.metadata.distributions(name=PACKAGE, path=[str(root)]):
        names = {file.name for file in distribution.files or ()}
        if distribution.version == VERSION and {"METADATA", "WHEEL"} <= names:
            return distribution
    raise _cannot_be_packed(root, f"there is neither its source nor a record of its installation as {VERSION}")


def _cannot_be_packed(root: Path, reason: str) -> UserError:
    return UserError(
        "the plugin's own package cannot be built",
        path=root,
        reason=reason,
        fix="install wan-fixes anew with pip, or name a wheel with --package",
    )
