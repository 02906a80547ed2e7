"""The window of `wan ui`, a real one on an X server without a screen: seen, and used by its keys alone."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wan_fixes.cli import ui as command
from wan_fixes.errors import UserError

from .states import STATES, alert, recording, training

tkinter = pytest.importorskip("tkinter", reason="this Python has no tkinter")
ctk = pytest.importorskip("customtkinter", reason="customtkinter is not installed")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the window is on an X server"),
    pytest.mark.skipif(shutil.which("Xvfb") is None, reason="no Xvfb (on Debian: xvfb)"),
]
PATIENCE = 30.0  # seconds
MOST_KEYS = 60


@pytest.fixture(scope="module")
def display() -> Iterator[None]:
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1100x740x24", "-nolisten", "tcp"],
        pass_fds=[writer],
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    with os.fdopen(reader) as told:
        number = told.readline().strip()
    before = os.environ.get("DISPLAY")
    os.environ["DISPLAY"] = f":{number}"
    try:
        yield
    finally:
        os.environ.pop("DISPLAY")
        if before is not None:
            os.environ["DISPLAY"] = before
        server.terminate()
        server.wait()


@pytest.fixture
def open_window(display: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Opens the window on a folder's database; it is closed at the end."""
    from wan_fixes.ui.ctk.window import WanWindow

    monkeypatch.setenv("WAN_FIXES_SETTINGS", str(tmp_path / "settings.json"))
    (tmp_path / "settings.json").write_text("{}", encoding="utf-8")
    monkeypatch.setenv("MODELS_ROOT", str(tmp_path / "models"))
    windows: list[Any] = []

    def open_it(folder: Path, config: dict[str, Any] | None = None, mode: str = "light") -> Any:
        window = WanWindow(folder / "runs.sqlite", lambda: config or {}, mode=mode)
        windows.append(window)
        window.geometry("1100x740+0+0")
        window.update()
        window.focus_force()
        return window

    yield open_it
    while windows:
        with contextlib.suppress(tkinter.TclError):  # closed already
            windows.pop().destroy()
    gc.collect()  # here: in another thread each variable of a dead window waits a second for its window


