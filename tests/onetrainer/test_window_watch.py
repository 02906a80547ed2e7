"""With the plugin switched off, the window's patches wait for the window."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wan_fixes.hosts.onetrainer.import_hooks import is_armed, outcomes
from wan_fixes.hosts.onetrainer.patches.switched_off import PATCHES
from wan_fixes.hosts.onetrainer.window_watch import WINDOW_MODULES, watch_for_window
from wan_fixes.wan.variants import VARIANTS

CONTROLLER = "class TopBarController:\n    def load_config_from_file(self, filename):\n        return filename\n"


@pytest.fixture
def with_window(importable: Path) -> Iterator[Path]:
    (importable / "modules/ui").mkdir()
    (importable / "modules/ui/TopBarController.py").write_text(CONTROLLER)
    finders = list(sys.meta_path)
    yield importable
    sys.meta_path[:] = finders


def test_the_names_that_are_watched_are_those_of_the_patches() -> None:
    assert set(WINDOW_MODULES) == {patch.module for patch in PATCHES}


def test_every_variant_has_the_prefix_by_which_the_warning_looks() -> None:
    assert all(name.startswith("WAN_") for name in VARIANTS)


def test_nothing_is_armed_before_the_window_is_imported(with_window: Path) -> None:
    watch_for_window(with_window)
    importlib.import_module("modules.util.create")
    assert not is_armed()
    controller = importlib.import_module("modules.ui.TopBarController")
    assert is_armed() and hasattr(controller.TopBarController.load_config_from_file, "__wrapped__")
    assert [outcome.patch for outcome in outcomes()] == ["wan while switched off"]


def test_a_window_that_is_imported_already_is_patched_at_once(with_window: Path) -> None:
    controller = importlib.import_module("modules.ui.TopBarController")
    watch_for_window(with_window)
    assert hasattr(controller.TopBarController.load_config_from_file, "__wrapped__")


def test_a_window_of_another_checkout_is_left_alone(with_window: Path, tmp_path: Path) -> None:
    watch_for_window(tmp_path / "elsewhere")
    controller = importlib.import_module("modules.ui.TopBarController")
    assert not hasattr(controller.TopBarController.load_config_from_file, "__wrapped__")


def test_a_patch_that_cannot_be_armed_leaves_the_window_stock(
    with_window: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wan_fixes.hosts.onetrainer.patches.switched_off", None)
    watch_for_window(with_window)
    controller = importlib.import_module("modules.ui.TopBarController")
    assert not hasattr(controller.TopBarController.load_config_from_file, "__wrapped__")
    assert "OneTrainer's window is left as it is" in caplog.text
