"""What the samples that were left out have in common: a cause, folders, a kind of file. Asks neither disk nor clock."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Final, Literal, NamedTuple

from wan_fixes.health.run_records import SampleRecord

QUARANTINE: Final = "quarantine"
"""The module of what was not tried again, since an earlier run found it damaged."""

_NAME: Final = "\0"  # stands for the sample's own name; no reason holds it
_SLOT: Final = "\1"  # stands for anything that differs between samples of one cause
_OTHERS: Final = "…"
_MEDIA: Final = r"(?:mp4|mov|mkv|webm|avi|flv|wmv|mpe?g|m4v|png|jpe?g|webp|bmp|tiff?|gif|avif|txt|safetensors)"
_DIFFERS: Final = re.compile(
    rf"""
    (?P<name> {_NAME}
            | (?<![\w.]) (?:[A-Za-z]:)? [\\/] [^\s'",;:()]+            # an absolute path
            | [\w.-]+ \. {_MEDIA} \b )                                 # a file
  | (?P<code> \b0x[0-9a-fA-F]+ | \b[0-9a-f]{{12,}}\b )                 # a byte, a digest
  | (?P<size> (?<![\w.]) \d+ (?:x\d+)+ )                               # 1920x1080
  | (?P<number> (?<![\w.]) (?<![A-Za-z]-) -? \d+ (?:\.\d+)? (?:e[+-]?\d+)? )
    """,
    re.VERBOSE,
)
_PLURAL: Final = re.compile(rf"({_SLOT} \w+?)s\b")


class FolderShare(NamedTuple):
    """How much of a folder is bad."""

    folder: str
    bad: int
    of: int | None
    """How many samples lie in it, the bad ones with them; None where that is not known."""


@dataclass(frozen=True, slots=True)
class ErrorPattern:
    """Samples that were left out, or warned of, for the same cause."""

    status: Literal["left out", "warning"]
    cause: str
    """The reason; where it names numbers, their range."""
    fix: str
    modules: tuple[str, ...]
    """Who found it, the most frequent first."""
    kinds: tuple[str, ...]
    paths: tuple[str, ...]
    """Each sample once, in order."""
    records: int
    """How many records there are: of one sample there may be several warnings of one cause."""
    remembered: int
    """How many of them were not tried again, since an earlier run had found them damaged."""
    common_folder: str
    """The innermost folder that holds all of them; "" where there is none."""
    folders: tuple[FolderShare, ...]
    """The folders that they lie in, the one with the most of them first."""
    suffixes: tuple[tuple[str, int], ...]
    """Their file suffixes (".mov") and how many have each, the most frequent first."""

    @property
    def count(self) -> int:
        """How many samples it is about."""
        return len(self.paths)

    def examples(self, most: int = 3) -> tuple[str, ...]:
        """At most so many of the samples, from all over the list."""
        step = max(1, -(-self.count // most))
        return self.paths[::step]


def find_patterns(records: Iterable[SampleRecord]) -> list[ErrorPattern]:
    """The patterns of all records of samples that were left out or warned of: each record is in exactly one of them.

    What was left out comes before warnings, and what is about many samples before what is about few. The order of the
    records makes no difference.
    """
    groups: dict[tuple[bool, str], list[tuple[SampleRecord, _Parts]]] = {}
    for record in records:
        if record.status == "valid":
            continue
        parts = _parts(record.reason or record.kind or "no reason was recorded", record.path)
        groups.setdefault((record.status == "warning", parts.key), []).append((record, parts))
    patterns = [_pattern(is_warning, members) for (is_warning, _), members in groups.items()]
    return sorted(patterns, key=lambda pattern: (pattern.status == "warning", -pattern.count, pattern.cause))


def with_folder_sizes(pattern: ErrorPattern, lying_in: Mapping[str, int]) -> ErrorPattern:
    """The pattern, with how many samples lie in its folders, as far as that is known and can be.

    Of files that are gone by now more are bad than lie there.
    """
    shares = (
        share._replace(of=of) if (of := lying_in.get(share.folder, 0)) >= share.bad else share
        for share in pattern.folders
    )
    return replace(pattern, folders=tuple(shares))


def what_first(pattern: ErrorPattern, formats: Mapping[str, str] | None = None) -> str:
    """What to do about a pattern, beginning with what all of its samples share; "" where nobody knows what helps.

    Parameters
    ----------
    formats:
        Of the samples that were looked at, by path: "hevc in mov".
    """
    shared = _shared(pattern, formats or {})
    if not pattern.fix:
        return shared and f"{shared}: look there first"
    return f"{shared}: {pattern.fix}" if shared else pattern.fix


def formats_of(pattern: ErrorPattern, formats: Mapping[str, str]) -> list[tuple[str, int]]:
    """The formats of those of its samples that were looked at, and how many have each, the most frequent first."""
    return _ranked(Counter(formats[path] for path in pattern.paths if path in formats))


def _shared(pattern: ErrorPattern, formats: Mapping[str, str]) -> str:
    """What is true of every one of several samples, in words."""
    if pattern.count < 2:
        return ""
    told = []
    if len(pattern.folders) == 1 and (name := PurePath(pattern.folders[0].folder).name):
        told.append(f"lie in {name}")
    found = formats_of(pattern, formats)
    if len(found) == 1 and found[0][1] == pattern.count:
        told.append(f"are {found[0][0]}")
    elif len(pattern.suffixes) == 1 and pattern.suffixes[0][0] and told:
        told.append(f"are {pattern.suffixes[0][0]} files")
    return f"all {pattern.count} {' and '.join(told)}" if told else ""


def _pattern(is_warning: bool, members: Sequence[tuple[SampleRecord, _Parts]]) -> ErrorPattern:
    records = [record for record, _ in members]
    paths = sorted({record.path for record in records})
    folders = Counter(folder for folder in map(_folder, paths) if folder)
    return ErrorPattern(
        status="warning" if is_warning else "left out",
        cause=_together([parts for _, parts in members]),
        fix=_fix(records),
        modules=_names(record.module for record in records),
        kinds=_names(record.kind for record in records),
        paths=tuple(paths),
        records=len(records),
        remembered=len({record.path for record in records if record.module == QUARANTINE}),
        common_folder=_common(list(folders)),
        folders=tuple(FolderShare(folder, bad, None) for folder, bad in _ranked(folders)),
        suffixes=tuple(_ranked(Counter(map(_suffix, paths)))),
    )


class _Parts(NamedTuple):
    """A reason taken apart: the words that make the cause, and between them what differs from sample to sample."""

    key: str
    words: tuple[str, ...]
    values: tuple[tuple[str, str], ...]
    """The sort of each value and its text."""


def _parts(reason: str, path: str) -> _Parts:
    text = _without_own_name(reason.replace(_NAME, "").replace(_SLOT, ""), path)
    words, values, at = [], [], 0
    for found in _DIFFERS.finditer(text):
        words.append(text[at : found.start()])
        values.append((found.lastgroup or "", found[0]))
        at = found.end()
    words.append(text[at:])
    return _Parts(_PLURAL.sub(r"\1", _SLOT.join(words)), tuple(words), tuple(values))


def _without_own_name(reason: str, path: str) -> str:
    own = os.path.basename(path)  # noqa: PTH119 - ten thousand of them: a PurePath each takes most of the time
    stem = own.rpartition(".")[0]
    for name, instead in ((path, _NAME), (own, _NAME), (stem and f"{stem}.txt", "its caption")):
        if name and name in reason:
            reason = re.sub(rf"(?<!\w){re.escape(name)}", instead, reason)
    return reason


def _together(all_parts: Sequence[_Parts]) -> str:
    """One text for reasons of one cause. Of "1 frame" and "9 frames" the plural is taken."""
    words = [max(set(texts), key=lambda text: (len(text), text)) for texts in zip(*_words(all_parts), strict=True)]
    values = [_range(set(values)) for values in zip(*(parts.values for parts in all_parts), strict=True)]
    return "".join(piece for pair in zip(words, [*values, ""], strict=True) for piece in pair)


def _words(all_parts: Sequence[_Parts]) -> list[tuple[str, ...]]:
    return [parts.words for parts in all_parts]


def _range(values: set[tuple[str, str]]) -> str:
    texts = {text for _, text in values}
    if len(texts) == 1:
        return texts.pop().replace(_NAME, _OTHERS)
    if {sort for sort, _ in values} == {"number"}:
        in_order = sorted(texts, key=lambda text: (float(text), text))
        return f"{in_order[0]}{' to ' if in_order[0].startswith('-') else '-'}{in_order[-1]}"
    return _OTHERS


def _fix(records: Sequence[SampleRecord]) -> str:
    """What helps most of them; what is known of files in quarantine is said of them only where nothing else is."""
    helped = [record for record in records if record.fix]
    fixes = Counter(record.fix for record in helped if record.module != QUARANTINE) or Counter(r.fix for r in helped)
    by_key: dict[str, list[_Parts]] = {}
    weights: Counter[str] = Counter()
    for fix, count in fixes.items():
        parts = _parts(fix, "")
        by_key.setdefault(parts.key, []).append(parts)
        weights[parts.key] += count
    return _together(by_key[_ranked(weights)[0][0]]) if by_key else ""


def _folder(path: str) -> str:
    folder = os.path.dirname(path)  # noqa: PTH120
    return "" if folder == path else folder


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122


def _common(folders: list[str]) -> str:
    try:
        common = os.path.commonpath(folders) if folders else ""
    except ValueError:  # other drives, or relative beside absolute
        return ""
    return "" if common == PurePath(common).anchor else common


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name, _ in _ranked(Counter(name for name in names if name)))


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    """The most frequent first, and those that are equally frequent by name, so that no order of records matters."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
