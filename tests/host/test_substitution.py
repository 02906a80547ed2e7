"""Stock `scripts/train.py` on a model type of OneTrainer's own, with a broken picture among the good ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    import os

    from host.own_host import make_own_host
    from host.tiny_stable_diffusion import add_broken_picture, make_pictures, make_tiny_stable_diffusion

    host = make_own_host(tmp_path_factory.mktemp("host"), Path(os.environ["WAN_FIXES_ONETRAINER"]))
    make_tiny_stable_diffusion(host.work / "model")
    add_broken_picture(make_pictures(host.work / "pictures"))
    make_pictures(host.work / "validation", 2)
    enabled = host.wan("enable", str(host.checkout))
    assert enabled.returncode == 0, enabled.stderr
    yield host


def config(host: Any, work: Path, **changes: Any) -> Path:
    from host.tiny_stable_diffusion import write_config

    return write_config(host.work / "model", host.work / "pictures", work, **changes)


def train(host: Any, path: Path) -> Any:
    return host.launch("scripts/train.py", "--config-path", str(path))


def switch(host: Any, **settings: bool) -> None:
    (host.work / "settings.json").write_text(json.dumps(settings), encoding="utf-8")


def runs_of(work: Path) -> Any:
    from wan_fixes.health import RunDatabase, run_database_path

    return RunDatabase.open_readonly(run_database_path(work / "workspace"))


def test_a_broken_picture_is_left_out_and_named_and_the_training_is_recorded_from_start_to_end(
    host: Any, tmp_path: Path
) -> None:
    concepts = [
        {"__version": 2, "name": "pictures", "path": str(host.work / "pictures"), "seed": 1},
        {"__version": 2, "name": "held out", "path": str(host.work / "validation"), "seed": 2, "type": "VALIDATION"},
    ]
    path = config(host, tmp_path, concepts=concepts, validation=True, validate_after=1, validate_after_unit="EPOCH")

    done = train(host, path)

    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "lora.safetensors").is_file()
    counted = done.stderr.index("training data: 3 samples are valid, 1 skipped, 0 failed")
    assert counted < done.stderr.index("loss=")
    assert "validation data: 2 samples are valid, 0 skipped" in done.stderr

    runs = runs_of(tmp_path)
    (run,) = runs.runs()  # training and validation are one run
    assert (run.kind, run.status) == ("train", "finished")
    assert run.config["model_type"] == "STABLE_DIFFUSION_15"
    (skipped,) = runs.samples(run.id, "skipped")
    assert Path(skipped.path).name == "broken.png" and "truncated" in skipped.reason
    assert runs.sample_counts(run.id) == {"valid": 5, "skipped": 1, "failed": 0, "warning": 0}
    assert [step.step for step in runs.steps(run.id)] == [1, 2, 3, 4, 5, 6]
    assert all(step.lr > 0 and step.seconds > 0 for step in runs.steps(run.id))
    assert any(name.startswith("cache_misses") for name in runs.counters_of(run.id))
    kinds = [event.kind for event in runs.events(run.id)]
    assert "samples_ready" in kinds and "checkpoint_saved" in kinds and "run_failed" not in kinds


def test_our_counters_are_in_the_event_files_of_tensorboard(host: Any, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = train(host, config(host, tmp_path, epochs=1, tensorboard=False, tensorboard_always_on=True))

    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (tmp_path / "workspace" / "tensorboard").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert "loss/train_step" in tags
    assert events.Scalars("wan_fixes/samples/left_out")[-1].value == 1.0
    assert events.Scalars("wan_fixes/memory/process_mb")[0].value > 100
    assert {"wan_fixes/cache/hit_rate", "wan_fixes/errors/failures", "wan_fixes/alerts/active"} <= set(tags)


def test_without_latent_caching_the_broken_picture_is_left_out_too(host: Any, tmp_path: Path) -> None:
    done = train(host, config(host, tmp_path, latent_caching=False, epochs=1))

    assert done.returncode == 0, done.stderr[-3000:]
    runs = runs_of(tmp_path)
    run = runs.latest_run()
    assert run.status == "finished"
    assert [Path(sample.path).name for sample in runs.samples(run.id, "skipped")] == ["broken.png"]
    assert len(runs.steps(run.id)) == 3


def test_a_cache_that_stock_clears_before_training_is_made_anew(host: Any, tmp_path: Path) -> None:
    for _ in range(2):
        done = train(host, config(host, tmp_path, clear_cache_before_training=True, epochs=1))
        assert done.returncode == 0, done.stderr[-3000:]
        assert "Clearing cache directory" in done.stdout
    first, second = runs_of(tmp_path).runs()
    for run in (first, second):
        assert run.status == "finished"
        assert runs_of(tmp_path).sample_counts(run.id)["valid"] == 3
        assert [Path(s.path).name for s in runs_of(tmp_path).samples(run.id, "skipped")] == ["broken.png"]


@pytest.mark.parametrize("settings", [{"enabled": False}, {"validate_pipelines": False}])
def test_switched_off_stock_dies_of_the_broken_picture(settings: dict[str, bool], host: Any, tmp_path: Path) -> None:
    switch(host, **settings)
    try:
        done = train(host, config(host, tmp_path))
    finally:
        switch(host)

    assert done.returncode != 0
    assert "Traceback" in done.stderr and not (tmp_path / "lora.safetensors").exists()
    assert not list((tmp_path / "cache").rglob("samples"))
    recorded = (tmp_path / "workspace" / "runs.sqlite").exists()
    assert recorded == settings.get("enabled", True)
    if recorded:
        assert runs_of(tmp_path).latest_run().status == "failed"
    else:
        assert "wan-fixes" not in done.stderr and "wan_fixes" not in done.stderr


def test_a_model_file_that_is_cut_short_is_named_before_anything_is_loaded(host: Any, tmp_path: Path) -> None:
    model = shutil.copytree(host.work / "model", tmp_path / "model")
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    done = train(host, config(host, tmp_path, base_model_name=str(model)))

    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "UserError" in last and str(weights) in last and "cut short" in last
    run = runs_of(tmp_path).latest_run()
    assert run.status == "failed"
    assert not (tmp_path / "cache" / "image").exists()


def test_a_plugin_by_others_rewrites_the_pipeline_before_ours(host: Any, tmp_path: Path) -> None:
    folder = Path(__file__).resolve().parents[2] / "examples" / "trigger_word"
    (host.work / "settings.json").write_text(json.dumps({"plugin_folders": [str(folder)]}), encoding="utf-8")
    try:
        done = train(host, config(host, tmp_path, epochs=1))
    finally:
        switch(host)

    assert done.returncode == 0, done.stderr[-3000:]
    assert "the trigger word is in 3 captions" in done.stderr
