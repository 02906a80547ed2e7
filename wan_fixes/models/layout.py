"""Where model files lie: every path follows from the root and the model's name alone."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import Final

import platformdirs

from wan_fixes.health.text import size_text
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.names import ModelName
from wan_fixes.models.spec import ModelSpec

ROOT_VARIABLE: Final = "MODELS_ROOT"
OLD_VERSIONS: Final = "versions"
#: Windows takes no longer paths, unless somebody switched that on.
LONGEST_WINDOWS_PATH: Final = 259
#: Room for the longest file of a model below its folder, with the endings of a download.
_ROOM_FOR_FILES: Final = 170


def models_root() -> Path:
    """What `MODELS_ROOT` names, else a folder of the user's."""
    named = os.environ.get(ROOT_VARIABLE)
    if named and os.name == "nt":
        named = windows_path_of_wsl(named) or named  # a setting that is shared with WSL
    if named:
        return Path(os.path.abspath(Path(named).expanduser()))  # noqa: PTH100 - links stay as the user wrote them
    return Path(platformdirs.user_data_dir("wan-fixes", appauthor=False)) / "models"


@dataclass(frozen=True)
class ModelResolver:
    """The paths below one root. Nothing is made until it is asked for.

    Temporary files lie below the same root, so that what is complete takes its place by a rename.
    """

    root: Path

    @classmethod
    def default(cls) -> ModelResolver:
        """Below `models_root()`."""
        return cls(models_root())

    def model_folder(self, spec: ModelSpec, name: ModelName) -> Path:
        """Where a model's files are once they are complete."""
        return self.root / spec.family / name.folder_name

    def partial_folder(self, name: ModelName) -> Path:
        """Where they are until then. The same for every process and start: that is how a download goes on."""
        return self.temporary / f"{name.folder_name}.partial"

    def old_version_folder(self, name: ModelName, revision: str) -> Path:
        """Where a model lies in a revision that it no longer has, to go back to."""
        # A revision is a text from a server, and no name of a folder.
        digest = hashlib.sha256(revision.encode("utf-8", "surrogatepass")).hexdigest()
        return self.root / OLD_VERSIONS / name.folder_name / digest[:12]

    def next_folder(self, name: ModelName) -> Path:
        """Where the revision is made that is to take the model's place."""
        return self.temporary / f"{name.folder_name}.next"

    def is_old_version(self, folder: Path) -> bool:
        """Whether this is a model in a revision that it no longer has, kept to go back to."""
        return folder.parent.parent == self.root / OLD_VERSIONS

    def folder_name_of(self, folder: Path) -> str:
        """The name of the folder of the model that is in `folder`, in whichever revision: its lock has it too."""
        return folder.parent.name if self.is_old_version(folder) else folder.name

    def swap_note(self, folder_name: str) -> Path:
        """Says what is to take the place of the model in the folder of that name, until it has."""
        return self.state / "swaps" / f"{folder_name}.json"

    @property
    def temporary(self) -> Path:
        """What is not complete."""
        return self.root / ".tmp"

    @property
    def locks(self) -> Path:
        """A file for each model that somebody worked on."""
        return self.root / ".locks"

    @property
    def state(self) -> Path:
        """What is remembered between starts."""
        return self.root / ".state"

    @property
    def lock_file(self) -> Path:
        """The revisions, sizes and digests that were found at the first download."""
        return self.root / "models.lock"

    def check(self) -> None:
        """Raise ModelError when the root is a place where models cannot lie."""
        problem = problem_with_root(self.root, windows=os.name == "nt")
        if problem is not None:
            reason, fix = problem
            raise ModelError(ErrorCode.UNSAFE_PATH, "models cannot lie there", path=self.root, reason=reason, fix=fix)

    def make(self, folder: Path) -> Path:
        """Make a folder below the root. Raises ModelError where that cannot be done."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_writable(folder, error) from error
        return folder


def folders_with(root: Path, record_name: str) -> list[Path]:
    """The folders below a root of models, and of earlier revisions of them, that have a record of that name."""
    patterns = (f"wan2?/*/{record_name}", f"{OLD_VERSIONS}/*/*/{record_name}")
    return sorted(found.parent for pattern in patterns for found in root.glob(pattern))


def problem_with_root(root: PurePath, *, windows: bool) -> tuple[str, str] | None:
    """Why models cannot lie below this folder, and what helps; None where they can.

    On Windows a share (``\\\\server\\share``) will do, and so will WSL's (``\\\\wsl.localhost\\…``), if slowly; what
    begins with ``\\\\?\\`` has no limit of length.
    """
    if not windows:
        return None
    path = PureWindowsPath(root)
    text = str(path)
    if text.startswith("\\\\?\\"):
        return None
    if not path.drive or not path.root:
        return "it is relative to a drive's current folder", f"name it in full, in {ROOT_VARIABLE}"
    if len(text) + _ROOM_FOR_FILES > LONGEST_WINDOWS_PATH:
        return (
            f"with the names of files its paths become longer than the {LONGEST_WINDOWS_PATH} characters of Windows",
            f"choose a shorter folder in {ROOT_VARIABLE}, or write it as \\\\?\\{text}",
        )
    return None


def windows_path_of_wsl(path: str) -> str | None:
    """Where Windows sees a path of WSL's: ``/mnt/c/models`` as ``C:\\models``. None where it does not see it."""
    parts = path.split("/")
    if len(parts) < 3 or parts[:2] != ["", "mnt"] or len(parts[2]) != 1 or not parts[2].isalpha():
        return None
    return str(PureWindowsPath(f"{parts[2].upper()}:\\", *parts[3:]))


def no_space(path: Path, needed: int, margin: int = 0) -> ModelError:
    """What is said when `needed` bytes do not fit on the disk of `path`, with `margin` bytes left over."""
    free = free_bytes(path)
    left = f", and {size_text(margin)} are to stay free" if margin else ""
    return ModelError(
        ErrorCode.NO_SPACE,
        "the models do not fit on this disk",
        path=path,
        reason=f"{size_text(needed)} are needed{left}; {size_text(free)} are free",
        fix=f"`wan models gc` shows what can go; or name a folder on a larger disk in {ROOT_VARIABLE}",
        context={"bytes_needed": needed, "bytes_free": free},
    )


def free_bytes(path: Path) -> int:
    """What is free on the disk that a path is on, or will be; 0 where there is no such drive."""
    there = next((parent for parent in (path, *path.parents) if parent.exists()), None)
    return 0 if there is None else shutil.disk_usage(there).free


def not_writable(path: Path, error: BaseException) -> ModelError:
    """What a failed write to a folder means."""
    return ModelError(
        ErrorCode.NOT_WRITABLE,
        "the folder of models cannot be written",
        path=path,
        reason=getattr(error, "strerror", None) or str(error),
        fix=f"make it writable, or name another one in {ROOT_VARIABLE}",
    )
