"""What a machine has for a model: memory of its GPU, main memory, space on its disk. What cannot be known is None."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from wan_fixes.models.layout import free_bytes

_ASK_SECONDS: Final = 10.0
_MIB: Final = 1 << 20


@dataclass(frozen=True)
class Hardware:
    """A machine, in bytes.

    Attributes
    ----------
    gpu:
        Its name; "" where there is none, or nobody knows.
    vram_total, vram_free:
        Of the GPU that has most free.
    main_memory_free:
        What programs can still have, without swapping.
    disk_free:
        On the disk where the models lie.
    """

    gpu: str = ""
    vram_total: int | None = None
    vram_free: int | None = None
    main_memory_free: int | None = None
    disk_free: int | None = None

    @classmethod
    def of_this_machine(cls, models_folder: Path) -> Hardware:
        """This one as it is now. Asks torch if that is loaded and has a GPU, else `nvidia-smi`; loads nothing."""
        gpu = _by_torch() or _by_nvidia_smi() or _Gpu("", None, None)
        return cls(gpu.name, gpu.total, gpu.free, psutil.virtual_memory().available, _disk_free(models_folder))

    def as_json(self) -> dict[str, Any]:
        """For programs: docs/vram.md describes it."""
        return {
            "gpu": self.gpu,
            "vram_total": self.vram_total,
            "vram_free": self.vram_free,
            "main_memory_free": self.main_memory_free,
            "disk_free": self.disk_free,
        }


def _disk_free(folder: Path) -> int | None:
    try:
        return free_bytes(folder)
    except OSError:  # the drive is away
        return None


class _Gpu(NamedTuple):
    name: str
    total: int | None
    free: int | None


def _by_torch() -> _Gpu | None:
    torch = sys.modules.get("torch")
    # Asking one that is not at work would make it take half a gigabyte of the GPU.
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return None
    try:
        free, total = torch.cuda.mem_get_info()
        return _Gpu(torch.cuda.get_device_name(), total, free)
    except RuntimeError:  # the GPU has gone, or an earlier fault stopped it: what nvidia-smi says is as good
        return None


def _by_nvidia_smi() -> _Gpu | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_ASK_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    gpus = [gpu for line in done.stdout.splitlines() if (gpu := _parsed(line)) is not None]
    return max(gpus, key=lambda gpu: gpu.free or 0, default=None)


def _parsed(line: str) -> _Gpu | None:
    """A line of nvidia-smi's: a name, and MiB twice."""
    name, *numbers = (part.strip() for part in line.rsplit(",", 2))
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        return None
    total, free = (int(number) * _MIB for number in numbers)
    return _Gpu(name, total, free)
