"""Run databases in every state that the view can meet."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wan_fixes.health import Run, RunDatabase

CONFIG = {"model_type": "WAN_2_2_T2V_A14B", "concepts": [{"path": "/videos/cats"}]}
REASONS = (
    ("RobustVideoLoader", "DecodeError", "the picture at 3.2 s is damaged (byte 1,204,112)", "make the file anew"),
    ("ValidatedCollectPaths", "ProbeError", "no video stream is in it", "remove it from the folder"),
    (
        "SafeVideoFrameSampler",
        "TooShort",
        "it has 31 frames at 16 per second, and a sample takes 49",
        "use a longer clip",
    ),
)
STAGES = {
    "RobustTemporalVAE": (812.0, 1204),
    "EncodeUMT5Text": (90.0, 1204),
    "SafeScaleCrop": (61.5, 1216),
    "ValidatedDiskCache": (12.4, 4816),
    "ValidatedCollectPaths": (3.1, 1216),
    "SafeVideoFrameSampler": (0.21, 1204),
}


@contextmanager
def recording(folder: Path, kind: str = "train", config: dict[str, Any] | None = None) -> Iterator[Run]:
    """A run that goes on until the end of the block, and reads as running until its process ends."""
    with RunDatabase(folder / "runs.sqlite") as database:
        yield database.start_run(kind, config or {**CONFIG, "cache_dir": str(folder / "cache")})
        database.flush()


def training(run: Run, *, samples: int = 1204, left_out: int = 12, steps: int = 400) -> None:
    """What a training writes."""
    dice = random.Random(0)
    for number in range(samples):
        run.sample(f"/videos/cats/clip{number:06}.mp4", "valid")
    for number in range(left_out):
        module, kind, reason, fix = REASONS[number % len(REASONS)]
        run.sample(f"/videos/cats/broken{number:06}.mp4", "skipped", module=module, reason=reason, fix=fix, kind=kind)
    run.sample(
        "/videos/cats/clip000007.mp4",
        "warning",
        module="RobustVideoLoader",
        reason="colours are assumed",
        kind="warning",
    )
    for number in range(1, steps + 1):
        loss = 0.08 + 0.2 * math.exp(-number / 120) + dice.gauss(0, 0.008)
        run.step(number, math.nan if number == 30 else loss, 1e-4, 0.45)
    run.counters(
        {
            **{f"{module}.seconds": seconds for module, (seconds, _) in STAGES.items()},
            **{f"{module}.calls": items for module, (_, items) in STAGES.items()},
            "cache_hits": 4580,
            "cache_misses": 236,
            "cache_written": 236,
        }
    )
    run.gauges(
        {
            "memory_mb": 11200.0,
            "peak_memory_mb": 13000.0,
            "available_mb": 5100.0,
            "swap_mb": 0.0,
            "gpu_memory_mb": 21400.0,
        }
    )
    run.state("phase", "training")
    run.state("breakers", dict.fromkeys(STAGES, "closed"))
    run.state("caches", {"/cache/image": {"entries": 1204, "bytes": 12_400_000_000}})


def hostile(run: Run) -> None:
    """Names and reasons that are markup, that turn the line around, that are longer than any window."""
    training(run, left_out=2)
    for path, reason in (
        ("/videos/<b>bold [red]red &amp;.mp4", "<h1>big</h1> [bold]reason[/bold]"),
        ("/videos/turned\u202etxt.4pm", "line one\nline two\x1b[31m"),
        (f"/videos/{'very-long-name-' * 20}.mp4", "because " * 200),
        ("/videos/mañana 猫 🐈.mp4", "it is empty"),
        ("/videos/half\udcff.mp4", "its name is no text"),
    ):
        run.sample(path, "failed", module="RobustVideoLoader", reason=reason, fix="rename it", kind="ProbeError")


def alert(kind: str, message: str, fix: str) -> dict[str, Any]:
    """An alert as the hosts record it."""
    return {
        "kind": kind,
        "cause": "",
        "message": message,
        "fix": fix,
        "value": 1.0,
        "threshold": 0.5,
        "since": time.time(),
    }


ALERTS = [
    alert("error_rate", "312 of 1216 samples are left out (26%)", "see which and why in the tab, or with `wan errors`"),
    alert(
        "memory",
        "memory is nearly used up: 97% of 31.2 GiB, 0.9 GiB free",
        "close other programs, lower the number of loader threads, or the resolution or frames",
    ),
    alert("module_off", "RobustTemporalVAE fails too often and is switched off for a while", "`wan errors` says why"),
    alert("stall", "nothing was made for 11 minutes (caching)", "look at the load of GPU and drives"),
]


def alerting(run: Run) -> None:
    """A training in which much goes wrong."""
    training(run, left_out=312)
    run.state("alerts", ALERTS)
    run.state("breakers", {"RobustTemporalVAE": "open", "SafeScaleCrop": "half_open"})


def huge(run: Run) -> None:
    """More than any window can list."""
    training(run, samples=100_000, left_out=10_000, steps=20_000)


def finished(run: Run) -> None:
    """A training that has ended well."""
    training(run)
    run.finish("finished")


def failed(run: Run) -> None:
    """A training that has ended before its first step."""
    training(run, steps=0)
    run.event("run_failed", "OutOfMemoryError: the GPU has no memory left")
    run.finish("failed")


def started(run: Run) -> None:
    """A training of which nothing is known yet."""
    run.state("phase", "loading the model")


STATES: dict[str, Callable[[Run], None]] = {
    "running": training,
    "hostile": hostile,
    "alerts": alerting,
    "huge": huge,
    "finished": finished,
    "failed": failed,
    "started": started,
}
