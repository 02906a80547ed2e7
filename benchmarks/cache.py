"""The sample cache: entries of WAN's size, starts on a complete cache, and how busy caching keeps the encoder.

    python benchmarks/cache.py entries [--count N]           writing and reading entries, beside torch and safetensors
    python benchmarks/cache.py start [--counts N ...]        see cache_start.py
    python benchmarks/cache.py overlap [--clips N] [--size W H] [--device cuda]

What they gave stands in docs/performance.md.
"""

from __future__ import annotations

import argparse
import mmap
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LATENT, TEXT = (16, 21, 60, 104), (512, 4096)
ROUNDS = 5


def table_of(title: str, *columns: str) -> Any:
    from rich.table import Table

    return Table(*columns, title=title)


# Entries


def entries(count: int, folder: Path) -> Any:
    """Seconds for each entry: written and flushed, read for the first time, read again.

    Every page is touched then, as training does: the library maps files, and reads nothing until that. Mapped memory is
    the file itself: so the library is shown reading into memory of its own too, as ours does.
    """
    import torch
    from safetensors.torch import load, load_file, save_file

    from wan_fixes.store import SampleStore

    def item(number: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(number)
        return {
            "latent": torch.randn(LATENT, generator=generator).to(torch.bfloat16),
            "text": torch.randn(TEXT, generator=generator).to(torch.bfloat16),
        }

    def flushed(write: Callable[[Any, Path], None]) -> Callable[[Any, Path], None]:
        """As careful as the store: to a file of another name, to the disk, renamed, and the folder to the disk."""

        def work(made: Any, path: Path) -> None:
            temporary = path.with_suffix(".tmp")
            write(made, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            handle = os.open(path.parent, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)

        return work

    store = SampleStore(folder / "store")
    ways: dict[str, tuple[Callable[[Any, int], Any] | None, Callable[[int], Any]]] = {
        "ours": (lambda made, number: store.put(f"{number:032x}", made), lambda number: store.get(f"{number:032x}")),
        "safetensors": (
            lambda made, number: flushed(save_file)(made, folder / f"{number}.safetensors"),
            lambda number: load_file(folder / f"{number}.safetensors"),
        ),
        "safetensors, not mapped": (
            None,
            lambda number: load((folder / f"{number}.safetensors").read_bytes()),
        ),
        "torch.save": (
            lambda made, number: flushed(torch.save)(made, folder / f"{number}.pt"),
            lambda number: torch.load(folder / f"{number}.pt", weights_only=True),
        ),
    }

    def read_all(read: Callable[[int], Any], number: int) -> None:
        for tensor in read(number).values():
            tensor.view(torch.uint8).flatten()[:: mmap.PAGESIZE].sum()

    seconds: dict[str, list[list[float]]] = {name: [[], [], []] for name in ways}
    for number in range(count):
        made = item(number)
        for name, (write, _) in ways.items():
            seconds[name][0] += [timed(write, made, number)] if write else []
    for again in (1, *[2] * ROUNDS):
        for number in range(count):
            for name, (_, read) in ways.items():
                seconds[name][again].append(timed(read_all, read, number))
    bare = [statistics.median(times) for times in seconds["safetensors"]]
    table = table_of(
        f"{count} entries of 4.2 + 4.2 MB, ms each (rate against safetensors)", "", "write", "first read", "later reads"
    )
    for name, columns in seconds.items():
        medians = [statistics.median(times) if times else None for times in columns]
        pairs = zip(medians, bare, strict=True)
        cells = ["" if own is None else f"{own * 1e3:.2f} ({other / own:.2f})" for own, other in pairs]
        table.add_row(name, *cells)
    store.close()
    return table


def timed(work: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


# Overlap


class PacedEncoder:
    """Takes a given time for a clip, and none of the processor's: one clip at a time, as a GPU does."""

    def __init__(self, seconds: float) -> None:
        self.spans: list[tuple[float, float]] = []
        self._seconds = seconds
        self._lock = threading.Lock()

    def modules(self, context: Any) -> list[Any]:
        from clip_cache import Step

        return [Step("image", ("latent",), self._encode)]

    def _encode(self, image: Any) -> dict[str, Any]:
        from clip_cache import shrunk

        with self._lock:
            started = time.perf_counter()
            time.sleep(self._seconds)
            self.spans.append((started, time.perf_counter()))
        return shrunk(image)


class VaeEncoder:
    """WAN 2.1's VAE at its released size, with random weights, in bf16 on a device."""

    def __init__(self, device: str) -> None:
        import torch
        from diffusers import AutoencoderKLWan

        self.spans: list[tuple[float, float]] = []
        self._vae = AutoencoderKLWan().eval().requires_grad_(False).to(device=device, dtype=torch.bfloat16)
        encode = self._vae.encode

        def clocked(picture: Any) -> Any:
            started = time.perf_counter()
            output = encode(picture)
            torch.cuda.synchronize()
            self.spans.append((started, time.perf_counter()))
            return output

        self._vae.encode = clocked

    def modules(self, context: Any) -> list[Any]:
        from clip_cache import Step

        from wan_fixes.pipeline import RobustTemporalVAE

        vae = RobustTemporalVAE("image", "distribution", self._vae, context=context)
        return [vae, Step("distribution", ("latent",), lambda found: {"latent": found.mode()[0].cpu()})]


def overlap(clips: int, top: Path, size: tuple[int, int], device: str | None) -> Any:
    """How busy caching keeps an encoder: seconds and share, from the first encode to the end of the last.

    Without a device it is one that takes 1.5 times as long as a clip takes to decode.
    """
    from fractions import Fraction

    from clip_cache import caching_definition, pipeline_over
    from clips import write_clip
    from painted import paint_frame

    from wan_fixes.pipeline import PipelineContext

    folder = top / "clips"
    folder.mkdir()
    width, height = size
    pictures = (paint_frame(number, width=width, height=height) for number in range(100))
    content = write_clip(folder / "clip000.mp4", pictures, rate=Fraction(24)).read_bytes()
    for number in range(1, clips):
        (folder / f"clip{number:03}.mp4").write_bytes(content + number.to_bytes(8, "big"))

    def cached(encoder: Any, threads: int) -> tuple[float, float]:
        """Seconds of caching all clips, and the share of them that the encoder was at work."""
        encoder.spans.clear()
        with tempfile.TemporaryDirectory(dir=top) as place:
            context = PipelineContext.create(Path(place) / "files")
            steps = encoder.modules(context)
            definition = caching_definition(Path(place) / "cache", context, lambda _: steps)
            spent = timed(pipeline_over(folder, definition, threads).start_next_epoch)
            context.close()
        spans = encoder.spans
        return spent, sum(stop - start for start, stop in spans) / (spans[-1][1] - spans[0][0])

    decoding = cached(PacedEncoder(0.0), 1)[0] / clips
    encoder = VaeEncoder(device) if device else PacedEncoder(1.5 * decoding)
    cached(encoder, 1)  # the first calls of a GPU are slow
    encoding = statistics.median(stop - start for start, stop in encoder.spans)
    table = table_of(
        f"{clips} clips of {width}x{height}, 81 frames: decoding {decoding:.2f} s each, encoding {encoding:.2f} s",
        "threads", "seconds", "encoder busy",
    )  # fmt: skip
    for threads in (1, 2, 4):
        spent, busy = cached(encoder, threads)
        table.add_row(str(threads), f"{spent:.1f}", f"{busy:.0%}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("entries", "start", "overlap"))
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--size", type=int, nargs=2, default=(832, 480), help="width and height of the clips")
    parser.add_argument("--device", help="encode by WAN's VAE on this device, such as cuda")
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    arguments = parser.parse_args()
    from rich.console import Console

    with tempfile.TemporaryDirectory() as top:
        if arguments.what == "entries":
            table = entries(arguments.count, Path(top))
        elif arguments.what == "start":
            from cache_start import starts

            table = starts(arguments.counts, Path(top))
        else:
            table = overlap(arguments.clips, Path(top), tuple(arguments.size), arguments.device)
    Console().print(table)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
    main()
