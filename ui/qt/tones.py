"""Tones of text in Qt, which change with the palette of the window."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QEvent, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPalette
from PySide6.QtWidgets import QLabel

from wan_fixes.ui.theme import Colours, Tone, colours

_MIDDLE = 128  # of 255: a darker window is a dark one


def palette_colours(widget: Any) -> Colours:
    """The colours for the window that a widget is in, light or dark."""
    return colours(dark=widget.palette().color(QPalette.ColorRole.Window).lightness() < _MIDDLE)


class ToneLabel(QLabel):
    """A label whose text is never markup, in one of our tones."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self._tone: Tone = "text"

    def set_tone(self, tone: Tone) -> None:
        """Colour the text."""
        self._tone = tone
        self._paint()

    def changeEvent(self, event: Any) -> None:
        """Called by Qt: the window may have turned dark."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange:
            self._paint()

    def _paint(self) -> None:
        colour = QColor(palette_colours(self)[self._tone])
        palette = self.palette()
        if palette.color(QPalette.ColorRole.WindowText) != colour:
            palette.setColor(QPalette.ColorRole.WindowText, colour)
            self.setPalette(palette)


class SteadyLabel(ToneLabel):
    """One line whose size does not follow its text, so that nothing is laid out anew when it changes each second.

    What is too long for its place ends in "…".
    """

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        self._shown = ""

    def setText(self, text: str) -> None:
        """Show a text."""
        self._shown = text
        self.setAccessibleName(text)
        self.update()

    def text(self) -> str:
        """What is shown."""
        return self._shown

    def sizeHint(self) -> QSize:
        """Called by Qt."""
        return QSize(1, self.fontMetrics().height() + 2)

    def minimumSizeHint(self) -> QSize:
        """Called by Qt."""
        return self.sizeHint()

    def paintEvent(self, _event: Any) -> None:
        """Called by Qt."""
        with QPainter(self) as painter:
            text = self.fontMetrics().elidedText(self._shown, Qt.TextElideMode.ElideRight, self.width())
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, text)
