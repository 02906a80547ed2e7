"""The engines that the contract is checked on: ours, and the real one where it is at hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from .toys import NO_MGDS, engine_names, load_engine

ENGINES = [pytest.param(name, marks=[pytest.mark.host] * (name == "mgds")) for name in engine_names()]


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> SimpleNamespace:
    """Each engine at hand: its classes by name, its own name, and the toy modules built on it."""
    return load_engine(request.param)


@pytest.fixture(scope="session")
def toys(engine: SimpleNamespace) -> SimpleNamespace:
    return engine.toys


@pytest.fixture(scope="session")
def real() -> SimpleNamespace:
    """The real engine, for what compares the two; skipped without it."""
    if "mgds" not in engine_names():
        pytest.skip(NO_MGDS)
    return load_engine("mgds")
