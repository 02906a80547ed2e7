"""Settings survive a round trip, keep what they do not know, and say exactly what is wrong."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wan_fixes import settings as settings_module
from wan_fixes.errors import UserError
from wan_fixes.settings import Settings, settings_path

FIELDS = {f.name: f for f in dataclasses.fields(Settings) if f.name != "unknown"}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config" / "settings.json"
    monkeypatch.setenv("WAN_FIXES_SETTINGS", str(path))
    return path


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def test_defaults_are_allowed_and_load_without_a_file(file: Path) -> None:
    Settings().validate()
    assert Settings.load() == Settings()
    assert not file.exists()


def test_the_variable_names_the_file_and_the_config_folder_is_the_default(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings_path() == file
    monkeypatch.delenv("WAN_FIXES_SETTINGS")
    assert settings_path().is_absolute()
    assert "wan-fixes" in settings_path().parts


def numbers(f: dataclasses.Field[Any]) -> st.SearchStrategy[Any]:
    low, high = f.metadata["low"], f.metadata["high"]
    return st.integers(low, high) if f.type == "int" else st.floats(low, high)


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(data=st.data())
def test_allowed_values_come_back_from_the_file(file: Path, data: st.DataObject) -> None:
    drawn = {name: data.draw(numbers(f)) for name, f in FIELDS.items() if "low" in f.metadata}
    settings = Settings(**drawn, enabled=data.draw(st.booleans()), plugin_folders=[str(file.parent)])
    settings.save()
    assert Settings.load() == settings


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(FIELDS)),
    value=st.none()
    | st.text()
    | st.just(float("nan"))
    | st.just(-1)
    | st.just(10**12)
    | st.dictionaries(st.text(), st.none()),
)
def test_a_wrong_value_is_named_with_what_is_allowed(file: Path, name: str, value: Any) -> None:
    if value in FIELDS[name].metadata.get("choices", ()):
        return
    write(file, {name: value})
    with pytest.raises(UserError) as caught:
        Settings.load()
    message = str(caught.value)
    assert f"{name} is {ascii(value)[:80]}" in message
    assert "but must be" in message
    assert str(file) in message


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"breaker_threshold": 1.5}, "breaker_threshold is 1.5, but must be a number from 0.01 to 1"),
        ({"retry_attempts": 2.5}, "retry_attempts is 2.5, but must be a whole number from 0 to 20"),
        ({"retry_attempts": True}, "retry_attempts is True, but must be a whole number"),
        ({"enabled": 1}, "enabled is 1, but must be true or false"),
        ({"missing_captions": "ask"}, 'missing_captions is \'ask\', but must be one of "empty", "skip"'),
        ({"plugin_folders": "/opt/plugins"}, "plugin_folders is '/opt/plugins', but must be a list of absolute"),
        ({"plugin_folders": ["."]}, "plugin_folders is ['.'], but must be a list of absolute"),
        ({"plugin_folders": [""]}, "plugin_folders is [''], but must be a list of absolute"),
    ],
)
def test_messages_name_field_value_and_range(file: Path, values: dict[str, Any], expected: str) -> None:
    write(file, values)
    with pytest.raises(UserError) as caught:
        Settings.load()
    assert expected in str(caught.value)


def test_all_wrong_values_are_named_at_once(file: Path) -> None:
    write(file, {"retry_attempts": -1, "trace": "yes"})
    with pytest.raises(UserError, match=r"retry_attempts is -1.*trace is 'yes'"):
        Settings.load()


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", '"text"', "[" * 100_000])
def test_a_file_that_is_no_object_is_refused_by_name(file: Path, content: str) -> None:
    write(file, content)
    with pytest.raises(UserError, match="the settings cannot be read") as caught:
        Settings.load()
    assert caught.value.path == str(file)
    assert caught.value.fix


def test_a_file_that_is_not_utf8_is_refused_by_name(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(b'{"missing_captions": "\xff\xfe"}')
    with pytest.raises(UserError, match="not UTF-8"):
        Settings.load()


def test_a_folder_in_the_place_of_the_file_is_refused(file: Path) -> None:
    file.mkdir(parents=True)
    with pytest.raises(UserError, match="the settings cannot be read"):
        Settings.load()


def test_a_byte_order_mark_does_no_harm(file: Path) -> None:
    write(file, "\ufeff" + json.dumps({"enabled": False}))
    assert Settings.load().enabled is False


def test_unknown_keys_are_reported_and_kept(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(file, {"enabled": False, "from_the_future": {"a": [1]}, "unknown": 3})
    with caplog.at_level(logging.WARNING):
        loaded = Settings.load()
    assert "from_the_future" in caplog.text
    loaded.retry_attempts = 1
    loaded.save()
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["from_the_future"] == {"a": [1]}
    assert written["unknown"] == 3
    assert written["retry_attempts"] == 1
    assert written["enabled"] is False


def test_a_named_file_that_is_missing_is_said(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Settings.load()
    assert str(file) in caplog.text.replace("\\\\", "\\")


def test_a_failing_save_leaves_the_old_file_and_no_litter(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Settings(trace=True).save()

    def full_disk(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(settings_module.os, "fsync", full_disk)
    with pytest.raises(UserError, match="No space left"):
        Settings(trace=False).save()
    assert Settings.load().trace is True
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


def test_wrong_values_are_never_written(file: Path) -> None:
    with pytest.raises(UserError):
        Settings(breaker_min_calls=0).save()
    assert not file.exists()


def test_a_linked_settings_file_stays_a_link(file: Path) -> None:
    target = file.parent.parent / "dotfiles.json"
    write(target, {})
    file.parent.mkdir(parents=True)
    try:
        file.symlink_to(target)
    except OSError:
        pytest.skip("this account may not make symbolic links")
    Settings(trace=True).save()
    assert file.is_symlink()
    assert json.loads(target.read_text(encoding="utf-8"))["trace"] is True
