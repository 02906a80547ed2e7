"""Loads WAN's parts with OneTrainer's own machinery (quantisation, dtypes, Hub), and lets nothing broken through.

Stock loading checks neither completeness nor shapes: a missing weight dies later as "Cannot copy out of meta tensor",
a wrong shape at the first step, and NaN never.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.quantizers.gguf.utils import GGUFParameter
from modules.modelLoader.mixin.HFModelLoaderMixin import HFModelLoaderMixin
from modules.util.enum.DataType import DataType
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionModel, UMT5EncoderModel

from wan_fixes.errors import UserError
from wan_fixes.hosts.onetrainer.wan.model import WanModel
from wan_fixes.hosts.onetrainer.wan.precision import restore_full_precision
from wan_fixes.hosts.onetrainer.wan.single_file import (
    check_transformer_file,
    gguf_is_finite,
    load_transformer_file,
    unusable,
)
from wan_fixes.hosts.onetrainer.wan.text_offloading import share_embedding
from wan_fixes.hosts.onetrainer.wan.vae_access import serialize_access
from wan_fixes.hosts.standalone.model import check_tensors
from wan_fixes.hosts.standalone.model_files import ModelFolder, Part, check_model_folder
from wan_fixes.wan.variants import WanVariant

_INCLUDED = {"transformer": "include_transformer", "transformer_2": "include_transformer_2"}
_BACKUP = "meta.json"
"""What OneTrainer writes into the folder of a backup, and no model has."""


class WanModelLoader(HFModelLoaderMixin):
    """The base model: tokenizer, scheduler, text encoder, VAE and the transformers that are wanted."""

    def load(self, model: WanModel, model_type: Any, model_names: Any, weight_dtypes: Any, quantization: Any) -> None:
        """Fill `model` from a folder in diffusers' layout or a Hub repository of that layout.

        Raises
        ------
        UserError
            Naming part, file, reason and fix, if the folder is incomplete, damaged, or another variant's.
        """
        name = model_names.base_model
        experts = [part for part in _INCLUDED if getattr(model_names, _INCLUDED[part], True)]
        without = [] if model.variant.experts == 1 else [part for part in _INCLUDED if part not in experts]
        if len(without) == len(_INCLUDED):
            raise UserError(
                "no transformer is left to load",
                reason="both experts are switched off",
                fix="set include of transformer or of transformer_2",
            )
        transformers = [
            part for part in ("transformer", "transformer_2")[: model.variant.experts] if part not in without
        ]
        files = {part: file for part in transformers if (file := getattr(model_names, f"{part}_model", ""))}
        if (Path(name) / _BACKUP).is_file():
            files = {}  # a fine-tune goes on from the weights in its backup, not from those that it began with
        folder = None
        if _is_local(name):
            elsewhere = [*files, *(["vae"] if model_names.vae_model else [])]
            folder = check_model_folder(name, model.variant, without=without, loaded_elsewhere=elsewhere)
        encoders = ["text_encoder", "vae"] + (["image_encoder"] if model.variant.has_image_encoder else [])
        stored = {part: _checked(part, folder) for part in encoders if part != "vae" or not model_names.vae_model}
        for part in transformers:
            stored[part] = _check_transformer(part, name, files.get(part), weight_dtypes, folder)
        model.model_type = model_type
        model.tokenizer = AutoTokenizer.from_pretrained(name, subfolder="tokenizer", trust_remote_code=False)
        model.noise_scheduler, model.boundary_ratio = _load_scheduler(name, model.variant, folder)
        model.text_encoder = self._load_text_encoder(name, weight_dtypes, stored["text_encoder"])
        model.vae = self._load_vae(model_names, weight_dtypes, stored.get("vae"))
        if model.variant.has_image_encoder:
            model.image_encoder = self._load_image_encoder(name, weight_dtypes, stored["image_encoder"])
            model.image_processor = CLIPImageProcessor.from_pretrained(name, subfolder="image_processor")
        for part in transformers:
            loaded = self._load_transformer(part, name, files.get(part), weight_dtypes, quantization, stored[part])
            setattr(model, part, loaded)
        serialize_access(model.vae)
        if model.model_spec is not None:
            model.model_spec.architecture = f"wan{model.variant.family}/{model.variant.name.lower()}"
            model.model_spec.title = model.variant.label
            model.model_spec.prediction_type = "flow"

    def _load_text_encoder(self, name: str, dtypes: Any, stored: Part | None) -> Any:
        # What UMT5 keeps in fp32 gets this dtype, and with a quantised one everything that is not quantised does.
        kept = dtypes.fallback_train_dtype if dtypes.text_encoder.is_quantized() else DataType.FLOAT_32
        loaded = self._load_encoder("text_encoder", UMT5EncoderModel, dtypes.text_encoder, kept, name, stored)
        share_embedding(loaded)
        return loaded

    def _load_image_encoder(self, name: str, dtypes: Any, stored: Part | None) -> Any:
        dtype = getattr(dtypes, "image_encoder", dtypes.vae)
        return self._load_encoder("image_encoder", CLIPVisionModel, dtype, DataType.FLOAT_32, name, stored)

    def _load_encoder(
        self, part: str, kind: type[Any], dtype: Any, kept: DataType, name: str, stored: Part | None
    ) -> Any:
        try:
            loaded = self._load_transformers_sub_module(kind, dtype, kept, name, part)
        except AttributeError as error:  # OneTrainer looks for the module of each stored weight
            reason = f"it holds weights for which {kind.__name__} has no place: {error}"
            raise unusable(part, stored.folder if stored else name, reason) from error
        return _verified(part, loaded, stored, name)

    def _load_vae(self, names: Any, dtypes: Any, stored: Part | None) -> Any:
        name, subfolder = (names.vae_model, None) if names.vae_model else (names.base_model, "vae")
        loaded = self._load_diffusers_sub_module(AutoencoderKLWan, dtypes.vae, dtypes.train_dtype, name, subfolder)
        return _verified("vae", loaded, stored, name)

    def _load_transformer(
        self, part: str, base_model: str, file: str | None, dtypes: Any, quantization: Any, stored: Part | None
    ) -> Any:
        dtype = _dtype(part, dtypes)
        if file:
            loaded = load_transformer_file(part, file, base_model, dtype)
            loaded = self._convert_diffusers_sub_module_to_dtype(loaded, dtype, dtypes.train_dtype, quantization)
        else:
            loaded = self._load_diffusers_sub_module(
                WanTransformer3DModel, dtype, dtypes.train_dtype, base_model, part, quantization
            )
        restore_full_precision(loaded, None if dtype.is_gguf() else stored)
        return _verified(part, loaded, stored, file or base_model)


def _dtype(part: str, dtypes: Any) -> Any:
    return getattr(dtypes, part, dtypes.transformer)


def _is_local(name: str) -> bool:
    """Whether a model is meant as a path: what is neither there nor like a Hub id gets the folder's error message."""
    path = Path(name).expanduser()
    return path.exists() or path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1


