"""Who uses a model is known, also while others look (M9)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import pytest

from wan_fixes.models import usage
from wan_fixes.models.layout import ModelResolver
from wan_fixes.models.locks import LockManager
from wan_fixes.models.names import ModelName
from wan_fixes.models.usage import UsageLog

NAME = ModelName("one", "1.0.0", "original")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UsageLog]:
    held: list[filelock.BaseFileLock] = []
    monkeypatch.setattr(usage, "_held", held)
    resolver = ModelResolver(tmp_path)
    yield UsageLog(resolver, LockManager(resolver.locks))
    for lock in held:
        lock.release()


def has_it_first(acquire: Callable[..., object], lock: filelock.BaseFileLock) -> filelock.BaseFileLock:
    other = filelock.FileLock(lock.lock_file)
    acquire(other, timeout=0)
    return other


def clears_it_away(acquire: Callable[..., object], lock: filelock.BaseFileLock) -> filelock.BaseFileLock:
    acquire(lock, timeout=0)
    Path(lock.lock_file).unlink()
    return lock


@pytest.mark.parametrize("look", [has_it_first, clears_it_away])
def test_m9_a_use_is_noted_also_where_others_look_at_it_just_then(
    log: UsageLog, monkeypatch: pytest.MonkeyPatch, look: Callable[..., filelock.BaseFileLock]
) -> None:
    """Who looks has the lock for an instant, and deletes its file as a dead process's."""
    acquire: Callable[..., object] = filelock.FileLock.acquire
    looked: list[filelock.BaseFileLock] = []

    def meet(lock: filelock.BaseFileLock, **options: float) -> object:
        if len(looked) < 3:
            looked.append(look(acquire, lock))
        return acquire(lock, **options)

    with monkeypatch.context() as patch:
        patch.setattr(filelock.FileLock, "acquire", meet)
        log.use(NAME)
    assert len(looked) == 3
    assert log.is_in_use(NAME.folder_name)


def test_m9_what_dead_processes_left_is_cleared_away(log: UsageLog, tmp_path: Path) -> None:
    folder = tmp_path / ".locks" / "use" / NAME.folder_name
    folder.mkdir(parents=True)
    (folder / "1-dead.lock").touch()
    assert not log.is_in_use(NAME.folder_name)
    assert list(folder.iterdir()) == []


def test_m9_a_use_that_cannot_be_noted_is_told(
    log: UsageLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def busy(lock: filelock.BaseFileLock, **_: object) -> None:
        raise filelock.Timeout(lock.lock_file)

    monkeypatch.setattr(filelock.FileLock, "acquire", busy)
    with caplog.at_level(logging.WARNING):
        log.use(NAME)
    assert "one@1.0.0#original" in caplog.text
    assert log.last_used(NAME.folder_name) is not None
