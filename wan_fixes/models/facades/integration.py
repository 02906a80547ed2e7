"""Weights in one call, for programs that use asyncio."""

from __future__ import annotations

import os
from pathlib import Path

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.facades.in_thread import in_thread
from wan_fixes.models.facades.weight_manager import WANWeightManager
from wan_fixes.models.installed import ModelState, ModelStatus
from wan_fixes.models.layout import ModelResolver


async def get_wan_weight_manager(models_dir: str | os.PathLike[str] | None = None) -> WANWeightManager:
    """A manager of the models below a folder (default: as `MODELS_ROOT` says). Raises ModelError."""

    def make() -> WANWeightManager:
        # Links stay as they were written.
        root = None if models_dir is None else ModelResolver(Path(os.path.abspath(Path(models_dir).expanduser())))  # noqa: PTH100
        return WANWeightManager(ModelEnsurer(resolver=root))

    return await in_thread(lambda _: make())


async def ensure_wan_model_weights(
    model_id: str, auto_download: bool = True, *, manager: WANWeightManager | None = None
) -> bool:
    """Whether a model is complete; it is fetched, or mended, where it is not, unless `auto_download` is off.

    Why it is not is in the log, and in the manager's `last_errors`. Raises ModelError for a name that is none.
    """
    manager = manager or await get_wan_weight_manager()
    if auto_download:
        return await manager.download_model_weights(model_id, verify_integrity=False)
    return (await get_wan_model_weight_status(model_id, manager=manager)).state is ModelState.COMPLETE


async def get_wan_model_weight_status(model_id: str, *, manager: WANWeightManager | None = None) -> ModelStatus:
    """What is there of a model. Asks no server. Raises ModelError for a name that is none."""
    manager = manager or await get_wan_weight_manager()
    ensurer = manager.ensurer
    return await in_thread(lambda _: ensurer.status(model_id))
