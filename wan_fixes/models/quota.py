"""How much the models of a root may take on the disk, where somebody says so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from wan_fixes.health.text import size_from, size_text
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.file_states import bytes_on_disk, states_below
from wan_fixes.models.layout import OLD_VERSIONS

QUOTA_VARIABLE: Final = "WAN_MODELS_QUOTA"
DEFAULT_QUOTA: Final = 50_000_000_000


def quota_bytes() -> int | None:
    """What `WAN_MODELS_QUOTA` says ("200GB"); None where it says nothing. Raises ModelError where it is no size."""
    text = os.environ.get(QUOTA_VARIABLE, "").strip()
    if not text:
        return None
    size = size_from(text)
    if size is None:
        raise ModelError(
            ErrorCode.INVALID_CONFIG,
            f"{QUOTA_VARIABLE} is no size",
            reason=f"it is {text[:40]!r}",
            fix="write it like 200GB",
        )
    return size


def check_quota(root: Path, to_come: int) -> None:
    """Raise ModelError (NO_SPACE) when so many more bytes below `root` are more than the quota."""
    quota = quota_bytes()
    if quota is None:
        return
    # Less what is downloaded halfway, which is to come.
    folders = [*root.glob("wan2?"), root / OLD_VERSIONS]
    there = bytes_on_disk(file for folder in folders for file in states_below(folder))
    if there + to_come > quota:
        raise ModelError(
            ErrorCode.NO_SPACE,
            "the models would take more than their quota",
            path=root,
            reason=f"{size_text(there)} are there, {size_text(to_come)} are to come, and {QUOTA_VARIABLE} allows "
            f"{size_text(quota)}",
            fix=f"`wan models gc` shows what can go; or raise {QUOTA_VARIABLE}",
            context={"bytes_needed": to_come, "bytes_there": there, "quota": quota},
        )
