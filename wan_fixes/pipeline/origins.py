"""Where a collected sample comes from, and the state of its files: what tells whether it is as it was."""

from __future__ import annotations

import marshal
import os
import time
from collections.abc import Sequence
from typing import NamedTuple

import xxhash

from wan_fixes.media import MASK_POSTFIXES, ScanResult
from wan_fixes.store.keys import STAMP_SECONDS


class Origin(NamedTuple):
    """Of one sample: its concept's number, its file below the concept's folder, which of the file's samples it is."""

    concept: int
    name: str
    chunk: int


class Listing:
    """The files of a concept's folder as they were found, and the state that those of one sample are in.

    Files that changed just now can change again within the same time stamp: their state is not to be relied on.
    """

    def __init__(self, found: ScanResult) -> None:
        self._found = found
        self._settled = (time.time() - STAMP_SECONDS) * 1e9
        self._digest: str | None = None
        self._states: dict[str, str] | None = None

    @property
    def digest(self) -> str:
        """Of all names and states together; "" when not all are to be relied on.

        While it is the same, so is each sample, of which none needs to be looked at then.
        """
        if self._digest is None:
            states = self._found.states
            is_settled = max((mtime_ns for _, mtime_ns, _ in states), default=0) < self._settled
            # In this version of its format, equal states are equal bytes; as text they take three times as long.
            self._digest = _hash(self._found.paths, marshal.dumps(states, 2)) if is_settled else ""
        return self._digest

    def state_of(self, path: str) -> str:
        """Of a file and of those that go by its name (caption, masks); "" when it is not to be relied on."""
        if self._states is None:
            self._states = self._by_stem()
        return self._states[stem_of(path)]

    def _by_stem(self) -> dict[str, str]:
        parts: dict[str, list[str]] = {}
        for path, (size, mtime_ns, file_id) in zip(self._found.paths, self._found.states, strict=True):
            stem = stem_of(path)
            text = f"{path[len(stem) :]}:{size}:{mtime_ns}:{file_id}" if mtime_ns < self._settled else ""
            parts.setdefault(stem, []).append(text)
        return {stem: _hash(texts) if all(texts) else "" for stem, texts in parts.items()}


def stem_of(path: str) -> str:
    """What the files of one sample have in common: the path without its extension, and without a mask's ending."""
    dot = path.rfind(".")
    stem = path[:dot] if dot > path.rfind(os.sep) + 1 else path  # as os.path.splitext does, in a third of its time
    if stem.endswith(MASK_POSTFIXES):
        return next(stem.removesuffix(postfix) for postfix in MASK_POSTFIXES if stem.endswith(postfix))
    return stem


def shared_state(paths: Sequence[str]) -> str:
    """The state of files that all samples of a concept share, or are to find missing; "" as in `Listing`."""
    texts = []
    for path in paths:
        try:
            found = os.stat(path)  # noqa: PTH116
        except OSError:
            texts.append("missing")
            continue
        if time.time() - found.st_mtime < STAMP_SECONDS:
            return ""
        texts.append(f"{found.st_size}:{found.st_mtime_ns}:{found.st_ino}")
    return _hash(texts)


def _hash(texts: Sequence[str], data: bytes = b"") -> str:
    return xxhash.xxh3_64_hexdigest("/".join(texts).encode("utf-8", "surrogatepass") + data)
