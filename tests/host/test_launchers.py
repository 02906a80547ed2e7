"""The plugin is loaded by every way to start OneTrainer, and in the processes that OneTrainer starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPORT = (
    "from wan_fixes.hosts.onetrainer.import_hooks import is_armed, outcomes\n"
    "    print(is_armed(), sorted(outcome.patch for outcome in outcomes() if outcome.message))\n"
)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from host.own_host import make_own_host

    host = make_own_host(tmp_path_factory.mktemp("host"), Path(os.environ["WAN_FIXES_ONETRAINER"]))
    enabled = host.wan("enable", str(host.checkout))
    assert enabled.returncode == 0, enabled.stderr
    yield host


@pytest.fixture
def script(host: Any) -> Iterator[Path]:
    """A script among OneTrainer's own, gone again afterwards."""
    path = host.checkout / "scripts" / "probe.py"
    yield path
    path.unlink(missing_ok=True)


PREAMBLE = "from util.import_util import script_imports\nscript_imports()\n"


@pytest.mark.skipif(os.name == "nt", reason="the launcher is a shell script")
def test_run_cmd_loads_it_and_every_touch_point_that_the_sources_have_is_patched(host: Any, script: Path) -> None:
    from wan_fixes.hosts.onetrainer.symbols import SourceSymbols, read_from
    from wan_fixes.hosts.onetrainer.touch_points import PATCHES

    symbols = SourceSymbols(read_from(host.checkout))
    missing = sorted(patch.name for patch in PATCHES if symbols.missing(patch))
    script.write_text(
        f"{PREAMBLE}import modules.util.create, modules.trainer.GenericTrainer\nif True:\n    {REPORT}",
        encoding="utf-8",
    )
    done = host.launch("./run-cmd.sh", "probe")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == f"True {missing}"
    assert done.stderr.count("is active in") == 1
    assert done.stderr.count("without it there is no") == len(missing)


def test_a_process_that_is_spawned_loads_it_and_one_of_a_stranger_does_not(host: Any, script: Path) -> None:
    script.write_text(
        f"{PREAMBLE}import multiprocessing\nimport modules.util.factory\n"
        f"def child():\n    import modules.util.factory\n    {REPORT}"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=child)\n"
        "    process.start(); process.join()\n",
        encoding="utf-8",
    )
    done = host.launch("scripts/probe.py")
    assert done.stdout.splitlines()[-1] == "True []", done.stderr[-3000:]

    stranger = host.work / "stranger"
    (stranger / "modules").mkdir(parents=True)
    (stranger / "modules/__init__.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(stranger)!r}); import modules\nif True:\n    {REPORT}"
    assert host.launch("-c", code).stdout.strip() == "False []"


def test_disabled_no_module_of_ours_is_loaded_and_no_symbol_is_wrapped(host: Any, script: Path) -> None:
    (host.work / "settings.json").write_text('{"enabled": false}')
    script.write_text(
        f"{PREAMBLE}import sys\nfrom modules.util import create\n"
        "from modules.dataLoader.mixin.DataLoaderMgdsMixin import DataLoaderMgdsMixin\n"
        "from modules.trainer.GenericTrainer import GenericTrainer\n"
        "wrapped = [create.create_model_loader, create.create_model_saver, DataLoaderMgdsMixin._create_mgds,"
        " GenericTrainer.start, GenericTrainer.train, GenericTrainer.end]\n"
        "print([f.__qualname__ for f in wrapped if hasattr(f, '__wrapped__')],"
        " [n for n in sys.modules if n.startswith('wan_fixes.pipeline') or n.endswith('touch_points')])\n",
        encoding="utf-8",
    )
    try:
        done = host.launch("scripts/probe.py")
    finally:
        (host.work / "settings.json").write_text("{}")
    assert done.stdout.splitlines()[-1] == "[] []", done.stderr[-3000:]
    assert "wan-fixes" not in done.stderr
