"""The kit for Qt: see `wan_fixes.ui.kit.Kit`, whose methods these are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QGuiApplication, QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QFrame,
    QGridLayout,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
    QScrollArea,
    QSizePolicy,
    QTabBar,
    QWidget,
)

from wan_fixes.ui.kit import Shown, Size
from wan_fixes.ui.qt.chart import QtChart
from wan_fixes.ui.qt.table import QtTable
from wan_fixes.ui.qt.tones import SteadyLabel, ToneLabel

_SIZES: dict[Size, float] = {"small": 0.92, "normal": 1.0, "large": 1.2, "huge": 1.6}
_NARROW = 200  # pixels: a text that wraps asks for no more
_PARTS = 1000  # that a progress bar has


class _Button:
    def __init__(self, widget: Any) -> None:
        self.widget = widget
        self._enabled = Shown(widget.setEnabled)
        self.enable = self._enabled.set


class _Entry:
    def __init__(self, widget: Any) -> None:
        self.get = widget.text


class _Progress:
    def __init__(self, widget: Any) -> None:
        self._hidden = Shown(widget.setHidden)
        self._value = Shown(widget.setValue)
        self.set(None)

    def set(self, fraction: float | None) -> None:
        self._hidden.set(fraction is None)
        if fraction is not None:
            self._value.set(round(min(1.0, max(0.0, fraction)) * _PARTS))


class _Lines:
    def __init__(self, widget: Any, follows: bool) -> None:
        self._widget = widget
        self._follows = follows
        self._text = Shown(self._show)
        self.set = self._text.set

    def _show(self, text: str) -> None:
        bar = self._widget.verticalScrollBar()
        at_end, place = bar.value() == bar.maximum(), bar.value()
        self._widget.setPlainText(text)
        if self._follows:
            bar.setValue(bar.maximum() if at_end else place)


class _Chart:
    def __init__(self, widget: QtChart) -> None:
        self.show = widget.show_series


class _PageBar:
    def __init__(self, bar: Any, names: Sequence[str], command: Callable[[int], None]) -> None:
        self._bar = bar
        for name in names:
            bar.addTab(name)
        self._command = command
        bar.currentChanged.connect(lambda number: command(number))

    def choose(self, number: int) -> None:
        if self._bar.currentIndex() == number:
            self._command(number)
        else:
            self._bar.setCurrentIndex(number)


class QtKit:
    """Qt's widgets, OneTrainer's where it has them."""

    def __init__(self, components: Any, frame: Any) -> None:
        self.components = components
        self._root = frame

    def box(self, parent: Any, row: int, column: int, *, framed: bool = False, span: int = 1) -> Any:
        frame = QFrame(parent) if framed else QWidget(parent)
        if framed:
            frame.setFrameShape(QFrame.Shape.StyledPanel)
        layout = QGridLayout(frame)
        margin = 6 if framed else 0
        layout.setContentsMargins(margin, margin, margin, margin)
        layout.setSpacing(4 if framed else 6)
        _layout(parent).addWidget(frame, row, column, 1, span)
        return frame

    def scrolling(self, parent: Any, row: int, column: int) -> Any:
        area = QScrollArea(parent)
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        frame = QWidget()
        _layout(frame)
        area.setWidget(frame)
        area.viewport().setAutoFillBackground(False)
        frame.setAutoFillBackground(False)
        _layout(parent).addWidget(area, row, column)
        return frame

    def grow(
        self, box: Any, *, rows: Mapping[int, int] | None = None, columns: Mapping[int, int] | None = None
    ) -> None:
        for row, weight in (rows or {}).items():
            _layout(box).setRowStretch(row, weight)
        for column, weight in (columns or {}).items():
            _layout(box).setColumnStretch(column, weight)

    def hide(self, box: Any, hidden: bool) -> None:
        box.setVisible(not hidden)

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
    ) -> Shown:
        label = (SteadyLabel if steady else ToneLabel)(parent)
        font = label.font()
        font.setPointSizeF(font.pointSizeF() * _SIZES[size])
        font.setBold(bold)
        label.setFont(font)
        label.setWordWrap(wrap)
        label.setSizePolicy(
            QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum if wrap else QSizePolicy.Policy.Fixed
        )
        label.setMinimumWidth(_NARROW if wrap else 1)  # a long text makes no window wider
        _layout(parent).addWidget(label, row, column)
        if tall:
            label.setMinimumHeight(QLineEdit().sizeHint().height())
        hidden = Shown(label.setHidden)
        said, coloured = Shown(label.setText), Shown(label.set_tone)

        def show(text: str, tone: str = "text") -> None:
            if vanishing:
                hidden.set(not text)
            said.set(text)
            coloured.set(tone)

        shown = Shown(show)
        shown.set("")
        return shown

    def button(self, parent: Any, row: int, column: int, text: str, command: Callable[[], None]) -> _Button:
        widget = self.components.button(parent, row, column, text, lambda *_: command())
        widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        widget.setAutoDefault(True)  # Enter presses it as Space does
        return _Button(widget)

    def choice(
        self, parent: Any, row: int, column: int, options: Mapping[str, str], command: Callable[[str], None]
    ) -> None:
        state = self.components.state({"value": next(iter(options))})
        pairs = [(text, value) for value, text in options.items()]
        self.components.options_kv(parent, row, column, pairs, state, "value", command=command)

    def entry(self, parent: Any, row: int, column: int, command: Callable[[str], None]) -> _Entry:
        widget = QLineEdit(parent)
        widget.textChanged.connect(lambda text: command(text))
        widget.setClearButtonEnabled(True)
        _layout(parent).addWidget(widget, row, column)
        return _Entry(widget)

    def progress(self, parent: Any, row: int, column: int) -> _Progress:
        widget = QProgressBar(parent)
        widget.setRange(0, _PARTS)
        widget.setTextVisible(False)
        widget.setFixedHeight(12)
        _layout(parent).addWidget(widget, row, column)
        return _Progress(widget)

    def table(
        self,
        parent: Any,
        row: int,
        column: int,
        columns: Sequence[tuple[str, int, bool]],
        *,
        lines: int,
        on_choose: Callable[[], None] = lambda: None,
        on_copy: Callable[[], None] | None = None,
    ) -> QtTable:
        table = QtTable(parent, columns, lines, on_choose, on_copy)
        _layout(parent).addWidget(table.view, row, column)
        return table

    def chart(self, parent: Any, row: int, column: int) -> _Chart:
        widget = QtChart(parent)
        _layout(parent).addWidget(widget, row, column)
        return _Chart(widget)

    def lines(self, parent: Any, row: int, column: int, *, lines: int, follows: bool = False) -> _Lines:
        widget = QPlainTextEdit(parent)
        widget.setReadOnly(True)
        widget.setTabChangesFocus(True)
        widget.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        widget.setMinimumHeight(widget.fontMetrics().lineSpacing() * lines + 14)
        if lines < 10:
            widget.setMaximumHeight(widget.minimumHeight())
        _layout(parent).addWidget(widget, row, column)
        return _Lines(widget, follows)

    def page_bar(
        self, parent: Any, row: int, column: int, names: Sequence[str], command: Callable[[int], None]
    ) -> _PageBar:
        bar = QTabBar(parent)
        bar.setExpanding(False)
        bar.setDrawBase(False)
        _layout(parent).addWidget(bar, row, column)
        return _PageBar(bar, names, command)

    def reachable(self, widget: Any) -> None:
        widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def on_key(self, box: Any, key: str, command: Callable[[], None]) -> None:
        shortcut = QShortcut(QKeySequence(key), box)
        shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        shortcut.activated.connect(lambda: command())

    def copy(self, text: str) -> None:
        QGuiApplication.clipboard().setText(text)

    def is_in_view(self, box: Any) -> bool:
        return bool(box.isVisible()) and not box.window().isMinimized()

    def every(self, box: Any, milliseconds: int, command: Callable[[], None], ended: Callable[[], None]) -> None:
        timer = QTimer(box)
        timer.setInterval(milliseconds)
        # Qt would let go of the object that a method belongs to, and no longer call it.
        timer.timeout.connect(lambda: command())
        box.destroyed.connect(lambda: ended())
        timer.start()
        QTimer.singleShot(0, box, lambda: command())


def _layout(widget: Any) -> QGridLayout:
    """The grid of a box; OneTrainer's own boxes get theirs with their first widget."""
    layout = widget.layout()
    if layout is None:
        layout = QGridLayout(widget)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(6)
    return layout