def _checked(name: str, folder: ModelFolder | None) -> Part | None:
    if folder is None:
        return None
    check_tensors(name, folder.parts[name])
    return folder.parts[name]


def _check_transformer(
    part: str, base_model: str, file: str | None, dtypes: Any, folder: ModelFolder | None
) -> Part | None:
    dtype = _dtype(part, dtypes)
    if file:
        local = folder.parts[part].config if folder else None
        config = local or WanTransformer3DModel.load_config(base_model, subfolder=part)
        return check_transformer_file(part, file, dtype, config)
    if dtype.is_gguf():
        fix = f"name a .gguf file as model_name of {part}, or set another weight_dtype"
        raise unusable(part, base_model, f"the data type is {dtype}, and no GGUF file is named", fix)
    return _checked(part, folder)


def _verified(name: str, module: torch.nn.Module, part: Part | None, source: str) -> torch.nn.Module:
    """The module, in which every weight was filled, and with numbers. Weights in whole numbers have no NaN."""
    for key, tensor in [*module.named_parameters(), *module.named_buffers()]:
        stored = part.tensors.get(key) if part else None
        reason = ""
        if tensor.is_meta:
            reason = f"{key} is missing"
        elif not _is_finite(tensor):
            reason = f"{key} holds numbers that are not finite (NaN or infinity) as {tensor.dtype}"
        if reason:
            raise unusable(name, stored.file if stored else source, reason)
    return module.requires_grad_(False).eval()


def _is_finite(tensor: torch.Tensor) -> bool:
    if isinstance(tensor, GGUFParameter):
        return gguf_is_finite(tensor)
    return not tensor.is_floating_point() or tensor.element_size() == 1 or bool(tensor.isfinite().all())


def _load_scheduler(name: str, variant: WanVariant, folder: ModelFolder | None) -> tuple[Any, float | None]:
    """The scheduler that the model names, and the sigma at which the experts change."""
    if folder is not None:
        cls, boundary = getattr(diffusers, folder.scheduler), folder.boundary_ratio
    else:
        index = diffusers.DiffusionPipeline.load_config(name)
        cls = getattr(diffusers, index["scheduler"][1])
        boundary = index.get("boundary_ratio") or variant.boundary_ratio
    return cls.from_pretrained(name, subfolder="scheduler"), boundary
