"""Contexts for the tests of the pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from wan_fixes.pipeline import PipelineContext

from .nursery import Nursery
from .toys import Clock, Contexts


@pytest.fixture(scope="package", autouse=True)
def no_flushing() -> Iterator[None]:
    """The power stays on here, and waiting for disks takes long: `tests/store` shows that all is flushed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contexts]:
    made = Contexts(tmp_path_factory.mktemp("contexts"))
    yield made
    made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def context(contexts: Contexts, clock: Clock) -> PipelineContext:
    """A context that never waits, whose clock stands still, with a run of its own in the run database."""
    return contexts.new(clock)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Forks processes that may be killed."""
    if not hasattr(os, "fork"):
        pytest.skip("no process can be forked here: tests/store kills and starts new ones")
    made = Nursery()
    yield made
    made.close()
