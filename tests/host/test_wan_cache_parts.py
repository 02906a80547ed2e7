"""WAN's caches inside stock OneTrainer: image to video adds to a cache of text to video what that one lacks."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

# Everything that is drawn for a clip: its resolution, window, crop and flip.
DRAWN = {
    "resolution": "64,96",
    "concept": {"image": {"__version": 1, "enable_random_flip": True, "enable_crop_jitter": True}},
}


@pytest.fixture
def clips(runs: Any, tmp_path: Path) -> Path:
    return runs.make_clips(tmp_path / "clips", 4, size=(128, 80))


@pytest.fixture
def cache(runs: Any, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Caches what a model's training needs, in validated modules: the image entries, and how many entries were made."""
    from tiny_wan import make_tiny_wan

    from wan_fixes.hosts.onetrainer.wan.data_loader import WanDataLoader
    from wan_fixes.pipeline import PipelineContext, rewrite_definition
    from wan_fixes.store import SampleStore

    def make(kind: str, mode: str, folder: Path, seed: int = 1) -> SimpleNamespace:
        context = PipelineContext.create(folder / "memory")
        create = WanDataLoader._create_mgds

        def rewritten(self: Any, config: Any, definition: list[Any], *arguments: Any, **options: Any) -> Any:
            rewrite_definition(definition, context)
            return create(self, config, definition, *arguments, **options)

        model = make_tiny_wan(folder / mode, mode=mode)
        concept = {"__version": 2, "name": "clips", "path": str(clips), "seed": seed} | DRAWN["concept"]
        changes = {"model_type": kind, "resolution": DRAWN["resolution"], "concepts": [concept], "seed": seed}
        with monkeypatch.context() as patched:
            patched.setattr(WanDataLoader, "_create_mgds", rewritten)
            losses = runs.train(runs.configuration(model, clips, folder, **changes)).losses
        misses = context.metrics.snapshot()["cache_misses"]
        context.close()
        [root] = (folder / "cache").glob("image/samples")
        with SampleStore(root) as store:
            images = {key: store.get(key) for key in store.keys()}  # noqa: SIM118 - a method, not a dict's
        return SimpleNamespace(images=images, misses=misses, losses=losses)

    return make


def test_image_to_video_adds_its_conditions_to_the_latents_of_text_to_video(cache: Any, tmp_path: Path) -> None:
    from pipeline.world import is_same

    texts = cache("WAN_2_1_T2V_14B", "t2v", tmp_path / "one")
    assert len(texts.images) == 4 and texts.misses == 8, "a clip and its caption each"

    both = cache("WAN_2_1_I2V_14B", "i2v", tmp_path / "one", seed=2)
    assert both.misses == len(both.images) - 4 == 8, "each clip's first frame, encoded by the VAE and seen by CLIP"
    assert both.images.keys() > texts.images.keys()

    afresh = cache("WAN_2_1_I2V_14B", "i2v", tmp_path / "another", seed=3).images
    assert afresh.keys() == both.images.keys()
    assert all(is_same(item, afresh[key]) for key, item in both.images.items()), "they fit the latents that were there"


def test_a_cache_that_was_carried_is_trained_on_without_its_clips(cache: Any, clips: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from wan_fixes.cli.main import app

    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "cache.tar"
    first = cache("WAN_2_1_T2V_14B", "t2v", here)
    for command in (["export", file, here / "cache"], ["import", file, there / "cache"]):
        result = CliRunner().invoke(app, ["cache", *map(str, command)])
        assert result.exit_code == 0, result.output
    shutil.rmtree(clips)
    again = cache("WAN_2_1_T2V_14B", "t2v", there)
    assert again.misses == 0
    assert sorted(again.losses) == pytest.approx(sorted(first.losses))