def until(window: Any, condition: Callable[[], Any]) -> Any:
    """Let the window live until this is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"in vain; the window says {texts(window)}"
        window.tk.dooneevent(0)  # the window has a timer: there is always another
    return found


def parts(widget: Any) -> list[Any]:
    return [widget, *(below for child in widget.winfo_children() for below in parts(child))]


def texts(window: Any) -> list[str]:
    """What the labels in sight say."""
    return [part.cget("text") for part in parts(window) if isinstance(part, ctk.CTkLabel) and part.winfo_viewable()]


def says(window: Any, beginning: str) -> bool:
    return any(text.startswith(beginning) for text in texts(window))


def press(window: Any, *keys: str) -> None:
    """Send keys to whatever has the focus."""
    for key in keys:
        window.focus_get().event_generate(f"<{key}>")
        window.update()


def name_of(widget: Any) -> str:
    """The text of a button, else what kind of widget it is."""
    for part in (widget, widget.master, getattr(widget.master, "master", None)):
        if isinstance(part, ctk.CTkButton):
            return str(part.cget("text"))
        if isinstance(part, (ctk.CTkSwitch, ctk.CTkOptionMenu, ctk.CTkTextbox, ctk.CTkEntry)):
            return type(part).__name__
    return str(widget.winfo_class())


def tab_to(window: Any, name: str) -> None:
    for _ in range(MOST_KEYS):
        if name_of(window.focus_get()) == name:
            return
        press(window, "Tab")
    raise AssertionError(f"{name} is not reached by Tab")


def open_page(window: Any, name: str) -> None:
    tab_to(window, name)
    press(window, "space")


def test_a_run_is_followed_as_it_goes_on(open_window: Callable[..., Any], tmp_path: Path) -> None:
    window = open_window(tmp_path)
    until(window, lambda: "No run yet" in texts(window))

    with recording(tmp_path) as run:
        run.state("phase", "loading the model")
        until(window, lambda: says(window, "Loading the model, for "))
        run.step(7, 0.5, 1e-4, 0.1)
        run.state("phase", "training")
        run.state("alerts", [alert("memory", "memory is nearly used up", "close other programs")])
        until(window, lambda: says(window, "Training, for ") and "step 7" in texts(window))
        alerts = {"⚠ Memory is nearly used up", "What helps: close other programs"}
        until(window, lambda: alerts <= set(texts(window)))
        run.state("alerts", [])
        run.finish("finished")
        until(window, lambda: says(window, "✓ Finished after ") and not says(window, "⚠"))


@pytest.mark.parametrize("state", ["hostile", "alerts", "failed", "started"])
def test_every_page_shows_every_state(open_window: Callable[..., Any], tmp_path: Path, state: str, caplog: Any) -> None:
    with recording(tmp_path) as run:
        STATES[state](run)
        window = open_window(tmp_path, mode="dark")
        until(window, lambda: says(window, "Run 1 (training)"))
        for number in range(5):
            window.view.show_page(number)
            glance = window.view._watch.latest().number
            until(window, lambda before=glance: window.view._watch.latest().number >= before and texts(window))
            window.update()
    assert [record.message for record in caplog.records] == []
    assert all(part.winfo_x() + part.winfo_width() <= 1100 for part in parts(window) if part.winfo_viewable())


def test_a_damaged_record_is_named_with_what_helps(open_window: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "runs.sqlite").write_bytes(b"nonsense" * 500)
    window = open_window(tmp_path)

    until(window, lambda: "✕ The record of the runs cannot be shown" in texts(window))
    until(window, lambda: any("sets a damaged file aside" in text for text in texts(window)))


def test_everything_is_reached_and_used_by_the_keys_alone(open_window: Callable[..., Any], tmp_path: Path) -> None:
    with recording(tmp_path) as run:
        training(run, samples=5, left_out=3, steps=3)
    window = open_window(tmp_path, {"concepts": [{"path": "/videos/cats"}], "cache_dir": str(tmp_path / "cache")})
    press(window, "Tab")
    assert name_of(window.focus_get()) == "Overview"
    press(window, "Right")
    assert name_of(window.focus_get()) == "Left out"
    until(window, lambda: says(window, "3 of 8 samples left out"))
    reached = set()
    for _ in range(MOST_KEYS):
        press(window, "Tab")
        reached.add(name_of(window.focus_get()))
    pages = {"Overview", "Left out", "Models", "Checks", "Settings"}
    assert reached == pages | {"CTkOptionMenu", "CTkEntry", "Treeview", "CTkTextbox"}  # no row is chosen: no button

    tab_to(window, "Treeview")
    press(window, "Down", "Up", "Shift-Down", "Control-c")
    lines = window.clipboard_get().splitlines()
    assert len(lines) == 2 and lines[1].startswith("/videos/cats/broken000001.mp4\tno video stream is in it\t")
    tab_to(window, "Copy")
    press(window, "Control-a")
    press(window, "Return")
    assert says(window, "Copied: 2 files")
    tab_to(window, "Try again")
    press(window, "space")
    until(window, lambda: says(window, "broken000001.mp4: still: "))

    tab_to(window, "CTkEntry")
    press(window, *"damage")
    until(window, lambda: "1 file" in texts(window))


def test_the_focus_is_seen(open_window: Callable[..., Any], tmp_path: Path) -> None:
    window = open_window(tmp_path)
    press(window, "Tab")
    button = window.focus_get()

    ring = button._wan_fixes_ring
    window.update()
    assert ring.winfo_viewable() and ring.winfo_rootx() < button.winfo_rootx()
    press(window, "Tab")
    assert button._wan_fixes_ring is None


def test_a_switch_is_saved_by_space_at_once(open_window: Callable[..., Any], tmp_path: Path) -> None:
    window = open_window(tmp_path)
    open_page(window, "Settings")
    tab_to(window, "CTkSwitch")
    press(window, "Tab", "space")

    until(window, lambda: "Saved. It holds from the next training on." in texts(window))
    saved = json.loads((tmp_path / "settings.json").read_text(encoding="utf-8"))
    assert (saved["enabled"], saved["validate_pipelines"]) == (True, False)
    for _ in range(20):
        press(window, "Tab")
        if name_of(window.focus_get()) == "CTkOptionMenu":
            break
    press(window, "Down")
    until(window, lambda: json.loads((tmp_path / "settings.json").read_text())["missing_captions"] == "skip")


def test_a_report_is_written_and_a_check_says_what_it_found(open_window: Callable[..., Any], tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "[red]none.mp4").write_bytes(b"")
    with recording(tmp_path) as run:
        training(run, samples=5, left_out=1, steps=3)
    window = open_window(tmp_path, {"concepts": [{"path": str(clips)}], "cache_dir": str(tmp_path / "cache")})
    open_page(window, "Checks")
    tab_to(window, "Export report")
    press(window, "Return")
    until(window, lambda: says(window, "Report of the run: ✓ done"))
    assert (tmp_path / "run-report.html").is_file()

    tab_to(window, "Check dataset")
    press(window, "space")
    until(window, lambda: says(window, "Check of the dataset: ✓ done"))
    (written,) = [part.get("1.0", "end") for part in parts(window) if isinstance(part, ctk.CTkTextbox)]
    assert "rejected: [red]none.mp4: " in written


def test_nothing_is_asked_while_nobody_looks_nor_after_the_end(open_window: Callable[..., Any], tmp_path: Path) -> None:
    def watching() -> bool:
        return any(thread.name == "wan-run-watch" for thread in threading.enumerate())

    window = open_window(tmp_path)
    until(window, watching)
    window.withdraw()
    until(window, lambda: not watching())
    window.deiconify()
    until(window, watching)
    window.destroy()
    deadline = time.monotonic() + PATIENCE
    for thread in threading.enumerate():
        if thread.name == "wan-run-watch":
            thread.join(deadline - time.monotonic())
    assert not watching()


def test_tables_turn_dark_with_the_window(open_window: Callable[..., Any], tmp_path: Path) -> None:
    from tkinter import ttk

    window = open_window(tmp_path, mode="light")
    until(window, lambda: "No run yet" in texts(window))
    light = ttk.Style().lookup("WanFixes.Treeview", "background")
    ctk.set_appearance_mode("dark")
    window.update()

    assert ttk.Style().lookup("WanFixes.Treeview", "background") != light


def test_the_command_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None if name == "customtkinter" else object())
    with pytest.raises(UserError) as raised:
        command.require_toolkit()
    assert 'pip install "wan-fixes[ui]"' in raised.value.fix

    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="tkinter"):
        command.require_toolkit()


def test_the_command_says_that_there_is_no_screen(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    done = subprocess.run(
        [sys.executable, "-c", "from wan_fixes.cli.main import main; main()", "ui", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no window can be opened" in done.stderr and "wan stats" in done.stderr
