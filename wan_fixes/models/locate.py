"""From what somebody wrote as the base model to the folder of a model that is complete."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from wan_fixes.health.text import size_text
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.fetching import Progress
from wan_fixes.models.installed import ModelState
from wan_fixes.models.manifest import load_manifest
from wan_fixes.models.spec import ModelSpec

_SAY_SECONDS: Final = 1.0


def named_model(text: str) -> ModelSpec | None:
    """The model of the manifest that this text names; None where it is a path, a hub id, or some other name.

    What is there as a file or folder is that. Raises ModelError for ``ID@VERSION`` with an unknown id or version.
    """
    text = text.strip()
    if not text or "/" in text or "\\" in text or Path(text).exists():
        return None
    try:
        spec, _ = load_manifest().find(text)
    except ModelError as error:
        if error.code is ErrorCode.UNKNOWN_MODEL and "@" not in text:
            return None
        raise
    return spec


def named_like(model_type: str) -> list[str]:
    """The models of the manifest that are of a model type, as somebody would name them."""
    return [spec.model_id for spec in load_manifest().models.values() if spec.model_type == model_type]


def check_complete(name: str) -> None:
    """Raise ModelError unless the model is there. Asks no server."""
    status = ModelEnsurer().status(name)
    if status.state is not ModelState.COMPLETE:
        size = "" if status.bytes_needed is None else f", {size_text(status.bytes_needed)} of it are to be fetched"
        raise ModelError(
            ErrorCode.MISSING_FILES,
            "the model is not complete",
            path=status.folder,
            reason=f"it is {status.state.value}{size}",
            fix=f"`wan models ensure {name.strip()}` fetches it; so does the training itself",
        )


def locate_model(model_type: str, base_model: str, say: Callable[[str], None]) -> str | None:
    """The folder of the model that `base_model` names, which is fetched where it is not complete; None as above.

    `say` is told about once a second how far that is. Raises ModelError, also where the name is another model type's.
    """
    spec = named_model(base_model)
    if spec is None:
        return None
    if spec.model_type != model_type:
        raise ModelError(
            ErrorCode.INVALID_CONFIG,
            f"{base_model.strip()} is {spec.label}",
            reason=f"the model type is set to {model_type}",
            fix=f"set it to {spec.model_type}, or name another model (`wan models list`)",
        )
    said_at = 0.0

    def came(progress: Progress) -> None:
        nonlocal said_at
        now = time.monotonic()
        if now - said_at >= _SAY_SECONDS or progress.done == progress.total:
            said_at = now
            say(f"fetching {progress.name}: {size_text(progress.done)} of {size_text(progress.total)}")

    folder = ModelEnsurer().ensure(
        base_model,
        on_progress=came,
        on_wait=lambda holder: say(f"waiting for {holder}, which fetches {base_model.strip()}"),
    )
    return str(folder)
