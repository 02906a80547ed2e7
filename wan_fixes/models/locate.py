"""From what somebody wrote as the base model to the folder of a model that is complete."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Final

from wan_fixes.health.text import size_text
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.fetching import Progress
from wan_fixes.models.installed import ModelState, ModelStatus
from wan_fixes.models.manifest import Manifest, load_manifest
from wan_fixes.models.names import is_id
from wan_fixes.models.paths import legacy_path
from wan_fixes.models.spec import HubSource, ModelSpec, VariantSpec

_SAY_SECONDS: Final = 1.0
_REPOSITORY: Final = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}")
_FILE_SUFFIXES: Final = (".safetensors", ".gguf", ".ckpt", ".pt", ".bin")
#: The version of a model that no manifest has, and that is what its repository has at the first download.
_UNKNOWN_VERSION: Final = "0"


@dataclass(frozen=True)
class NamedModel:
    """A model that somebody named, and the manifest that it is in."""

    spec: ModelSpec
    variant: VariantSpec
    manifest: Manifest

    @property
    def name(self) -> str:
        """Its full name."""
        return str(self.spec.name(self.variant.name))

    def look(self) -> ModelStatus:
        """What is there of it, whoever works on it."""
        ensurer = self.ensurer()
        return ensurer.look(ensurer.target(self.name))

    def ensurer(self) -> ModelEnsurer:
        """What has it there."""
        return ModelEnsurer(self.manifest)


def named_model(text: str, model_type: str) -> NamedModel | None:
    """The model that this text names: as the manifest does, or by its repository on the hub.

    A repository that the manifest does not have is taken to be a model of that type. The full path of a folder that is
    gone, and was called like a model, names that one. None for another path or name; what is there as a file or folder
    is that. Raises ModelError for ``ID@VERSION`` with an unknown id or version.
    """
    text = text.strip()
    if not text or Path(text).exists():
        return None
    manifest = load_manifest()
    if PureWindowsPath(text).anchor:  # a path in full, of any system: that of a model which is gone stands for it
        old = legacy_path(text, manifest)
        return None if old is None else NamedModel(*manifest.find(str(old)), manifest)
    if "\\" in text:
        return None
    if "/" in text:
        return _by_repository(text, model_type, manifest)
    try:
        return NamedModel(*manifest.find(text), manifest)
    except ModelError as error:
        if error.code is ErrorCode.UNKNOWN_MODEL and "@" not in text:
            return None
        raise


def _by_repository(text: str, model_type: str, manifest: Manifest) -> NamedModel | None:
    known = manifest.find_repository(text)
    if known is not None:
        return NamedModel(*known, manifest)
    is_path = Path(text).parent.is_dir() or text.lower().endswith(_FILE_SUFFIXES)
    if is_path or not _REPOSITORY.fullmatch(text) or ".." in text:
        return None
    alike = next(iter(manifest.of_type(model_type)), None)
    if alike is None:
        return None
    model_id = text.replace("/", "--")
    if not is_id(model_id):  # too long, or a name that some system has no folders of
        model_id = f"hub-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    variant = replace(alike.variants[alike.default_variant], hub=HubSource(text), files=(), s3=None)
    spec = replace(
        alike, model_id=model_id, version=_UNKNOWN_VERSION, label=text, variants={variant.name: variant}, fallbacks=()
    )
    key = model_id, _UNKNOWN_VERSION
    return NamedModel(spec, variant, replace(manifest, models={**manifest.models, key: spec}))


def named_like(model_type: str) -> list[str]:
    """The models of the manifest that are of a model type, as somebody would name them."""
    return [spec.model_id for spec in load_manifest().of_type(model_type)]


def check_complete(text: str, model_type: str) -> None:
    """Raise ModelError unless the model that is named so is there. Asks no server."""
    named = named_model(text, model_type)
    # Not `status`: who reads the model just now does not make it incomplete.
    status = None if named is None else named.look()
    if status is not None and status.state is not ModelState.COMPLETE:
        size = "" if status.bytes_needed is None else f", {size_text(status.bytes_needed)} of it are to be fetched"
        raise ModelError(
            ErrorCode.MISSING_FILES,
            "the model is not complete",
            path=status.folder,
            reason=f"it is {status.state.value}{size}",
            fix=f"`wan models ensure {text.strip()}` fetches it; so does the training itself",
        )


def locate_model(model_type: str, base_model: str, say: Callable[[str], None]) -> str | None:
    """The folder of the model that `base_model` names, which is fetched where it is not complete; None as above.

    The process uses the model from then on: nothing removes it. `say` is told about once a second how far it is. Raises
    ModelError, also where the name is another model type's.
    """
    named = named_model(base_model, model_type)
    if named is None:
        return None
    if named.spec.model_type != model_type:
        raise ModelError(
            ErrorCode.INVALID_CONFIG,
            f"{base_model.strip()} is {named.spec.label}",
            reason=f"the model type is set to {model_type}",
            fix=f"set it to {named.spec.model_type}, or name another model (`wan models list`)",
        )
    said_at = 0.0

    def came(progress: Progress) -> None:
        nonlocal said_at
        now = time.monotonic()
        if now - said_at >= _SAY_SECONDS or progress.done == progress.total:
            said_at = now
            say(f"fetching {progress.name}: {size_text(progress.done)} of {size_text(progress.total)}")

    ensurer = named.ensurer()
    ensurer.ensure(  # a revision that waits until nobody uses the model takes its place here
        named.name,
        on_progress=came,
        on_wait=lambda holder: say(f"waiting for {holder}, which fetches {base_model.strip()}"),
        is_opened=False,
    )
    ensurer.usage.use(ensurer.target(named.name).name)
    return str(ensurer.ensure(named.name, on_progress=came))  # it asks no server, unless gc has just come between
