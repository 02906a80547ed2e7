"""WAN in an unmodified OneTrainer, launched as users do, over a folder of good and broken clips."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def with_wan(host: Any) -> None:
    """Skips where this OneTrainer is too old for WAN, and names what it lacks."""
    from wan_fixes.hosts.onetrainer.symbols import SourceSymbols, read_from
    from wan_fixes.hosts.onetrainer.touch_points import PATCHES

    symbols = SourceSymbols(read_from(host.checkout))
    missing = [symbol for patch in PATCHES if patch.name.startswith("wan ") for symbol in symbols.missing(patch)]
    if missing:
        pytest.skip(f"this OneTrainer has no {', '.join(missing)}")


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    from clips import make_broken_files, make_good_clips

    folder = tmp_path_factory.mktemp("messy")
    return SimpleNamespace(folder=folder, good=make_good_clips(folder), broken=make_broken_files(folder))


def write_config(model: Path, clips: Path, work: Path) -> Path:
    from host.wan_runs import BASE

    content = BASE | {
        "__version": 11,
        "base_model_name": str(model),
        "workspace_dir": str(work / "workspace"),
        "cache_dir": str(work / "cache"),
        "debug_dir": str(work / "debug"),
        "output_model_destination": str(work / "lora.safetensors"),
        "concepts": [{"__version": 2, "name": "clips", "path": str(clips), "seed": 1}],
    }
    path = work / "config.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.usefixtures("with_wan")
def test_wan_trains_on_a_messy_folder_through_the_command_line(
    host: Any, messy: SimpleNamespace, tiny_wan: Path, tmp_path: Path
) -> None:
    from wan_fixes.health import RunDatabase, run_database_path

    config = write_config(tiny_wan, messy.folder, tmp_path)

    done = host.wan("train", "--host", str(host.checkout), "--config", str(config))

    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "lora.safetensors").is_file()
    runs = RunDatabase.open_readonly(run_database_path(tmp_path / "workspace"))
    (run,) = runs.runs()
    assert run.status == "finished" and run.config["model_type"] == "WAN_2_1_T2V_1_3B"

    captions = {"caption_missing", "caption_empty"}  # these clips are good, and trained on with an empty prompt
    valid = {clip.path.name for clip in messy.good} | {b.path.name for b in messy.broken if b.kind in captions}
    assert runs.sample_counts(run.id)["valid"] == len(valid)
    skipped = {Path(sample.path).name: sample.reason for sample in runs.samples(run.id, "skipped")}
    for broken in messy.broken:
        if broken.kind not in captions:
            assert broken.reason in skipped[broken.path.name], broken.kind
    assert set(skipped) == {b.path.name for b in messy.broken if b.kind not in captions}
    assert f"training data: {len(valid)} samples are valid, {len(skipped)} skipped, 0 failed" in done.stderr
    assert len(runs.steps(run.id)) == len(valid)


@pytest.mark.usefixtures("with_wan")
def test_with_the_protections_off_stock_dies_of_one_broken_clip(host: Any, tiny_wan: Path, tmp_path: Path) -> None:
    from host.wan_runs import make_clips

    clips = make_clips(tmp_path / "clips")
    (clips / "broken.mp4").write_bytes((clips / "clip0.mp4").read_bytes()[:300])
    config = write_config(tiny_wan, clips, tmp_path)
    (host.work / "settings.json").write_text('{"validate_pipelines": false}')
    try:
        done = host.launch("scripts/train.py", "--config-path", str(config))
    finally:
        (host.work / "settings.json").write_text("{}")

    assert done.returncode != 0 and "Traceback" in done.stderr
    assert not (tmp_path / "lora.safetensors").exists()


def test_switched_off_a_configuration_for_wan_is_warned_of(host: Any, tiny_wan: Path, tmp_path: Path) -> None:
    (host.work / "settings.json").write_text('{"enabled": false}')
    config = write_config(tiny_wan, tmp_path, tmp_path)
    try:
        done = host.launch("scripts/train.py", "--config-path", str(config))
    finally:
        (host.work / "settings.json").write_text("{}")

    assert "without it there is no WAN_2_1_T2V_1_3B, and OneTrainer goes on as Stable Diffusion 1.5" in done.stderr
    assert "Could not set model_type" in done.stdout + done.stderr
