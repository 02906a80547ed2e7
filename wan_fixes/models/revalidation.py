"""Reading complete models again, slowly and in the background: a disk that forgets is found before it is trained on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from wan_fixes.health import plain
from wan_fixes.models.correlation import correlated, model_logger
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.fetching import Progress
from wan_fixes.models.installed import ModelState
from wan_fixes.models.sources.rate import RateLimiter
from wan_fixes.models.validations import UNREADABLE, Validation, Validations

#: Bytes read in a second: slow enough for a training to read beside it, quick enough for 126 GB in 45 minutes.
PACE: Final = 50e6
#: Seconds between two looks for a model that is due.
_LOOK_SECONDS: Final = 60.0
_HOUR: Final = 3600.0
#: A time that lies further ahead is of a clock that was wrong. Those of machines that share a drive differ by less.
_CLOCKS_DIFFER: Final = 24 * _HOUR

logger = model_logger(__name__)


class Revalidation:
    """A thread that reads the complete model whose last verification is the oldest, one after the other.

    Parameters
    ----------
    hours:
        A model is left alone for so long after it was verified, or after that failed.
    pace:
        Bytes read in a second, at most.
    look_seconds:
        Between two looks for a model that is due.
    """

    def __init__(
        self,
        ensurer: ModelEnsurer,
        hours: float,
        *,
        pace: float = PACE,
        look_seconds: float = _LOOK_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ensurer = ensurer
        self._seconds = hours * _HOUR
        self._pace = pace
        self._look_seconds = look_seconds
        self._clock = clock
        self._validations = Validations(ensurer.resolver, ensurer.locks)
        #: When each was read by us, also where that could not be written down.
        self._read_at: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, in a thread of its own. It does not keep the process from ending."""
        self._thread = threading.Thread(target=self._work, name="models-revalidation", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """End it, at the next block that is read; wait for that at most `timeout` seconds."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def due(self) -> str | None:
        """The name of the model to be read next; None where all were read not long ago."""
        now = self._clock()
        until = now - self._seconds
        found = []
        for spec, variant in self._ensurer.manifest.variants():
            status = self._ensurer.status(str(spec.name(variant.name)))
            if status.state is ModelState.COMPLETE:
                times = (status.verified_at or 0.0, self._read_at.get(status.name, 0.0))
                at = max((at for at in times if at <= now + _CLOCKS_DIFFER), default=0.0)
                found.append((at, status.name))
        at, name = min(found, default=(until, ""))
        return name if at < until else None

    def read(self, name: str) -> Validation | None:
        """Read all files of a model and remember what was found.

        None when it was stopped before the end, or when somebody else works on the model.
        """
        limiter = RateLimiter(self._pace, sleep=self._pause)
        done = 0

        def came(progress: Progress) -> None:
            nonlocal done
            if self._stop.is_set():
                raise ModelError(ErrorCode.STOPPED, "reading was stopped", reason="as it was asked to")
            limiter.take(progress.done - done)
            done = progress.done

        began = self._clock()
        wrong: tuple[str, ...] = ()
        with correlated():
            try:
                status = self._ensurer.verify_integrity(name, on_progress=came, lock_timeout=0)
                outcome, wrong = status.state.value, (*status.missing, *status.corrupt)
            except ModelError as error:
                if error.code in (ErrorCode.STOPPED, ErrorCode.LOCK_TIMEOUT):
                    return None
                outcome = error.code.value
                logger.warning("%s could not be read: %s", name, plain(error))
            except OSError as error:
                outcome = UNREADABLE
                logger.warning("%s could not be read: %s", name, plain(error))
            if wrong:
                shown = plain(", ".join(wrong))
                logger.warning("%s is spoilt: %s; `wan models ensure %s` mends it", name, shown, name)
            now = self._clock()
            validation = Validation(now, now - began, outcome, wrong)
            self._read_at[name] = now
            try:
                self._validations.put(name, validation)
            except ModelError as error:
                logger.warning("that %s was read cannot be written down: %s", name, plain(error))
        return validation

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                name = self.due()
            except (ModelError, OSError) as error:
                logger.warning("the models cannot be looked at: %s", plain(error))
                name = None
            if name is None or self.read(name) is None:
                self._pause(self._look_seconds)

    def _pause(self, seconds: float) -> None:
        """Wait, unless it is to stop."""
        self._stop.wait(seconds)
