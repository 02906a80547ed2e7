"""`ModelRegistry`: the models of a manifest by id, version and variant."""

from __future__ import annotations

import os

from wan_fixes.models.failures import ModelError
from wan_fixes.models.manifest import Manifest, load_manifest, manifest_path
from wan_fixes.models.names import ModelName, Wanted, parse_name
from wan_fixes.models.spec import ModelSpec


class ModelRegistry:
    """The models of one manifest (default: the one in use)."""

    def __init__(self, manifest: Manifest | None = None) -> None:
        self.manifest = manifest or load_manifest()

    def spec(self, model_id: str, version: str | None = None, variant: str | None = None) -> ModelSpec:
        """What the manifest says of a model; `model_id` may say version and variant too, or be a repository.

        Raises ModelError that lists what there is.
        """
        if version is None and variant is None:
            return self.manifest.find(model_id)[0]
        said = parse_name(model_id)
        return self.manifest.find(Wanted(said.model_id, version or said.version, variant or said.variant))[0]

    def list_models(self) -> list[ModelName]:
        """Each model, version and variant."""
        return [spec.name(variant.name) for spec, variant in self.manifest.variants()]

    @staticmethod
    def validate_manifest(path: str | os.PathLike[str] | None = None) -> list[str]:
        """All that is wrong with a manifest (default: the one in use); nothing where all is well."""
        try:
            load_manifest(path or manifest_path())
        except ModelError as error:
            return list(error.context.get("problems", [error.reason]))
        return []
