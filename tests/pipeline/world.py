"""A small world to cache and sort: files that hold a number, captions that name it, encoders that can be told to fail.

A sample is good when its latent, its hidden state, its path and its concept all belong to the same number.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from wan_fixes.errors import SampleError
from wan_fixes.pipeline import (
    PipelineContext,
    SafeAspectBatchSorting,
    SafeInlineAspectBatchSorting,
    SafeVariationSorting,
    ValidatedCaptionLoader,
    ValidatedCollectPaths,
    ValidatedDiskCache,
    rewrite_definition,
)
from wan_fixes.pipeline.base import PipelineModule, RandomAccessPipelineModule

from .toys import build, concept_of, output

Fault = Callable[[int, int], Any]
"""(number, variation) -> the value to give instead; None for no fault, an exception to raise."""

NAN = torch.tensor([float("nan")])
GROUPS = ["concept.path", "concept.seed", "concept.include_subdirectories"]
BALANCING = {
    "balancing_in_name": "concept.balancing",
    "balancing_strategy_in_name": "concept.balancing_strategy",
    "group_enabled_in_name": "concept.enabled",
}


class Step(PipelineModule, RandomAccessPipelineModule):
    """Turns one item into another by `work(value, variation)`; a value of None from it stands for None."""

    CACHE_VERSION = 1  # it makes the same of the same

    def __init__(self, in_name: str, out_name: str, work: Callable[[Any, int], Any]) -> None:
        super().__init__()
        self.in_name = in_name
        self.out_name = out_name
        self._work = work

    def length(self) -> int:
        return self._get_previous_length(self.in_name)

    def get_inputs(self) -> list[str]:
        return [self.in_name]

    def get_outputs(self) -> list[str]:
        return [self.out_name]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return {self.out_name: self._work(self._get_previous_item(variation, self.in_name, index), variation)}


class LoadNumber(Step):
    """Reads the number that a file holds. `loaded` says which, one after the other."""

    def __init__(self, path_in_name: str, out_name: str) -> None:
        super().__init__(path_in_name, out_name, self._load)
        self.path_in_name = path_in_name
        self.loaded: list[int] = []

    def _load(self, path: str, variation: int) -> torch.Tensor:
        number = number_in(path)
        self.loaded.append(number)
        return torch.tensor(number)


def number_in(path: str) -> int:
    try:
        return int(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SampleError("file cannot be read", path=path, reason=str(error), module="LoadNumber") from error


def number_of_text(text: str) -> int:
    return int(text.rsplit(maxsplit=1)[-1])


class Measure(PipelineModule, RandomAccessPipelineModule):
    """Sorts numbers into buckets; `settings` and the concept's image settings have their say, as in real bucketing."""

    CACHE_VERSION = 1

    def __init__(self, buckets: int) -> None:
        super().__init__()
        self.buckets = buckets
        self.image_in_name = "image"
        self.target_resolution_in_name = "settings.target_resolution"
        self.override_in_name = "concept.image.resolution_override"

    def length(self) -> int:
        return self._get_previous_length(self.image_in_name)

    def get_inputs(self) -> list[str]:
        return [self.image_in_name]  # stock modules too leave out some of what they read

    def get_outputs(self) -> list[str]:
        return ["crop_resolution"]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        number = self._get_previous_item(variation, self.image_in_name, index)
        target = self._get_previous_item(variation, self.target_resolution_in_name, index)
        override = self._get_previous_item(variation, self.override_in_name, index)
        return {"crop_resolution": (1, int(override or target or 64) + int(number) % self.buckets)}


class Encoder(Step):
    """Number to `[number, variation]`, with a network whose weights count. `made` says what was encoded."""

    def __init__(self, in_name: str, out_name: str, fault: Fault) -> None:
        super().__init__(in_name, out_name, self._encode)
        self.network = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.network.weight, 1.0)
        torch.nn.init.constant_(self.network.bias, 0.0)
        self._fault = fault
        self._made: list[tuple[int, int]] = []

    @property
    def made(self) -> list[tuple[int, int]]:
        """(number, variation) of everything encoded since this was last asked."""
        made, self._made = self._made, []
        return sorted(made)

    def _encode(self, value: torch.Tensor, variation: int) -> Any:
        number = int(value)
        self._made.append((number, variation))
        fault = self._fault(number, variation)
        if isinstance(fault, BaseException):
            raise fault
        if fault is not None:
            return None if fault == "none" else fault
        return torch.tensor([float(number), float(variation)])


class Tokenizer(Step):
    """ "caption 7" to 7: with a tokenizer on the way, the text and not its file decides the key."""

    def __init__(self) -> None:
        super().__init__("prompt", "tokens", lambda text, variation: torch.tensor(number_of_text(text)))
        self.tokenizer = "words"


def no_fault(number: int, variation: int) -> None:
    """Everything goes well."""


