"""The table of touch points against a year of OneTrainer: what docs/compatibility.md says is so."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from host.touch_point_table import has_commit, head_of, lacking, out_of_reach, rows_in
from wan_fixes.hosts.onetrainer.touch_points import PATCHES, SUBSTITUTION

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
ROWS = rows_in(DOCUMENT.read_text(encoding="utf-8"))
ANY_AGE = (SUBSTITUTION, "model ensure", "training record")


@pytest.fixture
def checkout() -> Path:
    return Path(os.environ["WAN_FIXES_ONETRAINER"])


def test_the_table_spans_a_year() -> None:
    months = sorted(commit.month for commit in ROWS)
    assert len(set(months)) == len(months) == 12
    assert all(len(cells) == len(PATCHES) for cells in ROWS.values())


@pytest.mark.parametrize("commit", ROWS, ids=lambda commit: commit.month)
def test_each_month_has_what_the_table_says(commit, checkout: Path) -> None:
    if not has_commit(checkout, commit.sha):
        pytest.skip(f"the checkout's history lacks {commit.sha}")
    found = lacking(checkout, commit.sha)
    assert [not found[patch.name] for patch in PATCHES] == ROWS[commit]
    assert [found[name] for name in ANY_AGE] == [[], [], []]


def test_in_the_newest_onetrainer_known_everything_is_reached(checkout: Path) -> None:
    newest = max(ROWS, key=lambda commit: commit.day)
    assert out_of_reach(checkout, newest.sha) == {}
    if head_of(checkout).day < newest.day:
        pytest.skip("the checkout is older than that")
    assert out_of_reach(checkout, "HEAD") == {}


def test_every_place_that_loads_a_model_goes_through_the_wrapped_function(checkout: Path) -> None:
    """`from create import create_model_loader` would hold the stock function, whatever is in the module."""
    called = []
    for path in sorted([*checkout.glob("modules/**/*.py"), *checkout.glob("scripts/**/*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names = {alias.name for alias in node.names}
                assert not names & {"create_model_loader", "create_model_saver"}, path
            if isinstance(node, ast.Attribute) and node.attr == "create_model_loader":
                called.append((path.name, ast.unparse(node.value)))
    assert {owner for _, owner in called} <= {"create", "self"}
    assert {"BaseTrainer.py", "sample.py", "convert_model.py"} <= {name for name, owner in called if owner == "create"}
