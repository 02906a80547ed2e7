"""One sample for each window of a clip: all are trained, each is cached for itself, and a clip is decoded once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from clips import make_broken_files, write_clip
from painted import paint_frame, read_frame_number

from wan_fixes.media import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, MediaReader
from wan_fixes.pipeline import (
    RobustVideoLoader,
    SafeAspectBatchSorting,
    SafeVariationSorting,
    SafeVideoFrameSampler,
    ValidatedCaptionLoader,
    ValidatedCollectPaths,
    ValidatedDiskCache,
    fan_out,
    rewrite_definition,
)
from wan_fixes.pipeline.cache_builder import CacheBuilder
from wan_fixes.pipeline.one_pass import BUDGET_BYTES
from wan_fixes.pipeline.scale_crop import SafeScaleCrop

from .toys import RandomAccess, concept_of, output, samples_of
from .world import BALANCING, GROUPS, Step, Tokenizer, age, make_pipeline

FRAMES = 9
SIZE = {"width": 96, "height": 64}


class Pure(RandomAccess):
    CACHE_VERSION = 1


class World:
    """A folder, a pipeline over it with a cache, and what was made."""

    def __init__(self, folder: Path, contexts: Any) -> None:
        self.folder = folder
        self.contexts = contexts
        self.made: list[int] = []
        self.passes: list[int] = []
        self.while_making: Callable[[int], None] = lambda number: None

    def epoch(self, **settings: Any) -> dict[str, list[list[int | None]]]:
        """The painted numbers of each sample, by the name of its file; and what had to be made for them."""
        self.made.clear()
        self.passes.clear()
        concept = concept_of(path=str(self.folder), include_subdirectories=False)
        with self.contexts.new_files(self.folder.parent / "files", **settings) as context:
            self.context = context
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
            latent = module._get_previous_item(variation, "image", index)
            self.made.append(index)
            self.while_making(index)
            return {"latent": latent}

        return [
            ValidatedCollectPaths(
                "concept", "path", "concept.include_subdirectories", "enabled", "image_path", "concept",
                IMAGE_EXTENSIONS | VIDEO_EXTENSIONS, None, None, context=context,
            ),
            [sampler, loader],
            Pure(lambda module, variation, index, name: sizes, tuple(sizes), "image_path"),
            SafeScaleCrop(["image"], "scale", "crop", "jitter", None, loader=loader, context=context),
            Pure(latent, ("latent",), "image"),
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


@pytest.mark.parametrize("is_old", [False, True])
def test_damage_costs_the_chunk_that_it_is_in_now_and_in_later_runs(world: World, is_old: bool):
    clip = world.folder / "long.mp4"
    options = {"preset": "veryfast", "g": str(FRAMES), "bf": "0", "sc_threshold": "0"}
    write_clip(clip, (paint_frame(number, **SIZE) for number in range(40)), options=options)
    with av.open(str(clip)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(clip.read_bytes())
    for start, size in spans[20:22]:
        content[start + size // 4 : start + size] = (byte ^ 0x5A for byte in content[start + size // 4 : start + size])
    clip.write_bytes(content)
    if is_old:  # so that the cache remembers how many chunks there are
        age(world.folder)
    usable = EVERY_CHUNK | {"long.mp4": windows(0, 9, 27)}
    assert world.epoch(frame_window="chunks") == usable
    assert [Path(path).name for path in world.skipped] == ["long.mp4"]
    for _ in range(2):
        assert world.epoch(frame_window="chunks") == usable and world.made == []
        assert [Path(path).name for path in world.skipped] == ["long.mp4"]
    assert world.epoch(frame_window="start")["long.mp4"] == windows(0)


def test_what_does_not_fit_into_the_budget_is_decoded_in_a_further_pass(world: World, monkeypatch: pytest.MonkeyPatch):
    sample = 3 * FRAMES * 64 * 80
    assert sample < BUDGET_BYTES
    monkeypatch.setattr("wan_fixes.pipeline.one_pass.BUDGET_BYTES", 3 * sample)
    assert world.epoch(frame_window="chunks") == EVERY_CHUNK
    assert sorted(world.passes) == [1, 1, 2, 3]


def test_ctrl_c_in_the_middle_of_a_clip_leaves_its_other_chunks_and_forgets_their_frames(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    begun, over = threading.Event(), threading.Event()
    build = CacheBuilder.run

    def interrupted(pending, **options):
        if not begun.is_set():
            assert begun.wait(60)
            raise KeyboardInterrupt
        over.set()
        return wait(pending, **options)

    def building(builder, jobs):
        monkeypatch.setattr(fan_out, "wait", interrupted)
        return build(builder, jobs)

    def slow(number: int) -> None:
        begun.set()
        assert over.wait(60)

    for name in ("short.mp4", "single.mp4"):
        (world.folder / name).unlink()
    monkeypatch.setattr(CacheBuilder, "run", building)
    world.while_making = slow
    with pytest.raises(KeyboardInterrupt):
        world.epoch(frame_window="chunks")
    assert len(world.made) == 1, "what was begun is finished, and nothing more of this clip is begun"
    assert world.context.upcoming(str(world.folder / "long.mp4")) is None

    monkeypatch.undo()
    world.while_making = lambda number: None
    assert world.epoch(frame_window="chunks") == {"long.mp4": EVERY_CHUNK["long.mp4"]}
    assert len(world.made) == 3


def test_a_clip_that_cannot_be_measured_is_tried_once(world: World, monkeypatch: pytest.MonkeyPatch):
    measured: list[str] = []
    probe = MediaReader.probe
    monkeypatch.setattr(MediaReader, "probe", lambda reader, path: measured.append(path) or probe(reader, path))
    (world.folder / "text.mp4").write_text("not a video")
    assert world.epoch(frame_window="chunks") == EVERY_CHUNK
    assert sorted(Path(path).name for path in measured) == sorted([*EVERY_CHUNK, "text.mp4"])
    assert "text file" in world.skipped[str(world.folder / "text.mp4")].reason


class CaptionedWorld(World):
    """With captions and their own cache, balancing, and batches of one size of picture."""

    def __init__(self, world: World) -> None:
        super().__init__(world.folder, world.contexts)
        self.texts: list[int] = []
        for number, path in enumerate(sorted(self.folder.glob("*.mp4"))):
            path.with_suffix(".txt").write_text(f"caption {number}")

    def run(self, *, batch_size: int = 1, balancing: float = 1.0, strategy: str = "REPEATS", **settings: Any) -> Any:
        """The samples of an epoch; `made` and `texts` say what was encoded."""
        self.made.clear()
        self.texts.clear()
        concept = concept_of(path=str(self.folder), balancing=balancing, balancing_strategy=strategy)
        with self.contexts.new_files(self.folder.parent / "files", **settings) as context:
            definition = self._captioned(context, batch_size)
            rewrite_definition(definition, context)
            pipeline = make_pipeline([concept], definition, {"frames": str(FRAMES)}, batch_size=batch_size)
            pipeline.start_next_epoch()
            return list(pipeline)

    def _captioned(self, context: Any, batch_size: int) -> list[Any]:
        *making, _cache, _output = self._definition(context)
        made = ["latent", "image_path", "crop", "hidden"]

        def hidden(tokens: torch.Tensor, variation: int) -> torch.Tensor:
            self.texts.append(int(tokens))
            return tokens.float()

        cache = self.folder.parent / "cache"
        groups = {"context": context, **BALANCING}
        return [
            *making,
            Step("image_path", "caption_path", lambda path, variation: str(Path(path).with_suffix(".txt"))),
            ValidatedCaptionLoader("caption_path", "prompt", first_line_only=True, context=context),
            Tokenizer(),
            Step("tokens", "hidden", hidden),
            ValidatedDiskCache(
                str(cache / "image"), ["latent"], ["image_path", "crop"], "concept.image_variations",
                variations_group_in_name=[*GROUPS, "concept.image"], **groups,
            ),
            ValidatedDiskCache(
                str(cache / "text"), ["hidden"], [], "concept.text_variations",
                variations_group_in_name=[*GROUPS, "concept.text"], **groups,
            ),
            SafeVariationSorting(
                ["prompt", "concept"], variations_group_in_name=[*GROUPS, "concept.text"], **groups
            ),
            SafeAspectBatchSorting("crop", [*made, "prompt", "concept"], batch_size, context=context),
            output(*made, "prompt", ("concept.loss_weight", "loss_weight")),
        ]  # fmt: skip


def first_frames(samples: list[dict[str, Any]]) -> Counter[tuple[str, int]]:
    """How often each chunk is trained, by the clip and its first frame; each with its clip's caption."""
    captions = {"long.mp4": 0, "short.mp4": 1, "single.mp4": 2}
    found: Counter[tuple[str, int]] = Counter()
    for sample in samples:
        name = Path(sample["image_path"]).name
        assert sample["prompt"] == f"caption {captions[name]}" and int(sample["hidden"]) == captions[name]
        if sample["loss_weight"] > 0:
            number = read_frame_number(sample["latent"][:, 0].permute(1, 2, 0).numpy())
            assert number is not None
            found[name, number] += 1
    return found


