"""What the service tells of the served workspace's latest run: alerts, and metrics with few labels."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from wan_fixes.cli.places import find_run_database
from wan_fixes.health import RUN_DATABASE_NAME, Run, RunDatabase
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.service.runs import RunLook

from .server import running
from .test_serve_command import wan_serve

ALERT = {
    "kind": "error_rate",
    "cause": "",
    "message": "3 of 8 samples are left out (38%)",
    "fix": "see which and why",
    "value": 0.38,
    "threshold": 0.2,
    "since": 1_700_000_000.0,
}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def database(workspace: Path) -> Iterator[RunDatabase]:
    with RunDatabase(workspace / RUN_DATABASE_NAME) as database:
        yield database


@pytest.fixture
def run(database: RunDatabase) -> Run:
    """One that goes on, with an alert."""
    run = database.start_run("train")
    for number in range(5):
        run.sample(f"/clips/{number}.mp4", "valid")
    run.sample("/clips/bad.mp4", "skipped", "media", "it is empty")
    run.step(3, 0.5, 1e-4, 2.0)
    run.counters(
        {
            "cache_hits{cache=image}": 7,
            "cache_misses{cache=image}": 2,
            "Loader.seconds": 4.5,
            "Loader.calls": 9,
            "module_failures{module=Loader}": 3,
        }
    )
    run.gauges({"memory_mb": 2048, "gpu_memory_mb": 1024})
    run.state("alerts", [ALERT])
    run.flush()
    return run


def metrics_of(address: str) -> dict[str, float]:
    """Of the run's series, as a Prometheus reads them: ``name{label=value}``."""
    text = httpx.get(f"{address}/metrics").text
    return {
        sample.name + (f"{{{','.join(sample.labels.values())}}}" if sample.labels else ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("wan_run")
    }


def test_the_alerts_that_are_on_are_told(models: ModelEnsurer, workspace: Path, run: Run) -> None:
    with running(models, run_database=lambda: find_run_database(workspace)) as address:
        answer = httpx.get(f"{address}/alerts").json()
    assert (answer["status"], answer["silent"]) == ("alert", False)
    assert (answer["run"]["id"], answer["run"]["kind"], answer["run"]["state"]) == (run.id, "train", "running")
    assert answer["alerts"] == [ALERT]


def test_of_a_run_that_is_over_no_alert_is_on(models: ModelEnsurer, workspace: Path, run: Run) -> None:
    run.finish()
    with running(models, run_database=lambda: find_run_database(workspace)) as address:
        answer = httpx.get(f"{address}/alerts").json()
        metrics = metrics_of(address)
    assert (answer["status"], answer["run"]["state"], answer["alerts"]) == ("ok", "finished", [])
    assert (metrics["wan_run_running"], metrics["wan_run_alert{error_rate}"]) == (0, 0)
    assert "wan_run_memory_bytes" not in metrics


def test_a_run_that_shows_no_life_is_silent(workspace: Path, run: Run) -> None:
    look = RunLook(lambda: find_run_database(workspace), clock=lambda: time.time() + 3600)
    found = look.alerts()
    assert (found.status, found.silent) == ("alert", True)
    assert found.silent_seconds == pytest.approx(3600, abs=60)


def test_a_run_is_measured(models: ModelEnsurer, workspace: Path, run: Run) -> None:
    with running(models, run_database=lambda: find_run_database(workspace)) as address:
        metrics = metrics_of(address)
    expected = {
        "wan_run_running": 1,
        "wan_run_samples{valid}": 5,
        "wan_run_samples{skipped}": 1,
        "wan_run_samples{failed}": 0,
        "wan_run_samples{warning}": 0,
        "wan_run_steps_total": 1,
        "wan_run_cache_hits_total": 7,
        "wan_run_cache_misses_total": 2,
        "wan_run_memory_bytes": 2048 * 1024**2,
        "wan_run_gpu_memory_bytes": 1024 * 1024**2,
        "wan_run_module_seconds_total{Loader}": 4.5,
        "wan_run_module_failures_total{Loader}": 3,
        "wan_run_alert{error_rate}": 1,
        **{f"wan_run_alert{{{kind}}}": 0 for kind in ("memory", "stall", "cache_corruption", "module_off", "silent")},
    }
    assert {name: metrics[name] for name in expected} == expected


def test_no_label_holds_a_path_or_grows_without_end(models: ModelEnsurer, workspace: Path, run: Run) -> None:
    run.counters({f"Module{number}.seconds": float(number + 1) for number in range(1000)})
    run.counters({'odd" name\n.seconds': 5000.0, "x" * 1000 + ".seconds": 6000.0})
    run.flush()
    with running(models, run_database=lambda: find_run_database(workspace)) as address:
        metrics = metrics_of(address)
    modules = {name: value for name, value in metrics.items() if name.startswith("wan_run_module_seconds_total")}
    assert len(modules) == 65
    assert sum(modules.values()) == pytest.approx(sum(range(1, 1001)) + 4.5 + 11000)
    assert "wan_run_module_seconds_total{others}" in modules
    assert max(map(len, modules)) < 200
    assert not any("/clips" in name for name in metrics)


def test_without_a_workspace_there_are_no_runs(models: ModelEnsurer) -> None:
    with running(models) as address:
        assert httpx.get(f"{address}/alerts").json()["error"]["code"] == "NO_WORKSPACE"
        assert metrics_of(address) == {}


def test_a_workspace_without_a_run_is_said_and_costs_no_metrics(models: ModelEnsurer, workspace: Path) -> None:
    with running(models, run_database=lambda: find_run_database(workspace)) as address:
        answer = httpx.get(f"{address}/alerts")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NO_RUN")
        assert metrics_of(address) == {"wan_run_running": 0}
        assert "wan_models_complete" in httpx.get(f"{address}/metrics").text


def test_a_damaged_record_costs_no_metrics(models: ModelEnsurer, workspace: Path) -> None:
    (workspace / RUN_DATABASE_NAME).write_bytes(b"no database" * 1000)
    with running(models, run_database=lambda: find_run_database(workspace)) as address:
        answer = httpx.get(f"{address}/alerts")
        assert (answer.status_code, answer.json()["status"]) == (503, "unreadable")
        assert answer.json()["error"]["code"] == "UNREADABLE"
        assert metrics_of(address) == {"wan_run_running": 0}


@pytest.mark.parametrize("recorded", [None, "text", [1, "a"], [{"kind": 3, "since": "never"}], {"kind": "memory"}])
def test_alerts_that_are_damaged_are_no_fault_of_the_service(workspace: Path, run: Run, recorded: Any) -> None:
    run.state("alerts", recorded)
    run.flush()
    found = RunLook(lambda: find_run_database(workspace)).alerts()
    assert all(alert.since == 0.0 for alert in found.alerts)


def test_answers_are_as_openapi_says(models: ModelEnsurer, workspace: Path, run: Run) -> None:
    with running(models, run_database=lambda: find_run_database(workspace)) as address:
        schema = httpx.get(f"{address}/openapi.json").json()
        content = schema["paths"]["/alerts"]["get"]["responses"]["200"]["content"]["application/json"]
        answer = httpx.get(f"{address}/alerts").json()
    jsonschema.validate(answer, {**content["schema"], "components": schema["components"]})


def test_the_process_serves_the_run_of_another_process(root: Path, workspace: Path) -> None:
    program = (
        "import sys\n"
        "from wan_fixes.health import RunDatabase\n"
        f"with RunDatabase({str(workspace / RUN_DATABASE_NAME)!r}) as database:\n"
        "    run = database.start_run('train')\n"
        f"    run.state('alerts', [{ALERT!r}])\n"
        "    run.flush()\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as training:
        assert training.stdout is not None and training.stdout.readline() == "ready\n"
        with wan_serve(root, "--workspace", str(workspace)) as (_, address):
            during = httpx.get(f"{address}/alerts").json()
            metrics = metrics_of(address)
            training.communicate("")
            after = httpx.get(f"{address}/alerts").json()
    assert (during["status"], during["alerts"]) == ("alert", [ALERT])
    assert (metrics["wan_run_running"], metrics["wan_run_alert{error_rate}"]) == (1, 1)
    assert (after["status"], after["run"]["state"], after["alerts"]) == ("ok", "interrupted", [])
