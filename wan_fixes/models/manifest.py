"""The manifest: which models there are, where they come from and what they are made of.

A TOML file with a schema version. The one in this package lists the released WAN models; `WAN_MODELS_MANIFEST` names
another one, which takes its place. What a manifest leaves open (sizes, digests, the revision) comes from the hub at the
first download and is pinned from then on (see `lock_file`).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.names import ModelName, Wanted, check_paths, is_id, is_version, parse_name

SCHEMA_VERSION: Final = 1
MANIFEST_VARIABLE: Final = "WAN_MODELS_MANIFEST"
BUILT_IN: Final = Path(__file__).with_name("models.toml")
_LARGEST_MANIFEST: Final = 16 << 20

MODES: Final = ("t2v", "i2v", "ti2v")
FAMILIES: Final = ("wan21", "wan22")

_REPOSITORY: Final = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_REVISION: Final = re.compile(r"[\w][\w./-]{0,127}")


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
    """

    name: str
    precision: str
    hub: HubSource
    files: tuple[FileSpec, ...] = ()


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


@dataclass(frozen=True)
class Manifest:
    """All models of one manifest, and the file that it came from."""

    models: Mapping[tuple[str, str], ModelSpec]
    path: Path
    text: bytes = field(repr=False, default=b"")

    def find(self, name: str | Wanted) -> tuple[ModelSpec, VariantSpec]:
        """The model and variant of that name; the latest version and the default variant where none is named.

        Raises ModelError that lists what there is.
        """
        wanted = parse_name(name) if isinstance(name, str) else name
        ids = {model_id.casefold(): model_id for model_id, _ in self.models}
        model_id = ids.get(wanted.model_id.casefold())
        if model_id is None:
            raise self._unknown("model", wanted.model_id, sorted(set(ids.values())))
        versions = {version: spec for (of, version), spec in self.models.items() if of == model_id}
        version = wanted.version or max(versions, key=version_key)
        if version not in versions:
            raise self._unknown(f"version of {model_id}", version, sorted(versions, key=version_key))
        spec = versions[version]
        variant = wanted.variant or spec.default_variant
        if variant not in spec.variants:
            raise self._unknown(f"variant of {model_id}@{version}", variant, list(spec.variants))
        return spec, spec.variants[variant]

    def _unknown(self, what: str, name: str, known: list[str]) -> ModelError:
        return ModelError(
            ErrorCode.UNKNOWN_MODEL,
            f"there is no such {what}: {name[:100]!r}",
            path=self.path,
            reason=f"the manifest has {', '.join(known)}",
            fix="take one of these, or name another manifest in " + MANIFEST_VARIABLE,
            context={"known": known},
        )


def version_key(version: str) -> tuple[Any, ...]:
    """Sorts versions by their numbers: 2.10 comes after 2.9, and a release after its candidates."""
    numbers, _, candidate = version.partition("-")
    return tuple(int(number) for number in numbers.split(".")), not candidate, candidate


def manifest_path() -> Path:
    """What `WAN_MODELS_MANIFEST` names, else the manifest of this package."""
    named = os.environ.get(MANIFEST_VARIABLE)
    return Path(named).expanduser() if named else BUILT_IN


def load_manifest(path: str | os.PathLike[str] | None = None) -> Manifest:
    """Read and check a manifest (default: `manifest_path()`).

    Raises ModelError naming everything that is wrong with it.
    """
    file = manifest_path() if path is None else Path(path)
    try:
        with file.open("rb") as stream:
            data = stream.read(_LARGEST_MANIFEST + 1)
    except OSError as error:
        raise _invalid(file, [error.strerror or str(error)]) from error
    if len(data) > _LARGEST_MANIFEST:
        raise _invalid(file, [f"it is larger than {_LARGEST_MANIFEST >> 20} MiB"])
    return parse_manifest(data, file)


