"""How much memory this process and this machine use."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_MB = 1024 * 1024
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """Memory in MB (1024² bytes)."""

    current_usage_mb: float
    """Resident memory of this process."""
    peak_usage_mb: float
    """The most resident memory that this process ever had."""
    available_mb: float
    """What can still be had before the machine, or the container, swaps or kills."""
    gpu_usage_mb: float | None
    """What torch holds on all accelerators together; None when torch is not loaded or uses none."""
    swap_usage_mb: float
    """Swap in use on this machine."""
    total_mb: float = 0.0
    """Memory of the machine, or of the container where that is less."""

    @property
    def used_fraction(self) -> float:
        """The share of the machine's (or container's) memory in use, 0 to 1."""
        return 1.0 - self.available_mb / self.total_mb if self.total_mb else 0.0


def memory_stats() -> MemoryStats:
    """Measure now. Never loads torch, and never wakes a GPU that torch has not used yet."""
    usage = psutil.Process().memory_info()
    machine = psutil.virtual_memory()
    total, available = machine.total, machine.available
    limit = _container_limit(_CGROUPS)
    if limit is not None and limit[0] < total:
        total, available = limit[0], min(available, limit[1])
    return MemoryStats(
        current_usage_mb=usage.rss / _MB,
        peak_usage_mb=max(_peak_bytes(usage), usage.rss) / _MB,
        available_mb=available / _MB,
        gpu_usage_mb=_gpu_mb(sys.modules.get("torch")),
        swap_usage_mb=_swap_bytes() / _MB,
        total_mb=total / _MB,
    )


def _peak_bytes(usage: Any) -> int:
    if sys.platform == "win32":
        return int(usage.peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, the others KiB


def _swap_bytes() -> int:
    try:
        return int(psutil.swap_memory().used)
    except (OSError, RuntimeError):  # containers may hide it
        return 0


def _container_limit(root: Path) -> tuple[int, int] | None:
    """(limit, available) in bytes of the container that this process runs in, or None when it has no limit.

    psutil shows the whole machine's memory inside a container. File cache is counted as available: the kernel
    drops it before it kills.
    """
    for limit_name, used_name, cache_key in (
        ("memory.max", "memory.current", "inactive_file"),  # cgroup v2
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),  # cgroup v1
    ):
        try:
            limit = int((root / limit_name).read_text(encoding="ascii"))
            used = int((root / used_name).read_text(encoding="ascii"))
            statistics = (root / limit_name).with_name("memory.stat").read_text(encoding="ascii")
        except (OSError, ValueError):  # no such file, or "max"
            continue
        cache = next((int(line.split()[1]) for line in statistics.splitlines() if line.startswith(f"{cache_key} ")), 0)
        return limit, max(0, limit - used + cache)
    return None


def _gpu_mb(torch: Any) -> float | None:
    """What `torch` (a module, maybe half imported by another thread, or None) holds on accelerators."""
    for name in ("cuda", "xpu"):
        backend: Any = getattr(torch, name, None)
        # is_initialized first: asking for anything else would create a context of some hundred MB.
        is_initialized = getattr(backend, "is_initialized", None)
        if is_initialized is not None and is_initialized():
            return sum(backend.memory_reserved(device) for device in range(backend.device_count())) / _MB
    mps = getattr(torch, "mps", None)
    built = getattr(getattr(torch, "backends", None), "mps", None)
    if mps is not None and built is not None and built.is_available():
        return float(mps.driver_allocated_memory()) / _MB
    return None
