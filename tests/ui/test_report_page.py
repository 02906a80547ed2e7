"""The report of a run: all there is to tell stands in it, as text, and it needs nothing from anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wan_fixes.errors import UserError
from wan_fixes.health import Run, RunDatabase, RunReader, plain
from wan_fixes.ui.report_page import MOST_SAMPLES, report_page

from .web_pages import assert_needs_nothing

FLOW = [
    {"at": 0, "name": "ValidatedCollectPaths", "part": "validated", "inputs": [], "outputs": ["image_path"]},
    {"at": 1, "name": "RobustVideoLoader", "part": "guarded", "inputs": ["image_path"], "outputs": ["image"]},
]

Record = Callable[[Callable[[Run], Any]], RunReader]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Records a run by what a function does to it."""

    def make(work: Callable[[Run], Any]) -> RunReader:
        path = tmp_path / "runs.sqlite"
        with (
            RunDatabase(path) as database,
            database.start_run("train", {"resolution": "512", "api_key": "k3y-k3y"}) as run,
        ):
            work(run)
        return RunDatabase.open_readonly(path)

    return make


def full(run: Run) -> None:
    """A run in which everything happened."""
    run.sample("/clips/good.mp4", "valid")
    run.sample("/clips/bad.mp4", "skipped", module="media", reason="it is torn", fix="copy it", kind="SampleError")
    run.sample("/clips/odd.txt", "warning", module="captions", reason="it is empty", fix="write it", kind="warning")
    for step in range(1, 20):
        run.step(step, 2.0 - step / 20, 1e-4, 0.5)
        run.gauges(
            {"memory_mb": 500.0 + step, "peak_memory_mb": 600.0, "available_mb": 9000.0, "samples_left_out": step}
        )
    run.counters(
        {
            "RobustVideoLoader.calls": 8.0,
            "RobustVideoLoader.seconds": 2.0,
            "RobustVideoLoader.max_seconds": 0.7,
            "cache_hits": 9.0,
            "cache_misses": 1.0,
            "cache_written": 1.0,
            "samples_skipped{module=media}": 1.0,
        }
    )
    run.state("caches", {"/cache/image": {"entries": 12, "bytes": 2_500_000}})
    run.state("pipeline training", FLOW)
    run.state("versions", {"torch": "2.13.0"})
    run.state(
        "alerts",
        [
            {
                "kind": "memory", "cause": "", "message": "memory is nearly used up", "fix": "close other programs",
                "value": 0.97, "threshold": 0.95, "since": 1.0,
            }
        ],
    )  # fmt: skip
    run.event("alert", "memory is nearly used up")
    run.event("alert_over", "over: memory is nearly used up")
    run.event("checkpoint_saved", "checkpoint at step 19")


def test_all_that_happened_stands_in_it(record: Record) -> None:
    page = assert_needs_nothing(report_page(record(full)))
    for words in (
        "Run 1: training", "finished", "1 usable sample, 1 left out, 1 with a warning",
        "19 steps, the last with a loss of 1.0500", "90% of 10 look-ups",
        "memory is nearly used up", "close other programs", "over: memory",
        "/clips/bad.mp4", "it is torn", "copy it", "/clips/odd.txt", "write it",
        "/cache/image", "2.5 MB", "Loss", "Speed", "Memory", "Samples left out",
        "RobustVideoLoader", "2.0 s", "700 ms", "Data flow of the training data", "1 left out",
        "checkpoint at step 19", '"resolution": "512"', "torch", "2.13.0",
    ):  # fmt: skip
        assert words in page.text, words
    assert page.tags.count("svg") == 5
    assert "k3y-k3y" not in page.text


def test_an_empty_run_has_a_page_too(record: Record) -> None:
    page = assert_needs_nothing(report_page(record(lambda run: None)))
    assert "Nothing was left out" in page.text
    assert "svg" not in page.tags


