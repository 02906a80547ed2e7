"""What the disk knows of files that went wrong: their formats, and what else lies in their folders. Bounded in time."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Final, TypeVar

from wan_fixes.errors import SampleError
from wan_fixes.health import plain
from wan_fixes.media import MediaReader, is_sample, is_video

_SECONDS: Final = 15.0
_SECONDS_EACH: Final = 5.0
_AT_ONCE: Final = 4

logger = logging.getLogger(__name__)

Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")


def formats_of_files(paths: Iterable[str], seconds: float = _SECONDS) -> dict[str, str]:
    """Codec and container ("hevc in mov") of each clip that can be opened, read in worker processes.

    What is no clip, is gone, or cannot be opened in time is not in it.
    """
    reader = MediaReader(deadline=_SECONDS_EACH)
    clips = list(dict.fromkeys(path for path in paths if is_video(path)))
    found = _in_time({path: _task(_format_of, reader, path) for path in clips}, seconds)
    return {path: text for path, text in found.items() if text}


def samples_in(folders: Iterable[str], seconds: float = _SECONDS) -> dict[str, int]:
    """How many clips and images lie in each folder itself. A folder that is gone or does not answer is not in it."""
    found = _in_time({folder: _task(_count, folder) for folder in dict.fromkeys(folders)}, seconds)
    return {folder: count for folder, count in found.items() if count}


def _task(function: Callable[..., Result], *arguments: object) -> Callable[[], Result]:
    return lambda: function(*arguments)


def _format_of(reader: MediaReader, path: str) -> str:
    try:
        known = reader.probe(path)
    except SampleError:
        return ""
    return f"{known.codec} in {known.format}"


def _count(folder: str) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(is_sample(entry.path) for entry in entries)
    except OSError:
        return 0


def _in_time(tasks: Mapping[Name, Callable[[], Result]], seconds: float) -> dict[Name, Result]:
    """What the tasks give, of those that are done in time. A thread that hangs keeps the program from nothing."""
    waiting: queue.SimpleQueue[tuple[Name, Callable[[], Result]]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Name, Result | None]] = queue.SimpleQueue()
    for name, task in tasks.items():
        waiting.put((name, task))
    end = time.monotonic() + seconds

    def work() -> None:
        while time.monotonic() < end:
            try:
                name, task = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((name, task()))
            except Exception as error:  # what is not known of one file is left out
                logger.debug("nothing is known of %s: %s", plain(name), plain(error), exc_info=True)
                done.put((name, None))

    for _ in range(min(_AT_ONCE, len(tasks))):
        threading.Thread(target=work, name="wan-look-at-files", daemon=True).start()
    found: dict[Name, Result] = {}
    for _ in tasks:
        try:
            name, result = done.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        if result is not None:
            found[name] = result
    return found
