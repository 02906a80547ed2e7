"""From a file to the frames that a sample takes, scaled: ours, MGDS's stock modules, and a bare ffmpeg.

    python benchmarks/data_path.py [--rounds N] [--case NAME …] [--method NAME …]

Stock needs the real mgds on the path, and torchvision.
81 frames to `[3, 81, 480, 832]`. Every figure is of processes of their own: clips a second of all of them together,
seconds of processor time a clip, and the largest size of one in memory (that of its own worker process added), in which
torch alone takes about 300 MB. The methods take turns, so that a change of the machine's speed meets all of them.

Ours reads in worker processes, as it does for users; "ours, no worker" is the same in the process itself. The bare
ffmpeg seeks to where our window begins, decodes and scales the same range, and hands the frames over by a pipe.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil

FRAMES = 81
HEIGHT, WIDTH = 480, 832
CLIP_FRAMES = 130
CLIPS = 3  # that a process loads, after one that is not counted
ROUNDS = 3
CASES = {
    f"{name} {codec} {rate} fps": (width, height, codec, rate)
    for name, width, height in (("1080p", 1920, 1080), ("480p", WIDTH, HEIGHT))
    for codec in ("h264", "hevc")
    for rate in (24, 30)
}
ENCODERS = {
    "h264": ("libx264", {"preset": "medium", "crf": "21"}),
    "hevc": ("libx265", {"preset": "fast", "crf": "24", "x265-params": "log-level=none"}),
}


def make_clip(path: Path, width: int, height: int, codec: str, rate: int) -> None:
    """Waves and a little grain: neither flat nor noise alone, at the bit rate of footage from the web."""
    import numpy
    from clips import write_clip

    y, x = numpy.mgrid[0:height, 0:width].astype(numpy.float32)
    grain = numpy.random.default_rng(0).normal(0, 2, (height, width)).astype(numpy.float32)

    def picture(number: int) -> Any:
        channels = (
            60 * numpy.sin(x / 37 + number / 5) + 50 * numpy.sin((x + y) / 11),
            60 * numpy.cos(y / 23) + 50 * numpy.sin((x - y) / 17 + number / 3),
            80 * numpy.sin((x * x + y * y) / 90000 + number / 7),
        )
        moved = numpy.roll(grain, number * 7, axis=1)
        return numpy.clip(128 + numpy.stack(channels, -1) + moved[..., None], 0, 255).astype(numpy.uint8)

    encoder, options = ENCODERS[codec]
    write_clip(path, map(picture, range(CLIP_FRAMES)), rate=Fraction(rate), encoder=encoder, options=options)


def ours(*, isolated: bool) -> Callable[[Path], Callable[[], Any]]:
    def prepare(path: Path) -> Callable[[], Any]:
        import torch

        from wan_fixes.hosts.standalone.bucket_sizes import covering_size
        from wan_fixes.media import Fit, MediaReader, plan_frames
        from wan_fixes.pipeline.pixels import to_range

        reader = MediaReader(deadline=120, isolated=isolated)
        metadata = reader.probe(path)
        plan = plan_frames(metadata, count=FRAMES, fps=24)
        size = covering_size((metadata.height, metadata.width), (HEIGHT, WIDTH))
        crop = ((size[0] - HEIGHT) // 2, (size[1] - WIDTH) // 2, HEIGHT, WIDTH)

        def to_tensor(frames: Any) -> torch.Tensor:
            return to_range(torch.from_numpy(frames), 0.0, 1.0, torch.bfloat16)

        return lambda: reader.decode(path, plan, to_tensor, fit=Fit(size, crop))

    return prepare


def stock(path: Path) -> Callable[[], Any]:
    import torch
    from mgds.ConceptPipelineModule import ConceptPipelineModule
    from mgds.LoadingPipeline import LoadingPipeline
    from mgds.PipelineModule import PipelineModule, PipelineState
    from mgds.pipelineModules.AspectBucketing import AspectBucketing
    from mgds.pipelineModules.CalcAspect import CalcAspect
    from mgds.pipelineModules.LoadVideo import LoadVideo
    from mgds.pipelineModules.ScaleCropImage import ScaleCropImage
    from mgds.pipelineModuleTypes.RandomAccessPipelineModule import RandomAccessPipelineModule
    from mgds.SettingsPipelineModule import SettingsPipelineModule

    items = {"path": str(path), "jitter": False, "resolution": f"{WIDTH}x{HEIGHT}"}

    class Paths(PipelineModule, RandomAccessPipelineModule):
        def length(self) -> int:
            return 1 << 20

        def get_inputs(self) -> list[str]:
            return []

        def get_outputs(self) -> list[str]:
            return list(items)

        def get_item(self, variation: int, index: int, requested_name: str | None = None) -> dict[str, Any]:
            return items

    reader = CalcAspect("image", "read")
    modules = [
        ConceptPipelineModule([{}]),
        SettingsPipelineModule({"target_frames": str(FRAMES)}),
        Paths(),
        LoadVideo("path", "settings.target_frames", "image", 0, 1, 24, {".mp4"}, dtype=torch.bfloat16),
        CalcAspect("image", "size"),
        AspectBucketing(
            16, "size", "resolution", None, None, "settings.target_frames", True, "scale", "crop", "possible"
        ),
        ScaleCropImage(["image"], "scale", "crop", "jitter", "offset"),
        reader,
    ]
    LoadingPipeline(torch.device("cpu"), modules, 1, 0, PipelineState(1))
    counter = iter(range(1 << 20))
    return lambda: reader._get_previous_item(0, "image", next(counter))


def ffmpeg(path: Path) -> Callable[[], Any]:
    from wan_fixes.media import plan_frames, probe

    metadata = probe(path)
    start = plan_frames(metadata, count=FRAMES, fps=24).times[0]
    filters = f"fps=24,scale=-2:{HEIGHT}:flags=bilinear,crop={WIDTH}:{HEIGHT}"
    command = ["ffmpeg", "-v", "error", "-ss", f"{start - 0.5 / metadata.fps:.6f}", "-i", str(path)]
    command += ["-frames:v", str(FRAMES), "-vf", filters, "-pix_fmt", "gbrp", "-f", "rawvideo", "-"]

    def load() -> int:
        size = len(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        assert size == 3 * FRAMES * HEIGHT * WIDTH, f"ffmpeg gave {size} bytes"
        return size

    return load


def other(name: str) -> Callable[[Path], Callable[[], Any]]:
    """Another decoder library as `decoders.py` uses it, asked for the frames and the size that ours gives."""

    def prepare(path: Path) -> Callable[[], Any]:
        import decoders
        import numpy
        import torch

        from wan_fixes.hosts.standalone.bucket_sizes import covering_size
        from wan_fixes.media import plan_frames, probe
        from wan_fixes.pipeline.pixels import to_range

        metadata = probe(path)
        indices = plan_frames(metadata, count=FRAMES, fps=24).indices
        size = covering_size((metadata.height, metadata.width), (HEIGHT, WIDTH))
        rows, columns = (slice((a - b) // 2, (a - b) // 2 + b) for a, b in zip(size, (HEIGHT, WIDTH), strict=True))
        load_frames = decoders.METHODS[name][1](path)

        def load() -> Any:
            pictures = numpy.stack([picture[rows, columns] for picture in load_frames(indices, size)])
            return to_range(torch.from_numpy(pictures).permute(3, 0, 1, 2), 0.0, 1.0, torch.bfloat16)

        return load

    return prepare


#: Name -> package, of the libraries beside PyAV.
OTHERS = {"torchcodec": "torchcodec", "decord2": "decord", "OpenCV": "cv2"}
METHODS: dict[str, Callable[[Path], Callable[[], Any]]] = {
    "ours": ours(isolated=True),
    "ours, no worker": ours(isolated=False),
    "MGDS": stock,
    "bare ffmpeg": ffmpeg,
    **{name: other(name) for name in OTHERS},
}


def work(method: str, path: Path) -> None:
    """What one process does: prints its figures as JSON when all processes have begun."""
    load = METHODS[method](path)
    load()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    started, used = time.perf_counter(), _used()
    for _ in range(CLIPS):
        load()
    figures = {"wall": time.perf_counter() - started, "cpu": _used() - used, "peak": _peak()}
    sys.stdout.write(json.dumps(figures) + "\n")


def _used() -> float:
    """Seconds of processor time, those of children with them, finished or not."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    running = [child.cpu_times() for child in psutil.Process().children()]
    return sum(times.ru_utime + times.ru_stime for times in (own, children)) + sum(t.user + t.system for t in running)


