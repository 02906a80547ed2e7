"""The list of a cache's samples: what each was made of, and which entries it has.

With it a start need not look at what has not changed, and a training needs no sources that are not there. It is made
anew when it is lost: the entries are the truth. A manifest that came with an archive is data from elsewhere: it is
checked whole before any of it is used.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import xxhash

from wan_fixes.store.atomic import write_atomic
from wan_fixes.store.layout import KEY, MANIFESTS

MANIFEST_SUFFIX: Final = ".json"
KEPT: Final = 16
"""So many of a store's manifests stay, the latest: each belongs to one set of settings."""

_FORMAT: Final = 3
_COLUMNS: Final = ("names", "chunks", "states", "counts")
# Of one file.
_MOST_SAMPLES: Final = 1_000_000
_IDENTITY: Final = re.compile(r"[0-9a-f]{32}")
_FORBIDDEN: Final = re.compile(r"[\0\\]|^/|^[A-Za-z]:|(^|/)\.{1,2}(/|$)|//")


@dataclass(slots=True)
class SampleRow:
    """One sample of a concept.

    Attributes
    ----------
    name:
        Its file below the concept's folder, with ``/`` between the parts.
    chunk:
        Which of the file's samples it is, from 0.
    state:
        Of the file and of those that go by its name; "" when it was not to be relied on.
    count:
        How many samples its file gives.
    keys:
        Its entries, by number: of each variation in turn those of its parts.
    """

    name: str
    chunk: int
    state: str
    count: int
    keys: dict[int, str]


@dataclass(slots=True)
class Samples:
    """Those of one concept, in columns: a start goes over 100,000 of them in C.

    `keys` has a column for each number, with "" for a sample that has no such entry.
    """

    names: list[str] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    keys: dict[int, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[SampleRow]) -> Samples:
        """These rows, in their order."""
        rows = list(rows)
        numbers = sorted({number for row in rows for number in row.keys})
        return cls(
            [row.name for row in rows],
            [row.chunk for row in rows],
            [row.state for row in rows],
            [row.count for row in rows],
            {number: [row.keys.get(number, "") for row in rows] for number in numbers},
        )

    def __len__(self) -> int:
        return len(self.names)

    def rows(self) -> list[SampleRow]:
        """One by one."""
        columns = zip(self.names, self.chunks, self.states, self.counts, strict=True)
        return [SampleRow(*fields, self.keys_of(place)) for place, fields in enumerate(columns)]

    def keys_of(self, place: int) -> dict[int, str]:
        """The entries of the sample at that place."""
        return {number: column[place] for number, column in self.keys.items() if column[place]}

    def extend(self, others: Samples) -> None:
        """Put others behind these."""
        for number in self.keys.keys() | others.keys.keys():
            column = self.keys.setdefault(number, [""] * len(self))
            column += others.keys.get(number) or [""] * len(others)
        self.names += others.names
        self.chunks += others.chunks
        self.states += others.states
        self.counts += others.counts


@dataclass(slots=True)
class Manifest:
    """What one cache has of its samples, concept by concept.

    Attributes
    ----------
    concepts:
        The samples of each enabled concept.
    digests:
        Of all files of each concept, as they were listed.
    extras:
        For each concept the state of the files that all its samples share.
    labels:
        What each concept is called.
    carried:
        For each concept whether its samples came with an archive: only then they are trained on without their files.
        A folder of one's own that is not there is a mistake.
    entries:
        Bytes and plain values (JSON) of the entries that the samples have, by key.
    quarantine:
        What the list of bad files was then.
    folder_times:
        When an entry last came or went, by the first two digits of the keys (ns): since then all are there.
    """

    concepts: list[Samples] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    carried: list[bool] = field(default_factory=list)
    entries: dict[str, tuple[int, str]] = field(default_factory=dict)
    quarantine: str = ""
    folder_times: dict[str, int] = field(default_factory=dict)

    def joined(self, other: Manifest) -> Manifest:
        """These samples with the entries that `other` has of them too, and those that only it has.

        Other concepts are other settings: then nothing is taken over. Of a sample whose files here are not those that
        `other` knows, these entries stay, unless they were carried here too: then the later ones count.
        """
        if len(other.concepts) != len(self.concepts):
            return self
        concepts, digests = [], []
        for number, others in enumerate(other.concepts):
            rows = {(row.name, row.chunk): row for row in self.concepts[number].rows()}
            for row in others.rows():
                own = rows.setdefault((row.name, row.chunk), row)
                if own.state == row.state:
                    own.keys = row.keys | own.keys
                elif self.carried[number]:
                    rows[row.name, row.chunk] = row
            concepts.append(Samples.of(rows.values()))
            # Not all rows are of the folder that it was made of.
            digests.append("" if others else self.digests[number])
        return replace(self, concepts=concepts, digests=digests, labels=other.labels, carried=other.carried)

    def to_bytes(self) -> bytes:
        """A line with a checksum, and JSON."""
        columns = (self.concepts, self.digests, self.extras, self.labels, self.carried)
        # Many samples have the same plain values, which take long to read as JSON in JSON.
        texts = list(dict.fromkeys(values for _, values in self.entries.values()))
        places = {values: place for place, values in enumerate(texts)}
        content = {
            "format": _FORMAT,
            "quarantine": self.quarantine,
            "folder_times": self.folder_times,
            "concepts": [
                {"label": label, "carried": carried, "digest": digest, "extra": extra}
                | {name: getattr(samples, name) for name in _COLUMNS}
                | {"keys": samples.keys}
                for samples, digest, extra, label, carried in zip(*columns, strict=True)
            ],
            "entries": {
                "keys": list(self.entries),
                "sizes": [size for size, _ in self.entries.values()],
                "texts": texts,
                "values": [places[values] for _, values in self.entries.values()],
            },
        }
        body = json.dumps(content, separators=(",", ":")).encode("ascii")
        return xxhash.xxh3_128_hexdigest(body).encode("ascii") + b"\n" + body


