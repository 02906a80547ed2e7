"""Several samples of one clip: all of its chunks in one pass, one after the other, and the same frames as one sample.

    python benchmarks/one_pass.py [--rounds N] [--case NAME]

The clips are those of `data_path.py`, cut into chunks of so many frames at their own rate, each scaled to 480 rows
while it is decoded, in this process. "Alone" is what `decode_clip` takes for one chunk after another, "whole" for all
their frames as one sample. The three take turns; a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples"), str(ROOT / "benchmarks")]

import data_path  # noqa: E402 - found through the path above

from wan_fixes.hosts.standalone.bucket_sizes import covering_size  # noqa: E402
from wan_fixes.media import (  # noqa: E402
    Fit,
    FramePlan,
    count_chunks,
    decode_clip,
    decode_samples,
    plan_frames,
    probe,
)
from wan_fixes.media.strict import StrictDecoder  # noqa: E402

CHUNKS_OF = (9, 17, 33)
CASES = ("1080p h264 24 fps", "1080p hevc 24 fps", "480p h264 24 fps")
ROUNDS = 5
DEADLINE = 600.0

Sample = tuple[FramePlan, "Fit | None"]


class CountedDecoder(StrictDecoder):
    """Counts the frames that come out of all decoders of this process."""

    frames = 0

    def decode(self, packet: Any) -> list[Any]:
        frames = super().decode(packet)
        CountedDecoder.frames += len(frames)
        return frames


def decoded_by(work: Callable[[], None]) -> int:
    """How many frames are decoded, wanted or not."""
    from wan_fixes.media import opening

    opening.StrictDecoder, CountedDecoder.frames = CountedDecoder, 0  # type: ignore[misc]
    try:
        work()
    finally:
        opening.StrictDecoder = StrictDecoder  # type: ignore[misc]
    return CountedDecoder.frames


def seconds_of(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def samples_of(path: Path, count: int) -> list[Sample]:
    """The chunks of a clip, to be scaled and cropped to what `data_path.py` takes."""
    metadata = probe(path)
    height, width = covering_size((metadata.height, metadata.width), (data_path.HEIGHT, data_path.WIDTH))
    top, left = (height - data_path.HEIGHT) // 2, (width - data_path.WIDTH) // 2
    fit = Fit((height, width), (top, left, data_path.HEIGHT, data_path.WIDTH))
    numbers = range(count_chunks(metadata, count=count, fps=None))
    return [(plan_frames(metadata, count=count, fps=None, window="chunks", chunk=number), fit) for number in numbers]


def ways(path: Path, samples: Sequence[Sample]) -> dict[str, Callable[[], None]]:
    """What is compared."""
    plans = [plan for plan, _ in samples]
    whole = FramePlan(
        times=tuple(time for plan in plans for time in plan.times),
        indices=tuple(index for plan in plans for index in plan.indices),
        timestamps=tuple(stamp for plan in plans for stamp in plan.timestamps or ()),
    )

    def together() -> None:
        failed = [
            result for result in decode_samples(path, samples, deadline=DEADLINE) if isinstance(result, Exception)
        ]
        if failed:
            raise failed[0]

    def alone() -> None:
        for plan, fit in samples:
            decode_clip(path, plan, fit=fit, deadline=DEADLINE)

    def at_once() -> None:
        decode_clip(path, whole, fit=samples[0][1], deadline=DEADLINE)

    return {
        "together": together,
        "alone": alone,
        "whole": at_once,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="the median of so many is shown")
    parser.add_argument("--case", action="append", choices=data_path.CASES, help="only this one; may be given again")
    arguments = parser.parse_args()
    from rich.console import Console
    from rich.table import Table

    table = Table("clip", "chunks", "together, s", "alone, s", "alone ÷ together", "together ÷ whole", "frames decoded")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.case or CASES:
            path = Path(folder, f"{name}.mp4")
            script = str(ROOT / "benchmarks" / "data_path.py")
            subprocess.run([sys.executable, script, "--make", name, str(path)], check=True)
            for count in CHUNKS_OF:
                samples = samples_of(path, count)
                methods = ways(path, samples)
                frames = {method: decoded_by(work) for method, work in methods.items()}
                rounds = [
                    {method: seconds_of(work) for method, work in methods.items()} for _ in range(arguments.rounds)
                ]
                table.add_row(
                    name,
                    f"{len(samples)} of {count}",
                    *(f"{statistics.median(r[method] for r in rounds):.2f}" for method in ("together", "alone")),
                    f"{statistics.median(r['alone'] / r['together'] for r in rounds):.2f}",
                    f"{statistics.median(r['together'] / r['whole'] for r in rounds):.2f}",
                    f"{frames['together']}, {frames['alone']}, {frames['whole']}",
                )
            table.add_section()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
