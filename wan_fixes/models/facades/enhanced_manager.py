"""`EnhancedModelManager`: models looked at, checked, fetched and loaded, each once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from wan_fixes.models.compatibility import CompatibilityCheck, check_compatibility
from wan_fixes.models.correlation import model_logger
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.facades.loading import (
    ALL_FALLBACKS,
    Loader,
    ModelLoadingResult,
    free_memory,
    load_first,
    ways_to_load,
)
from wan_fixes.models.facades.metadata import ModelMetadata
from wan_fixes.models.failures import ModelError
from wan_fixes.models.fallbacks import FallbackKind, WantedSettings
from wan_fixes.models.fetching import Progress
from wan_fixes.models.hardware import Hardware
from wan_fixes.models.installed import ModelStatus
from wan_fixes.models.names import ModelName
from wan_fixes.models.paths import WanPaths, get_wan_paths

logger = model_logger(__name__)


class EnhancedModelManager:
    """Loads models with loaders of the caller's.

    Safe to call from any thread. One model is loaded at a time, since the next is measured against what that leaves.

    Parameters
    ----------
    measure:
        Says what the machine has free, before each load (default: `Hardware.of_this_machine`).
    """

    def __init__(self, ensurer: ModelEnsurer | None = None, *, measure: Callable[[], Hardware] | None = None) -> None:
        self.ensurer = ensurer or ModelEnsurer()
        self._measure = measure or (lambda: Hardware.of_this_machine(self.ensurer.resolver.root))
        self._loaded: dict[ModelName, ModelLoadingResult] = {}
        self._lock = threading.RLock()  # a loader may itself load another model

    def get_model_metadata(self, model_id: str) -> ModelMetadata:
        """What the manifest says of a model. Raises ModelError."""
        return ModelMetadata.of(*self.ensurer.manifest.find(model_id))

    def get_model_status(self, model_id: str) -> ModelStatus:
        """What is on the disk of a model. Asks no server. Raises ModelError."""
        return self.ensurer.status(model_id)

    def check_model_compatibility(self, model_id: str, wanted: WantedSettings | None = None) -> CompatibilityCheck:
        """Whether a model does what is wanted (default: what it is made for) on this machine. Raises ModelError."""
        target = self.ensurer.target(model_id)
        return check_compatibility(
            target.spec,
            target.variant,
            wanted or WantedSettings.of(target.spec),
            self._measure(),
            manifest=self.ensurer.manifest,
            status=self.ensurer.look(target),
        )

    def load_model(
        self,
        model_id: str,
        loader: Loader,
        wanted: WantedSettings | None = None,
        *,
        fallbacks: Collection[FallbackKind] = ALL_FALLBACKS,
        on_progress: Callable[[Progress], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> ModelLoadingResult:
        """Have a model complete, check its components, and let the loader load it, in the first way that fits.

        A model that is loaded already is not loaded again: the result is that of then.

        Parameters
        ----------
        loader:
            Called with where the files are, and as what they are to be loaded; it may raise anything.
        wanted:
            What the model is to do (default: what it is made for).
        fallbacks:
            The ways with less memory that may be taken; a smaller model is fetched where it is not there.

        Raises
        ------
        ModelError
            For a name or a setting that is none. Whatever else fails is in `ModelLoadingResult.error`.
        """
        target = self.ensurer.target(model_id)
        wanted = wanted or WantedSettings.of(target.spec)
        wanted.estimate(target.spec)  # what is wrong with the settings is said before anything is waited for

        def fetch(name: str) -> WanPaths:
            # Weights are read from the files for as long as they are loaded: nothing may remove them.
            self.ensurer.usage.use(self.ensurer.target(name).name)
            self.ensurer.ensure(name, on_progress=on_progress, stop=stop)
            return get_wan_paths(name, ensurer=self.ensurer)

        with self._lock:
            if target.name in self._loaded:
                return self._loaded[target.name]
            try:
                ways = ways_to_load(target, wanted, self._measure(), self.ensurer.manifest, fallbacks)
            except ModelError as error:
                return ModelLoadingResult(target.name, error=error)
            result = load_first(target.name, ways, loader, fetch)
            if result.is_loaded:
                self._loaded[target.name] = result
            return result

    def unload_model(self, model_id: str) -> bool:
        """Let go of a model, and of memory that nothing uses then; False where it was not loaded.

        What the caller still holds of it stays. Raises ModelError for a name that is none.
        """
        name = self.ensurer.target(model_id).name
        with self._lock:
            was_loaded = self._loaded.pop(name, None) is not None
            if was_loaded:
                free_memory()
                logger.info("unloaded %s", name)
            return was_loaded

    @property
    def loaded_models(self) -> dict[ModelName, ModelLoadingResult]:
        """Those that are loaded, by the name that was asked for."""
        with self._lock:
            return dict(self._loaded)
