"""What `--json` prints is what the published schemas say, in whatever state the models are (M17)."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import typer.main
from jsonschema import Draft202012Validator

from wan_fixes.cli.console import ExitCode
from wan_fixes.cli.models import app
from wan_fixes.models.locks import LockManager
from wan_fixes.schemas import load_schema, schema_names

from .command import output_of
from .hub_server import Hub
from .test_dedup import VAE
from .test_ensure import LARGE
from .test_nearby import ENCODER, OTHER, two_models, write_model
from .test_repair import spoil
from .world import PART, REPOSITORY, model_files, some_bytes

Capture = pytest.CaptureFixture[str]
NAME = "tiny@1.0.0-original"
FOLDER = Path("wan21") / NAME
GROUPS = ("manifest-", "key-")
SHARED_PARTS = {"model-change", "model-fallback", "model-status"}


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each command of a group of Click's; one of a group in it as GROUP-COMMAND."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name}-")
        else:
            yield f"{prefix}{name}", command


def schemas_of_commands() -> set[str]:
    """The names that the schemas of the commands with `--json` must have."""
    found = commands(typer.main.get_group(app))
    return {name for name, command in found if any("--json" in parameter.opts for parameter in command.params)}


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in a value."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(item)


def checked(name: str, text: str) -> Any:
    """What a command printed, when its schema says just that: a field more, or one less, would not be right."""
    found = json.loads(text)
    validator = Draft202012Validator(load_schema(name))
    validator.validate(found)
    for number, original in enumerate(objects(found)):
        for field in (None, *original):
            changed = copy.deepcopy(found)
            one = list(objects(changed))[number]
            if field is None:
                one["a field of tomorrow"] = 1
            else:
                del one[field]
            assert not validator.is_valid(changed), (field, changed)
    return found


def printed(capsys: Capture, name: str, *arguments: str, code: int = ExitCode.OK) -> Any:
    """Run the command of a schema with `--json` and check what it prints."""
    words = name.split("-", 1) if name.startswith(GROUPS) else [name]
    found, out, err = output_of(capsys, *words, *arguments, "--json")
    assert found == code, err
    return checked(name, out)


def states(found: Any) -> list[str]:
    return [model["state"] for model in found["models"]]


def test_m17_every_command_that_prints_json_has_a_schema_and_there_are_no_others() -> None:
    assert {"status", "cache-info", "manifest-validate"} <= schemas_of_commands()
    assert schemas_of_commands() | SHARED_PARTS == set(schema_names())


@pytest.mark.parametrize("name", schema_names())
def test_m17_a_schema_is_one_names_every_field_and_allows_no_other(name: str) -> None:
    schema = load_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"].endswith(f":{name}") and schema["description"]
    typed = [part for part in objects(schema) if part.get("type") == "object"]
    assert typed
    for part in typed:
        assert part["additionalProperties"] is False
        assert set(part["required"]) == set(part["properties"])
        for field, of_field in part["properties"].items():
            assert "$ref" in of_field or of_field["description"].endswith("."), field


def test_m17_the_states_of_a_model(cli_root: Path, hub: Hub, capsys: Capture) -> None:
    assert states(printed(capsys, "status")) == ["NOT_PRESENT"]
    assert printed(capsys, "verify") == {"root": str(cli_root), "models": []}
    assert states(printed(capsys, "verify", "tiny", code=ExitCode.INCOMPLETE)) == ["NOT_PRESENT"]
    hub.fail("status", "/storage/", 999, (404, {}))
    assert printed(capsys, "ensure", "tiny", code=ExitCode.FAILED) == {"models": []}
    [partial] = printed(capsys, "status", "tiny", code=ExitCode.INCOMPLETE)["models"]
    assert partial["state"] == "PARTIAL" and LARGE in partial["missing"] and partial["bytes_needed"] > 0
    hub.faults.clear()
    assert states(printed(capsys, "ensure", "tiny")) == ["COMPLETE"]
    with LockManager(cli_root / ".locks").hold(NAME):
        assert states(printed(capsys, "status", "tiny")) == ["VERIFYING"]
    spoil(cli_root / FOLDER / LARGE, 3)
    (cli_root / FOLDER / "vae/config.json").unlink()
    [spoilt] = printed(capsys, "verify", code=ExitCode.INCOMPLETE)["models"]
    assert (spoilt["state"], spoilt["corrupt"], spoilt["missing"]) == ("CORRUPT", [LARGE], ["vae/config.json"])
    assert states(printed(capsys, "repair")) == ["COMPLETE"]
    (cli_root / FOLDER / LARGE).touch()
    assert printed(capsys, "status")["models"][0]["unverified"] == [LARGE]


def test_m17_what_models_take_and_what_goes(cli_root: Path, tmp_path: Path, hub: Hub, capsys: Capture) -> None:
    (tmp_path / "tiny.toml").write_bytes(two_models().text)
    hub.add(OTHER, model_files(**{LARGE: some_bytes(5000, 77)}))
    assert printed(capsys, "cache-info")["models"] == []
    assert printed(capsys, "dedup") == {"duplicates": [], "bytes_freed": 0}
    assert printed(capsys, "gc")["planned"] == []
    assert states(printed(capsys, "ensure", "tiny", "other")) == ["COMPLETE", "COMPLETE"]
    other = cli_root / "wan21" / "other@1.0.0-original"
    for path in (ENCODER, VAE):
        shutil.copy2(other / path, tmp_path / "copy")
        shutil.move(tmp_path / "copy", other / path)
    assert [one["linked"] for one in printed(capsys, "dedup")["duplicates"]] == [False, False]
    assert printed(capsys, "dedup", "--yes")["bytes_freed"] == 3 * PART + 7 + 2 * PART + 1
    assert [model["shared"] > 0 for model in printed(capsys, "cache-info")["models"]] == [True, True]
    assert printed(capsys, "pin", "tiny")["pinned"] is True
    shown = printed(capsys, "gc", "--older-than", "0h")
    assert ([one["removed"] for one in shown["planned"]], [one["why"] for one in shown["kept"]]) == (
        [False],
        ["pinned"],
    )
    assert printed(capsys, "gc", "--older-than", "0h", "--yes")["bytes_reclaimed"] > 0
    assert printed(capsys, "unpin", "tiny")["pinned"] is False


def test_m17_moving_between_revisions(cli_root: Path, hub: Hub, capsys: Capture) -> None:
    assert printed(capsys, "check-updates") == {"models": []}
    assert printed(capsys, "check-updates", "tiny", code=ExitCode.FAILED) == {"models": []}
    printed(capsys, "ensure", "tiny")
    assert printed(capsys, "history", "tiny") == {"changes": []}
    assert printed(capsys, "check-updates")["models"][0]["is_available"] is False
    assert printed(capsys, "update", "tiny") == {"change": None}
    hub.repositories[REPOSITORY].files[LARGE] = some_bytes(PART, 5)
    [info] = printed(capsys, "check-updates", "tiny")["models"]
    assert info["is_available"] and info["log"] and info["changed"] == [LARGE]
    assert printed(capsys, "update", "tiny")["change"]["bytes"] == PART
    assert printed(capsys, "rollback", "tiny")["change"]["action"] == "rollback"
    assert len(printed(capsys, "history", "tiny")["changes"]) == 2


def test_m17_taking_models_over(cli_root: Path, tmp_path: Path, capsys: Capture) -> None:
    mine = write_model(tmp_path / "mine" / "Tiny-Diffusers")
    (mine / "vae/config.json").unlink()
    assert len(printed(capsys, "migrate", str(mine))["found"]) == 1
    [adopted] = printed(capsys, "migrate", str(mine), "--yes", code=ExitCode.INCOMPLETE)["adopted"]
    assert (adopted["missing"], adopted["bytes_needed"]) == (["vae/config.json"], 2)
    printed(capsys, "ensure", "tiny")
    assert printed(capsys, "migrate", str(mine), "--yes")["adopted"][0]["linked"] == 0
    assert printed(capsys, "migrate", "--undo", "tiny") == {"undone": "tiny", "folder": str(mine)}


def test_m17_what_a_manifest_has_and_what_is_trusted(
    cli_root: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert printed(capsys, "list")["models"][0]["bytes"] is None
    manifest, key = tmp_path / "tiny.toml", tmp_path / "key.pem"
    assert printed(capsys, "manifest-validate")["signature"] is None
    monkeypatch.setenv("WAN_MODELS_KEY_PASSPHRASE", "")
    signed = printed(capsys, "manifest-sign", str(manifest), "--key", str(key), "--new-key")
    unchecked = printed(capsys, "manifest-validate")["signature"]
    assert unchecked == {"key": signed["key"], "is_checked": False}
    assert printed(capsys, "manifest-lock")["models"][0]["state"] == "new"
    assert printed(capsys, "manifest-lock")["models"][0]["state"] == "same"
    assert printed(capsys, "key-new", "--print")["key"].startswith("AGE-SECRET-KEY-")


@pytest.mark.parametrize(("vram", "fits", "ways"), [("1000", True, 1), ("0.1", False, 7)])
def test_m17_whether_a_model_fits(
    cli_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, vram: str, fits: bool, ways: int
) -> None:
    monkeypatch.delenv("WAN_MODELS_MANIFEST")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**12))
    _, out, _ = output_of(capsys, "check", "t2v-14B", "--vram", vram, "--mode", "t2v", "--json")
    found = checked("check", out)
    assert (found["tried"][0]["fits_gpu"], found["chosen"] is not None, len(found["tried"])) == (fits, fits, ways)


def test_m17_the_command_prints_a_schema_with_all_that_it_refers_to(capsys: Capture) -> None:
    code, out, _ = output_of(capsys, "schema", "verify")
    schema = json.loads(out)
    assert code == ExitCode.OK
    assert schema == load_schema("verify") and set(schema["$defs"]) == {"status", "model-status"}
    assert output_of(capsys, "schema")[1].split() == schema_names()
    code, _, err = output_of(capsys, "schema", "../models/models")
    assert code == ExitCode.USAGE and "cache-info" in err


def test_m17_every_schema_is_in_the_documentation() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "json-output.md").read_text(encoding="utf-8")
    assert [name for name in schemas_of_commands() if f"`{name}`" not in page] == []
