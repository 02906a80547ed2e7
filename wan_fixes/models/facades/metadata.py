"""`ModelMetadata`: what a manifest says of a model, in one flat record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wan_fixes.models.fallbacks import GenerationMode
from wan_fixes.models.names import ModelName
from wan_fixes.models.spec import ModelSpec, VariantSpec


@dataclass(frozen=True)
class ModelMetadata:
    """One model, version and variant.

    Attributes
    ----------
    model_type:
        What OneTrainer calls it.
    precision:
        What the transformers' weights are stored in.
    bytes:
        Of all files; None where the manifest does not say.
    """

    name: ModelName
    label: str
    mode: GenerationMode
    model_type: str
    pipeline: str
    components: tuple[str, ...]
    defaults: Mapping[str, Any]
    precision: str
    repository: str
    bytes: int | None

    @classmethod
    def of(cls, spec: ModelSpec, variant: VariantSpec) -> ModelMetadata:
        """Of that variant."""
        sizes = [file.size for file in variant.files if file.size is not None]
        return cls(
            name=spec.name(variant.name),
            label=spec.label,
            mode=GenerationMode(spec.mode),
            model_type=spec.model_type,
            pipeline=spec.pipeline,
            components=spec.components,
            defaults=spec.defaults,
            precision=variant.precision,
            repository=variant.hub.repository,
            bytes=sum(sizes) if sizes and len(sizes) == len(variant.files) else None,
        )
