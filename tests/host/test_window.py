"""OneTrainer's windows with WAN in them, used by real clicks on an X server without a screen: both toolkits."""

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

DRIVER = Path(__file__).with_name("window_driver.py")
LAUNCHERS = {"ctk": "scripts/train_ui_ctk.py", "qt": "scripts/train_ui_qt.py"}
GUEST = Path(__file__).resolve().parents[2] / "examples" / "trigger_word"
PROGRAMS = ("Xvfb", "xdotool", "import")

absent = [name for name in PROGRAMS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="the clicks go to an X server"),
    pytest.mark.skipif(bool(absent), reason=f"no {', '.join(absent)} (on Debian: xvfb, xdotool, imagemagick)"),
]


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1320x2320x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as told:
        number = told.readline().strip()
    try:
        yield f":{number}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(params=list(LAUNCHERS))
def use(request: pytest.FixtureRequest, host: Any, display: str, tmp_path: Path) -> Any:
    """Runs a task of the driver in a window; its pictures stay in WAN_FIXES_PICTURES, where that names a folder."""
    pictures = os.environ.get("WAN_FIXES_PICTURES")
    folder = Path(pictures) / request.node.name if pictures else tmp_path / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    # Else the window begins with the settings of the last one.
    (host.checkout / "training_presets" / "#.json").unlink(missing_ok=True)

    def run(task: str, **facts: Any) -> tuple[dict[str, Any], str]:
        content = facts | {"task": task, "folder": str(folder)}
        (tmp_path / "facts.json").write_text(json.dumps(content), encoding="utf-8")
        done = subprocess.run(
            [str(host.python), str(DRIVER), request.param, LAUNCHERS[request.param], str(tmp_path / "facts.json")],
            env=host.environment | {"DISPLAY": display, "QT_QPA_PLATFORM": "xcb"},
            cwd=host.checkout,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=500,
        )
        answer = folder / "result.json"
        assert answer.is_file(), done.stderr[-3000:]
        result = json.loads(answer.read_text(encoding="utf-8"))
        assert "failed" not in result, f"{result['failed']}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return result, done.stdout + done.stderr

    return run


def write_concepts(host: Any, clips: Path) -> None:
    path = host.checkout / "training_concepts" / "concepts.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([{"__version": 2, "name": "clips", "path": str(clips), "seed": 1}]), encoding="utf-8")


def test_a_preset_is_loaded_and_trained_by_clicks(host: Any, use: Any, tiny_wan: Path, tmp_path: Path) -> None:
    from host.wan_runs import make_clips
    from wan_fixes.health import RunDatabase, run_database_path

    clips = make_clips(tmp_path / "clips")
    (clips / "broken.mp4").write_bytes((clips / "clip0.mp4").read_bytes()[:300])
    write_concepts(host, clips)
    for name in ("run", "cache"):  # stock asks for folders that are there
        (tmp_path / name).mkdir()

    result, output = use(
        "train",
        preset=["WAN 2.1 T2V 1.3B", "#wan 2.1 t2v 1.3b LoRA 24GB (estimated)"],
        off={"general": ["Tensorboard"], "data": ["Clear cache before training"]},
        fields={
            "general": {"Workspace Directory": str(tmp_path / "run"), "Cache Directory": str(tmp_path / "cache")},
            "model": {"Base Model": str(tiny_wan), "Model Output Destination": str(tmp_path / "lora.safetensors")},
            "training": {"Epochs": "2", "Resolution": "64", "Frames": "9"},
        },
        look_at="WAN fixes",
        afterwards=[
            ("wait", "✓ Finished"),
            ("note", "overview"),
            ("page", "Left out"),
            ("row", "broken.mp4"),
            ("key", "ctrl+c"),
            ("clipboard", "copied by key"),
            ("press", "Copy"),
            ("clipboard", "copied"),
            ("press", "Try again"),
            ("wait", "broken.mp4: still"),
            ("note", "left out"),
            ("page", "Models"),
            ("note", "models"),
            ("page", "Checks"),
            ("press", "Export report"),
            ("wait", "Report of the run: ✓ done"),
            ("note", "report"),
            ("press", "Check dataset"),
            ("wait", "Check of the dataset: ✓ done"),
            ("note", "checked"),
        ],
    )

    assert result["model_type"] == "WAN_2_1_T2V_1_3B"
    assert "WAN fixes" in result["tabs"] and "additional embeddings" not in result["tabs"]
    assert {"Override Transformer / GGUF", "VAE Data Type"} <= set(result["model"])
    assert {"Frames", "VAE Tiling", "Timestep Shift", "Train Transformer"} <= set(result["training"])
    assert "Stopped" in result["end"], output[-3000:]
    assert (tmp_path / "lora.safetensors").is_file()
    runs = RunDatabase.open_readonly(run_database_path(tmp_path / "run"))
    (run,) = runs.runs()
    assert run.status == "finished" and len(runs.steps(run.id)) == 6
    assert [Path(sample.path).name for sample in runs.samples(run.id, "skipped")] == ["broken.mp4"]

    headlines = {text.rpartition(", for ")[0] for labels in result["live"] for text in labels if ", for " in text}
    assert any(text.startswith("Training") for text in headlines), headlines  # as it went on
    assert {"3 fine", "1 left out, 1 in quarantine", "step 6"} <= set(result["overview"])
    assert result["copied"] == result["copied by key"] and result["copied"].startswith(f"{clips / 'broken.mp4'}\t")
    assert (tmp_path / "run" / "run-report.html").is_file()


