"""`wan models`, as a person and as a program would use it (M17)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wan_fixes.cli.console import ExitCode
from wan_fixes.models.locks import LockManager

from .command import output_of
from .hub_server import Hub
from .world import NEEDED_BYTES, manifest_of


def test_m17_a_model_from_nothing_to_verified(cli_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output_of(capsys, "status", "tiny", "--json")
    assert (code, json.loads(out)["models"][0]["state"]) == (ExitCode.INCOMPLETE, "NOT_PRESENT")
    code, out, _ = output_of(capsys, "ensure", "tiny")
    assert (code, out.strip()) == (ExitCode.OK, str(cli_root / "wan21" / "tiny@1.0.0-original"))
    code, out, _ = output_of(capsys, "verify", "--json")
    found = json.loads(out)["models"]
    assert (code, [model["state"] for model in found]) == (ExitCode.OK, ["COMPLETE"])
    assert (found[0]["bytes_there"], found[0]["bytes_needed"]) == (NEEDED_BYTES, 0)
    code, out, _ = output_of(capsys, "status")
    assert code == ExitCode.OK and "tiny@1.0.0" in out and "COMPLETE" in out


def test_m17_what_is_wrong_is_named_and_mended(cli_root: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    output_of(capsys, "ensure", "tiny")
    (cli_root / "wan21" / "tiny@1.0.0-original" / "vae" / "config.json").write_bytes(b"[]")
    code, out, _ = output_of(capsys, "verify", "tiny")
    assert code == ExitCode.INCOMPLETE and "wrong: vae/config.json" in out
    hub.served.clear()
    assert output_of(capsys, "ensure", "tiny", "--json")[0] == ExitCode.OK
    assert set(hub.served) == {"vae/config.json"}


def test_m17_an_unknown_model_is_a_mistake_and_a_missing_network_a_failure(
    cli_root: Path, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = output_of(capsys, "ensure", "t3v")
    assert code == ExitCode.USAGE and "fix:" in err
    hub.fail("status", "", 99, (404, {}))
    code, _, err = output_of(capsys, "ensure", "tiny")
    assert code == ExitCode.FAILED and "404" in err
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = output_of(capsys, "ensure", "tiny")
    assert code == ExitCode.FAILED and "HF_HUB_OFFLINE" in err


def test_m17_the_list_of_models(cli_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output_of(capsys, "list", "--json")
    assert code == ExitCode.OK
    assert [model["short_name"] for model in json.loads(out)["models"]] == ["tiny@1.0.0"]
    assert "tiny@1.0.0" in output_of(capsys, "list")[1]


def test_m1_a_manifest_is_checked_whole(cli_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert output_of(capsys, "manifest", "validate")[0] == ExitCode.OK
    bad = tmp_path / "bad.toml"
    bad.write_text(
        manifest_of().text.decode().replace('family = "wan21"', 'family = "wan3"').replace("layers = 30", "")
    )
    code, _, err = output_of(capsys, "manifest", "validate", str(bad))
    assert code == ExitCode.USAGE and "family" in err and "layers" in err


def test_m17_a_model_that_is_read_just_now_is_complete(cli_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output_of(capsys, "ensure", "tiny")
    with LockManager(cli_root / ".locks").hold("tiny@1.0.0-original"):
        code, out, _ = output_of(capsys, "status", "tiny", "--json")
    assert (code, json.loads(out)["models"][0]["state"]) == (ExitCode.OK, "VERIFYING")


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_m17_a_model_that_fails_does_not_keep_the_others_waiting(
    cli_root: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    output_of(capsys, "ensure", "tiny")
    code, out, err = output_of(capsys, command, "absent", "tiny", "--json")
    assert [model["state"] for model in json.loads(out)["models"]] == ["COMPLETE"]
    assert code == ExitCode.USAGE and "absent" in err
    assert output_of(capsys, command, "absent")[:2] == (ExitCode.USAGE, "")


@pytest.mark.parametrize("number", ["inf", "nan"])
@pytest.mark.parametrize("arguments", [("ensure", "tiny", "--limit"), ("check", "tiny", "--vram")])
def test_m17_a_number_that_is_not_finite_is_refused(
    cli_root: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], number: str
) -> None:
    code, _, err = output_of(capsys, *arguments, number)
    assert code == ExitCode.USAGE and arguments[-1] in err
