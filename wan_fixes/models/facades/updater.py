"""`WANModelUpdater`: revisions of models, for programs that use asyncio."""

from __future__ import annotations

from dataclasses import dataclass

from wan_fixes.models.facades.in_thread import in_thread
from wan_fixes.models.facades.weight_manager import WANWeightManager
from wan_fixes.models.versions import MigrationStrategy, ModelVersions, UpdateInfo


@dataclass(frozen=True)
class ModelVersion:
    """A revision that a model has, or had.

    Attributes
    ----------
    since:
        When the model moved to it (seconds since 1970); None for the one that it was fetched in.
    changelog:
        What the source said of the commits that led to it, the latest first.
    is_current:
        Whether the model has it now.
    """

    revision: str
    since: float | None
    changelog: tuple[str, ...]
    is_current: bool


class WANModelUpdater:
    """Moves the models of a weight manager to other revisions. What fails is in the manager's `last_errors`."""

    def __init__(self, weight_manager: WANWeightManager | None = None) -> None:
        self.weight_manager = weight_manager or WANWeightManager()
        self._versions = ModelVersions(self.weight_manager.ensurer)

    async def check_for_updates(self, model_id: str | None = None) -> list[UpdateInfo]:
        """What the latest revision of a model would change; without a name, of all that are there. Nothing is fetched.

        A model that is not complete, or whose sources do not answer, is left out. Raises ModelError for a name that is
        none.
        """
        found: list[UpdateInfo] = []
        for name in self.weight_manager.names_there() if model_id is None else [model_id]:
            await self._check(name, found)
        return found

    async def update_model(self, model_id: str, strategy: MigrationStrategy = MigrationStrategy.CONSERVATIVE) -> bool:
        """Move a model to the latest revision; True as well where it has that. Whatever happens, it stays whole."""
        return await self.weight_manager.succeeds(
            model_id, lambda stop: self._versions.update(model_id, strategy=strategy, stop=stop)
        )

    async def rollback_model(self, model_id: str, version: str | None = None) -> bool:
        """Give a model an earlier revision back: the one that begins like that, else the last. It stays whole."""
        return await self.weight_manager.succeeds(
            model_id, lambda stop: self._versions.rollback(model_id, revision=version, stop=stop)
        )

    async def get_version_history(self, model_id: str) -> list[ModelVersion]:
        """The revisions of a model in the order in which it had them; none where nothing of it is there."""
        return await in_thread(lambda _: self._history(model_id))

    async def _check(self, model_id: str, found: list[UpdateInfo]) -> None:
        await self.weight_manager.succeeds(model_id, lambda _: found.append(self._versions.check(model_id)))

    def _history(self, model_id: str) -> list[ModelVersion]:
        changes = self._versions.history(model_id)
        if not changes:
            status = self.weight_manager.ensurer.status(model_id)
            is_there = status.folder.is_dir() and bool(status.revision)
            return [ModelVersion(status.revision, None, (), is_current=True)] if is_there else []
        first = ModelVersion(changes[0].before.revision, None, (), is_current=False)
        later = [ModelVersion(one.revision, one.seconds, one.log, one is changes[-1]) for one in changes]
        return [first, *later]
