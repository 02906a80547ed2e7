"""Which samples are out: the one list that every sink of a pipeline agrees on."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable

from wan_fixes.errors import SampleError


class SampleRoster:
    """The samples dropped from a pipeline, by their index in the list of collected paths.

    The image cache, the text cache and the sortings each turn an output index into an input index. They
    must leave out the same samples, or captions meet the wrong clips. While an epoch runs the order is
    fixed: a sample dropped then stays in its place (a placeholder is trained there, with weight 0) and
    leaves when the next epoch opens. A sample whose error is marked ``this_epoch_only`` (a module was switched off
    for a while) comes back then.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dropped: dict[int, SampleError] = {}
        self._pending: dict[int, SampleError] = {}
        self._members: set[int] = set()
        self._epoch: int | None = None
        self._order_is_fixed = False
        self._version = 0

    @property
    def version(self) -> int:
        """Changes whenever the set of dropped samples changes."""
        return self._version

    def drop(self, index: int, error: SampleError) -> bool:
        """Drop a sample, now or when the next epoch opens. True when it was not dropped before."""
        error = copy.copy(error)  # without its traceback, which holds the clips that its frames worked on
        with self._lock:
            if index in self._dropped or index in self._pending:
                return False
            if self._order_is_fixed:
                self._pending[index] = error
            else:
                self._dropped[index] = error
                self._version += 1
            return True

    def take_in(self, indices: Iterable[int]) -> None:
        """Called by each sink once it knows its samples, dropped or not."""
        with self._lock:
            self._members.update(indices)

    def nobody_is_left(self) -> bool:
        """True when samples were dropped, and there is none that could take part in this epoch or a later one."""
        with self._lock:
            gone = {**self._dropped, **self._pending}
            for_good = {index for index, error in gone.items() if not error.context.get("this_epoch_only")}
            return bool(for_good) and self._members <= for_good

    def is_dropped(self, index: int) -> bool:
        """True when the sample takes no part in the present epoch."""
        return index in self._dropped

    def dropped(self) -> frozenset[int]:
        """The samples that take no part in the present epoch."""
        return frozenset(self._dropped)

    def open_epoch(self, epoch: int) -> bool:
        """Called by each sink when it starts an epoch: what was dropped during the last one leaves now.

        True for the first sink of an epoch.
        """
        with self._lock:
            if epoch == self._epoch:
                return False
            self._epoch = epoch
            self._order_is_fixed = False
            left = {**self._dropped, **self._pending}
            kept_out = {index: error for index, error in left.items() if not error.context.get("this_epoch_only")}
            if kept_out.keys() != self._dropped.keys():
                self._version += 1
            self._dropped, self._pending = kept_out, {}
            return True

    def close_epoch(self) -> None:
        """Called by the sorting once the order is drawn: from here on it must not move."""
        with self._lock:
            self._order_is_fixed = True

    def reasons(self) -> dict[int, SampleError]:
        """Every sample dropped so far, and why."""
        with self._lock:
            return {**self._dropped, **self._pending}
