"""A resumed run is, bit for bit, the run that was not interrupted; and where none is resumed, it is said why."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest
import torch

from wan_fixes.health import RunDatabase
from wan_fixes.hosts.standalone import Preset
from wan_fixes.hosts.standalone.checkpoint import Progress, read_checkpoint
from wan_fixes.hosts.standalone.interrupts import StopOnInterrupt
from wan_fixes.hosts.standalone.intervals import Interval
from wan_fixes.hosts.standalone.result import TrainResult
from wan_fixes.hosts.standalone.trainer import train
from wan_fixes.pipeline import RobustTemporalVAE
from wan_fixes.settings import Settings

# everything random at once: noise, timesteps, dropped captions, LoRA dropout, crops; and a batch that is not full
DEMANDING: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 2,
    "text_encoder": {"dropout_probability": 0.5},
    "dropout_probability": 0.2,
    "timestep_distribution": "LOGIT_NORMAL",
    "learning_rate_scheduler": "COSINE",
    "learning_rate_warmup_steps": 0.3,
}


def run(preset: Preset, **options: Any) -> TrainResult:
    return train(preset, settings=Settings(), **options)


def same_weights(one: TrainResult, other: TrainResult) -> bool:
    first, second = read_checkpoint(one.checkpoint).adapter, read_checkpoint(other.checkpoint).adapter
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def messages(preset: Preset, **options: Any) -> tuple[TrainResult, dict[str, str]]:
    said: dict[str, str] = {}
    result = run(
        preset, on_event=lambda name, p: said.update({p["kind"]: p["text"]}) if name == "message" else None, **options
    )
    return result, said


def last_status(preset: Preset) -> str:
    with RunDatabase(preset.run_database) as database:
        record = database.latest_run()
        assert record is not None
        return record.status


@pytest.mark.parametrize(
    ("changes", "stop"),
    [
        ({}, 4),
        ({"gradient_accumulation_steps": 2}, 1),
        ({"gradient_accumulation_steps": 2}, 3),
        pytest.param({"latent_caching": False}, 4, marks=pytest.mark.full),
        pytest.param({"optimizer": {"optimizer": "SGD", "momentum": 0.9}}, 3, marks=pytest.mark.full),
        pytest.param({"optimizer": {"optimizer": "ADAM", "amsgrad": True}}, 3, marks=pytest.mark.full),
        pytest.param({"lora_weight_dtype": "BFLOAT_16", "train_dtype": "BFLOAT_16"}, 5, marks=pytest.mark.full),
    ],
)
def test_stopping_and_going_on_gives_the_uninterrupted_run_bit_for_bit(make_workplace, changes, stop):
    settings = {**DEMANDING, **changes}
    whole = run(make_workplace("whole").preset(**settings))
    place = make_workplace("in parts")
    first = run(place.preset(**settings), max_steps=stop)
    assert (first.steps, first.finished) == (stop, False)
    second = run(place.preset(**settings))
    assert (second.first_step, second.resumed_from) == (stop, first.checkpoint)
    assert second.finished
    assert first.losses + second.losses == whole.losses
    assert same_weights(whole, second)


def test_ctrl_c_while_training_saves_and_the_next_run_goes_on(make_workplace):
    whole = run(make_workplace("whole").preset(**DEMANDING))
    place = make_workplace("interrupted")
    preset = place.preset(**DEMANDING)

    def interrupt(name: str, payload: dict[str, Any]) -> None:
        if name == "step_finished" and payload["step"] == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(preset, on_event=interrupt)
    assert last_status(preset) == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    rest, said = messages(preset)
    assert rest.first_step == 5
    assert "going on at step 5" in said["resumed"]
    assert rest.losses == whole.losses[5:]
    assert same_weights(whole, rest)


def interrupt_after_encodes(monkeypatch: pytest.MonkeyPatch, count: int) -> list[int]:
    """Ctrl-C while the `count`-th clip is encoded; the list grows with each encode."""
    encoded: list[int] = []
    encode = RobustTemporalVAE._encode

    def counting(self: RobustTemporalVAE, picture: torch.Tensor) -> Any:
        encoded.append(1)
        if len(encoded) == count:
            signal.raise_signal(signal.SIGINT)
        return encode(self, picture)

    monkeypatch.setattr(RobustTemporalVAE, "_encode", counting)
    return encoded


def test_ctrl_c_while_caching_stops_soon_and_nothing_that_is_done_is_done_again(workplace, monkeypatch):
    preset = workplace.preset(epochs=1)
    encoded = interrupt_after_encodes(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        run(preset)
    assert last_status(preset) == "interrupted"
    done = len(encoded)
    assert done <= 4  # one loader thread: the clip in work and those that it had begun
    result = run(preset)
    assert len(encoded) == 5
    assert result.cache_hits == done
    assert result.steps == 5


def test_ctrl_c_while_a_later_epochs_variations_are_cached_saves_and_the_next_run_goes_on(workplace, monkeypatch):
    concept = {"path": str(workplace.clips), "image_variations": 2, "image": {"enable_crop_jitter": True}}
    preset = workplace.preset(concepts=[concept], resolution="32x16")
    interrupt_after_encodes(monkeypatch, 6)
    with pytest.raises(KeyboardInterrupt):
        run(preset)
    result = run(preset)
    assert (result.first_step, result.steps, result.finished) == (5, 10, True)


def test_a_finished_run_is_not_gone_on_with(workplace):
    preset = workplace.preset(epochs=1)
    run(preset)
    result, said = messages(preset)
    assert (result.first_step, result.steps) == (0, 5)
    assert "finished at step 5" in said["started_anew"]


def test_changed_settings_start_anew_and_are_named(workplace):
    run(workplace.preset(), max_steps=2)
    result, said = messages(workplace.preset(learning_rate=2e-3, lora_rank=8), max_steps=1)
    assert result.first_step == 0
    assert "learning_rate, lora_rank" in said["started_anew"]


def test_settings_that_shape_no_training_may_change(workplace):
    run(workplace.preset(), max_steps=2)
    concept = {"path": str(workplace.clips), "name": "renamed", "image": {"enable_crop_jitter": False}}
    changes = {"dataloader_threads": 3, "backup_after": 7, "output_dtype": "BFLOAT_16", "concepts": [concept]}
    changes["output_model_format"] = "COMFY_LORA"
    assert run(workplace.preset(**changes), max_steps=3).first_step == 2


def test_resume_never_starts_anew(workplace):
    run(workplace.preset(), max_steps=2)
    assert run(workplace.preset(), max_steps=1, resume="never").first_step == 0


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(workplace):
    preset = workplace.preset(backup_after=2, backup_after_unit="STEP")
    newest = run(preset, max_steps=5).checkpoint
    newest.write_bytes(newest.read_bytes()[:-100])
    result, said = messages(preset)
    assert str(newest) in said["checkpoint_damaged"]
    assert result.first_step == 4
    assert result.finished


def test_changed_clips_are_said_and_training_goes_on(workplace):
    run(workplace.preset(), max_steps=2)
    (workplace.clips / "clip0.mp4").unlink()
    result, said = messages(workplace.preset())
    assert result.first_step == 2
    assert "order is new" in said["samples_changed"]


def test_a_run_that_is_stopped_after_its_last_step_is_finished(workplace):
    assert run(workplace.preset(epochs=1), max_steps=5).finished
    assert not run(workplace.preset(epochs=1), max_steps=4).finished


def test_only_the_last_two_checkpoints_stay(workplace):
    preset = workplace.preset(backup_after=0, backup_after_unit="ALWAYS")
    run(preset, max_steps=6)
    assert len(list(preset.checkpoint_dir.iterdir())) == 2


KILLED = """
import os, signal, sys
from wan_fixes.hosts.standalone import read_preset
from wan_fixes.hosts.standalone.trainer import train
from wan_fixes.pipeline import RobustTemporalVAE
from wan_fixes.settings import Settings
import torch
torch.set_num_threads(1)

