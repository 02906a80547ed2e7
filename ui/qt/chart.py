"""A chart that Qt paints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen, QPixmap, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QWidget

from wan_fixes.ui.charts import Series
from wan_fixes.ui.plot import draw
from wan_fixes.ui.qt.tones import palette_colours
from wan_fixes.ui.theme import DASHES, Colours

_FLAGS = {
    "left": Qt.AlignmentFlag.AlignLeft,
    "right": Qt.AlignmentFlag.AlignRight,
    "centre": Qt.AlignmentFlag.AlignHCenter,
}
_WIDE = 2000.0  # pixels: no text is wider


class QtChart(QWidget):
    """See `wan_fixes.ui.kit.Chart`."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        self._series: Sequence[Series] = ()
        self._empty = ""
        self._painted: tuple[Any, QPixmap] | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(200, 120)

    def show_series(self, series: Sequence[Series], empty: str) -> None:
        """Draw these lines."""
        if (series, empty) != (self._series, self._empty):
            self._series, self._empty, self._painted = series, empty, None
            self.update()

    def paintEvent(self, _event: Any) -> None:
        """Called by Qt, also when something beside the chart has changed: then what was painted is there still."""
        paint, ratio = palette_colours(self), self.devicePixelRatioF()
        of = (self.size(), ratio, paint["text"])
        if self._painted is None or self._painted[0] != of:
            picture = QPixmap(self.size() * ratio)
            picture.setDevicePixelRatio(ratio)
            picture.fill(Qt.GlobalColor.transparent)
            self._paint(picture, paint)
            self._painted = of, picture
        with QPainter(self) as painter:
            painter.drawPixmap(0, 0, self._painted[1])

    def _paint(self, picture: QPixmap, paint: Colours) -> None:
        drawing = draw(self._series, self.width(), self.height(), empty=self._empty)
        with QPainter(picture) as painter:
            painter.setFont(self.font())
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            for stroke in drawing.strokes:
                pen = QPen(QColor(paint[stroke.colour]), stroke.width)
                pen.setCapStyle(Qt.PenCapStyle.FlatCap)
                if DASHES[stroke.dash]:
                    pen.setDashPattern([part / stroke.width for part in DASHES[stroke.dash]])
                painter.setPen(pen)
                pairs = zip(stroke.points[::2], stroke.points[1::2], strict=True)
                painter.drawPolyline(QPolygonF([QPointF(x, y) for x, y in pairs]))
            for label in drawing.labels:
                painter.setPen(QColor(paint[label.colour]))
                left = {"left": label.x, "right": label.x - _WIDE, "centre": label.x - _WIDE / 2}[label.anchor]
                box = QRectF(left, label.y - 20, _WIDE, 40)
                painter.drawText(box, _FLAGS[label.anchor] | Qt.AlignmentFlag.AlignVCenter, label.text)
