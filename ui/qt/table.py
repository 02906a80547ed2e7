"""A table in Qt: a model over plain rows, and a view of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QItemSelectionModel, QModelIndex, Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from wan_fixes.ui.kit import Row

_FRAME = 4  # pixels
_NOWHERE = QModelIndex()


class _Rows(QAbstractTableModel):
    def __init__(self, headings: Sequence[str], parent: Any) -> None:
        super().__init__(parent)
        self._headings = headings
        self.rows: list[Row] = []

    def rowCount(self, parent: Any = _NOWHERE) -> int:
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: Any = _NOWHERE) -> int:
        return 0 if parent.isValid() else len(self._headings)

    def data(self, index: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role == Qt.ItemDataRole.DisplayRole:
            return self.rows[index.row()][1][index.column()]
        return None

    def headerData(self, section: int, orientation: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return self._headings[section]
        return None

    def put(self, rows: list[Row]) -> None:
        """Show these rows; where only texts changed, the rows stay those that they were."""
        if [key for key, _ in rows] == [key for key, _ in self.rows]:
            changed = [at for at, (new, old) in enumerate(zip(rows, self.rows, strict=True)) if new != old]
            self.rows = rows
            if changed:
                last = self.columnCount() - 1
                self.dataChanged.emit(self.index(changed[0], 0), self.index(changed[-1], last))
            return
        self.beginResetModel()
        self.rows = rows
        self.endResetModel()


class _View(QTableView):
    """Copies its chosen rows with Ctrl+C, and lets Tab go on to the next widget."""

    def __init__(self, parent: Any, on_copy: Callable[[], None] | None) -> None:
        super().__init__(parent)
        self._on_copy = on_copy

    def keyPressEvent(self, event: Any) -> None:
        if self._on_copy is not None and event.matches(QKeySequence.StandardKey.Copy):
            self._on_copy()
            return
        super().keyPressEvent(event)

    def focusInEvent(self, event: Any) -> None:
        super().focusInEvent(event)
        if not self.currentIndex().isValid() and self.model().rowCount():
            self.selectionModel().setCurrentIndex(self.model().index(0, 0), QItemSelectionModel.SelectionFlag.NoUpdate)


class QtTable:
    """See `wan_fixes.ui.kit.Table`."""

    def __init__(
        self,
        parent: Any,
        columns: Sequence[tuple[str, int, bool]],
        lines: int,
        on_choose: Callable[[], None],
        on_copy: Callable[[], None] | None,
    ) -> None:
        view = self.view = _View(parent, on_copy)
        self._model = _Rows([heading for heading, _, _ in columns], view)
        view.setModel(self._model)
        view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        view.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        view.setTabKeyNavigation(False)
        view.setShowGrid(False)
        view.setAlternatingRowColors(False)
        view.setWordWrap(False)
        view.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        view.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        view.verticalHeader().hide()
        height = view.fontMetrics().height() + 8
        view.verticalHeader().setDefaultSectionSize(height)
        view.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header = view.horizontalHeader()
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setHighlightSections(False)
        header.setMinimumSectionSize(40)
        for number, (_, width, grows) in enumerate(columns):
            mode = QHeaderView.ResizeMode.Stretch if grows else QHeaderView.ResizeMode.Interactive
            header.setSectionResizeMode(number, mode)
            if not grows:
                header.resizeSection(number, width)
        view.setMinimumHeight(height * min(lines, 4) + header.sizeHint().height() + _FRAME)
        self._on_choose = on_choose
        view.selectionModel().selectionChanged.connect(lambda *_: on_choose())

    def show(self, rows: Sequence[Row]) -> None:
        """See `wan_fixes.ui.kit.Table`."""
        if list(rows) == self._model.rows:
            return
        selection = self.view.selectionModel()
        chosen = set(self.chosen())
        current = self.view.currentIndex().row()
        current_key = self._model.rows[current][0] if 0 <= current < len(self._model.rows) else None
        scrolled = self.view.verticalScrollBar().value()
        selection.blockSignals(True)
        self._model.put(list(rows))
        flags = QItemSelectionModel.SelectionFlag
        if not selection.hasSelection():
            for at, (key, _) in enumerate(self._model.rows):
                if key in chosen:
                    selection.select(self._model.index(at, 0), flags.Select | flags.Rows)
                if key == current_key:
                    selection.setCurrentIndex(self._model.index(at, 0), flags.NoUpdate)
        selection.blockSignals(False)
        self.view.verticalScrollBar().setValue(scrolled)
        self.view.viewport().update()
        if set(self.chosen()) != chosen:
            self._on_choose()

    def chosen(self) -> list[str]:
        """See `wan_fixes.ui.kit.Table`."""
        numbers = sorted(index.row() for index in self.view.selectionModel().selectedRows())
        return [self._model.rows[number][0] for number in numbers if number < len(self._model.rows)]
