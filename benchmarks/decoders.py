"""How exactly and how fast each decoder delivers the frames that it is asked for: bare, and as our chain uses it.

    python benchmarks/decoders.py [--rounds N]    torchcodec, decord2 and opencv-python-headless as installed

Exactness: windows of 9 frames from healthy clips whose frames carry their numbers, by index, each in a freshly opened
file. Speed: 81 frames from the middle of a 1080p clip, scaled to 480 rows, in a process of its own. Libraries are used
as their documentation shows; OpenCV reads on after one seek.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import data_path
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
WINDOW = 9
WINDOWS = 4
SIZE = (480, 854)  # height and width of the 1080p clip, scaled
CLIPS = 3  # that are loaded, after one that is not counted
ROUNDS = 3
SECONDS = 1800  # for all clips of one method

#: Takes indices of frames and a size or None, and gives pictures `[H, W, 3]`.
Load = Callable[[Sequence[int], "tuple[int, int] | None"], Sequence[Any]]


def torchcodec(path: Path) -> Load:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    def load(indices: Sequence[int], size: tuple[int, int] | None) -> Any:
        options = {"transforms": [Resize(size)]} if size else {}
        decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=0, **options)
        return decoder.get_frames_at(list(indices)).data.numpy()

    return load


def decord(path: Path) -> Load:
    from decord import VideoReader

    def load(indices: Sequence[int], size: tuple[int, int] | None) -> Any:
        reader = VideoReader(str(path), **({"height": size[0], "width": size[1]} if size else {}))
        return reader.get_batch(list(indices)).asnumpy()

    return load


def opencv(path: Path) -> Load:
    import cv2

    def load(indices: Sequence[int], size: tuple[int, int] | None) -> Any:
        capture = cv2.VideoCapture(str(path))
        capture.set(cv2.CAP_PROP_POS_FRAMES, indices[0])
        pictures = {}
        for index in range(indices[0], indices[-1] + 1):
            if not capture.grab():
                raise RuntimeError("no frame")
            if index in indices:
                _, picture = capture.retrieve()
                picture = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA) if size else picture
                pictures[index] = picture[:, :, ::-1]
        return [pictures[index] for index in indices]

    return load


def of_chain(name: str) -> Callable[[Path], Load]:
    def prepare(path: Path) -> Load:
        from wan_fixes.media import MAX_PIXELS, Fit, FramePlan
        from wan_fixes.media.decoders import CHAIN

        decoder = next(decoder for decoder in CHAIN if name == decoder.NAME)
        known = decoder.probe(path, max_pixels=MAX_PIXELS, deadline=120)

        def load(indices: Sequence[int], size: tuple[int, int] | None) -> Any:
            times = tuple(known.frame_times[index] for index in indices)
            stamps = tuple(known.timestamps[index] for index in indices) if known.timestamps else ()
            plan = FramePlan(times, tuple(indices), stamps, name)
            fit = Fit(size, (0, 0, *size)) if size else None
            return np.moveaxis(decoder.decode(path, plan, fit=fit, deadline=120, max_pixels=MAX_PIXELS), 0, -1)

        return load

    return prepare


#: Name -> package that it needs, and what loads a clip.
METHODS: dict[str, tuple[str, Callable[[Path], Load]]] = {
    "PyAV, ours": ("av", of_chain("pyav")),
    "torchcodec": ("torchcodec", torchcodec),
    "torchcodec, checked": ("torchcodec", of_chain("torchcodec")),
    "decord2": ("decord", decord),
    "decord2, checked": ("decord", of_chain("decord")),
    "OpenCV": ("cv2", opencv),
}


def healthy_clips(folder: Path) -> Iterator[tuple[Path, Sequence[int], Callable[[Any], int | None]]]:
    """Clips, what is painted into each shown frame, and what reads it; made where they aren't there."""
    from clips import make_good_clips, read_frame_number
    from media.corpus import CASES, Serves, make

    from wan_fixes.media import is_video

    for truth in make_good_clips(folder / "good"):
        yield truth.path, range(truth.frame_count), read_frame_number
    for place, case in enumerate(CASES):
        if isinstance(case.truth, Serves) and is_video(case.file) and len(case.truth.numbers) >= WINDOW:
            path = folder / f"{place:03d}" / case.file
            if path.exists() or (path := make(case, folder)) is not None:
                yield path, case.truth.numbers, case.truth.read


