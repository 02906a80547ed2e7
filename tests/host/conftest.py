"""Finds the checkouts that WAN_FIXES_ONETRAINER and WAN_FIXES_MGDS name; without them the tests here are skipped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NEEDS = ("WAN_FIXES_ONETRAINER", "WAN_FIXES_MGDS")
"""What a file of tests needs, unless it has a `NEEDS` of its own."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.host)
        needs = getattr(item.getparent(pytest.Module).obj, "NEEDS", NEEDS)
        missing = [name for name in needs if not os.environ.get(name)]
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"no real host: {' and '.join(missing)} not set"))


@pytest.fixture(scope="session")
def onetrainer() -> Path:
    """The OneTrainer checkout, importable, with the real MGDS behind it."""
    checkout = Path(os.environ["WAN_FIXES_ONETRAINER"])
    for folder in (checkout, Path(os.environ["WAN_FIXES_MGDS"]) / "src"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    from wan_fixes.pipeline import base

    if base.ENGINE != "mgds":
        pytest.fail("the real mgds was not on the path before wan_fixes.pipeline was imported")
    return checkout


@pytest.fixture(scope="module")
def wan_host(onetrainer: Path) -> Iterator[Path]:
    """The checkout with WAN in it, the pipeline's protections off; stock code reads files relative to its folder."""
    from wan_fixes.hosts.onetrainer.import_hooks import arm, disarm, outcomes
    from wan_fixes.hosts.onetrainer.patches import model_types, registration, train_config, wan_configuration

    before = Path.cwd()
    os.chdir(onetrainer)
    sys.path.insert(0, str(Path(__file__).parent))
    tables = (model_types, train_config, registration, wan_configuration)
    arm([patch for table in tables for patch in table.PATCHES], onetrainer)
    import modules.util.create  # noqa: F401 - imported for its patches

    failed = [outcome.message for outcome in outcomes() if outcome.message]
    if failed:
        pytest.fail("; ".join(failed))
    try:
        yield onetrainer
    finally:
        disarm()
        sys.path.remove(str(Path(__file__).parent))
        os.chdir(before)


@pytest.fixture(scope="module")
def runs(wan_host: Path) -> Any:
    """`wan_runs`: configurations, clips and trainings of stock OneTrainer in this process."""
    import wan_runs

    return wan_runs


@pytest.fixture(scope="module")
def clips(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips with captions."""
    return runs.make_clips(tmp_path_factory.mktemp("clips"), 2)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A copy of the checkout with an environment of its own, in which the plugin is enabled."""
    from host.own_host import make_own_host

    host = make_own_host(tmp_path_factory.mktemp("host"), Path(os.environ["WAN_FIXES_ONETRAINER"]))
    enabled = host.wan("enable", str(host.checkout))
    assert enabled.returncode == 0, enabled.stderr
    return host
