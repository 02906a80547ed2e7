"""Weight files on disk: what their headers say, and whether all that an index or a model folder names is there.

Nothing is loaded: headers are read, which takes milliseconds, so that a missing shard of a 28 GB model is named at
once and not after minutes. Pickled weights (`.bin`, `.pth`) are never opened: they can run code. Never imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

_INDEX = ".safetensors.index.json"
_STEMS = ("diffusion_pytorch_model", "model")  # what diffusers and transformers load by themselves
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a file's header describes it."""

    file: Path
    shape: tuple[int, ...]
    name: str
    """Its own name in that file."""


class WeightFileError(Exception):
    """A weight file that cannot be used: `path`, `reason`, and `fix` where it is not to get the file again."""

    def __init__(self, path: Path, reason: str, fix: str = "") -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason, self.fix)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file. Raises ``WeightFileError`` when it is missing, damaged or cut short."""
    try:
        _refuse_pointer(path)
        # Opening checks that the header is whole and that its offsets cover the file to the byte.
        with safetensors.safe_open(path, framework="np") as file:
            names = list(file.keys())
            return {name: StoredTensor(path, tuple(file.get_slice(name).get_shape()), name) for name in names}
    except FileNotFoundError:
        raise WeightFileError(path, "the file is missing") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from error


def read_gguf_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a GGUF file, in the shapes that they have when unpacked. Needs the package `gguf`.

    Raises ``WeightFileError`` when the file is missing, damaged or cut short.
    """
    from gguf import GGUFReader

    try:
        _refuse_pointer(path)
        # Opening maps the file, and checks of each tensor that the file holds all of its bytes.
        tensors = GGUFReader(path).tensors
    except FileNotFoundError:
        raise WeightFileError(path, "the file is missing") from None
    except WeightFileError:
        raise
    except Exception as error:  # the boundary to the library: it raises whatever comes of the bytes that it finds
        raise _damaged(path, error) from error
    # GGUF has the innermost dimension first.
    return {t.name: StoredTensor(path, tuple(int(size) for size in reversed(t.shape)), t.name) for t in tensors}


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        raise WeightFileError(path, "it is a Git LFS pointer, not the file itself", "run `git lfs pull` there")


def _damaged(path: Path, error: Exception) -> WeightFileError:
    size = path.stat().st_size if path.is_file() else 0
    return WeightFileError(path, f"damaged or cut short at {size:,} bytes: {error}")


def read_shards(index: Path) -> dict[str, StoredTensor]:
    """The tensors of all the files that an index names. Raises ``WeightFileError``."""
    weight_map = _weight_map(index)
    files: dict[str, dict[str, StoredTensor]] = {}
    for name in sorted(set(weight_map.values())):
        if not (index.parent / name).exists():
            raise WeightFileError(index.parent / name, f"the file is missing; {index.name} names it")
        files[name] = read_header(index.parent / name)
    for tensor, name in weight_map.items():
        if tensor not in files[name]:
            reason = f"{tensor} is missing; {index.name} says that it is there"
            raise WeightFileError(index.parent / name, reason)
    # All that the files hold, also what the index leaves out; a tensor in several is taken from where the index says.
    held = {tensor: stored for file in files.values() for tensor, stored in file.items()}
    return held | {tensor: files[name][tensor] for tensor, name in weight_map.items()}


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor names and the files beside the index that hold them."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightFileError(index, f"it cannot be read as JSON: {error}") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightFileError(index, "it holds no weight_map")
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise WeightFileError(index, f"it names {name!r}, which is no safetensors file beside it")
    return weight_map


def check_parts(folder: Path) -> None:
    """Check the weights in each folder of a model in diffusers' layout, of whatever model type.

    A folder may hold several sets of weights (`fp16` beside the full ones). The set that is loaded by itself must be
    whole if one of its files is there; where it is not, another set must be. Folders without safetensors say nothing.

    Raises
    ------
    WeightFileError
        Naming the first file that is missing, damaged or cut short.
    """
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        _check_part(part)


def _check_part(part: Path) -> None:
    problems: list[WeightFileError] = []
    some_are_whole = False
    for file, is_default in _weight_sets(part):
        try:
            read_shards(file) if file.name.endswith(_INDEX) else read_header(file)
            some_are_whole = True
        except WeightFileError as problem:
            if is_default and _is_begun(file):
                raise
            problems.append(problem)
    if problems and not some_are_whole:
        raise problems[0]


def _weight_sets(part: Path) -> Iterator[tuple[Path, bool]]:
    """Each index and each weight file that stands for itself, and whether it is loaded without asking for a variant."""
    for file in sorted(part.glob("*.safetensors*")):
        for stem in _STEMS:
            if file.name in (f"{stem}.safetensors", f"{stem}{_INDEX}"):
                yield file, True
            elif file.name.startswith(f"{stem}.") and (file.name.endswith(_INDEX) or _stands_alone(file)):
                yield file, False


def _stands_alone(file: Path) -> bool:
    return file.suffix == ".safetensors" and "-of-" not in file.name


def _is_begun(file: Path) -> bool:
    """Whether a file of the set is there. An index alone is what a download of another variant leaves."""
    if not file.name.endswith(_INDEX):
        return True
    try:
        return any((file.parent / name).exists() for name in _weight_map(file).values())
    except WeightFileError:
        return True
