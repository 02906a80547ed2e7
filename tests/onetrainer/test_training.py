"""A training is recorded from start to end, once, by one process, and whatever fails in that leaves it going."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wan_fixes.errors import UserError
from wan_fixes.health import RunDatabase, RunRecord, run_database_path
from wan_fixes.health.run_log import LOG_FILE
from wan_fixes.hookspecs import hookimpl
from wan_fixes.hosts.onetrainer import training as trainings
from wan_fixes.hosts.onetrainer.import_hooks import arm
from wan_fixes.hosts.onetrainer.patches import pipeline, training_record


class Guest:
    """A plugin by others that hears of everything, and may rewrite or refuse a pipeline."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.rewrite: Any = lambda definition: None

    @hookimpl
    def onetrainer_training_event(self, name: str, payload: dict[str, Any]) -> None:
        json.dumps(payload)
        self.events.append(name)

    @hookimpl
    def onetrainer_rewrite_pipeline(self, definition: list[Any], context: Any) -> None:
        self.rewrite(definition)


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Guest:
    """The only plugin: ours would look into the definition, which holds words here."""
    import pluggy

    from wan_fixes import hookspecs

    guest = Guest()

    def manager(_settings: Any) -> pluggy.PluginManager:
        manager = pluggy.PluginManager(hookspecs.PROJECT_NAME)
        manager.add_hookspecs(hookspecs)
        manager.register(guest, "guest")
        return manager

    monkeypatch.setattr(trainings, "get_plugin_manager", manager)
    return guest


@pytest.fixture
def host(trainer_sources: Path, importable: Path, guest: Guest, tmp_path: Path) -> Iterator[SimpleNamespace]:
    arm([*pipeline.PATCHES, *training_record.PATCHES], importable)
    module = importlib.import_module("modules.trainer.GenericTrainer")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"")
    values = {
        "model_type": "STABLE_DIFFUSION_15",
        "concepts": [{"name": "pictures", "path": str(pictures)}],
        "output_model_destination": str(tmp_path / "model.safetensors"),
        "workspace_dir": str(tmp_path / "workspace"),
        "cache_dir": str(tmp_path / "cache"),
        "secrets": {"k": 1},
    }
    config = SimpleNamespace(**values, to_dict=lambda: values)
    yield SimpleNamespace(module=module, config=config, work=tmp_path, new=lambda *a: module.GenericTrainer(config, *a))
    trainings.close_current()


def runs(host: SimpleNamespace) -> list[RunRecord]:
    path = run_database_path(host.work / "workspace")
    return RunDatabase.open_readonly(path).runs() if path.exists() else []


def run_through(trainer: Any) -> None:
    trainer.start()
    assert trainer.train() == "trained"
    trainer.end()


def test_a_training_is_one_run_from_start_to_end(host: SimpleNamespace, guest: Guest) -> None:
    trainer = host.new()
    run_through(trainer)

    (run,) = runs(host)
    reader = RunDatabase.open_readonly(run_database_path(host.work / "workspace"))
    assert (run.kind, run.status) == ("train", "finished")
    assert "secrets" not in run.config
    events = reader.events(run.id)
    assert [event.message for event in events if event.kind == "status"] == ["start", "train", "end"]
    assert {event.facts["rule"] for event in events if event.kind == "config_warning"} == {"captions", "long_warmup"}
    assert [(step.step, step.loss, step.lr) for step in reader.steps(run.id)] == [(1, 2.5, 0.5)]
    assert trainer.tensorboard.scalars == [("lr/unet", 0.5, 0), ("loss/train_step", 2.5, 0)]
    assert guest.events == ["run_started", "step_finished", "run_finished"]
    assert trainings.current() is None


@pytest.mark.parametrize("station", ["start", "train", "end"])
@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("theirs"), "failed"), (KeyboardInterrupt(), "interrupted")], ids=repr
)
def test_how_it_ended_is_recorded_and_the_error_stays_what_it_was(
    station: str, error: BaseException, status: str, host: SimpleNamespace, guest: Guest
) -> None:
    trainer = host.new(station, error)
    with pytest.raises(type(error)) as caught:
        run_through(trainer)
    assert caught.value is error
    assert [run.status for run in runs(host)] == [status]
    assert guest.events[-1] == "run_failed"
    if station != "end":
        trainer.end()  # as OneTrainer's UI does after an error
    assert [run.status for run in runs(host)] == [status]


