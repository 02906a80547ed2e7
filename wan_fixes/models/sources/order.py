"""Where a model's files are looked for, in which order: folders, S3, the hub, and last the hub's cache by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from wan_fixes.models.sources.folder import FolderStore, folders_of_model, local_folders
from wan_fixes.models.sources.hub import HubStore
from wan_fixes.models.sources.hub_cache import HubCache
from wan_fixes.models.sources.s3 import s3_stores
from wan_fixes.models.sources.source import Source
from wan_fixes.models.sources.web import RetryPolicy
from wan_fixes.models.sources.xet import XetStore, is_xet_wanted
from wan_fixes.models.target import Target

OFFLINE_VARIABLES: Final = ("WAN_MODELS_OFFLINE", "HF_HUB_OFFLINE")
_NO: Final = ("", "0", "off", "no", "false")


def is_offline() -> bool:
    """Whether the network must not be asked: what `WAN_MODELS_OFFLINE` says, else the hub's own `HF_HUB_OFFLINE`."""
    said = next((os.environ[name] for name in OFFLINE_VARIABLES if os.environ.get(name)), "")
    return said.lower() not in _NO


def sources_of(target: Target, retry: RetryPolicy) -> Iterator[Source]:
    """Those of a model, made one by one as they are asked for."""
    spec, variant, name = target.spec, target.variant, target.name
    for local in local_folders():
        for folder in folders_of_model(local, spec, variant, name):
            is_near = is_on_disk_of(folder, target.folder)
            yield FolderStore(folder, with_digests=is_near, components=spec.components)
    yield from s3_stores(spec, variant, name, retry=retry)
    yield (XetStore if is_xet_wanted() else HubStore)(variant.hub, retry=retry)
    yield HubCache(variant.hub)


def is_on_disk_of(folder: Path, other: Path) -> bool:
    """Whether a file of `folder` could be linked to `other`, which need not exist."""
    try:
        there = next((parent for parent in (other, *other.parents) if parent.exists()), None)
        return there is not None and folder.stat().st_dev == there.stat().st_dev
    except OSError:
        return False
