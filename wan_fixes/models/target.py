"""One model that somebody asked for: what the manifest says of it, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.layout import ModelResolver
from wan_fixes.models.manifest import Manifest
from wan_fixes.models.names import ModelName, Wanted, parse_name
from wan_fixes.models.spec import ModelSpec, VariantSpec


@dataclass(frozen=True)
class Target:
    """A model in one version and variant, below one root.

    Attributes
    ----------
    folder:
        Where its files are once they are complete.
    partial:
        Where they are until then.
    """

    spec: ModelSpec
    variant: VariantSpec
    name: ModelName
    folder: Path
    partial: Path

    @property
    def origin(self) -> str:
        """Where the manifest says that it comes from: when that changes, what was pinned before does not count."""
        return f"{self.variant.hub.repository}@{self.variant.hub.revision}"


def find_target(manifest: Manifest, resolver: ModelResolver, model_id: str, variant: str | None = None) -> Target:
    """The model of that name (``ID``, ``ID@VERSION``, ``ID@VERSION#VARIANT`` or a repository). Raises ModelError."""
    if variant is not None:
        wanted = parse_name(model_id)
        return target_of(*manifest.find(Wanted(wanted.model_id, wanted.version, variant)), resolver)
    return target_of(*manifest.find(model_id), resolver)


def refuse_sensitive(target: Target) -> None:
    """Raise ModelError for a model that is encrypted where it lies: links and earlier revisions of it would not be."""
    if target.variant.sensitive:
        raise ModelError(
            ErrorCode.INVALID_CONFIG,
            f"{target.name} is encrypted where it lies",
            path=target.folder,
            reason="the manifest says that it is sensitive, and this would leave it in clear",
            fix="fetch it with `wan models ensure`; for another revision change the manifest",
        )


def target_of(spec: ModelSpec, variant: VariantSpec, resolver: ModelResolver) -> Target:
    """That variant of a model, below that root."""
    name = spec.name(variant.name)
    return Target(spec, variant, name, resolver.model_folder(spec, name), resolver.partial_folder(name))
