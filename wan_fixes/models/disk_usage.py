"""What models take on the disk, each file once however many share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.installed import Verified
from wan_fixes.models.layout import OLD_VERSIONS, free_bytes
from wan_fixes.models.quota import bytes_on_disk


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
        shared = sum(path.stat().st_size for path in files if path.is_symlink() or path.stat().st_nlink > 1)
        folder_name = target.name.folder_name
        models.append(
            ModelUsage(
                target.spec.short_name(target.variant.name),
                sum(path.stat().st_size for path in files),
                shared,
                usage.last_used(folder_name),
                folder_name in pinned,
                usage.is_in_use(folder_name),
            )
        )
        all_files += files
    old = [path for path in (resolver.root / OLD_VERSIONS).rglob("*") if path.is_file()]
    unfinished = [path for path in resolver.temporary.rglob("*") if path.is_file()]
    current = bytes_on_disk(all_files)
    return DiskUsage(
        resolver.root,
        tuple(models),
        current,
        bytes_on_disk([*all_files, *old]) - current,
        bytes_on_disk([*all_files, *old, *unfinished]) - bytes_on_disk([*all_files, *old]),
        free_bytes(resolver.root),
    )


def _files_of(folder: Path) -> list[Path]:
    verified = Verified.read(folder)
    names = [] if verified is None else verified.files
    return [folder / name for name in names if (folder / name).is_file()]
