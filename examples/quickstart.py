"""The main job on a small scale: clips, broken ones among them, a tiny WAN, a check, and a trained LoRA.

    python examples/quickstart.py [FOLDER]

Everything lies in FOLDER (default: quickstart-output in the repository). Clips and model are made once and kept, so
that a second run finds every sample in the cache.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

EXAMPLES = Path(__file__).resolve().parent
PRESET = EXAMPLES / "presets" / "tiny-t2v-lora.json"

console = Console(highlight=False)


def make_once(folder: Path, makers: list[str], make: Callable[[Path], None]) -> None:
    """Call `make(folder)` unless it was done before, with these sources, to the end."""
    sources = b"".join((EXAMPLES / name).read_bytes() for name in [*makers, Path(__file__).name])
    stamp = folder.with_name(f"{folder.name}.made-by")
    made_by = hashlib.sha256(sources).hexdigest()
    if folder.is_dir() and stamp.is_file() and stamp.read_text(encoding="utf-8") == made_by:
        return
    shutil.rmtree(folder, ignore_errors=True)
    make(folder)
    stamp.write_text(made_by, encoding="utf-8")


def make_clips(folder: Path) -> None:
    """About a dozen good clips, about as many broken files, and real footage where a package ships some."""
    from clips import add_real_footage, make_broken_files, make_good_clips

    good = make_good_clips(folder)
    broken = make_broken_files(folder)
    footage = add_real_footage(folder)
    console.print(f"made {len(good)} clips and {len(broken)} with faults; real footage: {len(footage)}")


def make_model(folder: Path) -> None:
    """A tiny random WAN in diffusers' layout."""
    from tiny_wan import make_tiny_wan
    from transformers.utils import logging

    logging.disable_progress_bar()
    make_tiny_wan(folder)
    console.print("made a tiny WAN (the real classes, at tiny sizes)")


def wan(*arguments: str) -> int:
    """Run the command line in this process; return its exit code."""
    from wan_fixes.cli.main import run

    console.rule(f"wan {' '.join(arguments)}", align="left")
    return run(list(arguments))


def main() -> int:
    """Make what is missing, check the clips, train. Returns the exit code of the training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=EXAMPLES.parent / "quickstart-output")
    folder = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    # Before torch is imported: for so small a model its threads cost many times what they save on a busy machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    make_once(folder / "clips", ["clips.py", "broken_files.py", "mp4_boxes.py", "painted.py"], make_clips)
    make_once(folder / "model", ["tiny_wan.py"], make_model)
    os.chdir(folder)  # the preset names clips, model and results relative to where it is run
    failed = wan("check", str(PRESET)) or wan("train", "--config", str(PRESET))
    console.print(f"\nEverything lies in {folder}", markup=False, soft_wrap=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
