"""Worker processes: what a file does to its reader it does to a worker, and the next is read as if nothing was."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from clips import ClipTruth, write_clip
from painted import paint_frame, read_frame_number
from PIL import Image

from wan_fixes.errors import SampleError
from wan_fixes.media import Fit, MediaReader, decode_clip, inspect_video, load_image, plan_frames, poster, probe
from wan_fixes.media.workers import WorkerPool
from wan_fixes.media.workers.process import SWOLLEN, WorkerLostError, WorkerProcess

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="its processes take no signals")
_MB = 1 << 20


@pytest.fixture
def pool():
    pool = WorkerPool(memory_mb=2048, size=2)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes some seconds to decode as a whole."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    pictures = (paint_frame(number % 250, width=640, height=480) for number in range(600))
    return write_clip(path, pictures, options={"preset": "ultrafast", "crf": "20"})


def _slow_jpeg(path: Path, scans: int) -> Path:
    """A progressive JPEG whose first scan comes again and again, which takes some milliseconds each time."""
    side = 4096
    whole = io.BytesIO()
    Image.new("L", (side, side), 90).save(whole, "JPEG", progressive=True)
    content = whole.getvalue()
    scan = content.index(b"\xff\xda")
    following = (
        content.index(b"\xff\xc4", scan) if b"\xff\xc4" in content[scan:] else content.index(b"\xff\xda", scan + 2)
    )
    path.write_bytes(content[:scan] + content[scan:following] * scans + content[following:])
    return path


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps its decoder busy for longer than any test waits."""
    return _slow_jpeg(tmp_path_factory.mktemp("endless") / "endless.jpg", scans=2000)


def _whole(clip: Path):
    return plan_frames(probe(clip), count=600, fps=None)


def _same(value):
    return value


