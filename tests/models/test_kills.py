"""A download that is killed at any byte goes on where it was, and several callers fetch one copy (M3, M5).

The server itself kills the process, when it has given as many bytes as were drawn.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from effort import times

from wan_fixes.models.partial_file import PART_BYTES
from wan_fixes.models.records import sha256_of

from .hub_server import Hub, running_hub
from .world import REPOSITORY, content_of, ensurer, memory_folder, model_files

SIZE = 256 << 20
LARGE = "transformer/diffusion_pytorch_model.safetensors"
CONNECTIONS = 4

# What a child runs: no pytest, no fixtures.
ENSURE = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from tests.models.world import ensurer
    class Hub:
        address = sys.argv[2]
    folder = ensurer(Path(sys.argv[3]), Hub, part_bytes=int(sys.argv[4]), connections=int(sys.argv[5])).ensure("tiny")
    print(folder)
"""


@pytest.fixture(scope="module")
def large() -> bytes:
    return b"".join(random.Random(seed).randbytes(1 << 20) for seed in range(SIZE >> 20))


@pytest.fixture(scope="module")
def digest(large: bytes) -> str:
    return hashlib.sha256(large).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=memory_folder() or tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def large_hub(large: bytes) -> Iterator[Hub]:
    with running_hub() as server:
        server.add(REPOSITORY, {**model_files(), LARGE: large})
        yield server


def start(hub: Hub, root: Path, part_bytes: int = PART_BYTES) -> subprocess.Popen[bytes]:
    checkout = str(Path(__file__).resolve().parent.parent.parent)
    arguments = [checkout, hub.address, str(root), str(part_bytes), str(CONNECTIONS)]
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ENSURE), *arguments], env=environment, stdout=subprocess.PIPE
    )


def kill_at(hub: Hub, child: subprocess.Popen[bytes], count: int) -> int:
    """Kill the child when it was given so many bytes; returns how many bytes had been given in the end."""
    hub.at_bytes = count, lambda: psutil.Process(child.pid).kill()
    child.communicate(timeout=60)
    hub.at_bytes = None
    hub.settle()
    return hub.bytes_served


def check_kills(hub: Hub, root: Path, digest: str, rng: random.Random, count: int) -> None:
    """Kill one download so many times, at bytes drawn from all of the file, and let it end."""
    models = ensurer(root, hub, part_bytes=PART_BYTES, connections=CONNECTIONS)
    kept = 0
    for point in sorted(rng.randrange(1, SIZE) for _ in range(count)):
        hub.served.clear()
        child = start(hub, root)
        came = kill_at(hub, child, max(1, point - kept))
        assert child.returncode != 0
        before, kept = kept, models.status("tiny").bytes_there
        # Of what had come, at most the parts in flight are lost; nothing of what was there.
        assert kept >= before + came - CONNECTIONS * PART_BYTES
        assert kept >= before
    hub.served.clear()
    folder = models.ensure("tiny")
    assert hub.bytes_served == models.status("tiny").bytes_there - kept
    assert sha256_of(folder / LARGE) == digest
    assert not [path for path in root.rglob("*") if ".part" in path.name]


@pytest.mark.parametrize("seed", range(times(4, 6)))
def test_m5_a_kill_at_any_byte_costs_what_was_in_flight(large_hub: Hub, root: Path, digest: str, seed: int) -> None:
    check_kills(large_hub, root, digest, random.Random(seed), 10)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(100, 124))
def test_m5_many_kills(large_hub: Hub, root: Path, digest: str, seed: int) -> None:
    """Half of them in a download that was not begun before."""
    rng = random.Random(seed)
    for number, count in enumerate((5, 1, 1, 1, 1, 1)):
        check_kills(large_hub, root / str(number), digest, rng, count)
        shutil.rmtree(root / str(number))


@pytest.mark.parametrize("callers", [2, 8])
def test_m5_several_processes_fetch_one_copy(large_hub: Hub, root: Path, large: bytes, callers: int) -> None:
    children = [start(large_hub, root) for _ in range(callers)]
    assert [child.wait(120) for child in children] == [0] * callers
    folder = root / "wan21" / "tiny@1.0.0-original"
    assert (folder / LARGE).read_bytes() == large
    assert large_hub.bytes_served == sum(len(content) for content in content_of(folder).values())


def test_m3_a_waiting_process_takes_over_from_one_that_dies(large_hub: Hub, root: Path, large: bytes) -> None:
    first = start(large_hub, root)
    second = []
    large_hub.at_bytes = 50 << 20, lambda: second.append(start(large_hub, root))
    while not second and first.poll() is None:
        threading.Event().wait(0.01)
    kill_at(large_hub, first, large_hub.bytes_served + (20 << 20))
    assert second[0].wait(60) == 0
    assert (root / "wan21" / "tiny@1.0.0-original" / LARGE).read_bytes() == large


def test_m15_memory_is_constant_in_the_size_of_files(root: Path) -> None:
    """A file eight times as large takes no more memory, up to what a connection holds."""
    peaks = []
    for size in (32 << 20, 256 << 20):
        with running_hub() as server:
            server.add(REPOSITORY, {**model_files(), LARGE: bytes(size)})
            child = start(server, root / str(size))
            peak, process = 0, psutil.Process(child.pid)
            while child.poll() is None:
                with_children = 0
                try:
                    with_children = process.memory_info().rss
                except psutil.NoSuchProcess:
                    break
                peak = max(peak, with_children)
                threading.Event().wait(0.005)
            assert child.wait(60) == 0
            peaks.append(peak)
    assert peaks[1] < peaks[0] + (24 << 20)
