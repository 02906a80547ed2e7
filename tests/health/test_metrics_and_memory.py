"""Counts are exact under many threads, and memory is measured without waking anything."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.health import Metrics, memory, memory_stats, total


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "x", "y"]), st.integers(0, 1000))))
def test_counters_are_sums_by_name_and_label(counts: list[tuple[str, str, int]]) -> None:
    metrics = Metrics()
    for name, label, n in counts:
        metrics.count(name, n, **({"cache": label} if label else {}))
    snapshot = metrics.snapshot()
    for name in "abc":
        assert total(snapshot, name) == sum(n for counted, _, n in counts if counted == name)
    assert snapshot.get("a{cache=x}", 0) == sum(n for name, label, n in counts if (name, label) == ("a", "x"))


def test_no_count_is_lost_between_threads() -> None:
    metrics = Metrics()

    def work() -> None:
        for _ in range(5000):
            metrics.count("samples")
            metrics.time("load", 0.5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.snapshot() == {
        "samples": 20_000,
        "load.calls": 20_000,
        "load.seconds": 10_000,
        "load.max_seconds": 0.5,
    }


def test_a_snapshot_does_not_change_afterwards() -> None:
    metrics = Metrics()
    metrics.count("a")
    before = metrics.snapshot()
    metrics.count("a")
    assert before == {"a": 1}


def test_memory_of_this_process_is_plausible() -> None:
    stats = memory_stats()
    assert 5 < stats.current_usage_mb <= stats.peak_usage_mb < stats.total_mb
    assert 0 < stats.available_mb <= stats.total_mb
    assert 0 <= stats.used_fraction < 1
    assert stats.swap_usage_mb >= 0


def test_memory_taken_is_seen() -> None:
    before = memory_stats().current_usage_mb
    block = bytearray(b"x" * (64 * 1024 * 1024))
    assert memory_stats().current_usage_mb > before + 50
    assert len(block) > 0


@pytest.mark.parametrize(
    ("limit", "used", "folder", "key"),
    [
        ("memory.max", "memory.current", ".", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory", "total_inactive_file"),
    ],
)
def test_a_container_limit_counts_file_cache_as_available(
    tmp_path: Path, limit: str, used: str, folder: str, key: str
) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / limit).write_text("1000\n", encoding="ascii")
    (tmp_path / folder / used).write_text("900\n", encoding="ascii")
    (tmp_path / folder / "memory.stat").write_text(f"anon 600\n{key} 300\nfile 300\n", encoding="ascii")
    assert memory._container_limit(tmp_path) == (1000, 400)


def test_a_container_without_limit_is_no_container(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    assert memory._container_limit(tmp_path) is None


@pytest.mark.skipif(not Path("/sys/fs/cgroup").exists(), reason="Linux only")
def test_the_container_limit_lowers_total_and_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("memory.max", 2**26), ("memory.current", 2**25), ("memory.stat", "inactive_file 0")):
        (tmp_path / name).write_text(f"{value}\n", encoding="ascii")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    stats = memory_stats()
    assert stats.total_mb == 64
    assert stats.available_mb == 32
    assert stats.used_fraction == 0.5


def backend(initialized: bool) -> SimpleNamespace:
    return SimpleNamespace(
        is_initialized=lambda: initialized, device_count=lambda: 2, memory_reserved=lambda device: 2**20 * (device + 1)
    )


def test_gpu_memory_is_the_sum_over_devices_once_torch_uses_them() -> None:
    assert memory._gpu_mb(None) is None
    assert memory._gpu_mb(SimpleNamespace()) is None  # half imported
    assert memory._gpu_mb(SimpleNamespace(cuda=backend(False))) is None
    assert memory._gpu_mb(SimpleNamespace(cuda=backend(True))) == 3.0
    assert memory._gpu_mb(SimpleNamespace(cuda=backend(False), xpu=backend(True))) == 3.0


@pytest.mark.gpu
def test_gpu_memory_taken_is_seen() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    block = torch.zeros(64 * 1024 * 1024, dtype=torch.uint8, device="cuda")
    taken = memory_stats().gpu_usage_mb
    assert taken is not None
    assert taken >= block.numel() / 2**20
