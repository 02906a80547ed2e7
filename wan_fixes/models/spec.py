"""What a manifest says of a model: frozen dataclasses and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wan_fixes.models.names import ModelName


@dataclass(frozen=True)
class FileSpec:
    """One file of a model.

    Attributes
    ----------
    path:
        Below the model's folder, with ``/`` between the parts.
    size:
        Bytes; None where the manifest does not say.
    sha256:
        Of its content, in lower-case hex digits; None where the manifest does not say.
    """

    path: str
    size: int | None = None
    sha256: str | None = None

    @property
    def component(self) -> str:
        """The part of the model that it belongs to: its folder; "" for a file beside those."""
        return self.path.rpartition("/")[0].partition("/")[0]


@dataclass(frozen=True)
class HubSource:
    """A repository on the Hugging Face hub, and the branch, tag or commit of it."""

    repository: str
    revision: str = "main"


@dataclass(frozen=True)
class S3Source:
    """A folder of a bucket, of S3 or what speaks its protocol. Whose server that is, the environment says."""

    bucket: str
    prefix: str = ""


@dataclass(frozen=True)
class VramParameters:
    """What memory on the GPU is estimated from.

    Attributes
    ----------
    transformer_billions, text_encoder_billions, vae_billions:
        Parameters, in billions; of one transformer where there are two experts.
    hidden_size, layers:
        Of the transformer.
    """

    transformer_billions: float
    text_encoder_billions: float
    vae_billions: float
    hidden_size: int
    layers: int


@dataclass(frozen=True)
class VariantSpec:
    """One set of a model's files.

    Attributes
    ----------
    precision:
        What the transformers' weights are stored in: "fp32", "bf16", "fp16", "fp8".
    files:
        All files; empty where the hub is asked which there are.
    s3:
        Where a bucket has them too, else None.
    sensitive:
        Whether they are encrypted where they lie.
    """

    name: str
    precision: str
    hub: HubSource
    files: tuple[FileSpec, ...] = ()
    s3: S3Source | None = None
    sensitive: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """One model in one version.

    Attributes
    ----------
    family:
        "wan21" or "wan22".
    model_type:
        What OneTrainer calls it.
    pipeline:
        The class of diffusers that its ``model_index.json`` names.
    components:
        The folders that it is made of.
    optional:
        Those of them without which it can be trained.
    defaults:
        ``fps``, ``frames``, ``scheduler``, ``precision``, ``guidance``, ``height``, ``width``.
    variants:
        By name; the first is the default.
    """

    model_id: str
    version: str
    label: str
    family: str
    mode: str
    model_type: str
    pipeline: str
    components: tuple[str, ...]
    optional: tuple[str, ...]
    defaults: Mapping[str, Any]
    vram: VramParameters
    variants: Mapping[str, VariantSpec]
    fallbacks: tuple[str, ...] = ()

    @property
    def default_variant(self) -> str:
        """The variant that is meant where none is named."""
        return next(iter(self.variants))

    def name(self, variant: str | None = None) -> ModelName:
        """Its canonical name."""
        return ModelName(self.model_id, self.version, variant or self.default_variant)

    def short_name(self, variant: str) -> str:
        """As short as it can be without meaning another one tomorrow."""
        return f"{self.model_id}@{self.version}" + (f"#{variant}" if variant != self.default_variant else "")
