"""What cannot end well is refused before OneTrainer loads anything: output formats, samples with the wrong image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    path = tmp_path_factory.mktemp("image") / "first.png"
    Image.new("RGB", (64, 64)).save(path)
    return path


def start(runs: Any, work: Path, **changes: Any) -> None:
    """Start a training whose model is not there: what is not refused before loading fails with another error."""
    from modules.util import create
    from modules.util.callbacks.TrainCallbacks import TrainCallbacks
    from modules.util.commands.TrainCommands import TrainCommands

    config = runs.configuration(work / "no model", work / "no clips", work, **changes)
    trainer = create.create_trainer(config, TrainCallbacks(), TrainCommands())
    try:
        trainer.start()
    finally:
        trainer.tensorboard.close()


def refused(runs: Any, work: Path, **changes: Any) -> str:
    from wan_fixes.errors import UserError

    with pytest.raises(UserError) as caught:
        start(runs, work, **changes)
    assert not (work / "workspace" / "config").exists()  # which stock writes first
    return str(caught.value)


SAMPLING = {"sample_after": 1, "sample_after_unit": "EPOCH"}


@pytest.mark.parametrize("output_format", ["SAFETENSORS", "LEGACY_LORA", "DIFFUSERS"])
def test_a_format_in_which_no_lora_is_saved_is_refused_with_those_in_which_it_is(
    runs: Any, tmp_path: Path, output_format: str
) -> None:
    said = refused(runs, tmp_path, output_model_format=output_format)

    assert output_format in said
    for known in ("DIFFUSERS_LORA", "COMFY_LORA", "KOHYA_LORA", "ORIGINAL_LORA"):
        assert known in said
    assert "set output_model_format to" in said


def test_a_format_in_which_no_whole_model_is_saved_is_refused(runs: Any, tmp_path: Path) -> None:
    said = refused(runs, tmp_path, training_method="FINE_TUNE", output_model_format="SAFETENSORS")

    assert "after FINE_TUNE" in said
    assert "set output_model_format to DIFFUSERS" in said


def test_the_format_of_an_older_configuration_for_another_model_is_refused(runs: Any, tmp_path: Path) -> None:
    older = {"__version": 10, "weight_dtype": "FLOAT_32", "output_model_format": "SAFETENSORS"}
    said = refused(runs, tmp_path, **older)

    assert "set output_model_format to DIFFUSERS_LORA" in said


@pytest.mark.parametrize("method", ["EMBEDDING", "FINE_TUNE_VAE"])
def test_a_method_by_which_wan_is_not_trained_is_refused(runs: Any, tmp_path: Path, method: str) -> None:
    said = refused(runs, tmp_path, training_method=method)

    assert method in said
    assert "LORA" in said


def test_a_number_of_frames_that_no_clip_has_is_refused_before_loading(runs: Any, tmp_path: Path) -> None:
    assert "frames" in refused(runs, tmp_path, frames="16")


def test_a_switch_that_is_passed_over_is_warned_of(runs: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from wan_fixes.errors import UserError

    with pytest.raises(UserError, match="no model"):
        start(runs, tmp_path, text_encoder={"train": True})
    assert len([record for record in caplog.records if "text encoder is not trained" in record.message]) == 1


@pytest.mark.parametrize("model_type", ["WAN_2_1_I2V_14B", "WAN_2_2_I2V_A14B"])
def test_a_sample_without_an_image_is_refused_where_the_model_needs_one(
    runs: Any, tmp_path: Path, image: Path, model_type: str
) -> None:
    good, bad = {"prompt": "a ball", "base_image_path": str(image)}, {"prompt": "a red cube"}
    said = refused(runs, tmp_path, model_type=model_type, samples=[good, bad], **SAMPLING)

    assert "sample 2 ('a red cube')" in said
    assert "without an image" in said
    assert "base_image_path" in said


def test_a_sample_with_an_image_is_refused_where_the_model_takes_none(runs: Any, tmp_path: Path, image: Path) -> None:
    said = refused(runs, tmp_path, samples=[{"prompt": "a ball", "base_image_path": str(image)}], **SAMPLING)

    assert "sample 1 ('a ball')" in said
    assert "takes no image" in said


@pytest.mark.parametrize("damage", ["gone", "no picture"])
def test_a_sample_whose_image_cannot_be_read_is_refused_with_its_path(runs: Any, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "first.png"
    if damage != "gone":
        path.write_bytes(b"text")
    samples = [{"prompt": "a ball", "base_image_path": str(path)}]
    said = refused(runs, tmp_path, model_type="WAN_2_2_TI2V_5B", samples=samples, **SAMPLING)

    assert "sample 1 ('a ball')" in said
    assert str(path) in said


def test_the_samples_of_a_file_are_looked_at_too(runs: Any, tmp_path: Path) -> None:
    file = tmp_path / "samples.json"
    file.write_text(json.dumps([{"prompt": "a ball"}]), encoding="utf-8")
    said = refused(
        runs,
        tmp_path,
        model_type="WAN_2_1_I2V_14B",
        samples=None,
        sample_definition_file_name=str(file),
        **SAMPLING,
    )

    assert "sample 1 ('a ball')" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_after_unit": "NEVER"},
        {"sample_after": 0},
        {"samples": [{"prompt": "a ball", "enabled": False}]},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_samples_that_are_never_made_are_no_matter(runs: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    from wan_fixes.errors import UserError

    settings = SAMPLING | {"samples": [{"prompt": "a ball"}]} | changes
    with pytest.raises(UserError, match="no model"):
        start(runs, tmp_path, model_type="WAN_2_1_I2V_14B", **settings)
    assert (tmp_path / "workspace" / "config").exists()
