"""The tabs of plugins in OneTrainer's main window: customtkinter's, Qt's, and the one from before there were two."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from wan_fixes.hosts.onetrainer.patching import Patch, shielded, wrap
from wan_fixes.hosts.onetrainer.widgets import Widgets


def _extend_ctk(module: ModuleType) -> None:
    wrap(module.CtkTrainUIView, "content_frame", _and_then(_add_ctk_tab, module, module.ctk_components, _bind_keys))


def _extend_older(module: ModuleType) -> None:
    wrap(module.TrainUI, "content_frame", _and_then(_add_ctk_tab, module, module.components, _bind_keys))


def _extend_qt(module: ModuleType) -> None:
    wrap(module.PySide6TrainView, "_create_tabs", _and_then(_add_qt_tab, module, module.pyside6_components))


def _and_then(
    add: Callable[[Any, Any, Widgets, Any], None],
    module: ModuleType,
    components: ModuleType,
    finish: Callable[[Any], None] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Around the function of a window that makes its tabs: afterwards, those of the plugins."""

    def around(stock: Callable[..., Any]) -> Callable[..., Any]:
        def make_tabs(view: Any, *args: Any, **kwargs: Any) -> Any:
            result = stock(view, *args, **kwargs)
            for tab in shielded(plugin_tabs) or []:
                shielded(add, module, view, Widgets(components, view), tab)
            if finish is not None:
                shielded(finish, view)
            return result

        return make_tabs

    return around


def plugin_tabs() -> list[Any]:
    """The tabs of every plugin; with the plugin switched off the one with its switch alone."""
    from wan_fixes.plugin import plugin
    from wan_fixes.plugins import call_hooks, get_plugin_manager
    from wan_fixes.settings import Settings

    settings = Settings.load()
    if not settings.enabled:
        return plugin.onetrainer_ui_tabs()
    return [tab for tabs in call_hooks(get_plugin_manager(settings), "onetrainer_ui_tabs") for tab in tabs]


def _add_ctk_tab(module: Any, view: Any, widgets: Widgets, tab: Any) -> None:
    page = view.tabview.add(tab.title)
    try:
        if getattr(tab, "scrolls", True):
            frame = module.ctk.CTkScrollableFrame(page, fg_color="transparent")
        else:
            frame = module.ctk.CTkFrame(page, fg_color="transparent")
        frame.pack(fill="both", expand=1)
        tab.build(widgets, frame)
    except Exception:
        view.tabview.delete(tab.title)
        raise


def _bind_keys(view: Any) -> None:
    """Ctrl+Tab and Ctrl+Shift+Tab turn to the next tab and back, as in Qt: these tabs are for the mouse alone."""
    tabs = view.tabview
    window = tabs.winfo_toplevel()

    def turn(by: int) -> str:
        names = list(tabs._tab_dict)
        name = names[(names.index(tabs.get()) + by) % len(names)]
        tabs.set(name)
        tabs.tab(name).focus_set()  # from here Tab goes on
        return "break"

    window.bind("<Control-Tab>", lambda _event: turn(1), add="+")
    window.bind("<Control-Shift-Tab>", lambda _event: turn(-1), add="+")
    if window.tk.call("tk", "windowingsystem") == "x11":  # where Shift makes another key of it
        window.bind("<Control-ISO_Left_Tab>", lambda _event: turn(-1), add="+")


def _add_qt_tab(module: Any, view: Any, widgets: Widgets, tab: Any) -> None:
    def fill(frame: Any) -> None:
        tab.build(widgets, frame)
        module.pyside6_components._pack_form(frame)

    if getattr(tab, "scrolls", True):
        page = view._create_scrollable_tab(fill)
    else:
        page = module.QWidget()
        tab.build(widgets, page)
    view.tabview.addTab(page, tab.title.replace("&", "&&"))  # an ampersand would underline the letter after it
    view._tab_widgets[tab.title] = page


# Two patches with one reason are two ways to the same end.
_WHY_CTK = "tab of the plugin in the customtkinter window"
_WHY_QT = "tab of the plugin in the Qt window"

PATCHES = (
    Patch(
        name="tab (customtkinter)",
        module="modules.ui.CtkTrainUIView",
        needs=("CtkTrainUIView.content_frame", "ctk_components", "ctk"),
        apply=_extend_ctk,
        why=_WHY_CTK,
    ),
    Patch(
        name="tab (Qt)",
        module="modules.ui.PySide6TrainUIView",
        needs=(
            "PySide6TrainView._create_tabs",
            "PySide6TrainView._create_scrollable_tab",
            "pyside6_components",
            "QWidget",
            "modules.util.ui.pyside6_components:_pack_form",
        ),
        apply=_extend_qt,
        why=_WHY_QT,
    ),
    Patch(
        name="tab (before July 2026)",
        module="modules.ui.TrainUI",
        needs=("TrainUI.content_frame", "components", "ctk"),
        apply=_extend_older,
        why=_WHY_CTK,
    ),
)
