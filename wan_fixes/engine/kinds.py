"""The three kinds of pipeline module: they differ in who keeps the place, the caller or the module."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any


class RandomAccessPipelineModule(metaclass=ABCMeta):
    """Gives any item of any variation, in any order and from any thread. Started once in its life."""

    def __init__(self) -> None:
        super().__init__()
        self.started = False

    @abstractmethod
    def length(self) -> int:
        """Number of items that can be asked for."""

    def start(self, variation: int) -> None:  # noqa: B027 (most modules need no start)
        """Prepare; called before the first epoch only, with its number."""

    def get_meta(self, variation: int, name: str) -> Any:
        """What the module knows about `name` as a whole; None when nothing."""
        return None

    @abstractmethod
    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        """Item `index`, with at least `requested_name` in it; with all outputs when that is None."""


class SingleVariationRandomAccessPipelineModule(metaclass=ABCMeta):
    """Gives any item of the current variation, in any order. Started before each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.current_variation = -1

    @abstractmethod
    def length(self) -> int:
        """Number of items that can be asked for."""

    def start(self, variation: int) -> None:  # noqa: B027 (most modules need no start)
        """Prepare the items of `variation`."""

    def get_meta(self, name: str) -> Any:
        """What the module knows about `name` as a whole; None when nothing."""
        return None

    @abstractmethod
    def get_item(self, index: int, requested_name: str | None = None) -> dict[str, Any]:
        """Item `index`, with at least `requested_name` in it; with all outputs when that is None."""


class SerialPipelineModule(metaclass=ABCMeta):
    """Gives the items of the current variation one after the other. Started before each epoch, and restarted."""

    def __init__(self) -> None:
        super().__init__()
        self.current_variation = -1
        self.current_index = -1

    @abstractmethod
    def approximate_length(self) -> int:
        """Number of items as far as it is known in advance."""

    def start(self, variation: int, start_index: int) -> None:  # noqa: B027 (most modules need no start)
        """Begin `variation` so that the next item is number `start_index`."""

    def get_meta(self, name: str) -> Any:
        """What the module knows about `name` as a whole; None when nothing."""
        return None

    @abstractmethod
    def get_next_item(self) -> dict[str, Any]:
        """The item at `current_index`, which the caller then advances."""

    @abstractmethod
    def has_next(self) -> bool:
        """Whether there is one more item."""
