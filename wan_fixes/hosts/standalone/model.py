"""Loads a WAN model from a folder in diffusers' layout, and lets nothing incomplete or damaged through.

diffusers and transformers themselves check neither: a missing weight dies much later as "Cannot copy out of meta
tensor" or is filled with random numbers, a wrong shape fails at the first step, and NaN never fails at all.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wan_fixes.errors import UserError
from wan_fixes.hosts.standalone.model_files import ModelFolder, Part, check_model_folder
from wan_fixes.wan.variants import WanVariant, get_variant
from wan_fixes.wan.weight_files import StoredTensor

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class WanModel:
    """A loaded model: frozen, in evaluation mode, on one device."""

    variant: WanVariant
    path: Path
    tokenizer: Any
    """transformers' fast T5 tokenizer."""
    text_encoder: Any
    """`UMT5EncoderModel`."""
    vae: Any
    """`AutoencoderKLWan`. Neither `encode` nor `decode` may run in two threads at once: it keeps a feature cache."""
    transformer: Any
    """`WanTransformer3DModel`: the only one, or the high-noise expert. None where only the encoders were loaded."""
    scheduler: Any
    """The folder's flow scheduler, for previews."""
    transformer_2: Any | None = None
    """The low-noise expert."""
    boundary_ratio: float | None = None
    """The sigma at which the experts change."""


def load_model(
    path: Path | str,
    variant: WanVariant | str,
    *,
    dtypes: Mapping[str, torch.dtype] | None = None,
    device: torch.device | str = "cpu",
    encoders_only: bool = False,
) -> WanModel:
    """Load a WAN text-to-video model from a local folder, after checking that it is whole.

    Parameters
    ----------
    path:
        A folder in diffusers' layout. Nothing is downloaded.
    variant:
        What it has to be; a folder of another variant is refused.
    dtypes:
        Of `transformer` (both experts), `text_encoder` and `vae`; fp32 where not given. Layers that the models keep in
        fp32 for precision stay so.
    device:
        Where all parts go.
    encoders_only:
        Load no transformer, and ask only for its configuration: enough to fill the cache.

    Raises
    ------
    UserError
        Naming the part, the file, the reason and the fix, if the folder cannot be used.
    """
    variant = get_variant(variant) if isinstance(variant, str) else variant
    if variant.mode != "t2v":
        raise UserError(
            f"{variant.label} cannot be trained on the standalone host",
            reason="it conditions on an image; only text-to-video models are supported here",
            fix="train it in OneTrainer, or set model_type to a text-to-video model",
        )
    dtypes = dict(dtypes or {})
    left_out = ("transformer", "transformer_2") if encoders_only else ()
    folder = check_model_folder(path, variant, loaded_elsewhere=left_out)
    loaded: dict[str, torch.nn.Module | None] = dict.fromkeys(left_out)
    for name, part in folder.parts.items():
        if name in left_out:
            continue
        dtype = dtypes.get("transformer" if name == "transformer_2" else name, torch.float32)
        loaded[name] = load_part(name, part, dtype).to(device)
    model = WanModel(
        variant=variant,
        path=folder.path,
        tokenizer=load_tokenizer(folder),
        scheduler=load_scheduler(folder),
        boundary_ratio=folder.boundary_ratio,
        **loaded,
    )
    _check_vocabulary(model)
    return model


def load_part(name: str, part: Part, dtype: torch.dtype) -> torch.nn.Module:
    check_tensors(name, part)
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
    try:
        if name == "text_encoder":
            model = _class(name).from_pretrained(part.folder, dtype=dtype, **options)
        else:
            model = _class(name).from_pretrained(part.folder, torch_dtype=dtype, **options)
    except Exception as error:  # the boundary to the libraries: they raise whatever they come upon
        raise _broken(name, part.folder, f"loading failed: {error!r}") from error
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            stored = part.tensors.get(key)
            raise _broken(
                name,
                stored.file if stored else part.folder,
                f"{key} holds numbers that are not finite (NaN or infinity) as {dtype}",
            )
    return model.requires_grad_(False).eval()


