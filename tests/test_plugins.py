"""The plugin manager finds ours, installed ones and those of named folders, and survives each that is broken."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from wan_fixes.errors import UserError
from wan_fixes.hookspecs import PROJECT_NAME, hookimpl
from wan_fixes.plugin import WanFixesPlugin, plugin
from wan_fixes.plugins import call_hooks, get_plugin_manager
from wan_fixes.settings import Settings

ROOT = Path(__file__).resolve().parent.parent


class Recorder:
    """A plugin by somebody else."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict]] = []

    @hookimpl
    def onetrainer_training_event(self, name: str, payload: dict) -> None:
        self.events.append((name, payload))


class WrongArguments:
    @hookimpl
    def onetrainer_register_models(self) -> list:
        return []

    @hookimpl
    def onetrainer_training_event(self, no_such_argument: str) -> None:
        raise AssertionError("never called")


class Misspelt:
    @hookimpl
    def onetrainer_traning_event(self, name: str) -> None:
        raise AssertionError("never called")


class NoHooks:
    pass


recorder = Recorder()
wrong_arguments = WrongArguments()
misspelt = Misspelt()
no_hooks = NoHooks()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    """Makes entry points of the group `onetrainer`, in place of the installed ones."""

    def install_(**values: str) -> None:
        points = [importlib.metadata.EntryPoint(name, value, PROJECT_NAME) for name, value in values.items()]
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: points)

    install_()
    return install_


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("onetrainer_plugin_"):
            del sys.modules[name]


def write_plugin(folder: Path, source: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "plugin.py").write_text(textwrap.dedent(source), encoding="utf-8")
    return str(folder)


def others(manager) -> list:
    return [found for found in manager.get_plugins() if found is not plugin]


def test_our_plugin_is_registered_once_though_its_entry_point_is_installed(install) -> None:
    install(wan_fixes="wan_fixes.plugin:plugin")
    assert get_plugin_manager(Settings()).get_plugins() == {plugin}


def test_the_installed_package_names_our_plugin() -> None:
    found = [point.load() for point in importlib.metadata.entry_points(group=PROJECT_NAME) if point.name == "wan_fixes"]
    assert found
    assert all(item is plugin for item in found)


def test_disabled_leaves_our_plugin_out(install) -> None:
    install(wan_fixes="wan_fixes.plugin:plugin", recorder=f"{__name__}:recorder")
    assert get_plugin_manager(Settings(enabled=False)).get_plugins() == {recorder}


def test_disabled_leaves_our_plugin_out_of_folders_too(install, folder: Path) -> None:
    assert get_plugin_manager(Settings(enabled=False, plugin_folders=[str(ROOT)])).get_plugins() == set()


def test_the_repository_folder_registers_no_second_copy(install, folder: Path) -> None:
    assert get_plugin_manager(Settings(plugin_folders=[str(ROOT)])).get_plugins() == {plugin}


def test_a_third_party_plugin_hears_events(install) -> None:
    install(recorder=f"{__name__}:recorder")
    try:
        get_plugin_manager(Settings()).hook.onetrainer_training_event(name="run_started", payload={"steps": 3})
        assert recorder.events == [("run_started", {"steps": 3})]
    finally:
        recorder.events.clear()


def test_one_object_under_two_entry_points_is_called_once(install) -> None:
    install(one=f"{__name__}:recorder", two=f"{__name__}:recorder")
    try:
        get_plugin_manager(Settings()).hook.onetrainer_training_event(name="run_started", payload={})
        assert len(recorder.events) == 1
    finally:
        recorder.events.clear()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_package_anywhere:plugin", "no_such_package_anywhere"),
        (f"{__name__}:missing", "missing"),
        (f"{__name__}:wrong_arguments", "no_such_argument"),
        (f"{__name__}:misspelt", "onetrainer_traning_event"),
        (f"{__name__}:no_hooks", "no hook"),
        (f"{__name__}:Recorder", "a class"),
    ],
)
def test_a_broken_plugin_is_named_and_left_out_and_the_others_stay(
    install, caplog: pytest.LogCaptureFixture, value: str, reason: str
) -> None:
    install(broken=value, recorder=f"{__name__}:recorder")
    with caplog.at_level(logging.WARNING):
        manager = get_plugin_manager(Settings())
    assert manager.get_plugins() == {plugin, recorder}
    assert "broken" in caplog.text
    assert reason in caplog.text
    # Not even those hooks of it that were taken before the fault was found.
    implementations = [i.plugin for caller in vars(manager.hook).values() for i in caller.get_hookimpls()]
    assert set(map(type, implementations)) == {WanFixesPlugin, Recorder}


