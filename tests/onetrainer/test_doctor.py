"""`wan doctor` finds what keeps the plugin from working, says what to do, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wan_fixes.cli.main import run
from wan_fixes.hosts.onetrainer.checkout import find_python, inspect_environment
from wan_fixes.hosts.onetrainer.doctor import Finding, diagnose, gpu_finding
from wan_fixes.hosts.onetrainer.enabling import enable
from wan_fixes.hosts.onetrainer.gpu import Devices, ask_torch
from wan_fixes.hosts.onetrainer.state import enabled_checkouts
from wan_fixes.hosts.onetrainer.touch_points import PATCHES


def finding(findings: list[Finding], name: str) -> Finding:
    (found,) = [found for found in findings if found.name == name]
    return found


def site_packages(checkout: Path) -> Path:
    return inspect_environment(find_python(checkout)).site_packages


@pytest.fixture
def host(with_venv: Path) -> Path:
    """A checkout whose torch cannot be imported: asking a whole one takes seconds, and one test does that."""
    break_torch(with_venv)
    return with_venv


def break_torch(checkout: Path) -> None:
    folder = checkout.parent / "broken"
    (folder / "torch").mkdir(parents=True)
    (folder / "torch/__init__.py").write_text("raise OSError('libcudart.so: cannot open')")
    line = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    (site_packages(checkout) / "aaaa.pth").write_text(line, encoding="utf-8")


def test_an_enabled_checkout_has_nothing_to_complain_of_about_the_plugin(host: Path) -> None:
    enable(host)
    findings = diagnose(host)
    assert {found.status for found in findings if found.topic == "plugin"} == {"good"}
    assert finding(findings, "Python").status == "good"
    assert {found.name for found in findings if found.topic == "touch points"} == {patch.name for patch in PATCHES}


def test_a_checkout_that_is_not_enabled_is_told_how(host: Path) -> None:
    found = finding(diagnose(host), "enabled")
    assert found.status == "problem" and found.fix == f'wan enable "{host.resolve()}"'


def test_a_lost_line_is_found(host: Path) -> None:
    enable(host)
    Path(enabled_checkouts()[0].pth).unlink()
    found = finding(diagnose(host), "enabled")
    assert found.status == "problem" and "missing or changed" in found.found


def test_a_missing_symbol_is_named_with_what_it_disables(host: Path) -> None:
    (host / "modules/util/create.py").write_text("def create_model_saver():\n    pass\n")
    findings = diagnose(host)
    lost = finding(findings, "model ensure")
    assert lost.status == "warning" and "create_model_loader" in lost.found and "check of a model's files" in lost.found
    assert finding(findings, "model saved").status == finding(findings, "pipeline substitution").status == "good"
    assert "modules.trainer.GenericTrainer" in finding(findings, "training record").found


def test_a_missing_environment_is_one_problem_among_the_findings(checkout: Path) -> None:
    findings = diagnose(checkout)
    assert finding(findings, "Python").status == "problem"
    assert finding(findings, "disk").found.endswith("free at the checkout")


def test_versions_are_held_against_what_onetrainer_asks_for(host: Path) -> None:
    (host / "requirements-global.txt").write_text("numpy==0.1 # old\nav>=1\n-e git+https://x#egg=diffusers\n")
    findings = diagnose(host)
    assert finding(findings, "numpy").status == "warning" and "asks for 0.1" in finding(findings, "numpy").found
    assert finding(findings, "av").status == "good"


def test_a_package_that_only_lies_on_the_path_is_found_also_without_an_init_file(host: Path, tmp_path: Path) -> None:
    """As MGDS is: a namespace package, whose spec has no origin."""
    assert finding(diagnose(host), "mgds").status == "problem"
    (tmp_path / "src/mgds").mkdir(parents=True)
    (site_packages(host) / "mgds.pth").write_text(f"{tmp_path / 'src'}\n", encoding="utf-8")
    found = finding(diagnose(host), "mgds")
    assert (found.status, found.found) == ("good", f"sources in {tmp_path / 'src' / 'mgds'}")


def test_a_checkout_that_was_moved_is_told_where_it_was(host: Path, tmp_path: Path) -> None:
    enable(host)
    moved = host.rename(tmp_path / "moved").resolve()
    found = finding(diagnose(moved), "enabled")
    assert found.status == "problem" and str(host.resolve()) in found.found
    assert found.fix == f'wan enable "{moved}"'


def test_torch_is_asked_what_it_can_train_on(with_venv: Path) -> None:
    import torch

    devices = ask_torch(inspect_environment(find_python(with_venv)))
    assert (devices.version, devices.trouble) == (torch.__version__, "")
    assert len(devices.gpus) == torch.cuda.device_count() and devices.has_mps == torch.backends.mps.is_available()

    break_torch(with_venv)
    devices = ask_torch(inspect_environment(find_python(with_venv)))
    assert devices.trouble == "OSError: libcudart.so: cannot open"


NVIDIA = "NVIDIA GeForce RTX 4090, 24564 MiB, 550.54"


@pytest.mark.parametrize(
    ("devices", "nvidia", "status", "words"),
    [
        (Devices("2.9+cu128", None, (("RTX 4090", 24 * 2**30),), False), NVIDIA, "good", ["RTX 4090, 24 GiB", "cu128"]),
        (Devices("2.9+rocm6.4", "6.4", (("RX 7900", 20 * 2**30),), False), "", "good", ["RX 7900, 20 GiB", "ROCm"]),
        (Devices("2.9", None, (), True), "", "good", ["Apple", "MPS"]),
        (Devices("2.9+cpu", None, (), False), NVIDIA, "problem", ["RTX 4090", "2.9+cpu cannot use it"]),
        (Devices("2.9+cpu", None, (), False), "", "warning", ["2.9+cpu sees none", "without a GPU"]),
        (Devices("", None, (), False, "OSError: broken"), NVIDIA, "warning", ["RTX 4090", "OSError: broken"]),
        (None, "", "warning", ["there is no environment"]),
    ],
    ids=["NVIDIA", "AMD", "Apple", "a build without CUDA", "none", "broken torch", "no environment"],
)
def test_every_kind_of_gpu_is_called_what_it_is(
    devices: Devices | None, nvidia: str, status: str, words: list[str]
) -> None:
    found = gpu_finding(devices, nvidia)
    assert found.status == status
    assert all(word in f"{found.found} {found.fix}" for word in words)
    assert "NVIDIA" not in found.found or nvidia


def test_switched_off_and_broken_settings_are_named(host: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"enabled": false, "check_models": false}')
    found = finding(diagnose(host), "settings")
    assert found.status == "warning" and found.found == "switched off: enabled, check_models"
    (tmp_path / "settings.json").write_text("{")
    assert finding(diagnose(host), "settings").status == "problem"


def test_json_is_what_scripts_read_and_the_exit_code_says_whether_all_is_well(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", str(host), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"checkout", "findings", "totals"}
    assert all(set(found) == {"topic", "name", "status", "found", "fix"} for found in answer["findings"])
    assert answer["totals"]["problem"] == sum(found["status"] == "problem" for found in answer["findings"]) > 0

    assert run(["doctor", str(host)]) == 1
    table = " ".join(capsys.readouterr().out.split())
    found = len([f for f in answer["findings"] if f["topic"] == "touch points" and f["status"] == "good"])
    assert f"{found} places where the plugin" in " ".join(table.replace("│", " ").split())
    assert "touch points: wan registration" in table
    assert run(["doctor", str(host / "nowhere")]) == 2
    assert "there is no OneTrainer" in capsys.readouterr().err