def parse_manifest(data: bytes) -> Manifest:
    """Read what `Manifest.to_bytes` wrote. Raises ValueError for anything else, as far as a checksum can tell."""
    if not _is_whole(data):
        raise ValueError("its checksum is not that of its content")
    try:
        content = json.loads(data.partition(b"\n")[2])
        if content["format"] != _FORMAT:
            raise ValueError(f"it has format {content['format']!r}")
        listed = content["entries"]
        values = map(listed["texts"].__getitem__, listed["values"])
        return Manifest(
            concepts=[_samples(concept) for concept in content["concepts"]],
            digests=[concept["digest"] for concept in content["concepts"]],
            extras=[concept["extra"] for concept in content["concepts"]],
            labels=[concept["label"] for concept in content["concepts"]],
            carried=[concept["carried"] for concept in content["concepts"]],
            entries=dict(zip(listed["keys"], zip(listed["sizes"], values, strict=True), strict=True)),
            quarantine=content["quarantine"],
            folder_times=content["folder_times"],
        )
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is no manifest: {error!r}") from error


def from_elsewhere(data: bytes) -> Manifest:
    """Read a manifest that another machine wrote: its samples, of which each is checked, and nothing else.

    What it says of the entries is left out: those that came with it tell it themselves. Raises ValueError for anything
    that `Manifest.to_bytes` does not write.
    """
    manifest = parse_manifest(data)
    rows = [row for concept in manifest.concepts for row in concept.rows()]
    _all([row.name for row in rows], str, is_carried)
    _all(
        [row.state for row in rows] + manifest.digests + manifest.extras + manifest.labels + [manifest.quarantine], str
    )
    _all([number for row in rows for number in (row.chunk, *row.keys)], int, lambda number: number >= 0)
    _all([bool(row.keys) for row in rows], bool, bool)
    _all([row.count for row in rows], int, lambda count: 1 <= count <= _MOST_SAMPLES)
    _all([key for row in rows for key in row.keys.values()], str, KEY.fullmatch)
    return Manifest(
        manifest.concepts,
        manifest.digests,
        manifest.extras,
        manifest.labels,
        carried=[True] * len(manifest.concepts),
        quarantine=manifest.quarantine,
    )


def read_manifest(folder: Path, identity: str) -> Manifest | None:
    """The manifest of that identity, or None where there is no sound one."""
    try:
        with _path(folder, identity).open("rb") as file:
            return parse_manifest(file.read())
    except (OSError, ValueError):
        return None


def write_manifest(folder: Path, identity: str, data: bytes, temporary_folder: Path) -> None:
    """Put a manifest in its place, and drop the oldest ones beyond `KEPT`. Raises CriticalError on a full disk."""
    write_atomic(_path(folder, identity), [data], temporary_folder=temporary_folder)
    others = [path for path in manifest_files(folder) if path.stem != identity]
    if len(others) < KEPT:
        return
    with contextlib.suppress(OSError):  # another process does the same, or has one open; the next time will do
        for path in sorted(others, key=lambda path: path.stat().st_mtime_ns)[: 1 - KEPT]:
            path.unlink()


def manifest_files(folder: Path) -> list[Path]:
    """The manifests in a folder, by name."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix == MANIFEST_SUFFIX and _IDENTITY.fullmatch(path.stem)
    )


def unsound_manifests(folder: Path) -> list[Path]:
    """Those that are not whole. What cannot be read just now, or has another format, is none of them."""
    found = []
    for path in manifest_files(folder):
        with contextlib.suppress(OSError):
            if not _is_whole(path.read_bytes()):
                found.append(path)
    return found


def was_carried(cache_folder: Path) -> bool:
    """Whether a folder of caches has samples that came with an archive."""
    for folder in cache_folder.glob(f"*/samples/v*/{MANIFESTS}"):
        found = (read_manifest(folder, path.stem) for path in manifest_files(folder))
        if any(manifest is not None and any(manifest.carried) for manifest in found):
            return True
    return False


def is_carried(name: str) -> bool:
    """Whether a manifest can name this file: nothing that leads out of its concept's folder, on any system."""
    return bool(name) and not _FORBIDDEN.search(name)


def is_identity(text: str) -> bool:
    """Whether a manifest can have this for a name."""
    return _IDENTITY.fullmatch(text) is not None


def _is_whole(data: bytes) -> bool:
    checksum, _, body = data.partition(b"\n")
    return xxhash.xxh3_128_hexdigest(body).encode("ascii") == checksum


def _path(folder: Path, identity: str) -> Path:
    if not is_identity(identity):
        raise ValueError(f"{identity!r} is no identity: 32 lower-case hex digits")
    return folder / f"{identity}{MANIFEST_SUFFIX}"


def _samples(concept: dict[str, Any]) -> Samples:
    keys = {int(number): column for number, column in concept["keys"].items()}
    columns = {name: concept[name] for name in _COLUMNS}
    if len({len(column) for column in (*columns.values(), *keys.values())}) != 1:
        raise ValueError("its columns are not of one length")
    return Samples(**columns, keys=keys)


def _all(values: list[Any], kind: type, is_right: Callable[[Any], Any] = lambda _: True) -> None:
    """Raise ValueError unless each value is of that kind, and right."""
    wrong = next((value for value in values if type(value) is not kind or not is_right(value)), None)
    if wrong is not None:
        raise ValueError(f"it holds {str(wrong)[:100]!r} where that cannot stand")
