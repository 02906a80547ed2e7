"""One process at a time, and nobody waits for the dead (M3)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wan_fixes.models import ErrorCode, LockManager, ModelError, ModelState

from .hub_server import Hub
from .world import ensurer

HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from wan_fixes.models.locks import LockManager
with LockManager(Path(sys.argv[2])).hold("x"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    checkout = str(Path(__file__).resolve().parent.parent.parent)
    child = subprocess.Popen([sys.executable, "-c", HOLD, checkout, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.wait()


def test_m3_a_lock_that_is_held_too_long_names_its_holder(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    waited: list[str] = []
    with pytest.raises(ModelError) as caught, LockManager(tmp_path).hold("x", timeout=1.2, on_wait=waited.append):
        pass
    assert caught.value.code is ErrorCode.LOCK_TIMEOUT
    assert f"process {holder.pid}" in caught.value.reason
    assert waited == [f"process {holder.pid} on {os.uname().nodename}"]
    assert LockManager(tmp_path).is_held("x")


def test_m3_a_lock_goes_with_its_process(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    threading.Timer(0.3, holder.kill).start()
    with LockManager(tmp_path).hold("x", timeout=30):
        assert holder.wait(10) != 0
    assert not LockManager(tmp_path).is_held("x")


def test_m3_waiting_can_be_stopped(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(ModelError) as caught, LockManager(tmp_path).hold("x", timeout=30, stop=stop):
        pass
    assert caught.value.code is ErrorCode.STOPPED
    with LockManager(tmp_path).hold("y", stop=stop):  # nobody is waited for
        assert LockManager(tmp_path).is_held("y")
    assert holder.poll() is None


def test_m6_looking_at_a_lock_does_not_hold_it(tmp_path: Path) -> None:
    locks, stop = LockManager(tmp_path), threading.Event()
    with locks.hold("x"):
        pass

    def look() -> None:
        while not stop.is_set():
            locks.is_held("x")

    others = [threading.Thread(target=look) for _ in range(2)]
    for other in others:
        other.start()
    try:
        assert [locks.is_held("x") for _ in range(100)] == [False] * 100
    finally:
        stop.set()
        for other in others:
            other.join()


def test_m3_other_names_are_free(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with LockManager(tmp_path).hold("y", timeout=0):
        pass
    assert not LockManager(tmp_path).is_held("z")


def test_m3_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError) as caught, LockManager(tmp_path / "file" / "locks").hold("x"):
        pass
    assert caught.value.code is ErrorCode.NOT_WRITABLE


def test_m6_a_model_that_somebody_works_on_is_being_verified(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path, hub)
    models.ensure("tiny")
    with LockManager(models.resolver.locks).hold("tiny@1.0.0-original"):
        assert models.status("tiny").state is ModelState.VERIFYING
        assert models.ensure("tiny")  # a complete model is not waited for
    assert models.status("tiny").state is ModelState.COMPLETE
