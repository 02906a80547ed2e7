"""The `.pth` line: loads the plugin in an enabled checkout's processes, and breaks or slows no start of that Python."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from wan_fixes.hosts.onetrainer.bootstrap import PTH_LINE, PTH_NAME

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds this package and the `.pth` line; the interpreter of it."""
    return make_environment(tmp_path_factory.mktemp("environment") / "venv")


def make_environment(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    packages = site_packages(python)
    here = [str(ROOT), *(path for path in sys.path if Path(path).name == "site-packages")]
    (packages / "aaa.pth").write_text("\n".join(here) + "\n", encoding="utf-8")
    (packages / PTH_NAME).write_text(PTH_LINE, encoding="ascii")
    return python


def site_packages(python: Path) -> Path:
    ask = [str(python), "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "settings.json").write_text("{}")
    state = {"WAN_FIXES_STATE": str(tmp_path / "hosts.json"), "WAN_FIXES_SETTINGS": str(tmp_path / "settings.json")}
    return {**os.environ, **state}


def enable(environment: dict[str, str], checkout: Path, *, python: str = "", pth: str = "") -> None:
    entry = {"path": str(checkout.resolve()), "python": python, "pth": pth, "installed": {}}
    Path(environment["WAN_FIXES_STATE"]).write_text(json.dumps({"version": 1, "checkouts": [entry]}))


def run(python: Path, environment: dict[str, str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(python), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


REPORT = "import sys; from modules.util import create; print(hasattr(create.create_model_loader, '__wrapped__'))"
LOADED = "import sys; print(sorted(name for name in sys.modules if name.startswith('wan_fixes')))"


def test_it_is_one_ascii_line_without_a_path() -> None:
    assert PTH_LINE.isascii() and PTH_LINE.endswith("\n") and PTH_LINE.count("\n") == 1
    assert re.match(r"import[ \t]", PTH_LINE)
    assert "/" not in PTH_LINE and "\\" not in PTH_LINE.replace("\\n", "")


def test_the_stock_launcher_loads_the_plugin_in_an_enabled_checkout(
    venv: Path, environment: dict[str, str], checkout: Path, tmp_path: Path
) -> None:
    (checkout / "scripts/train.py").write_text(
        (checkout / "scripts/train.py").read_text() + "print(create.create_model_loader.__wrapped__.__name__)\n"
    )
    enable(environment, checkout)
    for script in (["scripts/train.py"], [str(checkout / "scripts/train.py")]):
        done = run(venv, environment, *script, cwd=checkout)
        assert done.returncode == 0
        assert done.stdout.split() == ["stock", "create_model_loader"]
        assert "is active in" in done.stderr


def test_each_line_is_said_once_where_the_host_sets_up_logging(
    venv: Path, environment: dict[str, str], checkout: Path
) -> None:
    """A fork does so in the middle of its imports, after our first lines and before the others."""
    factory = checkout / "modules/util/factory.py"
    factory.write_text("import logging\nlogging.basicConfig(level=logging.DEBUG)\n" + factory.read_text())
    script = checkout / "scripts/train.py"
    script.write_text(
        script.read_text() + "import logging\nlogging.getLogger('wan_fixes.later').warning('a later line')\n"
    )
    enable(environment, checkout)
    done = run(venv, environment, "scripts/train.py", cwd=checkout)
    assert done.stderr.count("is active in") == done.stderr.count("a later line") == 1


def test_a_spawned_child_loads_it_too(venv: Path, environment: dict[str, str], checkout: Path) -> None:
    (checkout / "scripts/train.py").write_text(
        "import sys, multiprocessing\nfrom pathlib import Path\n"
        "sys.path.insert(0, str(Path(__file__).absolute().parent.parent))\n"
        "def child():\n    from modules.util import create\n"
        "    print(hasattr(create.create_model_loader, '__wrapped__'))\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=child)\n"
        "    process.start(); process.join()\n"
    )
    enable(environment, checkout)
    assert run(venv, environment, "scripts/train.py", cwd=checkout).stdout.split() == ["True"]


def test_a_checkout_that_is_not_enabled_stays_stock(
    venv: Path, environment: dict[str, str], checkout: Path, tmp_path: Path
) -> None:
    enable(environment, tmp_path)
    done = run(venv, environment, "-c", REPORT, cwd=checkout)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


@pytest.mark.parametrize("place", ["inside", "elsewhere"])
def test_a_checkout_that_was_moved_says_once_that_it_must_be_enabled_anew(
    place: str, environment: dict[str, str], checkout: Path, tmp_path: Path
) -> None:
    old, new = checkout.resolve(), tmp_path.resolve() / "moved here"
    venv = (old if place == "inside" else tmp_path) / "venv"
    python = make_environment(venv)
    pth = site_packages(python) / PTH_NAME
    enable(environment, old, python=str(python), pth=str(pth))
    assert "is active in" in run(python, environment, "scripts/train.py", cwd=old).stderr

    old.rename(new)
    if place == "inside":
        python = new / python.relative_to(old)
    done = run(python, environment, "scripts/train.py", cwd=new)
    assert (done.returncode, done.stdout) == (0, "stock\n")
    (line,) = done.stderr.splitlines()
    assert str(old) in line and f'wan enable "{new}"' in line

    stranger = tmp_path / "stranger"  # another program in that environment, with a package of the same name
    (stranger / "modules/util").mkdir(parents=True)
    (stranger / "modules/util/create.py").write_text("create_model_loader = print\n")
    assert run(python, environment, "-c", REPORT, cwd=stranger).stderr == ""


def test_a_list_of_other_environments_says_nothing_in_this_one(
    venv: Path, environment: dict[str, str], checkout: Path, tmp_path: Path
) -> None:
    """One was deleted, with its environment; this checkout was never enabled."""
    gone = tmp_path / "gone"
    enable(environment, gone, python=str(gone / "venv/bin/python"), pth=str(gone / "venv" / PTH_NAME))
    assert run(venv, environment, "scripts/train.py", cwd=checkout).stderr == ""


def test_switched_off_in_the_settings_no_symbol_is_patched_and_nothing_is_said(
    venv: Path, environment: dict[str, str], checkout: Path
) -> None:
    enable(environment, checkout)
    Path(environment["WAN_FIXES_SETTINGS"]).write_text('{"enabled": false}')
    done = run(venv, environment, "-c", REPORT, cwd=checkout)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_switched_off_a_configuration_for_wan_is_warned_of(
    venv: Path, environment: dict[str, str], checkout: Path, tmp_path: Path
) -> None:
    enable(environment, checkout)
    Path(environment["WAN_FIXES_SETTINGS"]).write_text('{"enabled": false}')
    config = tmp_path / "config.json"
    for model_type, lines in (("WAN_2_1_T2V_1_3B", 1), ("WAN_9", 0), ("STABLE_DIFFUSION_15", 0), (5, 0)):
        config.write_text(json.dumps({"model_type": model_type}))
        done = run(venv, environment, "scripts/train.py", "--config-path", str(config), cwd=checkout)
        assert (done.returncode, done.stdout) == (0, "stock\n")
        assert done.stderr.count("\n") == lines
        assert ("WAN_2_1_T2V_1_3B, and OneTrainer goes on as Stable Diffusion 1.5" in done.stderr) == bool(lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config-path=FILE"],
        ["--config-p", "FILE"],
        ["--preset-path=FILE"],
        ["--secrets-path", "x", "--preset", "FILE"],
    ],
    ids=" ".join,
)
def test_switched_off_the_warning_comes_however_the_configuration_is_named(
    arguments: list[str], venv: Path, environment: dict[str, str], checkout: Path, tmp_path: Path
) -> None:
    """In each way in which argparse takes an option."""
    enable(environment, checkout)
    Path(environment["WAN_FIXES_SETTINGS"]).write_text('{"enabled": false}')
    config = tmp_path / "my config.json"
    config.write_text('{"model_type": "WAN_2_2_TI2V_5B"}')
    words = [word.replace("FILE", str(config)) for word in arguments]
    done = run(venv, environment, "scripts/train.py", *words, cwd=checkout)
    assert done.stdout == "stock\n" and done.stderr.count("WAN_2_2_TI2V_5B") == done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["--config-path"], ["--config-path="], ["--", "-", "--config-value=a=b", "FILE"]], ids=" ".join
)
def test_switched_off_arguments_that_name_no_configuration_are_passed_over(
    arguments: list[str], venv: Path, environment: dict[str, str], checkout: Path, tmp_path: Path
) -> None:
    enable(environment, checkout)
    Path(environment["WAN_FIXES_SETTINGS"]).write_text('{"enabled": false}')
    (tmp_path / "config.json").write_text('{"model_type": "WAN_2_2_TI2V_5B"}')
    words = [word.replace("FILE", str(tmp_path / "config.json")) for word in arguments]
    done = run(venv, environment, "scripts/train.py", *words, cwd=checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stock\n", "")


def test_switched_off_a_script_loads_only_what_reads_the_settings_and_watches_for_the_window(
    venv: Path, environment: dict[str, str], checkout: Path, tmp_path: Path
) -> None:
    """By names, since milliseconds say little on a busy machine: how long it takes is in docs/performance.md."""
    enable(environment, checkout)
    Path(environment["WAN_FIXES_SETTINGS"]).write_text('{"enabled": false}')
    (tmp_path / "config.json").write_text('{"model_type": "STABLE_DIFFUSION_15"}')
    report = (
        "import sys\n"
        "sys.argv = ['train.py', '--config-path', 'CONFIG']\n"
        "from modules.util import create\n"
        "print(sorted(n.removeprefix('wan_fixes.') for n in sys.modules if n.startswith('wan_fixes.')))\n"
        "print([n for n in ('tqdm', 'rich', 'pluggy', 'numpy', 'psutil', 'typer') if n in sys.modules])\n"
    )
    done = run(venv, environment, "-c", report.replace("CONFIG", str(tmp_path / "config.json")), cwd=checkout)
    host = ["arming", "bootstrap", "state", "wan_warning", "window_watch"]
    expected = ["_version", "errors", "hosts", "hosts.onetrainer"]
    expected += [*(f"hosts.onetrainer.{name}" for name in host), "settings"]
    assert [eval(line) for line in done.stdout.splitlines()] == [expected, []]


def test_switched_off_the_window_is_still_patched_when_it_is_imported(
    venv: Path, environment: dict[str, str], checkout: Path, tmp_path: Path
) -> None:
    (checkout / "modules/ui").mkdir()
    (checkout / "modules/ui/TopBarController.py").write_text(
        "class TopBarController:\n    def load_config_from_file(self, filename):\n        print('loaded')\n"
    )
    enable(environment, checkout)
    Path(environment["WAN_FIXES_SETTINGS"]).write_text('{"enabled": false}')
    (tmp_path / "config.json").write_text('{"model_type": "WAN_2_2_TI2V_5B"}')
    code = (
        "from modules.ui.TopBarController import TopBarController\n"
        f"TopBarController().load_config_from_file({str(tmp_path / 'config.json')!r})\n"
        "from modules.util import create\n"
        "print(hasattr(create.create_model_loader, '__wrapped__'))"
    )
    done = run(venv, environment, "-c", code, cwd=checkout)
    assert done.stdout.split() == ["loaded", "False"]
    assert done.stderr.count("without it there is no WAN_2_2_TI2V_5B") == done.stderr.count("\n") == 1


def test_every_other_program_of_the_environment_loads_nothing_but_the_tripwire(
    venv: Path, environment: dict[str, str], checkout: Path
) -> None:
    enable(environment, checkout)
    done = run(venv, environment, "-c", LOADED, cwd=checkout)
    expected = ["wan_fixes", "wan_fixes._version", "wan_fixes.hosts"]
    expected += ["wan_fixes.hosts.onetrainer", "wan_fixes.hosts.onetrainer.bootstrap"]
    assert eval(done.stdout) == expected


@pytest.mark.parametrize("file", ["WAN_FIXES_STATE", "WAN_FIXES_SETTINGS"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"checkouts": 5, "enabled": 7}', b"\xff\xfe\x00"])
def test_a_broken_file_of_ours_is_named_and_onetrainer_starts(
    file: str, content: bytes, venv: Path, environment: dict[str, str], checkout: Path
) -> None:
    enable(environment, checkout)
    Path(environment[file]).write_bytes(content)
    done = run(venv, environment, "scripts/train.py", cwd=checkout)
    assert (done.returncode, done.stdout) == (0, "stock\n")
    last = done.stderr.splitlines()[-1]
    assert environment[file] in last and "OneTrainer goes on without it" in last


@pytest.mark.parametrize("settings", ["{", "{}", '{"from_another_version": 1}'])
@pytest.mark.parametrize("lose", ["sys.stderr = None", "sys.stderr.close()"], ids=["none", "closed"])
def test_onetrainer_starts_where_nothing_can_be_said(
    lose: str, settings: str, venv: Path, environment: dict[str, str], checkout: Path
) -> None:
    """`2>&-` and pythonw start a Python without standard error, and a pipe's other end may be gone."""
    enable(environment, checkout)
    Path(environment["WAN_FIXES_SETTINGS"]).write_text(settings)
    code = f"import sys; {lose}; from modules.util import create; print('imported', create.create_model_loader())"
    done = run(venv, environment, "-c", code, cwd=checkout)
    assert (done.returncode, done.stdout) == (0, "imported stock\n")


@pytest.mark.skipif(os.name == "nt", reason="closes a file descriptor as a shell's 2>&- does")
def test_a_start_with_standard_error_closed_by_the_shell_goes_on(
    venv: Path, environment: dict[str, str], checkout: Path
) -> None:
    enable(environment, checkout)
    Path(environment["WAN_FIXES_SETTINGS"]).write_text("{")
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" scripts/train.py 2>&-', str(venv)],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "stock\n")


@pytest.mark.parametrize(
    "package",
    [None, "raise SystemExit(5)", "raise RuntimeError('broken')", "import nothing_like_it", "syntax error"],
    ids=["uninstalled", "exits", "raises", "cannot import", "cannot be compiled"],
)
def test_no_state_of_the_package_can_break_a_start(package: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / PTH_NAME).write_text(PTH_LINE, encoding="ascii")
    if package is not None:
        (folder / "wan_fixes").mkdir()
        (folder / "wan_fixes/__init__.py").write_text(package)
    start = f"import site; site.addsitedir({str(folder)!r}); print('started')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", start], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")


def test_a_start_is_not_slower_by_more_than_a_few_milliseconds(venv: Path, environment: dict[str, str]) -> None:
    """Measured inside one process, as the time that the line takes: a busy machine slows whole starts at random."""
    measure = (
        "import sys, time\n"
        "times = []\n"
        "for _ in range(5):\n"
        "    for name in [n for n in sys.modules if n.startswith('wan_fixes')]: del sys.modules[name]\n"
        "    sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != 'Tripwire']\n"
        "    began = time.perf_counter()\n"
        f"    exec({PTH_LINE!r})\n"
        "    times.append(time.perf_counter() - began)\n"
        "print(min(times))\n"
    )
    done = run(venv, environment, "-c", measure, cwd=ROOT)
    assert float(done.stdout) < 0.010
