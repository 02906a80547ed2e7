"""Which files of a download are finished: neither the next start nor the next source reads them again."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from wan_fixes.models.json_file import read_json, write_json
from wan_fixes.models.listing import RemoteFile
from wan_fixes.models.records import FileRecord

FINISHED_NAME: Final = ".done.json"
_FORMAT: Final = 1


class FinishedFiles:
    """Records of files in the folder where they are fetched to, beside them; threads may add at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._records = _read(folder / FINISHED_NAME)
        self._lock = threading.Lock()

    def right(self, file: RemoteFile) -> FileRecord | None:
        """The record of a file that is wanted, and unchanged since its digest was taken; nothing is read."""
        record = self._records.get(file.path)
        is_right = record is not None and record.is_of(file) and record.is_as(self._folder / file.path)
        return record if is_right else None

    def add(self, records: Mapping[str, FileRecord]) -> None:
        """Write down files that are finished, by path. Raises ModelError."""
        with self._lock:
            self._records.update(records)
            files = {path: record.as_json() for path, record in self._records.items()}
            write_json(self._folder / FINISHED_NAME, {"format": _FORMAT, "files": files})


def _read(path: Path) -> dict[str, FileRecord]:
    content: Any = read_json(path)
    try:
        if content["format"] != _FORMAT:
            return {}
        return {path: FileRecord.from_json(record) for path, record in content["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
