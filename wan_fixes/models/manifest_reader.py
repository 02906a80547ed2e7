"""From the tables of a manifest to specifications, with everything that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from wan_fixes.models.failures import ModelError
from wan_fixes.models.names import check_paths, is_id, is_version, problem_with_path
from wan_fixes.models.spec import FileSpec, HubSource, ModelSpec, S3Source, VariantSpec, VramParameters

MODES: Final = ("t2v", "i2v", "ti2v")
FAMILIES: Final = ("wan21", "wan22")

_REPOSITORY: Final = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REVISION: Final = re.compile(r"[\w][\w./-]{0,127}")


class ManifestReader:
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

    def flag(self, table: Mapping[str, Any], name: str, where: str) -> bool:
        value = table.get(name, False)
        if not isinstance(value, bool):
            self.wrong(f"{where}.{name}", f"{ascii(value)[:80]} is not true or false")
        return value is True

    def number(self, table: Mapping[str, Any], name: str, where: str) -> float:
        value: Any = table.get(name)
        if _is_number(value):
            return float(value)
        self.wrong(f"{where}.{name}", f"{ascii(value)[:80]} is no number from 0")
        return 0.0

    def whole(self, table: Mapping[str, Any], name: str, where: str, *, least: int = 1) -> int:
        value = table.get(name)
        if type(value) is int and least <= value < _LARGEST:
            return value
        self.wrong(f"{where}.{name}", f"{ascii(value)[:80]} is no whole number from {least}")
        return least

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
            defaults=self.defaults(self.table(table, "defaults", where), f"{where}.defaults"),
            vram=self.vram(self.table(table, "vram", where), f"{where}.vram"),
            variants=variants,
            fallbacks=self.texts(table, "fallbacks", where),
        )
        if not spec.components:
            self.wrong(f"{where}.components", "there is none")
        for name in set(spec.optional) - set(spec.components):
            self.wrong(f"{where}.optional", f"{name!r} is none of its components")
        return spec if len(self.problems) == before else None

    def defaults(self, table: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        self.names_only(table, where, {*_WHOLE_DEFAULTS, "scheduler", "precision", "guidance"})
        for name in _WHOLE_DEFAULTS & table.keys():
            self.whole(table, name, where)
        if "scheduler" in table:
            self.text(table, "scheduler", where, bool, "a class of diffusers")
        if "precision" in table:
            self.text(table, "precision", where, _PRECISIONS.__contains__, " or ".join(_PRECISIONS))
        if "guidance" in table and not _is_guidance(table["guidance"]):
            self.wrong(f"{where}.guidance", "it is no number from 0, nor two of them (for low noise, for high noise)")
        return table

    def vram(self, table: Mapping[str, Any], where: str) -> VramParameters:
        self.names_only(table, where, set(VramParameters.__dataclass_fields__))
        return VramParameters(
            self.number(table, "transformer_billions", where),
            self.number(table, "text_encoder_billions", where),
            self.number(table, "vae_billions", where),
            self.whole(table, "hidden_size", where),
            self.whole(table, "layers", where),
        )

    def variant(self, name: str, table: Mapping[str, Any], where: str) -> VariantSpec:
        self.names_only(table, where, {"precision", "hub", "s3", "files", "sensitive"})
        return VariantSpec(
            name,
            self.text(table, "precision", where, _PRECISIONS.__contains__, " or ".join(_PRECISIONS)),
            self.hub(self.table(table, "hub", where), f"{where}.hub"),
            self.files(table.get("files", []), f"{where}.files"),
            self.s3(self.table(table, "s3", where), f"{where}.s3") if "s3" in table else None,
            self.flag(table, "sensitive", where),
        )

    def hub(self, table: Mapping[str, Any], where: str) -> HubSource:
        self.names_only(table, where, {"repository", "revision"})
        repository = self.text(table, "repository", where, _is_repository, "OWNER/NAME")
        return HubSource(
            repository, self.text({"revision": "main", **table}, "revision", where, _is_revision, "a commit")
        )

    def s3(self, table: Mapping[str, Any], where: str) -> S3Source:
        self.names_only(table, where, {"bucket", "prefix"})
        bucket = self.text(table, "bucket", where, _is_bucket, "the name of a bucket")
        prefix = self.text({"prefix": "", **table}, "prefix", where, _is_prefix, "a path of folders")
        return S3Source(bucket, prefix.strip("/"))

    def files(self, listed: Any, where: str) -> tuple[FileSpec, ...]:
        if not isinstance(listed, list) or not all(isinstance(table, dict) for table in listed):
            self.wrong(where, "it is no list of tables")
            return ()
        found = []
        for number, table in enumerate(listed):
            at = f"{where}[{number}]"
            self.names_only(table, at, {"path", "size", "sha256"})
            path = self.text(table, "path", at, bool, "a path")
            size = self.whole(table, "size", at, least=0) if "size" in table else None
            sha256 = self.text(table, "sha256", at, _SHA256.fullmatch, "64 hex digits") if "sha256" in table else None
            found.append(FileSpec(path, size, sha256))
        try:
            check_paths((file.path for file in found if file.path), where)
        except ModelError as error:
            self.wrong(where, error.reason)
        return tuple(found)


_LARGEST: Final = 10**15
_WHOLE_DEFAULTS: Final = {"fps", "frames", "width", "height"}
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


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _LARGEST


def _is_guidance(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)))


def _is_repository(text: str) -> bool:
    return _REPOSITORY.fullmatch(text) is not None and ".." not in text


def _is_bucket(text: str) -> bool:
    return _BUCKET.fullmatch(text) is not None and ".." not in text


def _is_prefix(text: str) -> bool:
    return text.strip("/") == "" or problem_with_path(text.strip("/")) is None


def _is_revision(text: str) -> bool:
    return _REVISION.fullmatch(text) is not None and ".." not in text and "//" not in text
