"""What `ModelEnsurer` does is recorded (M18)."""

from __future__ import annotations

from pathlib import Path

import pytest

from wan_fixes.health import RunReader
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.recording import record_path

from .hub_server import Hub
from .test_ensure import LARGE
from .world import NEEDED_BYTES, ensurer


def test_m18_an_ensure_is_recorded_and_a_complete_model_is_not(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.fail("wrong bytes", "safetensors", 1, lambda content: b"X" + content[1:])
    models = ensurer(tmp_path, hub)
    models.ensure("tiny")
    models.ensure("tiny")
    reader = RunReader(record_path(models.resolver))
    (run,) = reader.runs()
    assert (run.status, run.config["operation"]) == ("finished", "ensure")
    assert {vars(record)["correlation_id"] for record in caplog.records} == {run.config["correlation_id"]}
    fetched = reader.counters_of(run.id)["fetched_bytes{model_id=tiny@1.0.0,source=hub,variant=original}"]
    assert fetched == hub.bytes_served > NEEDED_BYTES


def test_m18_what_fails_has_the_id_of_its_record(hub: Hub, tmp_path: Path) -> None:
    hub.fail("status", "vae", 99, (404, {}))
    models = ensurer(tmp_path, hub)
    with pytest.raises(ModelError) as caught:
        models.ensure("tiny")
    reader = RunReader(record_path(models.resolver))
    (run,) = reader.runs()
    assert run.status == "failed"
    assert caught.value.context["correlation_id"] == run.config["correlation_id"]
    assert reader.events(run.id)[-1].facts["code"] == caught.value.code.value == ErrorCode.NOT_FOUND.value


def test_m18_verifying_counts_what_is_spoilt(hub: Hub, tmp_path: Path) -> None:
    models = ensurer(tmp_path, hub)
    (models.ensure("tiny") / LARGE).write_bytes(b"short")
    models.verify_integrity("tiny")
    reader = RunReader(record_path(models.resolver))
    latest = reader.runs()[0]
    assert reader.counters_of(latest.id)["corrupt_files{model_id=tiny@1.0.0,variant=original}"] == 1
    assert [event.kind for event in reader.events(latest.id)] == ["started", "corrupt", "finished"]
