"""A folder with bad files, end to end: from paths to cached tensors, by threads and within a limit of memory.

    python benchmarks/messy_folder.py [--clips N] [--memory MB]    MGDS's rows need the real mgds on the path

Clips of 1280x720 and 24 fps, of which 81 frames are decoded to 832x480 and a small part of them is cached. Every row
has as many files, of which none, every tenth or every second is bad, and is a process of its own, with a limit of
memory for it and for each of its workers (RLIMIT_DATA, on Linux). MGDS has no such limit: it decodes at full size.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

FRAMES, HEIGHT, WIDTH = 81, 480, 832
THREADS = (1, 4, 16)
BAD_SHARES = (0.0, 0.1, 0.5)
STOCK_THREADS = 4


def make_folder(folder: Path, clips: int, share: float) -> None:
    """Clips, all alike but for a number behind each, of which `share` are bad, in six ways."""
    import numpy
    from clips import write_clip

    folder.mkdir(parents=True)
    y, x = numpy.mgrid[0:720, 0:1280].astype(numpy.float32)
    grain = numpy.random.default_rng(0).normal(0, 2, (720, 1280)).astype(numpy.float32)

    def picture(number: int) -> Any:
        waves = 128 + 60 * numpy.sin(x / 37 + number / 5) + 50 * numpy.cos(y / 23 + number / 9)
        moved = numpy.roll(grain, number * 7, axis=1)
        return numpy.clip((waves + moved)[..., None] + numpy.zeros(3), 0, 255).astype(numpy.uint8)

    clip = write_clip(folder / "clip000.mp4", map(picture, range(100)), rate=Fraction(24)).read_bytes()
    bad = random.Random(0).sample(range(clips), round(share * clips))
    for number in range(clips):
        content = _WAYS[bad.index(number) % len(_WAYS)](clip) if number in bad else clip
        (folder / f"clip{number:03}.mp4").write_bytes(content + number.to_bytes(8, "big"))


def _flipped(clip: bytes) -> bytes:
    places = random.Random(0).sample(range(len(clip) // 10, len(clip) * 9 // 10), 200)
    content = bytearray(clip)
    for place in places:
        content[place] ^= 0x5A
    return bytes(content)


_WAYS: tuple[Callable[[bytes], bytes], ...] = (
    lambda clip: clip[: len(clip) // 2],
    _flipped,
    lambda clip: b"",
    lambda clip: bytes(4096) + clip[4096:],
    lambda clip: b"<!doctype html><title>Not found</title>",
    lambda clip: clip[: clip.index(b"moov") + 4] + bytes(len(clip) - clip.index(b"moov") - 4),
)


def work(folder: Path, threads: int, memory_mb: int, *, stock: bool) -> None:
    """One epoch of caching; prints its figures as JSON."""
    import psutil
    from clip_cache import Step, caching_definition, pipeline_over, shrunk

    from wan_fixes.pipeline import PipelineContext
    from wan_fixes.pipeline.scale_crop import SafeScaleCrop
    from wan_fixes.settings import Settings

    if sys.platform == "linux" and not stock:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory_mb << 20, memory_mb << 20))

    made = {"scale": (HEIGHT, 853), "crop": (HEIGHT, WIDTH), "jitter": False}
    sizes, latent = Step("image_path", tuple(made), lambda _: made), Step("image", ("latent",), shrunk)
    with tempfile.TemporaryDirectory() as top:
        cache = Path(top, "cache")
        context = PipelineContext.create(Path(top, "files"), settings=Settings(decode_memory_mb=memory_mb))

        def between(loader: Any) -> list[Any]:
            scale_crop = SafeScaleCrop(["image"], "scale", "crop", "jitter", None, loader=loader, context=context)
            return [sizes, scale_crop, latent]

        definition = _stock_definition(cache, sizes, latent) if stock else caching_definition(cache, context, between)
        started = time.perf_counter()
        pipeline = pipeline_over(folder, definition, threads)
        ended = ""
        try:
            pipeline.start_next_epoch()
        except Exception as error:  # noqa: BLE001 - what ends MGDS at a bad clip is a figure too
            ended = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - started
        trained = sum(1 for _ in cache.rglob("*.pt" if stock else "*.safetensors"))
        figures = {
            "seconds": seconds,
            "trained": trained,
            "named": len(context.roster.reasons()),
            "peak": _peak_mb(os.getpid()),
            "workers": sum(_peak_mb(child.pid) for child in psutil.Process().children()),
            "ended": ended,
        }
        context.close()
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()
    os._exit(0)  # MGDS's loader threads may go on for long


def _stock_definition(cache: Path, sizes: Any, latent: Any) -> list[Any]:
    import torch
    from clip_cache import PATH_NAMES
    from mgds.OutputPipelineModule import OutputPipelineModule
    from mgds.pipelineModules.CollectPaths import CollectPaths
    from mgds.pipelineModules.DiskCache import DiskCache
    from mgds.pipelineModules.LoadVideo import LoadVideo
    from mgds.pipelineModules.ScaleCropImage import ScaleCropImage

    return [
        CollectPaths(*PATH_NAMES, {".mp4"}, None, None),
        LoadVideo("image_path", "settings.frames", "image", 0.0, 1.0, 24, {".mp4"}, torch.bfloat16),
        sizes,
        ScaleCropImage(["image"], "scale", "crop", "jitter", "crop_offset"),
        latent,
        DiskCache(str(cache), ["latent"], ["image_path"]),
        OutputPipelineModule(["latent", "image_path"]),
    ]


def _peak_mb(pid: int) -> int:
    """Most resident memory that a process has had, in MiB; 0 where the system doesn't say."""
    try:
        lines = Path("/proc", str(pid), "status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--memory", type=int, default=6000, metavar="MB", help="limit for each process")
    parser.add_argument("--work", nargs=3, metavar=("FOLDER", "THREADS", "WHOSE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        folder, threads, whose = arguments.work
        work(Path(folder), int(threads), arguments.memory, stock=whose == "MGDS")
        return
    from rich.console import Console
    from rich.table import Table

    from wan_fixes.pipeline.base import ENGINE

    table = Table(
        "bad files", "by", "threads", "cached", "named", "good clips/s", "peak MB", "its workers' MB", "ended with",
        title=f"{arguments.clips} files of 1280x720, {FRAMES} frames to {WIDTH}x{HEIGHT}",
    )  # fmt: skip
    common = [sys.executable, __file__, "--memory", str(arguments.memory)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as top:
        for share in BAD_SHARES:
            folder = Path(top, f"{share:g}", "clips")
            make_folder(folder, arguments.clips, share)
            rows = [("ours", threads) for threads in THREADS]
            if ENGINE == "mgds" and share < 0.5:
                rows.append(("MGDS", STOCK_THREADS))
            for whose, threads in rows:
                command = [*common, "--work", str(folder), str(threads), whose]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
                figures = json.loads(done.stdout.splitlines()[-1])
                table.add_row(
                    f"{share:.0%}", whose, str(threads), str(figures["trained"]), str(figures["named"]),
                    f"{figures['trained'] / figures['seconds']:.2f}", str(figures["peak"]),
                    str(figures["workers"]), figures["ended"],
                )  # fmt: skip
            table.add_section()
    Console().print(table)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
    main()
