"""What models take on the disk, each file once however many share it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.file_states import bytes_on_disk, states_below, states_of
from wan_fixes.models.installed import Verified
from wan_fixes.models.layout import OLD_VERSIONS, free_bytes


@dataclass(frozen=True)
class ModelUsage:
    """Of one model.

    Attributes
    ----------
    bytes:
        Of its files.
    shared:
        Of those that another model has too, or a place outside.
    last_used:
        Seconds since 1970; None where it never was.
    """

    name: str
    bytes: int
    shared: int
    last_used: float | None
    is_pinned: bool
    is_in_use: bool


@dataclass(frozen=True)
class DiskUsage:
    """Of all models below a root. In bytes; `bytes` is that of complete models, each file once."""

    root: Path
    models: tuple[ModelUsage, ...]
    bytes: int
    old_versions: int
    unfinished: int
    free: int

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "root": str(self.root)}


def disk_usage(ensurer: ModelEnsurer, names: Sequence[str]) -> DiskUsage:
    """Look at these models, and at what is left of others. Nothing is read but names and sizes."""
    resolver, usage = ensurer.resolver, ensurer.usage
    pinned = usage.pinned()
    models, all_files = [], []
    for target in map(ensurer.target, names):
        files = _files_of(target.folder)
        contents = list(_contents_of(files))
        shared = sum(state.st_size for path, state in contents if path.is_symlink() or state.st_nlink > 1)
        folder_name = target.name.folder_name
        models.append(
            ModelUsage(
                target.spec.short_name(target.variant.name),
                sum(state.st_size for _, state in contents),
                shared,
                usage.last_used(folder_name),
                folder_name in pinned,
                usage.is_in_use(folder_name),
            )
        )
        all_files += files
    published = list(states_of(all_files))
    old = list(states_below(resolver.root / OLD_VERSIONS))
    unfinished = list(states_below(resolver.temporary))
    current, with_old = bytes_on_disk(published), bytes_on_disk([*published, *old])
    return DiskUsage(
        resolver.root,
        tuple(models),
        current,
        with_old - current,
        bytes_on_disk([*published, *old, *unfinished]) - with_old,
        free_bytes(resolver.root),
    )


def _files_of(folder: Path) -> list[Path]:
    verified = Verified.read(folder)
    names = [] if verified is None else verified.files
    return [folder / name for name in names]


def _contents_of(files: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Each file that is there, with its state; of a symbolic link that of the file that it leads to."""
    for path in files:
        with contextlib.suppress(OSError):
            yield path, path.stat()