def parse_manifest(data: bytes, path: Path) -> Manifest:
    """Check the content of a manifest; `path` says where it came from. Raises ModelError like `load_manifest`."""
    try:
        content = tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:
        raise _invalid(path, [f"it is not TOML: {error}"]) from error
    _check_schema(content.get("schema_version"), path)
    reader = _Reader()
    reader.names_only(content, "", {"schema_version", "models"})
    models: dict[tuple[str, str], ModelSpec] = {}
    folded: dict[tuple[str, str], str] = {}
    for full_name, table in reader.table(content, "models", "").items():
        spec = reader.model(full_name, table)
        if spec is None:
            continue
        key = spec.model_id.casefold(), spec.version
        if key in folded:
            reader.wrong(full_name, f"it is there twice: {folded[key]!r}")
        folded[key] = full_name
        models[spec.model_id, spec.version] = spec
    ids = {model_id for model_id, _ in models}
    for spec in models.values():
        for fallback in spec.fallbacks:
            if parse_name(fallback).model_id not in ids:
                reader.wrong(f"{spec.model_id}@{spec.version}.fallbacks", f"there is no model {fallback!r}")
    if not models and not reader.problems:
        reader.wrong("models", "there is none")
    if reader.problems:
        raise _invalid(path, reader.problems)
    return Manifest(models, path, data)


def _check_schema(version: Any, path: Path) -> None:
    if version == SCHEMA_VERSION and type(version) is int:
        return
    if version is None:
        fix = f"begin it with `schema_version = {SCHEMA_VERSION}`, and see docs/models.md for the rest"
    elif type(version) is int and version > SCHEMA_VERSION:
        fix = "it was written for a later wan-fixes: install that one (pip install -U wan-fixes)"
    else:
        fix = f"set schema_version to {SCHEMA_VERSION} and let `wan models manifest validate` name what else differs"
    raise ModelError(
        ErrorCode.SCHEMA_VERSION,
        "the manifest cannot be read",
        path=path,
        reason=f"its schema version is {ascii(version)[:40]}, and this program reads {SCHEMA_VERSION}",
        fix=fix,
    )


def _invalid(path: Path, problems: list[str]) -> ModelError:
    shown = problems[:20] + ([f"and {len(problems) - 20} more"] if len(problems) > 20 else [])
    return ModelError(
        ErrorCode.INVALID_MANIFEST,
        "the manifest cannot be used",
        path=path,
        reason="; ".join(shown),
        fix="correct it; `wan models manifest validate FILE` checks it",
        context={"problems": problems},
    )


