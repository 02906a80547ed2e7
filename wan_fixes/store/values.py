"""The plain values of an entry as JSON, exactly: what comes out equals what went in, tuples included."""

from __future__ import annotations

import json
import math
from typing import Any


def values_to_json(values: dict[str, Any]) -> str:
    """Write `values` as ASCII JSON. A tuple becomes `{"tuple": […]}`, a dict `{"dict": {…}}`; lists and scalars stay.

    Raises TypeError for a type that JSON cannot hold and ValueError for NaN and infinity; both name the value.
    """
    tagged = {name: _tag(value, name) for name, value in values.items()}
    return json.dumps(tagged, separators=(",", ":"), allow_nan=False)


def values_from_json(text: str | bytes) -> dict[str, Any]:
    """The inverse of `values_to_json`. Raises ValueError when the text is not of its making."""
    try:
        tagged = json.loads(text)
        if type(tagged) is not dict:
            raise ValueError("the values are not a JSON object")
        return {name: _untag(value) for name, value in tagged.items()}
    except RecursionError as error:
        raise ValueError("the values are nested too deeply") from error


def _tag(value: Any, where: str) -> Any:
    # Exact types: a subclass (an enumeration, a numpy float) would come back as something else.
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}")
        return value
    if kind is list:
        return [_tag(part, f"{where}[{number}]") for number, part in enumerate(value)]
    if kind is tuple:
        return {"tuple": [_tag(part, f"{where}[{number}]") for number, part in enumerate(value)]}
    if kind is dict:
        for name in value:
            if type(name) is not str:
                raise TypeError(f"{where} has a key of type {type(name).__name__}: only text can be a key")
        return {"dict": {name: _tag(part, f"{where}[{name!r}]") for name, part in value.items()}}
    raise TypeError(f"{where} is of type {kind.__name__}, which a cache entry cannot hold")


def _untag(value: Any) -> Any:
    if type(value) is list:
        return [_untag(part) for part in value]
    if type(value) is not dict:
        return value
    if len(value) == 1:
        [(tag, content)] = value.items()
        if tag == "tuple" and type(content) is list:
            return tuple(_untag(part) for part in content)
        if tag == "dict" and type(content) is dict:
            return {name: _untag(part) for name, part in content.items()}
    raise ValueError("the values hold an unknown structure")