def _peak() -> float:
    """The largest resident size so far in MB, of this process and its worker, or of its largest finished child.

    What the two share is in this process's size.
    """
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    running = 0.0
    for child in psutil.Process().children():
        now, status = child.memory_full_info(), Path(f"/proc/{child.pid}/status").read_text()
        largest = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
        running += largest - (now.rss - now.uss) / 1024
    return max(own + running, children) / 1024


def measure(method: str, path: Path, workers: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--work", method, str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(workers)
    ]
    for process in processes:
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{method} failed")
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    figures = [json.loads(process.communicate()[0]) for process in processes]
    return {
        "rate": sum(CLIPS / figure["wall"] for figure in figures),
        "cpu": sum(figure["cpu"] for figure in figures) / CLIPS / workers,
        "peak": max(figure["peak"] for figure in figures),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="the median of so many is shown")
    parser.add_argument("--case", action="append", choices=CASES, help="only this one; may be given again")
    parser.add_argument("--method", action="append", choices=METHODS, help="only this one beside ours; again for more")
    parser.add_argument("--work", nargs=2, metavar=("METHOD", "CLIP"), help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=2, metavar=("NAME", "CLIP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make_clip(Path(arguments.make[1]), *CASES[arguments.make[0]])
        return
    if arguments.work:
        work(arguments.work[0], Path(arguments.work[1]))
        return
    from rich.console import Console
    from rich.table import Table

    chosen = METHODS if arguments.method is None else {"ours", *arguments.method}
    methods = [name for name in METHODS if name in chosen and _usable(name)]
    table = Table("clip", "workers", "method", "clips/s", "÷ ours", "CPU s a clip", "peak MB")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.case or CASES:
            path = Path(folder, f"{name}.mp4")
            # Not here: the peak of a child begins at the size of its parent.
            subprocess.run([sys.executable, __file__, "--make", name, str(path)], check=True)
            megabits = path.stat().st_size * 8 / 1e6 / (CLIP_FRAMES / CASES[name][-1])
            for workers in (1, 2):
                rounds = [
                    {method: measure(method, path, workers) for method in methods} for _ in range(arguments.rounds)
                ]
                for method in methods:
                    values = {key: statistics.median(r[method][key] for r in rounds) for key in ("rate", "cpu", "peak")}
                    ratio = statistics.median(r[method]["rate"] / r["ours"]["rate"] for r in rounds)
                    cells = (f"{values['rate']:.2f}", f"{ratio:.2f}", f"{values['cpu']:.2f}", f"{values['peak']:.0f}")
                    table.add_row(f"{name}, {megabits:.1f} Mb/s", str(workers), method, *cells)
                table.add_section()
    Console().print(table)


def _usable(method: str) -> bool:
    if method == "bare ffmpeg":
        return shutil.which("ffmpeg") is not None
    if method == "MGDS":
        try:
            import mgds.pipelineModules.ScaleCropImage  # noqa: F401
        except ImportError:
            return False
    return method not in OTHERS or importlib.util.find_spec(OTHERS[method]) is not None


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
    main()
