"""Small JSON files of ours, written whole or not at all, and believed only when they are sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import xxhash

from wan_fixes.errors import CriticalError
from wan_fixes.models.layout import no_space, not_writable
from wan_fixes.store.atomic import DISK_FULL, write_atomic


def write_json(path: Path, content: Any) -> None:
    """Write a line with a checksum, and JSON, in place of what is there. Raises ModelError."""
    body = json.dumps(content, separators=(",", ":")).encode("ascii")
    line = xxhash.xxh3_128_hexdigest(body).encode() + b"\n"
    try:
        write_atomic(path, [line, body], temporary_folder=path.parent)
    except CriticalError as error:
        if DISK_FULL in error.context:
            raise no_space(path, len(line) + len(body)) from error
        raise not_writable(path, error.__cause__ or error) from error


def read_json(path: Path) -> Any:
    """What `write_json` wrote, or None where there is nothing sound."""
    try:
        body = body_of(path.read_bytes())
        return None if body is None else json.loads(body)
    except (OSError, ValueError, RecursionError):
        return None


def body_of(data: bytes) -> bytes | None:
    """The JSON in the bytes of such a file, or None where its checksum is another."""
    checksum, _, body = data.partition(b"\n")
    return body if xxhash.xxh3_128_hexdigest(body).encode() == checksum else None
