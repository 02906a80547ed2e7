"""What the validated modules of one pipeline share: settings, roster, recovery, records, memory of files."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import xxhash

from wan_fixes.errors import SampleError
from wan_fixes.health import ErrorRecoveryManager, Metrics, Run, plain
from wan_fixes.health.diagnosis import failure_kind
from wan_fixes.health.run_records import SampleStatus
from wan_fixes.media import MediaReader, VideoMetadata, is_decoder_available
from wan_fixes.pipeline.media_reader import reader_for
from wan_fixes.pipeline.one_pass import Pair, Upcoming
from wan_fixes.pipeline.probe_memory import ProbeMemory
from wan_fixes.pipeline.roster import SampleRoster
from wan_fixes.pipeline.upstream import collector, path_listed
from wan_fixes.settings import Settings
from wan_fixes.store import ContentIds, Quarantine

if TYPE_CHECKING:
    from wan_fixes.store import SampleStore

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class PipelineContext:
    """Shared by the modules of one pipeline definition. Make one with :meth:`create`.

    Attributes
    ----------
    cache_dir:
        Where the memory of files lives (content ids, probes, quarantine). Each cache has its own store below
        the folder that its definition names.
    run:
        The run's entry in the run database, or None when nobody keeps one.
    fills_cache:
        False in a process that starts an epoch after another one which fills the same cache: what is not in it then
        could not be made, and is left out here as it was there.
    """

    settings: Settings
    cache_dir: Path
    recovery: ErrorRecoveryManager
    quarantine: Quarantine
    content_ids: ContentIds
    probe_memory: ProbeMemory
    metrics: Metrics
    run: Run | None = None
    fills_cache: bool = True
    roster: SampleRoster = field(default_factory=SampleRoster)
    _temporary: TemporaryDirectory[str] | None = None
    _stores: dict[Path, SampleStore] = field(default_factory=dict)
    _upcoming: dict[str, Upcoming] = field(default_factory=dict)
    _warned: set[tuple[str, str]] = field(default_factory=set)
    _left_out: dict[str, SampleStatus] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @classmethod
    def create(
        cls,
        cache_dir: str | Path | None = None,
        *,
        settings: Settings | None = None,
        run: Run | None = None,
        fills_cache: bool = True,
    ) -> PipelineContext:
        """A context whose memory of files lives in `cache_dir` (made when missing); forgotten with it where None."""
        settings = settings or Settings()
        temporary = None
        if cache_dir is None:
            temporary = TemporaryDirectory(prefix="wan-fixes-", ignore_cleanup_errors=True)
            cache_dir = temporary.name
        folder = Path(cache_dir)
        folder.mkdir(parents=True, exist_ok=True)
        return cls(
            settings=settings,
            cache_dir=folder,
            recovery=ErrorRecoveryManager(settings),
            quarantine=Quarantine(folder / "quarantine.sqlite"),
            content_ids=ContentIds(folder / "files.sqlite"),
            probe_memory=ProbeMemory(folder / "probes.sqlite"),
            metrics=Metrics(),
            run=run,
            fills_cache=fills_cache,
            _temporary=temporary,
        )

    def store_for(self, cache_dir: str | Path) -> SampleStore:
        """The sample store below `cache_dir`; one object per folder."""
        from wan_fixes.store import SampleStore  # the only part of the store room that imports torch

        root = Path(cache_dir).absolute() / "samples"
        with self._lock:
            if root not in self._stores:
                self._stores[root] = SampleStore(root)
            return self._stores[root]

    def cache_sizes(self) -> dict[str, tuple[int, int]]:
        """Entries and bytes of each sample store that is in use, by its folder."""
        with self._lock:
            stores = dict(self._stores)
        sizes = {root: store.stats() for root, store in stores.items()}
        return {str(root.parent): (size.entries, size.bytes) for root, size in sizes.items()}

    def close(self) -> None:
        """Close every database. The context is not used afterwards."""
        with self._lock:
            for store in self._stores.values():
                store.close()
            self._stores.clear()
        self.probe_memory.close()
        self.content_ids.close()
        self.quarantine.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    # What is known about a file

    @property
    def reader(self) -> MediaReader:
        """Reads files with the limits of the settings."""
        return reader_for(self.settings)

    def content_id(self, path: str) -> str:
        """The hash of the file's bytes. Raises ``SampleError`` when it cannot be read."""
        return self.content_ids.of(path)

    def check_quarantine(self, path: str, window: str = "") -> str:
        """The content id of a file.

        Raises ``SampleError`` when the file, or the `window` of it, was found damaged and has not changed since.
        """
        content_id = self.content_id(path)
        content = _part_of(content_id, window)
        found = self.quarantine.reason_and_fix_for(path, content)
        found = found or self.quarantine.reason_and_fix_for(path, self._limited(content))
        if found is not None:
            reason, fix = found
            again = f"{fix or 'replace or repair the file'}; it is tried again as soon as it changes"
            raise SampleError("in quarantine", path=path, reason=reason, fix=again, module="quarantine")
        return content_id

    def probe(self, path: str) -> VideoMetadata:
        """What is measured about a clip, remembered by its content. Raises ``SampleError``, also from quarantine."""
        try:
            self.content_id(path)
        except SampleError:
            self._measure(path)  # knows better why a file cannot be read: a link that leads nowhere, a pipe
            raise
        content = self.check_quarantine(path)
        known = self.probe_memory.get(content, path)
        if known is None or not is_decoder_available(known.decoder):
            known = self._measure(path)
            self.probe_memory.put(content, known)
        return known

    def _measure(self, path: str) -> VideoMetadata:
        measured = self.reader.probe(path)
        logger.debug("measured %s", plain(path), extra={"clip": path, "measured": asdict(measured)})
        return measured

    def rng(self, variation: int, path: str, purpose: str) -> random.Random:
        """The random numbers of one sample in one variation: in every run, wherever the sample stands in the list.

        No seed counts: what is cached serves trainings with any, and what is added to it later must fit it.
        """
        text = f"{variation}/{self.content_id(path)}/{purpose}"
        return random.Random(xxhash.xxh3_64_intdigest(text.encode()))

    def announce(self, path: str, pairs: list[Pair]) -> None:
        """Say which (index, variation) pairs of one file are about to be made; none when that is over."""
        with self._lock:
            if pairs:
                self._upcoming[path] = Upcoming(pairs)
            else:
                self._upcoming.pop(path, None)

    def upcoming(self, path: str) -> Upcoming | None:
        """What was announced of a file, and is not over."""
        return self._upcoming.get(path)

    # What happened

    def open_epoch(self, epoch: int) -> None:
        """Called by each sink when it starts an epoch: dropped samples leave, what failed often is adapted to."""
        if self.roster.open_epoch(epoch):
            self._let_in_again()
            for change in self.recovery.reconfigure_pipeline(self.recovery.failure_patterns()):
                self.event("reconfigured", change)

    def skip(self, index: int | None, error: SampleError, sample: str | None = None) -> None:
        """Leave a sample out and say so once: roster, quarantine, run database, log.

        An error whose context says ``damaged`` blames the file itself, whatever the settings: the file is
        quarantined until its content changes, or where the context names a ``window``, this part of it.

        Parameters
        ----------
        index:
            Index in the list of collected paths, or None when the sample never entered it.
        sample:
            The sample's own file, where the error is about another one (its caption).
        """
        error.path = error.path or sample
        if index is not None and not self.roster.drop(index, error):
            return
        module = error.module or "pipeline"
        if error.context.get("damaged") and error.path is not None:
            self._quarantine(error.path, error, module)
        self.metrics.count("samples_skipped", module=module)
        logger.warning("skipped %s", plain(str(error)))
        path = sample or error.path or f"sample {index}"
        status: SampleStatus = "failed" if error.context.get("failed") else "skipped"
        if error.context.get("this_epoch_only"):  # it comes back with the next epoch: that is no verdict on it
            status = "warning"
        self._note_left_out(path, status)
        if self.run is not None:
            reason = _reason(error)
            if sample is not None and error.path not in (None, sample):
                reason = f"{Path(str(error.path)).name}: {reason}"
            if status == "warning":
                reason = f"left out of one epoch: {reason}"
            self.run.sample(path, status, module=module, reason=reason, fix=error.fix, kind=failure_kind(error))

    def usable_files(self, modules: list[Any]) -> list[str]:
        """The files of the collected samples that take part in the present epoch, each once."""
        nearest = collector(modules, len(modules))
        if nearest is None:
            return []
        places = (index for index in range(nearest.length()) if not self.roster.is_dropped(index))
        return list(dict.fromkeys(str(path_listed(nearest, index)) for index in places))

    def left_out_counts(self) -> dict[str, int]:
        """How many files are "skipped" and "failed" by now."""
        with self._lock:
            counts = Counter(self._left_out.values())
        return {"skipped": counts["skipped"], "failed": counts["failed"]}

    def _note_left_out(self, path: str, status: SampleStatus) -> None:
        """Count files and not samples: of one that is damaged all chunks are left out, each by itself."""
        with self._lock:
            if status != "warning" or path not in self._left_out:
                self._left_out[path] = status
            self.metrics.set("samples_left_out", len(self._left_out))

    def _let_in_again(self) -> None:
        with self._lock:
            self._left_out = {path: status for path, status in self._left_out.items() if status != "warning"}
            self.metrics.set("samples_left_out", len(self._left_out))

    def _limited(self, content: str) -> str:
        """What a file is called in quarantine that hit a limit: with higher limits it is tried again."""
        return f"{content} within {self.settings.decode_deadline_seconds:g} s and {self.settings.decode_memory_mb} MB"

    def _quarantine(self, path: str, error: SampleError, module: str) -> None:
        try:
            content = self.content_ids.of(path)
        except SampleError:
            return  # gone: there is no content that could be tried again
        content = _part_of(content, error.context.get("window", ""))
        if error.context.get("limits"):
            content = self._limited(content)
        self.quarantine.add(path, content, _reason(error), module, fix=error.fix)

    def warn(self, path: str, reason: str, fix: str = "", module: str = "pipeline") -> None:
        """Record something that the run goes on with; once for each path and reason."""
        with self._lock:
            if (path, reason) in self._warned:
                return
            self._warned.add((path, reason))
        logger.warning("%s: %s%s", plain(path), plain(reason), f" ({plain(fix)})" if fix else "")
        self.metrics.count("warnings", module=module)
        if self.run is not None:
            self.run.sample(path, "warning", module=module, reason=reason, fix=fix, kind="warning")

    def event(self, kind: str, message: str, **facts: Any) -> None:
        """Record something about the run as a whole."""
        logger.info("%s", plain(message))
        if self.run is not None:
            self.run.event(kind, message, **facts)

    def skip_summary(self) -> list[str]:
        """The reasons for skipping, the most frequent first: "3 times: the file is empty"."""
        counts = Counter(_reason(error) for error in self.roster.reasons().values())
        return [f"{count} times: {reason}" for reason, count in counts.most_common()]


def _part_of(content: str, window: str) -> str:
    return f"{content} {window}" if window else content


def _reason(error: SampleError) -> str:
    return error.reason or error.what
