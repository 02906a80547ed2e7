"""What every command shares: exit codes, output in which no text is ever markup, errors, logging."""

from __future__ import annotations

import io
import json
import logging
import math
import sys
import traceback
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from tqdm import tqdm

from wan_fixes.errors import NothingUsableError, UserError, WanFixesError
from wan_fixes.health.text import plain

SHOWN_LIMIT = 4096  # characters: a path that is cut cannot be copied

_STANDALONE_PACKAGES = ("torch", "diffusers", "transformers", "peft", "tokenizers", "accelerate")

logger = logging.getLogger("wan_fixes")

out = Console(markup=False, highlight=False, emoji=False)
err = Console(markup=False, highlight=False, emoji=False, stderr=True)


class ExitCode(IntEnum):
    """What the shell gets to know. Listed in docs/cli.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOTHING_USABLE = 3
    INCOMPLETE = 4
    INTERRUPTED = 130


def say_above_bars(text: object) -> None:
    """A line on standard error, above a progress bar instead of through it."""
    tqdm.write(plain(text, limit=SHOWN_LIMIT), file=sys.stderr)


class _BarFriendlyHandler(logging.Handler):
    """Sends log records to standard error without spoiling progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            say_above_bars(line)


def _set_up_logging(debug: bool) -> bool:
    """Our warnings to standard error; with ``--debug`` everything. Each command begins with this."""
    handler = _BarFriendlyHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s" if debug else "%(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    return debug


Debug = Annotated[
    bool, typer.Option("--debug", help="Log everything, and show where an error comes from.", callback=_set_up_logging)
]
Place = Annotated[Path, typer.Argument(metavar="[PRESET|FOLDER]", help="A preset, or a folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]


def shown(text: object, style: str = "") -> Text:
    """A text from a user or a file as one safe line: control characters escaped, brackets left alone."""
    return Text(plain(text, limit=SHOWN_LIMIT), style=style)


def name_within(path: str, folders: Iterable[str]) -> Text:
    """A path without the folder that it lies in, of these; in full where it lies in none."""
    for folder in folders:
        if Path(path).is_relative_to(folder):
            return shown(Path(path).relative_to(folder))
    return shown(path)


def why_and_fix(reason: str, fix: str) -> Text:
    """A cell with the reason and, on a line of its own, what helps."""
    return Text("\n").join([shown(reason), *([shown(f"fix: {fix}", "dim")] if fix else [])])


def as_dicts(problems: Iterable[WanFixesError]) -> list[dict[str, str]]:
    """Path, reason and fix of each, for `print_json` and for tables."""
    return [{"path": str(problem.path), "reason": problem.reason, "fix": problem.fix} for problem in problems]


def print_json(value: Any) -> None:
    """`value` as JSON on standard output, in ASCII, so that every terminal and pipe takes it."""
    sys.stdout.write(json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """`value` with NaN and infinities as null, which JSON has no words for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def report(error: BaseException) -> ExitCode:
    """Say on standard error what went wrong, why, and what helps; return the exit code for it.

    A traceback is shown with ``--debug``, and for what is nobody's but our own fault.
    """
    if isinstance(error, KeyboardInterrupt):
        err.print("interrupted: run the same command again to go on")
        return ExitCode.INTERRUPTED
    if isinstance(error, ModuleNotFoundError) and error.name in _STANDALONE_PACKAGES:
        fix = 'pip install "wan-fixes[standalone]", or in a checkout: pip install -e ".[standalone]"'
        error = UserError(f"{error.name} is not installed", reason="this command needs the extra `standalone`", fix=fix)
    is_expected = isinstance(error, (WanFixesError, OSError))
    if not is_expected or logger.isEnabledFor(logging.DEBUG):
        for line in "".join(traceback.format_exception(error)).splitlines():
            err.print(shown(line), soft_wrap=True)
    if isinstance(error, WanFixesError):
        _say(error.what if error.path is None else f"{error.what}: {error.path}", error.reason, error.fix)
        return _code_of(error)
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        _say(reason if error.filename is None else f"{reason}: {error.filename}", "", "--debug shows where it happened")
        return ExitCode.FAILED
    _say(
        f"{type(error).__name__}: {error}",
        "this is a fault of the program, not yours",
        "report it with the lines above",
    )
    return ExitCode.FAILED


def _code_of(error: WanFixesError) -> ExitCode:
    if getattr(error, "is_failure", False):  # nothing that was typed is wrong
        return ExitCode.FAILED
    if isinstance(error, NothingUsableError):
        return ExitCode.NOTHING_USABLE
    return ExitCode.USAGE if isinstance(error, UserError) else ExitCode.FAILED


def _say(what: str, reason: str, fix: str) -> None:
    err.print(Text("error: ", style="bold red") + shown(what), soft_wrap=True)
    if reason:
        err.print(Text("  why: ") + shown(reason), soft_wrap=True)
    if fix:
        err.print(Text("  fix: ") + shown(fix), soft_wrap=True)


def set_up_streams() -> None:
    """No crash over a character that the terminal cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
