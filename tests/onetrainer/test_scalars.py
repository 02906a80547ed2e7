"""What the plugin writes to TensorBoard, how often, and that nothing of it reaches the training when it fails."""

from __future__ import annotations

import logging

import pytest

from wan_fixes.health.monitor import Look
from wan_fixes.hosts.onetrainer.scalars import EVERY_SECONDS, Scalars


class Board:
    """Stands for a ``SummaryWriter``."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.error: Exception | None = None

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        if self.error is not None:
            raise self.error
        self.scalars.append((tag, value, step))


def look_at(at: float = 0.0, steps: float = 0.0, **gauges: float) -> Look:
    counters = {
        "samples_left_out": 2.0,
        "cache_hits": 30.0,
        "cache_misses": 10.0,
        "module_failures{module=EncodeVAE}": 4.0,
    }
    return Look(at, counters, {"memory_mb": 512.0, "steps": steps, **gauges}, 1)


def test_all_that_is_known_is_written_with_the_step() -> None:
    board, now = Board(), [0.0]
    scalars = Scalars(board.add_scalar, 4, lambda: now[0])
    scalars.write(7, look_at(0, 10, gpu_memory_mb=900.0))
    now[0] = EVERY_SECONDS
    scalars.write(8, look_at(20, 35))
    assert [entry for entry in board.scalars if entry[2] == 7] == [
        ("wan_fixes/samples/left_out", 2.0, 7),
        ("wan_fixes/cache/hit_rate", 0.75, 7),
        ("wan_fixes/memory/process_mb", 512.0, 7),
        ("wan_fixes/memory/gpu_mb", 900.0, 7),
        ("wan_fixes/errors/failures", 4.0, 7),
        ("wan_fixes/alerts/active", 1, 7),
    ]
    assert ("wan_fixes/speed/samples_per_second", 5.0, 8) in board.scalars
    assert not any(tag == "wan_fixes/memory/gpu_mb" for tag, _, step in board.scalars if step == 8)


def test_it_is_written_every_ten_seconds_at_most() -> None:
    board, now = Board(), [0.0]
    scalars = Scalars(board.add_scalar, 4, lambda: now[0])
    for second in range(35):
        now[0] = float(second)
        scalars.write(second, look_at(second))
    assert sorted({step for _, _, step in board.scalars}) == [0, 10, 20, 30]


def test_a_short_training_writes_how_it_ended() -> None:
    board, now = Board(), [0.0]
    scalars = Scalars(board.add_scalar, 4, lambda: now[0])
    scalars.write_last(look_at())
    assert board.scalars == []  # there was no step
    scalars.write(1, None)
    scalars.write_last(look_at())
    assert {step for _, _, step in board.scalars} == {1}
    scalars.write(2, look_at(1.0))
    scalars.write(3, look_at(2.0))
    scalars.write_last(look_at(3.0, 8.0))
    assert sorted({step for _, _, step in board.scalars}) == [1, 2, 3]


def test_before_the_first_look_nothing_is_written() -> None:
    board = Board()
    scalars = Scalars(board.add_scalar)
    scalars.write(0, None)
    assert board.scalars == []
    scalars.write(1, look_at())
    assert board.scalars


def test_after_a_failure_no_more_is_written_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    board, now = Board(), [0.0]
    scalars = Scalars(board.add_scalar, 4, lambda: now[0])
    board.error = OSError("no space left")
    with caplog.at_level(logging.WARNING, "wan_fixes"):
        for second in range(0, 60, 10):
            now[0] = float(second)
            scalars.write(second, look_at(second))
    assert [record.message for record in caplog.records if "no space left" in record.message] == [
        "no more is written to TensorBoard by the plugin: OSError('no space left')"
    ]
