"""Property 7 of the seed document: what happened in a run is what the tab, the commands, the page and HTTP say."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from html import unescape
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from typer.main import get_command

from wan_fixes.cli.main import app
from wan_fixes.errors import SampleError
from wan_fixes.health import RunDatabase, RunMonitor
from wan_fixes.health.memory import MemoryStats
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.pipeline import PipelineContext
from wan_fixes.settings import Settings
from wan_fixes.ui.overview_page import figures, stage_rows
from wan_fixes.ui.report_page import report_page
from wan_fixes.ui.watch import RunWatch

from .server import running

MODULES = ("RobustVideoLoader", "RobustTemporalVAE", "ScaleCropImage")
FATES = ("valid", "skipped", "valid, then skipped", "failed")


@dataclass(frozen=True)
class Session:
    """What happens in a run."""

    fates: list[str]
    warned: list[int]
    work: list[tuple[str, float]]
    failures: list[str]
    hits: int
    misses: int
    written: list[int]
    damaged: int
    losses: list[float]
    memory: MemoryStats


sessions = st.builds(
    Session,
    fates=st.lists(st.sampled_from(FATES), max_size=12),
    warned=st.lists(st.integers(0, 11), max_size=4),
    work=st.lists(st.tuples(st.sampled_from(MODULES), st.floats(0.001, 500)), max_size=12),
    failures=st.lists(st.sampled_from(MODULES), max_size=5),
    hits=st.integers(0, 5_000),
    misses=st.integers(0, 5_000),
    written=st.lists(st.integers(1, 10**9), max_size=5),
    damaged=st.integers(0, 3),
    losses=st.lists(st.floats(0.0001, 9), max_size=8),
    memory=st.builds(
        MemoryStats,
        st.integers(1, 60_000).map(float),
        st.integers(1, 60_000).map(float),
        st.integers(1, 60_000).map(float),
        st.none() | st.integers(1, 80_000).map(float),
        st.integers(0, 9_000).map(float),
        st.just(64_000.0),
    ),
)


def go_through(session: Session, database: RunDatabase, cache: Path) -> int:
    """Have it happen, through what the pipeline and the hosts call; the run goes on. Its number."""
    run = database.start_run("train", {"cache_dir": str(cache)})
    context = PipelineContext.create(None, settings=Settings(), run=run)
    monitor = RunMonitor(run, Settings(), memory=lambda: session.memory)
    monitor.watch(context)
    monitor.enter("training")
    context.metrics.set("samples_known", len(session.fates))
    for number, fate in enumerate(session.fates):
        path = f"/clips/{number}.mp4"
        if fate.startswith("valid"):
            run.sample(path, "valid")
        if fate.endswith("skipped"):
            error = SampleError("cannot be used", path=path, reason="it is empty", fix="copy it", module="media")
            context.skip(number, error)
            context.skip(number, error)  # each of its modules may say so
        if fate == "failed":
            run.sample(path, "failed", "trainer", "it failed", "look", "other")
    for number in session.warned:
        context.warn(f"/clips/{number}.mp4", "no caption")
    for module, seconds in session.work:
        context.metrics.time(module, seconds)
    for module in session.failures:
        context.metrics.count("module_failures", module=module)
    context.metrics.count("cache_hits", session.hits)
    context.metrics.count("cache_misses", session.misses)
    for size in session.written:
        context.metrics.count("cache_written")
        context.metrics.count("cache_bytes_written", size)
    context.metrics.count("cache_corruptions", session.damaged)
    for step, loss in enumerate(session.losses, start=1):
        run.step(step, loss, 1e-4, 2.0)
        monitor.stepped()
    monitor.close()
    context.close()
    database.flush()
    return run.id


@dataclass(frozen=True)
class Truth:
    """What a session comes to, counted here and not by the program."""

    valid: int
    skipped: int
    failed: int
    warned: int
    seconds: dict[str, float]
    items: dict[str, int]
    alerts: set[str]

    @classmethod
    def of(cls, session: Session) -> Truth:
        seconds: Counter[str] = Counter()
        for module, spent in session.work:
            seconds[module] += spent  # type: ignore[assignment]
        skipped = sum(fate.endswith("skipped") for fate in session.fates)
        many = skipped >= 3 and skipped > 0.2 * len(session.fates)
        return cls(
            valid=session.fates.count("valid"),
            skipped=skipped,
            failed=session.fates.count("failed"),
            warned=len(set(session.warned)),
            seconds=dict(seconds),
            items=dict(Counter(module for module, _ in session.work)),
            alerts={
                *(["error_rate"] if many else []),
                *(["cache_corruption"] if session.damaged else []),
                *(["memory"] if 1 - session.memory.available_mb / 64_000 > 0.95 else []),
            },
        )


@dataclass(frozen=True)
class Place:
    database: RunDatabase
    workspace: Path
    client: httpx.Client
    command: Any


@pytest.fixture
def place(models: ModelEnsurer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("COLUMNS", "400")  # no line is folded
    path = tmp_path / "runs.sqlite"
    with (
        RunDatabase(path) as database,
        running(models, run_database=lambda: path) as address,
        httpx.Client(base_url=address) as client,
    ):
        yield Place(database, tmp_path, client, get_command(app))


@settings(
    max_examples=100,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example takes a third of a second: shrinking, minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(session=sessions)
def test_property_7_whatever_is_asked_says_what_happened(session: Session, place: Place) -> None:
    """Feature: wan-training-pipeline-fixes, Property 7: Metrics Collection Accuracy

    For any training session, the system should accurately track and report processing statistics including sample
    counts, processing times, memory usage, and cache performance metrics.
    """
    truth = Truth.of(session)
    number = go_through(session, place.database, place.workspace / "no cache")
    check_json(session, truth, number, command(place, "--json"))
    check_command(session, truth, command(place))
    check_page(session, truth, report_page(place.database))
    check_http(session, truth, place.client)
    check_tab(session, truth, place.workspace / "runs.sqlite")


def command(place: Place, *options: str) -> str:
    # Not typer's runner: it makes all commands anew each time, which takes longer than all the rest.
    with redirect_stdout(StringIO()) as output:
        place.command.main(["stats", str(place.workspace), *options], prog_name="wan", standalone_mode=False)
    return output.getvalue()


def hit_rate(session: Session) -> float | None:
    asked = session.hits + session.misses
    return session.hits / asked if asked else None


def check_json(session: Session, truth: Truth, number: int, text: str) -> None:
    said: dict[str, Any] = json.loads(text)
    assert said["run_id"] == number
    assert [said[name] for name in ("valid", "skipped", "failed", "warned")] == [
        truth.valid,
        truth.skipped,
        truth.failed,
        truth.warned,
    ]
    assert len(said["skipped_samples"]) == truth.skipped + truth.failed
    assert [said[name] for name in ("cache_hits", "cache_misses", "cache_written", "cache_corruptions")] == [
        session.hits,
        session.misses,
        len(session.written),
        session.damaged,
    ]
    assert said["cache_hit_rate"] == hit_rate(session)
    modules = {row["module"]: row for row in said["modules"]}
    assert {name: row["items"] for name, row in modules.items() if row["items"]} == truth.items
    assert {name: row["failures"] for name, row in modules.items() if row["failures"]} == Counter(session.failures)
    for name, seconds in truth.seconds.items():
        assert modules[name]["seconds"] == pytest.approx(seconds)
        assert modules[name]["longest_seconds"] == max(spent for module, spent in session.work if module == name)
    assert said["steps"] == len(session.losses)
    assert (said["last_step"] or {}).get("loss") == (session.losses[-1] if session.losses else None)
    memory = session.memory
    assert [said["memory"][name] for name in ("used", "peak", "available", "swap", "gpu")] == [
        memory.current_usage_mb,
        memory.peak_usage_mb,
        memory.available_mb,
        memory.swap_usage_mb,
        memory.gpu_usage_mb,
    ]
    assert {alert["kind"] for alert in said["alerts"]} == truth.alerts


def check_command(session: Session, truth: Truth, text: str) -> None:
    if session.fates or session.warned:
        assert f"{truth.valid:,} valid, {truth.skipped:,} skipped, {truth.failed:,} failed" in text
    if truth.warned:
        assert f"{truth.warned:,} with warnings" in text
    if (rate := hit_rate(session)) is not None:
        assert f"{session.hits:,} hits, {session.misses:,} misses ({rate:.0%} hits)" in text
    if session.losses:
        last = len(session.losses)
        assert f"{last}, now at {last}, loss {session.losses[-1]:.4f}" in text
    assert text.count("! ALERT") == len(truth.alerts)


def check_page(session: Session, truth: Truth, page: str) -> None:
    words = " ".join(unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)).split())
    samples = "usable sample" if truth.valid == 1 else "usable samples"
    left_out = truth.skipped + truth.failed
    assert f"{truth.valid:,} {samples}, {left_out:,} left out, {truth.warned:,} with a warning." in words
    if session.losses:
        steps = "1 step" if len(session.losses) == 1 else f"{len(session.losses):,} steps"
        assert f"{steps}, the last with a loss of {session.losses[-1]:.4f}." in words
    if (rate := hit_rate(session)) is not None:
        assert f"{rate:.0%} of {session.hits + session.misses:,} look-ups were in the cache." in words
        assert f"found {session.hits:,} not found {session.misses:,} made {len(session.written):,}" in words
    assert page.count('<div class="alert">') == len(truth.alerts)


def check_http(session: Session, truth: Truth, client: httpx.Client) -> None:
    metrics = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    expected: dict[tuple[str, ...], float] = {
        ("wan_run_samples", "valid"): truth.valid,
        ("wan_run_samples", "skipped"): truth.skipped,
        ("wan_run_samples", "failed"): truth.failed,
        ("wan_run_samples", "warning"): truth.warned,
        ("wan_run_steps_total",): len(session.losses),
        ("wan_run_cache_hits_total",): session.hits,
        ("wan_run_cache_misses_total",): session.misses,
        ("wan_run_memory_bytes",): session.memory.current_usage_mb * 1024**2,
        **{("wan_run_module_failures_total", name): count for name, count in Counter(session.failures).items()},
    }
    assert {name: metrics[name] for name in expected} == expected
    for name, seconds in truth.seconds.items():
        assert metrics["wan_run_module_seconds_total", name] == pytest.approx(seconds)
    alerts = client.get("/alerts").json()["alerts"]
    assert {alert["kind"] for alert in alerts} == truth.alerts


def check_tab(session: Session, truth: Truth, path: Path) -> None:
    glance = RunWatch(lambda: path).look()
    assert glance.run is not None and not glance.problem
    left_out = truth.skipped + truth.failed
    assert glance.left_out_total == len(glance.left_out) == left_out
    samples, cache, _, loss, memory, gpu, errors, _ = figures(glance.run, glance.quarantined)
    assert samples[0][0] == f"{truth.valid:,} fine"
    assert samples[1][0].startswith(f"{left_out:,} left out")
    if (rate := hit_rate(session)) is not None:
        assert cache[0][0] == f"{rate:.0%} found"
    if session.losses:
        assert (loss[0][0], loss[1][0]) == (f"{session.losses[-1]:.4f}", f"step {len(session.losses):,}")
    assert memory[0][0] == in_words(session.memory.current_usage_mb)
    if session.memory.gpu_usage_mb is not None:
        assert gpu[0][0] == in_words(session.memory.gpu_usage_mb)
    assert (errors[0][0] == "None") == (left_out == 0)
    assert {name: cells[2] for name, cells in stage_rows(glance.run.modules) if cells[2] != "0"} == {
        name: f"{count:,}" for name, count in truth.items.items()
    }
    assert {alert.kind for alert in glance.run.alerts} == truth.alerts


def in_words(mebibytes: float) -> str:
    return f"{mebibytes:.0f} MB" if mebibytes < 1000 else f"{mebibytes / 1024:.1f} GB"