def die():
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

def on_event(name, payload):
    if name == sys.argv[2] and payload.get("step", int(sys.argv[3])) == int(sys.argv[3]):
        die()

if sys.argv[2] == "encode":
    encode, encoded = RobustTemporalVAE._encode, []
    def dying(self, picture):
        encoded.append(1)
        if len(encoded) == int(sys.argv[3]):
            die()
        return encode(self, picture)
    RobustTemporalVAE._encode = dying
train(read_preset(sys.argv[1]), settings=Settings(), on_event=on_event)
"""


def killed_run(preset: Preset, event: str, number: int) -> None:
    arguments = [sys.executable, "-c", KILLED, str(preset.path), event, str(number)]
    result = subprocess.run(arguments, capture_output=True, check=False)
    assert result.returncode not in (0, 1), result.stderr.decode()


def test_killed_while_training_the_next_run_goes_on_from_the_last_checkpoint(make_workplace):
    changes = {**DEMANDING, "backup_after": 2, "backup_after_unit": "STEP"}
    whole = run(make_workplace("whole").preset(**changes))
    preset = make_workplace("killed").preset(**changes)
    killed_run(preset, "step_finished", 5)
    assert last_status(preset) == "interrupted"
    rest = run(preset)
    assert rest.first_step == 4
    assert rest.losses == whole.losses[4:]
    assert same_weights(whole, rest)


@pytest.mark.full
def test_killed_while_caching_what_was_done_is_not_done_again(workplace):
    preset = workplace.preset(epochs=1)
    killed_run(preset, "encode", 3)
    result = run(preset)
    assert result.cache_hits == 2
    assert (result.first_step, result.steps, result.valid) == (0, 5, 5)


@pytest.mark.full
@pytest.mark.parametrize("event", ["checkpoint_saved", "sample_saved", "caching_finished", "run_started"])
def test_killed_at_any_event_the_next_run_ends_as_the_uninterrupted_one(make_workplace, event):
    changes = {"backup_after": 3, "backup_after_unit": "STEP", "samples": [{"prompt": "x", "diffusion_steps": 1}]}
    whole = run(make_workplace("whole").preset(**changes))
    preset = make_workplace("killed").preset(**changes)
    killed_run(preset, event, 3)
    rest = run(preset)
    assert rest.finished
    assert same_weights(whole, rest)
    assert all(file.is_file() for file in rest.files)


def test_a_second_ctrl_c_leaves_at_once():
    with StopOnInterrupt() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_while_nothing_is_updated_the_first_ctrl_c_leaves_at_once():
    with StopOnInterrupt() as stop, stop.raising(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert stop.requested


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("every", "unit", "due"),
    [
        (3, "STEP", [3, 6, 9]),
        (1, "STEP", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (2, "EPOCH", [8]),
        (0, "STEP", []),
        (5, "NEVER", []),
        (0, "ALWAYS", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (90, "SECOND", [2, 3, 5, 6, 8, 9]),
        (2, "MINUTE", [2, 4, 6, 8, 10]),
    ],
)
def test_it_is_time_again_after_so_many_of_the_unit(every, unit, due):
    """Ten batches, one a minute, four to an epoch."""
    clock, progress = Clock(), Progress()
    interval = Interval(every, unit, progress, clock)
    times = []
    for batch in range(1, 11):
        clock.now += 60
        progress.micro_step, progress.epoch = batch, batch // 4
        if interval.is_due(progress):
            times.append(batch)
    assert times == due


def test_a_resumed_run_keeps_the_rhythm():
    interval = Interval(4, "STEP", Progress(micro_step=6))
    assert [step for step in range(7, 14) if interval.is_due(Progress(micro_step=step))] == [8, 12]
