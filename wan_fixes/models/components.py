"""Whether a model folder has the components that its model needs: names, configurations and weight files are looked at.

No weights are opened: that is done, and takes longer, where they are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.listing import INDEX_NAME
from wan_fixes.models.names import FORBIDDEN_SUFFIXES
from wan_fixes.models.spec import ModelSpec

_LARGEST_JSON: Final = 16 << 20  # bytes; an index of 1100 tensors has 97 kB
_SHOWN: Final = 3


@dataclass(frozen=True)
class _Kind:
    """What a component is for, and what its folder holds.

    Attributes
    ----------
    weights:
        Names of which one has to be there; with those that an index names, where it is one.
    """

    purpose: str
    config: str
    weights: tuple[str, ...] = ()


_BY_DIFFUSERS: Final = ("diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.safetensors")
_BY_TRANSFORMERS: Final = ("model.safetensors", "model.safetensors.index.json")
# Of two sets of weights that are there, the libraries load the one that is named first.
_KINDS: Final = {
    "scheduler": _Kind("sets the noise levels", "scheduler_config.json"),
    "tokenizer": _Kind("splits prompts into tokens", "tokenizer_config.json", ("tokenizer.json", "spiece.model")),
    "text_encoder": _Kind("makes embeddings of prompts", "config.json", _BY_TRANSFORMERS),
    "image_encoder": _Kind("makes embeddings of the first frame", "config.json", _BY_TRANSFORMERS),
    "image_processor": _Kind("prepares the first frame for the image encoder", "preprocessor_config.json"),
    "transformer": _Kind("denoises, and is what is trained", "config.json", _BY_DIFFUSERS),
    "transformer_2": _Kind("denoises at low noise, as the second expert", "config.json", _BY_DIFFUSERS),
    "vae": _Kind("turns clips into latents and back", "config.json", _BY_DIFFUSERS),
}


@dataclass(frozen=True)
class ComponentProblem:
    """Something that a model folder lacks, or that is not what the model has.

    Attributes
    ----------
    component:
        The folder's name; "" where it is the index beside the folders.
    purpose:
        What the model has it for; "" where that is not known.
    is_optional:
        Whether the model can be trained without.
    """

    component: str
    path: Path
    reason: str
    purpose: str = ""
    is_optional: bool = False

    def __str__(self) -> str:
        what = f"{self.component} ({self.purpose})" if self.purpose else self.component or INDEX_NAME
        return f"{what}: {self.reason}"


def find_problems(folder: Path, spec: ModelSpec, *, without: Collection[str] = ()) -> tuple[ComponentProblem, ...]:
    """What is wrong with the components of a model folder, in the order of the manifest; nothing where all is well.

    Parameters
    ----------
    without:
        Components that come from elsewhere, or are not wanted.
    """
    if not folder.is_dir():
        return (ComponentProblem("", folder, "the folder is not there"),)
    wanted = [name for name in spec.components if name not in without]
    return (*_index_problems(folder, spec, wanted), *_folder_problems(folder, spec, wanted))


def require_components(folder: Path, spec: ModelSpec, *, without: Collection[str] = ()) -> None:
    """Raise ModelError (MISSING_FILES) naming what a model cannot be trained without and the folder does not have."""
    problems = [problem for problem in find_problems(folder, spec, without=without) if not problem.is_optional]
    if not problems:
        return
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    name = spec.short_name(spec.default_variant)
    raise ModelError(
        ErrorCode.MISSING_FILES,
        f"the folder is no whole {spec.label}",
        path=problems[0].path,
        reason="; ".join(str(problem) for problem in problems[:_SHOWN]) + more,
        fix=f"`wan models ensure {name}` fetches what is missing, `wan models repair {name}` what is damaged; "
        "or name another folder",
        context={"components": sorted({problem.component for problem in problems})},
    )


def _index_problems(folder: Path, spec: ModelSpec, wanted: Collection[str]) -> Iterator[ComponentProblem]:
    path = folder / INDEX_NAME
    index = _read_object(path)
    if isinstance(index, str):
        yield ComponentProblem("", path, index)
        return
    pipeline = index.get("_class_name")
    if pipeline != spec.pipeline:
        reason = f"it describes {ascii(pipeline)[:80]}, and {spec.label} is a {spec.pipeline}"
        yield ComponentProblem("", path, reason)
    named = {name for name, value in index.items() if isinstance(value, list) and len(value) == 2 and value[1]}
    for name in sorted(named & _KINDS.keys() - set(spec.components)):
        yield ComponentProblem(name, path, f"the index names it, and {spec.label} has none", _KINDS[name].purpose)
    for name in wanted:
        if name not in named:
            yield _problem(spec, name, path, "the index does not name it")


def _folder_problems(folder: Path, spec: ModelSpec, wanted: Collection[str]) -> Iterator[ComponentProblem]:
    for name in wanted:
        for path, reason in _problems_of(folder / name, _KINDS.get(name)):
            yield _problem(spec, name, path, reason)


def _problems_of(part: Path, kind: _Kind | None) -> Iterator[tuple[Path, str]]:
    if not part.is_dir():
        yield part, "the folder is missing"
        return
    if kind is None:  # another manifest's, of which nothing more is known
        if not any(part.iterdir()):
            yield part, "the folder is empty"
        return
    config = _read_object(part / kind.config)
    if isinstance(config, str):
        yield part / kind.config, config
    if kind.weights:
        yield from _weight_problems(part, kind.weights)


def _weight_problems(part: Path, names: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    loaded = next((part / name for name in names if (part / name).is_file()), None)
    if loaded is None:
        pickled = sorted(file.name for file in part.iterdir() if file.name.lower().endswith(FORBIDDEN_SUFFIXES))
        why = f"; {pickled[0]} can run code, and is never loaded" if pickled else ""
        yield part, f"neither {' nor '.join(names)} is there{why}"
    elif loaded.name.endswith(".index.json"):
        yield from _shard_problems(loaded)
    elif loaded.stat().st_size == 0:
        yield loaded, "the file is empty"


def _shard_problems(index: Path) -> Iterator[tuple[Path, str]]:
    """Of the files that an index names, and of no others: what lies beside them may be another set of weights."""
    content = _read_object(index)
    if isinstance(content, str):
        yield index, content
        return
    shards = content.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        yield index, "it has no weight_map"
        return
    names = set(map(str, shards.values()))
    foreign = sorted(name for name in names if not name.endswith(".safetensors") or set(name) & set("/\\:"))
    if foreign:
        yield index, f"it names {ascii(foreign[0])[:80]}, which is no safetensors file beside it"
        return
    for name in sorted(names):
        path = index.parent / name
        if not path.is_file() or path.stat().st_size == 0:
            yield path, f"{name} is {'empty' if path.is_file() else 'missing'}; {index.name} names it"


def _problem(spec: ModelSpec, name: str, path: Path, reason: str) -> ComponentProblem:
    purpose = _KINDS[name].purpose if name in _KINDS else ""
    return ComponentProblem(name, path, reason, purpose, name in spec.optional)


def _read_object(path: Path) -> dict[str, Any] | str:
    """The JSON object in a file, or why there is none."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_JSON + 1)
        if len(text) > _LARGEST_JSON:
            return f"{path.name} is larger than {_LARGEST_JSON >> 20} MiB"
        content = json.loads(text)
    except FileNotFoundError:
        return f"{path.name} is missing"
    except (OSError, ValueError, RecursionError) as error:
        return f"{path.name} cannot be read as JSON: {error}"
    return content if isinstance(content, dict) else f"{path.name} holds no JSON object"
