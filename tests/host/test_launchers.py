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
    # No module of a window is imported by a script.
    patches = [patch for patch in PATCHES if not patch.module.startswith("modules.ui.")]
    missing = sorted(patch.name for patch in patches if symbols.missing(patch))
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


# Every function of OneTrainer's modules and their classes whose code lies in our package.
WRAPPED = (
    "import sys\n"
    "def code_of(thing):\n"
    "    return getattr(getattr(getattr(thing, '__func__', thing), '__code__', None), 'co_filename', '')\n"
    "def wrapped():\n"
    "    modules = [module for name, module in list(sys.modules.items()) if name.partition('.')[0] == 'modules']\n"
    "    classes = [c for module in modules for c in vars(module).values() if isinstance(c, type)]\n"
    "    return sorted({f'{owner.__name__}.{name}' for owner in (*modules, *classes)\n"
    "        for name, thing in list(vars(owner).items()) if '/wan_fixes/' in code_of(thing).replace('\\\\', '/')})\n"
)


@pytest.fixture
def switched_off(host: Any) -> Iterator[None]:
    (host.work / "settings.json").write_text('{"enabled": false}')
    yield
    (host.work / "settings.json").write_text("{}")


SCRIPT = f"{PREAMBLE}{WRAPPED}import modules.util.create, modules.trainer.GenericTrainer\n"


@pytest.mark.usefixtures("switched_off")
def test_switched_off_a_script_has_no_wrapped_symbol_and_only_the_watch_for_the_window(host: Any, script: Path) -> None:
    """The window's tab stays, so that the plugin can be switched on again: its patches wait for that window."""
    script.write_text(
        f"{SCRIPT}print(wrapped(), sorted(n for n in sys.modules if n.startswith('wan_fixes.hosts.onetrainer.')))\n",
        encoding="utf-8",
    )
    done = host.launch("scripts/probe.py")
    names = ["arming", "bootstrap", "state", "wan_warning", "window_watch"]
    expected = [f"wan_fixes.hosts.onetrainer.{name}" for name in names]
    assert done.stdout.splitlines()[-1] == f"[] {expected}", done.stderr[-3000:]
    assert "wan-fixes" not in done.stderr


@pytest.mark.usefixtures("switched_off")
def test_switched_off_only_the_windows_tab_and_the_warning_are_patched(host: Any, script: Path) -> None:
    from wan_fixes.hosts.onetrainer.patches.switched_off import PATCHES
    from wan_fixes.hosts.onetrainer.symbols import SourceSymbols, read_from

    symbols = SourceSymbols(read_from(host.checkout))
    there = [patch for patch in PATCHES if not symbols.missing(patch)]
    assert there
    imports = "".join(f"import {module}\n" for module in sorted({patch.module for patch in there}))
    report = REPORT.replace("if outcome.message", "if outcome.status == 'applied'")
    script.write_text(f"{SCRIPT}{imports}print(wrapped())\nif True:\n    {report}", encoding="utf-8")
    done = host.launch("scripts/probe.py")
    wrapped, outcomes = done.stdout.splitlines()[-2:]
    assert outcomes == f"True {sorted(patch.name for patch in there)}", done.stderr[-3000:]
    assert eval(wrapped) == sorted(patch.needs[0] for patch in there)