def test_losses_that_are_no_numbers_do_not_break_the_charts(record: Record) -> None:
    def work(run: Run) -> None:
        for step, loss in enumerate([math.nan, 1.0, math.inf, 2.0, -math.inf]):
            run.step(step, loss, 1e-4, 0.0)

    page = report_page(record(work))
    assert_needs_nothing(page)
    assert "nan" not in page.partition("<svg")[2].partition("</svg>")[0].lower()


def test_the_first_thousand_are_listed_and_how_many_more_there_are(record: Record) -> None:
    def work(run: Run) -> None:
        for number in range(MOST_SAMPLES + 20):
            run.sample(f"/clips/{number:05}.mp4", "skipped", module="media", reason="torn", kind="SampleError")

    page = assert_needs_nothing(report_page(record(work)))
    assert f"/clips/{MOST_SAMPLES - 1:05}.mp4" in page.text and f"/clips/{MOST_SAMPLES:05}.mp4" not in page.text
    assert "and 20 more" in page.text


def test_another_run_than_the_last_can_be_asked_for(record: Record) -> None:
    record(full)
    reader = record(lambda run: None)
    assert "checkpoint at step 19" in report_page(reader, 1)
    assert "checkpoint at step 19" not in report_page(reader)


@pytest.mark.parametrize("run_id", [None, 7])
def test_where_there_is_no_such_run_it_says_so(tmp_path: Path, run_id: int | None) -> None:
    RunDatabase(tmp_path / "runs.sqlite").close()
    with pytest.raises(UserError, match="no run"):
        report_page(RunDatabase.open_readonly(tmp_path / "runs.sqlite"), run_id)


def test_a_page_of_a_long_run_stays_small(record: Record) -> None:
    def work(run: Run) -> None:
        full(run)
        for number in range(2000):
            run.event("note", f"event {number} " + "x" * 100)

    page = report_page(record(work))
    assert len(page) < 500_000
    assert "event 1999" in page and "event 100 " not in page and "earlier ones are not shown" in page


def hostile(run: Run, text: str) -> None:
    """The text wherever a text can be."""
    run.sample(f"/clips/{text}", "skipped", module=text, reason=text, fix=text, kind=text)
    run.sample(f"/clips/{text}", "warning", module=text, reason=text, fix=text, kind=text)
    run.event(text, text)
    run.event("alert", text)
    run.step(1, 1.0, 1e-4, 0.1)
    run.counters({f"{text}.calls": 1.0, f"{text}.seconds": 1.0, f"samples_skipped{{module={text}}}": 1.0})
    run.state("phase", text)
    run.state("breakers", {text: "open"})
    run.state("caches", {text: {"entries": 1, "bytes": 1}})
    run.state("alerts", [{"kind": text, "message": text, "fix": text, "since": 1.0}])
    run.state("versions", {text: text})
    run.state(f"pipeline {text}", [{**FLOW[0], "name": text, "inputs": [text], "outputs": [text]}])


def test_markup_in_any_text_stays_text(record: Record) -> None:
    text = "</style></svg><script>alert(1)</script><img src='http://x/y' onerror=alert(1)>\u202e"
    reader = record(lambda run: hostile(run, text))
    page = assert_needs_nothing(report_page(reader))
    assert page.text.count("<script>alert(1)</script>") > 10
    assert "\u202e" not in page.text


@settings(max_examples=40)
@given(text=st.text(min_size=1, max_size=60))
def test_no_text_changes_what_the_page_is_made_of(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("runs")
    tags = []
    for written in ("plain", text):
        path = folder / f"{len(tags)}.sqlite"
        with RunDatabase(path) as database, database.start_run("train", {}) as run:
            hostile(run, written)
        page = assert_needs_nothing(report_page(RunDatabase.open_readonly(path)))
        tags.append(page.tags)
        reasons = [sample.reason for sample in RunDatabase.open_readonly(path).samples(1, "skipped")]
        assert all(" ".join(plain(reason).split()) in page.text for reason in reasons)
    assert set(tags[0]) == set(tags[1])
