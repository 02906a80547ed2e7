"""Where a collected sample comes from, and the state of its files: what tells whether it is as it was."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

import xxhash

from wan_fixes.media import MASK_POSTFIXES, FileState, ScanResult
from wan_fixes.store.keys import STAMP_SECONDS


class Origin(NamedTuple):
    """Of one sample: its concept's number, its file below the concept's folder, which of the file's samples it is.

    `state` is that of the file and of those that go by its name (caption, masks); "" when it is not to be relied on.
    """

    concept: int
    name: str
    chunk: int
    state: str


def stem_of(path: str) -> str:
    """What the files of one sample have in common: the path without its extension, and without a mask's ending."""
    dot = path.rfind(".")
    stem = path[:dot] if dot > path.rfind(os.sep) + 1 else path  # as os.path.splitext does, in a third of its time
    if stem.endswith(MASK_POSTFIXES):
        return next(stem.removesuffix(postfix) for postfix in MASK_POSTFIXES if stem.endswith(postfix))
    return stem


def states_by_stem(found: ScanResult) -> dict[str, str]:
    """For each stem of a folder's files what state all of them are in.

    Files that changed just now can change again within the same time stamp: they are not to be relied on.
    """
    settled = (time.time() - STAMP_SECONDS) * 1e9
    parts: dict[str, list[str]] = {}
    for path, (size, mtime_ns, file_id) in zip(found.paths, found.states, strict=True):
        stem = stem_of(path)
        text = f"{path[len(stem) :]}:{size}:{mtime_ns}:{file_id}" if mtime_ns < settled else ""
        parts.setdefault(stem, []).append(text)
    return {stem: _hash(texts) if all(texts) else "" for stem, texts in parts.items()}


def shared_state(paths: Sequence[str]) -> str:
    """The state of files that all samples of a concept share, or are to find missing; "" as in `Origin`."""
    texts = []
    for path in paths:
        try:
            found = os.stat(path)  # noqa: PTH116
        except OSError:
            texts.append("missing")
            continue
        if time.time() - found.st_mtime < STAMP_SECONDS:
            return ""
        texts.append(":".join(map(str, FileState(found.st_size, found.st_mtime_ns, found.st_ino))))
    return _hash(texts)


def _hash(texts: Sequence[str]) -> str:
    return xxhash.xxh3_64_hexdigest("/".join(texts).encode("utf-8", "surrogatepass"))
