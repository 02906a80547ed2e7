"""Files that several models share take their place on the disk once."""

from __future__ import annotations

import contextlib
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from wan_fixes.models.installed import VERIFIED_NAME, Verified
from wan_fixes.models.layout import ModelResolver, folders_with
from wan_fixes.models.linking import share
from wan_fixes.models.locks import LockManager
from wan_fixes.models.nearby import SMALLEST_SHARED
from wan_fixes.models.publishing import disk_errors
from wan_fixes.models.records import sha256_of
from wan_fixes.store.atomic import replace_patiently

_State = tuple[int, int, int]


@dataclass(frozen=True)
class Duplicate:
    """A file that is there twice: `path` can become another name of `same_as`.

    Attributes
    ----------
    size:
        Bytes that are free then.
    folder:
        Of the model that `path` is in.
    models:
        The names of the locks of the models of both.
    """

    path: Path
    same_as: Path
    size: int
    sha256: str
    folder: Path
    models: tuple[str, ...]


def find_duplicates(resolver: ModelResolver) -> list[Duplicate]:
    """Files of complete models with the same content that are not yet the same file. Nothing is read but records."""
    by_content: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    for folder in folders_with(resolver.root, VERIFIED_NAME):
        verified = Verified.read(folder)
        for name in () if verified is None else verified.files:
            record = None if verified is None else verified.right(folder, name)
            if record is not None and record.size >= SMALLEST_SHARED and not (folder / name).is_symlink():
                by_content[record.sha256].append((folder / name, folder))
    found = []
    for sha256, files in by_content.items():
        first, first_folder = files[0]
        for path, folder in files[1:]:
            if not path.samefile(first):
                models = tuple(sorted({resolver.folder_name_of(one) for one in (folder, first_folder)}))
                found.append(Duplicate(path, first, path.stat().st_size, sha256, folder, models))
    return found


def remove_duplicates(
    duplicates: list[Duplicate], locks: LockManager, on_done: Callable[[int], None] = lambda _: None
) -> list[Duplicate]:
    """Make of each duplicate another name of the file that it is the same as; returns those where that was possible.

    The file that stays is read first: a spoilt one must not take the place of a sound one. What is in use where that
    keeps it from being replaced (Windows) is passed over. Raises ModelError where the disk refuses.
    """
    sound: dict[tuple[Path, _State], bool] = {}
    done = []
    for number, one in enumerate(duplicates, 1):
        with contextlib.ExitStack() as held, disk_errors(one.path):
            for name in one.models:  # in the order of their names, so that no two wait for each other
                held.enter_context(locks.hold(name))
            if one.same_as.is_file():
                state = _state_of(one.same_as)
                if (one.same_as, state) not in sound:
                    sound[one.same_as, state] = sha256_of(one.same_as) == one.sha256
                if sound[one.same_as, state] and _link(one, state):
                    done.append(one)
        on_done(number)
    return done


def _state_of(path: Path) -> _State:
    """What is another one when the file was changed, or replaced."""
    state = path.stat()
    return state.st_ino, state.st_mtime_ns, state.st_size


def _link(one: Duplicate, read: _State) -> bool:
    verified = Verified.read(one.folder)
    name = one.path.relative_to(one.folder).as_posix()
    record = None if verified is None else verified.right(one.folder, name)
    if verified is None or record is None or record.sha256 != one.sha256:
        return False  # it was changed meanwhile
    temporary = one.path.with_name(f"{uuid.uuid4().hex}.tmp")
    if not share(one.same_as, temporary):
        return False
    try:
        if _state_of(one.same_as) != read:
            return False
        replace_patiently(temporary, one.path)
    except PermissionError:
        return False  # somebody has it open
    finally:
        temporary.unlink(missing_ok=True)
    files = {**verified.files, name: replace(record, mtime_ns=one.path.stat().st_mtime_ns)}
    replace(verified, files=files).write(one.folder)
    return True
