"""The manifest: which models there are, where they come from and what they are made of.

A TOML file with a schema version. The one in this package lists the released WAN models; `WAN_MODELS_MANIFEST` names
another one, which takes its place. What a manifest leaves open (sizes, digests, the revision) comes from the hub at the
first download and is pinned from then on (see `lock_file`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.manifest_reader import ManifestReader
from wan_fixes.models.names import ModelName, Wanted, parse_name
from wan_fixes.models.signatures import Signed, require_signature
from wan_fixes.models.spec import ModelSpec, VariantSpec

SCHEMA_VERSION: Final = 1
MANIFEST_VARIABLE: Final = "WAN_MODELS_MANIFEST"
BUILT_IN: Final = Path(__file__).with_name("models.toml")
_LARGEST_MANIFEST: Final = 16 << 20
_SIGN_A_COPY: Final = (
    "copy it, look at the copy, sign that with `wan models manifest sign COPY --key PRIVATE.pem`, "
    f"and name it in {MANIFEST_VARIABLE}"
)


@dataclass(frozen=True)
class Manifest:
    """All models of one manifest, and the file that it came from."""

    models: Mapping[tuple[str, str], ModelSpec]
    path: Path
    text: bytes = field(repr=False, default=b"")

    def find(self, name: str | Wanted) -> tuple[ModelSpec, VariantSpec]:
        """The model and variant of that name; the latest version and the default variant where none is named.

        The repository on the hub will do as a name too.

        Raises ModelError that lists what there is.
        """
        if isinstance(name, str) and "/" in name:
            found = self.find_repository(name.strip())
            if found is not None:
                return found
        wanted = parse_name(name) if isinstance(name, str) else name
        model_id = self._ids.get(wanted.model_id.casefold())
        if model_id is None:
            raise self._unknown("model", wanted.model_id, sorted(self._ids.values()))
        versions = {version: spec for (of, version), spec in self.models.items() if of == model_id}
        version = wanted.version or max(versions, key=version_key)
        if version not in versions:
            raise self._unknown(f"version of {model_id}", version, sorted(versions, key=version_key))
        spec = versions[version]
        variant = wanted.variant or spec.default_variant
        if variant not in spec.variants:
            raise self._unknown(f"variant of {model_id}@{version}", variant, list(spec.variants))
        return spec, spec.variants[variant]

    def variants(self) -> Iterator[tuple[ModelSpec, VariantSpec]]:
        """Each model with each of its variants."""
        for spec in self.models.values():
            for variant in spec.variants.values():
                yield spec, variant

    def of_type(self, model_type: str) -> list[ModelSpec]:
        """The models of a model type."""
        return [spec for spec in self.models.values() if spec.model_type == model_type]

    def find_repository(self, repository: str) -> tuple[ModelSpec, VariantSpec] | None:
        """The model and variant that come from a repository on the hub (``OWNER/NAME``), whatever its case."""
        wanted = repository.casefold()
        return next((found for found in self.variants() if found[1].hub.repository.casefold() == wanted), None)

    @cached_property
    def _ids(self) -> dict[str, str]:
        """The ids of the models, by themselves in one case."""
        return {model_id.casefold(): model_id for model_id, _ in self.models}

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

    Raises ModelError naming everything that is wrong with it; where a key is configured, also unless it is signed.
    """
    file = manifest_path() if path is None else Path(path)
    data = manifest_bytes(file)
    require_signature(file, data, Signed.MANIFEST, fix=_SIGN_A_COPY if file == BUILT_IN else "")
    return parse_manifest(data, file)


def manifest_bytes(file: Path) -> bytes:
    """What is in the file of a manifest, unchecked. Raises ModelError."""
    try:
        with file.open("rb") as stream:
            data = stream.read(_LARGEST_MANIFEST + 1)
    except OSError as error:
        raise _invalid(file, [error.strerror or str(error)]) from error
    if len(data) > _LARGEST_MANIFEST:
        raise _invalid(file, [f"it is larger than {_LARGEST_MANIFEST >> 20} MiB"])
    return data


def parse_manifest(data: bytes, path: Path) -> Manifest:
    """Check the content of a manifest; `path` says where it came from. Raises ModelError like `load_manifest`."""
    try:
        content = tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:
        raise _invalid(path, [f"it is not TOML: {error}"]) from error
    _check_schema(content.get("schema_version"), path)
    reader = ManifestReader()
    reader.names_only(content, "", {"schema_version", "models"})
    models: dict[tuple[str, str], ModelSpec] = {}
    for full_name, table in reader.table(content, "models", "").items():
        spec = reader.model(full_name, table)
        if spec is not None:
            models[spec.model_id, spec.version] = spec
    manifest = Manifest(models, path, data)
    _check_names(models.values(), reader)
    _check_fallbacks(manifest, reader)
    if not models and not reader.problems:
        reader.wrong("models", "there is none")
    if reader.problems:
        raise _invalid(path, reader.problems)
    return manifest


def _check_names(specs: Iterable[ModelSpec], reader: ManifestReader) -> None:
    """Each id is written in one way, and each model has a folder to itself, also where the case of names is ignored."""
    ids: dict[str, str] = {}
    folders: dict[str, ModelName] = {}
    for spec in specs:
        same_id = ids.setdefault(spec.model_id.casefold(), spec.model_id)
        if same_id != spec.model_id:
            reader.wrong(f"{spec.model_id}@{spec.version}", f"only the case of its id differs from {same_id!r}")
        for name in map(spec.name, spec.variants):
            same_folder = folders.setdefault(name.folder_name.casefold(), name)
            if same_folder != name:
                reader.wrong(str(name), f"its folder would be that of {same_folder}")


def _check_fallbacks(manifest: Manifest, reader: ManifestReader) -> None:
    for spec in manifest.models.values():
        for fallback in spec.fallbacks:
            try:
                manifest.find(fallback)
            except ModelError as error:
                reader.wrong(f"{spec.model_id}@{spec.version}.fallbacks", f"{fallback[:80]!r}: {error.reason}")


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
