"""`WANWeightManager`: fetching, verifying and clearing away weights, for programs that use asyncio."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from wan_fixes.health.text import plain
from wan_fixes.models.correlation import model_logger
from wan_fixes.models.disk_usage import DiskUsage, disk_usage
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.facades.in_thread import in_thread, stop_if_set
from wan_fixes.models.facades.registry import ModelRegistry
from wan_fixes.models.failures import ModelError
from wan_fixes.models.fetching import Progress
from wan_fixes.models.gc import DEFAULT_AGE_DAYS, GcPolicy, Kept, ModelGc, Removable
from wan_fixes.models.installed import ModelState
from wan_fixes.models.quota import DEFAULT_QUOTA, quota_bytes

logger = model_logger(__name__)

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class CleanupStats:
    """What `WANWeightManager.cleanup_cache` did.

    Attributes
    ----------
    planned, removed, kept:
        What can go, what of that is gone, and what stays though it would have had to go.
    bytes_before, bytes_freed:
        On the disk, each file once.
    """

    planned: tuple[Removable, ...]
    removed: tuple[Removable, ...]
    kept: tuple[Kept, ...]
    bytes_before: int
    bytes_freed: int


class WANWeightManager:
    """The models of one root. What is awaited can be cancelled: what was fetched until then is kept.

    Methods that answer with True or False raise ModelError only for what is wrong with a name, a setting or a
    manifest. What else goes wrong is in the log and in `last_errors`.
    """

    def __init__(self, ensurer: ModelEnsurer | None = None) -> None:
        self.ensurer = ensurer or ModelEnsurer()
        #: Why it last failed, by the name that was given; a model with which it succeeded since is not there.
        self.last_errors: dict[str, ModelError] = {}

    async def download_model_weights(
        self,
        model_id: str,
        force_redownload: bool = False,
        verify_integrity: bool = True,
        *,
        on_progress: OnProgress = lambda _: None,
    ) -> bool:
        """Have a model complete.

        Parameters
        ----------
        force_redownload, verify_integrity:
            Read the files that are there already too, all of them, and fetch the parts that are not as they should be.
            What is genuine is never fetched again, and what is fetched is always verified: both mean the same.
        """

        def work(stop: threading.Event) -> None:
            if force_redownload or verify_integrity:
                self.ensurer.repair(model_id, on_progress=_stoppable(on_progress, stop), stop=stop)
            self.ensurer.ensure(
                model_id, on_progress=on_progress, on_wait=lambda _: stop_if_set(stop), stop=stop, is_opened=False
            )

        return await self.succeeds(model_id, work)

    async def verify_model_integrity(self, model_id: str, *, on_progress: OnProgress = lambda _: None) -> bool:
        """Read all files of a model, and say whether it is complete and each digest is right. No server is asked."""

        found: list[ModelState] = []

        def work(stop: threading.Event) -> None:
            status = self.ensurer.verify_integrity(model_id, on_progress=_stoppable(on_progress, stop))
            found.append(status.state)

        return await self.succeeds(model_id, work) and found == [ModelState.COMPLETE]

    async def get_model_cache_info(self, model_id: str | None = None) -> DiskUsage:
        """What a model takes on the disk; without a name, what all do that are there."""
        names = self.names_there() if model_id is None else [model_id]
        return await in_thread(lambda _: disk_usage(self.ensurer, names))

    async def cleanup_cache(
        self, max_size_gb: float | None = None, retention_days: float = DEFAULT_AGE_DAYS, *, dry_run: bool = False
    ) -> CleanupStats:
        """Remove models that were not used for so many days, and then the least recently used beyond a size.

        What is pinned or in use stays, and so does the one used last, unless it is too old.

        Parameters
        ----------
        max_size_gb:
            In GB of 10^9 bytes (default: what `WAN_MODELS_QUOTA` says, else 50).
        dry_run:
            Remove nothing, and return what can go.

        Raises
        ------
        ModelError
            Where the disk refuses, or the quota is no size.
        """
        ensurer = self.ensurer
        collector = ModelGc(ensurer)
        size = quota_bytes() if max_size_gb is None else round(max_size_gb * 1e9)
        policy = GcPolicy(DEFAULT_QUOTA if size is None else size, retention_days)

        def work(stop: threading.Event) -> CleanupStats:
            plan = collector.plan(policy)
            gone = () if dry_run else collector.collect(plan, lambda _: stop_if_set(stop))
            return CleanupStats(plan.removable, gone, plan.kept, plan.bytes, sum(one.bytes for one in gone))

        return await in_thread(work)

    def names_there(self) -> list[str]:
        """The canonical names of the models of which something is in its place."""
        names = map(str, ModelRegistry(self.ensurer.manifest).list_models())
        return [name for name in names if self.ensurer.target(name).folder.is_dir()]

    async def succeeds(self, model_id: str, work: Callable[[threading.Event], object]) -> bool:
        """Do some work on a model in a thread; False where it fails, which is logged and remembered.

        Raises ModelError for what is wrong with a name, a setting or a manifest.
        """
        try:
            await in_thread(work)
        except ModelError as error:
            if not error.is_failure:
                raise
            self.last_errors[model_id] = error
            logger.warning("%s: %s", plain(model_id), plain(error))
            return False
        self.last_errors.pop(model_id, None)
        return True


def _stoppable(on_progress: OnProgress, stop: threading.Event) -> OnProgress:
    def came(progress: Progress) -> None:
        stop_if_set(stop)
        on_progress(progress)

    return came
