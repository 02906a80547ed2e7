"""Questions and answers as JSON: what comes from a process that reads foreign files is data, never code."""

from __future__ import annotations

import dataclasses
import json
from typing import IO, Any, Final

from wan_fixes.errors import SampleError
from wan_fixes.media.collector import Fit
from wan_fixes.media.metadata import VideoMetadata
from wan_fixes.media.plan import FramePlan
from wan_fixes.media.verdict import Verdict

#: Marks an object that stands for one of these; no field is called so.
_KIND: Final = ""
_CLASSES: Final = {kind.__name__: kind for kind in (VideoMetadata, FramePlan, Fit, Verdict)}
_ERROR_FIELDS: Final = ("what", "path", "reason", "fix", "module", "context")
_LENGTH_BYTES: Final = 4


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message and flush. Raises OSError when nobody reads it any more."""
    data = json.dumps(_plain(message)).encode("ascii")
    stream.write(len(data).to_bytes(_LENGTH_BYTES, "little") + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next message, its sequences as tuples. Raises EOFError when there is none, or only half of one."""
    length = int.from_bytes(_read(stream, _LENGTH_BYTES), "little")
    return _restored(json.loads(_read(stream, length)))


def _read(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, SampleError):
        return {_KIND: "SampleError", **{name: _plain(getattr(value, name)) for name in _ERROR_FIELDS}}
    if type(value).__name__ in _CLASSES:
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {_KIND: type(value).__name__, **fields}
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_restored(part) for part in value)
    if not isinstance(value, dict):
        return value
    fields = {name: _restored(part) for name, part in value.items()}
    kind = fields.pop(_KIND, None)
    if kind is None:
        return fields
    if kind == "SampleError":
        return SampleError(fields.pop("what"), **fields)
    return _CLASSES[kind](**fields)
