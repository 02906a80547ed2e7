"""The CLIP of 2.1 image-to-video is checked as every other part is: another vision model is an error that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WEIGHTS = "image_encoder/model.safetensors"
CONFIGURATION = "image_encoder/config.json"
PROCESSOR = "image_processor/preprocessor_config.json"


@pytest.fixture
def folder(tiny_wan_i2v: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_wan_i2v, tmp_path / "model")


def load(runs: Any, folder: Path) -> Any:
    from modules.util import create

    config = runs.configuration(folder, folder, folder, model_type="WAN_2_1_I2V_14B")
    return create.create_model_loader(config.model_type, config.training_method).load(
        config.model_type, config.model_names(), config.weight_dtypes(), config.quantization
    )


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    from safetensors.torch import load, save_file

    state = load((folder / WEIGHTS).read_bytes())
    change(state)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def write_clip(folder: Path, **changes: Any) -> None:
    """Another CLIP's weights and configuration, named as the released repository names them."""
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig.from_pretrained(folder / "image_encoder")
    for name, value in changes.items():
        setattr(config, name, value)
    model = CLIPVisionModel(config)
    model.save_pretrained(folder / "image_encoder")
    state = {f"vision_model.{key.removeprefix('vision_model.')}": value for key, value in model.state_dict().items()}
    save_file({key: value.contiguous() for key, value in state.items()}, folder / WEIGHTS, metadata={"format": "pt"})


def a_wider_clip(folder: Path) -> str:
    write_clip(folder, hidden_size=64)
    return "its embeddings have 64 numbers, and the transformer takes 32"


def the_weights_of_a_wider_clip(folder: Path) -> str:
    before = (folder / CONFIGURATION).read_bytes()
    write_clip(folder, hidden_size=64)
    (folder / CONFIGURATION).write_bytes(before)
    return "and config.json makes it"


def the_weights_of_a_clip_with_other_patches(folder: Path) -> str:
    before = (folder / CONFIGURATION).read_bytes()
    write_clip(folder, patch_size=16)
    (folder / CONFIGURATION).write_bytes(before)
    return "embeddings.patch_embedding.weight has shape [32, 3, 16, 16], and config.json makes it [32, 3, 8, 8]"


def the_configuration_of_a_shorter_clip(folder: Path) -> str:
    edit(folder / CONFIGURATION, num_hidden_layers=2)
    return "it has no place for 16 stored weights"


def the_configuration_of_a_longer_clip(folder: Path) -> str:
    edit(folder / CONFIGURATION, num_hidden_layers=4)
    return "16 of 71 weights are missing"


def siglip(folder: Path) -> str:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8
    )
    SiglipVisionModel(config).save_pretrained(folder / "image_encoder")
    return "it describes 'siglip_vision_model', and WAN sees images by a clip_vision_model"


def the_weights_of_siglip(folder: Path) -> str:
    before = (folder / CONFIGURATION).read_bytes()
    siglip(folder)
    (folder / CONFIGURATION).write_bytes(before)
    return "weights are missing"


def a_weight_is_missing(folder: Path) -> str:
    edit_weights(folder, lambda state: state.pop("vision_model.post_layernorm.bias"))
    return "1 of 55 weights are missing"


def a_weight_is_no_number(folder: Path) -> str:
    edit_weights(folder, lambda state: state["vision_model.pre_layrnorm.weight"].fill_(float("nan")))
    return "vision_model.pre_layrnorm.weight holds numbers that are not finite"


def a_projection_beside_it(folder: Path) -> str:
    import torch

    edit_weights(folder, lambda state: state.update({"visual_projection.weight": torch.zeros(8, 32)}))
    return "it holds weights for which CLIPVisionModel has no place"


def cut_short(folder: Path) -> str:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])
    return "damaged or cut short"


def no_image_processor(folder: Path) -> str:
    (folder / PROCESSOR).unlink()
    return "the file is missing"


def an_image_processor_for_larger_images(folder: Path) -> str:
    edit(folder / PROCESSOR, crop_size={"height": 64, "width": 64})
    return "and the image encoder takes 32 x 32"


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (a_wider_clip, CONFIGURATION),
        (the_weights_of_a_wider_clip, WEIGHTS),
        (the_weights_of_a_clip_with_other_patches, WEIGHTS),
        (the_configuration_of_a_shorter_clip, CONFIGURATION),
        (the_configuration_of_a_longer_clip, WEIGHTS),
        (siglip, CONFIGURATION),
        (the_weights_of_siglip, WEIGHTS),
        (a_weight_is_missing, WEIGHTS),
        (cut_short, WEIGHTS),
        (no_image_processor, PROCESSOR),
        (an_image_processor_for_larger_images, PROCESSOR),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_another_or_a_broken_image_encoder_is_named_before_anything_is_loaded(
    runs: Any, folder: Path, damage: Callable[[Path], str], file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wan_fixes.errors import UserError
    from wan_fixes.hosts.onetrainer.wan.loader import WanModelLoader

    reason = damage(folder)
    monkeypatch.setattr(WanModelLoader, "_load_text_encoder", lambda *_: pytest.fail("loaded before it was checked"))
    with pytest.raises(UserError) as caught:
        load(runs, folder)

    assert Path(caught.value.path) == folder / file
    assert reason in caught.value.reason
    assert caught.value.fix


@pytest.mark.parametrize(
    ("damage", "file"), [(a_weight_is_no_number, WEIGHTS), (a_projection_beside_it, "image_encoder")]
)
def test_what_no_header_tells_is_named_while_loading(
    runs: Any, folder: Path, damage: Callable[[Path], str], file: str
) -> None:
    from wan_fixes.errors import UserError

    reason = damage(folder)
    with pytest.raises(UserError) as caught:
        load(runs, folder)

    assert Path(caught.value.path) == folder / file
    assert reason in caught.value.reason


def test_positions_that_older_versions_stored_are_no_weights(runs: Any, folder: Path) -> None:
    import torch

    edit_weights(folder, lambda state: state.update({"vision_model.embeddings.position_ids": torch.arange(17)[None]}))
    encoder = load(runs, folder).image_encoder

    assert torch.equal(encoder.vision_model.embeddings.position_ids, torch.arange(17)[None])
