"""What was measured about a clip, remembered by its content: a second run probes nothing."""

from __future__ import annotations

import array
import json
import zlib
from dataclasses import asdict
from pathlib import Path

from wan_fixes.media import VideoMetadata
from wan_fixes.store import Database

# Raise it when the probe measures something new or differently: clips are then measured again.
PROBE_VERSION = 4

_SCHEMA = """
CREATE TABLE probes (
    content TEXT NOT NULL, version INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (content, version)
) WITHOUT ROWID
"""


class ProbeMemory:
    """Table from content id to :class:`VideoMetadata`. Safe in several processes; may be deleted at any time."""

    def __init__(self, path: str | Path) -> None:
        self._database = Database(Path(path), _SCHEMA, version=1)

    def get(self, content: str, path: str) -> VideoMetadata | None:
        """What is known of the content, said of the file at `path`; None when nothing is."""
        row = self._database.read(
            lambda connection: connection.execute(
                "SELECT data FROM probes WHERE content = ? AND version = ?", (content, PROBE_VERSION)
            ).fetchone()
        )
        try:
            return None if row is None else _decode(row[0], path)
        except (ValueError, TypeError, KeyError, zlib.error):
            return None  # damaged: measured again

    def put(self, content: str, metadata: VideoMetadata) -> None:
        """Remember what was measured."""
        row = (content, PROBE_VERSION, _encode(metadata))
        self._database.write(
            lambda connection: connection.execute("INSERT OR REPLACE INTO probes VALUES (?, ?, ?)", row)
        )

    def close(self) -> None:
        """Close the database; the next use opens it again."""
        self._database.close()


def _encode(metadata: VideoMetadata) -> bytes:
    """Head (JSON) behind its length, then the frame times and the time stamps: tens of thousands for a long clip."""
    values = asdict(metadata)
    del values["path"]  # remembered by content, whatever the file is called
    times = array.array("d", values.pop("frame_times"))
    stamps = array.array("q", values.pop("timestamps"))
    head = json.dumps({**values, "frames": len(times)}).encode()
    return zlib.compress(len(head).to_bytes(4, "little") + head + times.tobytes() + stamps.tobytes(), level=1)


def _decode(data: bytes, path: str) -> VideoMetadata:
    raw = zlib.decompress(data)
    start = 4 + int.from_bytes(raw[:4], "little")
    values = json.loads(raw[4:start])
    times, stamps = array.array("d"), array.array("q")
    end = start + values.pop("frames") * times.itemsize
    times.frombytes(raw[start:end])
    stamps.frombytes(raw[end:])
    values["warnings"] = tuple(values["warnings"])
    return VideoMetadata(**values, frame_times=tuple(times), timestamps=tuple(stamps), path=path)
