"""Memory that two processes see: frames are decoded into it by one and read by the other, and copied by neither."""

from __future__ import annotations

import math
import mmap
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

#: A buffer that has this many times the size that is asked for gives the rest back.
_WASTE: Final = 2


class SharedBuffer:
    """A piece of memory that grows as needed; made by `create` in one process, and opened in its child by `attach`.

    On Windows it is memory with a name, a new one for each new size; elsewhere a file without a name, in memory where
    the system can (Linux), whose descriptor the child inherits.
    """

    def __init__(self, handle: str, descriptor: int | None) -> None:
        #: What the child needs for `attach`.
        self.handle = handle
        #: To be inherited by the child; None on Windows.
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None
        self._name = ""

    @classmethod
    def create(cls) -> SharedBuffer:
        """A new one, empty. Raises OSError."""
        if sys.platform == "win32":
            return cls(f"wan-fixes-{uuid.uuid4().hex}", None)
        descriptor = _nameless_file()
        return cls(str(descriptor), descriptor)

    @classmethod
    def attach(cls, handle: str) -> SharedBuffer:
        """The one that the parent process made."""
        return cls(handle, None if sys.platform == "win32" else int(handle))

    def reserve(self, size: int) -> str:
        """Make room for `size` bytes, for `array` here; returns the name by which `open` finds it in the other process.

        What was in it is lost. Raises OSError.
        """
        size = max(size, 1)
        if self._map is None or not size <= len(self._map) <= _WASTE * size:
            self._map = None
            name = ""
            if self.descriptor is None:
                name = f"{self.handle}-{uuid.uuid4().hex}"
            else:
                os.ftruncate(self.descriptor, size)
            self._map, self._name = self._mapped(size, name), name
        return self._name

    def open(self, name: str, size: int) -> None:
        """See what the other process reserved as `name`, at least `size` bytes of it. Raises OSError."""
        if self._map is None or name != self._name or len(self._map) < size:
            self._map, self._name = self._mapped(max(size, 1), name), name

    def array(self, shape: Sequence[int], offset: int) -> npt.NDArray[np.uint8]:
        """The bytes from `offset` on as an array. It is overwritten when the buffer is used again."""
        assert self._map is not None, "neither reserved nor opened"
        return np.frombuffer(self._map, np.uint8, math.prod(shape), offset).reshape(shape)

    def close(self) -> None:
        """Give the memory back, here. Arrays of it that are still held stay valid."""
        self._map = None
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def _mapped(self, size: int, name: str) -> mmap.mmap:
        if self.descriptor is not None:
            return mmap.mmap(self.descriptor, size)
        tagged: Callable[..., mmap.mmap] = mmap.mmap  # its tagname exists on Windows alone
        return tagged(-1, size, tagname=name)


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("wan-fixes-frames")
    with tempfile.TemporaryFile(prefix="wan-fixes-") as file:
        return os.dup(file.fileno())
