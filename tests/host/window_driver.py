"""Runs one of OneTrainer's windows and uses it as a person does: real clicks and keys, sent by xdotool to an X server.

python window_driver.py TOOLKIT SCRIPT FACTS

TOOLKIT is "ctk" or "qt", SCRIPT a launcher of OneTrainer, FACTS a JSON file: what to do (`task`), what with, and
`folder`, where pictures and `result.json` go. Widgets are known by what stands on them; the plugin is not imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import runpy
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE = (1300, 2300)  # pixels: everything in sight, so that nothing needs scrolling
PATIENCE = 240.0  # seconds that anything may take
SETTLE = 0.7  # seconds for a click to take effect before the window is asked again


class Window:
    """The window as the driver's thread sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def call(self, function: Callable[[], Any]) -> Any:
        """The result of `function`, called in the window's thread."""
        answer: queue.Queue[tuple[bool, Any]] = queue.Queue()

        def run() -> None:
            try:
                answer.put((True, function()))
            except Exception as error:
                answer.put((False, error))

        self.post(run)
        succeeded, value = answer.get(timeout=PATIENCE)
        if not succeeded:
            raise value
        return value

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(LookupError):
                if found := self.call(condition):
                    return found
            time.sleep(0.2)
        raise TimeoutError(f"waited in vain for {what}")

    def click(self, place: tuple[int, int], times: int = 1) -> None:
        x, y = place
        xdotool("mousemove", str(x), str(y))
        time.sleep(0.1)
        xdotool("click", "--repeat", str(times), "--delay", "60", "1")
        time.sleep(SETTLE)

    def open_tab(self, name: str) -> None:
        self.click(self.wait_for(lambda: self.tab_place(name), f"tab {name}"))

    def press(self, text: str) -> None:
        self.click(self.wait_for(lambda: self.button_place(text), f"button {text}"))

    def fill(self, label: str, text: str) -> None:
        """Put `text` in the place of what is in the field beside a label."""
        self.click(self.wait_for(lambda: self.field_place(label), f"field {label}"), times=3)
        xdotool("type", "--delay", "5", text)
        xdotool("key", "Tab")
        time.sleep(SETTLE)

    def switch(self, label: str) -> None:
        self.click(self.wait_for(lambda: self.switch_place(label), f"switch {label}"))

    def open_page(self, name: str) -> None:
        """Of the plugin's own pages."""
        self.click(self.wait_for(lambda: self.page_place(name), f"page {name}"))

    def choose_row(self, text: str) -> None:
        """Choose the row of a table that begins with this text."""
        self.click(self.wait_for(lambda: self.row_place(text), f"row {text}"))

    def key(self, keys: str) -> None:
        xdotool("key", keys)
        time.sleep(SETTLE)

    def wait_for_label(self, beginning: str) -> None:
        self.wait_for(lambda: any(text.startswith(beginning) for text in self.labels()), f"a label {beginning}")

    def choose(self, button: str, *names: str) -> None:
        """Open a menu by its button, and go through its submenus."""
        self.press(button)
        for depth in range(len(names)):
            self.click(self.wait_for(lambda depth=depth: self.entry_place(names[: depth + 1]), f"entry {names[depth]}"))

    def picture(self, name: str) -> None:
        time.sleep(SETTLE)
        subprocess.run(["import", "-window", "root", str(self.folder / f"{name}.png")], check=True)

    def focus(self) -> None:
        """Without a window manager nobody else gives the window the keys."""
        xdotool("search", "--sync", "--name", "^OneTrainer$", "windowfocus")

    # What a toolkit answers; places are screen coordinates, and what is not in sight is a LookupError.

    def post(self, function: Callable[[], None]) -> None:
        raise NotImplementedError

    def tab_place(self, name: str) -> tuple[int, int]:
        raise NotImplementedError

    def tabs(self) -> list[str]:
        raise NotImplementedError

    def button_place(self, text: str) -> tuple[int, int]:
        raise NotImplementedError

    def field_place(self, label: str) -> tuple[int, int]:
        raise NotImplementedError

    def switch_place(self, label: str) -> tuple[int, int]:
        raise NotImplementedError

    def entry_place(self, names: tuple[str, ...]) -> tuple[int, int]:
        raise NotImplementedError

    def page_place(self, name: str) -> tuple[int, int]:
        raise NotImplementedError

    def row_place(self, text: str) -> tuple[int, int]:
        raise NotImplementedError

    def clipboard(self) -> str:
        raise NotImplementedError

    def labels(self) -> list[str]:
        raise NotImplementedError

    def view(self) -> Any:
        raise NotImplementedError


