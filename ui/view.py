"""The pages in one window, kept up to date by what the watch already knows: the window's thread never waits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from wan_fixes.ui.actions import Actions
from wan_fixes.ui.checks_page import ChecksPage
from wan_fixes.ui.kit import Kit
from wan_fixes.ui.left_out_page import LeftOutPage
from wan_fixes.ui.models_page import ModelsPage
from wan_fixes.ui.overview_page import OverviewPage
from wan_fixes.ui.settings_page import SettingsPage
from wan_fixes.ui.watch import Glance, RunWatch

logger = logging.getLogger(__name__)

_LOOK_MILLISECONDS: Final = 250
"""So often it is asked whether there is anything new, which costs next to nothing."""
_PAGES: Final = (OverviewPage, LeftOutPage, ModelsPage, ChecksPage, SettingsPage)
SETTINGS: Final = _PAGES.index(SettingsPage)
"""The number of the page with the switches."""


class Page(Protocol):
    """What a page can do."""

    @property
    def wants(self) -> Mapping[str, Any]:
        """What the watch should ask for while this page is in view."""

    def update(self, glance: Glance) -> None:
        """Show what is known now."""


class View:
    """Fills a frame with the pages. A page is made when it is first shown.

    Parameters
    ----------
    make_watch:
        Makes what is asked while the pages are in view. Begun when they come into view, ended when they leave it.
    report_path:
        Where a report of the latest run goes; None where there is no run.
    """

    def __init__(
        self,
        kit: Kit,
        frame: Any,
        *,
        make_watch: Callable[[], RunWatch],
        actions: Actions,
        report_path: Callable[[], Path | None],
        first_page: int = 0,
    ) -> None:
        self._kit = kit
        self._frame = frame
        self._make_watch = make_watch
        self._actions = actions
        self._report_path = report_path
        self._watch: RunWatch | None = None
        self._glance = Glance()
        self._looked_for: dict[str, Any] = {}
        self._pages: dict[int, tuple[Page, Any]] = {}
        self._number = first_page
        self._failures: set[str] = set()
        self._drawn: tuple[Any, ...] | None = None
        kit.grow(frame, rows={1: 1}, columns={0: 1})
        self._bar = kit.page_bar(frame, 0, 0, [page.title for page in _PAGES], self._show_page)
        self._bar.choose(first_page)
        kit.every(frame, _LOOK_MILLISECONDS, self._look, self._rest)

    def show_page(self, number: int) -> None:
        """As if the user had chosen it."""
        self._bar.choose(number)

    def _show_page(self, number: int) -> None:
        if self._number in self._pages:
            self._kit.hide(self._pages[self._number][1], True)
        self._number = number
        if number in self._pages:
            self._kit.hide(self._pages[number][1], False)
        else:
            box = self._kit.box(self._frame, 1, 0)
            self._pages[number] = self._make_page(number, box), box
        self._look_for(**self._pages[number][0].wants)
        self._pages[number][0].update(self._glance)

    def _make_page(self, number: int, box: Any) -> Page:
        kind = _PAGES[number]
        if kind is LeftOutPage:
            return LeftOutPage(self._kit, box, self._actions, self._look_for)
        if kind is ChecksPage:
            return ChecksPage(self._kit, box, self._actions, self._report_path)
        return kind(self._kit, box)  # type: ignore[call-arg]

    def _look_for(self, **what: Any) -> None:
        """Tell the watch what is looked at."""
        self._looked_for |= what
        if self._watch is not None:
            self._watch.show(**what)

    def _look(self) -> None:
        """Called several times a second."""
        try:
            self._draw()
        except Exception as error:  # the host's window goes on without us; what cannot be drawn is logged once
            if repr(error) not in self._failures:
                self._failures.add(repr(error))
                logger.warning("the page %s cannot be updated", _PAGES[self._number].title, exc_info=True)

    def _draw(self) -> None:
        """Draw what is new, where anybody sees it."""
        if not self._kit.is_in_view(self._frame):
            self._rest()
            return
        if self._watch is None:
            self._watch = self._make_watch()
            self._watch.show(**self._looked_for)
            self._watch.start()
        glance = self._watch.latest()
        task = self._actions.current
        progress = (id(task), task.state, task.done, len(task.lines)) if task is not None else ()
        state = (glance.number, self._number, progress)
        if state != self._drawn:
            self._drawn = state
            if glance.number:
                self._glance = glance
            self._pages[self._number][0].update(self._glance)

    def _rest(self) -> None:
        """Nobody looks: nothing is asked."""
        if self._watch is not None:
            self._watch.stop(wait_seconds=0)  # its thread ends by itself
            self._watch = None
            self._drawn = None
