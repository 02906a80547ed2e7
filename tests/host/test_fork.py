"""The plugin in the WAN fork, an older OneTrainer with a WAN of its own that cannot train: launched, trained with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NEEDS = ("WAN_FIXES_ONETRAINER_FORK", "WAN_FIXES_HOST_FORK_PYTHON")

# What the fork's time calls otherwise than the configurations of the other tests.
OLDER = {"__version": 10, "output_model_format": "SAFETENSORS"}

GUEST = Path(__file__).resolve().parents[2] / "examples" / "trigger_word"

PREAMBLE = "from util.import_util import script_imports\nscript_imports()\n"

# Every touch point that the fork has.
APPLIED = {
    "pipeline substitution",
    "training record",
    "training status",
    "model ensure",
    "model saved",
    "tab (before July 2026)",
}

# Trains as scripts/train.py does, as far as the pipeline: says of which modules it is made, and stops.
SHOW_PIPELINE = (
    f"{PREAMBLE}import json\nimport train\n"
    "from modules.dataLoader.mixin import DataLoaderMgdsMixin as mixin\n"
    "def names(parts):\n"
    "    for part in parts:\n"
    "        if isinstance(part, list):\n            yield from names(part)\n"
    "        elif part is not None:\n"
    "            kinds = [type(part), type(vars(part).get('wrapped_module'))]\n"
    "            yield [f'{kind.__module__}.{kind.__qualname__}' for kind in kinds]\n"
    "def show(device, concepts, settings, definition, **options):\n"
    "    print('pipeline:', json.dumps(list(names(definition))))\n"
    "    raise SystemExit\n"
    "mixin.MGDS = show\ntrain.main()\n"
)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from host.own_host import make_own_host
    from host.tiny_stable_diffusion import add_broken_picture, make_pictures, make_tiny_stable_diffusion

    mgds = Path(os.environ.get("WAN_FIXES_MGDS_FORK") or os.environ["WAN_FIXES_MGDS"])
    host = make_own_host(
        tmp_path_factory.mktemp("fork"),
        Path(os.environ["WAN_FIXES_ONETRAINER_FORK"]),
        python=Path(os.environ["WAN_FIXES_HOST_FORK_PYTHON"]),
        mgds=mgds,
    )
    make_tiny_stable_diffusion(host.work / "model")
    add_broken_picture(make_pictures(host.work / "pictures"))
    enabled = host.wan("enable", str(host.checkout))
    assert enabled.returncode == 0, enabled.stderr
    assert "wan registration is off" in enabled.stderr
    yield host


def train(host: Any, path: Path) -> Any:
    return host.launch("scripts/train.py", "--config-path", str(path))


def pictures_config(host: Any, work: Path, **changes: Any) -> Path:
    from host.tiny_stable_diffusion import write_config

    return write_config(host.work / "model", host.work / "pictures", work, **OLDER | changes)


def clips_config(model: Path, work: Path, model_type: str, **changes: Any) -> Path:
    """Over good clips and a broken one; without buckets, for which these are too small."""
    from host.wan_runs import make_clips, write_configuration

    clips = make_clips(work / "clips")
    (clips / "broken.mp4").write_bytes((clips / "clip0.mp4").read_bytes()[:300])
    own = {"model_type": model_type, "aspect_ratio_bucketing": False}
    return write_configuration(model, clips, work, **OLDER | own | changes)


def latest_run(work: Path) -> Any:
    from wan_fixes.health import RunDatabase, run_database_path

    runs = RunDatabase.open_readonly(run_database_path(work / "workspace"))
    return runs, runs.latest_run()


def script(host: Any, name: str, content: str) -> Path:
    """A script among the fork's own."""
    path = host.checkout / "scripts" / f"{name}.py"
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.skipif(os.name == "nt", reason="the launcher is a shell script")
def test_the_launcher_loads_it_and_names_in_one_line_each_what_the_fork_has_no_place_for(host: Any) -> None:
    path = script(
        host,
        "probe",
        f"{PREAMBLE}import json\nimport modules.util.create, modules.trainer.GenericTrainer, modules.ui.TrainUI\n"
        "from wan_fixes.hosts.onetrainer.import_hooks import outcomes\n"
        "print(json.dumps({outcome.patch: outcome.status for outcome in outcomes()}))\n",
    )
    try:
        done = host.launch("./run-cmd.sh", "probe")
    finally:
        path.unlink()

    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert {name for name in APPLIED if outcomes.get(name) != "applied"} == set()
    assert "failed" not in outcomes.values()
    for missing in ("WAN among the model types", "training of WAN"):
        assert done.stderr.count(f"without it there is no {missing}\n") == 1
    assert done.stderr.count("is active in") == 1
    assert host.git_status() == ""