class World:
    """A pipeline over folders of numbers, and what its encoders did.

    Parameters
    ----------
    caching:
        As OneTrainer's `latent_caching`: two caches and sorted batches, or everything made anew in each epoch.
    guards:
        Whether the definition goes through the rewrite table, as a host's does.
    condition_fault:
        Given, a second encoder makes one more tensor of each clip, as image to video needs.
    """

    def __init__(
        self,
        context: PipelineContext,
        cache_dir: Path,
        concepts: list[dict[str, Any]],
        *,
        caching: bool = True,
        batch_size: int = 1,
        buckets: int = 1,
        image_fault: Fault = no_fault,
        text_fault: Fault = no_fault,
        condition_fault: Fault | None = None,
        settings: Mapping[str, Any] | None = None,
        image_names: tuple[str, ...] = ("latent_image",),
        text_names: tuple[str, ...] = ("hidden",),
        caption_path: str = "caption_path",
        guards: bool = False,
        after_captions: Sequence[Any] = (),
        **options: Any,
    ) -> None:
        self.context = context
        self.image_encoder = Encoder("image", "latent_image", image_fault)
        self.text_encoder = Encoder("tokens", "hidden", text_fault)
        self.condition_encoder = Encoder("image", "condition", condition_fault or no_fault)
        conditions = [] if condition_fault is None else ["condition"]
        self.loader = LoadNumber("image_path", "image")
        made = ["latent_image", *conditions, "hidden", "crop_resolution", "image_path", "prompt"]
        self.image_cache = ValidatedDiskCache(
            cache_dir=str(cache_dir / "image"),
            split_names=[*image_names, *conditions],
            aggregate_names=["crop_resolution", "image_path"],
            variations_in_name="concept.image_variations",
            variations_group_in_name=[*GROUPS, "concept.image"],
            context=context,
            **BALANCING,
        )
        self.text_cache = ValidatedDiskCache(
            cache_dir=str(cache_dir / "text"),
            split_names=list(text_names),
            variations_in_name="concept.text_variations",
            variations_group_in_name=[*GROUPS, "concept.text"],
            context=context,
            **BALANCING,
        )
        self.sorting = (SafeAspectBatchSorting if caching else SafeInlineAspectBatchSorting)(
            "crop_resolution", [*made, "concept"], batch_size, context=context
        )
        self.modules = [
            ValidatedCollectPaths(
                "concept", "path", "concept.include_subdirectories", "enabled", "image_path", "concept",
                {".num"}, None, None, context=context,
            ),
            self.loader,
            Measure(buckets),
            Step("image_path", "caption_path", lambda path, variation: str(Path(path).with_suffix(".txt"))),
            ValidatedCaptionLoader(caption_path, "prompt", first_line_only=True, context=context),
            *after_captions,
            self.image_encoder,
            self.condition_encoder if conditions else [],
            Tokenizer(),
            self.text_encoder,
            [self.image_cache, self.text_cache] if caching else [],
            SafeVariationSorting(
                [name for name in ("prompt", "concept") if name not in text_names] if caching else [*made, "concept"],
                variations_group_in_name=[*GROUPS, "concept.text"],
                context=context,
                **BALANCING,
            ),
            self.sorting,
            output(*made, ("concept.loss_weight", "loss_weight"), ("concept.name", "name")),
        ]  # fmt: skip
        if guards:
            rewrite_definition(self.modules, context)
        self.pipeline = make_pipeline(concepts, self.modules, settings or {}, batch_size=batch_size, **options)

    def epoch(self) -> list[dict[str, Any]]:
        """The next epoch's samples."""
        self.pipeline.start_next_epoch()
        return list(self.pipeline)

    def encoded(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """What image and text encoder made since this was last asked."""
        return self.image_encoder.made, self.text_encoder.made


def make_pipeline(
    concepts: list[dict[str, Any]], modules: list[Any], settings: Mapping[str, Any], **options: Any
) -> Any:
    """As the engine's MGDS class does: concepts and settings first."""
    from wan_fixes.pipeline.base import ConceptPipelineModule, SettingsPipelineModule

    return build(ConceptPipelineModule(concepts), SettingsPipelineModule(dict(settings)), *modules, **options)


def write_sample(folder: Path, number: int, name: str | None = None, caption: str | None = None) -> Path:
    """A file with a number, and its caption."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name or f'clip{number}'}.num"
    path.write_text(str(number), encoding="utf-8")
    path.with_suffix(".txt").write_text(f"caption {number}" if caption is None else caption, encoding="utf-8")
    return path


def age(folder: Path, seconds: float = 1000.0) -> None:
    """Let the files be so old that their times can be relied on; each later change has a later time."""
    for path in folder.rglob("*"):
        then = time.time_ns() - int(seconds * 1e9)
        os.utime(path, ns=(then, then))


def concept_over(folder: Path, **changes: Any) -> dict[str, Any]:
    return concept_of(path=str(folder), name=folder.name, **changes)


def number_of(sample: dict[str, Any]) -> int:
    """The number that a sample is about, after checking that all its parts agree on it."""
    number = number_in(sample["image_path"])
    parts = (int(sample["latent_image"][0]), int(sample["hidden"][0]), number_of_text(sample["prompt"]))
    assert parts == (number, number, number), f"{sample['image_path']}: latent, hidden and prompt are of {parts}"
    assert Path(sample["image_path"]).parent.name == sample["name"]
    return number


def trained(samples: list[dict[str, Any]]) -> Counter[int]:
    """How often each number carries weight."""
    return Counter(number_of(sample) for sample in samples if sample["loss_weight"] > 0)


def bulky(number: int, variation: int, values: int = 4096) -> torch.Tensor:
    """For a world's faults: begins like what the encoder makes, and goes on with values that follow from the number."""
    noise = torch.rand(values, generator=torch.Generator().manual_seed(number))
    return torch.cat([torch.tensor([float(number), float(variation)]), noise])


def is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two samples, or two entries, are equal: tensor by tensor, and value by value."""
    return one.keys() == other.keys() and all(
        value.dtype == other[name].dtype and torch.equal(value, other[name])
        if torch.is_tensor(value)
        else value == other[name]
        for name, value in one.items()
    )


def are_same(samples: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    """The same for all samples of an epoch, in their order."""
    return len(samples) == len(others) and all(map(is_same, samples, others))
