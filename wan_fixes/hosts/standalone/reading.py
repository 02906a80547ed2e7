"""Reading what people write: JSON files, typed fields, paths. A fault names the file, the field, reason and fix."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wan_fixes.errors import UserError
from wan_fixes.hosts.standalone.onetrainer_fields import Field
from wan_fixes.preflight.near_paths import first_place, near_path

_SHOWN = 80


@dataclass(frozen=True, slots=True)
class FieldNote:
    """Something about a field that the user should know, though training goes on.

    Attributes
    ----------
    field:
        Its full name, for example ``concepts[0].image.enable_random_rotate``.
    status:
        ``ignored`` (known, not done here), ``unknown``, or ``adjusted`` (done in another way).
    """

    field: str
    value: str
    status: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field} = {self.value}: {self.status}, {self.reason}"


class HostLimitError(UserError):
    """A preset asks for something that OneTrainer does and the standalone host does not."""


def as_limit(error: UserError) -> HostLimitError:
    """The same error, said to be of this host alone."""
    return HostLimitError(error.what, path=error.path, reason=error.reason, fix=error.fix)


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file. `what` is its role in messages, such as "preset". Raises ``UserError``."""
    try:
        # utf-8-sig: Windows editors begin a file with a byte order mark
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise missing_path(path, what) from error
    except IsADirectoryError as error:
        raise UserError(
            f"{what} cannot be read", path=path, reason="it is a folder", fix="name the JSON file"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{what} cannot be read", path=path, reason="it is not UTF-8 text", fix="save it again as UTF-8"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{what} cannot be read", path=path, reason=reason, fix="check its permissions") from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{what} is not JSON",
            path=path,
            reason=f"line {error.lineno}, column {error.colno}: {error.msg}",
            fix="mend that line; a comma too many or too few is the usual cause",
        ) from error
    except RecursionError as error:
        raise UserError(
            f"{what} is not JSON", path=path, reason="it is nested too deeply", fix="save it again from OneTrainer"
        ) from error


def missing_path(path: Path, what: str, field: str = "") -> UserError:
    """The error for a path that does not exist, with one that does and may be meant."""
    proposal = near_path(path)
    fix = f"did you mean {proposal}?" if proposal else "correct the path"
    return UserError(f"{what} does not exist", path=path, reason=f"named by {field}" if field else "", fix=fix)


def resolve_input(text: str, folders: Sequence[Path]) -> Path:
    """A path to read from, in full: that of `first_place`."""
    return first_place(text, folders).absolute()


class FieldReader:
    """Typed access to one JSON object of a preset, and the notes on what it holds beyond that.

    Parameters
    ----------
    data:
        The object; anything else raises ``UserError``.
    fields:
        What is known of its fields.
    file:
        The file it came from, for messages.
    prefix:
        What comes before a field's name in messages, such as ``transformer.``.
    notes:
        Where notes are added.
    """

    def __init__(
        self, data: Any, fields: dict[str, Field], *, file: Path, prefix: str = "", notes: list[FieldNote]
    ) -> None:
        self.fields = fields
        self.file = file
        self.prefix = prefix
        self.notes = notes
        if not isinstance(data, dict):
            place = prefix.rstrip(".") or "the file"
            raise self.error(place, f"it holds {_shown(data)}, not an object", "put names and values in braces { }")
        self.data: dict[str, Any] = data

    def error(self, field: str, reason: str, fix: str) -> UserError:
        """The error for a field that cannot be used."""
        return UserError(f'"{field}" cannot be used', path=self.file, reason=reason, fix=fix)

    def wrong(self, name: str, expected: str, fix: str = "") -> UserError:
        """The error for a field whose value is not what is expected."""
        return self.error(
            self.prefix + name,
            f"it is {_shown(self.data.get(name))}, and {expected} is expected",
            fix or "correct the value, or remove the field to get the default",
        )

    def given(self, name: str) -> bool:
        """Whether the object has the field at all."""
        return name in self.data

    def value(self, name: str) -> Any:
        """The field as it is, or its default."""
        return self.data.get(name, self.fields[name].default)

    def note(self, name: str, status: str, reason: str) -> None:
        """Add a note on a field."""
        self.notes.append(FieldNote(self.prefix + name, _shown(self.value(name)), status, reason))

    def boolean(self, name: str) -> bool:
        """A field that is true or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def text(self, name: str) -> str:
        """A field that is a text, or a number read as one; null is the empty text."""
        value = self.value(name)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.wrong(name, "a text")
        return str(value)

    def integer(self, name: str, *, minimum: int | None = None) -> int:
        """A field that is a whole number, or a text that spells one."""
        number = self.number(name)
        if number != int(number):
            raise self.wrong(name, "a whole number")
        if minimum is not None and number < minimum:
            raise self.wrong(name, f"a whole number of at least {minimum}")
        return int(number)

    def number(self, name: str, *, minimum: float | None = None, maximum: float | None = None) -> float:
        """A field that is a finite number, or a text that spells one."""
        value = self.value(name)
        try:
            if isinstance(value, bool) or value is None:
                raise ValueError
            number = float(value)
        except (TypeError, ValueError):
            raise self.wrong(name, "a number") from None
        if not math.isfinite(number):
            raise self.wrong(name, "a finite number")
        if minimum is not None and number < minimum:
            raise self.wrong(name, f"a number of at least {minimum:g}")
        if maximum is not None and number > maximum:
            raise self.wrong(name, f"a number of at most {maximum:g}")
        return number

    def choice(self, name: str, choices: Iterable[str], fix: str = "") -> str:
        """A field whose value is one of `choices`."""
        options = list(choices)
        value = self.value(name)
        if value not in options:
            raise self.wrong(name, "one of " + ", ".join(options) if len(options) > 1 else options[0], fix)
        return str(value)

    def choice_of_host(self, name: str, choices: Iterable[str], fix: str) -> str:
        """The same where OneTrainer has more to choose from: raises `HostLimitError` for another text."""
        try:
            return self.choice(name, choices, fix)
        except UserError as error:
            if not isinstance(self.value(name), str):
                raise
            raise as_limit(error) from None

    def section(self, name: str, fields: dict[str, Field]) -> FieldReader:
        """The reader of an object within this one; an absent or null one is empty."""
        data = self.data.get(name)
        return FieldReader(
            {} if data is None else data, fields, file=self.file, prefix=f"{self.prefix}{name}.", notes=self.notes
        )

    def sweep(self) -> None:
        """Go through every field: refuse, note, or pass over what is not used here. Raises ``UserError``."""
        for name, value in self.data.items():
            if name.startswith("__"):
                continue
            field = self.fields.get(name)
            if field is None:
                close = difflib.get_close_matches(name, self.fields, n=1)
                hint = f"did you mean {close[0]}?" if close else "OneTrainer has no such field"
                self.notes.append(FieldNote(self.prefix + name, _shown(value), "unknown", hint))
            elif field.treatment in ("used", "irrelevant") or _same(value, field.default):
                continue
            elif field.treatment == "refused":
                raise self.error(
                    self.prefix + name, f"it is {_shown(value)}, and {field.why}", field.fix or "remove the field"
                )
            else:
                self.note(name, "ignored", field.why)


def _same(value: Any, default: Any) -> bool:
    """Whether a value is the default: 512 and "512" are the same, as OneTrainer converts them; null is "not set"."""
    if value is None or value == default:
        return True
    if isinstance(value, bool) or isinstance(default, bool):
        return False
    try:
        return float(value) == float(default)
    except (TypeError, ValueError):
        return str(value) == str(default)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
