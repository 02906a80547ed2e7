"""One sample for each window of a clip: all are trained, each is cached for itself, and a clip is decoded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from clips import make_broken_files, write_clip
from painted import paint_frame, read_frame_number

from wan_fixes.media import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, MediaReader
from wan_fixes.pipeline import (
    RobustVideoLoader,
    SafeVideoFrameSampler,
    ValidatedCollectPaths,
    ValidatedDiskCache,
    rewrite_definition,
)
from wan_fixes.pipeline.one_pass import BUDGET_BYTES
from wan_fixes.pipeline.scale_crop import SafeScaleCrop

from .toys import RandomAccess, concept_of, output, samples_of
from .world import make_pipeline

FRAMES = 9
SIZE = {"width": 96, "height": 64}


class World:
    """A folder, a pipeline over it with a cache, and what was made."""

    def __init__(self, folder: Path, contexts: Any) -> None:
        self.folder = folder
        self.contexts = contexts
        self.made: list[int] = []
        self.passes: list[int] = []

    def epoch(self, **settings: Any) -> dict[str, list[list[int | None]]]:
        """The painted numbers of each sample, by the name of its file; and what had to be made for them."""
        self.made.clear()
        self.passes.clear()
        concept = concept_of(path=str(self.folder), include_subdirectories=False)
        with self.contexts.new_files(self.folder.parent / "files", **settings) as context:
            definition = self._definition(context)
            rewrite_definition(definition, context)
            pipeline = make_pipeline([concept], definition, {"frames": str(FRAMES)})
            pipeline.start_next_epoch()
            seen: dict[str, list[list[int | None]]] = {}
            for sample in pipeline:
                pictures = sample["latent"].permute(1, 2, 3, 0).numpy()
                numbers = [read_frame_number(picture) for picture in pictures]
                seen.setdefault(Path(sample["image_path"]).name, []).append(numbers)
            self.skipped = samples_of(context)
        return {name: sorted(samples) for name, samples in seen.items()}

    def _definition(self, context: Any) -> list[Any]:
        sampler = SafeVideoFrameSampler(
            "image_path", "settings.frames", "plan", 16.0, VIDEO_EXTENSIONS, context=context
        )
        loader = RobustVideoLoader(
            "image_path", "settings.frames", "image", 0.0, 1.0, 16.0, VIDEO_EXTENSIONS,
            context=context, frame_plan_in_name="plan",
        )  # fmt: skip
        sizes = {"scale": (64, 96), "crop": (64, 80), "jitter": False}

        def latent(module: Any, variation: int, index: int, name: str) -> dict[str, Any]:
            self.made.append(index)
            return {"latent": module._get_previous_item(variation, "image", index)}

        return [
            ValidatedCollectPaths(
                "concept", "path", "concept.include_subdirectories", "enabled", "image_path", "concept",
                IMAGE_EXTENSIONS | VIDEO_EXTENSIONS, None, None, context=context,
            ),
            [sampler, loader],
            RandomAccess(lambda module, variation, index, name: sizes, tuple(sizes), "image_path"),
            SafeScaleCrop(["image"], "scale", "crop", "jitter", None, loader=loader, context=context),
            RandomAccess(latent, ("latent",), "image"),
            ValidatedDiskCache(str(self.folder.parent / "cache"), ["latent"], ["image_path"], context=context),
            output("latent", "image_path"),
        ]  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, contexts, monkeypatch: pytest.MonkeyPatch) -> World:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, frames in (("long.mp4", 40), ("short.mp4", 20), ("single.mp4", 10)):
        write_clip(folder / name, (paint_frame(number, **SIZE) for number in range(frames)))
    world = World(folder, contexts)
    decode = MediaReader.decode_samples

    def counting(reader, path, samples, use):
        world.passes.append(len(samples))
        return decode(reader, path, samples, use)

    monkeypatch.setattr(MediaReader, "decode_samples", counting)
    return world


def windows(*starts: int) -> list[list[int]]:
    return [list(range(start, start + FRAMES)) for start in starts]


EVERY_CHUNK = {"long.mp4": windows(0, 9, 18, 27), "short.mp4": windows(0, 9), "single.mp4": windows(0)}


def test_each_window_of_a_clip_is_a_sample_and_a_clip_is_decoded_once(world: World):
    assert world.epoch(frame_window="chunks") == EVERY_CHUNK
    assert len(world.made) == 7
    assert sorted(world.passes) == [1, 2, 4], "one pass for each clip, whatever the number of its samples"


def test_a_second_run_makes_nothing_and_another_window_its_own(world: World):
    world.epoch(frame_window="chunks")
    assert world.epoch(frame_window="chunks") == EVERY_CHUNK and world.made == []
    assert world.epoch(frame_window="start") == {name: samples[:1] for name, samples in EVERY_CHUNK.items()}
    assert len(world.made) == 3
    assert world.epoch(frame_window="chunks") == EVERY_CHUNK and world.made == []


def test_a_changed_clip_is_made_anew_with_all_its_chunks(world: World):
    world.epoch(frame_window="chunks")
    write_clip(world.folder / "short.mp4", (paint_frame(100 + number, **SIZE) for number in range(30)))
    assert world.epoch(frame_window="chunks") == EVERY_CHUNK | {"short.mp4": windows(100, 109, 118)}
    assert len(world.made) == 3


def test_bad_clips_among_them_are_named_once(world: World, tmp_path: Path):
    broken = {truth.kind: truth.path for truth in make_broken_files(tmp_path / "broken")}
    for kind in ("empty", "flipped_bytes", "too_short"):
        broken[kind].rename(world.folder / f"{kind}.mp4")
    assert world.epoch(frame_window="chunks") == EVERY_CHUNK
    assert {Path(path).name for path in world.skipped} == {"empty.mp4", "flipped_bytes.mp4", "too_short.mp4"}


def test_what_does_not_fit_into_the_budget_is_decoded_in_a_further_pass(world: World, monkeypatch: pytest.MonkeyPatch):
    sample = 3 * FRAMES * 64 * 80
    assert sample < BUDGET_BYTES
    monkeypatch.setattr("wan_fixes.pipeline.one_pass.BUDGET_BYTES", 3 * sample)
    assert world.epoch(frame_window="chunks") == EVERY_CHUNK
    assert sorted(world.passes) == [1, 1, 2, 3]
