"""`wan errors`: what the samples that were left out have in common, and what to do about it first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from wan_fixes.cli.console import AsJson, Debug, out, print_json, shown
from wan_fixes.cli.places import RunNumber, Workspace, find_run, find_run_database
from wan_fixes.health.numbers import many

if TYPE_CHECKING:
    from wan_fixes.health.patterns import ErrorPattern, FolderShare

_PATTERNS = 10
_WARNINGS = 5
_EXAMPLES = 3
_FOLDERS = 3
_LABEL_WIDTH = 11
_READ_FIRST, _READ_OF_THE_FIRST = 3, 12
_REMEMBERED = "in an earlier run, and not tried again until the file changes"


def errors(
    place: Workspace = Path(),
    number: RunNumber = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show every pattern, and every file of it.")] = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Say what left-out clips have in common, and what to do. By cause, folder and codec; then the warnings."""
    from wan_fixes.cli.error_facts import formats_of_files, samples_in
    from wan_fixes.health import RunReader
    from wan_fixes.health.patterns import find_patterns, with_folder_sizes

    path = find_run_database(place)
    reader = RunReader(path)
    with reader.one_moment():
        run = find_run(reader, number)
        records = reader.samples(run.id)
        counts = reader.sample_counts(run.id)
    patterns = find_patterns(records)
    lying_in = samples_in(share.folder for pattern in patterns[:_PATTERNS] for share in pattern.folders[:_FOLDERS])
    patterns = [with_folder_sizes(pattern, lying_in) for pattern in patterns]
    shown_patterns = patterns if show_all else _most_harmful(patterns)
    formats = formats_of_files(_to_be_read(shown_patterns))
    if as_json:
        listed = [_as_dict(pattern, formats, with_paths=show_all) for pattern in patterns]
        print_json({"database": str(path), "run_id": run.id, "samples": counts, "patterns": listed})
        return
    out.print(Text("workspace  ", style="bold") + shown(path.parent), soft_wrap=True)
    out.print(Text("run        ", style="bold") + shown(f"{run.id} ({run.kind}): {_in_short(counts)}"))
    for at, pattern in enumerate(shown_patterns, start=1):
        out.print()
        _show(at, pattern, formats, show_all=show_all)
    more = len(patterns) - len(shown_patterns)
    if more:
        out.print()
        out.print(f"and {many(more, 'more pattern')}: --all shows them")


def _most_harmful(patterns: Sequence[ErrorPattern]) -> list[ErrorPattern]:
    left_out = [pattern for pattern in patterns if pattern.status == "left out"]
    warnings = [pattern for pattern in patterns if pattern.status == "warning"]
    return left_out[:_PATTERNS] + warnings[:_WARNINGS]


def _to_be_read(patterns: Sequence[ErrorPattern]) -> Iterator[str]:
    """Files whose format is asked for: of the most harmful patterns all, where these are few, else some."""
    for at, pattern in enumerate(patterns):
        yield from pattern.examples(_READ_OF_THE_FIRST if at < _READ_FIRST else _EXAMPLES)


def _in_short(counts: Mapping[str, int]) -> str:
    left_out, warned = counts["skipped"] + counts["failed"], counts["warning"]
    if not left_out and not warned:
        return "nothing was left out, and there are no warnings"
    known = counts["valid"] + left_out
    told = f"{left_out:,} of {many(known, 'sample')} left out" if left_out else "nothing was left out"
    return f"{told}, {warned:,} with warnings" if warned else told


def _show(at: int, pattern: ErrorPattern, formats: Mapping[str, str], *, show_all: bool) -> None:
    from wan_fixes.health.patterns import what_first

    what = "with a warning" if pattern.status == "warning" else "left out"
    style = "bold yellow" if pattern.status == "warning" else "bold red"
    heading = Table.grid(padding=(0, 1, 0, 0))
    heading.add_column(justify="right", min_width=2)
    heading.add_column(overflow="fold")
    heading.add_row(f"{at}.", Text(f"{many(pattern.count, 'sample')} {what}: ", style) + shown(pattern.cause))
    out.print(heading)
    if pattern.count > 1:
        _row("found by", _found_by(pattern))
        _show_folders(pattern)
    elif pattern.remembered:
        _row("found", _REMEMBERED)
    _row("format", _formats_text(pattern, formats))
    if show_all or pattern.count == 1:
        for path in pattern.paths:
            _path_row("file", path)
    else:
        names = [Path(path).name for path in pattern.examples(_EXAMPLES)]
        more = pattern.count - len(names)
        _row("files", ", ".join(names) + (f" and {more:,} more" if more else ""))
    _row("do first", what_first(pattern, formats))


def _found_by(pattern: ErrorPattern) -> str:
    from wan_fixes.health.patterns import QUARANTINE

    others = ", ".join(module for module in pattern.modules if module != QUARANTINE)
    if not pattern.remembered:
        return others
    return f"{others}; {pattern.remembered:,} of them {_REMEMBERED}" if others else _REMEMBERED


def _show_folders(pattern: ErrorPattern) -> None:
    if len(pattern.folders) > _FOLDERS and pattern.common_folder:
        _path_row("lie below", pattern.common_folder, f"in {len(pattern.folders):,} folders, such as")
    for share in pattern.folders[:_FOLDERS]:
        _path_row("lie in", share.folder, _share_text(pattern, share))


def _share_text(pattern: ErrorPattern, share: FolderShare) -> str:
    if share.of is None:
        return f"{share.bad:,} of them" if len(pattern.folders) > 1 else ""
    if share.bad == share.of:
        return f"all {many(share.of, 'sample')} there" if share.of > 1 else "the only sample there"
    return f"{share.bad:,} of {many(share.of, 'sample')} there"


def _formats_text(pattern: ErrorPattern, formats: Mapping[str, str]) -> str:
    from wan_fixes.health.patterns import formats_of

    found = formats_of(pattern, formats)
    looked_at = sum(count for _, count in found)
    if not found:
        return ""
    text = ", ".join(name if len(found) == 1 else f"{count} {name}" for name, count in found)
    return text if looked_at == pattern.count else f"{text} ({looked_at} looked at)"


def _row(label: str, text: str) -> None:
    """Text that is folded beside its label."""
    if text:
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=_LABEL_WIDTH + 2)
        table.add_column(overflow="fold")
        table.add_row(f"   {label}", shown(text))
        out.print(table)


def _path_row(label: str, path: str, note: str = "") -> None:
    """A path in one piece, so that it can be copied, and a note behind it."""
    text = Text(f"   {label}".ljust(_LABEL_WIDTH + 3)) + shown(path)
    out.print(text + Text(f": {note}") if note else text, soft_wrap=True)


def _as_dict(pattern: ErrorPattern, formats: Mapping[str, str], *, with_paths: bool) -> dict[str, Any]:
    from wan_fixes.health.patterns import formats_of, what_first

    return {
        "status": pattern.status,
        "count": pattern.count,
        "cause": pattern.cause,
        "fix": pattern.fix,
        "do_first": what_first(pattern, formats),
        "modules": pattern.modules,
        "kinds": pattern.kinds,
        "remembered": pattern.remembered,
        "common_folder": pattern.common_folder,
        "folders": [share._asdict() for share in pattern.folders],
        "suffixes": dict(pattern.suffixes),
        "formats": dict(formats_of(pattern, formats)),
        "examples": pattern.examples(_EXAMPLES),
        **({"paths": pattern.paths} if with_paths else {}),
    }
