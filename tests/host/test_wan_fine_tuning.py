"""All weights of WAN's transformers are trained in stock OneTrainer, saved in diffusers' layout, and gone on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


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


VARIANTS = {
    "WAN_2_1_T2V_1_3B": "tiny_wan",
    "WAN_2_1_T2V_14B": "tiny_wan",
    "WAN_2_1_I2V_14B": "tiny_wan_i2v",
    "WAN_2_2_T2V_A14B": "tiny_wan_two_experts",
    "WAN_2_2_I2V_A14B": "tiny_wan_i2v_two_experts",
    "WAN_2_2_TI2V_5B": "tiny_wan_ti2v",
}


@pytest.fixture(scope="module")
def masked_clips(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips, each with a mask over its left half."""
    import shutil

    import numpy as np
    from PIL import Image

    folder = shutil.copytree(clips, tmp_path_factory.mktemp("masked") / "clips")
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    for clip in folder.glob("*.mp4"):
        Image.fromarray(mask).save(clip.with_name(f"{clip.stem}-masklabel.png"))
    return folder


@pytest.mark.parametrize(
    "model_type",
    # Of the two 2.1 text-to-video models the tiny one is the same.
    [pytest.param(name, marks=[pytest.mark.full] if name == "WAN_2_1_T2V_14B" else []) for name in VARIANTS],
)
def test_every_variant_is_trained_as_a_whole_with_masks_and_validation(
    runs: Any, request: pytest.FixtureRequest, masked_clips: Path, tmp_path: Path, model_type: str
) -> None:
    import torch
    from diffusers import WanImageToVideoPipeline, WanPipeline

    from wan_fixes.wan.variants import get_variant

    variant = get_variant(model_type)
    folder = request.getfixturevalue(VARIANTS[model_type])
    concepts = [
        {"name": "clips", "path": str(masked_clips), "seed": 1},
        {"name": "validation", "path": str(masked_clips), "seed": 2, "type": "VALIDATION"},
    ]
    result = runs.train(
        fine_tuning(
            runs,
            folder,
            masked_clips,
            tmp_path,
            model_type=model_type,
            epochs=3,
            concepts=concepts,
            validation=True,
            validate_after=3,
            validate_after_unit="STEP",
            masked_training=True,
            unmasked_weight=0.1,
        )
    )

    assert len(result.losses) == 6 + 2 * 2  # each step, and both clips after two of them
    assert all(0 < loss < 100 for loss in result.losses)
    pipeline_class = WanImageToVideoPipeline if variant.mode == "i2v" else WanPipeline
    before, saved = (pipeline_class.from_pretrained(path) for path in (folder, tmp_path / "model"))
    trained = ("transformer", "transformer_2")[: variant.experts]
    assert tuple(result.trainer.model.experts()) == trained
    for part in trained:
        live, stored, original = (weights(getattr(owner, part)) for owner in (result.trainer.model, saved, before))
        assert live.keys() == stored.keys()
        assert all(torch.equal(live[name], weight) for name, weight in stored.items())
        assert all(weight.isfinite().all() for weight in live.values())
        assert not [name for name, weight in live.items() if torch.equal(weight, original[name])]
    for part in ("vae", "text_encoder", "image_encoder"):
        assert (getattr(before, part, None) is None) == (getattr(saved, part, None) is None)
        if getattr(before, part, None) is not None:
            untouched = weights(getattr(before, part))
            assert all(torch.equal(weight, untouched[name]) for name, weight in weights(getattr(saved, part)).items())


@pytest.mark.parametrize("method", ["LORA", "FINE_TUNE"])
def test_the_averages_of_both_experts_go_on_from_a_backup_to_the_bit(
    runs: Any, tiny_wan_two_experts: Path, clips: Path, tmp_path: Path, method: str
) -> None:
    import torch

    settings = {
        "model_type": "WAN_2_2_T2V_A14B",
        "learning_rate": 1e-3,
        "ema": "CPU",
        "ema_decay": 0.9,
        "ema_update_step_interval": 1,
    }

    def averages(work: Path, **changes: Any) -> Any:
        places = tiny_wan_two_experts, clips, work
        if method == "FINE_TUNE":
            config = fine_tuning(runs, *places, **(settings | changes))
        else:
            config = runs.configuration(*places, **(settings | changes))
        return runs.train(config).trainer.model.ema.ema_parameters

    whole = averages(tmp_path / "whole", epochs=4)
    first = averages(tmp_path / "parts", epochs=2, backup_before_save=True)
    again = averages(tmp_path / "parts", epochs=4, continue_last_backup=True)

    assert len(whole) == len(again) > 0
    assert not any(torch.equal(early, late) for early, late in zip(first, whole, strict=True) if early.any())
    assert all(torch.equal(late, resumed) for late, resumed in zip(whole, again, strict=True))
