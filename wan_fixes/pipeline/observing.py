"""What both hosts do with a pipeline that has just been built: record its modules, and follow samples if asked to."""

from __future__ import annotations

from typing import Any

from wan_fixes.health.run_records import STATE_PREFIX
from wan_fixes.health.versions import versions_here
from wan_fixes.pipeline.context import PipelineContext
from wan_fixes.pipeline.structure import structure_of
from wan_fixes.pipeline.tracing import log_trace, trace_modules


def observe(modules: list[Any], context: PipelineContext, what: str) -> None:
    """Record the modules under the name `what`, and which versions run them.

    With the setting ``trace``, log each item that passes.
    """
    if context.run is not None:
        context.run.state(STATE_PREFIX + what, structure_of(modules))
        context.run.state("versions", versions_here())
    if context.settings.trace:
        trace_modules(modules, log_trace)
