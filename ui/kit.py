"""What the pages are made of, the same for both toolkits: OneTrainer's builders of widgets, and what these lack.

`wan_fixes.ui.ctk` and `wan_fixes.ui.qt` hold the two kinds. They are imported when there is a window, and only then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from wan_fixes.ui.charts import Series
from wan_fixes.ui.theme import Tone

Size = Literal["small", "normal", "large", "huge"]
Row = tuple[str, tuple[str, ...]]
"""What a row of a table stands for, and its cells."""


class Shown:
    """Touches a widget only when what it shows changes."""

    def __init__(self, apply: Callable[..., None]) -> None:
        self._apply = apply
        self._shown: tuple[Any, ...] | None = None

    def set(self, *values: Any) -> None:
        """Show this."""
        if values != self._shown:
            self._shown = values
            self._apply(*values)


class Text(Protocol):
    """A label."""

    def set(self, text: str, tone: Tone = "text") -> None:
        """Show a text."""


class Button(Protocol):
    """A button."""

    def enable(self, is_enabled: bool) -> None:
        """Let it be pressed, or not."""


class Progress(Protocol):
    """A bar."""

    def set(self, fraction: float | None) -> None:
        """How far something is, 0 to 1; None hides the bar."""


class Entry(Protocol):
    """A field for one line."""

    def get(self) -> str:
        """What is in it."""


class Lines(Protocol):
    """Lines that can be read, chosen and copied, and not changed."""

    def set(self, text: str) -> None:
        """Show this."""


class Table(Protocol):
    """Rows of texts of which several can be chosen, with the mouse or the keys."""

    def show(self, rows: Sequence[Row]) -> None:
        """Show these; what is chosen stays chosen."""

    def chosen(self) -> list[str]:
        """What the chosen rows stand for, in the order of the rows."""


class Chart(Protocol):
    """Lines over time."""

    def show(self, series: Sequence[Series], empty: str) -> None:
        """Draw these; `empty` is said where there is nothing to draw."""


class PageBar(Protocol):
    """The names of the pages, one of which is chosen."""

    def choose(self, number: int) -> None:
        """As if the user had."""


class Kit(Protocol):
    """Makes widgets. `parent` is a box, `row` and `column` are the place in its grid.

    All of it is called in the window's thread.
    """

    components: Any
    """The host's builders of widgets."""

    def box(self, parent: Any, row: int, column: int, *, framed: bool = False, span: int = 1) -> Any:
        """A place for other widgets, with a grid of its own; it fills its cell."""

    def scrolling(self, parent: Any, row: int, column: int) -> Any:
        """A box that scrolls up and down."""

    def grow(
        self, box: Any, *, rows: Mapping[int, int] | None = None, columns: Mapping[int, int] | None = None
    ) -> None:
        """Which rows and columns of a box take the room that is left, and in which shares."""

    def hide(self, box: Any, hidden: bool) -> None:
        """Take a box out of the window, or put it back."""

    def text(
        self,
        parent: Any,
        row: int,
        column: int,
        *,
        size: Size = "normal",
        bold: bool = False,
        wrap: bool = False,
        vanishing: bool = False,
        tall: bool = False,
        steady: bool = False,
    ) -> Text:
        """A text, never markup.

        With `wrap` it goes on in further lines, with `vanishing` it takes no room when empty, and with `tall` as
        much as a button. With `steady` it takes what its column has, whatever it says: for what changes often.
        """

    def button(self, parent: Any, row: int, column: int, text: str, command: Callable[[], None]) -> Button:
        """A button."""

    def choice(
        self, parent: Any, row: int, column: int, options: Mapping[str, str], command: Callable[[str], None]
    ) -> None:
        """A menu of texts by value, with the first chosen; `command` gets the value."""

    def entry(self, parent: Any, row: int, column: int, command: Callable[[str], None]) -> Entry:
        """A field for one line; `command` gets its text with each change."""

    def progress(self, parent: Any, row: int, column: int) -> Progress:
        """A bar."""

    def table(
        self,
        parent: Any,
        row: int,
        column: int,
        columns: Sequence[tuple[str, int, bool]],
        *,
        lines: int,
        on_choose: Callable[[], None] = ...,
        on_copy: Callable[[], None] | None = None,
    ) -> Table:
        """A table of which `lines` are in sight. A column is its heading, its width in pixels, and whether it grows."""

    def chart(self, parent: Any, row: int, column: int) -> Chart:
        """A chart."""

    def lines(self, parent: Any, row: int, column: int, *, lines: int, follows: bool = False) -> Lines:
        """A field for many lines; with `follows` the end stays in view where it was in view."""

    def page_bar(
        self, parent: Any, row: int, column: int, names: Sequence[str], command: Callable[[int], None]
    ) -> PageBar:
        """Names of pages."""

    def reachable(self, widget: Any) -> None:
        """See to it that a widget of the host's builders can be reached and used by the keys."""

    def on_key(self, box: Any, key: str, command: Callable[[], None]) -> None:
        """Call this when a key such as "F5" is pressed within a box."""

    def copy(self, text: str) -> None:
        """Put a text on the clipboard."""

    def is_in_view(self, box: Any) -> bool:
        """Whether a box can be seen: its tab chosen, and its window not put away."""

    def every(self, box: Any, milliseconds: int, command: Callable[[], None], ended: Callable[[], None]) -> None:
        """Call this again and again until the box is destroyed, and `ended` then."""


def kit_for(components: Any, frame: Any) -> Kit:
    """The kit of the toolkit that `frame` is of."""
    if hasattr(frame, "winfo_toplevel"):
        from wan_fixes.ui.ctk.kit import CtkKit

        return CtkKit(components, frame)
    from wan_fixes.ui.qt.kit import QtKit

    return QtKit(components, frame)
