"""What every test may use: the clip and model makers of `examples/`, and real MGDS where WAN_FIXES_MGDS names it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine.toys import put_mgds_on_path
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
settings.register_profile("no deadline", deadline=None)  # a busy machine is slow, and that is no counterexample
settings.load_profile("no deadline")
put_mgds_on_path()  # here, before any test module chooses an engine by importing the pipeline


@pytest.fixture(autouse=True)
def ctrl_c_raises() -> Iterator[None]:
    """A suite that a script starts in the background is told to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def tiny_wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random WAN 2.1 text-to-video model. Never write to it."""
    from tiny_wan import make_tiny_wan

    use_one_thread()
    return make_tiny_wan(tmp_path_factory.mktemp("models") / "tiny_wan")


@pytest.fixture(scope="session")
def tiny_wan_two_experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random WAN 2.2 A14B: two transformers and a boundary. Never write to it."""
    from tiny_wan import make_tiny_wan

    use_one_thread()
    return make_tiny_wan(tmp_path_factory.mktemp("models") / "tiny_wan_2_2", experts=2)


@pytest.fixture(scope="session")
def tiny_wan_i2v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random WAN 2.1 image-to-video model, which sees the image by CLIP too. Never write to it."""
    from tiny_wan import make_tiny_wan

    use_one_thread()
    return make_tiny_wan(tmp_path_factory.mktemp("models") / "tiny_wan_i2v", mode="i2v")


@pytest.fixture(scope="session")
def tiny_wan_i2v_two_experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random WAN 2.2 image-to-video A14B. Never write to it."""
    from tiny_wan import make_tiny_wan

    use_one_thread()
    return make_tiny_wan(tmp_path_factory.mktemp("models") / "tiny_wan_i2v_2_2", experts=2, mode="i2v")


@pytest.fixture(scope="session")
def tiny_wan_ti2v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random WAN 2.2 TI2V 5B. Never write to it."""
    from tiny_wan import make_tiny_wan

    use_one_thread()
    return make_tiny_wan(tmp_path_factory.mktemp("models") / "tiny_wan_ti2v", mode="ti2v")


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_wan: Path) -> Any:
    """diffusers' `WanPipeline` with the tiny model, for reading and calling. Never change its weights."""
    from diffusers import WanPipeline

    return WanPipeline.from_pretrained(tiny_wan)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or not sys.platform.startswith("linux"):
        pytest.skip("no mount command here")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def use_one_thread() -> None:
    """With tiny tensors, handing work to a second thread costs more than the work: up to tenfold on a busy machine."""
    import torch

    torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Any:
    """Let workers report on file names that are no text: what they send to the main process must be UTF-8."""
    return _as_text((yield))


def _as_text(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {key: _as_text(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_as_text, value))
    return value
