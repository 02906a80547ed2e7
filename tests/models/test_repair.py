"""What is spoilt is found, and only that is fetched again (M6, M13)."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from effort import times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wan_fixes.models.installed import ModelState

from .hub_server import Hub, running_hub
from .test_ensure import LARGE, whole
from .world import PART, REPOSITORY, content_of, ensurer, model_files


def spoil(path: Path, at: int, *, keep_time: bool = True) -> None:
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_m6_repair_fetches_the_bad_parts_alone(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path, hub)
    folder = models.ensure("tiny")
    for part in (2, 7):
        spoil(folder / LARGE, part * PART + 5)
    hub.served.clear()
    assert models.repair("tiny").state is ModelState.COMPLETE
    assert content_of(folder) == whole()
    assert hub.served == {LARGE: 2 * PART}


def test_m6_ensure_mends_what_verify_found(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path, hub)
    folder = models.ensure("tiny")
    spoil(folder / LARGE, 0)
    assert models.status("tiny").state is ModelState.COMPLETE  # nothing but its content shows it
    assert models.verify_integrity("tiny").corrupt == (LARGE,)
    assert (models.status("tiny").state, models.status("tiny").corrupt) == (ModelState.CORRUPT, (LARGE,))
    hub.served.clear()
    models.ensure("tiny")
    assert content_of(folder) == whole()
    assert hub.served == {LARGE: PART}
    assert models.verify_integrity("tiny").state is ModelState.COMPLETE


def test_m6_a_file_that_somebody_puts_right_again_needs_no_server(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path, hub)
    folder = models.ensure("tiny")
    spoil(folder / LARGE, 0)
    models.verify_integrity("tiny")
    spoil(folder / LARGE, 0, keep_time=False)
    hub.requests.clear()
    models.ensure("tiny")
    assert (models.status("tiny").state, hub.requests) == (ModelState.COMPLETE, [])


@settings(max_examples=times(8, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_m6_whatever_is_spoilt_is_mended_for_no_more_than_its_parts(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = random.Random(seed)
    root = tmp_path_factory.mktemp("repair")
    with running_hub() as hub:
        hub.add(REPOSITORY, model_files())
        models = ensurer(root, hub)
        folder = models.ensure("tiny")
        bad = 0
        for path, content in whole().items():
            fate = rng.choice(["right", "right", "flipped", "cut", "gone", "longer"])
            if fate == "flipped" and content:
                at = rng.randrange(len(content))
                spoil(folder / path, at, keep_time=rng.random() < 0.5)
                bad += min(PART, len(content) - at // PART * PART)
            elif fate == "gone":
                (folder / path).unlink()
                bad += len(content)
            elif fate == "cut":
                (folder / path).write_bytes(content[: len(content) // 2])
                bad += len(content) - len(content) // 2 // PART * PART
            elif fate == "longer":
                (folder / path).write_bytes(content + b"x")
        hub.served.clear()
        assert models.repair("tiny").state is ModelState.COMPLETE
        assert content_of(folder) == whole()
        assert hub.bytes_served <= bad
