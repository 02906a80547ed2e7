"""Small JSON files of ours, written whole or not at all, and believed only when they are sound."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import xxhash

from wan_fixes.models.layout import not_writable


def write_json(path: Path, content: Any) -> None:
    """Write a line with a checksum, and JSON, in place of what is there. Raises ModelError."""
    body = json.dumps(content, separators=(",", ":")).encode("ascii")
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as stream:
                stream.write(xxhash.xxh3_128_hexdigest(body).encode() + b"\n" + body)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise not_writable(path, error) from error


def read_json(path: Path) -> Any:
    """What `write_json` wrote, or None where there is nothing sound."""
    try:
        checksum, _, body = path.read_bytes().partition(b"\n")
        if xxhash.xxh3_128_hexdigest(body).encode() != checksum:
            return None
        return json.loads(body)
    except (OSError, ValueError, RecursionError):
        return None