def tell_exactness(method: str, folder: Path, skip: int) -> None:
    """Print as JSON how many frames of each clip are exact, wrong, refused: a line for each, lest a crash take all."""
    prepare = METHODS[method][1]
    for path, numbers, read in itertools.islice(healthy_clips(folder), skip, None):
        told: Counter[str] = Counter()
        for seed in range(WINDOWS):
            start = random.Random(seed).randrange(len(numbers) - WINDOW + 1)
            indices = range(start, start + WINDOW)
            try:
                pictures = prepare(path)(indices, None)
            except Exception:  # noqa: BLE001 - whatever a library raises is its refusal
                told["refused"] += WINDOW
                continue
            for index, picture in zip(indices, pictures, strict=True):
                told["exact" if read(np.ascontiguousarray(picture)) == numbers[index] else "wrong"] += 1
        sys.stdout.write(json.dumps([path.name, told]) + "\n")
        sys.stdout.flush()


def tell_speed(method: str, path: Path, _: int) -> None:
    started = time.perf_counter()
    load = METHODS[method][1](path)
    opened = time.perf_counter() - started
    first = (data_path.CLIP_FRAMES - data_path.FRAMES) // 2
    indices = range(first, first + data_path.FRAMES)
    load(indices, SIZE)
    started, used = time.perf_counter(), data_path._used()
    for _ in range(CLIPS):
        load(indices, SIZE)
    wall, cpu = (time.perf_counter() - started) / CLIPS, (data_path._used() - used) / CLIPS
    figures = {"opened": opened, "wall": wall, "cpu": cpu, "peak": data_path._peak()}
    sys.stdout.write(json.dumps(figures) + "\n")


def make_clip(_: str, path: Path, __: int) -> None:
    """In a process of its own, too: those that follow would begin with the memory of this one as their peak."""
    data_path.make_clip(path, 1920, 1080, 24)


def exactness(method: str, folder: Path) -> list[Counter[str]]:
    """For each clip. One that ends its process is refused, and another process goes on behind it."""
    clips = sum(1 for _ in healthy_clips(folder))
    told: list[Counter[str]] = []
    while len(told) < clips:
        told += [Counter(counts) for _, counts in ask("exactness", method, folder, len(told))]
        if len(told) < clips:
            told.append(Counter(refused=WINDOW * WINDOWS))
    return told


def ask(what: str, method: str, path: Path, skip: int = 0) -> list[Any]:
    """What a process of its own tells, line by line, as far as it came."""
    command = [sys.executable, __file__, "--tell", what, method, str(path), str(skip)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        told, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        told, _ = process.communicate()
    return [json.loads(line) for line in told.splitlines() if line.startswith(("[", "{"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of speed; the median of so many is shown")
    parser.add_argument("--tell", nargs=4, metavar=("WHAT", "METHOD", "PATH", "SKIP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tell:
        what, method, path, skip = arguments.tell
        tell = {"clip": make_clip, "exactness": tell_exactness, "speed": tell_speed}[what]
        tell(method, Path(path), int(skip))
        return
    from rich.console import Console
    from rich.table import Table

    methods = [name for name, (package, _) in METHODS.items() if importlib.util.find_spec(package)]
    table = Table("decoder", "exact", "wrong", "refused", "clips all exact", "s a clip", "÷ ours", "CPU s", "peak MB")
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "1080p.mp4")
        ask("clip", "", clip)
        rounds = [{name: ask("speed", name, clip)[0] for name in methods} for _ in range(arguments.rounds)]
        for name in methods:
            told = exactness(name, Path(folder, "clips"))
            total = sum(told, Counter())
            wholly = sum(counts["exact"] == WINDOW * WINDOWS for counts in told)
            speed = {key: statistics.median(r[name][key] for r in rounds) for key in ("wall", "cpu", "peak")}
            ratio = statistics.median(r["PyAV, ours"]["wall"] / r[name]["wall"] for r in rounds)
            counted = [str(total[key]) for key in ("exact", "wrong", "refused")] + [f"{wholly} of {len(told)}"]
            cells = (f"{speed['wall']:.2f}", f"{ratio:.2f}", f"{speed['cpu']:.2f}", f"{speed['peak']:.0f}")
            table.add_row(name, *counted, *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "tests")]
    main()
