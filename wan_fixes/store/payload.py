"""The file of one entry: a safetensors file that says what it is and carries its checksums.

The header's metadata holds the format and its version, the key, the names in order, the plain values as JSON,
`data_checksum` (xxh3_128 of the tensor bytes) and, first and at a fixed place, `checksum` (xxh3_128 of the header with
zeros in that place). So a header can be believed by itself, and with it the values and the index made from them,
without reading gigabytes of tensors; and no byte of the file can change unnoticed.

Any safetensors reader opens these files. Reading is done here, not by the library: the checksum is taken in the same
pass, and a file that is cut short while it is memory-mapped would kill the process.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from wan_fixes.errors import EntryError
from wan_fixes.store.tensors import DTYPES, DType, byte_size, empty_tensor, is_tensor, tensor_to_bytes
from wan_fixes.store.values import values_from_json, values_to_json

FORMAT = "wan_fixes.entry"
FORMAT_VERSION = 1
MAX_HEADER_BYTES = 16 << 20  # captions and settings; a longer one is no header of ours
CHUNK_BYTES = 1 << 20
MAX_REASON = 300

_LENGTH_BYTES = 8
_PREFIX = b'{"__metadata__":{"checksum":"'
_BLANK = b"0" * 32
_CHECKSUM = slice(len(_PREFIX), len(_PREFIX) + len(_BLANK))


@dataclass(frozen=True)
class TensorSpec:
    """Where one tensor lies: `start` and `stop` in bytes, counted from the end of the header."""

    dtype: DType
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """What a file says of itself, verified.

    `values_json` are the plain values as `values.values_to_json` wrote them, `data_start` and `file_bytes` count
    from the start of the file.
    """

    key: str
    names: tuple[str, ...]
    values_json: str
    tensors: dict[str, TensorSpec]
    checksum: str
    data_checksum: str
    data_start: int
    file_bytes: int


@dataclass(frozen=True)
class Encoded:
    """An entry ready to be written: its bytes in order, and what the index remembers of it."""

    parts: tuple[bytes | memoryview, ...]
    values_json: str
    checksum: str
    file_bytes: int


def encode(key: str, item: Mapping[str, Any]) -> Encoded:
    """Turn named tensors and plain values into the parts of a file.

    Tensors may be torch tensors on any device or numpy arrays; both come back as torch tensors on the CPU.

    Raises ValueError for None, NaN and infinity, TypeError for what an entry cannot hold; both name the item.
    """
    values: dict[str, Any] = {}
    tensors: dict[str, tuple[DType, tuple[int, ...], memoryview]] = {}
    for name, value in item.items():
        if type(name) is not str or name == "__metadata__":
            raise TypeError(f"{name!r} cannot be the name of an item")
        if value is None:
            raise ValueError(f"{name} is None")
        if is_tensor(value):
            tensors[name] = tensor_to_bytes(value, name)
        else:
            values[name] = value

    specs: dict[str, dict[str, Any]] = {}
    parts: list[memoryview] = []
    digest, offset = xxhash.xxh3_128(), 0
    # widest first, as the library does, so that every tensor is aligned to its element size
    for name, (dtype, shape, data) in sorted(tensors.items(), key=lambda pair: (-pair[1][0].size, pair[0])):
        specs[name] = {"dtype": dtype.name, "shape": list(shape), "data_offsets": [offset, offset + data.nbytes]}
        digest.update(data)
        parts.append(data)
        offset += data.nbytes

    values_json = values_to_json(values)
    metadata = {
        "checksum": _BLANK.decode(),
        "data_checksum": digest.hexdigest(),
        "format": FORMAT,
        "key": key,
        "names": json.dumps(list(item)),
        "values": values_json,
        "version": str(FORMAT_VERSION),
    }
    header = json.dumps({"__metadata__": metadata, **specs}, separators=(",", ":")).encode("ascii")
    header += b" " * (-len(header) % 8)
    if len(header) > MAX_HEADER_BYTES:
        raise ValueError(f"the plain values take {len(header)} bytes, more than the {MAX_HEADER_BYTES} of a header")
    checksum = _header_checksum(header)
    header = header[: _CHECKSUM.start] + checksum.encode() + header[_CHECKSUM.stop :]
    length = len(header).to_bytes(_LENGTH_BYTES, "little")
    return Encoded((length + header, *parts), values_json, checksum, _LENGTH_BYTES + len(header) + offset)


def open_entry(path: Path) -> BinaryIO:
    """Open an entry's file for `read_header`. Raises FileNotFoundError or, when it cannot be opened, EntryError."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # a pipe would wait for ever, a link may lead anywhere
            raise _bad(path, "it is not a regular file")
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(*error.args) from error
    except OSError as error:
        raise _bad(path, f"it cannot be opened: {error.strerror or error}") from error


