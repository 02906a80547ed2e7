"""Stock scripts with a WAN that they can and cannot use: `sample.py`, `convert_model.py`, `train.py`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

VARIANT = "WAN_2_1_T2V_1_3B"


@pytest.fixture(scope="module")
def sharded(tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with its transformer in several files. Never write to it."""
    from diffusers import WanTransformer3DModel

    folder = shutil.copytree(tiny_wan, tmp_path_factory.mktemp("sharded") / "wan")
    transformer = WanTransformer3DModel.from_pretrained(tiny_wan / "transformer")
    shutil.rmtree(folder / "transformer")
    transformer.save_pretrained(folder / "transformer", max_shard_size="200KB")
    assert len(shards(folder)) > 2
    return folder


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "transformer").glob("*-of-*.safetensors"))


@pytest.fixture
def broken(sharded: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of which one shard is cut short, and that shard."""
    folder = shutil.copytree(sharded, tmp_path / "broken")
    shard = shards(folder)[1]
    shard.write_bytes(shard.read_bytes()[:-1000])
    return folder, shard


def sample(host: Any, model: Path, destination: Path) -> Any:
    return host.launch(
        "scripts/sample.py",
        *("--model-type", VARIANT),
        *("--base-model-name", str(model)),
        *("--prompt", "a red ball"),
        *("--height", "64", "--width", "64"),
        *("--destination", str(destination)),
    )


def convert(host: Any, model: Path, destination: Path) -> Any:
    return host.launch(
        "scripts/convert_model.py",
        *("--model-type", VARIANT),
        *("--input-name", str(model)),
        *("--output-dtype", "FLOAT_32"),
        *("--output-model-format", "DIFFUSERS"),
        *("--output-model-destination", str(destination)),
    )


@pytest.mark.parametrize("script", [sample, convert])
def test_a_shard_that_is_cut_short_is_named_and_nothing_is_written(
    host: Any, broken: tuple[Path, Path], tmp_path: Path, script: Any
) -> None:
    model, shard = broken
    done = script(host, model, tmp_path / "out" / "made")

    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "UserError" in last
    assert str(shard) in last
    assert not (tmp_path / "out").exists()


def test_the_sampling_script_writes_the_picture_that_it_always_asks_for(
    host: Any, sharded: Path, tmp_path: Path
) -> None:
    """It has no argument for a number of frames, and its configuration says one."""
    import numpy as np
    from PIL import Image

    script = host.checkout / "scripts" / "sample.py"
    if "quantization=" not in script.read_text(encoding="utf-8"):
        pytest.skip("this OneTrainer's sample.py calls no loader as they are to be called, of no model type")
    done = sample(host, sharded, tmp_path / "out" / "made")

    assert done.returncode == 0, done.stderr[-3000:]
    (picture,) = (tmp_path / "out").iterdir()
    image = Image.open(picture)
    assert image.size == (64, 64)
    assert np.asarray(image).std() > 0


def test_a_configuration_that_is_refused_before_loading_is_recorded_as_a_failed_run(
    host: Any, tiny_wan: Path, tmp_path: Path
) -> None:
    from host.wan_runs import make_clips, write_configuration
    from wan_fixes.health import RunDatabase, run_database_path

    clips = make_clips(tmp_path / "clips")
    config = write_configuration(tiny_wan, clips, tmp_path, output_model_format="LEGACY_LORA")

    done = host.launch("scripts/train.py", "--config-path", str(config))

    assert done.returncode != 0
    assert "set output_model_format to DIFFUSERS_LORA" in done.stderr.strip().splitlines()[-1]
    runs = RunDatabase.open_readonly(run_database_path(tmp_path / "workspace"))
    (run,) = runs.runs()
    assert run.status == "failed"
    assert any("LEGACY_LORA" in event.message for event in runs.events(run.id))
    assert not (tmp_path / "workspace" / "config").exists()
