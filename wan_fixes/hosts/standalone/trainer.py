"""Training a WAN LoRA from a preset: load, cache, train, save, and go on where it was interrupted."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from wan_fixes.errors import CriticalError
from wan_fixes.health import total
from wan_fixes.hosts.standalone.checkpoint import Checkpoints, Progress, TrainingState
from wan_fixes.hosts.standalone.data import TrainingData, require_files
from wan_fixes.hosts.standalone.devices import DTYPES, Placement, autocast, pick_device, weight_dtypes
from wan_fixes.hosts.standalone.host import EventListener, HostRun, open_run
from wan_fixes.hosts.standalone.interrupts import StopOnInterrupt
from wan_fixes.hosts.standalone.intervals import Interval
from wan_fixes.hosts.standalone.model import load_model
from wan_fixes.hosts.standalone.model_files import check_model_folder
from wan_fixes.hosts.standalone.outputs import write_lora, write_previews
from wan_fixes.hosts.standalone.preset import Preset
from wan_fixes.hosts.standalone.result import TrainResult
from wan_fixes.hosts.standalone.resume import StartingPoint, find_starting_point, training_fingerprint
from wan_fixes.hosts.standalone.steps import batch_loss, learning_rate_factor, make_optimizer, step_seed
from wan_fixes.preflight import ConfigFinding
from wan_fixes.settings import Settings
from wan_fixes.wan.lora import adapter_state, add_lora, load_adapter_state, select_target_modules
from wan_fixes.wan.text import encode_prompts

MAX_BAD_STEPS = 5
"""So many batches in a row without a finite loss end the run: it has diverged."""


def train(
    preset: Preset,
    *,
    max_steps: int | None = None,
    resume: Literal["auto", "never"] = "auto",
    settings: Settings | None = None,
    on_event: EventListener | None = None,
    warnings: Sequence[ConfigFinding] = (),
) -> TrainResult:
    """Train a LoRA as the preset asks, and write it with sample clips.

    Parameters
    ----------
    max_steps:
        Stop when so many updates have been done since the very start; the next run goes on from there.
    resume:
        ``auto``: go on from the newest checkpoint if its run was not finished and had the same settings;
        ``never``: from the start.
    settings:
        The plugin's settings; the user's when None.
    on_event:
        Called with each event's name and payload.
    warnings:
        What was found of the configuration: told once, and recorded with the run.

    Raises
    ------
    UserError
        If nothing can be trained as asked: the model folder, the concepts, or every clip cannot be used.
    CriticalError
        If the run cannot go on: memory, disk, or a loss that is no number any more.
    KeyboardInterrupt
        After Ctrl-C; while training a checkpoint is written first.
    """
    began = time.monotonic()
    with open_run(preset, settings, on_event) as host:
        for finding in warnings:
            host.say("config_warning", str(finding), field=finding.field, fix=finding.fix, rule=finding.rule)
        result = _Trainer(host, max_steps, resume).run()
        return replace(result, seconds={**result.seconds, "total": time.monotonic() - began})


class _Trainer:
    """One run, phase after phase."""

    def __init__(self, host: HostRun, max_steps: int | None, resume: Literal["auto", "never"]) -> None:
        self.host = host
        self.preset = host.preset
        self.max_steps = max_steps
        self.resume = resume
        self.device = pick_device(self.preset)
        self.checkpoints = Checkpoints(self.preset.checkpoint_dir)
        self.seconds: dict[str, float] = {}
        self.losses: list[float] = []
        self.losses_since_update: list[float] = []
        self.last_step_at = time.monotonic()
        self.is_finished = False
        self.bad_steps_in_a_row = 0
        self.skipped_steps = 0

    def run(self) -> TrainResult:
        host, preset = self.host, self.preset
        host.emit("run_started", preset=str(preset.path), workspace=str(preset.workspace_dir), config=preset.to_dict())
        for note in preset.report:
            host.run.event("preset_note", str(note), field=note.field, status=note.status)
        with self._timed("loading"):
            self._load()
        start = find_starting_point(preset, self.checkpoints, self.resume)
        self._say_where(start)
        with ExitStack() as self.closing:
            with self._timed("caching"):
                self._cache(start)
            with self._timed("training"):
                self._prepare(start)
                self._train()
        with self._timed("saving"):
            host.monitor.enter("saving and sampling")
            steps = self.progress.global_step
            checkpoint = self._save_checkpoint()
            lora = write_lora(host, self.model, preset.output_model_destination, steps=steps)
            previews = write_previews(host, self.model, self.device, example=self.data.example, steps=steps)
            if self.is_finished:  # only now: a run that is killed before its files are there makes them next time
                checkpoint = self._save_checkpoint(finished=True)
        result = self._result(start, lora, checkpoint, previews)
        host.emit("run_finished", **result.to_dict())
        return result

    # Phases

    def _load(self) -> None:
        preset = self.preset
        self.host.locate_model()
        check_model_folder(preset.base_model_name, preset.variant)
        require_files(preset)
        self.host.before_model_load()
        with self.host.loading():
            self.model = load_model(preset.base_model_name, preset.variant, dtypes=weight_dtypes(preset))
        self.placement = Placement(self.model, self.device)

    def _say_where(self, start: StartingPoint) -> None:
        for warning in start.warnings:
            self.host.say("checkpoint_damaged", warning)
        if start.message:
            step = start.state.progress.global_step if start.state else 0
            self.host.say("resumed" if start.state else "started_anew", start.message, step=step)

    def _cache(self, start: StartingPoint) -> None:
        """Bring every sample into the cache, and say how many there are before the first step."""
        self.host.monitor.enter("caching", should_move=True)
        preset, host = self.preset, self.host
        progress = start.state.progress if start.state else Progress()
        self.data = TrainingData(host, self.model, self.placement, progress)
        self.closing.callback(self.data.close)
        host.emit("caching_started", latent_caching=preset.latent_caching)
        self.data.open_epoch()
        counts = self.data.record_samples()
        self.cache_hits, misses = self._cache_counts()
        host.emit("caching_finished", **counts, cache_hits=self.cache_hits, cache_misses=misses)
        host.say(
            "samples_ready",
            f"{counts['valid']} samples are valid, {counts['skipped']} are skipped, {counts['failed']} failed",
            **counts,
        )
        if start.state is not None and start.state.samples != self.data.digest:
            host.say("samples_changed", "the clips changed since the checkpoint: their order is new from here on")
        self.empty_prompt = self._encode_empty_prompt() if preset.caption_dropout > 0 else None
        self.data.place_for_training()

    def _encode_empty_prompt(self) -> torch.Tensor:
        with torch.no_grad():
            return encode_prompts(self.model.tokenizer, self.model.text_encoder, [""])[0].to(self.device)

    def _prepare(self, start: StartingPoint) -> None:
        """Add the LoRA and its optimizer, as new or as the checkpoint has them."""
        preset, transformer = self.preset, self.model.transformer
        self.parameters = add_lora(
            transformer,
            preset.lora_rank,
            preset.lora_alpha,
            select_target_modules(transformer, preset.layer_filter, regex=preset.layer_filter_regex),
            preset.lora_dropout,
            seed=step_seed(preset.seed, 0, "lora"),
            dtype=DTYPES[preset.lora_weight_dtype],
        )
        self.optimizer = make_optimizer(preset.optimizer, self.parameters, preset.learning_rate)
        self.progress = Progress()
        if start.state is not None:
            load_adapter_state(transformer, start.state.adapter, path=start.path)
            self.optimizer.load_state_dict(start.state.optimizer)
            self.progress = replace(start.state.progress)
        self.first_step = self.progress.global_step
        self.at_last_update = replace(self.progress)
        if preset.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        transformer.train()
        self.last_step_at = time.monotonic()
        batches = self.data.batches_per_epoch * preset.epochs
        self.total_steps = math.ceil(batches / preset.gradient_accumulation_steps)

    def _train(self) -> None:
        preset, progress = self.preset, self.progress
        self.host.monitor.enter("training", should_move=True)
        self.backup = Interval(preset.backup_after, preset.backup_after_unit, progress)
        self.save = Interval(preset.save_every, preset.save_every_unit, progress)
        with (
            StopOnInterrupt() as self.interrupt,
            tqdm(total=self.total_steps, initial=progress.global_step, desc="training", unit="step") as self.bar,
        ):
            for batch in self._batches():
                if self.max_steps is not None and progress.global_step >= self.max_steps:
                    return  # asked only now that there is one more batch: else the run is finished
                self._train_batch(batch)
                if progress.micro_step % preset.gradient_accumulation_steps == 0:
                    self._update()
                if self.interrupt.requested:
                    self._save_checkpoint()
                    raise KeyboardInterrupt
            if progress.micro_step > self.at_last_update.micro_step:
                self._update()  # the last batches may be fewer than the accumulation asks for
            self.is_finished = True

    def _batches(self) -> Iterator[dict[str, Any]]:
        """Every batch that is left, epoch after epoch."""
        progress = self.progress
        while progress.epoch < self.preset.epochs:
            self.host.emit("epoch_started", epoch=progress.epoch, epochs=self.preset.epochs)
            yield from self.data.batches()
            progress.epoch += 1
            progress.epoch_batch = 0
            if progress.epoch < self.preset.epochs:
                self._open_next_epoch()

    def _open_next_epoch(self) -> None:
        """Variations may have to be encoded first, which Ctrl-C ends at once."""
        with self.interrupt.raising():
            try:
                self.data.open_epoch()
            except KeyboardInterrupt:
                self._save_checkpoint()
                raise
        self.data.place_for_training()
        self.last_step_at = time.monotonic()

    def _train_batch(self, batch: dict[str, Any]) -> None:
        """Add the gradient of one batch. One of placeholders alone adds nothing, nor does one without a finite loss."""
        preset, progress = self.preset, self.progress
        if bool((batch["loss_weight"] > 0).any()):
            with autocast(preset, self.device):
                loss = batch_loss(
                    preset,
                    self.model.transformer,
                    self.model.vae.config,
                    batch,
                    self.empty_prompt,
                    progress.micro_step,
                    self.device,
                )
            if loss.isfinite():
                (loss / preset.gradient_accumulation_steps).backward()
                self.losses_since_update.append(loss.item())
            else:
                self._note_bad_step(f"the loss is {loss.item()}", batch)
        progress.epoch_batch += 1
        progress.micro_step += 1

    def _update(self) -> None:
        """Change the weights by the gradients gathered, if there are any and they are finite."""
        preset, progress = self.preset, self.progress
        rate = preset.learning_rate * learning_rate_factor(preset, progress.global_step, self.total_steps)
        if self.losses_since_update:
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, preset.clip_grad_norm or math.inf)
            if norm.isfinite():
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                self.optimizer.step()
                progress.global_step += 1
                self._note_step(rate)
            else:
                self._note_bad_step(f"the gradient is {norm.item()}")
        self.optimizer.zero_grad(set_to_none=True)
        self.losses_since_update.clear()
        self.at_last_update = replace(progress)
        self._write_what_is_due()

    def _write_what_is_due(self) -> None:
        """A checkpoint and a LoRA, at their intervals; how long that takes is no part of the next step."""
        preset, progress = self.preset, self.progress
        if self.backup.is_due(progress):
            self._save_checkpoint()
        if self.save.is_due(progress):
            name = f"{preset.save_filename_prefix}lora-{progress.global_step:06d}.safetensors"
            write_lora(self.host, self.model, preset.workspace_dir / "save" / name, steps=progress.global_step)
        self.last_step_at = time.monotonic()

    def _note_step(self, rate: float) -> None:
        step, now = self.progress.global_step, time.monotonic()
        loss = sum(self.losses_since_update) / len(self.losses_since_update)
        seconds, self.last_step_at = now - self.last_step_at, now
        self.bad_steps_in_a_row = 0
        self.losses.append(loss)
        self.host.run.step(step, loss, rate, seconds)
        self.host.emit(
            "step_finished", step=step, total=self.total_steps, loss=loss, learning_rate=rate, seconds=seconds
        )
        self.bar.update()
        self.bar.set_postfix(loss=f"{loss:.4f}", epoch=self.progress.epoch + 1)
        self.host.monitor.stepped()

    def _note_bad_step(self, reason: str, batch: dict[str, Any] | None = None) -> None:
        clips = ", ".join(batch["image_path"]) if batch is not None else ""
        self.skipped_steps += 1
        self.bad_steps_in_a_row += 1
        self.host.context.metrics.count("steps_skipped")
        step = self.progress.global_step
        self.host.say("step_skipped", f"a step after {step} is left out: {reason}", step=step, clips=clips)
        if self.bad_steps_in_a_row >= MAX_BAD_STEPS:
            raise CriticalError(
                "training has diverged",
                reason=f"{reason}, for the {MAX_BAD_STEPS}th time in a row, after step {step}",
                fix="lower the learning rate, or train with weights in FLOAT_32; the last checkpoint is kept",
                module="trainer",
            )

    # Files

    def _save_checkpoint(self, *, finished: bool = False) -> Path:
        state = TrainingState(
            adapter=adapter_state(self.model.transformer),
            optimizer=self.optimizer.state_dict(),
            progress=self.at_last_update,
            fingerprint=training_fingerprint(self.preset),
            finished=finished,
            samples=self.data.digest,
        )
        path = self.checkpoints.save(state)
        self.host.run.event("checkpoint_saved", f"checkpoint at step {state.progress.global_step}", path=str(path))
        self.host.emit("checkpoint_saved", path=str(path), step=state.progress.global_step, finished=finished)
        return path

    # What it came to

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = time.monotonic() - began
            self.host.run.event("phase_ended", f"{phase} took {self.seconds[phase]:.1f} s", phase=phase)

    def _cache_counts(self) -> tuple[int, int]:
        values = self.host.context.metrics.snapshot()
        return round(total(values, "cache_hits")), round(total(values, "cache_misses"))

    def _result(self, start: StartingPoint, lora: Path, checkpoint: Path, previews: tuple[Path, ...]) -> TrainResult:
        counts = self.host.database.sample_counts(self.host.run.id)
        _, misses = self._cache_counts()
        return TrainResult(
            run_id=self.host.run.id,
            finished=self.is_finished,
            first_step=self.first_step,
            steps=self.progress.global_step,
            resumed_from=start.path,
            losses=tuple(self.losses),
            skipped_steps=self.skipped_steps,
            valid=counts["valid"],
            skipped=counts["skipped"],
            failed=counts["failed"],
            left_out=self.host.remarks("skipped") + self.host.remarks("failed"),
            warnings=self.host.remarks("warning"),
            cache_hits=self.cache_hits,
            cache_misses=misses,
            lora=lora,
            previews=previews,
            checkpoint=checkpoint,
            workspace=self.preset.workspace_dir,
            seconds=dict(self.seconds),
        )