def check_tensors(name: str, part: Part) -> None:
    """Compare the files' headers with what the configuration needs, before any weight is read."""
    try:
        with torch.device("meta"):
            cls = _class(name)
            if name in ("text_encoder", "image_encoder"):
                model = cls(cls.config_class.from_dict(part.config))
            else:
                model = cls.from_config(part.config)
    except Exception as error:  # the boundary to the libraries: any value may be wrong in a configuration
        raise _broken(name, part.folder / "config.json", f"no model can be made from it: {error!r}") from error
    expected = model.state_dict()
    if name == "image_encoder":
        part = replace(part, tensors=_clip_names(part.tensors, expected))
    # Tied weights are one tensor under several names, and a file need hold only one of them.
    names: dict[int, list[str]] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(key)
    tied = {key: group for group in names.values() for key in group}
    missing = [key for key in expected if not any(other in part.tensors for other in tied.get(key, [key]))]
    if missing:
        raise _broken(
            name,
            _only_file(part),
            f"{len(missing)} of {len(expected)} weights are missing, {missing[0]} among them",
        )
    for key, tensor in expected.items():
        stored = part.tensors.get(key)
        if stored and stored.shape != tuple(tensor.shape):
            raise _broken(
                name,
                stored.file,
                f"{key} has shape {list(stored.shape)}, and config.json makes it {list(tensor.shape)}",
            )
    _check_unused(name, part, model, sorted(part.tensors.keys() - expected.keys()))


def _clip_names(stored: dict[str, StoredTensor], expected: Collection[str]) -> dict[str, StoredTensor]:
    """CLIP's weights by the names that this version of transformers loads them under: newer ones leave out a prefix.

    Older ones also stored the numbers of the positions, which are no weights.
    """
    prefix = "vision_model."
    left_out = "" if any(name.startswith(prefix) for name in expected) else prefix
    return {
        name.removeprefix(left_out): tensor
        for name, tensor in stored.items()
        if not name.endswith("embeddings.position_ids")
    }


def _check_unused(name: str, part: Part, model: torch.nn.Module, unused: list[str]) -> None:
    """Weights that the model has no place for are a wrong configuration, or another model's that came along.

    A configuration with too few layers would cut the model short without a word. A text encoder, though, may come with
    the decoder of the whole UMT5.
    """
    known = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or []
    unused = [key for key in unused if not any(re.search(pattern, key) for pattern in known)]
    children = {child for child, _ in model.named_children()}
    misplaced = [key for key in unused if key.split(".")[0] in children]
    if misplaced:
        raise _broken(
            name,
            part.folder / "config.json",
            f"it has no place for {len(misplaced)} stored weights, {misplaced[0]} among them",
        )
    if unused:
        logger.warning("%s holds %d weights that the model does not use, %s among them", name, len(unused), unused[0])


def load_tokenizer(folder: ModelFolder) -> Any:
    from transformers import AutoTokenizer

    path = folder.path / "tokenizer"
    try:
        # trust_remote_code is said aloud: left out, a folder that asks for it would wait for an answer on the console.
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the boundary to the library: tokenizers raises bare exceptions
        raise _broken("tokenizer", path, f"loading failed: {error!r}") from error
    if tokenizer.pad_token_id is None or tokenizer.eos_token_id is None:
        raise _broken("tokenizer", path / "tokenizer_config.json", "it names no padding or no end token")
    return tokenizer


def load_scheduler(folder: ModelFolder) -> Any:
    import diffusers

    path = folder.path / "scheduler" / "scheduler_config.json"
    try:
        return getattr(diffusers, folder.scheduler).from_config(json.loads(path.read_text(encoding="utf-8")))
    except Exception as error:  # the boundary to the library: any value may be wrong in a configuration
        raise _broken("scheduler", path, f"no scheduler can be made from it: {error!r}") from error


def _check_vocabulary(model: WanModel) -> None:
    """A token that the text encoder does not know would be an index error in the middle of caching."""
    known, used = model.text_encoder.config.vocab_size, len(model.tokenizer)
    if used > known:
        raise _broken(
            "tokenizer", model.path / "tokenizer", f"it has {used} tokens, and the text encoder knows only {known}"
        )


def _class(name: str) -> Any:
    if name == "text_encoder":
        from transformers import UMT5EncoderModel

        return UMT5EncoderModel
    if name == "image_encoder":
        from transformers import CLIPVisionModel

        return CLIPVisionModel
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    return AutoencoderKLWan if name == "vae" else WanTransformer3DModel


def _only_file(part: Part) -> Path:
    files = {tensor.file for tensor in part.tensors.values()}
    return files.pop() if len(files) == 1 else part.folder


def _broken(name: str, path: Path, reason: str) -> UserError:
    return UserError(
        f"the model's {name} cannot be used",
        path=path,
        reason=reason,
        fix="download this file again, or take another copy of the model",
        module="model",
        context={"part": name},
    )
