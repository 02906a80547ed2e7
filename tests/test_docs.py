"""The documentation says what the code says: options, exit codes, fields, settings, and links that lead somewhere."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from wan_fixes.cli.console import ExitCode
from wan_fixes.cli.main import app
from wan_fixes.hosts.standalone import onetrainer_fields as fields
from wan_fixes.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def in_backticks(text: str) -> set[str]:
    """Every word that the text sets in backticks."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {word for quoted in re.findall(r"`([^`]+)`", prose) for word in re.findall(r"[\w.-]+", quoted)}


def commands(group: Any, prefix: str = "wan") -> dict[str, Any]:
    found = {}
    for name, command in group.commands.items():
        path = f"{prefix} {name}"
        found |= commands(command, path) if hasattr(command, "commands") else {path: command}
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_within_the_repository_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (path.parent / target).exists()] == []


def test_every_command_and_option_is_described() -> None:
    text = page("cli.md") + page("models-commands.md")
    for name, command in commands(typer.main.get_command(app)).items():
        assert f"`{name}`" in text, name
        section = text[text.index(f"`{name}`") :]
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        assert options - {"--debug", "--help"} <= set(re.findall(r"--[\w-]+", section)), name


def test_every_exit_code_is_described() -> None:
    table = re.findall(r"^\| (\d+) \|", page("cli.md"), flags=re.MULTILINE)
    assert [int(code) for code in table] == sorted(ExitCode)


@pytest.mark.parametrize("treatment", ["used", "ignored", "refused"])
def test_every_field_of_a_preset_that_matters_is_described(treatment: str) -> None:
    words = in_backticks(page("presets.md"))
    tables = [fields.TRAIN, fields.CONCEPT, fields.SAMPLE, fields.OPTIMIZER]
    if treatment == "used":
        tables += [fields.TRANSFORMER, fields.TEXT_ENCODER, fields.CONCEPT_IMAGE, fields.CONCEPT_TEXT]
    else:
        tables = [fields.TRAIN]
    expected = {name for table in tables for name, field in table.items() if field.treatment == treatment}
    assert expected - {"train"} - words == set()


def test_no_field_is_described_that_does_not_exist() -> None:
    known = {name for table in vars(fields).values() if isinstance(table, dict) for name in table} | {"seed", "enabled"}
    described = re.findall(r"^\| ([^|]+) \|", page("presets.md"), flags=re.MULTILINE)
    names = {name for cell in described for name in re.findall(r"`(\w+)`", cell)}
    assert names - known == set()


def test_every_setting_is_described_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page("user-guide.md"), flags=re.MULTILINE)
    names = {field.name for field in dataclasses.fields(Settings)} - {"unknown"}
    described = {name: json.loads(default) for name, default in rows if name in names}
    assert described == {name: getattr(Settings(), name) for name in names}
