"""Layers of the text encoder stay in main memory where the user says so, and the captions' embeddings are the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def clips(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_clips(tmp_path_factory.mktemp("clips"), 4)


@pytest.fixture(scope="module")
def deep_wan(tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with eight blocks in its text encoder: of fewer than three, none is ever moved."""
    import torch
    from transformers import UMT5Config, UMT5EncoderModel

    folder = shutil.copytree(tiny_wan, tmp_path_factory.mktemp("models") / "deep_wan")
    config = UMT5Config.from_pretrained(folder / "text_encoder")
    config.num_layers = 8
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        UMT5EncoderModel(config).eval().save_pretrained(folder / "text_encoder")
    return folder


def training(runs: Any, model: Path, clips: Path, work: Path, *, text_encoder: dict[str, Any], **changes: Any) -> Any:
    """A run whose parts really move: to OneTrainer, the processor's second number is another device."""
    changes |= {"temp_device": "cpu:1", "dataloader_threads": 1}
    config = runs.configuration(model, clips, work, text_encoder={"train": False} | text_encoder, **changes)
    assert config.text_encoder.offload_fraction == text_encoder.get("offload_fraction", 0.0)
    return runs.train(config)


def embeddings(run: Any) -> list[Any]:
    dataset = run.trainer.data_loader.get_data_set()
    dataset.start_next_epoch()
    return sorted(
        (batch["text_encoder_hidden_state"] for batch in run.trainer.data_loader.get_data_loader()),
        key=lambda embedding: embedding.sum().item(),
    )


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The layers that are moved while the model computes."""
    from modules.util import LayerOffloadConductor as conductors

    moved: list[Any] = []
    before = conductors.LayerOffloadConductor.before_layer
    offload = conductors.offload_quantized
    computing = []

    def before_layer(self: Any, *arguments: Any) -> Any:
        computing.append(True)
        try:
            return before(self, *arguments)
        finally:
            computing.pop()

    def record(module: Any, *arguments: Any, **options: Any) -> None:
        if computing:
            moved.append(module)
        offload(module, *arguments, **options)

    monkeypatch.setattr(conductors.LayerOffloadConductor, "before_layer", before_layer)
    monkeypatch.setattr(conductors, "offload_quantized", record)
    return moved


@pytest.mark.parametrize("changes", [{}, {"latent_caching": False}], ids=["cached", "not cached"])
@pytest.mark.parametrize("dtypes", [("FLOAT_32", "FLOAT_32"), ("FLOAT_8", "BFLOAT_16")], ids=["fp32", "fp8"])
def test_the_embeddings_are_to_the_bit_those_of_an_encoder_that_stays(
    runs: Any,
    deep_wan: Path,
    clips: Path,
    tmp_path: Path,
    moved: list[Any],
    dtypes: tuple[str, str],
    changes: dict[str, Any],
) -> None:
    import torch

    part = {"weight_dtype": dtypes[0]}
    changes = changes | {"train_dtype": dtypes[1]}
    whole = training(runs, deep_wan, clips, tmp_path / "whole", text_encoder=part, **changes)
    assert not moved
    expected = embeddings(whole)
    offloaded = training(
        runs, deep_wan, clips, tmp_path / "offloaded", text_encoder=part | {"offload_fraction": 0.6}, **changes
    )

    assert len(expected) == 4
    assert not torch.equal(expected[0], expected[1])
    blocks = offloaded.trainer.model.text_encoder.encoder.block
    assert {number for number, block in enumerate(blocks) if set(moved) & set(block.modules())} == set(range(8))
    assert all(torch.equal(one, other) for one, other in zip(expected, embeddings(offloaded), strict=True))
    assert offloaded.losses == whole.losses


def test_the_encoder_need_not_be_checkpointed_and_its_train_switch_changes_nothing(
    runs: Any, deep_wan: Path, clips: Path, tmp_path: Path, moved: list[Any]
) -> None:
    text_encoder = {"offload_fraction": 0.6, "gradient_checkpointing": False, "train": True}
    run = training(runs, deep_wan, clips, tmp_path, text_encoder=text_encoder)

    assert moved
    assert all(0 < loss < 100 for loss in run.losses)


def test_offloading_leaves_the_sample_cache_as_it_is(runs: Any, deep_wan: Path, clips: Path, tmp_path: Path) -> None:
    from wan_fixes.pipeline.fingerprint import weight_hash

    hashes = set()
    for fraction in (0.0, 0.6):
        run = training(runs, deep_wan, clips, tmp_path / str(fraction), text_encoder={"offload_fraction": fraction})
        run.trainer.model.materialize_only("text_encoder")
        hashes.add(weight_hash(run.trainer.model.text_encoder))

    assert len(hashes) == 1


@pytest.mark.parametrize("dtype", ["FLOAT_32", "FLOAT_8"])
def test_the_token_embedding_is_in_memory_once(runs: Any, tiny_wan: Path, tmp_path: Path, dtype: str) -> None:
    from modules.util import create

    config = runs.configuration(tiny_wan, tmp_path, tmp_path, text_encoder={"train": False, "weight_dtype": dtype})
    model = create.create_model_loader(config.model_type, config.training_method).load(
        config.model_type, config.model_names(), config.weight_dtypes(), config.quantization
    )

    assert model.text_encoder.encoder.embed_tokens.weight is model.text_encoder.shared.weight


def test_a_whole_model_is_saved_with_every_layer_that_was_offloaded(
    runs: Any, deep_wan: Path, clips: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import UMT5EncoderModel

    training(
        runs,
        deep_wan,
        clips,
        tmp_path,
        text_encoder={"offload_fraction": 0.6},
        training_method="FINE_TUNE",
        output_model_format="DIFFUSERS",
        output_model_destination=str(tmp_path / "model"),
        layer_filter="attn2",
        layer_filter_preset="custom",
    )

    before = UMT5EncoderModel.from_pretrained(deep_wan / "text_encoder").state_dict()
    saved = UMT5EncoderModel.from_pretrained(tmp_path / "model" / "text_encoder").state_dict()
    assert saved.keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in saved.items())