def test_one_that_the_user_stops_is_interrupted(host: SimpleNamespace) -> None:
    trainer = host.new()
    trainer.commands.stopped = True
    run_through(trainer)
    assert [run.status for run in runs(host)] == ["interrupted"]


def test_a_second_training_in_the_same_process_is_a_second_run(host: SimpleNamespace) -> None:
    failing = host.new("train", RuntimeError())
    with pytest.raises(RuntimeError):
        run_through(failing)  # and its end is never reached
    run_through(host.new())
    assert sorted(run.status for run in runs(host)) == ["failed", "finished"]


def test_of_several_ranks_the_first_alone_records_and_tells(host: SimpleNamespace, guest: Guest) -> None:
    host.module.multi.rank = 1
    guest.rewrite = lambda definition: definition.append("ours")
    trainer = host.new()
    run_through(trainer)
    assert runs(host) == [] and guest.events == []
    assert trainer.definition.definition == ["stock", ["nested", None], "ours"]


@pytest.mark.parametrize("settings", [{"enabled": False}, {"validate_pipelines": False}])
def test_what_is_switched_off_is_off_at_the_next_training(
    settings: dict[str, bool], host: SimpleNamespace, guest: Guest
) -> None:
    guest.rewrite = lambda definition: definition.clear()
    (host.work / "settings.json").write_text(json.dumps(settings))
    trainer = host.new()
    run_through(trainer)
    assert trainer.definition.definition == ["stock", ["nested", None]]
    assert len(runs(host)) == settings.get("enabled", True)


