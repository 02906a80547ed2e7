"""Our counters beside OneTrainer's scalars in TensorBoard: samples, cache, speed, memory, errors, alerts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from wan_fixes.health import plain, total
from wan_fixes.health.monitor import Look

logger = logging.getLogger(__name__)

EVERY_SECONDS: Final = 10.0
_PREFIX: Final = "wan_fixes/"


class Scalars:
    """Writes the latest look at a run now and then.

    What it writes was measured by the run's monitor in a thread of its own, so that the training waits for nothing.
    After a failure it writes no more: a full disk must not cost a warning every few seconds.

    Parameters
    ----------
    add_scalar:
        Of OneTrainer's ``SummaryWriter``, as it was before ours was laid around it.
    samples_per_step:
        How many samples this process trains on in an optimizer step.
    """

    def __init__(
        self,
        add_scalar: Callable[[str, float, int], Any],
        samples_per_step: float = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._add_scalar = add_scalar
        self._samples_per_step = samples_per_step
        self._clock = clock
        self._step: int | None = None
        self._written_at: float | None = None
        self._before: Look | None = None
        self._is_broken = False

    def write(self, step: int, look: Look | None) -> None:
        """Write what was seen last, with the number of the step, if the last time was long enough ago."""
        self._step = step
        now = self._clock()
        if self._written_at is not None and now - self._written_at < EVERY_SECONDS:
            return
        if look is not None:
            self._written_at = now
            self._write(step, look)

    def write_last(self, look: Look | None) -> None:
        """Write how the training ended, with the number of its last step, if it made one."""
        if look is not None and self._step is not None:
            self._write(self._step, look)

    def _write(self, step: int, look: Look) -> None:
        if self._is_broken:
            return
        try:
            for name, value in self._values(look, self._before):
                self._add_scalar(_PREFIX + name, value, step)
        except Exception as error:  # noqa: BLE001 - the boundary to TensorBoard, which writes files
            self._is_broken = True
            logger.warning("no more is written to TensorBoard by the plugin: %s", plain(repr(error)))
        self._before = look

    def _values(self, look: Look, before: Look | None) -> Iterator[tuple[str, float]]:
        counters, gauges = look.counters, look.gauges
        yield "samples/left_out", total(counters, "samples_left_out")
        hits, misses = total(counters, "cache_hits"), total(counters, "cache_misses")
        if hits + misses:
            yield "cache/hit_rate", hits / (hits + misses)
        if before is not None and look.at > before.at:
            steps = gauges["steps"] - before.gauges["steps"]
            yield "speed/samples_per_second", steps * self._samples_per_step / (look.at - before.at)
        for name, gauge in (("process_mb", "memory_mb"), ("gpu_mb", "gpu_memory_mb")):
            if gauge in gauges:
                yield f"memory/{name}", gauges[gauge]
        yield "errors/failures", total(counters, "module_failures")
        yield "alerts/active", look.alerts
