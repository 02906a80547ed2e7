"""Stock OneTrainer's own pipeline definition over a messy folder, rewritten and as it is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="module")
def networks(onetrainer: Path, tiny_wan: Path) -> SimpleNamespace:
    from diffusers import AutoencoderKLWan
    from transformers import AutoTokenizer, UMT5EncoderModel

    return SimpleNamespace(
        vae=AutoencoderKLWan.from_pretrained(tiny_wan / "vae").eval(),
        text_encoder=UMT5EncoderModel.from_pretrained(tiny_wan / "text_encoder").eval(),
        tokenizer=AutoTokenizer.from_pretrained(tiny_wan / "tokenizer"),
    )


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    from clips import make_broken_files, make_good_clips

    folder = tmp_path_factory.mktemp("messy")
    good = make_good_clips(folder)[:6]
    for extra in set(folder.iterdir()) - {p for clip in good for p in (clip.path, clip.path.with_suffix(".txt"))}:
        extra.unlink()
    return SimpleNamespace(folder=folder, good=good, broken=make_broken_files(folder))


def make_config(folder: Path, work: Path, *, latent_caching: bool, batch_size: int = 1, epoch: int = 0) -> Any:
    from modules.util.config.ConceptConfig import ConceptConfig
    from modules.util.config.TrainConfig import TrainConfig
    from modules.util.enum.ModelType import ModelType

    concept = ConceptConfig.default_values()
    concept.path, concept.name, concept.seed = str(folder), "messy", 1
    config = TrainConfig.default_values()
    config.concepts = [concept]
    config.model_type = ModelType.HUNYUAN_VIDEO
    config.cache_dir = str(work / "cache")
    config.latent_caching = latent_caching
    config.resolution, config.frames = "64", "17"
    config.batch_size = batch_size
    config.train_device = config.temp_device = "cpu"
    return config


def make_loader(networks: SimpleNamespace, config: Any, context: Any) -> Any:
    import torch
    from loader import HostModel, HostSetup, WanLoader
    from modules.util.TrainProgress import TrainProgress

    kind = type("Loader", (WanLoader,), {"context": context})
    cpu = torch.device("cpu")
    return kind(cpu, cpu, config, HostModel(networks), HostSetup(), TrainProgress())


def one_epoch(loader: Any) -> list[dict[str, Any]]:
    loader.get_data_set().start_next_epoch()
    return list(loader.get_data_loader())


def captions_by_clip(batches: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted(
        (Path(path).name, prompt)
        for batch in batches
        for path, prompt, weight in zip(batch["image_path"], batch["prompt"], batch["loss_weight"], strict=True)
        if weight > 0
    )


@pytest.fixture(autouse=True)
def local_modules(monkeypatch: pytest.MonkeyPatch, onetrainer: Path) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.chdir(onetrainer)  # stock code reads files relative to its checkout


@pytest.mark.parametrize("latent_caching", [True, False])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_good_clip_is_trained_on_once_an_epoch_with_its_own_caption_and_every_bad_one_is_named(
    latent_caching: bool, batch_size: int, networks: SimpleNamespace, messy: SimpleNamespace, tmp_path: Path
) -> None:
    from wan_fixes.health import RunDatabase
    from wan_fixes.pipeline import PipelineContext

    database = RunDatabase(tmp_path / "runs.sqlite")
    run = database.start_run("test", {})
    context = PipelineContext.create(tmp_path / "memory", run=run)
    config = make_config(messy.folder, tmp_path, latent_caching=latent_caching, batch_size=batch_size)
    loader = make_loader(networks, config, context)

    epochs = [captions_by_clip(one_epoch(loader)) for _ in range(2)]
    run.finish("finished")

    # A caption in another encoding makes its (good) clip unusable; a missing or empty one is a warning.
    usable_with_bad_caption = {b.path.name for b in messy.broken if b.kind in ("caption_missing", "caption_empty")}
    expected = {clip.path.name: clip.caption for clip in messy.good} | dict.fromkeys(usable_with_bad_caption, "")
    for epoch in epochs:
        assert dict(epoch) == expected
        assert max(Counter(name for name, _ in epoch).values()) == 1

    named = {Path(sample.path).name: sample for sample in database.samples(database.latest_run().id, "skipped")}
    for broken in messy.broken:
        if broken.path.name in expected:
            continue
        assert broken.path.name in named, f"{broken.kind} is not named"
        assert broken.reason in named[broken.path.name].reason, broken.kind
    assert not set(named) & set(expected)


def test_stock_dies_on_the_same_folder(networks: SimpleNamespace, messy: SimpleNamespace, tmp_path: Path) -> None:
    """What the plugin is for: when stock has learned to skip a broken clip, this test says so."""
    config = make_config(messy.folder, tmp_path, latent_caching=True)
    loader = make_loader(networks, config, context=None)

    with pytest.raises(Exception):  # noqa: B017 - stock raises whatever the decoder raised
        one_epoch(loader)


def test_a_second_start_encodes_nothing_and_yields_the_same_batches(
    networks: SimpleNamespace, messy: SimpleNamespace, tmp_path: Path
) -> None:
    import torch

    from wan_fixes.pipeline import PipelineContext

    config = make_config(messy.folder, tmp_path, latent_caching=True)
    batches = []
    for _ in range(2):
        context = PipelineContext.create(tmp_path / "memory")
        batches.append(one_epoch(make_loader(networks, config, context)))
        counts = context.metrics.snapshot()
        context.close()

    assert counts["cache_misses"] == 0
    assert counts["cache_hits"] > 0
    for first, second in zip(*batches, strict=True):
        assert first["image_path"] == second["image_path"]
        assert torch.equal(first["latent_image"], second["latent_image"])
        assert torch.equal(first["text_encoder_hidden_state"], second["text_encoder_hidden_state"])


def test_the_caches_know_what_the_run_needs_and_for_which_concept(
    networks: SimpleNamespace, messy: SimpleNamespace, tmp_path: Path
) -> None:
    from wan_fixes.pipeline import PipelineContext
    from wan_fixes.store import SampleStore

    context = PipelineContext.create(tmp_path / "memory")
    batches = one_epoch(make_loader(networks, make_config(messy.folder, tmp_path, latent_caching=True), context))
    context.close()

    roots = sorted((tmp_path / "cache").rglob("samples"))
    assert len(roots) == 2
    for root in roots:
        with SampleStore(root) as store:
            [(name, entries, size)] = store.concepts()
            assert (name, entries, size) == ("messy", len(store.keys()), store.stats().bytes)
            assert 0 < entries <= len(batches)
            assert all(usage.needed for usage in store.usage())
