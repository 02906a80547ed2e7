"""All weights of WAN's transformers are trained in stock OneTrainer, saved in diffusers' layout, and gone on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def runs(wan_host: Path) -> Any:
    import wan_runs

    return wan_runs


@pytest.fixture(scope="module")
def clips(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_clips(tmp_path_factory.mktemp("clips"), 2)


def fine_tuning(runs: Any, model: Path, clips: Path, work: Path, **changes: Any) -> Any:
    settings = {
        "training_method": "FINE_TUNE",
        "output_model_format": "DIFFUSERS",
        "output_model_destination": str(work / "model"),
        "learning_rate": 1e-3,
        "layer_filter": "",
        "layer_filter_preset": "full",
    }
    return runs.configuration(model, clips, work, **(settings | changes))


def weights(transformer: Any) -> dict[str, Any]:
    return {name: weight.detach().clone() for name, weight in transformer.state_dict().items()}


def test_every_weight_is_trained_saved_and_gone_on_from(runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path) -> None:
    import torch
    from diffusers import WanPipeline

    whole = runs.train(fine_tuning(runs, tiny_wan, clips, tmp_path / "whole", epochs=2))
    first = runs.train(fine_tuning(runs, tiny_wan, clips, tmp_path / "parts", backup_before_save=True))
    again = runs.train(fine_tuning(runs, tiny_wan, clips, tmp_path / "parts", epochs=2, continue_last_backup=True))

    before = WanPipeline.from_pretrained(tiny_wan)
    saved = WanPipeline.from_pretrained(tmp_path / "whole" / "model")
    live = weights(whole.trainer.model.transformer)
    assert all(torch.equal(weight, live[name]) for name, weight in weights(saved.transformer).items())
    original = weights(before.transformer)
    assert not [name for name, weight in live.items() if torch.equal(weight, original[name])]
    for part in ("vae", "text_encoder"):
        untouched = weights(getattr(before, part))
        assert all(torch.equal(weight, untouched[name]) for name, weight in weights(getattr(saved, part)).items())

    assert first.losses + again.losses == pytest.approx(whole.losses, rel=1e-5)
    resumed = weights(again.trainer.model.transformer)
    assert all(torch.allclose(resumed[name], live[name], atol=1e-6) for name in live)


def test_only_the_layers_that_the_filter_names_are_trained(
    runs: Any, tiny_wan: Path, clips: Path, tmp_path: Path
) -> None:
    import torch
    from diffusers import WanTransformer3DModel

    runs.train(fine_tuning(runs, tiny_wan, clips, tmp_path, layer_filter="attn2", layer_filter_preset="custom"))

    original = weights(WanTransformer3DModel.from_pretrained(tiny_wan / "transformer"))
    trained = weights(WanTransformer3DModel.from_pretrained(tmp_path / "model" / "transformer"))
    changed = {name for name in trained if not torch.equal(trained[name], original[name])}
    assert changed
    assert all("attn2" in name for name in changed)


def test_one_expert_is_trained_saved_and_gone_on_from_without_the_other(
    runs: Any, tiny_wan_two_experts: Path, clips: Path, tmp_path: Path
) -> None:
    alone = {"model_type": "WAN_2_2_T2V_A14B", "transformer": {"include": False}}
    runs.train(fine_tuning(runs, tiny_wan_two_experts, clips, tmp_path, backup_before_save=True, **alone))
    again = runs.train(
        fine_tuning(runs, tiny_wan_two_experts, clips, tmp_path, epochs=2, continue_last_backup=True, **alone)
    )

    assert len(again.losses) == 2
    assert {folder.name for folder in (tmp_path / "model").glob("transformer*")} == {"transformer_2"}