ALL = [(name, chunk[0]) for name, chunks in EVERY_CHUNK.items() for chunk in chunks]


def test_each_chunk_is_trained_with_its_clips_caption_which_is_encoded_once(world: World):
    captioned = CaptionedWorld(world)
    assert first_frames(captioned.run(frame_window="chunks")) == Counter(ALL)
    assert sorted(captioned.texts) == [0, 1, 2] and len(captioned.made) == 7
    assert first_frames(captioned.run(frame_window="chunks")) == Counter(ALL)
    assert captioned.texts == captioned.made == [], "a second run makes nothing"
    assert first_frames(captioned.run(frame_window="start")) == Counter([(name, 0) for name in EVERY_CHUNK])
    assert captioned.texts == [] and len(captioned.made) == 3, "another window is no other caption"


@pytest.mark.parametrize(
    ("strategy", "balancing", "total"), [("REPEATS", 2.0, 14), ("REPEATS", 0.5, 3), ("SAMPLES", 5, 5)]
)
def test_balancing_counts_chunks_and_not_clips(world: World, strategy, balancing, total):
    found = first_frames(CaptionedWorld(world).run(frame_window="chunks", strategy=strategy, balancing=balancing))
    assert found.total() == total
    assert set(found) <= set(ALL) and set(found.values()) == {2 if balancing == 2.0 else 1}


def test_batches_of_chunks_are_filled_up_and_a_bad_clip_among_them_costs_itself_alone(world: World, tmp_path: Path):
    broken = {truth.kind: truth.path for truth in make_broken_files(tmp_path / "broken")}
    captioned = CaptionedWorld(world)
    broken["flipped_bytes"].rename(world.folder / "aaa.mp4")
    samples = captioned.run(frame_window="chunks", batch_size=3)
    assert len(samples) == 9 and [sample["loss_weight"] for sample in samples].count(0.0) == 2
    assert first_frames(samples) == Counter(ALL)