def read_header(file: BinaryIO, path: Path, key: str, size: int | None = None) -> Header:
    """Read and verify the header of the entry that should have this key. Raises EntryError on anything unexpected.

    `size` is the entry's, in bytes, where it is only a part of the file and begins at its current place.
    """
    try:
        if size is None:
            size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES:
            raise _bad(path, "it is empty" if size == 0 else f"it is only {size} bytes long")
        if length > min(size - _LENGTH_BYTES, MAX_HEADER_BYTES):
            raise _bad(path, f"a header of {length} bytes cannot be in a file of {size}")
        raw = file.read(length)
    except OSError as error:
        raise _bad(path, f"it cannot be read: {error.strerror or error}") from error
    try:
        content = json.loads(raw.decode("ascii"))
        metadata = content.pop("__metadata__")
        found, version = metadata.get("format"), metadata.get("version")
    except (ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        raise _bad(path, "it has no header that can be read") from error
    if found != FORMAT:
        raise _bad(path, "it was not written by this program")
    if version != str(FORMAT_VERSION):
        raise _bad(path, f"it has entry format {version!r}, and this program reads {FORMAT_VERSION}")
    if metadata.get("key") != key:
        raise _bad(path, f"it is the entry of another sample, {metadata.get('key')!r}")
    if not raw.startswith(_PREFIX) or raw[_CHECKSUM] != _header_checksum(raw).encode():
        raise _bad(path, "its header does not match its checksum")
    try:
        tensors, end = _tensor_specs(content)
        names = tuple(json.loads(metadata["names"]))
        header = Header(
            key=key,
            names=names,
            values_json=metadata["values"],
            tensors=tensors,
            checksum=metadata["checksum"],
            data_checksum=metadata["data_checksum"],
            data_start=_LENGTH_BYTES + length,
            file_bytes=_LENGTH_BYTES + length + end,
        )
        if sorted(names) != sorted([*tensors, *values_from_json(header.values_json)]):
            raise ValueError("its names do not match its content")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _bad(path, f"its header is not well formed: {error}") from error
    if header.file_bytes != size:
        raise _bad(path, f"it is {size} bytes long and should be {header.file_bytes}")
    return header


def read_item(
    file: BinaryIO, path: Path, header: Header, names: Iterable[str] | None = None, *, verify: bool
) -> dict[str, Any]:
    """Read the named items (all of them by default) as torch tensors and plain values.

    `verify` reads all tensor bytes and compares their checksum. Raises EntryError when they do not match, when the
    file ends early or has no item of a name.
    """
    wanted = header.names if names is None else tuple(names)
    missing = [name for name in wanted if name not in header.names]
    if missing:
        raise _bad(path, f"it has no {', '.join(map(repr, missing))}, only {', '.join(map(repr, header.names))}")
    values = values_from_json(header.values_json)
    tensors: dict[str, Any] = {}
    digest = xxhash.xxh3_128() if verify else None
    try:
        for name, spec in header.tensors.items():  # in the order of the file
            if name in wanted:
                tensors[name], memory = empty_tensor(spec.dtype, spec.shape)
            elif digest is not None:
                memory = memoryview(bytearray(spec.stop - spec.start))
            else:
                continue
            file.seek(header.data_start + spec.start)
            _fill(file, memory, path)
            if digest is not None:
                digest.update(memory)
    except TypeError as error:
        raise _bad(path, str(error)) from error
    except OSError as error:
        raise _bad(path, f"it cannot be read: {error.strerror or error}") from error
    if digest is not None and digest.hexdigest() != header.data_checksum:
        raise _bad(path, "its tensors do not match their checksum")
    return {name: tensors[name] if name in tensors else values[name] for name in wanted}


def verify_data(file: BinaryIO, path: Path, header: Header) -> None:
    """Compare the checksum of the tensor bytes without making tensors. Raises EntryError when it differs."""
    digest = xxhash.xxh3_128()
    try:
        file.seek(header.data_start)
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    except OSError as error:
        raise _bad(path, f"it cannot be read: {error.strerror or error}") from error
    if digest.hexdigest() != header.data_checksum:
        raise _bad(path, "its tensors do not match their checksum")


def _header_checksum(header: bytes) -> str:
    digest = xxhash.xxh3_128(header[: _CHECKSUM.start])
    digest.update(_BLANK)
    digest.update(header[_CHECKSUM.stop :])
    return digest.hexdigest()


def _tensor_specs(content: Mapping[str, Any]) -> tuple[dict[str, TensorSpec], int]:
    """The tensors that a header names, gapless and in order, and where the last one ends."""
    specs: dict[str, TensorSpec] = {}
    end = 0
    for name, entry in content.items():
        dtype, shape, (start, stop) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
        if any(type(number) is not int or number < 0 for number in (*shape, start, stop)):
            raise ValueError(f"{name!r} has a shape or place that is no number")
        if start != end or stop - start != byte_size(dtype, shape):
            raise ValueError(f"{name!r} is not where it should be")
        specs[name] = TensorSpec(dtype, shape, start, stop)
        end = stop
    return specs, end


def _fill(file: BinaryIO, memory: memoryview, path: Path) -> None:
    while memory.nbytes:
        count = file.readinto(memory)  # type: ignore[attr-defined]
        if not count:
            raise _bad(path, "it ends early")
        memory = memory[count:]


def _bad(path: Path, reason: str) -> EntryError:
    return EntryError(
        "cache entry cannot be used",
        path=path,
        reason=reason[:MAX_REASON],  # it may quote the file
        fix="it is made again by itself; if this happens often, check the disk",
        module="store",
    )
