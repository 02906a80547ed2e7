"""Looking upstream in a pipeline: which modules made an item, and which file a sample comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def unwrap(module: Any) -> Any:
    """The module itself, without the guard around it."""
    return getattr(module, "wrapped_module", module)


def is_collector(module: Any) -> bool:
    """True for the modules that turn concepts into a list of files."""
    return hasattr(unwrap(module), "path_out_name") and hasattr(unwrap(module), "concept_out_name")


def input_names(module: Any) -> list[str]:
    """Every item that a module reads.

    Stock modules do not list all of theirs in ``get_inputs`` (``SelectInput`` leaves out its setting,
    ``ScaleCropImage`` its jitter switch), so the names that they keep in attributes count too.
    """
    inner = unwrap(module)
    names: list[str] = [name for name in (inner.get_inputs() or []) if isinstance(name, str)]
    for attribute, value in vars(inner).items():
        if attribute.endswith(("_in_name", "setting_name")) or attribute == "in_name":
            names += [value] if isinstance(value, str) else []
        elif attribute.endswith("in_names") and isinstance(value, (list, tuple)):
            names += [name for name in value if isinstance(name, str)]
    return list(dict.fromkeys(names))


def producers(modules: list[Any], before: int, name: str) -> Iterator[int]:
    """Indices of the modules that may have made `name`, nearest first.

    A module that yields None lets the engine fall through to an earlier one, so the search goes on past a
    producer, until one that also reads the name: what lies before it reaches us through its inputs.
    """
    item = name.split(".")[0]
    for index in range(before - 1, -1, -1):
        if item in (unwrap(modules[index]).get_outputs() or []):
            yield index
            if item in (read.split(".")[0] for read in input_names(modules[index])):
                return


def sample_path(modules: list[Any], before: int, index: int) -> str | None:
    """The file of the sample at an input index, asked of the nearest collector upstream itself.

    A cache between hands out the same item by its own, different, indices.
    """
    for position in range(before - 1, -1, -1):
        collector = unwrap(modules[position])
        if is_collector(collector) and 0 <= index < collector.length():
            return str(collector.get_item(0, index, collector.path_out_name)[collector.path_out_name])
    return None


def sample_path_name(modules: list[Any], before: int) -> str | None:
    """The item that holds a sample's file, as the nearest collector upstream calls it."""
    for index in range(before - 1, -1, -1):
        if is_collector(modules[index]):
            return str(unwrap(modules[index]).path_out_name)
    return None
