"""`wan doctor` finds what keeps the plugin from working, says what to do, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wan_fixes.cli.main import run
from wan_fixes.hosts.onetrainer.doctor import Finding, diagnose
from wan_fixes.hosts.onetrainer.enabling import enable
from wan_fixes.hosts.onetrainer.state import enabled_checkouts
from wan_fixes.hosts.onetrainer.touch_points import PATCHES


def finding(findings: list[Finding], name: str) -> Finding:
    (found,) = [found for found in findings if found.name == name]
    return found


def test_an_enabled_checkout_has_nothing_to_complain_of_about_the_plugin(with_venv: Path) -> None:
    enable(with_venv)
    findings = diagnose(with_venv)
    assert {found.status for found in findings if found.topic == "plugin"} == {"good"}
    assert finding(findings, "Python").status == "good"
    assert {found.name for found in findings if found.topic == "touch points"} == {patch.name for patch in PATCHES}


def test_a_checkout_that_is_not_enabled_is_told_how(with_venv: Path) -> None:
    found = finding(diagnose(with_venv), "enabled")
    assert found.status == "problem" and found.fix == f'wan enable "{with_venv.resolve()}"'


def test_a_lost_line_is_found(with_venv: Path) -> None:
    enable(with_venv)
    Path(enabled_checkouts()[0].pth).unlink()
    found = finding(diagnose(with_venv), "enabled")
    assert found.status == "problem" and "missing or changed" in found.found


def test_a_missing_symbol_is_named_with_what_it_disables(with_venv: Path) -> None:
    (with_venv / "modules/util/create.py").write_text("def create_model_saver():\n    pass\n")
    findings = diagnose(with_venv)
    lost = finding(findings, "model ensure")
    assert lost.status == "warning" and "create_model_loader" in lost.found and "check of a model's files" in lost.found
    assert finding(findings, "model saved").status == finding(findings, "pipeline substitution").status == "good"
    assert "modules.trainer.GenericTrainer" in finding(findings, "training record").found


def test_a_missing_environment_is_one_problem_among_the_findings(checkout: Path) -> None:
    findings = diagnose(checkout)
    assert finding(findings, "Python").status == "problem"
    assert finding(findings, "disk").found.endswith("free at the checkout")


def test_versions_are_held_against_what_onetrainer_asks_for(with_venv: Path) -> None:
    (with_venv / "requirements-global.txt").write_text("numpy==0.1 # old\nav>=1\n-e git+https://x#egg=diffusers\n")
    findings = diagnose(with_venv)
    assert finding(findings, "numpy").status == "warning" and "asks for 0.1" in finding(findings, "numpy").found
    assert finding(findings, "av").status == "good"


def test_switched_off_and_broken_settings_are_named(with_venv: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"enabled": false, "check_models": false}')
    found = finding(diagnose(with_venv), "settings")
    assert found.status == "warning" and found.found == "switched off: enabled, check_models"
    (tmp_path / "settings.json").write_text("{")
    assert finding(diagnose(with_venv), "settings").status == "problem"


def test_json_is_what_scripts_read_and_the_exit_code_says_whether_all_is_well(
    with_venv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", str(with_venv), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"checkout", "findings", "totals"}
    assert all(set(found) == {"topic", "name", "status", "found", "fix"} for found in answer["findings"])
    assert answer["totals"]["problem"] == sum(found["status"] == "problem" for found in answer["findings"]) > 0

    assert run(["doctor", str(with_venv)]) == 1
    assert "pipeline" in capsys.readouterr().out
    assert run(["doctor", str(with_venv / "nowhere")]) == 2
    assert "there is no OneTrainer" in capsys.readouterr().err
