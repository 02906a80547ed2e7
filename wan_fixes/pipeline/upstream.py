"""Looking upstream in a pipeline: which modules made an item, and which file a sample comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from wan_fixes.pipeline.base import RandomAccessPipelineModule


def unwrap(module: Any) -> Any:
    """The module itself, without the guards around it."""
    while hasattr(module, "wrapped_module"):
        module = module.wrapped_module
    return module


def is_stock(module: Any) -> bool:
    """Whether a module's class is MGDS's own: a host's or another plugin's subclass is not."""
    return type(module).__module__.startswith("mgds.")


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


def all_producers(modules: list[Any], before: int, names: Iterable[str]) -> list[int]:
    """Indices of all modules that have a part in `names`, as the module at index `before` sees them, in order."""
    found: set[int] = set()
    seen: set[tuple[int, str]] = set()
    waiting = [(before, name) for name in names]
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        for index in producers(modules, *place):
            found.add(index)
            waiting += [(index, read) for read in input_names(modules[index])]
    return sorted(found)


def collector(modules: list[Any], before: int) -> Any:
    """The nearest collector upstream, without its guard, or None."""
    return next((unwrap(module) for module in reversed(modules[:before]) if is_collector(module)), None)


def from_collector(modules: list[Any], before: int, name: str) -> Callable[[int], Any] | None:
    """Reads `name` from the collector itself, where a module at index `before` would get it from there.

    Through the engine it takes ten times as long, which counts with 100,000 samples. None where another makes it.
    """
    nearest = next(producers(modules, before, name), None)
    if nearest is None or not is_collector(modules[nearest]):
        return None
    inner = unwrap(modules[nearest])
    item, *fields = name.split(".")
    concept_at: Callable[[int], Any] | None = getattr(inner, "concept_at", None)
    if item == inner.concept_out_name and concept_at is not None:
        return (lambda index: field_of(concept_at(index), fields)) if fields else concept_at
    return lambda index: field_of(inner.get_item(0, index)[item], fields)


def field_of(value: Any, fields: Iterable[str]) -> Any:
    """What lies at the end of these keys, one in the other; None where they lead nowhere."""
    for field in fields:
        value = value.get(field) if isinstance(value, Mapping) else None
    return value


def sample_path_name(modules: list[Any], before: int) -> str | None:
    """The item that holds a sample's file, as the nearest collector upstream calls it."""
    nearest = collector(modules, before)
    return None if nearest is None else str(nearest.path_out_name)


def sample_path(modules: list[Any], before: int, index: int) -> str | None:
    """The file of the sample that the nearest collector upstream has at `index`, or None where there is none.

    Asked of the collector itself: a cache between gives paths under the same name, but in an order of its own.
    """
    return path_listed(collector(modules, before), index)


def path_listed(nearest: Any, index: int) -> str | None:
    """The file that a collector has at `index`, or None where there is none."""
    try:
        return None if nearest is None else str(nearest.get_item(0, index)[nearest.path_out_name])
    except Exception:  # noqa: BLE001 - naming a sample must not hide why it failed
        return None


def keeps_the_order(modules: list[Any], before: int) -> bool:
    """True when an index still means the same sample as in the nearest collector upstream."""
    for module in reversed(modules[:before]):
        if is_collector(module):
            return True
        if reorders(module):
            return False
    return False


def reorders(module: Any) -> bool:
    """Whether a module has an order of its own, in which an index means another sample than before it."""
    return not isinstance(module, RandomAccessPipelineModule) or bool(_group_names(module))


def all_group_names(modules: list[Any], before: int) -> list[str]:
    """The items that tell the groups of a pipeline apart, for a module at index `before`.

    Every cache and sorting names its own, but they must agree: two concepts that differ in their text settings only
    would be one group of the image cache and two of the text cache, and captions would meet the wrong clips.
    """
    names = dict.fromkeys(name for module in modules for name in _group_names(module))
    return [name for name in names if next(producers(modules, before, name), None) is not None]


def _group_names(module: Any) -> list[str]:
    return list(getattr(unwrap(module), "variations_group_in_names", None) or [])
