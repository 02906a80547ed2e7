"""Loading a clip through a pipeline: the validated loader beside MGDS's, and what the guard costs.

    python benchmarks/loading.py            needs the real mgds on the path for the first table

Each row is the median of several rounds in which the two take turns, so that a change of the machine's speed
meets both.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

from clips import write_clip
from one_item import OneItem
from painted import paint_frame

from wan_fixes.pipeline import EnhancedSafePipelineModule, PipelineContext, RobustVideoLoader, SafeVideoFrameSampler
from wan_fixes.pipeline.base import (
    ENGINE,
    ConceptPipelineModule,
    LoadingPipeline,
    PipelineModule,
    PipelineState,
    RandomAccessPipelineModule,
    SettingsPipelineModule,
)

FRAMES = 49
ROUNDS = 7
SIZES = ((832, 480), (1280, 720))


class Identity(PipelineModule, RandomAccessPipelineModule):
    """The cheapest module there is, so that the guard's own cost shows."""

    def length(self) -> int:
        return 1 << 20

    def get_inputs(self) -> list[str]:
        return ["path"]

    def get_outputs(self) -> list[str]:
        return ["same"]

    def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
        return {"same": self._get_previous_item(variation, "path", index)}


def pipeline(modules: list[Any]) -> Callable[[str], Any]:
    """A function that reads an item of a fresh index through the modules."""
    reader = Identity()
    first = [ConceptPipelineModule([{}]), SettingsPipelineModule({"target_frames": str(FRAMES)})]
    LoadingPipeline(torch.device("cpu"), [*first, *modules, reader], 1, 0, PipelineState(1))
    counter = iter(range(1 << 20))
    return lambda name: reader._get_previous_item(0, name, next(counter))


def take_turns(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Median seconds of both, and the median of their ratio round by round (theirs to ours)."""
    seconds = []
    for _ in range(rounds + 1):
        times = []
        for work in (ours, theirs):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        seconds.append(times)
    counted = seconds[1:]
    columns = [statistics.median(column) for column in zip(*counted, strict=True)]
    return columns[0], columns[1], statistics.median(b / a for a, b in counted)


def loading(folder: Path, context: PipelineContext) -> Table:
    from mgds.pipelineModules.LoadVideo import LoadVideo

    table = Table(
        "clip", "validated, s", "MGDS, s", "MGDS ÷ validated", title=f"{FRAMES} frames, h264, one thread pulls"
    )
    for width, height in SIZES:
        path = write_clip(
            folder / f"{height}.mp4",
            (paint_frame(n, width=width, height=height) for n in range(FRAMES + 24)),
            rate=Fraction(24),
        )
        common = {
            "path_in_name": "path",
            "target_frame_count_in_name": "settings.target_frames",
            "video_out_name": "image",
            "range_min": 0.0,
            "range_max": 1.0,
            "target_frame_rate": 24,
            "supported_extensions": {".mp4"},
            "dtype": torch.bfloat16,
        }
        sampler = SafeVideoFrameSampler("path", "settings.target_frames", "plan", 24, context=context)
        ours = pipeline(
            [
                OneItem({"path": str(path)}),
                sampler,
                RobustVideoLoader(**common, context=context, frame_plan_in_name="plan"),
            ]
        )
        theirs = pipeline([OneItem({"path": str(path)}), LoadVideo(**common)])
        mine, stock, ratio = take_turns(lambda ours=ours: ours("image"), lambda theirs=theirs: theirs("image"))
        table.add_row(f"{width}x{height}", f"{mine:.3f}", f"{stock:.3f}", f"{ratio:.2f}")
    return table


def guarding(folder: Path, context: PipelineContext) -> Table:
    table = Table("module", "guarded, µs", "bare, µs", "difference, µs", title="one item through one module")
    items = 2000
    bare = pipeline([OneItem({"path": str(folder)}), Identity()])
    guarded = pipeline(
        [OneItem({"path": str(folder)}), EnhancedSafePipelineModule(Identity(), "identity", context=context)]
    )

    def many(read: Callable[[str], Any]) -> Callable[[], None]:
        return lambda: [read("same") for _ in range(items)] and None

    with_guard, without, _ = take_turns(many(guarded), many(bare))
    micro = [seconds / items * 1e6 for seconds in (with_guard, without, with_guard - without)]
    table.add_row("passes its input on", *(f"{value:.1f}" for value in micro))
    return table


def main() -> None:
    console = Console()
    console.print(
        f"engine: {ENGINE}, torch {torch.__version__}, numpy {numpy.__version__}, {torch.get_num_threads()} threads"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        context = PipelineContext.create(folder / "memory")
        if ENGINE == "mgds":
            console.print(loading(folder, context))
        else:
            console.print("the loading table needs the real mgds on the path")
        console.print(guarding(folder, context))
        context.close()


if __name__ == "__main__":
    main()