@pytest.mark.parametrize("statement", ["raise RuntimeError('on purpose')", "import sys; sys.exit(3)", "def broken(:"])
def test_a_folder_plugin_that_cannot_be_imported_is_left_out(
    install, folder: Path, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    settings = Settings(plugin_folders=[write_plugin(folder, statement)])
    before = set(sys.modules)
    with caplog.at_level(logging.WARNING):
        assert get_plugin_manager(settings).get_plugins() == {plugin}
    assert str(folder) in caplog.text
    assert not [name for name in set(sys.modules) - before if name.startswith("onetrainer_plugin_")]


def test_two_folders_with_plugin_py_are_two_plugins(install, folder: Path) -> None:
    source = """
        from wan_fixes.hookspecs import hookimpl
        from .names import NAME

        @hookimpl
        def onetrainer_register_models():
            return [NAME]
    """
    for name in ("one", "two"):
        write_plugin(folder / name, source)
        (folder / name / "names.py").write_text(f"NAME = {name!r}\n", encoding="utf-8")
    manager = get_plugin_manager(Settings(plugin_folders=[str(folder / "one"), str(folder / "two")]))
    returned = [models for models in manager.hook.onetrainer_register_models() if len(models) == 1]
    assert sorted(returned) == [["one"], ["two"]]


def test_a_folder_named_twice_is_one_plugin(install, folder: Path) -> None:
    source = "from wan_fixes.hookspecs import hookimpl\n\n@hookimpl\ndef onetrainer_ui_tabs():\n    return []\n"
    path = write_plugin(folder / "one", source)
    manager = get_plugin_manager(Settings(plugin_folders=[path, path]))
    assert len(others(manager)) == 1


def test_the_working_folder_decides_nothing(
    install, folder: Path, monkeypatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_plugin(folder, "raise AssertionError('code of the working folder ran')")
    monkeypatch.chdir(folder)
    with caplog.at_level(logging.WARNING):
        manager = get_plugin_manager(Settings(plugin_folders=["", ".", folder.name]))
    assert manager.get_plugins() == {plugin}
    assert caplog.text.count("not an absolute path") == 3
    assert "code of the working folder ran" not in caplog.text


def test_a_folder_without_plugin_py_is_named(install, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        get_plugin_manager(Settings(plugin_folders=[str(folder)]))
    assert str(folder / "plugin.py") in caplog.text


def test_ours_registers_the_wan_models() -> None:
    names = [model.name for model in plugin.onetrainer_register_models()]
    assert "WAN_2_1_T2V_1_3B" in names


FAILING_GUEST = """
    from wan_fixes.errors import UserError
    from wan_fixes.hookspecs import hookimpl

    @hookimpl
    def onetrainer_rewrite_pipeline(definition, context):
        definition[0].append("half done")
        definition.append("half done")
        raise KeyError("a guest's own mistake")

    @hookimpl
    def onetrainer_training_event(name, payload):
        raise RuntimeError("a guest's own mistake")

    @hookimpl
    def onetrainer_before_model_load(model_type, base_model, config):
        raise UserError("this model is refused", path=base_model)
"""


def test_a_guest_that_fails_in_a_hook_is_passed_over_and_undone(
    install, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_plugin(folder / "failing", FAILING_GUEST)
    manager = get_plugin_manager(Settings(plugin_folders=[path]))
    seen = []
    monkeypatch.setattr("wan_fixes.pipeline.rewrite.rewrite_definition", lambda given, _: seen.append(repr(given)))
    definition = [["module"], None]
    with caplog.at_level(logging.WARNING):
        call_hooks(manager, "onetrainer_rewrite_pipeline", definition=definition, context=None)
        call_hooks(manager, "onetrainer_training_event", name="run_started", payload={})
    assert definition == [["module"], None]
    assert seen == ["[['module'], None]"], "ours comes last, and sees nothing of the guest's half-done work"
    assert caplog.text.count("a guest's own mistake") == 2
    assert path in caplog.text


def test_a_guest_may_refuse_a_model(install, folder: Path) -> None:
    manager = get_plugin_manager(Settings(plugin_folders=[write_plugin(folder / "refusing", FAILING_GUEST)]))
    with pytest.raises(UserError, match="this model is refused"):
        call_hooks(manager, "onetrainer_before_model_load", model_type="WAN", base_model="models/wan", config={})
