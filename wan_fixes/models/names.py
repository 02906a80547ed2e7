"""How models and their files are called: canonical ids, and names of files that are safe on every system."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from wan_fixes.models.failures import ErrorCode, ModelError

#: Files of these kinds can run code when they are loaded: they are never fetched.
FORBIDDEN_SUFFIXES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".py", ".pyc", ".exe", ".dll", ".so")

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FULL_NAME: Final = re.compile(r"(?P<id>[^@#]+)(?:@(?P<version>[^@#]+))?(?:#(?P<variant>[^@#]+))?")
_VERSION: Final = re.compile(r"\d{1,6}(\.\d{1,6}){0,3}(-[A-Za-z0-9.]{1,32})?", re.ASCII)
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_FORBIDDEN: Final = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_RESERVED: Final = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?")
_LONGEST_NAME: Final = 255
_LONGEST_PATH: Final = 1024


class ModelName(NamedTuple):
    """One model in one version and variant; as text ``t2v-A14B@2.2.0#original``."""

    model_id: str
    version: str
    variant: str

    def __str__(self) -> str:
        return f"{self.model_id}@{self.version}#{self.variant}"

    @property
    def folder_name(self) -> str:
        """What its folder is called."""
        return f"{self.model_id}@{self.version}-{self.variant}"


class Wanted(NamedTuple):
    """A model as somebody names it: what was left out is None."""

    model_id: str
    version: str | None
    variant: str | None


def parse_name(text: str) -> Wanted:
    """Read ``ID``, ``ID@VERSION`` or ``ID@VERSION#VARIANT``. Raises ModelError for anything else."""
    match = _FULL_NAME.fullmatch(text.strip())
    if match is None or not is_id(match["id"]) or not all(is_id(match[part] or "x") for part in ("version", "variant")):
        raise ModelError(
            ErrorCode.UNKNOWN_MODEL,
            "this is no name of a model",
            reason=f"{text[:100]!r} has not the form ID, ID@VERSION or ID@VERSION#VARIANT",
            fix="write it as `wan models list` does",
        )
    return Wanted(match["id"], match["version"], match["variant"])


def is_id(text: str) -> bool:
    """Whether this can be the id of a model, or a variant's, and a folder's name on every system."""
    return _ID.fullmatch(text) is not None and not text.endswith(".") and not _RESERVED.fullmatch(text)


def is_version(text: str) -> bool:
    """Whether this is a version: numbers with dots."""
    return _VERSION.fullmatch(text) is not None


def problem_with_path(path: str) -> str | None:
    """Why a file's path below its model's folder cannot be used, on this system or another one; None when it can."""
    if not path or len(path) > _LONGEST_PATH:
        return "it is empty" if not path else f"it is longer than {_LONGEST_PATH} characters"
    if path.startswith("/") or _FORBIDDEN.search(path):
        return "it leads out of the model's folder, or has characters that file systems do not take"
    for name in path.split("/"):
        if name in ("", ".", ".."):
            return "it leads out of the model's folder"
        if name.endswith((".", " ")) or name.startswith(" ") or _RESERVED.fullmatch(name):
            return f"Windows has no files called {name!r}"
        if len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME:
            return f"a part of it is longer than {_LONGEST_NAME} bytes"
    if path.lower().endswith(FORBIDDEN_SUFFIXES):
        return "files of this kind can run code when they are loaded"
    return None


def check_paths(paths: Iterable[str], of: str, code: ErrorCode = ErrorCode.UNSAFE_PATH) -> None:
    """Raise ModelError unless all paths can be files of one folder, on every system. `of` says whose they are."""
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}

    def refuse(path: str, reason: str) -> ModelError:
        return ModelError(
            code,
            f"a file of {of} cannot be stored",
            reason=f"{path[:200]!r}: {reason}",
            fix="tell whoever wrote this list of files; nothing was written",
        )

    for path in paths:
        problem = problem_with_path(path)
        if problem is not None:
            raise refuse(path, problem)
        folded = path.casefold()
        if folded in seen:
            same = "it is listed twice" if seen[folded] == path else f"only its case differs from {seen[folded]!r}"
            raise refuse(path, same)
        seen[folded] = path
        parts = path.split("/")
        for end in range(1, len(parts)):
            folder = "/".join(parts[:end])
            if folders.setdefault(folder.casefold(), folder) != folder:
                raise refuse(path, f"only the case of its folder differs from {folders[folder.casefold()]!r}")
    for folded, path in seen.items():
        if folded in folders:
            raise refuse(path, "it is a file and a folder at once")
