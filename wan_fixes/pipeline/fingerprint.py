"""What made a cached item, as a key: sources, settings, modules, encoder weights. Never paths or positions."""

from __future__ import annotations

import enum
import json
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import xxhash

from wan_fixes.pipeline.upstream import input_names, is_collector, producers, unwrap
from wan_fixes.store import make_key

# Raise it when an encoding of ours changes what it computes: every entry is then made anew.
PIPELINE_VERSION = 2

# Packages whose modules give what their settings, their inputs and the files that they name make of a sample, and
# nothing else. What those of the second kind draw hangs on the sample where a guard sees to it.
_PURE_PACKAGES = ("wan_fixes", "mgds")
_PURE_WHEN_GUARDED = ("mgds.pipelineModules", "modules")

_STATE_ATTRIBUTES = {"started", "current_variation", "current_index", "pipeline", "context"}
_tokenizer_hashes: weakref.WeakKeyDictionary[Any, tuple[int, str]] = weakref.WeakKeyDictionary()
_weight_hashes: weakref.WeakKeyDictionary[torch.nn.Module, str] = weakref.WeakKeyDictionary()


@dataclass(slots=True)
class Recipe:
    """How the cached names of one cache are made.

    Attributes
    ----------
    modules:
        Configuration of each module on the way, in pipeline order.
    files:
        Items that hold the path of a file whose content counts, each with the index of the module that reads it.
    values:
        Items whose value counts, likewise: the prompt that reaches the tokenizer, the file name used as a prompt, the
        chunk of its clip that a sample is.
    setting_names:
        Items of ``concept`` and ``settings``.
    encoders:
        Networks whose weights shape the result.
    """

    modules: list[dict[str, Any]] = field(default_factory=list)
    files: list[tuple[int, str]] = field(default_factory=list)
    values: list[tuple[int, str]] = field(default_factory=list)
    setting_names: list[str] = field(default_factory=list)
    encoders: list[torch.nn.Module] = field(default_factory=list)

    def key_parts(self, names: Sequence[str]) -> dict[str, Any]:
        """The part of the key that all samples share. Hashes the encoders' weights: slow the first time."""
        return {
            "pipeline": PIPELINE_VERSION,
            "names": sorted(names),
            "modules": self.modules,
            "weights": [weight_hash(encoder) for encoder in self.encoders],
        }


def read_recipe(modules: list[Any], before: int, names: Sequence[str]) -> Recipe:
    """Walk upstream from `names`, as the module at index `before` sees them.

    Call it before any module has started, while attributes still are what the constructor made of its arguments.
    """
    files: set[tuple[int, str]] = set()
    values: set[tuple[int, str]] = set()
    settings: set[str] = set()
    on_the_way: set[int] = set()
    seen: set[tuple[int, str]] = set()
    waiting = [(before, name) for name in names]
    while waiting:
        position, name = waiting.pop()
        if (position, name) in seen:
            continue
        seen.add((position, name))
        if name.split(".")[0] in ("concept", "settings"):
            settings.add(name)
            continue
        for index in producers(modules, position, name):
            inner = unwrap(modules[index])
            if is_collector(inner):
                if name == getattr(inner, "chunk_out_name", None):
                    values.add((position, name))
                continue  # a bare path: what it holds counts where it is loaded
            on_the_way.add(index)
            if hasattr(inner, "tokenizer"):
                values.add((index, inner.in_name))  # the text decides; how it was chosen does not matter
                continue
            if hasattr(inner, "filename_out_name"):
                values.add((index + 1, inner.filename_out_name))  # the name used as a prompt, whatever its folder is
                continue
            path_name = getattr(inner, "path_in_name", None)
            if path_name is not None:
                files.add((index, path_name))
            waiting += [(index, read) for read in input_names(inner) if read != path_name]
    ordered = [unwrap(modules[index]) for index in sorted(on_the_way)]
    return Recipe(
        modules=[_configuration(module) for module in ordered],
        files=sorted(files),
        values=sorted(values),
        setting_names=sorted(settings),
        encoders=[value for module in ordered for value in vars(module).values() if isinstance(value, torch.nn.Module)],
    )


