"""The corpus of good, odd and bad media as one concept: what is good comes out to the frame, the rest is named."""

from __future__ import annotations

import bisect
import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from media.corpus import CASES, Begins, Case, Either, Picture, Rejected, Serves, make
from painted import read_frame_number

from wan_fixes.media import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS
from wan_fixes.pipeline import (
    RobustVideoLoader,
    SafeInlineAspectBatchSorting,
    SafeVariationSorting,
    SafeVideoFrameSampler,
    ValidatedCollectPaths,
    ValidatedImageLoader,
    rewrite_definition,
)
from wan_fixes.pipeline.base import ENGINE

from .toys import RandomAccess, concept_of, output, samples_of
from .world import make_pipeline

FRAMES = 9
NAMES = ["image", "image_path", "concept", "size"]
has_stock_modules = ENGINE == "mgds" and importlib.util.find_spec("torchvision") is not None


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> SimpleNamespace:
    """A folder with every case, each in a folder of its own, and the paths of those that could be made."""
    folder = tmp_path_factory.mktemp("corpus")
    made = {case: make(case, folder) for case in CASES}
    return SimpleNamespace(folder=folder, paths={case: path for case, path in made.items() if path is not None})


def validated(context, fps: float | None) -> list[Any]:
    sampler = SafeVideoFrameSampler("image_path", "settings.frames", "plan", fps, VIDEO_EXTENSIONS, context=context)
    loader = RobustVideoLoader(
        "image_path", "settings.frames", "image", 0.0, 1.0, fps, VIDEO_EXTENSIONS,
        context=context, frame_plan_in_name="plan",
    )  # fmt: skip
    return [
        ValidatedCollectPaths(
            "concept", "path", "concept.include_subdirectories", "enabled", "image_path", "concept",
            IMAGE_EXTENSIONS | VIDEO_EXTENSIONS, None, None, context=context,
        ),
        ValidatedImageLoader("image_path", "image", 0.0, 1.0, IMAGE_EXTENSIONS, context=context),
        sampler,
        loader,
        same_size(),
        SafeVariationSorting(NAMES, context=context),
        SafeInlineAspectBatchSorting("size", NAMES, 1, context=context),
        output("image", "image_path", ("concept.loss_weight", "loss_weight")),
    ]  # fmt: skip


def stock(context, fps: float | None) -> list[Any]:
    """MGDS's own modules, rewritten; its video loader takes no rate of None."""
    from mgds.pipelineModules.CollectPaths import CollectPaths
    from mgds.pipelineModules.InlineAspectBatchSorting import InlineAspectBatchSorting
    from mgds.pipelineModules.LoadImage import LoadImage
    from mgds.pipelineModules.LoadVideo import LoadVideo
    from mgds.pipelineModules.VariationSorting import VariationSorting

    definition = [
        CollectPaths(
            "concept", "path", "concept.include_subdirectories", "enabled", "image_path", "concept",
            IMAGE_EXTENSIONS | VIDEO_EXTENSIONS, None, None,
        ),
        LoadImage("image_path", "image", 0, 1, supported_extensions=IMAGE_EXTENSIONS),
        LoadVideo("image_path", "settings.frames", "image", 0, 1, fps, VIDEO_EXTENSIONS),
        same_size(),
        VariationSorting(NAMES, variations_group_in_name=["concept.path"]),
        InlineAspectBatchSorting("size", NAMES, 1),
        output("image", "image_path", ("concept.loss_weight", "loss_weight")),
    ]  # fmt: skip
    report = rewrite_definition(definition, context)
    assert sum(report.replaced.values()) == 5
    return definition


def same_size() -> RandomAccess:
    return RandomAccess(lambda module, variation, index, name: {"size": (1, 64)}, ("size",), "image_path")


