"""`wan train --host PATH`: the checkout's own script, Python and folder; what cannot work is said before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wan_fixes.cli.main import run
from wan_fixes.hosts.onetrainer.enabling import enable

SCRIPT = """
import json, os, sys
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print("ran", flush=True)
read = {name: json.load(open(path)) for name, path in arguments.items()}
json.dump({"cwd": os.getcwd(), "prefix": sys.prefix, "read": read}, open("said.json", "w"))
sys.exit(int(os.environ.get("EXIT_CODE", "0")))
"""

LISTS = ("training_concepts/concepts.json", "training_samples/samples.json")  # once the window was opened


@pytest.fixture
def host(with_venv: Path) -> Path:
    (with_venv / "scripts/train.py").write_text(SCRIPT)
    for name in LISTS:
        (with_venv / name).parent.mkdir()
        (with_venv / name).write_text("[]")
    enable(with_venv)
    return with_venv


def write(path: Path, **content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def said(host: Path) -> dict[str, object]:
    return json.loads((host / "said.json").read_text())


def test_a_saved_configuration_is_run_as_it_is(host: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = write(tmp_path / "config.json", __version=11, model_type="WAN_2_1_T2V_1_3B")
    assert run(["train", "--host", str(host), "--config", str(config)]) == 0
    assert "ran" in capfd.readouterr().out
    answer = said(host)
    assert Path(answer["cwd"]) == host.resolve()
    assert Path(answer["prefix"]) == host / "venv"
    assert answer["read"] == {"--config-path": {"__version": 11, "model_type": "WAN_2_1_T2V_1_3B"}}


def test_a_preset_of_some_fields_is_run_as_a_preset(
    host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "preset.json", model_type="WAN_2_1_T2V_1_3B")
    assert run(["train", "--host", str(host), "--config", "preset.json"]) == 0
    assert said(host)["read"] == {"--preset-path": {"model_type": "WAN_2_1_T2V_1_3B"}, "--config-path": {}}


def test_the_exit_code_of_onetrainer_is_told(
    host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EXIT_CODE", "7")
    assert run(["train", "--host", str(host), "--config", str(write(tmp_path / "c.json"))]) == 1
    assert "exit code 7" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", "{", None])
def test_a_preset_that_cannot_be_read_is_refused(
    content: str | None, host: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.json"
    if content is not None:
        config.write_text(content)
    assert run(["train", "--host", str(host), "--config", str(config)]) == 2
    assert "the preset cannot be read" in capsys.readouterr().err
    assert not (host / "said.json").exists()


def test_a_checkout_that_is_not_enabled_is_refused(
    with_venv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "--host", str(with_venv), "--config", str(write(tmp_path / "c.json"))]) == 2
    assert "wan enable" in capsys.readouterr().err


def test_wan_with_the_plugin_switched_off_is_refused_and_others_run(
    host: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.json").write_text('{"enabled": false}')
    config = write(tmp_path / "c.json", model_type="WAN_2_2_TI2V_5B")
    assert run(["train", "--host", str(host), "--config", str(config)]) == 2
    assert "would go on as Stable Diffusion 1.5" in capsys.readouterr().err
    assert run(["train", "--host", str(host), "--config", str(write(config, model_type="FLUX_DEV_1"))]) == 0


@pytest.mark.parametrize(
    ("content", "named", "unnamed"),
    [
        ({}, ["training_concepts/concepts.json", "training_samples/samples.json"], []),
        ({"concepts": []}, ["training_samples/samples.json"], ["concepts.json"]),
        ({"concepts": None, "samples": []}, ["training_concepts/concepts.json"], ["samples.json"]),
        ({"samples": [], "concept_file_name": "my/other.json"}, ["my/other.json"], ["concepts.json"]),
    ],
)
def test_a_preset_that_leans_on_files_of_a_window_that_was_never_opened_is_refused(
    content: dict[str, object],
    named: list[str],
    unnamed: list[str],
    host: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in LISTS:
        (host / name).unlink()
    assert run(["train", "--host", str(host), "--config", str(write(tmp_path / "c.json", **content))]) == 2
    said_so = capsys.readouterr().err
    assert "does not say what to train on" in said_so and "open OneTrainer's window once" in said_so
    assert all(name in said_so for name in named) and not any(name in said_so for name in unnamed)
    assert not (host / "said.json").exists()


def test_files_that_a_preset_names_are_taken_from_the_checkout_or_from_where_they_are(
    host: Path, tmp_path: Path
) -> None:
    for name in LISTS:
        (host / name).unlink()
    (host / "here.json").write_text("[]")
    (tmp_path / "there.json").write_text("[]")
    names = {"concept_file_name": "here.json", "sample_definition_file_name": str(tmp_path / "there.json")}
    assert run(["train", "--host", str(host), "--config", str(write(tmp_path / "c.json", **names))]) == 0


def test_options_of_the_standalone_host_are_refused(host: Path, tmp_path: Path) -> None:
    assert run(["train", "--host", str(host), "--config", str(write(tmp_path / "c.json")), "--fresh"]) == 2
