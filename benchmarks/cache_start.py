"""Starts of OneTrainer's own definition for a video model on complete caches: what `cache.py start` measures.

    PYTHONPATH=ONETRAINER:MGDS/src:. python benchmarks/cache.py start [--counts N ...]

Small pictures with captions, and a small entry of each in both caches. Every start is a fresh process: the first makes
the caches, the second looks once more at what changed just then, the third counts.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cache import timed

ROUNDS = 3
WHOSE = ("ours", "stock")


def make_folder(folder: Path, count: int) -> None:
    """Pictures of 16 by 16 with captions, no two of one content."""
    import numpy
    from PIL import Image

    folder.mkdir(parents=True)
    noise = numpy.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number:06}.png"
        Image.fromarray(noise.integers(0, 256, (16, 16, 3), dtype=numpy.uint8)).save(path, compress_level=0)
        path.with_suffix(".txt").write_text(f"a caption of {number}", encoding="ascii")


def definition_of_onetrainer(folder: Path, cache: Path) -> tuple[list[Any], list[Any]]:
    """Concepts, and the definition, nested, with an encoder of pictures and one of text that do next to nothing."""
    import torch
    from clip_cache import Step
    from modules.dataLoader.mixin.DataLoaderText2ImageMixin import DataLoaderText2ImageMixin
    from modules.util.config.ConceptConfig import ConceptConfig
    from modules.util.config.TrainConfig import TrainConfig
    from modules.util.enum.DataType import DataType
    from modules.util.enum.ModelType import ModelType

    concept = ConceptConfig.default_values()
    concept.path, concept.name, concept.seed = str(folder), "all", 1
    config = TrainConfig.default_values()
    config.model_type = ModelType.HUNYUAN_VIDEO
    config.cache_dir = str(cache / "cache")
    config.resolution, config.frames = "64", "1"
    # What a model's own loader adds is below.
    own = dict.fromkeys(DataLoaderText2ImageMixin.__abstractmethods__)
    loader = type("Loader", (DataLoaderText2ImageMixin,), own)()
    aggregate, images, texts = ["crop_resolution", "image_path"], ["latent_image", "crop_offset"], ["hidden"]
    encode = [
        Step("image", ("latent_image",), lambda image: {"latent_image": image[:, :, ::8, ::8].clone()}),
        Step("prompt", ("hidden",), lambda text: {"hidden": torch.full((16, 64), float(len(text)))}),
    ]
    names = [*aggregate, *images, *texts, "prompt"]
    definition = [
        loader._enumerate_input_modules(config, allow_videos=True),
        loader._load_input_modules(config, DataType.FLOAT_32, vae_frame_dim=True),
        loader._aspect_bucketing_in(config, 16, True),
        loader._crop_modules(config),
        loader._augmentation_modules(config),
        encode,
        loader._cache_modules_from_names(
            None, None, images, aggregate, texts, [*names, "concept"], config, True, lambda: None
        ),
        loader._output_modules_from_out_names(
            None, None, names, config, lambda: None, train_dtype=DataType.FLOAT_32
        ),
    ]  # fmt: skip
    for module in definition[-2]:
        if hasattr(module, "before_cache_fun"):
            module.before_cache_fun = lambda: None
    return [concept.to_dict()], definition


def flat(definition: list[Any]) -> Iterator[Any]:
    for part in definition:
        if isinstance(part, list):
            yield from flat(part)
        else:
            yield part


def run_start(folder: Path, cache: Path, whose: str) -> None:
    """One start; prints the seconds of two epochs, and of each module in the first, as JSON."""
    import torch

    from wan_fixes.pipeline import PipelineContext, rewrite_definition
    from wan_fixes.pipeline.base import ConceptPipelineModule, LoadingPipeline, PipelineState, SettingsPipelineModule
    from wan_fixes.pipeline.upstream import unwrap

    concepts, definition = definition_of_onetrainer(folder, cache)
    replaced = set()
    context = PipelineContext.create(cache / "files")
    if whose == "ours":
        rewrite_definition(definition, context)
    modules = list(flat(definition))
    first = [ConceptPipelineModule(concepts), SettingsPipelineModule({"target_resolution": "64", "target_frames": "1"})]
    pipeline = LoadingPipeline(torch.device("cpu"), [*first, *modules], 1, 0, PipelineState(2))
    seconds: dict[str, float] = {}
    for module in modules:
        if hasattr(module, "start"):
            kind = type(unwrap(module))
            if kind.__module__.startswith("wan_fixes.") or kind.__name__ in stock_names():
                replaced.add(kind.__name__)
            module.start = _clocked(module.start, kind.__name__, seconds)
    epochs = [timed(pipeline.start_next_epoch) for _ in range(2)]
    context.close()
    figures = {"modules": seconds, "replaced": sorted(replaced), "epochs": epochs}
    sys.stdout.write(json.dumps(figures) + "\n")


def stock_names() -> set[str]:
    """The stock modules that ours stand in for."""
    from wan_fixes.pipeline.rewrite import REPLACEMENTS

    return set(REPLACEMENTS) - {"EncodeVAE"}


def _clocked(start: Callable[..., None], name: str, seconds: dict[str, float]) -> Callable[..., None]:
    """Adds up the modules of one class, in the first epoch."""
    is_first = True

    def work(*arguments: Any) -> None:
        nonlocal is_first
        spent = timed(start, *arguments)
        if is_first:
            seconds[name] = seconds.get(name, 0.0) + spent
        is_first = False

    return work


def starts(counts: list[int], top: Path) -> Any:
    """A table: seconds of a start by ours and by stock, in how many of them the modules are that differ."""
    from rich.table import Table

    table = Table("samples", "by", "first epoch", "replaced modules", "others", "second epoch", "the longest")
    for count in counts:
        folder = top / str(count) / "samples"
        make_folder(folder, count)
        time.sleep(2.5)  # what changed just now is not remembered by its time
        figures: dict[str, list[dict[str, Any]]] = {whose: [] for whose in WHOSE}
        for number in range(2 + ROUNDS):
            for whose in WHOSE:
                command = [sys.executable, __file__, str(folder), str(top / str(count) / whose), whose]
                done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
                if number >= 2:
                    figures[whose].append(json.loads(done.stdout.splitlines()[-1]))
                elif number == 0:
                    time.sleep(2.5)
        for whose in WHOSE:
            table.add_row(str(count), whose, *_cells(figures[whose]))
    return table


def _cells(rounds: list[dict[str, Any]]) -> list[str]:
    def median(read: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(map(read, rounds))

    names = list(rounds[0]["modules"])
    modules = {name: median(lambda figures, name=name: figures["modules"][name]) for name in names}  # type: ignore[misc]
    replaced = sum(modules[name] for name in rounds[0]["replaced"])
    longest = sorted(modules, key=modules.__getitem__)[:-5:-1]
    return [
        f"{median(lambda figures: figures['epochs'][0]):.2f}",
        f"{replaced:.2f}",
        f"{sum(modules.values()) - replaced:.2f}",
        f"{median(lambda figures: figures['epochs'][1]):.2f}",
        ", ".join(f"{re.sub('^(Validated|Safe|Robust)', '', name)} {modules[name]:.2f}" for name in longest),
    ]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
    run_start(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