def test_a_plugin_cannot_stop_a_training_by_what_it_raises_at_an_event(
    host: SimpleNamespace, guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    def listen(name: str, payload: dict[str, Any]) -> None:
        raise UserError(f"no {name}")

    guest.events = SimpleNamespace(append=lambda name: listen(name, {}))
    trainer = host.new()
    run_through(trainer)
    assert "no run_started" in caplog.text and "no run_finished" in caplog.text
    assert [run.status for run in runs(host)] == ["finished"]


def test_a_fault_while_samples_are_counted_costs_the_count_alone(
    host: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = host.new()
    trainer.start()
    trainer.definition.start_next_epoch()  # this data set has no pipeline to count in
    assert "samples_ready failed, and OneTrainer goes on" in caplog.text
    trainer.train()
    trainer.end()
    assert [run.status for run in runs(host)] == ["finished"]


def test_a_plugin_may_refuse_a_pipeline(host: SimpleNamespace, guest: Guest) -> None:
    def refuse(definition: list[Any]) -> None:
        raise UserError("no such thing", fix="another one")

    guest.rewrite = refuse
    with pytest.raises(UserError, match="no such thing"):
        run_through(host.new())
    assert [run.status for run in runs(host)] == ["failed"]


def test_a_fault_while_rewriting_leaves_the_stock_pipeline_as_it_was(
    host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def half_done(manager: Any, hook: str, **arguments: Any) -> None:
        if hook == "onetrainer_rewrite_pipeline":
            arguments["definition"][1].append("half")
            arguments["definition"].append("done")
            raise TypeError("ours")

    monkeypatch.setattr("wan_fixes.plugins.call_hooks", half_done)
    trainer = host.new()
    run_through(trainer)
    assert trainer.definition.definition == ["stock", ["nested", None]]
    assert "left as OneTrainer made it" in caplog.text
    assert [run.status for run in runs(host)] == ["finished"]


def test_settings_that_cannot_be_read_leave_onetrainer_as_it_is(
    host: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    (host.work / "settings.json").write_text("{")
    trainer = host.new()
    with caplog.at_level(logging.WARNING):
        run_through(trainer)
    assert trainer.definition.definition == ["stock", ["nested", None]]
    assert str(host.work / "settings.json") in caplog.text and "OneTrainer goes on" in caplog.text
    assert runs(host) == []


def test_what_went_on_before_training_is_no_part_of_the_first_step(
    host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(trainings, "time", SimpleNamespace(monotonic=lambda: now[0]))
    training = trainings.begin(host.config, recorded=True)
    assert training is not None and training.run is not None and training.database is not None
    training.note_status("creating the data loader/caching")
    now[0] += 10_000
    training.note_status("Training ...")
    now[0] += 3
    training.note_scalar("loss/train_step", 0.5, 0)
    training.note_status("Sampling ...")
    now[0] += 600
    training.note_status("Training ...")
    now[0] += 4
    training.note_scalar("loss/train_step", 0.4, 1)
    assert [step.seconds for step in training.database.steps(training.run.id)] == [3, 4]


def test_a_context_that_cannot_be_closed_keeps_no_other_file_open(host: SimpleNamespace) -> None:
    training = trainings.begin(host.config, recorded=True)
    assert training is not None
    closed: list[str] = []

    def broken() -> None:
        raise OSError("the drive is gone")

    training._contexts = [SimpleNamespace(close=broken), SimpleNamespace(close=lambda: closed.append("second"))]
    training.end("finished")
    with pytest.raises(OSError, match="the drive is gone"):
        training.close()
    assert training.database is None
    assert closed == ["second"]
    trainings._current = None


def test_a_workspace_that_cannot_be_written_costs_the_record_and_not_the_training(
    host: SimpleNamespace, guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    (host.work / "workspace" / "runs.sqlite").mkdir(parents=True)
    run_through(host.new())
    assert "this training is not recorded" in caplog.text
    assert guest.events == ["run_started", "step_finished", "run_finished"]


def log_lines(host: SimpleNamespace) -> list[dict[str, Any]]:
    path = host.work / "workspace" / LOG_FILE
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def test_the_log_file_and_the_record_have_one_id(host: SimpleNamespace) -> None:
    handlers = list(logging.getLogger("wan_fixes").handlers)
    run_through(host.new())
    (run,) = runs(host)
    lines = log_lines(host)
    assert {line["run"] for line in lines} == {run.config["correlation_id"]}
    assert lines[-1]["message"] == "the run ended: finished"
    assert logging.getLogger("wan_fixes").handlers == handlers


def test_what_ended_a_training_is_in_its_log_file(host: SimpleNamespace) -> None:
    trainer = host.new("train", RuntimeError("theirs"))
    with pytest.raises(RuntimeError):
        run_through(trainer)
    trainer.end()
    assert "RuntimeError: theirs" in next(line["exception"] for line in log_lines(host) if "exception" in line)


def test_a_rank_that_does_not_record_has_no_log_file(host: SimpleNamespace) -> None:
    host.module.multi.rank = 1
    run_through(host.new())
    assert log_lines(host) == []


def test_without_the_log_file_a_training_is_recorded_all_the_same(host: SimpleNamespace) -> None:
    (host.work / "settings.json").write_text(json.dumps({"log_file": False}))
    run_through(host.new())
    assert log_lines(host) == []
    assert [run.status for run in runs(host)] == ["finished"]


def test_our_counters_stand_beside_onetrainers_scalars(host: SimpleNamespace) -> None:
    host.config.tensorboard = True
    trainer = host.new()
    trainer.start()
    training = trainings.current()
    training.monitor.look()
    trainer.train()
    trainer.train()  # a moment later: not again so soon
    tags = [tag for tag, _, _ in trainer.tensorboard.scalars]
    assert tags.count("loss/train_step") == 2
    ours = {tag: (value, step) for tag, value, step in trainer.tensorboard.scalars if tag.startswith("wan_fixes/")}
    assert len(ours) == sum(tag.startswith("wan_fixes/") for tag in tags)
    assert ours["wan_fixes/samples/left_out"] == (0, 0) and ours["wan_fixes/alerts/active"] == (0, 0)
    assert ours["wan_fixes/memory/process_mb"][0] > 1
    trainer.end()  # once more: how it ended
    assert [entry[0] for entry in trainer.tensorboard.scalars].count("wan_fixes/samples/left_out") == 2
    (run,) = runs(host)
    reader = RunDatabase.open_readonly(run_database_path(host.work / "workspace"))
    assert reader.step_count(run.id) == 2  # ours are no steps


def test_with_tensorboard_switched_off_it_gets_nothing_of_ours(host: SimpleNamespace) -> None:
    host.config.tensorboard = False
    trainer = host.new()
    trainer.start()
    trainings.current().monitor.look()
    trainer.train()
    trainer.end()
    assert {tag for tag, _, _ in trainer.tensorboard.scalars} == {"lr/unet", "loss/train_step"}
