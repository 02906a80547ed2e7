"""Which engine the pipeline's modules are built on, and that a broken mgds is named and left alone."""

from __future__ import annotations

import importlib
import logging
import sys

import pytest

import wan_fixes.engine

from .toys import engine_names, forced_engine, fresh_modules, put_mgds_on_path

NAMES = set(wan_fixes.engine.__all__)


@pytest.fixture
def choose(monkeypatch, caplog):
    """Import `wan_fixes.pipeline.base` afresh; give it, and what was warned of."""
    caplog.set_level(logging.WARNING)

    def import_base(choice=None):
        if choice is None:
            monkeypatch.delenv("WAN_FIXES_ENGINE", raising=False)
        else:
            monkeypatch.setenv("WAN_FIXES_ENGINE", choice)
        with fresh_modules("wan_fixes.pipeline"):
            base = importlib.import_module("wan_fixes.pipeline.base")
        return base, [record.getMessage() for record in caplog.records if record.name == base.__name__]

    return import_base


@pytest.fixture
def mgds_folder(tmp_path, monkeypatch):
    """An empty package `mgds` that wins over any other."""
    with fresh_modules("mgds"):
        folder = tmp_path / "mgds"
        folder.mkdir()
        (folder / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(tmp_path))
        yield folder


@pytest.fixture
def no_mgds(monkeypatch):
    with fresh_modules("mgds"):
        monkeypatch.setitem(sys.modules, "mgds", None)  # so the import system itself says that it is not there
        yield


def is_all_ours(base):
    return base.ENGINE == "standalone" and all(getattr(base, name) is getattr(wan_fixes.engine, name) for name in NAMES)


def test_without_mgds_the_engine_is_ours_and_nothing_is_warned_of(choose, no_mgds):
    base, warnings = choose()
    assert is_all_ours(base)
    assert warnings == []


def test_everything_that_modules_need_is_exported(choose, no_mgds):
    base, _ = choose()
    assert set(base.__all__) == NAMES | {"ENGINE"}
    assert set(base.MGDS_HOMES) == NAMES


@pytest.mark.host
def test_real_mgds_is_taken_whole_when_it_is_there(choose, real):
    base, warnings = choose()
    assert base.ENGINE == "mgds"
    assert all(getattr(base, name) is getattr(real, name) for name in NAMES)
    assert all(getattr(base, name).__module__.startswith("mgds.") for name in NAMES)
    assert warnings == []


def test_ours_can_be_forced_and_then_mgds_is_not_even_imported(choose, mgds_folder):
    (mgds_folder / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    base, warnings = choose("standalone")
    assert is_all_ours(base)
    assert warnings == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ImportError('a library is gone')", "ImportError: a library is gone"),
        ("import a_package_that_nobody_has", "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"),
        ("raise RuntimeError('wrong CUDA')", "RuntimeError: wrong CUDA"),
        ("raise OSError('cannot load lib.so')", "OSError: cannot load lib.so"),
        ("def broken(:", "SyntaxError"),
        ("MGDS = object", "AttributeError"),
        (None, "ModuleNotFoundError: No module named 'mgds.MGDS'"),
    ],
)
def test_a_broken_mgds_is_named_and_ours_is_taken(choose, mgds_folder, source, reason):
    if source is not None:
        (mgds_folder / "MGDS.py").write_text(source, encoding="utf-8")
    base, warnings = choose()
    assert is_all_ours(base)
    assert len(warnings) == 1
    assert "mgds is installed but cannot be imported" in warnings[0]
    assert reason in warnings[0]
    assert "reinstall mgds, or set WAN_FIXES_ENGINE=standalone" in warnings[0]


def test_an_mgds_that_is_only_half_there_is_not_mixed_with_ours(choose, mgds_folder):
    (mgds_folder / "MGDS.py").write_text("class MGDS: ...\nclass TrainDataLoader: ...", encoding="utf-8")
    (mgds_folder / "LoadingPipeline.py").write_text("class LoadingPipeline: ...", encoding="utf-8")
    base, warnings = choose()
    assert is_all_ours(base)
    assert "No module named 'mgds.PipelineModule'" in warnings[0]


def test_an_unknown_choice_is_named_and_treated_as_none(choose, no_mgds):
    base, warnings = choose("standalon")
    assert is_all_ours(base)
    assert len(warnings) == 1
    assert "WAN_FIXES_ENGINE='standalon' is not known" in warnings[0]


def test_forcing_an_engine_lasts_only_as_long_as_the_block(engine, monkeypatch):
    monkeypatch.setenv("WAN_FIXES_ENGINE", "standalone")
    before = importlib.import_module("wan_fixes.pipeline.base")
    with forced_engine(engine.name) as forced:
        assert engine.name == forced.ENGINE
        assert forced.PipelineModule is engine.PipelineModule
        assert importlib.import_module("wan_fixes.pipeline.base") is forced
    assert importlib.import_module("wan_fixes.pipeline.base") is before
    assert sys.modules["wan_fixes"].pipeline.base is before


def test_a_checkout_that_is_none_is_an_error_and_not_a_skipped_test(monkeypatch, tmp_path):
    monkeypatch.setenv("WAN_FIXES_MGDS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="is not a checkout of mgds"):
        put_mgds_on_path()


def test_the_engine_of_a_checkout_is_found(monkeypatch, tmp_path, no_mgds):
    monkeypatch.delenv("WAN_FIXES_MGDS", raising=False)
    assert engine_names() == ["standalone"]
    monkeypatch.delitem(sys.modules, "mgds")
    (tmp_path / "src" / "mgds").mkdir(parents=True)
    (tmp_path / "src" / "mgds" / "__init__.py").touch()
    (tmp_path / "src" / "mgds" / "MGDS.py").touch()
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("WAN_FIXES_MGDS", str(tmp_path))
    assert engine_names() == ["standalone", "mgds"]
