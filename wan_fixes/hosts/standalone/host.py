"""What surrounds a training run: settings, plugins and their hooks, the run database, the pipeline's context."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pluggy

from wan_fixes.health import Run, RunDatabase, RunMonitor, plain
from wan_fixes.health.run_log import RunLog
from wan_fixes.health.run_records import SampleStatus
from wan_fixes.hosts.standalone.preset import Preset
from wan_fixes.hosts.standalone.result import SampleRemark
from wan_fixes.pipeline import PipelineContext
from wan_fixes.plugins import call_hooks, get_plugin_manager
from wan_fixes.settings import Settings

logger = logging.getLogger(__name__)

EventListener = Callable[[str, dict[str, Any]], None]
"""Gets the name and payload of each event that ``onetrainer_training_event`` gets, and ``message`` with a ``text``."""


@dataclass(slots=True)
class HostRun:
    """One run with all that records it."""

    preset: Preset
    plugins: pluggy.PluginManager
    database: RunDatabase
    run: Run
    context: PipelineContext
    monitor: RunMonitor
    listener: EventListener | None = None

    def emit(self, name: str, **payload: Any) -> None:
        """Tell the plugins and the listener that something happened."""
        call_hooks(self.plugins, "onetrainer_training_event", name=name, payload=payload)
        if self.listener is not None:
            self.listener(name, payload)

    def say(self, kind: str, text: str, **facts: Any) -> None:
        """Record an event, log it, and tell the listener in words."""
        self.run.event(kind, text, **facts)
        logger.info("%s", plain(text))
        if self.listener is not None:
            self.listener("message", {"kind": kind, "text": text, **facts})

    def locate_model(self) -> None:
        """Let the plugins have the model's files there, where the preset names a model and no folder."""
        if self.preset.model_name:
            call_hooks(
                self.plugins,
                "onetrainer_locate_model",
                model_type=self.preset.model_type,
                base_model=self.preset.model_name,
                say=lambda text: self.say("model_files", text),
            )

    def before_model_load(self) -> None:
        """Let the plugins look at the model that is about to be loaded, or refuse it."""
        call_hooks(
            self.plugins,
            "onetrainer_before_model_load",
            model_type=self.preset.model_type,
            base_model=str(self.preset.base_model_name),
            config=self.preset.to_dict(),
        )

    @contextmanager
    def loading(self) -> Iterator[None]:
        """While the model is loaded: how long that took is recorded."""
        start = time.monotonic()
        self.monitor.enter("loading the model")
        yield
        seconds = time.monotonic() - start
        self.run.event("model_loaded", "the model was loaded", path=str(self.preset.base_model_name), seconds=seconds)

    def remarks(self, status: SampleStatus) -> tuple[SampleRemark, ...]:
        """What was recorded of files with this status: skipped, failed, or warning."""
        records = self.database.samples(self.run.id, status)
        return tuple(SampleRemark(record.path, record.module, record.reason, record.fix) for record in records)


@contextmanager
def open_run(
    preset: Preset, settings: Settings | None, listener: EventListener | None, *, kind: str = "train"
) -> Iterator[HostRun]:
    """Open everything for a run, and close it with the run's end recorded: finished, interrupted or failed.

    `kind` is what the run database calls it.
    """
    settings = settings or Settings.load()
    plugins = get_plugin_manager(settings)
    preset.workspace_dir.mkdir(parents=True, exist_ok=True)
    with (
        RunLog(preset.workspace_dir if settings.log_file else None) as log,
        RunDatabase(preset.run_database, kept_days=settings.keep_runs_days) as database,
        database.start_run(kind, preset.to_dict() | {"correlation_id": log.correlation_id}) as run,
        RunMonitor(run, settings) as monitor,
    ):
        context = PipelineContext.create(preset.cache_dir, settings=settings, run=run)
        monitor.watch(context)
        host = HostRun(preset, plugins, database, run, context, monitor, listener)
        try:
            yield host
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            reason = "interrupted" if interrupted else f"{type(error).__name__}: {error}"
            host.run.event("run_interrupted" if interrupted else "run_failed", reason)
            try:
                host.emit("run_failed", reason=reason, interrupted=interrupted)
            except Exception:  # what ended the run must not be hidden by who was told of it
                logger.exception("a plugin or listener failed when it was told that the run had failed")
            raise
        finally:
            monitor.close()
            context.close()