class CtkWindow(Window):
    """customtkinter's."""

    def view(self) -> Any:
        import tkinter

        return tkinter._default_root

    def start(self) -> None:
        self.call(lambda: self.view().geometry(f"{SIZE[0]}x{SIZE[1]}+0+0"))

    def post(self, function: Callable[[], None]) -> None:
        self.view().after(0, function)

    def tabs(self) -> list[str]:
        return list(self.view().tabview._tab_dict)

    def tab_place(self, name: str) -> tuple[int, int]:
        return self._middle(self.view().tabview._segmented_button._buttons_dict[name])

    def button_place(self, text: str) -> tuple[int, int]:
        return self._middle(self._find("CTkButton", text))

    def field_place(self, label: str) -> tuple[int, int]:
        beside = self._beside(label)
        entries = [widget for widget in self._all(beside) if type(widget).__name__ == "CTkEntry"]
        return self._middle(entries[0])

    def switch_place(self, label: str) -> tuple[int, int]:
        widget = self._beside(label)
        return widget.winfo_rootx() + 15, widget.winfo_rooty() + widget.winfo_height() // 2

    def entry_place(self, names: tuple[str, ...]) -> tuple[int, int]:
        button = self._find("CTkButton", "Load Preset")
        menu = next(child for child in button.winfo_children() if child.winfo_class() == "Menu")
        for depth, name in enumerate(names):
            index = next(i for i in range(menu.index("end") + 1) if menu.entrycget(i, "label") == name)
            if depth == len(names) - 1:
                if not menu.winfo_viewable():
                    raise LookupError(name)
                return menu.winfo_rootx() + 30, menu.winfo_rooty() + menu.yposition(index) + 8
            menu = menu.nametowidget(menu.entrycget(index, "menu"))
        raise AssertionError("no names")

    def labels(self) -> list[str]:
        found = [widget for widget in self._all(self.view()) if type(widget).__name__ == "CTkLabel"]
        return [widget.cget("text") for widget in found if widget.winfo_viewable()]

    def page_place(self, name: str) -> tuple[int, int]:
        return self.button_place(name)

    def row_place(self, text: str) -> tuple[int, int]:
        for table in self._all(self.view()):
            if table.winfo_class() == "Treeview" and table.winfo_viewable():
                for item in table.get_children():
                    if str(table.item(item, "values")[0]).startswith(text) and (box := table.bbox(item)):
                        return table.winfo_rootx() + box[0] + 20, table.winfo_rooty() + box[1] + box[3] // 2
        raise LookupError(text)

    def clipboard(self) -> str:
        return self.view().clipboard_get()

    def _find(self, kind: str, text: str) -> Any:
        for widget in self._all(self.view()):
            if type(widget).__name__ == kind and widget.winfo_viewable() and widget.cget("text") == text:
                return widget
        raise LookupError(text)

    def _beside(self, label: str) -> Any:
        info = self._find("CTkLabel", label).grid_info()
        return info["in"].grid_slaves(row=info["row"], column=info["column"] + 1)[0]

    def _all(self, widget: Any) -> list[Any]:
        return [widget, *(below for child in widget.winfo_children() for below in self._all(child))]

    def _middle(self, widget: Any) -> tuple[int, int]:
        if not widget.winfo_viewable():
            raise LookupError(str(widget))
        return widget.winfo_rootx() + widget.winfo_width() // 2, widget.winfo_rooty() + widget.winfo_height() // 2