def test_a_broken_picture_is_left_out_and_the_training_is_recorded_to_its_end(host: Any, tmp_path: Path) -> None:
    done = train(host, pictures_config(host, tmp_path))

    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "lora.safetensors").is_file()
    assert done.stderr.count("training data: 3 samples are valid, 1 skipped, 0 failed") == 1
    runs, run = latest_run(tmp_path)
    assert (run.kind, run.status) == ("train", "finished")
    (skipped,) = runs.samples(run.id, "skipped")
    assert Path(skipped.path).name == "broken.png" and "truncated" in skipped.reason
    assert runs.sample_counts(run.id)["valid"] == 3
    assert [step.step for step in runs.steps(run.id)] == [1, 2, 3, 4, 5, 6]
    assert "checkpoint_saved" in [event.kind for event in runs.events(run.id)]


def test_switched_off_the_fork_dies_of_the_broken_picture(host: Any, tmp_path: Path) -> None:
    (host.work / "settings.json").write_text('{"enabled": false}')
    try:
        done = train(host, pictures_config(host, tmp_path))
    finally:
        (host.work / "settings.json").write_text("{}")

    assert done.returncode != 0 and "Traceback" in done.stderr
    assert not (tmp_path / "lora.safetensors").exists()
    assert not (tmp_path / "workspace" / "runs.sqlite").exists()
    assert "wan-fixes" not in done.stderr


@pytest.mark.parametrize("validated", [True, False])
def test_a_broken_clip_is_left_out_of_a_video_models_cache_and_ends_the_forks_own_run(
    validated: bool, host: Any, tmp_path: Path
) -> None:
    """As far as the fork gets: its loss of flow-matching models asks every batch for an item of its own WAN alone."""
    from host.tiny_hunyuan_video import make_tiny_hunyuan_video

    model = make_tiny_hunyuan_video(tmp_path / "model")
    full = {"layer_filter": "", "layer_filter_preset": "full", "fallback_train_dtype": "FLOAT_32"}
    config = clips_config(model, tmp_path, "HUNYUAN_VIDEO", only_cache=True, text_encoder_2={"train": False}, **full)
    (host.work / "settings.json").write_text(json.dumps({"validate_pipelines": validated}))
    try:
        done = train(host, config)
    finally:
        (host.work / "settings.json").write_text("{}")

    runs, run = latest_run(tmp_path)
    if not validated:
        assert done.returncode != 0 and "broken.mp4" in done.stderr.splitlines()[-1]
        assert run.status == "failed"
        return
    assert done.returncode == 0, done.stderr[-3000:]
    assert run.status == "finished"
    assert runs.sample_counts(run.id)["valid"] == 3
    (skipped,) = runs.samples(run.id, "skipped")
    assert Path(skipped.path).name == "broken.mp4" and "moov" in skipped.reason
    for cache, parts in (("image", 1), ("text", 2)):  # of the captions one for each encoder
        assert len(list((tmp_path / "cache" / cache / "samples").rglob("*.safetensors"))) == 3 * parts


def test_a_cut_weight_file_is_refused_before_the_forks_wan_makes_do_with_an_invented_model(
    host: Any, tiny_wan: Path, tmp_path: Path
) -> None:
    """The fork's loader goes on with random weights of its own where loading fails."""
    model = shutil.copytree(tiny_wan, tmp_path / "model")
    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    done = train(host, clips_config(model, tmp_path, "WAN_2_2"))

    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "UserError" in last and str(weights) in last and "cut short" in last
    assert "mock" not in done.stdout.lower()
    _, run = latest_run(tmp_path)
    assert run.status == "failed"


@pytest.mark.parametrize(
    "command",
    [
        "scripts/sample.py --base-model-name {model} --prompt x --destination {out}",
        "scripts/convert_model.py --input-name {model} --output-model-destination {out}",
    ],
    ids=["sample.py", "convert_model.py"],
)
def test_the_scripts_that_load_a_model_by_themselves_refuse_a_cut_weight_file(
    command: str, host: Any, tmp_path: Path
) -> None:
    model = shutil.copytree(host.work / "model", tmp_path / "model")
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    parts = [part.format(model=model, out=tmp_path / "out") for part in command.split()]
    done = host.launch(*parts, "--model-type", "STABLE_DIFFUSION_15")

    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "UserError" in last and str(weights) in last and "cut short" in last
    assert not (tmp_path / "out").exists()


