"""Loading a model in the first way for which there is memory, and saying which that was."""

from __future__ import annotations

import gc
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from wan_fixes.health.diagnosis import MEMORY_KINDS, failure_kind
from wan_fixes.health.text import plain
from wan_fixes.models.compatibility import CompatibilityCheck, ModelCompatibility, check_compatibility
from wan_fixes.models.correlation import model_logger
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.fallbacks import Fallback, FallbackKind, WantedSettings, every_way
from wan_fixes.models.hardware import Hardware
from wan_fixes.models.manifest import Manifest
from wan_fixes.models.names import ModelName
from wan_fixes.models.paths import WanPaths
from wan_fixes.models.target import Target

#: The ways with less memory, in the order in which they are tried.
ALL_FALLBACKS: Final = (FallbackKind.QUANTISED, FallbackKind.SMALLER_MODEL, FallbackKind.CPU_OFFLOAD)

Loader = Callable[[WanPaths, WantedSettings], Any]
"""Loads the model that is in these folders, in that precision and with that much offloaded."""

logger = model_logger(__name__)


@dataclass(frozen=True)
class ModelLoadingResult:
    """How loading a model ended.

    Attributes
    ----------
    name:
        The model that was asked for.
    model:
        What the loader returned; None where it came to nothing.
    used:
        The way that it was loaded: which model, precision and offload. None where it came to nothing.
    seconds:
        That the loader took, without fetching and without the ways that failed.
    failed:
        The ways that were tried in vain, each with the reason.
    error:
        Why it came to nothing; None where there is a model.
    """

    name: ModelName
    model: Any = None
    used: Fallback | None = None
    seconds: float = 0.0
    failed: tuple[str, ...] = ()
    error: Exception | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether there is a model."""
        return self.used is not None

    @property
    def fallback_used(self) -> FallbackKind | None:
        """How the model differs from what was asked for; None where it does not, or where there is none."""
        return None if self.used is None or self.used.kind is FallbackKind.AS_ASKED else self.used.kind


def ways_to_load(
    target: Target,
    wanted: WantedSettings,
    hardware: Hardware,
    manifest: Manifest,
    fallbacks: Collection[FallbackKind] = ALL_FALLBACKS,
) -> list[Fallback]:
    """The ways that may be taken and for which there is memory, or nobody knows; the one that is asked for comes first.

    Raises ModelError (INVALID_CONFIG) where there is none.
    """
    check = check_compatibility(target.spec, target.variant, wanted, hardware, manifest=manifest)
    ways = [
        way
        for way in every_way(target.spec, target.variant, wanted, hardware, manifest)
        if way.kind in (FallbackKind.AS_ASKED, *fallbacks) and way.fits is not False
    ]
    if check.level is ModelCompatibility.INCOMPATIBLE or not ways:
        raise _does_not_do(check)
    return ways


def load_first(
    name: ModelName, ways: Iterable[Fallback], loader: Loader, fetch: Callable[[str], WanPaths]
) -> ModelLoadingResult:
    """Fetch and load the first of these ways that can be; what fails is in the result.

    Where memory runs out, the next way with less is tried. A smaller model that cannot be fetched is passed over.
    Whatever else fails ends it: it would fail again.
    """
    failed: list[str] = []
    error: Exception | None = None
    too_much: int | None = None
    for way in ways:
        if too_much is not None and way.estimate.total >= too_much:
            continue
        try:
            paths = fetch(way.model)
            began = time.monotonic()
            model = loader(paths, way.wanted)
        except Exception as caught:  # noqa: BLE001 - the boundary to the caller's loader, which may raise anything
            error = caught
        else:
            seconds = time.monotonic() - began
            logger.info("loaded %s as %s in %.1f s", name, way.label, seconds)
            return ModelLoadingResult(name, model, way, seconds, tuple(failed))
        failed.append(f"{way.label}: {plain(error) or type(error).__name__}")
        logger.warning("%s could not be loaded as %s", name, failed[-1])
        if failure_kind(error) in MEMORY_KINDS:
            too_much = way.estimate.total
            free_memory(error)
        elif way.kind is not FallbackKind.SMALLER_MODEL or not isinstance(error, ModelError):
            break
    return ModelLoadingResult(name, failed=tuple(failed), error=error)


def free_memory(error: BaseException | None = None) -> None:
    """Free what nothing uses any more. The frames that an error went through hold what they had begun to load."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _does_not_do(check: CompatibilityCheck) -> ModelError:
    return ModelError(
        ErrorCode.INVALID_CONFIG,
        f"{check.model} cannot be loaded for what is wanted",
        reason="; ".join(check.issues),
        fix="; ".join(check.recommendations) or "`wan models check` says what would do",
    )
