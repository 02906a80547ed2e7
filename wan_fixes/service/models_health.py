"""Looking at the models of the manifest for a reply: at names, sizes and times, never at content. Nothing changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Final, Literal

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.installed import ModelState, ModelStatus, Verified
from wan_fixes.models.listing import RemoteFile
from wan_fixes.models.spec import ModelSpec
from wan_fixes.models.target import Target
from wan_fixes.models.validations import Validation, Validations
from wan_fixes.service.replies import (
    ComponentHealth,
    FileHealth,
    FileState,
    LastValidation,
    ModelDetail,
    ModelHealth,
    ModelsHealth,
)

_DEGRADED: Final = (ModelState.PARTIAL, ModelState.CORRUPT)
_WORST_FIRST: Final[tuple[FileState, ...]] = ("CORRUPT", "MISSING", "UNVERIFIED", "COMPLETE")


class ModelsLook:
    """Looks at models. Every method raises OSError where the disk refuses, and ModelError for a forged record."""

    def __init__(self, ensurer: ModelEnsurer) -> None:
        self.ensurer = ensurer
        self._validations = Validations(ensurer.resolver, ensurer.locks)

    def names(self) -> list[str]:
        """Of all models, canonical."""
        return [str(spec.name(variant.name)) for spec, variant in self.ensurer.manifest.variants()]

    def statuses(self) -> list[ModelStatus]:
        """Of all models."""
        return [self.ensurer.status(name) for name in self.names()]

    def looks(self) -> list[ModelStatus]:
        """Of all models, whoever works on them."""
        return [self.ensurer.look(self.ensurer.target(name)) for name in self.names()]

    def all(self) -> ModelsHealth:
        """All models at a glance."""
        validations = self._validations.all()
        models = [
            _health(self.ensurer.target(status.name).spec, status, validations.get(status.name))
            for status in self.statuses()
        ]
        return ModelsHealth(_verdict(model.state for model in models), models)

    def one(self, name: str) -> ModelDetail:
        """A model in full. Raises ModelError where there is none of that name."""
        target = self.ensurer.target(name)
        status = self.ensurer.status(str(target.name))
        spec = target.spec
        wanted = self._wanted(target)
        components = sorted({*spec.components, *(file.component for file in wanted)})
        return ModelDetail(
            status=_verdict([status.state.value]),
            health=_health(spec, status, self._validations.all().get(status.name)),
            label=spec.label,
            mode=spec.mode,
            model_type=spec.model_type,
            precision=target.variant.precision,
            folder=str(status.folder),
            revision=status.revision,
            source=status.source,
            components=[_component(component, spec, wanted, status) for component in components],
        )

    def _wanted(self, target: Target) -> list[RemoteFile]:
        """The files that the model should have, as far as that is known."""
        listing = self.ensurer.known_listing(target)
        if listing is not None:
            return sorted(listing.files, key=lambda file: file.path)
        verified = Verified.read(target.folder)
        records = {} if verified is None else verified.files
        return [RemoteFile(path, record.size, record.sha256) for path, record in sorted(records.items())]


def _component(name: str, spec: ModelSpec, wanted: Iterable[RemoteFile], status: ModelStatus) -> ComponentHealth:
    states: dict[str, FileState] = {
        **dict.fromkeys(status.unverified, "UNVERIFIED"),
        **dict.fromkeys(status.missing, "MISSING"),
        **dict.fromkeys(status.corrupt, "CORRUPT"),
    }
    files = [
        FileHealth(file.path, file.size, states.get(file.path, "COMPLETE")) for file in wanted if file.component == name
    ]
    there = {file.state for file in files}
    worst: FileState = next((state for state in _WORST_FIRST if state in there), "UNKNOWN")
    return ComponentHealth(name, name in spec.optional, worst, sum(file.size for file in files), files)


def _health(spec: ModelSpec, status: ModelStatus, validation: Validation | None) -> ModelHealth:
    is_unknown = status.state is ModelState.NOT_PRESENT and status.bytes_needed is None
    lacking = {RemoteFile(path, 0).component for path in status.missing}
    return ModelHealth(
        name=status.name,
        state=status.state.value,
        bytes_needed=status.bytes_needed,
        bytes_there=status.bytes_there,
        missing=len(status.missing),
        corrupt=len(status.corrupt),
        unverified=len(status.unverified),
        missing_components=[name for name in spec.components if is_unknown or name in lacking],
        verified_at=status.verified_at,
        last_validation=None if validation is None else LastValidation(**asdict(validation)),
    )


def _verdict(states: Iterable[str]) -> Literal["ok", "degraded"]:
    return "degraded" if any(state in _DEGRADED for state in states) else "ok"