def test_the_pipeline_of_the_forks_wan_keeps_the_forks_own_modules(host: Any, tiny_wan: Path, tmp_path: Path) -> None:
    config = clips_config(tiny_wan, tmp_path, "WAN_2_2")
    path = script(host, "show_pipeline", SHOW_PIPELINE)
    try:
        done = host.launch("scripts/show_pipeline.py", "--config-path", str(config))
    finally:
        path.unlink()

    told = next(line for line in done.stdout.splitlines() if line.startswith("pipeline:"))
    modules = json.loads(told.removeprefix("pipeline:"))
    outer = [kind for kind, _ in modules]
    wrapped = [kind for _, kind in modules]
    own = "modules.dataLoader"
    # Stock modules are replaced, and the fork's own ones of the same purpose are not.
    # Neither what lists the files nor what puts them in order has a guard around it.
    for name in (
        "collect_paths.ValidatedCollectPaths",
        "batch_sorting.SafeAspectBatchSorting",
        "variation_sorting.SafeVariationSorting",
    ):
        assert f"wan_fixes.pipeline.{name}" in outer
    assert wrapped.count(f"{own}.pipeline.ValidatedDiskCache.ValidatedDiskCache") == 2
    assert f"{own}.wan.TemporalConsistencyVAE.TemporalConsistencyVAE" in wrapped
    # Some of the fork's are of no kind that MGDS runs: they stay as they are, and are named.
    assert f"{own}.wan.VideoFrameSampler.VideoFrameSampler" in outer
    assert sum("SafePipelineModule" in kind and kind.startswith(own) for kind in outer) == 9
    assert done.stderr.count("SafePipelineModule is of no kind that the pipeline can run") == 1
    assert "is left as OneTrainer made it" not in done.stderr


absent = [name for name in ("xvfb-run", "xdotool", "import") if shutil.which(name) is None]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="the clicks go to an X server")
@pytest.mark.skipif(bool(absent), reason=f"no {', '.join(absent)} (on Debian: xvfb, xdotool, imagemagick)")
def test_the_tabs_are_in_the_window_and_a_switch_is_saved_at_once(host: Any, tmp_path: Path) -> None:
    pictures = os.environ.get("WAN_FIXES_PICTURES")
    folder = Path(pictures) / "fork" if pictures else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    ours = [("tab", "WAN fixes"), ("page", "Settings"), ("switch", "Check of model files"), ("note", "ours")]
    steps = [*ours, ("tab", "trigger word")]
    facts = {"task": "look around", "folder": str(folder), "steps": [*steps, ("note", "guest")]}
    (tmp_path / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    settings = host.work / "settings.json"
    settings.write_text(json.dumps({"plugin_folders": [str(GUEST)]}), encoding="utf-8")
    screen = ["xvfb-run", "-a", "-s", "-screen 0 1320x2320x24 -nolisten tcp"]
    driver = [str(Path(__file__).with_name("window_driver.py")), "ctk", "scripts/train_ui.py"]
    try:
        done = subprocess.run(
            [*screen, str(host.python), *driver, str(tmp_path / "facts.json")],
            env=host.environment,
            cwd=host.checkout,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=500,
            check=False,
        )
        saved = json.loads(settings.read_text(encoding="utf-8"))
    finally:
        settings.write_text("{}", encoding="utf-8")

    answer = folder / "result.json"
    assert answer.is_file(), done.stderr[-3000:]
    result = json.loads(answer.read_text(encoding="utf-8"))
    assert "failed" not in result, f"{result['failed']}\n{done.stderr[-3000:]}"
    assert {"general", "cloud", "trigger word", "WAN fixes"} <= set(result["tabs"])
    assert {"Plugin", "Saved. It holds from the next training on."} <= set(result["ours"])
    assert any(text.replace("\n", " ").endswith("without it there is no training of WAN") for text in result["ours"])
    assert saved["check_models"] is False and saved["validate_pipelines"] is True
    assert "Before every caption goes: ohwx style" in result["guest"]


def test_disabling_takes_all_of_it_back(host: Any) -> None:
    disabled = host.wan("disable", str(host.checkout))
    try:
        assert disabled.returncode == 0, disabled.stderr
        assert not any("wan_fixes" in path for path in host.files())
        assert host.git_status() == ""
    finally:
        host.wan("enable", str(host.checkout))
