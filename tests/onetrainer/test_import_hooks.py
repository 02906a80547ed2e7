"""Patches are applied right after an import, each in a guard of its own, and leave nothing behind."""

from __future__ import annotations

import importlib
import inspect
import logging
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from wan_fixes.hosts.onetrainer.import_hooks import arm, disarm, is_armed, outcomes
from wan_fixes.hosts.onetrainer.patching import Patch, replace, wrap

CREATE = "modules.util.create"


def saying(word: str) -> Any:
    """A patch that puts a word before what the function returns."""

    def apply(module: ModuleType) -> None:
        wrap(module, "create_model_loader", lambda stock: lambda: f"{word} {stock()}")

    return Patch(word, CREATE, ("create_model_loader",), apply, f"{word} in front")


def raising(error: BaseException, name: str = "broken") -> Patch:
    def apply(module: ModuleType) -> None:
        raise error

    return Patch(name, CREATE, (), apply, "what is broken")


def test_a_module_is_patched_when_it_is_imported_and_not_before(importable: Path) -> None:
    arm([saying("ours")], importable)
    assert outcomes() == []

    create = importlib.import_module(CREATE)

    assert create.create_model_loader() == "ours stock"
    assert [(outcome.patch, outcome.status) for outcome in outcomes()] == [("ours", "applied")]


def test_a_module_that_was_imported_before_is_patched_at_arming(importable: Path) -> None:
    create = importlib.import_module(CREATE)
    arm([saying("ours")], importable)
    assert create.create_model_loader() == "ours stock"


def test_arming_twice_applies_nothing_twice_and_adds_what_is_new(importable: Path) -> None:
    arm([saying("ours")], importable)
    create = importlib.import_module(CREATE)
    arm([saying("ours")], importable)
    arm([saying("ours"), saying("another's")], importable)
    assert create.create_model_loader() == "another's ours stock"


def test_patches_of_a_module_are_applied_in_order(importable: Path) -> None:
    arm([saying("first"), saying("second")], importable)
    assert importlib.import_module(CREATE).create_model_loader() == "second first stock"


def test_a_reloaded_module_is_patched_again_once(importable: Path) -> None:
    arm([saying("ours")], importable)
    create = importlib.reload(importlib.import_module(CREATE))
    assert create.create_model_loader() == "ours stock"


@pytest.mark.parametrize("error", [RuntimeError("boom"), ImportError("gone"), SystemExit(3), RecursionError()])
def test_a_patch_that_raises_breaks_neither_the_import_nor_the_other_patches(
    error: BaseException, importable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arm([raising(error), saying("ours")], importable)
    with caplog.at_level(logging.WARNING):
        create = importlib.import_module(CREATE)

    assert create.create_model_loader() == "ours stock"
    (line,) = [record.message for record in caplog.records]
    assert "broken" in line and "there is no what is broken" in line and type(error).__name__ in line
    assert {outcome.patch: outcome.status for outcome in outcomes()} == {"broken": "failed", "ours": "applied"}


@pytest.mark.parametrize(
    "symbol", ["gone", "create_model_loader.gone", "modules.util.gone:x", "modules.util.factory:gone"]
)
def test_a_missing_symbol_leaves_out_its_patch_alone_and_says_what_is_off(
    symbol: str, importable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    applied = []
    lacking = Patch("lacking", CREATE, ("get", symbol), applied.append, "colour")
    arm([lacking, saying("ours")], importable)
    with caplog.at_level(logging.WARNING):
        create = importlib.import_module(CREATE)

    assert create.create_model_loader() == "ours stock"
    assert applied == []
    assert [record.message for record in caplog.records] == [
        f"this OneTrainer has no {symbol}: without it there is no colour"
    ]


def test_a_symbol_of_another_module_may_be_needed_and_may_be_none(importable: Path) -> None:
    (importable / "modules/util/factory.py").write_text("nothing = None\ndef get():\n    return 'stock'\n")
    done = []
    arm([Patch("p", CREATE, ("modules.util.factory:nothing",), done.append, "x")], importable)
    assert importlib.import_module(CREATE) is done[0]


def test_an_error_of_onetrainers_own_stays_what_it_was(importable: Path) -> None:
    (importable / "modules/util/create.py").write_text("raise LookupError('theirs')\n")
    arm([saying("ours")], importable)
    with pytest.raises(LookupError, match="theirs"):
        importlib.import_module(CREATE)
    assert CREATE not in sys.modules
    assert outcomes() == []


def test_a_package_of_the_same_name_elsewhere_is_left_alone(importable: Path, tmp_path: Path) -> None:
    enabled = tmp_path / "another checkout"
    enabled.mkdir()
    arm([saying("ours")], enabled)
    assert importlib.import_module(CREATE).create_model_loader() == "stock"
    assert outcomes() == []


def test_the_module_looks_as_if_nobody_had_been_there(importable: Path) -> None:
    arm([saying("ours")], importable)
    create = importlib.import_module(CREATE)

    assert type(create.__loader__).__name__ == type(create.__spec__.loader).__name__ == "SourceFileLoader"
    assert "Makes one." in inspect.getsource(create)
    assert create.create_model_loader.__doc__ == "Makes one."
    assert create.create_model_loader.__wrapped__() == "stock"
    assert pickle.loads(pickle.dumps(create.create_model_loader)) is create.create_model_loader


def test_another_wrapper_before_and_after_ours_goes_on_working(importable: Path) -> None:
    create = importlib.import_module(CREATE)
    stock = create.create_model_loader
    create.create_model_loader = lambda: f"before {stock()}"
    arm([saying("ours")], importable)
    ours = create.create_model_loader
    create.create_model_loader = lambda: f"after {ours()}"
    assert create.create_model_loader() == "after ours before stock"

    disarm()  # ours cannot be taken out from between them, and nothing of theirs is touched
    assert create.create_model_loader() == "after ours before stock"


def test_disarming_brings_back_the_very_same_objects(importable: Path) -> None:
    create = importlib.import_module(CREATE)
    before = dict(vars(create))
    arm([saying("ours"), saying("another's")], importable)
    assert is_armed() and vars(create) != before

    disarm()

    assert not is_armed()
    assert vars(create) == before


class Base:
    def method(self) -> str:
        return "method"

    @staticmethod
    def static(value: int) -> int:
        return value

    @classmethod
    def klass(cls) -> str:
        return cls.__name__


class Derived(Base):
    pass


def test_static_class_and_inherited_methods_stay_what_they_are() -> None:
    try:
        wrap(Base, "static", lambda stock: lambda value: stock(value) + 1)
        wrap(Derived, "klass", lambda stock: lambda cls: f"<{stock(cls)}>")
        wrap(Derived, "method", lambda stock: lambda self: f"<{stock(self)}>")
        replace(Derived, "added", 5)
        assert (Base.static(1), Base().static(1)) == (2, 2)
        assert (Base.klass(), Derived.klass(), Derived().klass()) == ("Base", "<Derived>", "<Derived>")
        assert (Base().method(), Derived().method()) == ("method", "<method>")
    finally:
        disarm()
    assert vars(Derived).keys() == {"__module__", "__doc__"} | (
        vars(Derived).keys() & {"__firstlineno__", "__static_attributes__"}
    )
    assert (Base.static(1), Derived.klass(), Derived().method()) == (1, "Derived", "method")