class _Reader:
    """Turns tables into specifications, and collects what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def wrong(self, where: str, why: str) -> None:
        self.problems.append(f"{where}: {why}"[:300])

    def names_only(self, table: Mapping[str, Any], where: str, known: set[str]) -> None:
        for name in table.keys() - known:
            self.wrong(f"{where}.{name}".lstrip("."), f"it is not known here ({', '.join(sorted(known))})")

    def table(self, table: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
        value = table.get(name, {})
        if not isinstance(value, dict) or not value:
            self.wrong(f"{where}.{name}".lstrip("."), "a table is missing")
            return {}
        return value

    def text(self, table: Mapping[str, Any], name: str, where: str, is_right: Callable[[str], Any], hint: str) -> str:
        value = table.get(name)
        if isinstance(value, str) and is_right(value):
            return value
        self.wrong(f"{where}.{name}", f"{ascii(value)[:80]} is not {hint}")
        return ""

    def texts(self, table: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
        value = table.get(name, [])
        if isinstance(value, list) and all(isinstance(item, str) and item for item in value):
            return tuple(value)
        self.wrong(f"{where}.{name}", "it is no list of names")
        return ()

    def number(self, table: Mapping[str, Any], name: str, where: str, *, whole: bool = False) -> Any:
        value = table.get(name)
        if type(value) in ((int,) if whole else (int, float)) and 0 <= value < 1e15:  # type: ignore[operator]
            return value
        self.wrong(f"{where}.{name}", f"{ascii(value)[:80]} is no {'whole ' if whole else ''}number from 0")
        return 0

    def model(self, full_name: str, table: Any) -> ModelSpec | None:
        model_id, _, version = full_name.partition("@")
        if not isinstance(table, dict) or not is_id(model_id) or not is_version(version):
            self.wrong(f"models.{full_name}"[:120], 'a table [models."ID@VERSION"] is meant, such as t2v-A14B@2.2.0')
            return None
        where = full_name
        self.names_only(table, where, _MODEL_NAMES)
        before = len(self.problems)
        variants = {}
        for name, variant in self.table(table, "variants", where).items():
            if not is_id(name):
                self.wrong(f"{where}.variants", f"{name[:80]!r} is no name of a variant")
            elif isinstance(variant, dict):
                variants[name] = self.variant(name, variant, f"{where}.variants.{name}")
            else:
                self.wrong(f"{where}.variants.{name}", "it is no table")
        spec = ModelSpec(
            model_id=model_id,
            version=version,
            label=self.text(table, "label", where, bool, "a text"),
            family=self.text(table, "family", where, FAMILIES.__contains__, " or ".join(FAMILIES)),
            mode=self.text(table, "mode", where, MODES.__contains__, " or ".join(MODES)),
            model_type=self.text(table, "model_type", where, bool, "OneTrainer's name of the model type"),
            pipeline=self.text(table, "pipeline", where, bool, "a class of diffusers"),
            components=self.texts(table, "components", where),
            optional=self.texts(table, "optional", where),
            defaults=self.table(table, "defaults", where),
            vram=self.vram(self.table(table, "vram", where), f"{where}.vram"),
            variants=variants,
            fallbacks=self.texts(table, "fallbacks", where),
        )
        if not spec.components:
            self.wrong(f"{where}.components", "there is none")
        for name in set(spec.optional) - set(spec.components):
            self.wrong(f"{where}.optional", f"{name!r} is none of its components")
        return spec if len(self.problems) == before else None

    def vram(self, table: Mapping[str, Any], where: str) -> VramParameters:
        self.names_only(table, where, set(VramParameters.__dataclass_fields__))
        return VramParameters(
            self.number(table, "transformer_billions", where),
            self.number(table, "text_encoder_billions", where),
            self.number(table, "vae_billions", where),
            self.number(table, "hidden_size", where, whole=True),
            self.number(table, "layers", where, whole=True),
        )

    def variant(self, name: str, table: Mapping[str, Any], where: str) -> VariantSpec:
        self.names_only(table, where, {"precision", "hub", "files"})
        return VariantSpec(
            name,
            self.text(table, "precision", where, _PRECISIONS.__contains__, " or ".join(_PRECISIONS)),
            self.hub(self.table(table, "hub", where), f"{where}.hub"),
            self.files(table.get("files", []), f"{where}.files"),
        )

    def hub(self, table: Mapping[str, Any], where: str) -> HubSource:
        self.names_only(table, where, {"repository", "revision"})
        repository = self.text(table, "repository", where, _is_repository, "OWNER/NAME")
        return HubSource(
            repository, self.text({"revision": "main", **table}, "revision", where, _is_revision, "a commit")
        )

    def files(self, listed: Any, where: str) -> tuple[FileSpec, ...]:
        if not isinstance(listed, list) or not all(isinstance(table, dict) for table in listed):
            self.wrong(where, "it is no list of tables")
            return ()
        found = []
        for number, table in enumerate(listed):
            at = f"{where}[{number}]"
            self.names_only(table, at, {"path", "size", "sha256"})
            path = self.text(table, "path", at, bool, "a path")
            size = self.number(table, "size", at, whole=True) if "size" in table else None
            sha256 = self.text(table, "sha256", at, _SHA256.fullmatch, "64 hex digits") if "sha256" in table else None
            found.append(FileSpec(path, size, sha256))
        try:
            check_paths((file.path for file in found if file.path), where)
        except ModelError as error:
            self.wrong(where, error.reason)
        return tuple(found)


_PRECISIONS: Final = ("fp32", "bf16", "fp16", "fp8")
_MODEL_NAMES: Final = {
    "label",
    "family",
    "mode",
    "model_type",
    "pipeline",
    "components",
    "optional",
    "defaults",
    "vram",
    "variants",
    "fallbacks",
}


def _is_repository(text: str) -> bool:
    return _REPOSITORY.fullmatch(text) is not None and ".." not in text


def _is_revision(text: str) -> bool:
    return _REVISION.fullmatch(text) is not None and ".." not in text and "//" not in text