class QtWindow(Window):
    """Qt's."""

    def view(self) -> Any:
        from PySide6.QtWidgets import QApplication

        return next(widget for widget in QApplication.topLevelWidgets() if hasattr(widget, "tabview"))

    def start(self) -> None:
        self.call(lambda: (self.view().move(0, 0), self.view().resize(*SIZE)))

    def post(self, function: Callable[[], None]) -> None:
        from PySide6.QtCore import QTimer

        QTimer.singleShot(0, self.view(), function)

    def tabs(self) -> list[str]:
        tabs = self.view().tabview
        return [tabs.tabText(index) for index in range(tabs.count()) if tabs.isTabVisible(index)]

    def tab_place(self, name: str) -> tuple[int, int]:
        tabs = self.view().tabview
        index = [tabs.tabText(i) for i in range(tabs.count())].index(name)
        return self._global(tabs.tabBar(), tabs.tabBar().tabRect(index).center())

    def button_place(self, text: str) -> tuple[int, int]:
        from PySide6.QtWidgets import QAbstractButton

        return self._middle(self._find(QAbstractButton, text))

    def field_place(self, label: str) -> tuple[int, int]:
        from PySide6.QtWidgets import QLineEdit

        widget = self._beside(label)
        return self._middle(widget if isinstance(widget, QLineEdit) else widget.findChild(QLineEdit))

    def switch_place(self, label: str) -> tuple[int, int]:
        from PySide6.QtCore import QPoint

        widget = self._beside(label)
        return self._global(widget, QPoint(8, widget.height() // 2))

    def entry_place(self, names: tuple[str, ...]) -> tuple[int, int]:
        from PySide6.QtWidgets import QMenu, QToolButton

        menu = self._find(QToolButton, "Load Preset").menu()
        for depth, name in enumerate(names):
            action = next(action for action in menu.actions() if action.text() == name)
            if depth == len(names) - 1:
                if not menu.isVisible():
                    raise LookupError(name)
                return self._global(menu, menu.actionGeometry(action).center())
            menu = next(child for child in menu.findChildren(QMenu) if child.title() == name)
        raise AssertionError("no names")

    def labels(self) -> list[str]:
        from PySide6.QtWidgets import QLabel

        return [widget.text() for widget in self.view().findChildren(QLabel) if widget.isVisible()]

    def page_place(self, name: str) -> tuple[int, int]:
        from PySide6.QtWidgets import QTabBar

        for bar in self.view().findChildren(QTabBar):
            names = [bar.tabText(index) for index in range(bar.count())]
            if bar.isVisible() and name in names:
                return self._global(bar, bar.tabRect(names.index(name)).center())
        raise LookupError(name)

    def row_place(self, text: str) -> tuple[int, int]:
        from PySide6.QtWidgets import QTableView

        for table in self.view().findChildren(QTableView):
            for row in range(table.model().rowCount() if table.isVisible() else 0):
                index = table.model().index(row, 0)
                if str(index.data()).startswith(text):
                    return self._global(table.viewport(), table.visualRect(index).center())
        raise LookupError(text)

    def clipboard(self) -> str:
        from PySide6.QtGui import QGuiApplication

        return QGuiApplication.clipboard().text()

    def _find(self, kind: type, text: str) -> Any:
        for widget in self.view().findChildren(kind):
            if widget.isVisible() and widget.text() == text:
                return widget
        raise LookupError(text)

    def _beside(self, label: str) -> Any:
        from PySide6.QtWidgets import QLabel

        found = self._find(QLabel, label)
        layout = found.parentWidget().layout()
        row, column, _, _ = layout.getItemPosition(layout.indexOf(found))
        return layout.itemAtPosition(row, column + 1).widget()

    def _middle(self, widget: Any) -> tuple[int, int]:
        return self._global(widget, widget.rect().center())

    def _global(self, widget: Any, point: Any) -> tuple[int, int]:
        place = widget.mapToGlobal(point)
        return place.x(), place.y()


def xdotool(*arguments: str) -> None:
    subprocess.run(["xdotool", *arguments], check=True, timeout=60, stdout=subprocess.DEVNULL)


def train(window: Window, facts: dict[str, Any]) -> dict[str, Any]:
    """Load a preset, put a tiny model and tiny sizes in, start, and wait for the end."""
    window.choose("Load Preset", *facts["preset"])
    config = window.view().controller.train_config
    result = {"tabs": window.call(window.tabs), "model_type": config.model_type.name}
    for tab in ("general", "data", "model", "training"):
        window.open_tab(tab)
        for label in facts["off"].get(tab, []):
            window.switch(label)
        for label, text in facts["fields"].get(tab, {}).items():
            window.fill(label, text)
        result[tab] = window.call(window.labels)
        window.picture(tab)
    window.press("Start Training")
    window.open_tab(facts["look_at"])
    live: list[list[str]] = []

    def has_ended() -> bool:
        labels = window.labels()
        if labels not in live:
            live.append(labels)
        return "Stopped" in labels or any(text.startswith("Error:") for text in labels)

    window.wait_for(has_ended, "the end")
    window.picture("trained")
    result |= {"end": window.call(window.labels), "live": live}
    return result | look_around(window, {"steps": facts["afterwards"]})


def look_around(window: Window, facts: dict[str, Any]) -> dict[str, Any]:
    """Do one thing after the other, and tell what is in sight when asked to."""
    result: dict[str, Any] = {"tabs": window.call(window.tabs)}
    for action, *words in facts["steps"]:
        if action == "note":
            result[words[0]] = window.call(window.labels)
            window.picture(words[0].replace(" ", "-"))
        elif action == "clipboard":
            result[words[0]] = window.call(window.clipboard)
        elif action == "presets":
            tree = window.view().top_bar_component.preset_tree
            result[words[0]] = [name for name, _ in tree]
        else:
            ACTIONS[action](window, *words)
    return result


ACTIONS: dict[str, Callable[..., None]] = {
    "choose": Window.choose,
    "fill": Window.fill,
    "key": Window.key,
    "page": Window.open_page,
    "press": Window.press,
    "row": Window.choose_row,
    "switch": Window.switch,
    "tab": Window.open_tab,
    "wait": Window.wait_for_label,
}
TASKS = {"train": train, "look around": look_around}
WINDOWS = {"ctk": CtkWindow, "qt": QtWindow}


def drive(toolkit: str, facts: dict[str, Any]) -> None:
    folder = Path(facts["folder"])
    window = WINDOWS[toolkit](folder)
    result: dict[str, Any] = {}
    try:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):  # not there yet
                if window.view().training_button is not None and window.call(lambda: True):
                    break
            time.sleep(0.5)
        window.start()
        window.wait_for(lambda: window.button_place("Start Training"), "the window")
        window.focus()
        result = TASKS[facts["task"]](window, facts)
    except BaseException:
        result = {"failed": traceback.format_exc()}
        with contextlib.suppress(Exception):
            window.picture("failed")
    finally:
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
        os._exit(0)  # whatever the window is doing


def main() -> None:
    toolkit, script, facts = sys.argv[1], Path(sys.argv[2]).resolve(), json.loads(Path(sys.argv[3]).read_text())
    sys.argv = [str(script)]
    sys.path[0] = str(script.parent)
    threading.Thread(target=drive, args=(toolkit, facts), daemon=True).start()
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