def test_what_wan_needs_is_in_the_tabs_and_switches_are_saved_at_once(host: Any, use: Any) -> None:
    settings = host.work / "settings.json"
    settings.write_text(json.dumps({"plugin_folders": [str(GUEST)], "kept": 1}), encoding="utf-8")
    try:
        result, output = use(
            "look around",
            steps=[
                ("tab", "WAN fixes"),
                ("note", "no run"),
                ("page", "Settings"),
                ("switch", "Validated data pipeline"),
                ("note", "one switched"),
                ("tab", "trigger word"),
                ("note", "guest"),
                ("choose", "Load Preset", "WAN 2.2 I2V A14B", "#wan 2.2 i2v a14b LoRA 24GB (estimated)"),
                ("tab", "training"),
                ("note", "experts"),
                ("tab", "model"),
                ("note", "expert files"),
                ("tab", "sampling"),
                ("press", "Add Sample"),
                ("press", "..."),
                ("note", "sample"),
            ],
        )
        saved = json.loads(settings.read_text(encoding="utf-8"))
    finally:
        settings.write_text("{}", encoding="utf-8")

    assert "No run yet" in result["no run"]
    assert {"Plugin", "Check of model files", "Saved. It holds from the next training on."} <= set(
        result["one switched"]
    )
    assert saved["validate_pipelines"] is False and saved["enabled"] is True
    assert saved["kept"] == 1 and saved["plugin_folders"] == [str(GUEST)]
    assert "Before every caption goes: ohwx style" in result["guest"], output[-3000:]
    assert {"Include High-Noise Expert", "Include Low-Noise Expert", "VAE Tiling"} <= set(result["experts"])
    assert {"Override Low-Noise Expert / GGUF", "Low-Noise Expert Data Type"} <= set(result["expert files"])
    assert "first frame:" in result["sample"]


@pytest.mark.parametrize("use", ["ctk"], indirect=True)  # Qt's tabs know the keys by themselves
def test_the_tab_is_reached_by_keys(use: Any) -> None:
    steps = [("key", "ctrl+shift+Tab"), ("note", "last"), ("key", "ctrl+Tab"), ("note", "first")]
    result, _ = use("look around", steps=[*steps, ("key", "ctrl+shift+Tab"), ("key", "Tab"), ("note", "again")])

    assert result["tabs"][-1] == "WAN fixes"
    assert "No run yet" in result["last"] and "No run yet" not in result["first"]
    assert "No run yet" in result["again"]


def test_switched_off_only_the_tab_is_left_and_switches_it_on_again(host: Any, use: Any, tiny_wan: Path) -> None:
    settings = host.work / "settings.json"
    settings.write_text('{"enabled": false}', encoding="utf-8")
    session = host.checkout / "training_presets" / "#.json"  # what OneTrainer itself left of an earlier session
    session.write_text('{"__version": 11, "model_type": "WAN_2_1_T2V_1_3B", "training_method": "LORA"}')
    try:
        result, output = use(
            "look around",
            steps=[("tab", "WAN fixes"), ("note", "off"), ("switch", "Plugin"), ("note", "on"), ("presets", "presets")],
        )
        saved = json.loads(settings.read_text(encoding="utf-8"))
    finally:
        settings.write_text("{}", encoding="utf-8")
        session.unlink()

    assert "The plugin is switched off, and nothing of it is at work but this tab." in result["off"]
    assert "without it there is no WAN_2_1_T2V_1_3B, and OneTrainer goes on as Stable Diffusion 1.5" in output
    assert "Saved. It holds when OneTrainer is started again." in result["on"]
    assert saved["enabled"] is True
    assert result["presets"] and not [name for name in result["presets"] if name.startswith("WAN")]
