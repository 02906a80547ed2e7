"""Where the parts of a model lie, and which model a path of old stands for."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wan_fixes.models.components import require_components
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.installed import ModelState
from wan_fixes.models.listing import INDEX_NAME
from wan_fixes.models.manifest import Manifest, load_manifest
from wan_fixes.models.names import ModelName
from wan_fixes.models.target import Target

# In the hub client's cache: models--OWNER--NAME, perhaps with /snapshots/COMMIT behind it.
_HUB_CACHE: Final = re.compile(r"(?:.*/)?models--([^/]+?)--([^/]+)(?:/snapshots(?:/[0-9a-f]{40})?)?", re.IGNORECASE)
# A revision that was put aside: versions/FOLDER/REVISION.
_PUT_ASIDE: Final = re.compile(r"(?:.*/)?versions/([^/]+)/[^/]+", re.IGNORECASE)


@dataclass(frozen=True)
class WanPaths:
    """A model that is complete.

    Attributes
    ----------
    root:
        Its folder, in diffusers' layout.
    components:
        The folders in it, by name: "transformer", "vae", "text_encoder" and so on.
    """

    name: ModelName
    root: Path
    components: Mapping[str, Path]


def get_wan_paths(
    model_id: str, variant: str | None = None, *, ensure: bool = False, ensurer: ModelEnsurer | None = None
) -> WanPaths:
    """Where a model's files are, after its components were checked. No weights are opened.

    Parameters
    ----------
    model_id:
        ``ID``, ``ID@VERSION``, ``ID@VERSION#VARIANT`` or its repository on the hub.
    ensure:
        Fetch what is missing; else no server is asked.
    ensurer:
        Whose models (default: as the environment says).

    Raises
    ------
    ModelError
        MISSING_FILES where it is not complete; whatever `ModelEnsurer.ensure` raises.
    """
    ensurer = ensurer or ModelEnsurer()
    target = ensurer.target(model_id, variant)
    if not ensure:
        _require_complete(ensurer, target)
    root = ensurer.ensure(str(target.name))
    require_components(root, target.spec)
    return WanPaths(target.name, root, {name: root / name for name in target.spec.components})


def legacy_path(path: str | os.PathLike[str], manifest: Manifest | None = None) -> ModelName | None:
    r"""The model that the path of a model folder stands for, as its names say; nothing on the disk is looked at.

    It may be of another machine or system: ``C:\models\...``, ``\\server\share\...``, ``/mnt/c/models/...``. Known are
    a folder named like the repository (or the ``model_index.json`` in it), a repository in the hub client's cache or a
    snapshot of it, and a folder below a ``MODELS_ROOT``. None for any other: Wan-AI's own layout, whose repositories
    are not called ``-Diffusers``, cannot be loaded here.
    """
    text = posixpath.normpath(os.fspath(path).strip().replace("\\", "/")).removesuffix(f"/{INDEX_NAME}")
    cached, put_aside = _HUB_CACHE.fullmatch(text), _PUT_ASIDE.fullmatch(text)
    repository = f"{cached[1]}/{cached[2]}".casefold() if cached else ""
    folder = (put_aside[1] if put_aside else text.rpartition("/")[2]).casefold()
    for spec, variant in (manifest or load_manifest()).variants():
        name, its_repository = spec.name(variant.name), variant.hub.repository.casefold()
        if repository == its_repository or folder in (its_repository.partition("/")[2], name.folder_name.casefold()):
            return name
    return None


def _require_complete(ensurer: ModelEnsurer, target: Target) -> None:
    status = ensurer.look(target)
    if status.state is ModelState.COMPLETE:
        return
    lacking = ", ".join((*status.missing, *status.corrupt)[:3])
    raise ModelError(
        ErrorCode.MISSING_FILES,
        f"{target.name} is not complete",
        path=target.folder,
        reason=f"it is {status.state.value}" + (f" and lacks {lacking}" if lacking else ""),
        fix=f"`wan models ensure {target.spec.short_name(target.variant.name)}` fetches it",
    )
