"""Whether the frames that come out are those that were asked for: ours, MGDS's stock loader, and OpenCV.

    python benchmarks/frame_accuracy.py [--windows N]    stock needs the real mgds on the path, OpenCV cv2

Every good clip of the tests' corpus that lasts long enough is asked for windows of nine frames, 1/16 s apart, from
random times on. What is painted into each frame tells which one it is. A cell holds how many of the frames were exact,
and by how many frames the worst was off; "fails" are windows that ended in an exception: their frames are not exact.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import io
import itertools
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import av
from media.corpus import Case, Serves, healthy, make, odd
from rich.console import Console
from rich.progress import track
from rich.table import Table

from wan_fixes.media import VIDEO_EXTENSIONS, decode_frames, plan_frames, probe

FRAMES = 9
RATE = 16
WINDOWS = 4

#: Start in seconds from the first shown frame, and the pictures: uint8 `[H, W, 3]`.
Window = tuple[float, list[Any]]
Method = Callable[[Path, int], Window]


def ours(path: Path, seed: int) -> Window:
    plan = plan_frames(probe(path), count=FRAMES, fps=RATE, rng=random.Random(seed))
    return plan.times[0], list(decode_frames(path, plan))


def make_stock() -> Method:
    import torch
    from mgds.ConceptPipelineModule import ConceptPipelineModule
    from mgds.LoadingPipeline import LoadingPipeline
    from mgds.PipelineModule import PipelineState
    from mgds.pipelineModules.LoadVideo import LoadVideo
    from mgds.SettingsPipelineModule import SettingsPipelineModule
    from one_item import OneItem

    asked: dict[str, Any] = {}

    class Noted(random.Random):
        """Notes the start that the loader draws."""

        def uniform(self, a: float, b: float) -> float:
            asked["start"] = super().uniform(a, b)
            return asked["start"]

    loader = LoadVideo("path", "settings.frames", "video", 0, 255, RATE, set(VIDEO_EXTENSIONS))
    modules = [
        ConceptPipelineModule([{}]),
        SettingsPipelineModule({"frames": str(FRAMES)}),
        OneItem(asked, ["path"]),
        loader,
    ]
    LoadingPipeline(torch.device("cpu"), modules, 1, 0, PipelineState(1))

    def load(path: Path, seed: int) -> Window:
        asked["path"] = str(path)
        loader._get_rand = lambda variation, index: Noted(seed)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it raises
            video = loader.get_item(0, 0)["video"]
        return asked["start"], list(video.permute(1, 2, 3, 0).round().to(torch.uint8).numpy())

    return load


def make_opencv() -> Method:
    import cv2

    def load(path: Path, seed: int) -> Window:
        clip = cv2.VideoCapture(str(path))
        rate, count = clip.get(cv2.CAP_PROP_FPS), clip.get(cv2.CAP_PROP_FRAME_COUNT)
        start = random.Random(seed).uniform(0, max(0.0, (count - 1) / rate - (FRAMES - 1) / RATE))
        pictures = []
        for step in range(FRAMES):
            clip.set(cv2.CAP_PROP_POS_MSEC, 1000 * (start + step / RATE))
            there, picture = clip.read()
            if not there:
                raise ValueError("no frame")
            pictures.append(picture[:, :, ::-1])
        return start, pictures

    return load


METHODS: dict[str, Callable[[], Method]] = {"ours": lambda: ours, "MGDS": make_stock, "OpenCV": make_opencv}


@dataclass
class Score:
    """What came of the frames that were asked for."""

    asked: int = 0
    exact: int = 0
    worst: int = 0
    fails: int = 0
    unreadable: int = 0
    cases: set[str] = field(default_factory=set)

    def add(self, other: Score) -> None:
        self.asked += other.asked
        self.exact += other.exact
        self.worst = max(self.worst, other.worst)
        self.fails += other.fails
        self.unreadable += other.unreadable

    def __str__(self) -> str:
        notes = [f"off by {self.worst}"] if self.worst else []
        notes += [f"{self.unreadable} unreadable"] if self.unreadable else []
        notes += [f"{self.fails} fails"] if self.fails else []
        return f"{self.exact}/{self.asked}" + (f" ({', '.join(notes)})" if notes else "")


def measure(method: Method, path: Path, truth: Serves, windows: int) -> Score:
    times = truth.frame_times()
    slack = min(0.005, min(b - a for a, b in itertools.pairwise(times)) / 2)
    score = Score()
    for seed in range(windows):
        score.asked += FRAMES
        try:
            start, pictures = method(path, seed)
        except Exception:  # noqa: BLE001 - whatever the method raises is what a user gets
            score.fails += 1
            continue
        for step, picture in enumerate(pictures):
            # Times are rounded in files: either of two neighbours may be on screen just then.
            at = (bisect.bisect_right(times, start + step / RATE + late) - 1 for late in (-0.001, 0, slack))
            possible = {truth.numbers[max(0, place)] for place in at}
            seen = truth.read(picture)
            if seen is None:
                score.unreadable += 1
            else:
                distance = min(abs(seen - number) for number in possible)
                score.exact += distance == 0
                score.worst = max(score.worst, distance)
    return score


def is_asked(case: Case) -> bool:
    truth = case.truth
    times = truth.frame_times() if isinstance(truth, Serves) else None
    # 16 frames a second of a clip at NTSC's rate are taken at NTSC's 15.98.
    return times is not None and times[-1] > FRAMES / RATE and truth.size[0] >= 8 and not _is_ntsc(truth.rate)


def _is_ntsc(rate: float) -> bool:
    return abs(rate * 1.001 - round(rate * 1.001)) < 0.004 and abs(rate - round(rate)) > 0.004


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=WINDOWS, help="so many windows of each clip")
    arguments = parser.parse_args()
    methods: dict[str, Method] = {}
    for name, make_method in METHODS.items():
        try:
            methods[name] = make_method()
        except ImportError as error:
            Console(stderr=True).print(f"{name} is left out: {error}")
    table = Table("clip", *methods, title=f"frames exact of those asked for, {arguments.windows} windows a clip")
    totals = {name: Score() for name in methods}
    av.logging.set_level(None)
    cases = [case for case in (*healthy.CASES, *odd.CASES) if is_asked(case)]
    with tempfile.TemporaryDirectory() as folder:
        for case in track(cases, console=Console(stderr=True)):
            path = make(case, Path(folder))
            if path is None:
                continue
            scores = {name: measure(method, path, case.truth, arguments.windows) for name, method in methods.items()}
            for name, score in scores.items():
                totals[name].add(score)
                if score.exact == score.asked:
                    totals[name].cases.add(case.name)
            table.add_row(case.name, *map(str, scores.values()))
    table.add_section()
    table.add_row("frames", *(f"{score} {score.exact / score.asked:.1%}" for score in totals.values()))
    table.add_row("clips without a fault", *(f"{len(s.cases)}/{table.row_count - 1}" for s in totals.values()))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