STOCK = pytest.param(
    stock, 24.0, id="stock", marks=[] if has_stock_modules else pytest.mark.skip(reason="needs mgds and torchvision")
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("definition", "fps"),
    [pytest.param(validated, None, id="validated"), pytest.param(validated, 16.0, id="16 fps"), STOCK],
)
def test_the_good_come_out_to_the_frame_and_the_bad_are_named(
    corpus: SimpleNamespace, contexts, tmp_path: Path, definition: Callable[..., list[Any]], fps: float | None
):
    concept = concept_of(path=str(corpus.folder), include_subdirectories=True)
    with contexts.new_files(tmp_path / "files", decode_deadline_seconds=5) as context:
        pipeline = make_pipeline([concept], definition(context, fps), {"frames": str(FRAMES)})
        pipeline.start_next_epoch()
        trained = {sample["image_path"]: sample for sample in pipeline if sample["loss_weight"] > 0}
        skipped = samples_of(context)
    assert not trained.keys() & skipped.keys()
    faults = []
    for case, path in corpus.paths.items():
        if path.is_dir():
            continue  # no sample, whatever it is called
        sample, record = trained.get(str(path)), skipped.get(str(path))
        if (sample is None) == (record is None):
            faults.append(f"{case.name}: neither trained nor named")
        elif not (is_right(case, sample, fps) if sample is not None else may_be_skipped(case, record)):
            faults.append(f"{case.name}: {numbers_in(sample) if sample else record.reason}")
    assert "\n".join(faults) == ""
    # The targets of links are samples too; of anything else nothing is known here.
    others = {Path(path) for path in {**trained, **skipped}} - set(corpus.paths.values())
    assert {path.parent.name for path in others} <= {"elsewhere"}


def numbers_in(sample: dict[str, Any]) -> list[int | None]:
    """What is painted into the frames of a clip, or into an image as one frame."""
    pictures = sample["image"] if sample["image"].ndim == 4 else sample["image"][:, None]
    return [read_frame_number(picture.permute(1, 2, 0).numpy()) for picture in pictures.unbind(1)]


def is_right(case: Case, sample: dict[str, Any], fps: float | None) -> bool:
    seen, truth = numbers_in(sample), case.truth
    if isinstance(truth, Picture):
        return seen == [truth.number]
    if isinstance(truth, Rejected):
        return False
    if isinstance(truth, Serves) and truth.size[0] < 8:
        return True  # too small for a number to be read
    if len(seen) != FRAMES:
        return False
    if isinstance(truth, Either):
        known = [number for number in seen if number is not None]
        in_order = all(a <= b for a, b in itertools.pairwise(known))
        return in_order and (len(known) == FRAMES or truth.may_be_spoilt)
    numbers = truth.of if isinstance(truth, Begins) else truth.numbers
    times = truth.frame_times() if isinstance(truth, Serves) else Serves(numbers=numbers).frame_times()
    first = numbers.index(seen[0])
    if fps is None or times is None:
        return seen == list(numbers[first : first + FRAMES]) or times is None
    return any(
        all(number in on_screen(numbers, times, times[first] + step / rate) for step, number in enumerate(seen))
        for rate in (fps, fps * 1000 / 1001)
    )


def on_screen(numbers, times, at: float) -> set[int]:
    """The numbers that may be taken for those on screen at a time: times are rounded in files."""
    slack = min(0.005, min(b - a for a, b in itertools.pairwise(times)) / 2)
    return {numbers[max(0, bisect.bisect_right(times, at + late) - 1)] for late in (-0.001, 0, slack)}


def may_be_skipped(case: Case, record: Any) -> bool:
    truth, reason = case.truth, record.reason
    if not record.fix or not reason:
        return False
    too_short = "needed" in reason or "one frame only" in reason
    if isinstance(truth, Rejected):
        return truth.reason in reason or too_short
    if isinstance(truth, Serves):
        times = truth.frame_times()
        return too_short and (len(truth.numbers) < FRAMES or times is None or times[-1] < FRAMES / 16)
    return isinstance(truth, Either) or (isinstance(truth, Begins) and (truth.at_least < FRAMES * 2 or too_short))
