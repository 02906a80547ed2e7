"""A history that never grows beyond a limit: when it is full, every two neighbours become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Point = TypeVar("Point")


class ThinningHistory(Generic[Point]):
    """Points in order, at most `limit` of them, each of which stands for equally many of those that were added.

    Parameters
    ----------
    merge:
        Makes one point of two neighbours, the earlier first.
    """

    def __init__(self, limit: int, merge: Callable[[Point, Point], Point]) -> None:
        if limit < 2 or limit % 2:
            raise ValueError(f"the limit must be an even number from 2 up, not {limit}")
        self.points: list[Point] = []
        self._limit = limit
        self._merge = merge
        self._stride = 1  # how many added points one of `points` stands for
        self._in_last = 1

    def add(self, point: Point) -> bool:
        """Add one. True where earlier points changed too, and not the last alone."""
        if self.points and self._in_last < self._stride:
            self.points[-1] = self._merge(self.points[-1], point)
            self._in_last += 1
            return False
        is_full = len(self.points) == self._limit
        if is_full:
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [self._merge(earlier, later) for earlier, later in pairs]
            self._stride *= 2
        self.points.append(point)
        self._in_last = 1
        return is_full