class SettingsKeys:
    """The hash of the settings that shape a sample: made once for each concept, as all samples of one share them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._hang_on_concept = any(name.split(".")[0] == "concept" for name in names)
        self._known: dict[int, tuple[Any, str]] = {}

    def of(self, read: Callable[[str], Any]) -> str:
        """The hash for a sample of which `read(name)` gives the settings."""
        concept = read("concept") if self._hang_on_concept else None
        known = self._known.get(id(concept))
        if known is None:
            key = make_key({name: describe(read(name)) for name in self._names})
            known = self._known[id(concept)] = (concept, key)  # kept with the key, so that its id stays its own
        return known[1]


def sample_key(
    shared: str,
    recipe: Recipe,
    read: Callable[[int, str], Any],
    content: Callable[[str], str],
    *,
    settings: str,
    **own: Any,
) -> str:
    """The key of one sample.

    Parameters
    ----------
    shared:
        ``make_key(recipe.key_parts(names))``, made once.
    read:
        Reads an item of this sample as the module at an index sees it: (module index, name) -> value.
    content:
        Content id of a file; ``SampleError`` from it passes through.
    settings:
        What `SettingsKeys` says of its settings.
    own:
        What else tells this entry from others: the variation.
    """
    files = [content(read(position, name)) for position, name in recipe.files]
    values = [read(position, name) for position, name in recipe.values]
    return make_key({"shared": shared, "files": files, "values": values, "settings": settings, **own})


def is_pure(module: Any) -> bool:
    """Whether a module is known to make the same of the same sample, whatever its place in the list and the seed.

    Those of other packages say so by a CACHE_VERSION.
    """
    kind = type(unwrap(module))
    if hasattr(kind, "CACHE_VERSION"):
        return True
    if _is_in(kind, _PURE_WHEN_GUARDED):
        return unwrap(module) is not module
    return _is_in(kind, _PURE_PACKAGES)


def _is_in(kind: type, packages: tuple[str, ...]) -> bool:
    return any(f"{kind.__module__}.".startswith(f"{package}.") for package in packages)


def weight_hash(network: torch.nn.Module) -> str:
    """xxh3_128 over names, shapes, dtypes and bytes of all weights and buffers. Computed once per network."""
    known = _weight_hashes.get(network)
    if known is not None:
        return known
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if isinstance(tensor, torch.Tensor) and not tensor.is_meta:
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    _weight_hashes[network] = digest.hexdigest()
    return _weight_hashes[network]


def wiring_of(module: Any) -> dict[str, Any]:
    """What the constructor was told, item names and all: it decides how one module's items reach another."""
    return _told(module, lambda _: True)


def _configuration(module: Any) -> dict[str, Any]:
    """What the constructor was told, as far as it shapes the result: item names do not."""
    return _told(module, lambda name: not name.endswith(("_name", "names")))


def _told(module: Any, counts: Callable[[str], bool]) -> dict[str, Any]:
    """Those attributes of a module whose name `counts`; state and networks never do."""
    settings = {
        name: describe(value)
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name not in _STATE_ATTRIBUTES
        and counts(name)
        and not isinstance(value, torch.nn.Module)
    }
    return {"type": type(module).__name__, "version": getattr(module, "CACHE_VERSION", 1), "settings": settings}


def _tokenizer_hash(tokenizer: Any) -> str:
    """Computed once per tokenizer and number of its words: with UMT5's 256,000 it takes a second."""
    words, known = _tokenizer_hashes.get(tokenizer, (0, ""))
    if words != len(tokenizer):
        # Truncation and padding are those of its latest call: what a module asks for is among its own settings.
        content = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
        known = xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())
        _tokenizer_hashes[tokenizer] = len(tokenizer), known
    return known


def describe(value: Any) -> Any:
    """A JSON-able description that is the same in every process."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, enum.Enum):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [describe(part) for part in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(describe(part)) for part in value)
    if isinstance(value, dict):
        return {str(key): describe(part) for key, part in value.items()}
    if isinstance(value, torch.dtype):
        return str(value)
    if isinstance(value, torch.autocast):
        return {"autocast": str(value.fast_dtype), "enabled": value._enabled}
    if hasattr(value, "backend_tokenizer"):
        return _tokenizer_hash(value)
    if hasattr(value, "get_vocab"):
        return make_key(value.get_vocab())
    return getattr(value, "__qualname__", type(value).__qualname__)
