"""The training that goes on in this process: its record in the run database, its pipelines' contexts, its events."""

from __future__ import annotations

import atexit
import logging
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from wan_fixes.errors import WanFixesError
from wan_fixes.health import Run, RunDatabase, RunMonitor, plain, run_database_path, total
from wan_fixes.health.run_log import RunLog
from wan_fixes.hosts.onetrainer.patching import shielded
from wan_fixes.hosts.onetrainer.scalars import Scalars
from wan_fixes.pipeline import PipelineContext
from wan_fixes.plugins import call_hooks, get_plugin_manager
from wan_fixes.settings import Settings

logger = logging.getLogger(__name__)

_LOSS, _RATE = "loss/train_step", "lr/"  # tags of OneTrainer's TensorBoard log
_MOVING = re.compile("(?i)training|caching")  # in what OneTrainer says it does, while samples or steps must come

_current: Training | None = None


class Training:
    """One training, or one other use of the data loaders, from its first pipeline to its end.

    Parameters
    ----------
    config:
        OneTrainer's ``TrainConfig``.
    recorded:
        Whether this process writes the run. Of several ranks one does.
    """

    def __init__(self, config: Any, settings: Settings, *, recorded: bool) -> None:
        self.settings = settings
        self._recorded = recorded
        self.plugins = get_plugin_manager(settings)
        self.config = plain_config(config)
        self.database: RunDatabase | None = None
        self.run: Run | None = None
        self.monitor: RunMonitor | None = None
        self._contexts: list[PipelineContext] = []
        self._ended = False
        self._status = ""
        #: Shows a line in OneTrainer's window, or on the console; set with the first that it shows itself.
        self.say: Callable[[str], None] = lambda _: None
        #: Where our counters go beside OneTrainer's scalars; None where TensorBoard is switched off.
        self.scalars: Scalars | None = None
        self._rate = 0.0
        self._last_step_at = time.monotonic()
        self._log = RunLog(config.workspace_dir if recorded and settings.log_file else None)
        if recorded:
            self._open_run(str(config.workspace_dir))
            # Called in reverse order, and the database has just registered its own: the run ends before it is closed.
            atexit.unregister(close_current)
            atexit.register(close_current)
            self.emit("run_started", workspace=str(config.workspace_dir), config=self.config)

    def _open_run(self, workspace: str) -> None:
        try:
            path = run_database_path(workspace)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._log.open()
            self.database = RunDatabase(path, kept_days=self.settings.keep_runs_days)
            self.run = self.database.start_run("train", self.config | {"correlation_id": self._log.correlation_id})
            self.monitor = RunMonitor(self.run, self.settings).start()
        except (WanFixesError, OSError, RuntimeError) as error:  # training without a record is better than none
            logger.warning("this training is not recorded: %s", plain(str(error)))

    def new_context(self, cache_dir: str, *, fills_cache: bool = True) -> PipelineContext:
        """A context for one pipeline of this training. It is closed with the training."""
        context = PipelineContext.create(cache_dir, settings=self.settings, run=self.run, fills_cache=fills_cache)
        self._contexts.append(context)
        if self.monitor is not None:
            self.monitor.watch(context)
        return context

    # What happens

    def emit(self, name: str, **payload: Any) -> None:
        """Tell the plugins that something happened, from the one process that records it.

        What a plugin raises is logged: it can refuse a model or a pipeline, and not stop a training by an event.
        """
        if self._recorded:
            shielded(self._tell, name, payload)

    def _tell(self, name: str, payload: dict[str, Any]) -> None:
        call_hooks(self.plugins, "onetrainer_training_event", name=name, payload=payload)

    def note(self, kind: str, message: str, **facts: Any) -> None:
        """Record an event of the run."""
        if self.run is not None:
            self.run.event(kind, message, **facts)

    def note_status(self, status: str) -> None:
        """Record what OneTrainer says it is doing, once until that changes."""
        if status != self._status and not self._ended:
            self._status = status
            self.note("status", status)
            self._last_step_at = time.monotonic()  # what went on before is no part of the next step
            if self.monitor is not None:
                self.monitor.enter(status, should_move=bool(_MOVING.search(status)))

    def note_saved(self, event: str, message: str, **facts: Any) -> None:
        """Record that a file was made, and tell the plugins."""
        self.note(event, message, **facts)
        self.emit(event, **facts)

    def note_scalar(self, tag: str, value: float, step: int) -> None:
        """Take the loss and the learning rate from what OneTrainer writes for TensorBoard."""
        if tag.startswith(_RATE):
            self._rate = float(value)
        elif tag == _LOSS:
            now = time.monotonic()
            seconds, self._last_step_at = now - self._last_step_at, now
            if self.run is not None:
                self.run.step(step + 1, float(value), self._rate, seconds)
            self.emit("step_finished", step=step + 1, loss=float(value), learning_rate=self._rate, seconds=seconds)
            if self.monitor is not None:
                self.monitor.stepped()
                if self.scalars is not None:
                    self.scalars.write(step, self.monitor.latest)

    def write_last_scalars(self) -> None:
        """Add what the training comes to; OneTrainer closes its files for TensorBoard when it ends."""
        if self.scalars is not None and self.monitor is not None:
            if not self._ended:  # else the monitor has looked for the last time
                self.monitor.look()
            self.scalars.write_last(self.monitor.latest)

    def samples_ready(self, dataset: Any, context: PipelineContext, what: str) -> None:
        """Record the usable files of an opened pipeline, and log how many are valid, skipped and failed.

        Parameters
        ----------
        what:
            Which data set it is, for people: "training" or "validation".
        """
        values = context.metrics.snapshot()
        valid = context.usable_files(dataset.loading_pipeline.modules)
        if self.run is not None:
            for path in valid:
                self.run.sample(path, "valid")
        counts = {"valid": len(valid), **context.left_out_counts()}
        hits, misses = round(total(values, "cache_hits")), round(total(values, "cache_misses"))
        message = (
            f"{what} data: {counts['valid']} samples are valid, {counts['skipped']} skipped, {counts['failed']} failed"
        )
        logger.info("%s", message)
        self.note("samples_ready", message, data=what, **counts)
        self.emit("caching_finished", data=what, **counts, cache_hits=hits, cache_misses=misses)

    # How it ends

    def fail(self, error: BaseException) -> None:
        """Record that `error` ended the training; the pipelines may still be at work."""
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = "interrupted" if interrupted else f"{type(error).__name__}: {error}"
        if not interrupted:
            self._log.note("what ended the training", logging.ERROR, error=error)
        self.end("interrupted" if interrupted else "failed", reason)

    def end(self, status: Any, reason: str = "") -> None:
        """Record the end: "finished", "interrupted" or "failed". Only the first call counts."""
        if self._ended:
            return
        self._ended = True
        self._log.note(f"the run ended: {status}", reason=reason)
        if self.monitor is not None:
            self.monitor.close()
        if self.run is not None:
            if status != "finished":
                self.note(f"run_{status}", reason)
            self.run.finish(status)
        if status == "finished":
            self.emit("run_finished", status=status)
        else:
            self.emit("run_failed", reason=reason, interrupted=status == "interrupted")

    def close(self) -> None:
        """Close every file of ours. The pipelines are not used afterwards."""
        contexts, self._contexts = self._contexts, []
        database, self.database = self.database, None
        with ExitStack() as closing:  # all of them, whatever one raises: Windows keeps what is open from being deleted
            closing.callback(self._log.close)
            if database is not None:
                closing.callback(database.close)
            for context in contexts:
                closing.callback(context.close)


def current() -> Training | None:
    """The training of this process, if one goes on."""
    return _current


def begin(config: Any, *, recorded: bool) -> Training | None:
    """Begin a training, and close the one before; None with the plugin switched off in the settings.

    Raises ``UserError`` when the settings cannot be read.
    """
    global _current
    close_current()
    settings = Settings.load()
    if settings.enabled:
        _current = Training(config, settings, recorded=recorded)
    return _current


def begin_unrecorded(config: Any) -> Training | None:
    """Begin what is no training, but uses its pipelines."""
    return begin(config, recorded=False)


def close_current() -> None:
    """Close the training of this process, if there is one."""
    global _current
    training, _current = _current, None
    if training is not None:
        training.end("interrupted", "the process ended")
        training.close()


def plain_config(config: Any) -> dict[str, Any]:
    """OneTrainer's configuration as plain JSON types, without its secrets."""
    values: dict[str, Any] = config.to_dict()
    return {name: value for name, value in values.items() if name not in ("secrets", "cloud")}