def _has_open(pid: int, path: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(Path(file.path).samefile(path) for file in psutil.Process(pid).open_files())
    return False


def _workers() -> set[int]:
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it ends just now
            if "wan_fixes.media.workers" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


def _while_it_works(act, path: Path, times: int = 1) -> threading.Thread:
    """Do `act(pid)` to a worker that has opened `path`, so many times, each to another one."""

    def watch() -> None:
        seen: set[int] = set()
        while len(seen) < times:
            time.sleep(0.02)
            for pid in _workers() - seen:
                if _has_open(pid, path):
                    seen.add(pid)
                    act(pid)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_everything_comes_out_as_without_workers(good_clips: list[ClipTruth], tmp_path: Path):
    reader = MediaReader()
    for truth in good_clips:
        metadata = reader.probe(truth.path)
        assert metadata == probe(truth.path)
        plan = plan_frames(metadata, count=9, fps=16)
        for fit in (None, Fit((48, 64), (8, 0, 32, 64))):
            expected = decode_clip(truth.path, plan, fit=fit)
            assert np.array_equal(reader.decode(truth.path, plan, np.copy, fit=fit), expected)
        verdict = reader.inspect_video(truth.path, count=17, fps=16)
        assert verdict == inspect_video(truth.path, count=17, fps=16)
        assert reader.poster(truth.path) == poster(truth.path)
    picture = tmp_path / "a.png"
    Image.fromarray(paint_frame(3, width=64, height=48)).save(picture)
    assert np.array_equal(reader.load_image(picture, np.copy), load_image(picture))
    assert reader.inspect_image(picture).width == 64


def test_errors_come_out_as_without_workers(broken_files):
    reader = MediaReader()
    for broken in broken_files:
        if broken.about != "clip" or broken.kind in ("too_short", "one_frame", "flipped_bytes"):
            continue
        with pytest.raises(SampleError) as direct:
            probe(broken.path)
        with pytest.raises(SampleError) as isolated:
            reader.probe(broken.path)
        assert str(isolated.value) == str(direct.value) and isolated.value.context == direct.value.context


def test_many_threads_get_each_their_own_frames(good_clips: list[ClipTruth], pool: WorkerPool):
    truth = next(truth for truth in good_clips if truth.path.name == "h264_30fps.mp4")
    metadata = probe(truth.path)
    plans = [plan_frames(metadata, count=5, fps=None, window="start")] * 8
    plans += [plan_frames(metadata, count=9, fps=15, window="centre")] * 8

    def read(plan) -> list[int | None]:
        def numbers(results) -> list[int | None]:
            (frames,) = results
            time.sleep(0.02)  # while others are given theirs
            return [read_frame_number(picture) for picture in np.moveaxis(frames, 0, -1)]

        return pool.ask("decode_samples", truth.path, numbers, seconds=20, samples=[(plan, None)])

    with ThreadPoolExecutor(16) as executor:
        for plan, numbers in zip(plans, executor.map(read, plans), strict=True):
            assert numbers == list(plan.indices)


@pytest.mark.parametrize("fits", [(None, None), (Fit((48, 64), (0, 0, 40, 60)), Fit((60, 80), (5, 5, 50, 70)))])
def test_several_samples_come_as_if_each_were_asked_for_alone(good_clips: list[ClipTruth], fits):
    truth = next(truth for truth in good_clips if truth.path.name == "h264_24fps_bframes.mp4")
    metadata = probe(truth.path)
    plans = [plan_frames(metadata, count=9, fps=None, window="chunks", chunk=chunk) for chunk in (0, 1)]
    beyond = replace(plans[1], timestamps=tuple(stamp + 10**9 for stamp in plans[1].timestamps))
    samples = [(plans[0], fits[0]), (beyond, None), (plans[1], fits[1])]
    (lost,) = MediaReader().decode_samples(truth.path, [(beyond, None)], _same)
    assert isinstance(lost, SampleError)
    first, missing, second = MediaReader().decode_samples(
        truth.path, samples, lambda results: [np.copy(r) if isinstance(r, np.ndarray) else r for r in results]
    )
    assert isinstance(missing, SampleError)
    for plan, fit, frames in ((plans[0], fits[0], first), (plans[1], fits[1], second)):
        assert np.array_equal(frames, decode_clip(truth.path, plan, fit=fit))


@needs_signals
@pytest.mark.parametrize(
    ("name", "reason", "is_blamed"),
    [("SIGSEGV", "crashes its decoder", True), ("SIGKILL", "want of memory", False)],
    ids=["it crashes", "the system kills it"],
)
def test_a_file_that_loses_two_workers_is_given_up(
    endless: Path, long_clip: Path, pool: WorkerPool, name: str, reason: str, is_blamed: bool
):
    killer = _while_it_works(lambda pid: os.kill(pid, getattr(signal, name)), endless, times=2)
    with pytest.raises(SampleError, match=reason) as caught:
        pool.ask("load_image", endless, _same, seconds=60)
    killer.join()
    assert caught.value.context == {"damaged": is_blamed} and caught.value.path == str(endless)
    assert pool.ask("probe", long_clip, _same, seconds=20).frame_count == 600


@needs_signals
def test_a_worker_that_crashes_once_is_forgiven(tmp_path: Path, pool: WorkerPool):
    picture = _slow_jpeg(tmp_path / "slow.jpg", scans=600)
    killer = _while_it_works(lambda pid: os.kill(pid, signal.SIGSEGV), picture)
    shape = pool.ask("load_image", picture, np.shape, seconds=60)
    killer.join()
    assert shape == (4096, 4096, 3)


@needs_signals
def test_what_waits_for_a_dead_drive_is_given_up_and_not_blamed(endless: Path, pool: WorkerPool):
    stopper = _while_it_works(lambda pid: os.kill(pid, signal.SIGSTOP), endless)
    begin = time.monotonic()
    with pytest.raises(SampleError, match="gave no data for 3 s") as caught:
        pool.ask("load_image", endless, _same, seconds=3)
    stopper.join()
    assert time.monotonic() - begin < 12 and caught.value.context == {"damaged": False}


def test_a_file_that_keeps_its_decoder_busy_is_stopped_and_blamed(endless: Path):
    reader = MediaReader(deadline=0.5)
    begin = time.monotonic()
    with pytest.raises(SampleError, match=r"still busy after 0\.5 s") as caught:
        reader.load_image(endless, _same)
    assert time.monotonic() - begin < 20
    assert caught.value.context == {"damaged": True, "limits": "0.5 s, 4096 MB"}
    assert "decode_deadline_seconds" in caught.value.fix


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is the system's only there")
def test_a_file_that_needs_too_much_memory_is_stopped_and_blamed(tmp_path: Path):
    path = tmp_path / "large.png"
    Image.new("RGB", (16000, 6000)).save(path, compress_level=1)
    reader = MediaReader(memory_mb=300, max_pixels=1 << 30)
    with pytest.raises(SampleError, match="more than 300 MB of memory") as caught:
        reader.load_image(path, _same)
    assert caught.value.context == {"damaged": True, "limits": "10 s, 300 MB"}
    assert MediaReader(memory_mb=2048, max_pixels=1 << 30).load_image(path, np.shape) == (6000, 16000, 3)


def test_a_worker_that_swells_is_seen_where_the_system_has_no_limit(long_clip: Path):
    worker = WorkerProcess(2048 * _MB)
    try:
        worker._memory_bytes = 120 * _MB  # after the worker has set its own limit
        with pytest.raises(WorkerLostError) as caught:
            worker.ask("decode_samples", str(long_clip), {"samples": [(_whole(long_clip), None)]}, 60)
        assert caught.value.kind == SWOLLEN and not worker.is_alive()
    finally:
        worker.end()


@needs_signals
def test_an_interruption_leaves_no_answer_behind_for_the_next_question(
    endless: Path, long_clip: Path, pool: WorkerPool
):
    interrupted = threading.Event()

    def interrupt() -> None:
        """Again after a while, as a user does: one that comes while an object is collected is lost to Python."""
        while not interrupted.wait(1.5):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        try:
            pool.ask("load_image", endless, _same, seconds=60)
        finally:
            interrupted.set()
    thread.join()
    assert pool.ask("probe", long_clip, _same, seconds=20).frame_count == 600


@needs_signals
def test_workers_end_with_a_process_that_is_killed(long_clip: Path):
    program = (
        "import sys, threading\n"
        "from wan_fixes.media import MediaReader, plan_frames\n"
        "reader = MediaReader(deadline=600)\n"
        "plan = plan_frames(reader.probe(sys.argv[1]), count=600, fps=None)\n"
        "print('begun', flush=True)\n"
        "while True: reader.decode(sys.argv[1], plan, len)\n"
    )
    root = str(Path(__file__).resolve().parent.parent.parent)
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(long_clip)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert parent.stdout is not None and parent.stdout.readline().strip() == b"begun"
    workers = psutil.Process(parent.pid).children()
    assert workers
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert gone and not alive


def test_where_no_worker_can_be_started_files_are_read_here(
    good_clips: list[ClipTruth], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no_python"))
    reader = MediaReader(memory_mb=777)  # workers of its own
    with caplog.at_level(logging.WARNING):
        for truth in good_clips[:2]:
            assert reader.probe(truth.path).frame_count == truth.frame_count
    assert sum("no worker process can be started" in record.message for record in caplog.records) == 1


def test_modules_beside_the_running_script_do_not_stand_in_for_pythons_own(good_clips: list[ClipTruth], tmp_path: Path):
    (tmp_path / "json.py").write_text("raise ImportError('this is not json')", encoding="utf-8")
    program = (
        "import sys, json\n"  # its own is loaded before the folder is on the path
        "from wan_fixes.media.workers.process import WorkerProcess\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "worker = WorkerProcess(1 << 30)\n"
        "print(worker.ask('probe', sys.argv[1], {}, 20).frame_count)\n"
        "worker.end()\n"
    )
    root = str(Path(__file__).resolve().parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", program, str(good_clips[0].path), str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
        check=True,
    )
    assert int(done.stdout) == good_clips[0].frame_count
