"""JSON Schemas (draft 2020-12) of what `wan models COMMAND --json` prints; each is called like its command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from wan_fixes.errors import UserError

_FOLDER: Final = Path(__file__).parent
_URN: Final = "urn:wan-fixes:schema:"


def schema_names() -> list[str]:
    """Of all schemas, those of parts that several share included."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_schema(name: str) -> dict[str, Any]:
    """The schema of a command ("cache-info"; "manifest-lock" for one of a group), with all parts that it refers to.

    Raises UserError for a name that is none, which lists the others.
    """
    known = schema_names()
    if name not in known:
        raise UserError(
            f"there is no such schema: {name[:100]!r}",
            reason=f"there are {', '.join(known)}",
            fix="take one of these: they are called like the commands of `wan models`",
        )
    schema = _read(name)
    parts: dict[str, Any] = {}
    left = list(_referred(schema))
    while left:
        part = left.pop()
        if part not in parts:
            parts[part] = _read(part)
            left += _referred(parts[part])
    # What is embedded keeps its `$id`, so that references find it:
    # https://json-schema.org/draft/2020-12/json-schema-core#name-bundling
    return schema | ({"$defs": parts} if parts else {})


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text("utf-8"))
    return content


def _referred(value: Any) -> Iterator[str]:
    """The names of the schemas that a schema refers to."""
    if isinstance(value, dict):
        target = value.get("$ref")
        if isinstance(target, str):
            yield target.removeprefix(_URN)
        for item in value.values():
            yield from _referred(item)
    elif isinstance(value, list):
        for item in value:
            yield from _referred(item)
